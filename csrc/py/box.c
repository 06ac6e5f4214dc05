/* The type Box: one sandbox, its life, and what a fault does to it. */
#include "binding.h"

#include <math.h>
#include <structmember.h>

/* ---- using a box ---- */

bool box_refuse(Box *box, bool release)
{
    PyObject *why = Py_XNewRef(box->broken);
    bool closed = box->core == NULL;
    if (release)
        lock_release(box);
    if (why != NULL)
        error_vxplug("Error", "%S", why);
    else if (closed)
        error_vxplug("Error", "sandbox is closed");
    else
        error_vxplug("Error", "sandbox is to be reset: a call made by its callback faulted");
    Py_XDECREF(why);
    return false;
}

static bool enter_nested(Box *box, Call *call)
{
    if (!box_usable(box))
        return box_refuse(box, false);
    call->outer = box->call;
    call->level = ++box->level;
    box->call = call;
    return true;
}

bool box_enter_slow(Box *box, Call *call)
{
    if (lock_is_mine(box, thread_ident()))
        return enter_nested(box, call);
    if (!lock_acquire(box))
        return false;
    if (!box_usable(box))
        return box_refuse(box, true);
    box->call = call;
    return true;
}

vx_status box_call_more(Box *box, Call *call, uint32_t function, const uint32_t *words, size_t count, vx_result *result)
{
    uint64_t now = clock_ns(), left = 0;
    if (!box_in_order(box, call))
        return VX_BUSY;
    if (box->timeout_ns != 0) {
        if (call->until_ns == 0)
            call->until_ns = now + box->timeout_ns;
        if (now >= call->until_ns) {
            call->trap = (vx_trap){.kind = VX_TRAP_TIMEOUT, .registers = {.eip = function}};
            return VX_TRAP;
        }
        left = call->until_ns - now;
    }
    vx_status status = vx_call_more(box->core, (vx_gaddr){function}, words, count, left, result, &call->trap);
    gil_take(call);
    return status;
}

/* For what cannot be done inside a call: replacing the memory it runs in. */
static bool lock_whole(Box *box, const char *what)
{
    if (!lock_is_mine(box, thread_ident()))
        return lock_acquire(box);
    PyErr_Format(PyExc_RuntimeError, "cannot %s the sandbox: it is running a call", what);
    return false;
}

/* Why further calls are refused, or NULL: they are not.  Steals. */
static void set_broken(Box *box, PyObject *text)
{
    PyObject *old = box->broken;
    POKE(box->broken, text);
    Py_XDECREF(old);
}

/* Even without memory for the text they are. */
static void box_break(Box *box, PyObject *text)
{
    PyErr_Clear();
    set_broken(box, text != NULL ? text : Py_NewRef(Py_None));
}

static void box_poison(Box *box, const Call *call, PyObject *who)
{
    const char *text = call->fault_text;
    if (text == NULL)
        text = vx_trap_kind_text(call->trap.kind);
    box_break(box, PyUnicode_FromFormat("sandbox is poisoned by an earlier fault: %U(): %s", who,
                                        text));
}

/* Who serves system calls lets go of what it kept for the life that is over. */
static void begin_life(Box *box, Call *call)
{
    PyObject *done = box->new_life == NULL ? Py_NewRef(Py_None) : PyObject_CallNoArgs(box->new_life);
    if (done == NULL)
        error_keep(call);
    Py_XDECREF(done);
}

static vx_status box_restart(Box *box, Call *call)
{
    vx_status status = vx_sandbox_reset(box->core);
    gil_take(call);
    handle_forget_all(box);
    box->faulted = false;
    if (status != VX_OK)
        box_break(box, PyUnicode_FromFormat("sandbox is unusable, its reset failed: %s",
                                            vx_status_text(status)));
    else
        set_broken(box, NULL);
    begin_life(box, call);
    return status;
}

void box_faulted(Box *box, Call *call, PyObject *who)
{
    if (box->poison)
        box_poison(box, call, who);
    else
        box->faulted = true;
}

void box_tidy(Box *box, Call *call)
{
    bool left = PEEK(box->left) && __atomic_exchange_n(&box->left, false, __ATOMIC_SEQ_CST);
    if (left)
        handle_bury_all(box, call);
    if (box->arena_used)
        vx_arena_reset(box->core);
    if (left)
        buffer_sweep(box);
    box->arena_used = false;
    if (box->faulted)
        box_restart(box, call);
}

/* Whoever leaves more meanwhile finds the box locked and `left` set, which is looked at again.  Keeps the current
 * exception. */
