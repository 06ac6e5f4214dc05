/* simdjson, unmodified, with its exceptions: they are caught here, inside the sandbox, and become Python's. */
#include <cstring>
#include <string>
#include <simdjson.h>
#include <vxplug.h>

using namespace simdjson;

VX_MODULE_DOC("JSON by simdjson, in a sandbox.");

static void *copied(const std::string &text) {
    void *out = std::malloc(text.size());
    if (!out) throw std::bad_alloc();
    return std::memcpy(out, text.data(), text.size());
}

template <class Work> static vx_bytes guarded(Work work) {
    try {
        std::string text = work();
        return vx_take(copied(text), text.size());
    } catch (const simdjson_error &error) {
        switch (error.error()) {
        case NO_SUCH_FIELD: return vx_raise(VX_KeyError, "%s", error.what());
        case INDEX_OUT_OF_BOUNDS: return vx_raise(VX_IndexError, "%s", error.what());
        case INCORRECT_TYPE: return vx_raise(VX_TypeError, "%s", error.what());
        default: return vx_raise(VX_ValueError, "%s", error.what());
        }
    } catch (const std::bad_alloc &) {
        return vx_raise(VX_MemoryError, "the document needs more memory than the sandbox has");
    }
}

static padded_string padded(vx_view json) { return padded_string(static_cast<const char *>(json.ptr), json.len); }

VX_DOC(minify, "The document without white space; ValueError if it is no JSON.");
VX_EXPORT vx_bytes minify(vx_view json) {
    return guarded([&] {
        dom::parser parser;
        return std::string(simdjson::minify(parser.parse(padded(json)).value()));
    });
}

VX_DOC(at, "The part of the document that a JSON pointer names, as JSON.");
VX_EXPORT vx_bytes at(vx_view json, const char *pointer) {
    return guarded([&] {
        dom::parser parser;
        dom::element found = parser.parse(padded(json)).at_pointer(pointer);
        return std::string(simdjson::minify(found));
    });
}
