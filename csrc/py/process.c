/* What a Linux personality needs of a box: its hooks, guest memory, running a program. */
#include "binding.h"

/* ---- hooks ---- */

static PyObject *numbers(const uint32_t arguments[6])
{
    return Py_BuildValue("(IIIIII)", arguments[0], arguments[1], arguments[2], arguments[3],
                         arguments[4], arguments[5]);
}

/* The callable's answer, an int that becomes the guest's eax. */
static bool ask(Box *box, vx_sandbox *core, uint32_t number, const uint32_t arguments[6],
                int32_t *result)
{
    if (box->linux_call == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "sandbox is being collected");
        return false;
    }
    PyObject *answer = PyObject_CallFunction(box->linux_call, "OIIN", box, vx_sandbox_life(core),
                                             number, numbers(arguments));
    if (answer == NULL)
        return false;
    long value = PyLong_AsLong(answer);
    Py_DECREF(answer);
    *result = (int32_t)value;
    return !(value == -1 && PyErr_Occurred()) && hook_still_sound(box);
}

bool on_linux_call(void *context, vx_sandbox *core, uint32_t number, const uint32_t arguments[6],
                   int32_t *result)
{
    Box *box = context;
    Call *call = box->call;
    bool released = hook_begin(call);
    call->serving = core;
    Errand *errand = errand_begin(box, true);
    bool ok = call->error == NULL && ask(box, core, number, arguments, result);
    errand_end(errand);
    call->serving = NULL;
    if (!ok)
        error_keep(call);
    return hook_end(box, call, released) && ok;
}

static bool tell(Box *box, uint32_t number, const uint32_t arguments[6], const int32_t *result)
{
    if (box->linux_trace == NULL)
        return true;
    PyObject *value = result == NULL ? Py_NewRef(Py_None) : PyLong_FromLong(*result);
    PyObject *done = PyObject_CallFunction(box->linux_trace, "OINN", box, number,
                                           numbers(arguments), value);
    Py_XDECREF(done);
    return done != NULL && hook_still_sound(box);
}

/* An exception ends the guest's call at its next system call or tick. */
void on_linux_trace(void *context, vx_sandbox *core, uint32_t number, const uint32_t arguments[6],
                    const int32_t *result)
{
    Box *box = context;
    Call *call = box->call;
    bool released = hook_begin(call);
    call->serving = core;
    Errand *errand = errand_begin(box, true);
    if (call->error == NULL && !tell(box, number, arguments, result))
        error_keep(call);
    errand_end(errand);
    call->serving = NULL;
    (void)hook_end(box, call, released);
}

/* ---- guest memory ---- */

/* With the box locked: its sandbox, also while that is made; or NULL.  The innermost call is asked only then: later it may
 * be one that waits in a greenlet, with other frames where its record was. */
static vx_sandbox *core_of(const Box *box)
{
    bool making = box->core == NULL && box->call != NULL;
    return making ? box->call->serving : box->core;
}

/* The sandbox whose memory may be used now: of the hook that runs, or, locked, of a box at rest.
 * NULL with an exception. */
static vx_sandbox *memory_begin(Box *box, bool *locked)
{
    *locked = false;
    if (!lock_is_mine(box, thread_ident())) {
        if (!lock_acquire(box))
            return NULL;
        *locked = true;
    }
    vx_sandbox *core = core_of(box);
    if (core == NULL)
        box_refuse(box, *locked);
    return core;
}

static void memory_end(Box *box, bool locked)
{
    if (locked)
        lock_release(box);
}

PyObject *box_read(Box *self, PyObject *args)
{
    uint32_t address, size;
    bool locked;
    if (!PyArg_ParseTuple(args, "O&O&:read", convert_word, &address, convert_word, &size))
        return NULL;
    vx_sandbox *core = memory_begin(self, &locked);
    if (core == NULL)
        return NULL;
    const char *from = size == 0 ? "" : vx_guest_pointer(core, (vx_gaddr){address}, size, VX_PROT_READ);
    PyObject *bytes = from == NULL ? Py_NewRef(Py_None)
                                   : PyBytes_FromStringAndSize(from, (Py_ssize_t)size);
    memory_end(self, locked);
    return bytes;
}

