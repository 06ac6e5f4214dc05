/* Errands: host code that guests have run, on threads where Python runs no signal handlers.
 *
 * CPython runs the handlers of signals on its main thread only.  So when the call of another thread is over while
 * it runs host code, its tick marks the sandbox and wakes the main thread (on_overdue in hooks.c); the handler there
 * (vxplug/_signals.py) has CPython raise an exception in that thread as soon as it runs Python code.  Such an exception
 * is raised at some later time, so what is still to be raised when the errand is over is taken back: it would meet
 * code that has nothing to do with the call. */
#include "binding.h"

static Errand *newest_of(const State *state, unsigned long thread)
{
    Errand *errand = state->errands;
    while (errand != NULL && errand->thread != thread)
        errand = errand->next;
    return errand;
}

/* If somebody else has one raised in the thread meanwhile, that is taken back instead of ours: CPython keeps the last. */
static void take_back(Errand *errand)
{
    if (errand->ended)
        PyThreadState_SetAsyncExc(errand->thread, NULL);
    errand->ended = false;
}

Errand *errand_begin(Box *box, bool whole)
{
    State *state = box->state;
    unsigned long me = thread_ident();
    if (me == state->main_thread || !PEEK(state->ends_callbacks))
        return NULL;
    Errand *errand = PyMem_Malloc(sizeof *errand);
    if (errand == NULL)
        return NULL;
    *errand = (Errand){.state = state, .box = box, .thread = me, .whole = whole};
    guard_enter(&state->errands_guard);
    for (Errand *outer = state->errands; whole && outer != NULL; outer = outer->next)
        if (outer->thread == me)
            take_back(outer);
    POKE(box->overdue, VX_TRAP_NONE); /* what was marked before was another errand's */
    errand->next = state->errands;
    state->errands = errand;
    guard_leave(&state->errands_guard);
    return errand;
}

void errand_end(Errand *errand)
{
    if (errand == NULL)
        return;
    State *state = errand->state;
    guard_enter(&state->errands_guard);
    take_back(errand);
    Errand **link = &state->errands;
    while (*link != errand)
        link = &(*link)->next;
    *link = errand->next;
    guard_leave(&state->errands_guard);
    PyMem_Free(errand);
}

/* Why any call of the thread has to end: of those that wait for an errand, the innermost with a mark. */
static vx_trap_kind why_overdue(const State *state, unsigned long thread)
{
    for (const Errand *errand = state->errands; errand != NULL; errand = errand->next)
        if (errand->thread == thread && PEEK(errand->box->overdue) != VX_TRAP_NONE)
            return PEEK(errand->box->overdue);
    return VX_TRAP_NONE;
}

PyObject *end_errands(PyObject *module, PyObject *args)
{
    State *state = PyModule_GetState(module);
    PyObject *timeout, *interrupt;
    if (!PyArg_ParseTuple(args, "OO:end_errands", &timeout, &interrupt))
        return NULL;
    guard_enter(&state->errands_guard);
    for (Errand *errand = state->errands; errand != NULL; errand = errand->next) {
        vx_trap_kind why = why_overdue(state, errand->thread);
        if (why == VX_TRAP_NONE || errand->whole || errand->thread == state->main_thread
            || errand != newest_of(state, errand->thread))
            continue;
        errand->ended = true;
        PyThreadState_SetAsyncExc(errand->thread, why == VX_TRAP_INTERRUPT ? interrupt : timeout);
    }
    guard_leave(&state->errands_guard);
    Py_RETURN_NONE;
}

/* The others' threads are not there any more, and never come back from them. */
void errand_after_fork(State *state)
{
    unsigned long me = thread_ident();
    Errand **link = &state->errands;
    while (*link != NULL) {
        Errand *errand = *link;
        if (errand->thread == me) {
            link = &errand->next;
            continue;
        }
        *link = errand->next;
        PyMem_Free(errand);
    }
}
