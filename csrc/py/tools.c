/* What tools ask of the core: samples of a running guest, translated code and where it is. */
#include "binding.h"

/* The most of the stack that a sample copies: frames that lie deeper are not told. */
#define SAMPLE_STACK ((uint32_t)64 << 10)

static PyObject *stack_copy(const Box *box, uint32_t at)
{
    uint32_t size = 0;
    while (size < SAMPLE_STACK && at + size < VX_STACK_TOP && at + size >= box->stack_low) {
        uint32_t part = VX_PAGE_SIZE - (at + size) % VX_PAGE_SIZE;
        if (vx_guest_pointer(box->core, (vx_gaddr){at + size}, part, VX_PROT_READ) == NULL)
            break;
        size += part;
    }
    const void *from = vx_guest_pointer(box->core, (vx_gaddr){at}, size, VX_PROT_READ);
    return PyBytes_FromStringAndSize(from, from != NULL ? (Py_ssize_t)size : 0);
}

PyObject *sample_info(const Box *box, const vx_registers *at)
{
    return Py_BuildValue("{sNsNsI}", "registers", registers_dict(at), "stack",
                         stack_copy(box, at->gpr[4]), "stack_at", at->gpr[4]);
}

/* The watchdog interrupts young calls too while somebody samples. */
void sample_set(Box *box, PyObject *sample)
{
    PyObject *old;
    guard_enter(&box->guard);
    old = box->sample;
    POKE(box->sample, Py_XNewRef(sample));
    if ((sample != NULL) != (old != NULL))
        vx_sampling(sample != NULL);
    guard_leave(&box->guard);
    Py_XDECREF(old);
}

PyObject *sample_get(Box *box)
{
    PyObject *sample;
    guard_enter(&box->guard);
    sample = Py_XNewRef(box->sample);
    guard_leave(&box->guard);
    return sample;
}

PyObject *box_profile(Box *self, PyObject *sample)
{
    if (sample != Py_None && !PyCallable_Check(sample)) {
        PyErr_SetString(PyExc_TypeError, "profile() needs a callable, or None");
        return NULL;
    }
    sample_set(self, sample == Py_None ? NULL : sample);
    Py_RETURN_NONE;
}

static PyObject *mark_list(const vx_translation *translation)
{
    PyObject *list = PyList_New((Py_ssize_t)translation->mark_count);
    for (size_t i = 0; list != NULL && i < translation->mark_count; i++) {
        const vx_translation_mark *mark = &translation->marks[i];
        PyObject *pair = Py_BuildValue("(HH)", mark->host, mark->guest);
        if (pair == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, pair);
    }
    return list;
}

static PyObject *translation_tuple(const vx_translation *translation)
{
    return Py_BuildValue("(Iy#KN)", translation->guest_size, (const char *)translation->host,
                         (Py_ssize_t)translation->host_size, (unsigned long long)translation->place, mark_list(translation));
}

static PyObject *translation_locked(Box *box, uint32_t address)
{
    vx_translation translation;
    vx_status status = vx_sandbox_translation(box->core, (vx_gaddr){address}, &translation);
    if (status == VX_TRAP)
        Py_RETURN_NONE;
    if (status != VX_OK) {
        error_status(status, "translation");
        return NULL;
    }
    PyObject *result = translation_tuple(&translation);
    vx_translation_free(&translation);
    return result;
}

PyObject *box_translation(Box *self, PyObject *args)
{
    uint32_t address;
    if (!PyArg_ParseTuple(args, "O&:translation", convert_word, &address))
        return NULL;
    if (lock_is_mine(self, thread_ident())) {
        PyErr_SetString(PyExc_RuntimeError, "cannot translate: the sandbox is running a call");
        return NULL;
    }
    if (!lock_acquire(self))
        return NULL;
    if (self->core == NULL) {
        box_refuse(self, true);
        return NULL;
    }
    PyObject *result = translation_locked(self, address);
    lock_release(self);
    return result;
}

static PyObject *place_list(const vx_place *places, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *place = Py_BuildValue("(IKn)", places[i].guest.value,
                                        (unsigned long long)places[i].host, (Py_ssize_t)places[i].size);
        if (place == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, place);
    }
    return list;
}

/* Blocks that are made between the two looks are left out. */
PyObject *plugin_places(Plugin *self, PyObject *unused)
{
    (void)unused;
    size_t room = vx_plugin_places(self->core, NULL, 0);
    vx_place *places = PyMem_Calloc(room + 1, sizeof *places);
    if (places == NULL)
        return PyErr_NoMemory();
    size_t count = vx_plugin_places(self->core, places, room);
    PyObject *list = place_list(places, count < room ? count : room);
    PyMem_Free(places);
    return list;
}