static bool copy_to_guest(vx_sandbox *core, uint32_t address, const Py_buffer *data)
{
    if (data->len == 0)
        return true;
    void *to = vx_guest_pointer(core, (vx_gaddr){address}, (uint64_t)data->len,
                                VX_PROT_READ | VX_PROT_WRITE);
    if (to != NULL)
        memcpy(to, data->buf, (size_t)data->len);
    return to != NULL;
}

PyObject *box_write(Box *self, PyObject *args)
{
    uint32_t address;
    Py_buffer data;
    bool locked, ok = false;
    if (!PyArg_ParseTuple(args, "O&y*:write", convert_word, &address, &data))
        return NULL;
    vx_sandbox *core = memory_begin(self, &locked);
    if (core != NULL) {
        ok = copy_to_guest(core, address, &data);
        memory_end(self, locked);
    }
    PyBuffer_Release(&data);
    return core == NULL ? NULL : PyBool_FromLong(ok);
}

PyObject *box_text(Box *self, PyObject *args)
{
    uint32_t address, limit;
    bool locked;
    if (!PyArg_ParseTuple(args, "O&O&:text", convert_word, &address, convert_word, &limit))
        return NULL;
    vx_sandbox *core = memory_begin(self, &locked);
    if (core == NULL)
        return NULL;
    size_t size = vx_guest_strlen(core, (vx_gaddr){address}, limit);
    const char *from = size == SIZE_MAX
        ? NULL : vx_guest_pointer(core, (vx_gaddr){address}, size + 1, VX_PROT_READ);
    PyObject *bytes = from == NULL ? Py_NewRef(Py_None)
                                   : PyBytes_FromStringAndSize(from, (Py_ssize_t)size);
    memory_end(self, locked);
    return bytes;
}

PyObject *box_stopping(Box *self, PyObject *unused)
{
    (void)unused;
    vx_sandbox *core = lock_is_mine(self, thread_ident()) ? core_of(self) : NULL;
    return PyBool_FromLong(core != NULL && vx_sandbox_stopping(core));
}

PyObject *box_output_room(Box *self, PyObject *size)
{
    uint32_t bytes;
    bool locked;
    if (!convert_word(size, &bytes))
        return NULL;
    vx_sandbox *core = memory_begin(self, &locked);
    if (core == NULL)
        return NULL;
    uint32_t room = vx_output_room(core, bytes);
    memory_end(self, locked);
    return PyLong_FromUnsignedLong(room);
}

/* ---- running a program ---- */

/* The processor as Linux starts a program: x87 control word and MXCSR (System V ABI, i386). */
static void fresh_cpu(vx_cpu *cpu, uint32_t eip, uint32_t esp)
{
    static const uint16_t fcw = 0x37f;
    static const uint32_t mxcsr = 0x1f80;
    memset(cpu, 0, sizeof *cpu);
    cpu->registers.eip = eip;
    cpu->registers.gpr[4] = esp;
    memcpy(cpu->fx, &fcw, sizeof fcw);
    memcpy(cpu->fx + 24, &mxcsr, sizeof mxcsr);
}

static void run_locked(Box *box, Call *call, vx_cpu *cpu)
{
    vx_status status = vx_run(box->core, cpu, &call->trap);
    gil_take(call);
    call->faulted = status == VX_TRAP;
    if (status != VX_TRAP) {
        error_status(status, "sandbox");
        error_keep(call);
    }
}

PyObject *box_run(Box *self, PyObject *args)
{
    uint32_t eip, esp;
    vx_cpu cpu;
    Call call;
    if (!PyArg_ParseTuple(args, "O&O&:run", convert_word, &eip, convert_word, &esp))
        return NULL;
    fresh_cpu(&cpu, eip, esp);
    PyObject *who = PyUnicode_FromString("_start");
    call_init(&call);
    /* Not box_enter: inlined here, gcc takes its `box->call = call` for a dangling pointer. */
    if (who != NULL && box_enter_slow(self, &call)) {
        run_locked(self, &call, &cpu);
        box_leave(self, &call, who);
        box_outcome(self, &call, who);
    }
    Py_XDECREF(who);
    return NULL;
}

/* ---- the list of calls ---- */

PyObject *linux_rows(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    size_t count;
    const vx_linux_row *rows = vx_linux_rows(&count);
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *row = Py_BuildValue("(isss)", rows[i].number, rows[i].name, rows[i].server,
                                      rows[i].arguments);
        if (row == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, row);
    }
    return list;
}
