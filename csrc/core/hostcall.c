#include "internal.h"

#include <errno.h>

static bool unknown(vx_trap *trap) {
    trap->kind = VX_TRAP_INTERRUPT_VECTOR;
    trap->code = VX_HOSTCALL_VECTOR;
    return false;
}

static bool ready(vx_sandbox *box, vx_trap *trap) {
    if (!box->initialising)
        return unknown(trap);
    trap->kind = VX_TRAP_READY;
    return false;
}

/* Strings are copied before anyone looks at them; a longer text is cut. */
static bool raise_error(vx_sandbox *box, vx_trap *trap) {
    uint32_t *gpr = box->state->gpr;
    char name[VX_RAISE_NAME_MAX], text[VX_RAISE_TEXT_MAX];
    uint32_t name_size = gpr[1];
    uint32_t text_size = gpr[6] < sizeof text ? gpr[6] : sizeof text;
    (void)trap;
    if (name_size > sizeof name || !guest_read(box, gpr[3], name, name_size) ||
        !guest_read(box, gpr[2], text, text_size)) {
        gpr[0] = (uint32_t)-EINVAL;
        return true;
    }
    if (box->options.hooks.raise != NULL)
        box->options.hooks.raise(box->options.context, name, name_size, text, text_size);
    gpr[0] = 0;
    return true;
}

/* The stub of an import names itself in ecx. */
static bool import(vx_sandbox *box, vx_trap *trap) {
    return callback_run(box, box->state->gpr[1], trap);
}

bool hostcall_run(vx_sandbox *box, vx_trap *trap) {
    switch (box->state->gpr[0]) {
#define HOSTCALL(number, function) case number: return function(box, trap);
#include "hostcalls.def"
#undef HOSTCALL
    default: return unknown(trap);
    }
}
