/* Streams: an export that gives its result in pieces.  The plugin's side is sdk/lib/vx_stream.c; here
 * one is made: a coroutine in the guest, with arguments in memory that lasts as long as it does. */
#include "binding.h"

#include <string.h>

/* Calls a function of the SDK in the plugin. */
static bool ask(const Function *function, Call *call, uint32_t address, uint32_t first,
                uint32_t second, uint32_t *result)
{
    uint32_t words[2] = {first, second};
    vx_result got;
    vx_status status = box_call_more(function->box, call, address, words, 2, &got);
    *result = got.eax;
    if (status != VX_OK)
        call_failed(function, call, status);
    return status == VX_OK;
}

static bool no_memory(const Function *function, Call *call)
{
    error_vxplug("GuestMemoryError", "%U(): no guest memory left for the stream", function->name);
    error_keep(call);
    return false;
}

static bool place(const Function *function, Call *call, uint32_t coroutine, Lease *lease)
{
    uint32_t address;
    uint64_t size = (uint64_t)lease->buffer.len;
    if (size > UINT32_MAX)
        return no_memory(function, call);
    if (!ask(function, call, function->result_layout->alloc, coroutine, (uint32_t)size, &address))
        return false;
    if (address == 0)
        return no_memory(function, call);
    lease->address.value = address;
    void *target = vx_guest_pointer(function->box->core, lease->address, size, VX_PROT_WRITE);
    if (size != 0 && target == NULL)
        return error_fault(function, call, address, "the plugin gave no memory for an argument");
    if (size != 0)
        memcpy(target, lease->buffer.buf, size);
    texts_link(lease, target);
    return true;
}

static bool place_all(Function *function, Call *call, uint32_t coroutine, Lease *leases,
                      uint32_t *words)
{
    for (unsigned i = 0; i < function->lease_count; i++) {
        Lease *lease = &leases[i];
        bool in_memory = !lease->none && lease->object == NULL;
        if ((in_memory && !place(function, call, coroutine, lease))
            || !memory_words(function, call, lease, words))
            return false;
    }
    return true;
}

/* Where the words go is the first thing in the coroutine; the guest's word is not taken for it. */
static bool give_words(const Function *function, Call *call, uint32_t coroutine,
                       const uint32_t *words)
{
    vx_sandbox *core = function->box->core;
    vx_gaddr at;
    uint64_t size = function->word_count * sizeof *words;
    const void *pointer = vx_guest_pointer(core, (vx_gaddr){coroutine}, sizeof at, VX_PROT_READ);
    void *target = NULL;
    if (pointer != NULL) {
        memcpy(&at, pointer, sizeof at);
        target = vx_guest_pointer(core, at, size, VX_PROT_READ | VX_PROT_WRITE);
    }
    if (target == NULL)
        return error_fault(function, call, coroutine, "the plugin made no stream to write to");
    memcpy(target, words, size);
    return true;
}

/* The stream has to keep the handles that it was given. */
static bool keep_objects(const Function *function, PyObject *stream, const Lease *leases)
{
    PyObject *kept = PyList_New(0);
    bool ok = kept != NULL;
    for (unsigned i = 0; ok && i < function->lease_count; i++)
        if (leases[i].object != NULL)
            ok = PyList_Append(kept, leases[i].object) == 0;
    ok = ok && PyObject_SetAttrString(stream, "__kept__", kept) == 0;
    Py_XDECREF(kept);
    return ok;
}

PyObject *stream_open(Function *function, Call *call, uint32_t *words, Lease *leases)
{
    const Layout *layout = function->result_layout;
    uint32_t coroutine;
    vx_call_anew(function->box->core);
    if (!ask(function, call, layout->open, function->address.value, function->word_count, &coroutine))
        return NULL;
    if (coroutine == 0) {
        no_memory(function, call);
        return NULL;
    }
    PyObject *stream = handle_get(function->box, layout->target, coroutine);
    if (stream == NULL || !keep_objects(function, stream, leases)) {
        error_keep(call);
        Py_CLEAR(stream);
    } else if (!place_all(function, call, coroutine, leases, words)
               || !give_words(function, call, coroutine, words)) {
        Py_CLEAR(stream);
    }
    return stream;
}
