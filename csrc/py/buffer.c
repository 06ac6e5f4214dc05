/* The type Buffer: memory that a sandbox and Python share.
 *
 * The host has a mapping of its own of the pages, and every view that Python gets leads there: it stays
 * whatever the guest does, and whatever becomes of the sandbox.  The guest has a second mapping of the same
 * pages, made again after a reset when a call first needs it.
 *
 * Box.shared lists what is mapped, or to be unmapped, in the order of making, the youngest first.  A Buffer, or a
 * Mapping (mapping.c), owns its Shared until it is released; then the box does, until nobody is inside.  The list is
 * the box's owner's to change; its `memory` is how another thread says that a Shared is the box's now (lock.h, 4). */
#include "binding.h"

typedef Holder Buffer;

/* ---- the box's list ---- */

/* With the box locked: the guest's mapping is there, of this life. */
static bool map_now(Box *box, Shared *shared)
{
    if (shared->generation == box->generation)
        return true;
    vx_status status = shared->outside ? vx_map(box->core, shared->memory, shared->size, &shared->address)
                                       : vx_share(box->core, shared->memory, shared->size, &shared->address);
    if (status != VX_OK)
        return false;
    shared->generation = box->generation;
    return true;
}

static void drop(Box *box, Shared **link)
{
    Shared *shared = *link;
    if (box->core != NULL && shared->generation == box->generation)
        vx_unshare(box->core, shared->address, shared->size);
    *link = shared->next;
    PyMem_Free(shared);
}

void buffer_sweep(Box *box)
{
    for (Shared **link = &box->shared; *link != NULL;) {
        if (PEEK((*link)->memory) == NULL)
            drop(box, link);
        else
            link = &(*link)->next;
    }
}

/* Without Buffers, which hold the box, only what they left is on the list. */
void buffer_free_all(Box *box)
{
    while (box->shared != NULL)
        drop(box, &box->shared);
}

bool buffer_find(Box *box, const Py_buffer *view, size_t unit, vx_gaddr *address)
{
    for (Shared *shared = box->shared; shared != NULL; shared = shared->next) {
        const char *memory = PEEK(shared->memory);
        uintptr_t offset = (uintptr_t)view->buf - (uintptr_t)memory;
        if (memory == NULL || offset >= shared->size
            || (size_t)view->len > shared->size - offset)
            continue;
        if (offset % unit != 0 || !map_now(box, shared))
            return false;
        address->value = shared->address.value + (uint32_t)offset;
        return true;
    }
    return false;
}

/* ---- memory, shared and given back ---- */

Shared *shared_add(Box *box, void *memory, size_t size, bool outside)
{
    Shared *shared = PyMem_Calloc(1, sizeof *shared);
    if (shared == NULL) {
        vx_shared_free(memory, size);
        return (Shared *)PyErr_NoMemory();
    }
    shared->memory = memory;
    shared->size = size;
    shared->outside = outside;
    shared->generation = UINT64_MAX; /* none yet */
    shared->next = box->shared;
    box->shared = shared;
    return shared;
}

/* The guest's mapping goes now, or, when another thread is inside, at the end of its call.  The host's goes after
 * `memory` says so: until then the address is nobody else's. */
static void shared_release(Box *box, Shared *shared)
{
    void *memory = shared->memory;
    size_t size = shared->size;
    bool inside = lock_is_mine(box, thread_ident());
    __atomic_store_n(&shared->memory, NULL, __ATOMIC_RELEASE); /* and now it is the owner's */
    vx_shared_free(memory, size);
    if (inside)
        buffer_sweep(box);
    else
        box_leave_work(box);
}

bool shared_map(Box *box, Shared *shared, const char *what)
{
    if (map_now(box, shared))
        return true;
    error_vxplug("GuestMemoryError",
                 "%s(): %zu bytes do not fit the sandbox's memory limit of %llu bytes (%llu used)", what, shared->size,
                 (unsigned long long)box->memory, (unsigned long long)vx_sandbox_memory(box->core));
    return false;
}

/* ---- what Buffer and Mapping share ---- */

PyMemberDef holder_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Holder, weakrefs), READONLY, NULL},
    {0},
};

PyObject *holder_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(self);
}

Py_ssize_t holder_length(Holder *self)
{
    Py_ssize_t size;
    guard_enter(&self->guard);
    size = self->shared != NULL ? (Py_ssize_t)self->shared->size : 0;
    guard_leave(&self->guard);
    return size;
}

Py_ssize_t holder_give_up(Holder *self)
{
    Shared *shared;
    Py_ssize_t uses;
    guard_enter(&self->guard);
    uses = self->uses;
    shared = uses == 0 ? self->shared : NULL;
    if (uses == 0) {
        self->shared = NULL;
        POKE(self->closed, true);
    }
    guard_leave(&self->guard);
    if (shared != NULL)
        shared_release(self->box, shared);
    return uses;
}

