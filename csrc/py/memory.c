/* Arguments and results that live in guest memory.
 *
 * An argument is taken in two steps.  memory_lease runs before the box is locked, because asking
 * an object for its buffer may run Python code.  memory_copy_in runs with the lock held and
 * touches only bytes.  A view is let go once it is copied; a mut is held until the guest has
 * returned and its bytes were copied back.  What lies in a Buffer of the sandbox is not copied, and held.  When one buffer is passed for two mut parameters,
 * the guest has two copies, and the later parameter's comes back last. */
#include "binding.h"

#include <string.h>

/* What a vx_bytes result looks like in guest memory (sdk/include/vxplug.h). */
typedef struct GuestBytes {
    uint32_t ptr, len, owner;
} GuestBytes;
_Static_assert(sizeof(GuestBytes) == BYTES_RESULT_SIZE, "vx_bytes is three words on i386");

/* ---- leases ---- */

static bool lease_str(const Function *function, unsigned index, PyObject *value, Lease *lease)
{
    if (!PyUnicode_Check(value))
        return error_argument(function, index, PyExc_TypeError, "expected str, got %s",
                              Py_TYPE(value)->tp_name);
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    if (text == NULL)
        return false;
    if (strlen(text) != (size_t)size)
        return error_argument(function, index, PyExc_ValueError, "embedded null character");
    lease->buffer = (Py_buffer){.buf = (void *)text, .len = size + 1};
    return true;
}

/* What of a format's items are the host's pointers, or NULL: none.  PEP 3118 has 'O', '&' and 'X', ctypes 'P', 'z' and 'Z',
 * which before a float makes it complex.  A field's name, between colons, means nothing. */
static const char *pointers_of_format(const char *format)
{
    bool name = false;
    for (; format != NULL && *format != '\0'; format++) {
        name ^= *format == ':';
        if (*format == 'O' && !name)
            return "Python objects";
        bool complex = *format == 'Z' && format[1] != '\0' && strchr("fdg", format[1]) != NULL;
        if (!name && !complex && strchr("&PXZz", *format) != NULL)
            return "pointers";
    }
    return NULL;
}

/* NumPy makes no format of what has dates or text of any length in it, and knows what else is there. */
static const char *pointers_of_dtype(PyObject *value)
{
    PyObject *dtype = PyObject_GetAttrString(value, "dtype");
    PyObject *has = dtype != NULL ? PyObject_GetAttrString(dtype, "hasobject") : NULL;
    bool found = has != NULL && PyObject_IsTrue(has) > 0;
    Py_XDECREF(has);
    Py_XDECREF(dtype);
    PyErr_Clear();
    return found ? "Python objects" : NULL;
}

const char *buffer_pointers(PyObject *value)
{
    Py_buffer view;
    if (PyBytes_CheckExact(value) || PyByteArray_CheckExact(value))
        return NULL;
    if (PyObject_GetBuffer(value, &view, PyBUF_FORMAT | PyBUF_ND) < 0) {
        PyErr_Clear();
        return pointers_of_dtype(value);
    }
    const char *found = pointers_of_format(view.format);
    PyBuffer_Release(&view);
    return found;
}

static bool gives(PyObject *value, int flags)
{
    Py_buffer probe;
    if (PyObject_GetBuffer(value, &probe, flags) < 0) {
        PyErr_Clear();
        return false;
    }
    PyBuffer_Release(&probe);
    return true;
}

/* A buffer that exists but is not as wanted: BufferError with the exporter's reason, except that
 * read-only where writable is needed is a wrong type. */
static bool refuse_buffer(const Function *function, unsigned index, PyObject *value, bool writable)
{
    /* NumPy says ValueError of what is not contiguous. */
    if (!PyErr_ExceptionMatches(PyExc_BufferError) && !PyErr_ExceptionMatches(PyExc_ValueError))
        return false;
    PyObject *reason = error_take();
    if (writable && gives(value, PyBUF_SIMPLE) && !gives(value, PyBUF_WRITABLE)) {
        error_argument(function, index, PyExc_TypeError,
                       "expected a writable bytes-like object, got read-only %s",
                       Py_TYPE(value)->tp_name);
    } else {
        PyErr_Clear();
        error_argument(function, index, PyExc_BufferError, "%S", reason);
    }
    Py_XDECREF(reason);
    return false;
}

