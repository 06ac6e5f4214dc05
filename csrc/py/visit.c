/* One call of a host function by guest code: its arguments, by the type of the function, and the callable.
 *
 * The words are copied once, then examined; whatever they lead to is copied too, through the range check, since
 * the guest may run again before the callable is done with it.  A guest can name the same memory many times, in
 * one call and in those that wait for it, so all the copies of a sandbox at a time are no larger than its memory may be.
 * answer.c has the way back. */
#include "binding.h"

#include <stdio.h>
#include <string.h>

/* ---- arguments ---- */

PyObject *visit_name(const Visit *visit)
{
    const Function *lender = visit->lender;
    if (lender == NULL)
        return PyUnicode_FromFormat("%U()", visit->prototype->name);
    return PyUnicode_FromFormat("%U() argument '%U'", lender->name, lender->parameters[visit->index].name);
}

/* Always false. */
static bool too_much(Visit *visit, uint32_t address, uint64_t size)
{
    const Box *box = visit->box;
    Call *call = visit->call;
    PyObject *name = visit_name(visit);
    const char *text = name != NULL ? PyUnicode_AsUTF8(name) : NULL;
    if (text != NULL)
        snprintf(call->fault_room, sizeof call->fault_room,
                 "%.90s was passed too much: for copies the memory limit of %llu bytes leaves %llu, and argument %u is "
                 "%llu bytes",
                 text, (unsigned long long)box->memory, (unsigned long long)(box->memory - box->lent), visit->count + 1,
                 (unsigned long long)size);
    Py_XDECREF(name);
    call->fault_text = call->fault_room;
    visit->bad_memory = true;
    visit->callback->bad_address = address;
    return false;
}

/* Before `size` bytes at `address` are copied for the argument that is taken now. */
static bool lend(Visit *visit, uint32_t address, uint64_t size)
{
    Box *box = visit->box;
    if (size > box->memory - box->lent)
        return too_much(visit, address, size);
    box->lent += size;
    visit->lent += size;
    return true;
}

static PyObject *decode(Visit *visit, const Layout *layout, const void *bytes)
{
    Reader reader = {.core = visit->box->core, .left = MAX_MEMBER_TEXT};
    PyObject *object = codec_decode(layout, bytes, &reader);
    if (reader.failed) {
        visit->bad_memory = true;
        visit->callback->bad_address = reader.address;
    }
    if (object != NULL && !lend(visit, reader.address, MAX_MEMBER_TEXT - reader.left))
        Py_CLEAR(object);
    return object;
}

void *visit_memory(Visit *visit, uint32_t address, uint64_t size, int rights)
{
    void *memory = "";
    if (size != 0)
        memory = vx_guest_pointer(visit->box->core, (vx_gaddr){address}, size, rights);
    if (memory == NULL) {
        visit->bad_memory = true;
        visit->callback->bad_address = address;
    }
    return memory;
}

static const void *readable(Visit *visit, uint32_t address, uint64_t size)
{
    return visit_memory(visit, address, size, VX_PROT_READ);
}

static PyObject *take_text(Visit *visit, uint32_t address)
{
    if (address == 0)
        return Py_NewRef(Py_None);
    vx_gaddr at = {address};
    size_t size = vx_guest_strlen(visit->box->core, at, MAX_STRING_RESULT);
    const char *text = readable(visit, address, size == SIZE_MAX ? UINT64_MAX : size + 1);
    return text != NULL && lend(visit, address, size) ? memory_decode(text, size) : NULL;
}

/* Decoding makes objects, so other code may run: it reads a copy. */
static PyObject *take_struct(Visit *visit, const Layout *layout, uint32_t address)
{
    if (address == 0)
        return Py_NewRef(Py_None);
    const void *memory = readable(visit, address, layout->size);
    if (memory == NULL || !lend(visit, address, layout->size))
        return NULL;
    uint8_t *copy = PyMem_Malloc(layout->size);
    if (copy == NULL)
        return PyErr_NoMemory();
    PyObject *object = decode(visit, layout, memcpy(copy, memory, layout->size));
    PyMem_Free(copy);
    return object;
}