bool holder_lend(Holder *self, bool read_only, Py_buffer *view, int flags)
{
    guard_enter(&self->guard);
    Shared *shared = self->shared; /* which stays while it is in use */
    if (shared != NULL)
        self->uses++;
    guard_leave(&self->guard);
    if (shared == NULL)
        return false;
    if (PyBuffer_FillInfo(view, (PyObject *)self, shared->memory, (Py_ssize_t)shared->size, read_only, flags) == 0)
        return true;
    holder_take_back(self);
    return false;
}

void holder_take_back(Holder *self)
{
    guard_enter(&self->guard);
    self->uses--;
    guard_leave(&self->guard);
}

int holder_traverse(Holder *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->box);
    return 0;
}

/* Whoever uses it holds it, so nobody does. */
void holder_dealloc(Holder *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    (void)holder_give_up(self);
    Py_XDECREF(self->box);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- making a Buffer, and its release ---- */

/* With the box locked. */
static void make_room(Box *box, Call *call, Buffer *buffer, size_t size)
{
    void *memory = vx_shared_create(size);
    if (memory == NULL)
        PyErr_NoMemory();
    else
        buffer->shared = shared_add(box, memory, size, false);
    if (buffer->shared == NULL || !shared_map(box, buffer->shared, "buffer"))
        error_keep(call);
}

PyObject *box_buffer(Box *self, PyObject *size)
{
    Call call;
    Py_ssize_t wanted = PyNumber_AsSsize_t(size, PyExc_OverflowError);
    if (wanted == -1 && PyErr_Occurred())
        return NULL;
    if (wanted < 1 || (uint64_t)wanted > UINT32_MAX)
        return PyErr_Format(PyExc_ValueError, "buffer(): size: %zd is not between 1 and %u", wanted, UINT32_MAX);
    PyTypeObject *type = self->state->buffer_type;
    Buffer *buffer = (Buffer *)type->tp_alloc(type, 0);
    if (buffer == NULL)
        return NULL;
    buffer->box = (Box *)Py_NewRef(self);
    if (box_enter(self, &call)) {
        make_room(self, &call, buffer, (size_t)wanted);
        box_leave(self, &call, NULL);
        if (box_outcome(self, &call, NULL))
            return (PyObject *)buffer;
    }
    Py_DECREF(buffer);
    return NULL;
}

static PyObject *buffer_release(Buffer *self, PyObject *unused)
{
    (void)unused;
    Py_ssize_t uses = holder_give_up(self);
    if (uses != 0)
        return PyErr_Format(PyExc_BufferError, "buffer is in use by %zd view%s or calls", uses, uses == 1 ? "" : "s");
    Py_RETURN_NONE;
}

static PyObject *buffer_exit(Buffer *self, PyObject *args)
{
    (void)args;
    return buffer_release(self, NULL);
}

/* ---- the buffer protocol ---- */

static int buffer_get(Buffer *self, Py_buffer *view, int flags)
{
    if (holder_lend(self, false, view, flags))
        return 0;
    view->obj = NULL;
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "buffer is released");
    return -1;
}

static void buffer_give_back(Buffer *self, Py_buffer *view)
{
    (void)view;
    holder_take_back(self);
}

/* ---- the type ---- */

static PyObject *buffer_released(Buffer *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(PEEK(self->closed));
}

static PyObject *buffer_repr(Buffer *self)
{
    Py_ssize_t size = holder_length(self); /* never 0 but then */
    return size == 0 ? PyUnicode_FromString("<released vxplug.Buffer>")
                     : PyUnicode_FromFormat("<vxplug.Buffer of %zd bytes>", size);
}

static PyMethodDef buffer_methods[] = {
    {"release", (PyCFunction)buffer_release, METH_NOARGS,
     PyDoc_STR("release($self)\n--\n\nGive the memory back.  BufferError while a view or a call uses it.  Idempotent.")},
    {"__enter__", holder_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)buffer_exit, METH_VARARGS, NULL},
    {0},
};

static PyGetSetDef buffer_getset[] = {
    {"released", (getter)buffer_released, NULL, PyDoc_STR("Whether release() was called."), NULL},
    {0},
};

static PyType_Slot buffer_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR(
        "Memory that a sandbox and Python share: Sandbox.buffer makes it.\n\n"
        "A writable bytes-like object, which that sandbox's functions take without a copy.")},
    {Py_tp_dealloc, holder_dealloc},
    {Py_tp_traverse, holder_traverse},
    {Py_tp_repr, buffer_repr},
    {Py_tp_methods, buffer_methods},
    {Py_tp_getset, buffer_getset},
    {Py_tp_members, holder_members},
    {Py_mp_length, holder_length},
    {Py_bf_getbuffer, buffer_get},
    {Py_bf_releasebuffer, buffer_give_back},
    {0, NULL},
};

PyType_Spec buffer_spec = {
    .name = "vxplug.Buffer",
    .basicsize = sizeof(Buffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
        | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = buffer_slots,
};
