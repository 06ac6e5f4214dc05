/* What a host function gives to the guest that called it: its result, what pointers lead to, and what it wrote.
 *
 * A callable gives what an export of the same C type would: the function's own result, then one value for each
 * pointer that is not const; None leaves what is there.  Guest memory for it lasts until the outermost
 * call is over. */
#include "binding.h"

#include <string.h>

static Place result_place(const Visit *visit)
{
    if (visit->lender == NULL)
        return (Place){.name = visit->prototype->name};
    Place place = place_argument(visit->lender, visit->index);
    place.given = true;
    return place;
}

/* ---- results ---- */

static bool no_memory(const Visit *visit, Py_ssize_t size)
{
    Place place = result_place(visit);
    PyObject *type = error_class("GuestMemoryError");
    if (type != NULL)
        error_place(&place, type, "no guest memory left for %zd bytes", size);
    Py_XDECREF(type);
    return false;
}

/* Host bytes to guest memory of their own. */
static bool give_memory(Visit *visit, const void *data, Py_ssize_t size, uint32_t *address)
{
    vx_gaddr at;
    vx_sandbox *core = visit->box->core;
    visit->box->arena_used = true;
    void *memory = NULL;
    if ((uint64_t)size <= UINT32_MAX && vx_arena_alloc(core, (uint32_t)size, &at) == VX_OK)
        memory = size == 0 ? "" : vx_guest_pointer(core, at, (uint64_t)size, VX_PROT_WRITE);
    if (memory == NULL)
        return no_memory(visit, size);
    if (size != 0)
        memcpy(memory, data, (size_t)size);
    *address = at.value;
    return true;
}

/* Host bytes to where the guest wants them. */
static bool give_bytes(Visit *visit, uint32_t address, const void *bytes, uint32_t size)
{
    void *memory = visit_memory(visit, address, size, VX_PROT_READ | VX_PROT_WRITE);
    if (memory != NULL)
        memcpy(memory, bytes, size);
    return memory != NULL;
}

/* The struct behind the hidden pointer, which the guest gave: it is checked as any other. */
static bool give_struct(Visit *visit, const void *bytes, uint32_t size)
{
    visit->callback->result.eax = visit->words[0];
    visit->callback->pop = 4;
    return give_bytes(visit, visit->words[0], bytes, size);
}

static bool give_text(Visit *visit, const Place *place, PyObject *value)
{
    if (value == Py_None)
        return true;
    if (!PyUnicode_Check(value))
        return error_place(place, PyExc_TypeError, "expected str, got %s", Py_TYPE(value)->tp_name);
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    if (text == NULL)
        return false;
    if (strlen(text) != (size_t)size)
        return error_place(place, PyExc_ValueError, "embedded null character");
    return give_memory(visit, text, size + 1, &visit->callback->result.eax);
}

/* Bytes, or with a layout numbers. */
static bool give_view(Visit *visit, const Place *place, PyObject *value)
{
    const Layout *layout = visit->prototype->result_layout;
    Py_buffer view;
    uint32_t words[2] = {0, 0};
    if (!PyObject_CheckBuffer(value))
        return error_place(place, PyExc_TypeError, "expected a bytes-like object, got %s",
                           Py_TYPE(value)->tp_name);
    const char *pointers = layout == NULL ? buffer_pointers(value) : NULL;
    if (pointers != NULL)
        return error_place(place, PyExc_TypeError, BUFFER_OF, Py_TYPE(value)->tp_name, pointers);
    if (PyObject_GetBuffer(value, &view, layout != NULL ? PyBUF_FORMAT | PyBUF_C_CONTIGUOUS : PyBUF_SIMPLE) < 0)
        return false;
    bool ok = (layout == NULL || numbers_fit(place, layout, &view))
        && give_memory(visit, view.buf, view.len, &words[0]);
    words[1] = (uint32_t)view.len / (layout != NULL ? layout->size : 1);
    PyBuffer_Release(&view);
    return ok && give_struct(visit, words, sizeof words);
}