bool lease_buffer(const Function *function, unsigned index, PyObject *value, int flags,
                  Lease *lease)
{
    bool writable = (flags & PyBUF_WRITABLE) != 0;
    if (!PyObject_CheckBuffer(value))
        return error_argument(function, index, PyExc_TypeError,
                              "expected a %sbytes-like object, got %s",
                              writable ? "writable " : "", Py_TYPE(value)->tp_name);
    if (mapping_lend(function, value, flags, &lease->buffer))
        return true;
    const char *pointers = (flags & PyBUF_FORMAT) == 0 ? buffer_pointers(value) : NULL;
    if (pointers != NULL)
        return error_argument(function, index, PyExc_TypeError, BUFFER_OF, Py_TYPE(value)->tp_name, pointers);
    if (PyObject_GetBuffer(value, &lease->buffer, flags) == 0)
        return true;
    lease->buffer.obj = NULL;
    return refuse_buffer(function, index, value, writable);
}

/* The value goes to memory of our own first: making its bytes may run Python code. */
static bool lease_pointer(const Function *function, unsigned index, PyObject *value, Lease *lease)
{
    const Layout *layout = function->parameters[index].layout;
    lease->owned = PyMem_Calloc(1, layout->target->size);
    if (lease->owned == NULL)
        return PyErr_NoMemory() != NULL;
    lease->buffer = (Py_buffer){.buf = lease->owned, .len = layout->target->size};
    Place place = place_argument(function, index);
    Texts texts = {.base = lease->owned};
    bool ok = value == NULL || codec_encode(&place, layout->target, value, lease->owned, &texts);
    return texts_finish(&texts, ok, lease);
}

/* The callable itself: the call's own reference to its argument keeps it. */
static bool lease_callback(const Function *function, unsigned index, PyObject *value, Lease *lease)
{
    if (!PyCallable_Check(value))
        return error_argument(function, index, PyExc_TypeError, "expected a callable, got %s",
                              Py_TYPE(value)->tp_name);
    lease->object = value;
    return true;
}

static bool lease_handle(const Function *function, unsigned index, PyObject *value, Lease *lease)
{
    PyTypeObject *class = (PyTypeObject *)function->parameters[index].layout->class;
    if (!Py_IS_TYPE(value, class))
        return error_argument(function, index, PyExc_TypeError, "expected %s, got %s",
                              class->tp_name, Py_TYPE(value)->tp_name);
    lease->object = value;
    return true;
}

bool memory_lease(const Function *function, unsigned index, PyObject *value, Lease *lease)
{
    const Parameter *parameter = &function->parameters[index];
    *lease = (Lease){.parameter = (uint8_t)index};
    lease->none = parameter->optional && value == Py_None;
    if (lease->none)
        return true;
    switch ((Code)parameter->code) {
    case CODE_STR:
        return lease_str(function, index, value, lease);
    case CODE_POINTER:
        return lease_pointer(function, index, value, lease);
    case CODE_NUMBERS:
        return numbers_lease(function, index, value, lease);
    case CODE_CALLBACK:
        return lease_callback(function, index, value, lease);
    case CODE_HANDLE:
        return lease_handle(function, index, value, lease);
    case CODE_MUT:
        return lease_buffer(function, index, value, PyBUF_WRITABLE, lease);
    default:
        return lease_buffer(function, index, value, PyBUF_SIMPLE, lease);
    }
}

void memory_end_leases(Lease *leases, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        PyBuffer_Release(&leases[i].buffer);
        PyMem_Free(leases[i].owned);
    }
}

/* ---- arguments in ---- */

static bool refuse_size(const Function *function, Call *call, const Lease *lease)
{
    unsigned long long used = vx_sandbox_memory(function->box->core);
    PyObject *type = error_class("GuestMemoryError");
    if (type != NULL)
        error_argument(function, lease->parameter, type,
                       "%zd bytes do not fit the sandbox's memory limit of %llu bytes (%llu used)",
                       lease->buffer.len, (unsigned long long)function->box->memory, used);
    Py_XDECREF(type);
    error_keep(call);
    return false;
}

