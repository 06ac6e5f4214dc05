/* The type Handle: a guest object that Python holds by its address, and how it ends.
 *
 * The host never looks behind the address.  What it upholds is that a handle goes only to functions
 * that take its type, only in the sandbox and the memory it comes from, and only until it is closed.
 * The plugin's destructor runs once: by close(), at the end of a with block, or when nobody holds the
 * handle any more; in the last case, if the sandbox is running a call, when that call is over. */
#include "binding.h"

#include <structmember.h>

/* As many as one value has parts at most; a Grave is smaller than the object that it was. */
#define MAX_GRAVES ((size_t)1 << 16)

/* A handle nobody holds, whose destructor could not run yet. */
typedef struct Grave {
    uint32_t destroy, address;
} Grave;

/* ---- the table of living handles ---- */

/* One object an address, so that its destructor runs once, however often the guest gives it.  The table does not own
 * them: another thread may let go of the last reference at any moment, so what a weak reference leads to counts. */
static PyObject *look_up(const Box *box, PyObject *key)
{
    PyObject *entry, *handle = NULL;
    if (PyDict_GetItemRef(box->handles, key, &entry) > 0)
        (void)PyWeakref_GetRef(entry, &handle);
    Py_XDECREF(entry);
    return handle;
}

/* A new reference, or NULL, with or without an exception. */
static Handle *find(Box *box, PyObject *key, const Layout *layout)
{
    PyObject *handle;
    guard_enter(&box->guard);
    handle = look_up(box, key);
    guard_leave(&box->guard);
    if (handle != NULL && !Py_IS_TYPE(handle, (PyTypeObject *)layout->class))
        Py_CLEAR(handle);
    return (Handle *)handle;
}

static bool enter(Box *box, PyObject *key, Handle *handle)
{
    PyObject *entry = PyWeakref_NewRef((PyObject *)handle, NULL);
    int done = -1;
    guard_enter(&box->guard);
    if (entry != NULL)
        done = PyDict_SetItem(box->handles, key, entry);
    guard_leave(&box->guard);
    Py_XDECREF(entry);
    return done == 0;
}

/* What leads nowhere any more is ours, or as good as gone. */
static void drop_entry(Handle *self, PyObject *key)
{
    PyObject *there = NULL;
    guard_enter(&self->box->guard);
    there = look_up(self->box, key);
    if (there == NULL || there == (PyObject *)self)
        (void)PyDict_Pop(self->box->handles, key, NULL);
    guard_leave(&self->box->guard);
    Py_XDECREF(there);
}

/* With an exception set or not, which stays. */
static void leave(Handle *self)
{
    PyObject *error = error_take();
    PyObject *key = PyLong_FromUnsignedLong(self->address);
    if (key != NULL)
        drop_entry(self, key);
    Py_XDECREF(key);
    PyErr_Clear();
    if (error != NULL)
        error_restore(error);
}

static Handle *create(Box *box, const Layout *layout, uint32_t address)
{
    PyTypeObject *class = (PyTypeObject *)layout->class;
    Handle *self = (Handle *)class->tp_alloc(class, 0);
    if (self != NULL) {
        self->box = (Box *)Py_NewRef(box);
        self->generation = box->generation;
        self->address = address;
        self->destroy = layout->destroy;
    }
    return self;
}

PyObject *handle_get(Box *box, const Layout *layout, uint32_t address)
{
    if (address == 0)
        return Py_NewRef(Py_None);
    PyObject *key = PyLong_FromUnsignedLong(address);
    Handle *handle = key != NULL ? find(box, key, layout) : NULL;
    if (handle != NULL && (handle->generation != box->generation || PEEK(handle->closed)))
        Py_CLEAR(handle); /* of a dead one, whose destructor is not run here: it was closed, or its memory is gone */
    if (handle == NULL && key != NULL && !PyErr_Occurred()) {
        handle = create(box, layout, address);
        if (handle != NULL && !enter(box, key, handle))
            Py_CLEAR(handle);
    }
    Py_XDECREF(key);
    return (PyObject *)handle;
}

/* ---- use ---- */

static const char *why_dead(const Handle *self)
{
    if (PEEK(self->closed))
        return "is closed";
    if (PEEK(self->box->core) == NULL || PEEK(self->box->broken) != NULL)
        return "died with its sandbox";
    return self->generation != PEEK(self->box->generation) ? "died when its sandbox was reset" : NULL;
}

/* Of several who close it, or of close() and the finaliser, one: true for whoever has the destructor to run. */
static bool take_out_of_use(Handle *self)
{
    if (__atomic_exchange_n(&self->closed, true, __ATOMIC_ACQ_REL))
        return false;
    leave(self);
    return self->destroy != 0;
}