/* A value as C has it, from PyMem; NULL with an exception. */
static uint8_t *encoded(const Place *place, const Layout *layout, PyObject *value)
{
    uint8_t *bytes = PyMem_Calloc(1, layout->size);
    if (bytes == NULL) {
        PyErr_NoMemory();
    } else if (!codec_encode(place, layout, value, bytes, NULL)) {
        PyMem_Free(bytes);
        return NULL;
    }
    return bytes;
}

static bool give_encoded(Visit *visit, const Place *place, PyObject *value)
{
    const Layout *layout = visit->prototype->result_layout;
    uint8_t *bytes = encoded(place, layout, value);
    bool ok = bytes != NULL && give_struct(visit, bytes, layout->size);
    PyMem_Free(bytes);
    return ok;
}

static bool give_pointer(Visit *visit, const Place *place, PyObject *value)
{
    const Layout *target = visit->prototype->result_layout->target;
    if (value == Py_None)
        return true;
    uint8_t *bytes = encoded(place, target, value);
    bool ok = bytes != NULL && give_memory(visit, bytes, (Py_ssize_t)target->size, &visit->callback->result.eax);
    PyMem_Free(bytes);
    return ok;
}

static bool give_handle(Visit *visit, const Place *place, PyObject *value)
{
    PyTypeObject *class = (PyTypeObject *)visit->prototype->result_layout->class;
    if (value == Py_None)
        return true;
    if (!Py_IS_TYPE(value, class))
        return error_place(place, PyExc_TypeError, "expected %s, got %s", class->tp_name, Py_TYPE(value)->tp_name);
    visit->callback->result.eax = handle_word(visit->box, place, value);
    return visit->callback->result.eax != 0;
}

static bool give_number(Visit *visit, const Place *place, PyObject *value)
{
    Code code = visit->prototype->result;
    vx_callback *callback = visit->callback;
    uint32_t words[2] = {0, 0};
    if (!convert_value(place, code, value, words))
        return false;
    callback->has_st0 = code == CODE_F32 || code == CODE_F64;
    if (code == CODE_F64) {
        memcpy(&callback->result.st0, words, sizeof callback->result.st0);
    } else if (code == CODE_F32) {
        float narrow;
        memcpy(&narrow, words, sizeof narrow);
        callback->result.st0 = narrow;
    }
    callback->result.eax = words[0];
    callback->result.edx = words[1];
    return true;
}

static bool give_result(Visit *visit, const Place *place, PyObject *value)
{
    switch ((Code)visit->prototype->result) {
    case CODE_NONE:
        return true;
    case CODE_STR:
        return give_text(visit, place, value);
    case CODE_VIEW:
    case CODE_NUMBERS:
        return give_view(visit, place, value);
    case CODE_STRUCT:
        return give_encoded(visit, place, value);
    case CODE_POINTER:
        return give_pointer(visit, place, value);
    case CODE_HANDLE:
        return give_handle(visit, place, value);
    default:
        return give_number(visit, place, value);
    }
}

/* ---- what pointers lead to ---- */

static bool give_pointed(Visit *visit, const Place *place, unsigned index, PyObject *value)
{
    const Parameter *parameter = &visit->prototype->parameters[index];
    const Layout *target = parameter->layout->target;
    uint32_t address = visit->words[parameter->word];
    if (value == Py_None)
        return true;
    if (address == 0)
        return error_place(place, PyExc_TypeError, "expected None, for a pointer that was NULL, got %s",
                           Py_TYPE(value)->tp_name);
    uint8_t *bytes = encoded(place, target, value);
    bool ok = bytes != NULL && give_bytes(visit, address, bytes, target->size);
    PyMem_Free(bytes);
    return ok;
}

