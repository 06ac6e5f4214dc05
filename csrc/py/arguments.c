/* Matching arguments to parameters by position and keyword, with CPython's words for mistakes. */
#include "binding.h"

#include <string.h>

static bool too_many(const Function *function, Py_ssize_t count)
{
    PyErr_Format(PyExc_TypeError, "%U() takes %u positional argument%s but %zd %s given",
                 function->name, (unsigned)function->input_count,
                 function->input_count == 1 ? "" : "s", count, count == 1 ? "was" : "were");
    return false;
}

/* Names are interned, so identity nearly always decides; -1 with or without an exception. */
static int find_parameter(const Function *function, PyObject *keyword)
{
    for (int i = 0; i < function->input_count; i++)
        if (function->parameters[i].name == keyword)
            return i;
    for (int i = 0; i < function->input_count; i++) {
        int equal = PyObject_RichCompareBool(function->parameters[i].name, keyword, Py_EQ);
        if (equal != 0)
            return equal > 0 ? i : -1;
    }
    return -1;
}

static bool bind_keyword(const Function *function, PyObject *keyword, PyObject *value,
                         PyObject **bound)
{
    int index = find_parameter(function, keyword);
    if (index < 0) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_TypeError, "%U() got an unexpected keyword argument '%S'",
                         function->name, keyword);
        return false;
    }
    if (bound[index] != NULL) {
        PyErr_Format(PyExc_TypeError, "%U() got multiple values for argument '%U'",
                     function->name, keyword);
        return false;
    }
    bound[index] = value;
    return true;
}

static bool find_missing(const Function *function, PyObject **bound)
{
    for (unsigned i = 0; i < function->input_count; i++) {
        if (bound[i] != NULL)
            continue;
        PyErr_Format(PyExc_TypeError, "%U() missing required argument: '%U' (pos %u)",
                     function->name, function->parameters[i].name, i + 1);
        return false;
    }
    return true;
}

bool arguments_bind(const Function *function, PyObject *const *args, Py_ssize_t count,
                    PyObject *keywords, PyObject **bound)
{
    if (count > function->input_count)
        return too_many(function, count);
    memset(bound, 0, function->input_count * sizeof *bound);
    for (Py_ssize_t i = 0; i < count; i++)
        bound[i] = args[i];
    Py_ssize_t keyword_count = keywords != NULL ? PyTuple_GET_SIZE(keywords) : 0;
    for (Py_ssize_t i = 0; i < keyword_count; i++)
        if (!bind_keyword(function, PyTuple_GET_ITEM(keywords, i), args[count + i], bound))
            return false;
    return find_missing(function, bound);
}