uint32_t handle_word(const Box *box, const Place *place, PyObject *value)
{
    const Handle *self = (Handle *)value;
    const char *why = why_dead(self);
    if (self->box != box)
        why = "belongs to another sandbox";
    if (why == NULL)
        return self->address;
    PyObject *type = error_class("Error");
    if (type != NULL)
        error_place(place, type, "the %s %s", Py_TYPE(value)->tp_name, why);
    Py_XDECREF(type);
    return 0;
}

/* Counted here and not looked up in the calls: those of greenlets that wait lie where other frames are by then. */
void handle_use(const Function *function, const Lease *leases, int calls)
{
    for (unsigned i = 0; i < function->lease_count; i++) {
        Handle *handle = (Handle *)leases[i].object;
        if (handle != NULL && function->parameters[leases[i].parameter].code == CODE_HANDLE && handle->box == function->box)
            handle->uses += (uint32_t)calls;
    }
}

/* ---- the end ---- */

static bool run_destructor(Box *box, Call *call, uint32_t destroy, uint32_t address)
{
    vx_result ignored;
    vx_status status = box_call_more(box, call, destroy, &address, 1, &ignored);
    if (status == VX_OK)
        return true;
    if (status == VX_TRAP) {
        call->faulted = true;
        return false;
    }
    error_status(status, "destructor");
    error_keep(call);
    return false;
}

/* With the box locked by `call`, which lets it go: the destructor, if its memory is still there. */
static bool end(Handle *self, Call *call, PyObject *who)
{
    Box *box = self->box;
    if (self->generation == box->generation) {
        vx_call_anew(box->core);
        run_destructor(box, call, self->destroy, self->address);
    }
    box_leave(box, call, who);
    return box_outcome(box, call, who);
}

/* The running call's end will see to it, or, without one, box_leave_work.  Without memory for it, or where a call that
 * goes on leaves too many, the guest object stays until the next reset. */
static void bury(Handle *self)
{
    Box *box = self->box;
    guard_enter(&box->guard);
    Grave *graves = NULL;
    if (self->generation == box->generation && box->grave_count < MAX_GRAVES)
        graves = PyMem_Realloc(box->graves, (box->grave_count + 1) * sizeof *graves);
    if (graves != NULL) {
        box->graves = graves;
        graves[box->grave_count++] = (Grave){self->destroy, self->address};
    }
    guard_leave(&box->guard);
    box_leave_work(box);
}

static bool dig_up(Box *box, Grave *grave)
{
    bool any;
    guard_enter(&box->guard);
    any = box->grave_count != 0;
    if (any)
        *grave = box->graves[--box->grave_count];
    guard_leave(&box->guard);
    return any;
}

void handle_forget_all(Box *box)
{
    guard_enter(&box->guard);
    POKE(box->generation, box->generation + 1);
    box->grave_count = 0;
    guard_leave(&box->guard);
}

/* The guest's state is about to be used for others, so its traceback is not asked for. */
static void fault(Box *box, Call *call)
{
    const char *class = call->trap.kind == VX_TRAP_TIMEOUT ? "GuestTimeout" : "GuestFault";
    PyObject *who = PyUnicode_FromString("close");
    if (who != NULL)
        box_faulted(box, call, who);
    else
        box->faulted = true;
    Py_XDECREF(who);
    PyErr_Clear();
    error_vxplug(class, "the destructor of an object that Python forgot: %s", vx_trap_kind_text(call->trap.kind));
    error_keep(call);
}

/* Of the destructors that one call left the first that failed: how many there are the guest chooses. */
static void report(Call *call, bool *told)
{
    PyObject *error = call->error != NULL ? call->error : call->raised;
    if (error != NULL && !*told) {
        *told = true;
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        if (call->error == NULL)
            error_escape();
        PyErr_WriteUnraisable(NULL);
    }
    Py_CLEAR(call->error);
    Py_CLEAR(call->raised);
}

/* Those of a box that takes no calls wait for nothing: its memory is about to go. */
void handle_bury_all(Box *box, Call *outer)
{
    Call call;
    Grave grave;
    uint64_t until_ns = 0;
    bool told = false;
    while (dig_up(box, &grave)) {
        if (!box_usable(box))
            continue;
        call_init(&call);
        call.outer = outer;
        call.until_ns = until_ns;
        box->call = &call;
        if (!run_destructor(box, &call, grave.destroy, grave.address) && call.faulted)
            fault(box, &call);
        until_ns = call.until_ns;
        box->call = outer;
        report(&call, &told);
        evidence_free(&call.evidence);
    }
}

void handle_free_graves(Box *box)
{
    PyMem_Free(box->graves);
    box->graves = NULL;
}