void box_catch_up(Box *box)
{
    PyObject *error = error_take();
    while (__atomic_load_n(&box->left, __ATOMIC_SEQ_CST) && lock_try(box, thread_ident())) {
        Call call;
        call_init(&call);
        box->call = &call;
        if (box->core != NULL)
            vx_call_anew(box->core);
        box_tidy(box, &call);
        box->call = NULL;
        lock_let_go(box);
        if (call.error != NULL) {
            error_restore(call.error);
            PyErr_WriteUnraisable((PyObject *)box);
        }
    }
    if (error != NULL)
        error_restore(error);
}

void box_leave_work(Box *box)
{
    __atomic_store_n(&box->left, true, __ATOMIC_SEQ_CST);
    box_catch_up(box);
}

bool box_raise(Box *box, Call *call, PyObject *who)
{
    PyObject *raised = call->raised;
    if (call->error != NULL)
        error_restore(call->error);
    else if (call->faulted)
        error_trap(box, call, who);
    else
        PyErr_SetObject((PyObject *)Py_TYPE(raised), raised);
    Py_XDECREF(raised);
    evidence_free(&call->evidence);
    return false;
}

/* ---- calls that cross ---- */

/* A call of this thread began there and is not over, or one that was open before is: the thread changed its stack
 * meanwhile, as greenlets do.  No call of the box can go on then: its guest stack is what the last one left of it. */
void box_astray(Box *box, Call *call)
{
    if (box->level != ASTRAY)
        box->open = box->level + 1;
    box->level = ASTRAY;
    box->call = call;
    error_vxplug("Error", "calls of one sandbox must end in the reverse order in which they began, also in greenlets");
    error_keep(call);
    if (box->poison)
        box_break(box, PyUnicode_FromString("sandbox is poisoned: its calls did not end in the order in which they began"));
    else
        box->faulted = true;
}

void box_leave_astray(Box *box, Call *call, PyObject *who)
{
    (void)box_in_order(box, call); /* the first one may be over with its guest code, and making its result */
    if (call->faulted)
        box_faulted(box, call, who);
    box->call = NULL;
    if (--box->open != 0)
        return;
    callback_end_all(box);
    box->call = call;
    box->level = 0;
    box_tidy(box, call);
    box->call = NULL;
    lock_release(box);
}

/* ---- creation ---- */

static bool seconds_to_ns(double seconds, const char *name, uint64_t *out)
{
    double ns = ceil(seconds * 1e9); /* up: a tiny limit must not become 0, which is none */
    if (!(ns >= 0 && ns < 0x1p63)) {
        PyErr_Format(PyExc_ValueError, "%s must be a number of seconds, 0 for none", name);
        return false;
    }
    *out = (uint64_t)ns;
    return true;
}

/* Runs the plugin's initialisation when this is its first sandbox.  The GIL is released from the
 * start: a second thread's first sandbox of the plugin waits inside the core for ours, whose
 * hooks need the GIL. */
static void box_initialise(Box *box, const vx_options *options, Call *call)
{
    vx_sandbox *core = NULL;
    gil_release(call);
    vx_status status = vx_sandbox_create(box->plugin->core, options, &core, &call->trap);
    gil_take(call);
    if (status == VX_OK) {
        POKE(box->core, core);
    } else if (status == VX_TRAP) {
        call->faulted = true;
    } else {
        error_status(status, "sandbox");
        error_keep(call);
    }
}

static bool box_start(Box *box, vx_options *options)
{
    Call call;
    call_init(&call);
    options->hooks = hooks_table;
    if (box->linux_call != NULL)
        options->hooks.linux_call = on_linux_call;
    if (box->linux_trace != NULL)
        options->hooks.linux_trace = on_linux_trace;
    options->context = box;
    POKE(box->owner, thread_ident());
    box->call = &call;
    box_initialise(box, options, &call);
    box->call = NULL;
    lock_release(box);
    return box_outcome(box, &call, NULL);
}

typedef struct BoxArguments {
    Plugin *plugin;
    PyObject *write, *trap, *linux_call, *linux_trace, *imports, *new_life;
    uint32_t release;
    int poison, raw;
    vx_options options;
} BoxArguments;

static bool box_parse(State *state, PyObject *args, PyObject *keywords, BoxArguments *out)
{
    static char *names[] = {"plugin", "memory", "stack", "timeout", "init_timeout", "output",
                            "poison", "free", "write", "trap", "linux", "trace",
                            "raw", "imports", "new_life", NULL};
    double timeout, init_timeout;
    vx_options *options = &out->options;
    return PyArg_ParseTupleAndKeywords(args, keywords, "O!O&O&ddO&pO&OOOOpOO:Box", names,
                                       state->plugin_type, &out->plugin, convert_long_word,
                                       &options->memory, convert_word, &options->stack, &timeout,
                                       &init_timeout, convert_long_word, &options->output, &out->poison,
                                       convert_word, &out->release, &out->write,
                                       &out->trap, &out->linux_call, &out->linux_trace, &out->raw,
                                       &out->imports, &out->new_life)
        && seconds_to_ns(timeout, "timeout", &options->timeout_ns)
        && seconds_to_ns(init_timeout, "init_timeout", &options->init_timeout_ns);
}

