/* Host functions that guest code calls: imports, for the life of the box, and callbacks, for the
 * length of the call that lends them.
 *
 * A callback's address is one of 16384 that no guest memory has, given out in turn, so that a
 * pointer which outlived its call meets nothing for a long time, and then only another function
 * that the host lends.  Whatever address the guest calls, the host reads arguments by the type of
 * the function that is there, through the range check. */
#include "binding.h"

#include <string.h>

enum { STRIDE = 4, MAX_SLOTS = 4096 };

/* A function the guest may call.  `call` lent it, or is NULL for an import. */
typedef struct Slot {
    uint32_t address;
    Function *prototype;
    PyObject *callable;
    const Call *call;
} Slot;

/* ---- the table ---- */

static Slot *slot_add(Box *box)
{
    if (box->slot_count == box->slot_room) {
        uint32_t room = box->slot_room * 2 + 4;
        Slot *slots = PyMem_Realloc(box->slots, room * sizeof *slots);
        if (slots == NULL)
            return (Slot *)PyErr_NoMemory();
        box->slots = slots;
        box->slot_room = room;
    }
    return &box->slots[box->slot_count++];
}

static const Slot *slot_find(const Box *box, uint32_t address)
{
    for (uint32_t i = box->slot_count; i-- > 0;)
        if (box->slots[i].address == address)
            return &box->slots[i];
    return NULL;
}

static void slot_drop(Box *box)
{
    Slot slot = box->slots[--box->slot_count];
    Py_DECREF(slot.prototype);
    Py_DECREF(slot.callable);
}

uint32_t callback_lend(Box *box, Call *call, const Function *prototype, PyObject *callable)
{
    uint32_t address;
    do {
        address = VX_CALLBACK_MIN + box->next_callback;
        box->next_callback = (box->next_callback + STRIDE) % (VX_CALLBACK_MAX - VX_CALLBACK_MIN);
    } while (slot_find(box, address) != NULL);
    Slot *slot = box->slot_count < MAX_SLOTS ? slot_add(box) : (Slot *)PyErr_NoMemory();
    if (slot == NULL) {
        error_keep(call);
        return 0;
    }
    *slot = (Slot){address, (Function *)Py_NewRef(prototype), Py_NewRef(callable), call};
    return address;
}

void callback_end(Box *box, const Call *call)
{
    while (box->slot_count != 0 && box->slots[box->slot_count - 1].call == call)
        slot_drop(box);
}

void callback_free(Box *box)
{
    while (box->slot_count != 0)
        slot_drop(box);
    PyMem_Free(box->slots);
    box->slots = NULL;
    box->slot_room = 0;
}

int callback_traverse(Box *box, visitproc visit, void *arg)
{
    for (uint32_t i = 0; i < box->slot_count; i++) {
        Py_VISIT(box->slots[i].prototype);
        Py_VISIT(box->slots[i].callable);
    }
    return 0;
}

static bool add_import(Box *box, PyObject *item)
{
    uint32_t address;
    PyObject *prototype, *callable;
    if (!PyArg_ParseTuple(item, "O&OO:import", convert_word, &address, &prototype, &callable))
        return false;
    if (!function_check(prototype) || ((Function *)prototype)->box != NULL) {
        PyErr_SetString(PyExc_TypeError, "import: not a prototype");
        return false;
    }
    Slot *slot = slot_add(box);
    if (slot != NULL)
        *slot = (Slot){address, (Function *)Py_NewRef(prototype), Py_NewRef(callable), NULL};
    return slot != NULL;
}

bool callback_set_imports(Box *box, PyObject *imports)
{
    PyObject *list = PySequence_Tuple(imports);
    bool ok = list != NULL;
    for (Py_ssize_t i = 0; ok && i < PyTuple_GET_SIZE(list); i++)
        ok = add_import(box, PyTuple_GET_ITEM(list, i));
    Py_XDECREF(list);
    return ok;
}

/* ---- arguments ---- */

/* One call of a host function. */
typedef struct Visit {
    Box *box;
    Call *call;
    Function *prototype;     /* held */
    PyObject *callable;      /* held */
    vx_callback *callback;
    uint32_t words[MAX_WORDS];
    PyObject *values[MAX_PARAMETERS];
    unsigned count;          /* of values that there are */
    bool bad_memory;         /* the guest passed a pointer to what is not its memory */
} Visit;

static PyObject *decode(Visit *visit, const Layout *layout, const void *bytes)
{
    Reader reader = {.core = visit->box->core, .left = MAX_MEMBER_TEXT};
    PyObject *object = codec_decode(layout, bytes, &reader);
    if (reader.failed) {
        visit->bad_memory = true;
        visit->callback->bad_address = reader.address;
    }
    return object;
}

