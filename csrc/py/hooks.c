/* What the core calls back while a call or an initialisation runs, and the GIL around it.
 *
 * A short call never releases the GIL: the first tick does, some milliseconds in, between two
 * guest instructions, when nothing on this thread holds a lock; or the call itself, before it enters, when
 * calls of this thread have taken twenty microseconds and more of late.  Later ticks take it back on the main thread, rarely, so that Ctrl-C and
 * other signals reach their Python handlers.  Output and errors take it when it was released. */
#include "binding.h"

#include <time.h>
#include <unistd.h>

uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t clock_ms(void) { return clock_ns() / 1000000; }

/* During finalisation the one thread that holds the GIL is the one that finalises: it must not
 * let go, since no other may run Python any more. */
void gil_release(Call *call)
{
    if (!Py_IsFinalizing())
        call->suspended = PyEval_SaveThread();
}

/* A daemon thread that comes back from the guest while the interpreter goes down has no place to
 * return to.  PyEval_RestoreThread would end the thread by unwinding its stack, frames of the
 * core included; waiting for the process to end is what CPython 3.14 does too. */
void gil_take_slow(Call *call)
{
    while (Py_IsFinalizing())
        pause();
    uint64_t since = call->lingers_ns, ready = since == 0 ? 0 : clock_ns();
    PyEval_RestoreThread(call->suspended);
    call->suspended = NULL;
    call->lingers_ns = 0;
    if (since != 0)
        vx_lingered(ready - since, clock_ns() - ready);
}

bool hook_begin(Call *call)
{
    bool released = call->suspended != NULL;
    gil_take(call);
    return released;
}

bool hook_end(Box *box, Call *call, bool released)
{
    bool in_order = box_in_order(box, call);
    if (released)
        gil_release(call);
    return in_order;
}

/* The callback may call the sandbox again.  If that call faulted and the callback hid it, the
 * running one cannot go on in what is left. */
bool hook_still_sound(const Box *box)
{
    if (!box->faulted && box->broken == NULL)
        return true;
    error_vxplug("Error", "a call made by the sandbox's callback faulted");
    return false;
}

static bool send_output(Box *box, int fd, const void *data, size_t size)
{
    if (box->write == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "sandbox is being collected");
        return false;
    }
    Errand *errand = errand_begin(box, false);
    PyObject *result = PyObject_CallFunction(box->write, "iy#", fd, data, (Py_ssize_t)size);
    errand_end(errand);
    Py_XDECREF(result);
    return result != NULL && hook_still_sound(box);
}

static bool on_output(void *context, int fd, const void *data, size_t size)
{
    Box *box = context;
    Call *call = box->call;
    if (fd == 2)
        evidence_output(&call->evidence, data, size);
    bool released = hook_begin(call);
    bool ok = call->error == NULL && send_output(box, fd, data, size);
    if (!ok)
        error_keep(call);
    return hook_end(box, call, released) && ok;
}

/* Only the first error counts, so a guest that repeats itself costs no memory. */
static void on_raise(void *context, const char *name, size_t name_size, const char *text,
                     size_t size)
{
    Box *box = context;
    Call *call = box->call;
    if (call->raised != NULL)
        return;
    bool released = hook_begin(call);
    call->raised = error_of_guest(box->state, name, name_size, text, size);
    if (call->raised == NULL)
        error_keep(call);
    (void)hook_end(box, call, released);
}

static vx_callback_end on_callback(void *context, vx_callback *callback)
{
    Box *box = context;
    Call *call = box->call;
    bool released = hook_begin(call);
    vx_callback_end end = VX_CALLBACK_HOOK;
    if (call->error == NULL)
        end = callback_serve(box, call, callback);
    return hook_end(box, call, released) ? end : VX_CALLBACK_HOOK;
}

/* Python runs signal handlers on its main thread only. */
static bool signals_due(const Box *box, Call *call)
{
    if (thread_ident() != box->state->main_thread)
        return false;
    uint64_t now = clock_ms();
    if (now - call->checked_ms < SIGNAL_CHECK_MS)
        return false;
    call->checked_ms = now;
    return true;
}

/* The profiler's callable gets registers as in a trap, and a copy of the stack. */
static bool send_sample(Box *box, const vx_registers *at)
{
    PyObject *sample = sample_get(box); /* it may take itself away */
    if (sample == NULL)
        return true;
    PyObject *info = sample_info(box, at);
    PyObject *result = info != NULL ? PyObject_CallOneArg(sample, info) : NULL;
    Py_DECREF(sample);
    Py_XDECREF(info);
    Py_XDECREF(result);
    return result != NULL;
}

static bool take_sample(Box *box, Call *call)
{
    vx_registers at;
    if (box->core == NULL || !vx_sandbox_where(box->core, &at))
        return true;
    bool released = hook_begin(call);
    bool ok = send_sample(box, &at);
    if (!ok)
        error_keep(call);
    return hook_end(box, call, released) && ok;
}

static bool on_tick(void *context)
{
    Box *box = context;
    Call *call = box->call;
    if (call->error != NULL || (PEEK(box->sample) != NULL && !take_sample(box, call)))
        return false;
    if (call->suspended == NULL) {
        gil_release(call);
        return true;
    }
    if (!signals_due(box, call))
        return true;
    gil_take(call);
    if (PyErr_CheckSignals() < 0) {
        error_keep(call);
        return false;
    }
    gil_release(call);
    return true;
}

/* Threads that run Python hand the GIL back only every few milliseconds: gil_take_slow tells the core how long it took. */
static void on_linger(void *context)
{
    const Box *box = context;
    Call *call = box->call;
    if (call->suspended != NULL)
        return;
    call->lingers_ns = clock_ns();
    gil_release(call);
}

/* In a signal handler.  Python's own handler of the signal notes it, and runs ours (vxplug/_signals.py)
 * as soon as it can, on its main thread, which is woken if it is not this one.
 * PyErr_SetInterruptEx is no way: it reads the thread's state when no Python handler is installed. */
static bool on_overdue(void *context, vx_trap_kind why, pthread_t *wakes)
{
    Box *box = context;
    State *state = box->state;
    if (!PEEK(state->ends_callbacks))
        return false;
    if (thread_ident() == state->main_thread)
        return true;
    POKE(box->overdue, why);
    uint64_t now = clock_ms();
    if (now - PEEK(state->woken_ms) < WAKE_MS || Py_IsFinalizing())
        return false;
    POKE(state->woken_ms, now);
    *wakes = (pthread_t)state->main_thread;
    return true;
}

const vx_hooks hooks_table = {.output = on_output, .raise = on_raise, .tick = on_tick, .linger = on_linger,
                              .callback = on_callback, .ended = evidence_keep,
                              .overdue = on_overdue};
