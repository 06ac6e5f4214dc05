/* Functions that a plugin gives by their address: callables of the sandbox, until it is reset.
 *
 * The address is the guest's word and no more is believed of it than of a jump of the guest's own: calling
 * it runs whatever is there, or faults. */
#include "binding.h"

static const char *why_dead(const Function *self)
{
    if (PEEK(self->box->core) == NULL || PEEK(self->box->broken) != NULL)
        return "died with its sandbox";
    return self->generation != PEEK(self->box->generation) ? "died when its sandbox was reset" : NULL;
}

static PyObject *pointer_vectorcall(PyObject *object, PyObject *const *args, size_t flagged,
                                    PyObject *keywords)
{
    const Function *self = (const Function *)object;
    const char *why = why_dead(self);
    if (why == NULL)
        return function_vectorcall(object, args, flagged, keywords);
    error_vxplug("Error", "%U %s", self->name, why);
    return NULL;
}

PyObject *pointer_get(Box *box, const Function *prototype, PyObject *name, uint32_t address)
{
    Function *self = name != NULL ? function_of(prototype, box, name) : NULL;
    Py_XDECREF(name);
    if (self == NULL)
        return NULL;
    self->address = (vx_gaddr){address};
    self->generation = box->generation;
    self->vectorcall = pointer_vectorcall;
    return (PyObject *)self;
}