static const void *readable(Visit *visit, uint32_t address, uint64_t size)
{
    const void *memory = "";
    if (size != 0)
        memory = vx_guest_pointer(visit->box->core, (vx_gaddr){address}, size, VX_PROT_READ);
    if (memory == NULL) {
        visit->bad_memory = true;
        visit->callback->bad_address = address;
    }
    return memory;
}

static PyObject *take_text(Visit *visit, uint32_t address)
{
    if (address == 0)
        return Py_NewRef(Py_None);
    vx_gaddr at = {address};
    size_t size = vx_guest_strlen(visit->box->core, at, MAX_STRING_RESULT);
    const char *text = readable(visit, address, size == SIZE_MAX ? UINT64_MAX : size + 1);
    return text != NULL ? memory_decode(text, size) : NULL;
}

/* Decoding makes objects, so other code may run: it reads a copy. */
static PyObject *take_struct(Visit *visit, const Layout *layout, uint32_t address)
{
    if (address == 0)
        return Py_NewRef(Py_None);
    const void *memory = readable(visit, address, layout->size);
    uint8_t *copy = memory != NULL ? PyMem_Malloc(layout->size) : NULL;
    if (copy == NULL)
        return memory != NULL ? PyErr_NoMemory() : NULL;
    PyObject *object = decode(visit, layout, memcpy(copy, memory, layout->size));
    PyMem_Free(copy);
    return object;
}

static PyObject *take_bytes(Visit *visit, const uint32_t *words, bool writable)
{
    const char *memory = readable(visit, words[0], words[1]);
    if (memory == NULL)
        return NULL;
    return writable ? PyByteArray_FromStringAndSize(memory, (Py_ssize_t)words[1])
                    : PyBytes_FromStringAndSize(memory, (Py_ssize_t)words[1]);
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

/* ---- results ---- */

static Place result_place(const Visit *visit)
{
    return (Place){.name = visit->prototype->name};
}

/* Host bytes to guest memory that lasts until the outermost call is over. */
static bool give_memory(Visit *visit, const void *data, Py_ssize_t size, uint32_t *address)
{
    vx_gaddr at;
    vx_sandbox *core = visit->box->core;
    visit->box->arena_used = true;
    void *memory = NULL;
    if ((uint64_t)size <= UINT32_MAX && vx_arena_alloc(core, (uint32_t)size, &at) == VX_OK)
        memory = size == 0 ? "" : vx_guest_pointer(core, at, (uint64_t)size, VX_PROT_WRITE);
    if (memory == NULL) {
        error_vxplug("GuestMemoryError", "%U(): no guest memory left for a result of %zd bytes",
                     visit->prototype->name, size);
        return false;
    }
    if (size != 0)
        memcpy(memory, data, (size_t)size);
    *address = at.value;
    return true;
}

static bool give_text(Visit *visit, PyObject *value)
{
    Place place = result_place(visit);
    if (value == Py_None)
        return true;
    if (!PyUnicode_Check(value))
        return error_place(&place, PyExc_TypeError, "expected str, got %s", Py_TYPE(value)->tp_name);
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    if (text == NULL)
        return false;
    if (strlen(text) != (size_t)size)
        return error_place(&place, PyExc_ValueError, "embedded null character");
    return give_memory(visit, text, size + 1, &visit->callback->result.eax);
}

/* The struct behind the hidden pointer, which the guest gave: it is checked as any other. */
static bool give_struct(Visit *visit, const void *bytes, uint32_t size)
{
    void *memory = vx_guest_pointer(visit->box->core, (vx_gaddr){visit->words[0]}, size,
                                    VX_PROT_READ | VX_PROT_WRITE);
    visit->callback->result.eax = visit->words[0];
    visit->callback->pop = 4;
    if (memory != NULL)
        memcpy(memory, bytes, size);
    visit->bad_memory = memory == NULL;
    visit->callback->bad_address = visit->words[0];
    return memory != NULL;
}

static bool give_view(Visit *visit, PyObject *value)
{
    Py_buffer view;
    uint32_t words[2] = {0, 0};
    Place place = result_place(visit);
    if (!PyObject_CheckBuffer(value))
        return error_place(&place, PyExc_TypeError, "expected a bytes-like object, got %s",
                           Py_TYPE(value)->tp_name);
    if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0)
        return false;
    bool ok = give_memory(visit, view.buf, view.len, &words[0]);
    words[1] = (uint32_t)view.len;
    PyBuffer_Release(&view);
    return ok && give_struct(visit, words, sizeof words);
}