/* What is in one of the sandbox's Buffers is there already. */
static bool find_resident(const Function *function, Lease *lease)
{
    const Parameter *parameter = &function->parameters[lease->parameter];
    size_t unit = parameter->code == CODE_NUMBERS ? parameter->layout->size : 1;
    lease->resident = buffer_find(function->box, &lease->buffer, unit, &lease->address);
    return lease->resident;
}

static bool place(const Function *function, Call *call, Lease *lease)
{
    vx_sandbox *core = function->box->core;
    uint64_t size = (uint64_t)lease->buffer.len;
    if (function->box->shared != NULL && find_resident(function, lease))
        return true;
    if (mapping_lent(function->box, &lease->buffer)) /* not to be copied */
        return refuse_size(function, call, lease);
    if (size > UINT32_MAX || vx_arena_alloc(core, (uint32_t)size, &lease->address) != VX_OK)
        return refuse_size(function, call, lease);
    if (size == 0)
        return true;
    void *target = vx_guest_pointer(core, lease->address, size, VX_PROT_WRITE);
    if (target == NULL)
        return error_fault(function, call, lease->address.value,
                           "the plugin made its argument memory inaccessible");
    memcpy(target, lease->buffer.buf, size);
    texts_link(lease, target);
    return true;
}

/* Whether the guest's bytes come back, and the lease with them lasts until then. */
static bool is_written(const Parameter *parameter)
{
    return parameter->code == CODE_MUT || (parameter->layout != NULL && parameter->layout->out);
}

/* What Python objects stand for themselves are to the guest. */
static bool object_word(Function *function, Call *call, const Lease *lease, uint32_t *word)
{
    const Parameter *parameter = &function->parameters[lease->parameter];
    if (parameter->code == CODE_CALLBACK) {
        *word = callback_lend(call, function, lease->parameter, lease->object);
        return *word != 0;
    }
    Place place = place_argument(function, lease->parameter);
    *word = handle_word(function->box, &place, lease->object);
    if (*word == 0)
        error_keep(call);
    return *word != 0;
}

bool memory_words(Function *function, Call *call, const Lease *lease, uint32_t *words)
{
    const Parameter *parameter = &function->parameters[lease->parameter];
    uint32_t unit = parameter->code == CODE_NUMBERS ? parameter->layout->size : 1;
    if (lease->object != NULL)
        return object_word(function, call, lease, &words[parameter->word]);
    words[parameter->word] = lease->address.value;
    if (parameter->words == 2)
        words[parameter->word + 1] = (uint32_t)lease->buffer.len / unit;
    return true;
}

static bool copy_in_one(Function *function, Call *call, Lease *lease, uint32_t *words)
{
    bool in_memory = !lease->none && lease->object == NULL;
    if ((in_memory && !place(function, call, lease)) || !memory_words(function, call, lease, words))
        return false;
    if (!lease->resident && !is_written(&function->parameters[lease->parameter]))
        PyBuffer_Release(&lease->buffer);
    return true;
}

/* The hidden first argument of a function that returns a struct. */
static bool place_result(const Function *function, Call *call, uint32_t *words)
{
    vx_gaddr address;
    if (function->result_size == 0)
        return true;
    vx_status status = vx_arena_alloc(function->box->core, function->result_size, &address);
    if (status != VX_OK) {
        error_vxplug("GuestMemoryError", "%U(): no guest memory left for the result",
                     function->name);
        error_keep(call);
        return false;
    }
    words[0] = address.value;
    return true;
}

/* Who exports a buffer may have Python code run when it is given back. */
static bool still_sound(const Box *box, Call *call)
{
    bool sound = hook_still_sound(box);
    if (!sound)
        error_keep(call);
    return sound;
}

bool memory_copy_in(Function *function, Call *call, Lease *leases, uint32_t *words)
{
    function->box->arena_used = true;
    for (unsigned i = 0; i < function->lease_count; i++)
        if (!copy_in_one(function, call, &leases[i], words))
            return false;
    return box_in_order(function->box, call) && still_sound(function->box, call) && place_result(function, call, words);
}