/* Nobody waits in a finaliser: if the box is locked, whoever has it locked runs the destructor. */
static void end_unheld(Handle *self)
{
    Call call;
    Box *box = self->box;
    PyObject *who = PyUnicode_FromString("close");
    call_init(&call);
    if (who == NULL || lock_is_mine(box, thread_ident()) || !lock_try(box, thread_ident())) {
        PyErr_Clear();
        bury(self);
    } else if (!box_usable(box)) {
        lock_release(box);
    } else {
        box->call = &call;
        if (!end(self, &call, who))
            PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_XDECREF(who);
}

static void handle_finalize(PyObject *object)
{
    Handle *self = (Handle *)object;
    PyObject *error = error_take();
    if (self->box == NULL || why_dead(self) != NULL)
        POKE(self->closed, true);
    else if (take_out_of_use(self))
        end_unheld(self);
    if (error != NULL)
        error_restore(error);
}

/* ---- methods ---- */

static PyObject *handle_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    (void)args, (void)keywords;
    return PyErr_Format(PyExc_TypeError, "%s objects are made by the plugin's functions only",
                        type->tp_name);
}

/* By a call of this thread, which a callback of it would close it under; other threads wait until the call is over. */
static bool is_in_use(const Handle *self)
{
    return lock_is_mine(self->box, thread_ident()) && self->uses != 0;
}

static bool is_dead(const Handle *self)
{
    return why_dead(self) != NULL || PEEK(self->box->faulted);
}

/* Closing what died with its sandbox is no error: there is nothing left to free. */
static PyObject *handle_end(Handle *self, PyObject *unused)
{
    Call call;
    (void)unused;
    bool dead = is_dead(self);
    if (!take_out_of_use(self) || dead)
        Py_RETURN_NONE;
    PyObject *who = PyUnicode_FromString("close");
    bool ok = who != NULL && box_enter(self->box, &call) && end(self, &call, who);
    Py_XDECREF(who);
    return ok ? Py_NewRef(Py_None) : NULL;
}

static PyObject *handle_close(Handle *self, PyObject *unused)
{
    if (is_dead(self) || !is_in_use(self))
        return handle_end(self, unused);
    return PyErr_Format(PyExc_RuntimeError, "cannot close the %s: a call that is running has it as an argument",
                        Py_TYPE(self)->tp_name);
}

static PyObject *handle_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(self);
}

static PyObject *handle_exit(Handle *self, PyObject *args)
{
    (void)args;
    return handle_close(self, NULL);
}

static PyObject *handle_reduce(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyErr_Format(PyExc_TypeError, "cannot pickle '%s' object: it lives in its sandbox",
                        Py_TYPE(self)->tp_name);
}

static PyObject *handle_closed(Handle *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(why_dead(self) != NULL);
}

static PyObject *handle_repr(Handle *self)
{
    const char *why = why_dead(self);
    return PyUnicode_FromFormat("<%s handle%s%s>", Py_TYPE(self)->tp_name, why != NULL ? ", " : "",
                                why != NULL ? why : "");
}

/* ---- the type ---- */

static int handle_traverse(Handle *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->box);
    return 0;
}

static void handle_dealloc(Handle *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return;
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    if (self->box != NULL)
        leave(self);
    Py_XDECREF(self->box);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef handle_methods[] = {
    {"close", (PyCFunction)handle_close, METH_NOARGS,
     PyDoc_STR("close($self)\n--\n\nRun the plugin's destructor.  Idempotent.")},
    {"__end__", (PyCFunction)handle_end, METH_NOARGS,
     PyDoc_STR("__end__($self)\n--\n\nclose() for what may be closed while a call has it: a stream.")},
    {"__enter__", handle_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)handle_exit, METH_VARARGS, NULL},
    {"__reduce__", handle_reduce, METH_NOARGS, NULL},
    {0},
};

static PyGetSetDef handle_getset[] = {
    {"closed", (getter)handle_closed, NULL,
     PyDoc_STR("Whether it can no longer be used: closed, or its sandbox was, or was reset."), NULL},
    {0},
};

static PyMemberDef handle_members[] = {
    {"__box__", T_OBJECT, offsetof(Handle, box), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Handle, weakrefs), READONLY, NULL},
    {0},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("An object of a plugin, held by its sandbox.")},
    {Py_tp_new, handle_new},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_finalize, handle_finalize},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_repr, handle_repr},
    {Py_tp_methods, handle_methods},
    {Py_tp_getset, handle_getset},
    {Py_tp_members, handle_members},
    {0, NULL},
};

PyType_Spec handle_spec = {
    .name = "vxplug._vx.Handle",
    .basicsize = sizeof(Handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = handle_slots,
};
