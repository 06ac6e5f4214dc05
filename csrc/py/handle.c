/* The type Handle: a guest object that Python holds by its address, and how it ends.
 *
 * The host never looks behind the address.  What it upholds is that a handle goes only to functions
 * that take its type, only in the sandbox and the memory it comes from, and only until it is closed.
 * The plugin's destructor runs once: by close(), at the end of a with block, or when nobody holds the
 * handle any more; in the last case, if the sandbox is running a call, when that call is over. */
#include "binding.h"

#include <structmember.h>

/* A handle nobody holds, whose destructor could not run yet. */
typedef struct Grave {
    uint32_t destroy, address;
} Grave;

/* ---- the table of living handles ---- */

/* One object an address, so that its destructor runs once, however often the guest gives it. */
static Handle *find(const Box *box, PyObject *key, const Layout *layout)
{
    PyObject *entry = PyDict_GetItemWithError(box->handles, key);
    Handle *handle = entry != NULL ? PyLong_AsVoidPtr(entry) : NULL;
    return handle != NULL && Py_IS_TYPE(handle, (PyTypeObject *)layout->class) ? handle : NULL;
}

static bool enter(Box *box, PyObject *key, Handle *handle)
{
    PyObject *entry = PyLong_FromVoidPtr(handle);
    int done = entry != NULL ? PyDict_SetItem(box->handles, key, entry) : -1;
    Py_XDECREF(entry);
    return done == 0;
}

/* With an exception set or not, which stays. */
static void leave(Handle *self)
{
    PyObject *error = error_take();
    PyObject *key = PyLong_FromUnsignedLong(self->address);
    PyObject *entry = key != NULL ? PyDict_GetItemWithError(self->box->handles, key) : NULL;
    if (entry != NULL && PyLong_AsVoidPtr(entry) == self)
        PyDict_DelItem(self->box->handles, key);
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
    if (handle != NULL && handle->generation == box->generation) {
        Py_INCREF(handle);
    } else if (key != NULL && !PyErr_Occurred()) {
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
    if (self->closed)
        return "is closed";
    if (self->box->core == NULL || self->box->broken != NULL)
        return "died with its sandbox";
    return self->generation != self->box->generation ? "died when its sandbox was reset" : NULL;
}

uint32_t handle_word(const Function *function, unsigned index, PyObject *value)
{
    const Handle *self = (Handle *)value;
    const char *why = why_dead(self);
    if (self->box != function->box)
        why = "belongs to another sandbox";
    if (why == NULL)
        return self->address;
    PyObject *type = error_class("Error");
    if (type != NULL)
        error_argument(function, index, type, "the %s %s", Py_TYPE(value)->tp_name, why);
    Py_XDECREF(type);
    return 0;
}

/* ---- the end ---- */

static bool run_destructor(Box *box, Call *call, uint32_t destroy, uint32_t address)
{
    vx_result ignored;
    vx_status status = vx_call(box->core, (vx_gaddr){destroy}, &address, 1, &ignored, &call->trap);
    gil_take(call);
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

/* Takes the handle out of use, then runs its destructor, if its memory is still there. */
static bool end(Handle *self)
{
    Call call;
    Box *box = self->box;
    self->closed = true;
    leave(self);
    if (self->destroy == 0 || !box_usable(box))
        return true;
    PyObject *who = PyUnicode_FromString("close");
    bool ok = who != NULL && box_enter(box, &call);
    if (ok) {
        if (self->generation == box->generation)
            run_destructor(box, &call, self->destroy, self->address);
        box_leave(box, &call, who);
        ok = box_outcome(box, &call, who);
    }
    Py_XDECREF(who);
    return ok;
}

/* The running call's end will see to it: box_leave looks at arena_used, box_tidy at the graves.
 * Without memory for it the guest object stays until the next reset. */
static void bury(Handle *self)
{
    Box *box = self->box;
    self->closed = true;
    leave(self);
    Grave *graves = PyMem_Realloc(box->graves, (box->grave_count + 1) * sizeof *graves);
    if (graves == NULL)
        return;
    box->graves = graves;
    graves[box->grave_count++] = (Grave){self->destroy, self->address};
    box->arena_used = true;
}

static void report(Call *call)
{
    PyObject *error = call->error;
    if (error == NULL)
        error = call->raised;
    else
        Py_XDECREF(call->raised);
    if (error == NULL)
        return;
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_DECREF(error);
    PyErr_WriteUnraisable(NULL);
}

void handle_bury_all(Box *box, Call *outer)
{
    Call call;
    while (box->grave_count != 0 && box_usable(box)) {
        Grave grave = box->graves[--box->grave_count];
        call_init(&call);
        call.outer = outer;
        box->call = &call;
        if (!run_destructor(box, &call, grave.destroy, grave.address) && call.faulted)
            box->faulted = true;
        box->call = outer;
        report(&call);
        evidence_free(&call.evidence);
    }
    box->grave_count = 0;
}

void handle_free_graves(Box *box)
{
    PyMem_Free(box->graves);
    box->graves = NULL;
}

static void handle_finalize(PyObject *object)
{
    Handle *self = (Handle *)object;
    PyObject *error = error_take();
    if (self->box == NULL || why_dead(self) != NULL) {
        self->closed = true;
    } else if (self->destroy != 0 && self->box->owner != 0) {
        bury(self);
    } else if (!end(self)) {
        PyErr_WriteUnraisable(object);
    }
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

/* Closing what died with its sandbox is no error: there is nothing left to free. */
static PyObject *handle_close(Handle *self, PyObject *unused)
{
    (void)unused;
    if (why_dead(self) != NULL)
        self->closed = true;
    else if (!end(self))
        return NULL;
    Py_RETURN_NONE;
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