/* ---- arguments out ---- */

bool memory_copy_out(const Function *function, Call *call, const Lease *leases)
{
    for (unsigned i = 0; i < function->lease_count; i++) {
        const Lease *lease = &leases[i];
        const Parameter *parameter = &function->parameters[lease->parameter];
        size_t size = (size_t)lease->buffer.len;
        if (lease->none || lease->resident || size == 0 || !is_written(parameter))
            continue;
        const void *source = vx_guest_pointer(function->box->core, lease->address, size,
                                              VX_PROT_READ);
        if (source == NULL)
            return error_fault(function, call, lease->address.value,
                               "the plugin unmapped a buffer it was lent");
        memcpy(lease->buffer.buf, source, size);
    }
    return true;
}

/* ---- results ---- */

/* A new object, or NULL with the exception kept on the call. */
static PyObject *kept(Call *call, PyObject *object)
{
    if (object == NULL)
        error_keep(call);
    return object;
}

PyObject *memory_decode(const char *text, size_t size)
{
    PyObject *copy = PyBytes_FromStringAndSize(text, (Py_ssize_t)size);
    if (copy == NULL)
        return NULL;
    PyObject *decoded = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(copy), (Py_ssize_t)size, "strict");
    Py_DECREF(copy);
    return decoded;
}

PyObject *memory_string_result(const Function *function, Call *call, uint32_t address)
{
    vx_sandbox *core = function->box->core;
    if (address == 0)
        return Py_NewRef(Py_None);
    vx_gaddr at = {address};
    size_t size = vx_guest_strlen(core, at, MAX_STRING_RESULT);
    const char *text = size == SIZE_MAX ? NULL : vx_guest_pointer(core, at, size + 1, VX_PROT_READ);
    if (text == NULL) {
        error_fault(function, call, address, "str result without an end in 64 MiB of readable memory");
        return NULL;
    }
    return kept(call, memory_decode(text, size));
}

/* The value of host bytes; NULL with what went wrong kept on the call. */
static PyObject *decode(const Function *function, Call *call, const Layout *layout, const void *bytes)
{
    Reader reader = {.core = function->box->core, .left = MAX_MEMBER_TEXT};
    PyObject *object = codec_decode(layout, bytes, &reader);
    if (!reader.failed)
        return kept(call, object);
    error_fault(function, call, reader.address, "str in a struct without an end in readable memory, or all of them longer than 1 MiB");
    return NULL;
}

/* Decoding makes objects, so other code may run: it reads a copy. */
PyObject *memory_struct_result(const Function *function, Call *call, const Layout *layout,
                               uint32_t address)
{
    const void *source = vx_guest_pointer(function->box->core, (vx_gaddr){address}, layout->size,
                                          VX_PROT_READ);
    if (source == NULL) {
        error_fault(function, call, address, "struct result that is not all readable memory");
        return NULL;
    }
    PyObject *object = NULL;
    uint8_t *copy = PyMem_Malloc(layout->size);
    if (copy != NULL)
        object = decode(function, call, layout, memcpy(copy, source, layout->size));
    else
        kept(call, PyErr_NoMemory());
    PyMem_Free(copy);
    return object;
}

static PyObject *output(const Function *function, Call *call, const Lease *lease)
{
    const Layout *layout = function->parameters[lease->parameter].layout;
    if (lease->none)
        return Py_NewRef(Py_None);
    if (layout->target->kind == KIND_HANDLE)
        return kept(call, handle_get(function->box, layout->target, *(const uint32_t *)lease->owned));
    return decode(function, call, layout->target, lease->owned);
}

/* The tuple of outputs from `first` on, where what comes before is the result. */
static PyObject *output_tuple(const Function *function, Call *call, const Lease *leases, unsigned first)
{
    PyObject *tuple = kept(call, PyTuple_New(first + function->out_count));
    for (unsigned i = 0; tuple != NULL && i < function->lease_count; i++) {
        const Parameter *parameter = &function->parameters[leases[i].parameter];
        if (parameter->code != CODE_POINTER || !parameter->layout->out)
            continue;
        PyObject *object = output(function, call, &leases[i]);
        if (object == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, first + parameter->out, object);
    }
    return tuple;
}