static bool give_encoded(Visit *visit, PyObject *value)
{
    const Layout *layout = visit->prototype->result_layout;
    Place place = result_place(visit);
    uint8_t *bytes = PyMem_Calloc(1, layout->size);
    if (bytes == NULL)
        return PyErr_NoMemory() != NULL;
    bool ok = codec_encode(&place, layout, value, bytes, NULL) && give_struct(visit, bytes, layout->size);
    PyMem_Free(bytes);
    return ok;
}

static bool give_number(Visit *visit, PyObject *value)
{
    Code code = visit->prototype->result;
    Place place = result_place(visit);
    vx_callback *callback = visit->callback;
    uint32_t words[2] = {0, 0};
    if (!convert_value(&place, code, value, words))
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

static bool give_result(Visit *visit, PyObject *value)
{
    switch ((Code)visit->prototype->result) {
    case CODE_NONE:
        return true;
    case CODE_STR:
        return give_text(visit, value);
    case CODE_VIEW:
        return give_view(visit, value);
    case CODE_STRUCT:
        return give_encoded(visit, value);
    default:
        return give_number(visit, value);
    }
}

/* False: it has another size by now.  The callable may have given the array to other threads, which can resize it. */
static bool copy_of_array(PyObject *array, void *memory, uint32_t size)
{
    bool same;
    Py_BEGIN_CRITICAL_SECTION(array);
    same = PyByteArray_GET_SIZE(array) == (Py_ssize_t)size;
    if (same && size != 0)
        memcpy(memory, PyByteArray_AS_STRING(array), size);
    Py_END_CRITICAL_SECTION();
    return same;
}

/* What the callable wrote to the bytearrays it got for vx_mut. */
static bool give_written(Visit *visit)
{
    for (unsigned i = 0; i < visit->count; i++) {
        const Parameter *parameter = &visit->prototype->parameters[i];
        if (parameter->code != CODE_MUT)
            continue;
        const uint32_t *words = &visit->words[parameter->word];
        void *memory = vx_guest_pointer(visit->box->core, (vx_gaddr){words[0]}, words[1],
                                        VX_PROT_READ | VX_PROT_WRITE);
        if (words[1] != 0 && memory == NULL) {
            visit->bad_memory = true;
            visit->callback->bad_address = words[0];
            return false;
        }
        if (!copy_of_array(visit->values[i], memory, words[1])) {
            PyErr_Format(PyExc_BufferError, "%U(): a callback resized the buffer it was lent",
                         visit->prototype->name);
            return false;
        }
    }
    return true;
}

/* ---- one call ---- */

/* Conversions of the result may run Python code too, so soundness is asked last but for bytes. */
static bool visit_run(Visit *visit)
{
    if (!take_arguments(visit))
        return false;
    PyObject *value = PyObject_Vectorcall(visit->callable, visit->values, visit->count, NULL);
    if (value == NULL)
        return false;
    bool ok = hook_still_sound(visit->box) && give_result(visit, value) && hook_still_sound(visit->box)
        && give_written(visit);
    Py_DECREF(value);
    return ok;
}

static vx_callback_end visit_end(Visit *visit, bool ok)
{
    if (ok)
        return VX_CALLBACK_DONE;
    if (visit->bad_memory && !PyErr_Occurred()) {
        visit->call->fault_text = "the plugin passed a host function memory that is not all its own";
        return VX_CALLBACK_BAD_MEMORY;
    }
    error_keep(visit->call);
    return VX_CALLBACK_HOOK;
}

static vx_callback_end refuse_initialising(Call *call, const Slot *slot)
{
    error_vxplug("PolicyError", "import %U: not during initialisation, whose outcome all sandboxes share",
                 slot->prototype->name);
    error_keep(call);
    return VX_CALLBACK_HOOK;
}

vx_callback_end callback_serve(Box *box, Call *call, vx_callback *callback)
{
    const Slot *slot = slot_find(box, callback->function);
    if (slot == NULL) {
        call->fault_text = "call of a host function that is not, or no longer, lent to the plugin";
        return VX_CALLBACK_UNKNOWN;
    }
    if (box->core == NULL)
        return refuse_initialising(call, slot);
    Visit visit;
    visit.box = box;
    visit.call = call;
    visit.callback = callback;
    visit.prototype = (Function *)Py_NewRef(slot->prototype);
    visit.callable = Py_NewRef(slot->callable);
    visit.count = 0;
    visit.bad_memory = false;
    vx_callback_end end = visit_end(&visit, visit_run(&visit));
    for (unsigned i = 0; i < visit.count; i++)
        Py_DECREF(visit.values[i]);
    Py_DECREF(visit.callable);
    Py_DECREF(visit.prototype);
    return end;
}