static PyObject *take_bytes(Visit *visit, const uint32_t *words, bool writable)
{
    const char *memory = readable(visit, words[0], words[1]);
    if (memory == NULL || !lend(visit, words[0], words[1]))
        return NULL;
    return writable ? PyByteArray_FromStringAndSize(memory, (Py_ssize_t)words[1])
                    : PyBytes_FromStringAndSize(memory, (Py_ssize_t)words[1]);
}

/* Checked before, so that a forged count costs no memory, and again when there is an array to fill: making it
 * may run other code, which may call the guest. */
static PyObject *take_numbers(Visit *visit, const Layout *layout, const uint32_t *words)
{
    uint64_t size = (uint64_t)words[1] * layout->size;
    void *memory;
    if (readable(visit, words[0], size) == NULL || !lend(visit, words[0], size))
        return NULL;
    PyObject *array = numbers_create(visit->box->state, layout->code, words[1], &memory);
    const void *data = array != NULL ? readable(visit, words[0], size) : NULL;
    if (data == NULL)
        Py_CLEAR(array);
    else if (size != 0)
        memcpy(memory, data, size);
    return array;
}

static PyObject *take_function(Visit *visit, const Function *prototype, uint32_t address)
{
    if (address == 0)
        return Py_NewRef(Py_None);
    PyObject *giver = visit_name(visit), *name = NULL;
    if (giver != NULL)
        name = PyUnicode_FromFormat("argument of %U", giver);
    Py_XDECREF(giver);
    return pointer_get(visit->box, prototype, name, address);
}

static PyObject *take_argument(Visit *visit, const Parameter *parameter)
{
    const uint32_t *words = &visit->words[parameter->word];
    uint64_t bits = words[0];
    switch ((Code)parameter->code) {
    case CODE_STR:
        return take_text(visit, words[0]);
    case CODE_VIEW:
    case CODE_MUT:
        return take_bytes(visit, words, parameter->code == CODE_MUT);
    case CODE_STRUCT:
        return decode(visit, parameter->layout, words);
    case CODE_NUMBERS:
        return take_numbers(visit, parameter->layout, words);
    case CODE_CALLBACK:
        return take_function(visit, parameter->layout->prototype, words[0]);
    case CODE_HANDLE:
        return handle_get(visit->box, parameter->layout, words[0]);
    case CODE_POINTER:
        return take_struct(visit, parameter->layout->target, words[0]);
    default:
        if (parameter->words == 2)
            bits |= (uint64_t)words[1] << 32;
        return codec_number(parameter->code, parameter->layout, bits);
    }
}

static bool take_arguments(Visit *visit)
{
    const Function *prototype = visit->prototype;
    uint64_t size = prototype->word_count * sizeof *visit->words;
    const void *memory = readable(visit, visit->callback->arguments.value, size);
    if (memory == NULL)
        return false;
    memcpy(visit->words, memory, size);
    for (; visit->count < prototype->parameter_count; visit->count++) {
        PyObject *value = take_argument(visit, &prototype->parameters[visit->count]);
        if (value == NULL)
            return false;
        visit->values[visit->count] = value;
    }
    return true;
}

/* ---- the call ---- */

/* Conversions of what it gives may run Python code too, so soundness is asked last but for bytes. */
bool visit_run(Visit *visit)
{
    if (!take_arguments(visit))
        return false;
    PyObject *value = PyObject_Vectorcall(visit->callable, visit->values, visit->count, NULL);
    if (value == NULL)
        return false;
    bool ok = hook_still_sound(visit->box) && answer_give(visit, value) && hook_still_sound(visit->box)
        && answer_write_back(visit);
    Py_DECREF(value);
    return ok;
}