PyObject *memory_outputs(const Function *function, Call *call, const Lease *leases,
                         PyObject *result)
{
    bool has_result = function->result != CODE_NONE;
    PyObject *tuple = result != NULL ? output_tuple(function, call, leases, has_result) : NULL;
    if (tuple == NULL) {
        Py_XDECREF(result);
        return NULL;
    }
    if (has_result) {
        PyTuple_SET_ITEM(tuple, 0, result);
        return tuple;
    }
    Py_DECREF(result);
    if (function->out_count > 1)
        return tuple;
    PyObject *only = Py_NewRef(PyTuple_GET_ITEM(tuple, 0));
    Py_DECREF(tuple);
    return only;
}

/* The bytes of a result; NULL with a fault when they are not all readable. */
static const void *owned_data(const Function *function, Call *call, const GuestBytes *bytes,
                              uint64_t size)
{
    if (size == 0)
        return "";
    const void *data = vx_guest_pointer(function->box->core, (vx_gaddr){bytes->ptr}, size,
                                        VX_PROT_READ);
    if (data == NULL)
        error_fault(function, call, bytes->ptr, "bytes result that is not all readable memory");
    return data;
}

static PyObject *copy_bytes(const Function *function, Call *call, const GuestBytes *bytes)
{
    const char *data = owned_data(function, call, bytes, bytes->len);
    return data != NULL ? kept(call, PyBytes_FromStringAndSize(data, (Py_ssize_t)bytes->len)) : NULL;
}

/* Checked before, so that a forged count costs no memory, and again when there is an array to
 * fill: making it may run other code, which may call the guest. */
static PyObject *copy_numbers(const Function *function, Call *call, const GuestBytes *bytes)
{
    const Layout *layout = function->result_layout;
    uint64_t size = (uint64_t)bytes->len * layout->size;
    void *memory;
    if (owned_data(function, call, bytes, size) == NULL)
        return NULL;
    PyObject *array = numbers_create(function->box->state, layout->code, bytes->len, &memory);
    if (array == NULL)
        return kept(call, NULL);
    const void *data = owned_data(function, call, bytes, size);
    if (data == NULL)
        Py_CLEAR(array);
    else if (size != 0)
        memcpy(memory, data, size);
    return array;
}

/* Calls vx_release_ on what the plugin handed over.  It is guest code as any other: it may fault. */
static bool release(const Function *function, Call *call, const GuestBytes *bytes)
{
    Box *box = function->box;
    vx_result ignored;
    if (bytes->owner != VX_MALLOCED || bytes->ptr == 0)
        return true;
    if (box->release == 0)
        return error_fault(function, call, bytes->ptr,
                           "bytes result to be released, but the plugin has no vx_release_");
    vx_status status = box_call_more(box, call, box->release, &bytes->ptr, 1, &ignored);
    if (status != VX_OK)
        call_failed(function, call, status);
    return status == VX_OK;
}

/* The struct is read once: what is checked is what is used. */
static bool read_bytes_result(const Function *function, Call *call, uint32_t address,
                              GuestBytes *bytes)
{
    const void *source = vx_guest_pointer(function->box->core, (vx_gaddr){address}, sizeof *bytes,
                                          VX_PROT_READ);
    if (source == NULL)
        return error_fault(function, call, address, "the plugin unmapped its result");
    memcpy(bytes, source, sizeof *bytes);
    if (bytes->owner != VX_BORROWED && bytes->owner != VX_MALLOCED)
        return error_fault(function, call, bytes->ptr, "bytes result with an unknown owner");
    return true;
}

/* When the guest raised an error the result is not wanted, but still released. */
PyObject *memory_owned_result(const Function *function, Call *call, uint32_t address)
{
    GuestBytes bytes;
    PyObject *object = NULL;
    if (!read_bytes_result(function, call, address, &bytes))
        return NULL;
    if (call->raised == NULL)
        object = function->result == CODE_BYTES ? copy_bytes(function, call, &bytes)
                                                : copy_numbers(function, call, &bytes);
    if (!call->faulted)
        release(function, call, &bytes);
    return object;
}