static PyObject *given(PyObject *object)
{
    return object == NULL || object == Py_None ? NULL : Py_NewRef(object);
}

static Box *box_alloc(PyTypeObject *type, State *state, const BoxArguments *from)
{
    Box *self = (Box *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->state = state;
    int error = lock_create(self);
    if (error != 0) {
        self->state = NULL; /* tells the deallocator that there is no lock */
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    self->handles = PyDict_New();
    if (self->handles == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    self->plugin = (Plugin *)Py_NewRef(from->plugin);
    self->write = Py_NewRef(from->write);
    self->trap = Py_NewRef(from->trap);
    self->linux_call = given(from->linux_call);
    self->linux_trace = given(from->linux_trace);
    self->new_life = given(from->new_life);
    self->memory = from->options.memory;
    self->timeout_ns = from->options.timeout_ns;
    self->init_timeout_ns = from->options.init_timeout_ns;
    self->stack_low = VX_STACK_TOP
        - (from->options.stack + VX_PAGE_SIZE - 1) / VX_PAGE_SIZE * VX_PAGE_SIZE;
    self->release = from->release;
    self->poison = from->poison;
    return self;
}

static PyObject *box_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    State *state = PyType_GetModuleState(type);
    BoxArguments parsed = {0};
    if (!box_parse(state, args, keywords, &parsed))
        return NULL;
    parsed.options.raw = parsed.raw;
    Box *self = box_alloc(type, state, &parsed);
    if (self != NULL && !callback_set_imports(self, parsed.imports))
        Py_CLEAR(self);
    if (self != NULL && !box_start(self, &parsed.options))
        Py_CLEAR(self);
    return (PyObject *)self;
}

/* ---- methods ---- */

static bool reset_locked(Box *box)
{
    Call call;
    call_init(&call);
    if (box->core == NULL)
        return box_refuse(box, false);
    box->call = &call;
    vx_status status = box_restart(box, &call);
    box->call = NULL;
    return status == VX_OK ? box_outcome(box, &call, NULL) : box_refuse(box, false);
}

/* Also heals a poisoned sandbox: its memory is as new. */
static PyObject *box_reset(Box *self, PyObject *unused)
{
    (void)unused;
    if (!lock_whole(self, "reset"))
        return NULL;
    bool ok = reset_locked(self);
    lock_release(self);
    return ok ? Py_NewRef(Py_None) : NULL;
}

/* Who asks from outside a call, box_interrupt and box_memory_used, does not meet what is freed. */
static vx_sandbox *take_core(Box *self)
{
    vx_sandbox *core;
    guard_enter(&self->guard);
    core = self->core;
    POKE(self->core, NULL);
    guard_leave(&self->guard);
    return core;
}

/* Unmapping a large sandbox takes a while, so the GIL is released; nobody reaches it any more. */
static PyObject *box_close(Box *self, PyObject *unused)
{
    (void)unused;
    if (PEEK(self->core) == NULL)
        Py_RETURN_NONE;
    if (!lock_whole(self, "close"))
        return NULL;
    vx_sandbox *core = take_core(self);
    lock_release(self);
    Py_BEGIN_ALLOW_THREADS
    vx_sandbox_free(core);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* With nothing to interrupt this does nothing: who interrupts cannot know that the call is over. */
static PyObject *box_interrupt(Box *self, PyObject *unused)
{
    (void)unused;
    guard_enter(&self->guard);
    if (self->core != NULL)
        vx_sandbox_interrupt(self->core);
    guard_leave(&self->guard);
    Py_RETURN_NONE;
}

static PyObject *box_closed(Box *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(PEEK(self->core) == NULL);
}

static PyObject *box_memory_used(Box *self, void *unused)
{
    (void)unused;
    uint64_t bytes;
    guard_enter(&self->guard);
    bytes = self->core == NULL ? 0 : vx_sandbox_memory(self->core);
    guard_leave(&self->guard);
    return PyLong_FromUnsignedLongLong(bytes);
}

/* ---- the type ---- */

static int box_traverse(Box *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->plugin);
    Py_VISIT(self->write);
    Py_VISIT(self->trap);
    Py_VISIT(self->linux_call);
    Py_VISIT(self->linux_trace);
    Py_VISIT(self->new_life);
    Py_VISIT(self->sample);
    return callback_traverse(self, visit, arg);
}

static int box_clear(Box *self)
{
    Py_CLEAR(self->write);
    Py_CLEAR(self->trap);
    Py_CLEAR(self->linux_call);
    Py_CLEAR(self->linux_trace);
    Py_CLEAR(self->new_life);
    sample_set(self, NULL);
    callback_free(self);
    return 0;
}

static void box_dealloc(Box *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    buffer_free_all(self);
    vx_sandbox_free(self->core);
    box_clear(self);
    Py_CLEAR(self->plugin);
    Py_CLEAR(self->broken);
    Py_CLEAR(self->handles);
    handle_free_graves(self);
    if (self->state != NULL)
        lock_destroy(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef box_methods[] = {
    {"reset", (PyCFunction)box_reset, METH_NOARGS,
     PyDoc_STR("reset($self)\n--\n\nBack to the state right after initialisation.")},
    {"close", (PyCFunction)box_close, METH_NOARGS,
     PyDoc_STR("close($self)\n--\n\n"
               "Free the sandbox, after waiting for a call in another thread.  Idempotent.")},
    {"buffer", (PyCFunction)box_buffer, METH_O,
     PyDoc_STR("buffer($self, size, /)\n--\n\nA Buffer: memory that the sandbox and Python share.")},
    {"map", (PyCFunction)box_map, METH_VARARGS,
     PyDoc_STR("map($self, source, offset, size, /)\n--\n\nA Mapping of a descriptor or of shared memory.")},
    {"interrupt", (PyCFunction)box_interrupt, METH_NOARGS,
     PyDoc_STR("interrupt($self)\n--\n\nEnd the running call, if any, from any thread.")},
    {"run", (PyCFunction)box_run, METH_VARARGS,
     PyDoc_STR("run($self, eip, esp, /)\n--\n\n"
               "Run a raw box until it traps; raises what `trap` makes of it.")},
    {"read", (PyCFunction)box_read, METH_VARARGS,
     PyDoc_STR("read($self, address, size, /)\n--\n\nGuest memory, or None if not all readable.")},
    {"write", (PyCFunction)box_write, METH_VARARGS,
     PyDoc_STR("write($self, address, data, /)\n--\n\n"
               "Change guest memory; False if not all of it is writable.")},
    {"text", (PyCFunction)box_text, METH_VARARGS,
     PyDoc_STR("text($self, address, limit, /)\n--\n\n"
               "Bytes up to a NUL, or None if none follows within the limit.")},
    {"profile", (PyCFunction)box_profile, METH_O,
     PyDoc_STR("profile($self, sample, /)\n--\n\nCall sample(info) at every tick of a call; None stops.")},
    {"translation", (PyCFunction)box_translation, METH_VARARGS,
     PyDoc_STR("translation($self, address, /)\n--\n\nThe translated block at a guest address, or None.")},
    {"stopping", (PyCFunction)box_stopping, METH_NOARGS,
     PyDoc_STR("stopping($self)\n--\n\nWhether the running call is to end now.")},
    {"output_room", (PyCFunction)box_output_room, METH_O,
     PyDoc_STR("output_room($self, size, /)\n--\n\nHow many of so many bytes the running call may write.")},
    {0},
};

static PyGetSetDef box_getset[] = {
    {"closed", (getter)box_closed, NULL, PyDoc_STR("Whether close() was called."), NULL},
    {"memory_used", (getter)box_memory_used, NULL,
     PyDoc_STR("Bytes mapped now, counted against the limit."), NULL},
    {0},
};

static PyMemberDef box_members[] = {
    {"trap", T_OBJECT, offsetof(Box, trap), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Box, weakrefs), READONLY, NULL},
    {0},
};

static PyType_Slot box_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR(
        "Box(plugin, memory, stack, timeout, init_timeout, output, poison, free, write, trap, linux,"
        " trace, raw, imports, new_life)\n--\n\n"
        "One guest address space and its CPU, with the lock that admits one call at a time.")},
    {Py_tp_new, box_new},
    {Py_tp_dealloc, box_dealloc},
    {Py_tp_traverse, box_traverse},
    {Py_tp_clear, box_clear},
    {Py_tp_methods, box_methods},
    {Py_tp_getset, box_getset},
    {Py_tp_members, box_members},
    {0, NULL},
};

PyType_Spec box_spec = {
    .name = "vxplug._vx.Box",
    .basicsize = sizeof(Box),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = box_slots,
};
