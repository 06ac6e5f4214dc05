/* Host functions that guest code calls: imports, for the life of the box, and callbacks, for the
 * length of the call that lends them.
 *
 * A callback's address is one of 16384 that no guest memory has, given out in turn, so that a
 * pointer which outlived its call meets nothing for a long time, and then only another function
 * that the host lends.  Whatever address the guest calls, the host reads arguments by the type of
 * the function that is there, through the range check. */
#include "binding.h"

#include <string.h>

enum { STRIDE = 4, MAX_SLOTS = 4096 };

/* A function the guest may call.  The call of this level lent it, as the argument `index` of `lender`, which is NULL for an
 * import.  Levels tell open calls apart; the records of those that wait in greenlets may have had one place. */
typedef struct Slot {
    uint32_t address, level;
    unsigned index;
    Function *prototype, *lender;
    PyObject *callable;
} Slot;

/* ---- the table ---- */

static Slot *slot_add(Box *box)
{
    if (box->slot_count == box->slot_room) {
        uint32_t room = box->slot_room * 2 + 4;
        Slot *slots = PyMem_Realloc(box->slots, room * sizeof *slots);
        if (slots == NULL)
            return (Slot *)PyErr_NoMemory();
        box->slots = slots;
        box->slot_room = room;
    }
    return &box->slots[box->slot_count++];
}

static const Slot *slot_find(const Box *box, uint32_t address)
{
    for (uint32_t i = box->slot_count; i-- > 0;)
        if (box->slots[i].address == address)
            return &box->slots[i];
    return NULL;
}

static void slot_drop(Box *box)
{
    Slot slot = box->slots[--box->slot_count];
    Py_DECREF(slot.prototype);
    Py_XDECREF(slot.lender);
    Py_DECREF(slot.callable);
}

uint32_t callback_lend(Call *call, Function *function, unsigned index, PyObject *callable)
{
    uint32_t address;
    Box *box = function->box;
    Function *prototype = function->parameters[index].layout->prototype;
    do {
        address = VX_CALLBACK_MIN + box->next_callback;
        box->next_callback = (box->next_callback + STRIDE) % (VX_CALLBACK_MAX - VX_CALLBACK_MIN);
    } while (slot_find(box, address) != NULL);
    Slot *slot = box->slot_count < MAX_SLOTS ? slot_add(box) : (Slot *)PyErr_NoMemory();
    if (slot == NULL) {
        error_keep(call);
        return 0;
    }
    *slot = (Slot){address, call->level, index, (Function *)Py_NewRef(prototype), (Function *)Py_NewRef(function),
                   Py_NewRef(callable)};
    return address;
}

static bool last_is_lent(const Box *box)
{
    return box->slot_count != 0 && box->slots[box->slot_count - 1].lender != NULL;
}

void callback_end(Box *box, const Call *call)
{
    while (last_is_lent(box) && box->slots[box->slot_count - 1].level == call->level)
        slot_drop(box);
}

void callback_end_all(Box *box)
{
    while (last_is_lent(box))
        slot_drop(box);
}

void callback_free(Box *box)
{
    while (box->slot_count != 0)
        slot_drop(box);
    PyMem_Free(box->slots);
    box->slots = NULL;
    box->slot_room = 0;
}

int callback_traverse(Box *box, visitproc visit, void *arg)
{
    for (uint32_t i = 0; i < box->slot_count; i++) {
        Py_VISIT(box->slots[i].prototype);
        Py_VISIT(box->slots[i].lender);
        Py_VISIT(box->slots[i].callable);
    }
    return 0;
}

static bool add_import(Box *box, PyObject *item)
{
    uint32_t address;
    PyObject *prototype, *callable;
    if (!PyArg_ParseTuple(item, "O&OO:import", convert_word, &address, &prototype, &callable))
        return false;
    if (!function_check(prototype) || ((Function *)prototype)->box != NULL) {
        PyErr_SetString(PyExc_TypeError, "import: not a prototype");
        return false;
    }
    Slot *slot = slot_add(box);
    if (slot != NULL)
        *slot = (Slot){address, 0, 0, (Function *)Py_NewRef(prototype), NULL, Py_NewRef(callable)};
    return slot != NULL;
}

bool callback_set_imports(Box *box, PyObject *imports)
{
    PyObject *list = PySequence_Tuple(imports);
    bool ok = list != NULL;
    for (Py_ssize_t i = 0; ok && i < PyTuple_GET_SIZE(list); i++)
        ok = add_import(box, PyTuple_GET_ITEM(list, i));
    Py_XDECREF(list);
    return ok;
}

/* ---- one call ---- */

static vx_callback_end visit_end(Visit *visit, bool ok)
{
    if (ok)
        return VX_CALLBACK_DONE;
    if (visit->bad_memory && !PyErr_Occurred()) {
        if (visit->call->fault_text == NULL)
            visit->call->fault_text = "the plugin passed a host function memory that is not all its own";
        return VX_CALLBACK_BAD_MEMORY;
    }
    error_keep(visit->call);
    return VX_CALLBACK_HOOK;
}

static vx_callback_end refuse_initialising(Call *call, const Slot *slot)
{
    error_vxplug("PolicyError", "import %U: not during initialisation, whose outcome all sandboxes share",
                 slot->prototype->name);
    error_keep(call);
    return VX_CALLBACK_HOOK;
}

vx_callback_end callback_serve(Box *box, Call *call, vx_callback *callback)
{
    const Slot *slot = slot_find(box, callback->function);
    if (slot == NULL) {
        call->fault_text = "call of a host function that is not, or no longer, lent to the plugin";
        return VX_CALLBACK_UNKNOWN;
    }
    if (box->core == NULL)
        return refuse_initialising(call, slot);
    Visit visit;
    visit.box = box;
    visit.call = call;
    visit.callback = callback;
    visit.prototype = (Function *)Py_NewRef(slot->prototype);
    visit.lender = (Function *)Py_XNewRef(slot->lender);
    visit.index = slot->index;
    visit.callable = Py_NewRef(slot->callable);
    visit.count = 0;
    visit.lent = 0;
    visit.bad_memory = false;
    Errand *errand = errand_begin(box, false);
    vx_callback_end end = visit_end(&visit, visit_run(&visit));
    errand_end(errand);
    for (unsigned i = 0; i < visit.count; i++)
        Py_DECREF(visit.values[i]);
    box->lent -= visit.lent;
    Py_DECREF(visit.callable);
    Py_XDECREF(visit.lender);
    Py_DECREF(visit.prototype);
    return end;
}
