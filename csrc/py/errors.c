/* Exceptions: keeping them over a call, naming function and parameter, ends of guest code. */
#include "binding.h"

#include <stdarg.h>

/* ---- the current exception ---- */

#if PY_VERSION_HEX >= 0x030C0000
PyObject *error_take(void)
{
    return PyErr_GetRaisedException();
}

void error_restore(PyObject *exception)
{
    PyErr_SetRaisedException(exception);
}
#else
PyObject *error_take(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL)
        return NULL;
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(traceback);
    Py_DECREF(type);
    return value;
}

void error_restore(PyObject *exception)
{
    PyErr_Restore(Py_NewRef(Py_TYPE(exception)), exception, PyException_GetTraceback(exception));
}
#endif

void error_keep(Call *call)
{
    PyObject *exception = error_take();
    if (call->error == NULL)
        call->error = exception;
    else
        Py_XDECREF(exception);
}

/* ---- errors of the host ---- */

Place place_argument(const Function *function, unsigned index)
{
    return (Place){.owner = function->name, .role = "() argument",
                   .name = function->parameters[index].name};
}

/* "shape.points[3].x", a new str. */
static PyObject *place_path(const Place *place)
{
    if (place->outer == NULL)
        return Py_NewRef(place->name);
    PyObject *outer = place_path(place->outer), *path = NULL;
    if (outer != NULL && place->name != NULL)
        path = PyUnicode_FromFormat("%U.%U", outer, place->name);
    else if (outer != NULL)
        path = PyUnicode_FromFormat("%U[%zd]", outer, place->item);
    Py_XDECREF(outer);
    return path;
}

static bool place_raise(const Place *place, PyObject *type, const char *format, va_list arguments)
{
    const Place *root = place;
    while (root->outer != NULL)
        root = root->outer;
    PyObject *text = PyUnicode_FromFormatV(format, arguments);
    PyObject *path = text != NULL ? place_path(place) : NULL;
    if (path != NULL && root->owner == NULL)
        PyErr_Format(type, "result of '%U': %U", path, text);
    else if (path != NULL)
        PyErr_Format(type, "%s%U%s '%U': %U", root->given ? "result of " : "", root->owner, root->role, path, text);
    Py_XDECREF(path);
    Py_XDECREF(text);
    return false;
}

bool error_place(const Place *place, PyObject *type, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    place_raise(place, type, format, arguments);
    va_end(arguments);
    return false;
}

bool error_argument(const Function *function, unsigned index, PyObject *type, const char *format,
                    ...)
{
    va_list arguments;
    Place place = place_argument(function, index);
    va_start(arguments, format);
    place_raise(&place, type, format, arguments);
    va_end(arguments);
    return false;
}

/* The package's exceptions are looked up when needed: the module must not import the package
 * that imports it. */
PyObject *error_class(const char *name)
{
    PyObject *module = PyImport_ImportModule("vxplug.errors");
    if (module == NULL)
        return NULL;
    PyObject *type = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    return type;
}

void error_vxplug(const char *name, const char *format, ...)
{
    PyObject *type = error_class(name);
    if (type == NULL)
        return;
    va_list arguments;
    va_start(arguments, format);
    PyErr_FormatV(type, format, arguments);
    va_end(arguments);
    Py_DECREF(type);
}

void error_status(vx_status status, const char *what)
{
    const char *text = vx_status_text(status);
    switch (status) {
    case VX_BAD_IMAGE:
        PyErr_Format(PyExc_ValueError, "%s: %s", what, text);
        break;
    case VX_NO_MEMORY:
        PyErr_Format(PyExc_MemoryError, "%s: %s", what, text);
        break;
    case VX_UNSUPPORTED_HOST:
        PyErr_Format(PyExc_OSError, "%s: %s", what, text);
        break;
    case VX_LIMIT:
        error_vxplug("GuestMemoryError", "%s: %s", what, text);
        break;
    case VX_TOO_DEEP:
        PyErr_Format(PyExc_RecursionError, "%s: %s", what, text);
        break;
    case VX_BUSY:
        PyErr_Format(PyExc_RuntimeError, "%s: %s", what, text);
        break;
    default:
        error_vxplug("Error", "%s: %s", what, text);
    }
}

/* ---- ends of guest code ---- */

PyObject *registers_dict(const vx_registers *registers)
{
    const uint32_t *gpr = registers->gpr;
    return Py_BuildValue("{sIsIsIsIsIsIsIsIsIsI}", "eax", gpr[0], "ecx", gpr[1], "edx", gpr[2],
                         "ebx", gpr[3], "esp", gpr[4], "ebp", gpr[5], "esi", gpr[6], "edi", gpr[7],
                         "eip", registers->eip, "eflags", registers->eflags);
}

static PyObject *trap_address(const vx_trap *trap)
{
    return trap->has_address ? PyLong_FromUnsignedLong(trap->address) : Py_NewRef(Py_None);
}

