/* What is kept of a guest's end for the exception: the memory itself is reset before Python looks. */
#include "binding.h"

#include <string.h>

/* Where the copy starts: esp, or the stack's lowest byte when esp has left it downwards. */
static uint32_t stack_start(const Box *box, const vx_trap *trap)
{
    uint32_t esp = trap->registers.gpr[4];
    return trap->kind == VX_TRAP_STACK && esp < box->stack_low ? box->stack_low : esp;
}

/* Readable bytes from `at` up to a page that is not, to the top of the stack, or to the bound. */
static uint32_t readable(vx_sandbox *core, uint32_t at)
{
    uint32_t size = 0;
    while (size < EVIDENCE_STACK && at + size < VX_STACK_TOP) {
        uint32_t part = VX_PAGE_SIZE - (at + size) % VX_PAGE_SIZE;
        if (vx_guest_pointer(core, (vx_gaddr){at + size}, part, VX_PROT_READ) == NULL)
            break;
        size += part;
    }
    return size;
}

/* Without memory for the copy the fault is reported without callers. */
void evidence_keep(void *context, vx_sandbox *core, const vx_trap *trap)
{
    Box *box = context;
    Evidence *evidence = &box->call->evidence;
    uint32_t at = stack_start(box, trap);
    uint32_t size = readable(core, at);
    const void *from = vx_guest_pointer(core, (vx_gaddr){at}, size, VX_PROT_READ);
    evidence_free(evidence);
    if (from == NULL || size == 0 || (evidence->stack = PyMem_RawMalloc(size)) == NULL)
        return;
    memcpy(evidence->stack, from, size);
    evidence->stack_at = at;
    evidence->stack_size = size;
}

void evidence_output(Evidence *evidence, const void *data, size_t size)
{
    const char *from = data;
    if (size > EVIDENCE_TEXT) {
        from += size - EVIDENCE_TEXT;
        size = EVIDENCE_TEXT;
    }
    uint32_t room = EVIDENCE_TEXT - (uint32_t)size;
    if (evidence->text_size > room) {
        memmove(evidence->text, evidence->text + evidence->text_size - room, room);
        evidence->text_size = room;
    }
    memcpy(evidence->text + evidence->text_size, from, size);
    evidence->text_size += (uint32_t)size;
}

static bool report(PyObject *info, const char *name, PyObject *value)
{
    int set = value != NULL ? PyDict_SetItemString(info, name, value) : -1;
    Py_XDECREF(value);
    return set == 0;
}

bool evidence_report(const Evidence *evidence, PyObject *info)
{
    bool kept = evidence->stack != NULL;
    return report(info, "stack", PyBytes_FromStringAndSize(kept ? evidence->stack : "",
                                                           kept ? evidence->stack_size : 0))
        && report(info, "stack_at", PyLong_FromUnsignedLong(kept ? evidence->stack_at : 0))
        && report(info, "stderr", PyBytes_FromStringAndSize(evidence->text,
                                                            evidence->text_size));
}

void evidence_free(Evidence *evidence)
{
    PyMem_RawFree(evidence->stack);
    evidence->stack = NULL;
}
