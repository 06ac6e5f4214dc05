/* The fastest way into C that CPython has: METH_FASTCALL, METH_O. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <sys/mman.h>
#include "calls.h"

static int as_int32(PyObject *value, int32_t *out) {
    long number = PyLong_AsLong(value);
    if (number == -1 && PyErr_Occurred()) return 0;
    *out = (int32_t)number;
    if (*out == number) return 1;
    PyErr_SetString(PyExc_OverflowError, "not an int32");
    return 0;
}

static PyObject *add(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    int32_t a, b;
    (void)module;
    if (count != 2) return PyErr_Format(PyExc_TypeError, "add() takes 2 arguments");
    if (!as_int32(args[0], &a) || !as_int32(args[1], &b)) return NULL;
    return PyLong_FromLong(sum(a, b));
}

static PyObject *nothing(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return PyLong_FromLong(42);
}

static unsigned char own[sizeof storage];

/* The bytes to memory of our own, as a sandbox has to. */
static uint32_t copy_in(PyObject *data) {
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return UINT32_MAX;
    uint32_t size = (size_t)view.len <= sizeof storage ? (uint32_t)view.len : UINT32_MAX;
    if (size != UINT32_MAX)
        memcpy(own, view.buf, size);
    else
        PyErr_Format(PyExc_ValueError, "%zd bytes", view.len);
    PyBuffer_Release(&view);
    return size;
}

static PyObject *take_copy(PyObject *module, PyObject *data) {
    uint32_t size = copy_in(data);
    (void)module;
    return size == UINT32_MAX ? NULL : PyLong_FromUnsignedLong(both_ends(own, size));
}

static PyObject *same_copy(PyObject *module, PyObject *data) {
    uint32_t size = copy_in(data);
    (void)module;
    return size == UINT32_MAX ? NULL : PyBytes_FromStringAndSize((const char *)own, size);
}

static PyObject *same(PyObject *module, PyObject *data) {
    Py_buffer view;
    (void)module;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return NULL;
    PyObject *copy = PyBytes_FromStringAndSize(view.buf, view.len);
    PyBuffer_Release(&view);
    return copy;
}

static PyObject *take(PyObject *module, PyObject *data) {
    Py_buffer view;
    (void)module;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return NULL;
    uint32_t ends = both_ends(view.buf, (uint32_t)view.len);
    PyBuffer_Release(&view);
    return PyLong_FromUnsignedLong(ends);
}

static PyObject *give(PyObject *module, PyObject *size) {
    size_t wanted = PyLong_AsSize_t(size);
    (void)module;
    if (PyErr_Occurred()) return NULL;
    if (wanted > sizeof storage) return PyErr_Format(PyExc_ValueError, "%zu bytes", wanted);
    return PyBytes_FromStringAndSize((const char *)filled(), (Py_ssize_t)wanted);
}

/* What the kernel asks for a mapping that nobody touches. */
static PyObject *map_page(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || munmap(page, 4096) != 0) return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"map_page", map_page, METH_NOARGS, NULL},
    {"add", (PyCFunction)(void (*)(void))add, METH_FASTCALL, NULL},
    {"nothing", nothing, METH_NOARGS, NULL},
    {"take", take, METH_O, NULL},
    {"take_copy", take_copy, METH_O, NULL},
    {"same", same, METH_O, NULL},
    {"same_copy", same_copy, METH_O, NULL},
    {"give", give, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "calls_extension", .m_methods = methods};

PyMODINIT_FUNC PyInit_calls_extension(void) { return PyModule_Create(&definition); }