static PyObject *trap_facts(const Call *call, PyObject *who)
{
    const vx_trap *trap = &call->trap;
    const char *text = call->fault_text != NULL ? call->fault_text : vx_trap_kind_text(trap->kind);
    return Py_BuildValue("{sssssOsNsIsNsy#sIsI}", "kind", vx_trap_kind_name(trap->kind), "text",
                         text, "function", who != NULL ? who : Py_None, "address",
                         trap_address(trap), "eip", trap->registers.eip, "registers",
                         registers_dict(&trap->registers), "bytes", (const char *)trap->bytes,
                         (Py_ssize_t)trap->byte_count, "code", trap->code, "signal", trap->signal);
}

static PyObject *trap_info(const Call *call, PyObject *who)
{
    PyObject *info = trap_facts(call, who);
    if (info != NULL && !evidence_report(&call->evidence, info))
        Py_CLEAR(info);
    return info;
}

static PyObject *trap_exception(Box *box, PyObject *info)
{
    PyObject *callable = box->trap; /* a collected box has none */
    if (callable == NULL || info == NULL)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_RuntimeError, "sandbox is collected");
    return PyObject_CallOneArg(callable, info);
}

void error_trap(Box *box, const Call *call, PyObject *who)
{
    PyObject *info = trap_info(call, who);
    PyObject *exception = trap_exception(box, info);
    if (exception != NULL && PyExceptionInstance_Check(exception))
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    else if (exception != NULL)
        PyErr_Format(PyExc_TypeError, "trap() returned %s, not an exception",
                     Py_TYPE(exception)->tp_name);
    Py_XDECREF(exception);
    Py_XDECREF(info);
}

bool error_fault(const Function *function, Call *call, uint32_t address, const char *text)
{
    call->trap = (vx_trap){.kind = VX_TRAP_MEMORY, .has_address = true, .address = address,
                           .registers = {.eip = function->address.value}};
    call->fault_text = text;
    call->faulted = true;
    return false;
}

/* ---- vx_raise ---- */

/* A str of at most MAX_ERROR_TEXT characters; what is not UTF-8 is shown as U+FFFD.  Four bytes
 * are the most one character takes, so bytes past four times the limit cannot matter. */
static PyObject *guest_text(const char *text, size_t size)
{
    if (size > 4 * MAX_ERROR_TEXT)
        size = 4 * MAX_ERROR_TEXT;
    PyObject *whole = PyUnicode_DecodeUTF8(text, (Py_ssize_t)size, "replace");
    if (whole == NULL || PyUnicode_GET_LENGTH(whole) <= MAX_ERROR_TEXT)
        return whole;
    PyObject *head = PyUnicode_Substring(whole, 0, MAX_ERROR_TEXT);
    Py_DECREF(whole);
    return head;
}

/* Only names of exceptions that a program may want to catch: SystemExit and KeyboardInterrupt
 * are not the plugin's to raise.  A new reference; NULL without an exception: no such name. */
static PyObject *guest_class(State *state, PyObject *name)
{
    PyObject *type;
    if (PyDict_GetItemRef(state->builtins, name, &type) > 0
        && !(PyType_Check(type) && PyType_IsSubtype((PyTypeObject *)type, (PyTypeObject *)PyExc_Exception)))
        Py_CLEAR(type);
    return type;
}

/* Some exceptions want more than a text (UnicodeDecodeError); the text counts, so it is kept. */
static PyObject *guest_exception(PyObject *type, PyObject *text)
{
    PyObject *exception = PyObject_CallOneArg(type, text);
    if (exception != NULL || !PyErr_ExceptionMatches(PyExc_TypeError))
        return exception;
    PyErr_Clear();
    return PyObject_CallOneArg(PyExc_ValueError, text);
}

static PyObject *guest_unknown(PyObject *name, PyObject *text)
{
    PyObject *full = PyUnicode_FromFormat("%U: %U", name, text);
    PyObject *exception = full != NULL ? PyObject_CallOneArg(PyExc_RuntimeError, full) : NULL;
    Py_XDECREF(full);
    return exception;
}

void error_escape(void)
{
    PyObject *error = error_take(), *escape = error_class("escape");
    PyObject *text = error != NULL && escape != NULL ? PyObject_Str(error) : NULL;
    PyObject *safe = text != NULL ? PyObject_CallOneArg(escape, text) : NULL;
    PyObject *shown = safe != NULL ? guest_exception((PyObject *)Py_TYPE(error), safe) : NULL;
    if (shown != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(shown), shown);
    Py_XDECREF(shown);
    Py_XDECREF(safe);
    Py_XDECREF(text);
    Py_XDECREF(escape);
    Py_XDECREF(error);
}

PyObject *error_of_guest(State *state, const char *name, size_t name_size, const char *text,
                         size_t size)
{
    PyObject *exception = NULL;
    PyObject *name_text = guest_text(name, name_size), *message = guest_text(text, size);
    if (name_text != NULL && message != NULL) {
        PyObject *type = guest_class(state, name_text);
        if (type != NULL)
            exception = guest_exception(type, message);
        else if (!PyErr_Occurred())
            exception = guest_unknown(name_text, message);
        Py_XDECREF(type);
    }
    Py_XDECREF(name_text);
    Py_XDECREF(message);
    return exception;
}
