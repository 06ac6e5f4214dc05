/* What newer Pythons have and older ones do not, under the newer names. */
#ifndef VXPLUG_COMPAT_H
#define VXPLUG_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if PY_VERSION_HEX < 0x030D0000

#define Py_IsFinalizing _Py_IsFinalizing

/* Beside a GIL that is all they are. */
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }

/* 1 and a new reference; 0 and NULL where there is none; -1 with an exception. */
static inline int PyDict_GetItemRef(PyObject *dict, PyObject *key, PyObject **result)
{
    *result = Py_XNewRef(PyDict_GetItemWithError(dict, key));
    return *result != NULL ? 1 : PyErr_Occurred() != NULL ? -1 : 0;
}

static inline int PyWeakref_GetRef(PyObject *reference, PyObject **result)
{
    PyObject *object = PyWeakref_GetObject(reference);
    *result = object == NULL || object == Py_None ? NULL : Py_NewRef(object);
    return *result != NULL ? 1 : object == NULL ? -1 : 0;
}

/* 1 and the value, a new reference unless `result` is NULL; 0 where there is none; -1 with an exception. */
static inline int PyDict_Pop(PyObject *dict, PyObject *key, PyObject **result)
{
    PyObject *value;
    int found = PyDict_GetItemRef(dict, key, &value);
    if (found > 0 && PyDict_DelItem(dict, key) < 0)
        found = -1;
    if (result != NULL && found > 0)
        *result = Py_NewRef(value);
    Py_XDECREF(value);
    return found;
}

static inline PyObject *PyList_GetItemRef(PyObject *list, Py_ssize_t index)
{
    return Py_XNewRef(PyList_GetItem(list, index));
}

#endif
#endif
