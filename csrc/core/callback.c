/* Guest code calls a host function: a callback, by jumping to an address that no guest memory has, or
 * an import, by a host call in the function's stub.  Either way the guest's stack is as at the first
 * instruction of a function, and is left as by its return. */
#include "internal.h"

/* A value on the x87 stack of an FXSAVE image, whose registers are in stack order and whose tags are in
 * physical order (Intel SDM volume 1, 10.5.1).  A full stack loses its oldest. */
static void push_st0(uint8_t *fx, double value) {
    enum { FSW = 2, FTW = 4, ST0 = 32, REGISTER = 16 };
    long double wide = value;
    uint16_t fsw;
    memcpy(&fsw, fx + FSW, sizeof fsw);
    unsigned top = ((fsw >> 11) - 1u) & 7;
    memmove(fx + ST0 + REGISTER, fx + ST0, 7 * REGISTER);
    memset(fx + ST0, 0, REGISTER);
    memcpy(fx + ST0, &wide, 10);
    fsw = (uint16_t)((fsw & ~0x3800u) | top << 11);
    memcpy(fx + FSW, &fsw, sizeof fsw);
    fx[FTW] |= (uint8_t)(1u << top);
}

/* As by a return: the prediction of the call, if there still is one, is used up with it. */
static void come_back(vx_sandbox *box, uint32_t to, const vx_callback *call) {
    vx_state *s = box->state;
    s->gpr[0] = call->result.eax;
    s->gpr[2] = call->result.edx;
    if (call->has_st0)
        push_st0(s->fx, call->result.st0);
    s->gpr[4] = call->arguments.value + call->pop;
    s->eip = to;
    if (s->guest_rsp < s->stack_top)
        s->guest_rsp += 8;
}

static bool bad_memory(vx_sandbox *box, uint32_t address, vx_trap *trap) {
    trap->kind = trap_memory_kind(box, address);
    trap->has_address = true;
    trap->address = address;
    return false;
}

static bool refused(vx_sandbox *box, const vx_callback *call, vx_trap *trap) {
    trap->kind = VX_TRAP_EXECUTE;
    trap->has_address = true;
    trap->address = call->function;
    box->state->eip = call->function;
    return false;
}

bool callback_run(vx_sandbox *box, uint32_t function, vx_trap *trap) {
    uint32_t esp = box->state->gpr[4], back;
    vx_callback call = {.function = function, .arguments = {esp + 4}};
    if (!guest_read(box, esp, &back, sizeof back))
        return bad_memory(box, esp, trap);
    vx_callback_end end = VX_CALLBACK_UNKNOWN;
    if (box->options.hooks.callback != NULL)
        end = box->options.hooks.callback(box->options.context, &call);
    switch (end) {
    case VX_CALLBACK_DONE: come_back(box, back, &call); return true;
    case VX_CALLBACK_BAD_MEMORY: return bad_memory(box, call.bad_address, trap);
    case VX_CALLBACK_HOOK: trap->kind = VX_TRAP_HOOK; return false;
    default: return refused(box, &call, trap);
    }
}