/* From a tuple with one for each, in order. */
static bool give_parts(Visit *visit, const Place *whole, PyObject *tuple)
{
    const Function *prototype = visit->prototype;
    Place place = {.outer = whole, .item = 0};
    if (prototype->result != CODE_NONE) {
        if (!give_result(visit, &place, PyTuple_GET_ITEM(tuple, 0)))
            return false;
        place.item++;
    }
    for (unsigned i = 0; i < prototype->parameter_count; i++) {
        const Parameter *parameter = &prototype->parameters[i];
        if (parameter->code != CODE_POINTER || !parameter->layout->out)
            continue;
        if (!give_pointed(visit, &place, i, PyTuple_GET_ITEM(tuple, place.item)))
            return false;
        place.item++;
    }
    return true;
}

static unsigned only_pointer(const Function *prototype)
{
    unsigned i = 0;
    while (prototype->parameters[i].code != CODE_POINTER || !prototype->parameters[i].layout->out)
        i++;
    return i;
}

bool answer_give(Visit *visit, PyObject *value)
{
    const Function *prototype = visit->prototype;
    bool has_result = prototype->result != CODE_NONE;
    unsigned count = has_result + prototype->out_count;
    Place place = result_place(visit);
    if (prototype->out_count == 0)
        return give_result(visit, &place, value);
    if (!has_result && value == Py_None)
        return true;
    if (count == 1)
        return give_pointed(visit, &place, only_pointer(prototype), value);
    if (PyTuple_Check(value) && PyTuple_GET_SIZE(value) == (Py_ssize_t)count)
        return give_parts(visit, &place, value);
    return error_place(&place, PyExc_TypeError, "expected a tuple of %u, %sone for each pointer, got %s%s", count,
                       has_result ? "the result and " : "", Py_TYPE(value)->tp_name,
                       PyTuple_Check(value) ? " of another size" : "");
}

/* ---- what was written to buffers ---- */

/* False: it has another size by now.  The callable may have given the array to other threads, which can resize it. */
static bool copy_of_array(PyObject *array, void *memory, uint64_t size)
{
    bool same;
    Py_BEGIN_CRITICAL_SECTION(array);
    same = (uint64_t)PyByteArray_GET_SIZE(array) == size;
    if (same && size != 0)
        memcpy(memory, PyByteArray_AS_STRING(array), size);
    Py_END_CRITICAL_SECTION();
    return same;
}

/* The same for numbers: an array.array, which cannot be resized while somebody has its buffer. */
static bool copy_of_numbers(PyObject *array, void *memory, uint64_t size)
{
    Py_buffer view;
    if (PyObject_GetBuffer(array, &view, PyBUF_SIMPLE) < 0)
        return false;
    bool same = (uint64_t)view.len == size;
    if (same && size != 0)
        memcpy(memory, view.buf, size);
    PyBuffer_Release(&view);
    return same;
}

static bool write_back(Visit *visit, const Parameter *parameter, PyObject *array)
{
    const uint32_t *words = &visit->words[parameter->word];
    bool numbers = parameter->code == CODE_NUMBERS;
    uint64_t size = numbers ? (uint64_t)words[1] * parameter->layout->size : words[1];
    void *memory = visit_memory(visit, words[0], size, VX_PROT_READ | VX_PROT_WRITE);
    if (memory == NULL)
        return false;
    if (numbers ? copy_of_numbers(array, memory, size) : copy_of_array(array, memory, size))
        return true;
    PyObject *name = PyErr_Occurred() == NULL ? visit_name(visit) : NULL;
    if (name != NULL)
        PyErr_Format(PyExc_BufferError, "%U resized the buffer it was lent", name);
    Py_XDECREF(name);
    return false;
}

bool answer_write_back(Visit *visit)
{
    for (unsigned i = 0; i < visit->count; i++) {
        const Parameter *parameter = &visit->prototype->parameters[i];
        bool lent = parameter->code == CODE_MUT || (parameter->code == CODE_NUMBERS && parameter->layout->out);
        if (lent && !write_back(visit, parameter, visit->values[i]))
            return false;
    }
    return true;
}
