/* Arguments and results that live in guest memory.
 *
 * An argument is taken in two steps.  memory_lease runs before the box is locked, because asking
 * an object for its buffer may run Python code.  memory_copy_in runs with the lock held and
 * touches only bytes.  A view is let go once it is copied; a mut is held until the guest has
 * returned and its bytes were copied back.  When one buffer is passed for two mut parameters,
 * the guest has two copies, and the later parameter's comes back last. */
#include "binding.h"

#include <string.h>

/* What a vx_bytes result looks like in guest memory (sdk/include/vxplug.h). */
typedef struct GuestBytes {
    uint32_t ptr, len, owner;
} GuestBytes;
_Static_assert(sizeof(GuestBytes) == 12, "vx_bytes is three words on i386");

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

/* A buffer that exists but is not as wanted: BufferError with the exporter's reason, except that
 * read-only where writable is needed is a wrong type. */
static bool refuse_buffer(const Function *function, unsigned index, PyObject *value, bool writable)
{
    if (!PyErr_ExceptionMatches(PyExc_BufferError))
        return false;
    PyObject *reason = error_take();
    Py_buffer probe;
    bool read_only = writable && PyObject_GetBuffer(value, &probe, PyBUF_SIMPLE) == 0;
    if (read_only) {
        PyBuffer_Release(&probe);
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

static bool lease_buffer(const Function *function, unsigned index, PyObject *value, bool writable,
                         Lease *lease)
{
    if (!PyObject_CheckBuffer(value))
        return error_argument(function, index, PyExc_TypeError,
                              "expected a %sbytes-like object, got %s",
                              writable ? "writable " : "", Py_TYPE(value)->tp_name);
    int flags = writable ? PyBUF_WRITABLE : PyBUF_SIMPLE;
    if (PyObject_GetBuffer(value, &lease->buffer, flags) == 0)
        return true;
    lease->buffer.obj = NULL;
    return refuse_buffer(function, index, value, writable);
}

bool memory_lease(const Function *function, unsigned index, PyObject *value, Lease *lease)
{
    Code code = function->parameters[index].code;
    lease->parameter = (uint8_t)index;
    lease->buffer.obj = NULL;
    if (code == CODE_STR)
        return lease_str(function, index, value, lease);
    return lease_buffer(function, index, value, code == CODE_MUT, lease);
}

void memory_end_leases(Lease *leases, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        PyBuffer_Release(&leases[i].buffer);
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

static bool place(const Function *function, Call *call, Lease *lease)
{
    vx_sandbox *core = function->box->core;
    uint64_t size = (uint64_t)lease->buffer.len;
    if (size > UINT32_MAX || vx_arena_alloc(core, (uint32_t)size, &lease->address) != VX_OK)
        return refuse_size(function, call, lease);
    if (size == 0)
        return true;
    void *target = vx_guest_pointer(core, lease->address, size, VX_PROT_WRITE);
    if (target == NULL)
        return error_fault(function, call, lease->address.value,
                           "the plugin made its argument memory inaccessible");
    memcpy(target, lease->buffer.buf, size);
    return true;
}

static bool copy_in_one(const Function *function, Call *call, Lease *lease, uint32_t *words)
{
    const Parameter *parameter = &function->parameters[lease->parameter];
    if (!place(function, call, lease))
        return false;
    words[parameter->word] = lease->address.value;
    if (parameter->code != CODE_STR)
        words[parameter->word + 1] = (uint32_t)lease->buffer.len;
    if (parameter->code != CODE_MUT)
        PyBuffer_Release(&lease->buffer);
    return true;
}

/* The hidden first argument of a function that returns vx_bytes. */
static bool place_result(const Function *function, Call *call, uint32_t *words)
{
    vx_gaddr address;
    if (function->result != CODE_BYTES)
        return true;
    vx_status status = vx_arena_alloc(function->box->core, sizeof(GuestBytes), &address);
    if (status != VX_OK) {
        error_vxplug("GuestMemoryError", "%U(): no guest memory left for the result",
                     function->name);
        error_keep(call);
        return false;
    }
    words[0] = address.value;
    return true;
}

bool memory_copy_in(const Function *function, Call *call, Lease *leases, uint32_t *words)
{
    function->box->arena_used = true;
    for (unsigned i = 0; i < function->lease_count; i++)
        if (!copy_in_one(function, call, &leases[i], words))
            return false;
    return place_result(function, call, words);
}

/* ---- arguments out ---- */

bool memory_copy_out(const Function *function, Call *call, const Lease *leases)
{
    for (unsigned i = 0; i < function->lease_count; i++) {
        const Lease *lease = &leases[i];
        size_t size = (size_t)lease->buffer.len;
        if (function->parameters[lease->parameter].code != CODE_MUT || size == 0)
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

PyObject *memory_string_result(const Function *function, Call *call, uint32_t address)
{
    vx_sandbox *core = function->box->core;
    if (address == 0)
        return Py_NewRef(Py_None);
    vx_gaddr at = {address};
    size_t size = vx_guest_strlen(core, at, MAX_STRING_RESULT);
    const char *text = size == SIZE_MAX ? NULL : vx_guest_pointer(core, at, size + 1, VX_PROT_READ);
    if (text == NULL) {
        error_fault(function, call, address, "str result without an end in readable memory");
        return NULL;
    }
    return kept(call, PyUnicode_DecodeUTF8(text, (Py_ssize_t)size, "strict"));
}

static PyObject *copy_bytes(const Function *function, Call *call, const GuestBytes *bytes)
{
    const char *data = "";
    if (bytes->len != 0)
        data = vx_guest_pointer(function->box->core, (vx_gaddr){bytes->ptr}, bytes->len,
                                VX_PROT_READ);
    if (data == NULL) {
        error_fault(function, call, bytes->ptr, "bytes result that is not all readable memory");
        return NULL;
    }
    return kept(call, PyBytes_FromStringAndSize(data, (Py_ssize_t)bytes->len));
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
    vx_status status = vx_call(box->core, (vx_gaddr){box->release}, &bytes->ptr, 1, &ignored,
                               &call->trap);
    gil_take(call);
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
PyObject *memory_bytes_result(const Function *function, Call *call, uint32_t address)
{
    GuestBytes bytes;
    PyObject *object = NULL;
    if (!read_bytes_result(function, call, address, &bytes))
        return NULL;
    if (call->raised == NULL)
        object = copy_bytes(function, call, &bytes);
    if (!call->faulted)
        release(function, call, &bytes);
    return object;
}
