/* The type Mapping: a file, or shared memory, that a sandbox reads where it is.
 *
 * The bytes can vanish while they are mapped: when a file is cut short, each look at what it had is a SIGBUS.  So
 * nobody in the host looks: a call of the mapping's own sandbox gets an address, and whoever else asks for a buffer gets
 * a copy, which the kernel makes. */
#include "binding.h"

#include <errno.h>

typedef Holder Mapping;

/* ---- making and closing ---- */

/* The kernel says EINVAL of memory that is not shared, EFAULT of a mapping that is shorter. */
static void *memory_of_buffer(PyObject *source, Py_ssize_t offset, Py_ssize_t size)
{
    Py_buffer view;
    if (PyObject_GetBuffer(source, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    char *memory = view.buf;
    bool inside = offset <= view.len && size <= view.len - offset;
    void *mapping = NULL;
    if (inside && (uintptr_t)(memory + offset) % VX_PAGE_SIZE == 0)
        mapping = vx_mapping_of_memory(memory + offset, (uint64_t)size);
    PyBuffer_Release(&view);
    if (mapping == NULL)
        PyErr_SetString(PyExc_ValueError, "map(): source: expected shared memory from the beginning of a page");
    return mapping;
}

static void *memory_of_file(PyObject *source, Py_ssize_t offset, Py_ssize_t size)
{
    int fd = PyObject_AsFileDescriptor(source);
    void *mapping = fd < 0 ? NULL : vx_mapping_of_file(fd, (uint64_t)offset, (uint64_t)size);
    if (fd >= 0 && mapping == NULL)
        PyErr_SetFromErrno(PyExc_OSError);
    return mapping;
}

/* With the box locked.  The mapping owns `memory`. */
static bool attach(Mapping *self, void *memory, size_t size)
{
    self->shared = shared_add(self->box, memory, size, true);
    return self->shared != NULL && shared_map(self->box, self->shared, "map");
}

static bool attach_locked(Mapping *self, void *memory, size_t size)
{
    Call call;
    if (!box_enter(self->box, &call)) {
        if (size != 0)
            vx_shared_free(memory, size);
        return false;
    }
    if (size != 0 && !attach(self, memory, size))
        error_keep(&call);
    box_leave(self->box, &call, NULL);
    return box_outcome(self->box, &call, NULL);
}

/* Offset and size are checked by vxplug/mapping.py, which also knows what a source can be.  Asking an object for its
 * buffer may run Python code: that is done before the box is locked. */
PyObject *box_map(Box *self, PyObject *args)
{
    PyObject *source;
    Py_ssize_t offset, size;
    if (!PyArg_ParseTuple(args, "Onn:map", &source, &offset, &size))
        return NULL;
    if (offset < 0 || size < 0 || (uint64_t)size > UINT32_MAX)
        return PyErr_Format(PyExc_ValueError, "map(): size: %zd is not between 0 and %u", size, UINT32_MAX);
    Mapping *mapping = (Mapping *)self->state->mapping_type->tp_alloc(self->state->mapping_type, 0);
    if (mapping == NULL)
        return NULL;
    mapping->box = (Box *)Py_NewRef(self);
    void *memory = NULL;
    if (size != 0)
        memory = PyLong_Check(source) ? memory_of_file(source, offset, size) : memory_of_buffer(source, offset, size);
    if ((memory != NULL || size == 0) && attach_locked(mapping, memory, (size_t)size))
        return (PyObject *)mapping;
    Py_DECREF(mapping);
    return NULL;
}

static PyObject *mapping_close(Mapping *self, PyObject *unused)
{
    (void)unused;
    Py_ssize_t uses = holder_give_up(self);
    if (uses != 0)
        return PyErr_Format(PyExc_BufferError, "mapping is in use by %zd call%s", uses, uses == 1 ? "" : "s");
    Py_RETURN_NONE;
}

static PyObject *mapping_exit(Mapping *self, PyObject *args)
{
    (void)args;
    return mapping_close(self, NULL);
}

/* ---- the buffer protocol ---- */

/* The mapping stays meanwhile: close() waits for the guard.  NULL, with or without an exception. */
static void *copy_out(Mapping *self, Py_ssize_t *size)
{
    void *copy = NULL;
    bool ok = false;
    guard_enter(&self->guard);
    const Shared *shared = self->shared;
    *size = shared != NULL ? (Py_ssize_t)shared->size : 0;
    bool closed = self->closed;
    copy = closed ? NULL : PyMem_Malloc((size_t)*size);
    ok = copy != NULL && (*size == 0 || vx_mapping_copy(copy, shared->memory, (uint64_t)*size));
    guard_leave(&self->guard);
    if (copy == NULL && !closed)
        PyErr_NoMemory();
    if (ok || copy == NULL)
        return copy;
    PyMem_Free(copy);
    PyErr_SetString(PyExc_OSError, "mapping: bytes are gone: its file was cut short, or cannot be read");
    return NULL;
}

static int mapping_get(Mapping *self, Py_buffer *view, int flags)
{
    Py_ssize_t size;
    view->obj = NULL;
    void *copy = copy_out(self, &size);
    if (copy == NULL && !PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "mapping is closed");
    if (copy == NULL || PyBuffer_FillInfo(view, (PyObject *)self, copy, size, 1, flags) < 0) {
        PyMem_Free(copy);
        return -1;
    }
    view->internal = copy;
    return 0;
}

static void mapping_give_back(Mapping *self, Py_buffer *view)
{
    if (view->internal == NULL)
        holder_take_back(self);
    PyMem_Free(view->internal);
}

/* A stream's arguments are copied to where it keeps them. */
bool mapping_lend(const Function *function, PyObject *value, int flags, Py_buffer *view)
{
    Mapping *self = (Mapping *)value;
    if (!Py_IS_TYPE(value, function->box->state->mapping_type) || self->box != function->box
        || function->result == CODE_STREAM || (flags & PyBUF_WRITABLE) || !holder_lend(self, true, view, flags))
        return false;
    view->internal = NULL;
    return true;
}

bool mapping_lent(const Box *box, const Py_buffer *view)
{
    return view->obj != NULL && Py_IS_TYPE(view->obj, box->state->mapping_type) && view->internal == NULL;
}

/* ---- the type ---- */

static PyObject *mapping_closed(Mapping *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(PEEK(self->closed));
}

static PyObject *mapping_repr(Mapping *self)
{
    if (PEEK(self->closed))
        return PyUnicode_FromString("<closed vxplug.Mapping>");
    return PyUnicode_FromFormat("<vxplug.Mapping of %zd bytes>", holder_length(self));
}

static PyMethodDef mapping_methods[] = {
    {"close", (PyCFunction)mapping_close, METH_NOARGS,
     PyDoc_STR("close($self)\n--\n\nTake it from the sandbox.  BufferError while a call has it.  Idempotent.")},
    {"__enter__", holder_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)mapping_exit, METH_VARARGS, NULL},
    {0},
};

static PyGetSetDef mapping_getset[] = {
    {"closed", (getter)mapping_closed, NULL, PyDoc_STR("Whether close() was called."), NULL},
    {0},
};

static PyType_Slot mapping_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR(
        "A file, or shared memory, that a sandbox reads where it is: Sandbox.map makes it.\n\n"
        "That sandbox's functions take it without a copy; to all others it is a bytes-like object that is "
        "copied each time.")},
    {Py_tp_dealloc, holder_dealloc},
    {Py_tp_traverse, holder_traverse},
    {Py_tp_repr, mapping_repr},
    {Py_tp_methods, mapping_methods},
    {Py_tp_getset, mapping_getset},
    {Py_tp_members, holder_members},
    {Py_mp_length, holder_length},
    {Py_bf_getbuffer, mapping_get},
    {Py_bf_releasebuffer, mapping_give_back},
    {0, NULL},
};

PyType_Spec mapping_spec = {
    .name = "vxplug.Mapping",
    .basicsize = sizeof(Mapping),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
        | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = mapping_slots,
};
