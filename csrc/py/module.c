/* The module vxplug._vx: types, state, and what a fork changes. */
#include "binding.h"

static PyObject *reclaim_signals(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    vx_signals_reclaim();
    Py_RETURN_NONE;
}

/* In a child only the thread that forked is left: it is the main thread now, and locks that
 * other threads held have no owner any more (lock.c finds them by the changed count). */
static PyObject *after_fork(PyObject *module, PyObject *unused)
{
    (void)unused;
    State *state = PyModule_GetState(module);
    state->forks++;
    state->main_thread = state->forked_by = thread_ident();
    errand_after_fork(state);
    Py_RETURN_NONE;
}

static PyMethodDef after_fork_method = {"after_fork", after_fork, METH_NOARGS, NULL};

static int register_after_fork(PyObject *module)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *hook = PyCFunction_New(&after_fork_method, module);
    PyObject *none = PyTuple_New(0), *keywords = NULL, *done = NULL, *function = NULL;
    if (os != NULL && hook != NULL && none != NULL)
        keywords = Py_BuildValue("{sO}", "after_in_child", hook);
    if (keywords != NULL)
        function = PyObject_GetAttrString(os, "register_at_fork");
    if (function != NULL)
        done = PyObject_Call(function, none, keywords);
    int result = done != NULL ? 0 : -1;
    Py_XDECREF(done);
    Py_XDECREF(function);
    Py_XDECREF(keywords);
    Py_XDECREF(none);
    Py_XDECREF(hook);
    Py_XDECREF(os);
    return result;
}

/* The module may be imported by any thread, so the main one is asked for. */
static int find_main_thread(State *state)
{
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *thread = NULL, *ident = NULL;
    if (threading != NULL)
        thread = PyObject_CallMethod(threading, "main_thread", NULL);
    if (thread != NULL)
        ident = PyObject_GetAttrString(thread, "ident");
    if (ident != NULL)
        state->main_thread = PyLong_AsUnsignedLong(ident);
    Py_XDECREF(ident);
    Py_XDECREF(thread);
    Py_XDECREF(threading);
    return PyErr_Occurred() ? -1 : 0;
}

static int find_builtins(State *state)
{
    PyObject *module = PyImport_ImportModule("builtins");
    if (module == NULL)
        return -1;
    state->builtins = Py_NewRef(PyModule_GetDict(module));
    Py_DECREF(module);
    return 0;
}

static int find_array(State *state)
{
    PyObject *module = PyImport_ImportModule("array");
    if (module == NULL)
        return -1;
    state->array_type = PyObject_GetAttrString(module, "array");
    Py_DECREF(module);
    return state->array_type != NULL ? 0 : -1;
}

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **slot)
{
    *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *slot == NULL ? -1 : PyModule_AddType(module, *slot);
}

static int module_exec(PyObject *module)
{
    State *state = PyModule_GetState(module);
    vx_prepare();
    if (find_main_thread(state) < 0 || find_builtins(state) < 0 || find_array(state) < 0 || register_after_fork(module) < 0)
        return -1;
    if (add_type(module, &plugin_spec, &state->plugin_type) < 0
        || add_type(module, &box_spec, &state->box_type) < 0
        || add_type(module, &handle_spec, &state->handle_type) < 0
        || add_type(module, &buffer_spec, &state->buffer_type) < 0
        || add_type(module, &mapping_spec, &state->mapping_type) < 0
        || add_type(module, &layout_spec, &state->layout_type) < 0
        || add_type(module, &function_spec, &state->function_type) < 0)
        return -1;
    return function_finish_type(state->function_type) ? 0 : -1;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->plugin_type);
    Py_VISIT(state->box_type);
    Py_VISIT(state->function_type);
    Py_VISIT(state->layout_type);
    Py_VISIT(state->handle_type);
    Py_VISIT(state->buffer_type);
    Py_VISIT(state->mapping_type);
    Py_VISIT(state->builtins);
    Py_VISIT(state->array_type);
    return 0;
}

static int module_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->plugin_type);
    Py_CLEAR(state->box_type);
    Py_CLEAR(state->function_type);
    Py_CLEAR(state->layout_type);
    Py_CLEAR(state->handle_type);
    Py_CLEAR(state->buffer_type);
    Py_CLEAR(state->mapping_type);
    Py_CLEAR(state->builtins);
    Py_CLEAR(state->array_type);
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
}

static PyObject *overdue(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    vx_trap_kind why;
    const Box *box = vx_overdue(&why);
    if (box == NULL)
        Py_RETURN_NONE;
    uint64_t limit = PEEK(box->core) == NULL ? box->init_timeout_ns : box->timeout_ns;
    return Py_BuildValue("(sd)", vx_trap_kind_name(why), (double)limit / 1e9);
}

static PyObject *end_callbacks(PyObject *module, PyObject *unused)
{
    (void)unused;
    State *state = PyModule_GetState(module);
    POKE(state->ends_callbacks, true);
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"end_callbacks", end_callbacks, METH_NOARGS,
     PyDoc_STR("end_callbacks()\n--\n\n"
               "From now on give Python the ticks of calls that are overdue in a callback.")},
    {"end_errands", end_errands, METH_VARARGS,
     PyDoc_STR("end_errands(timeout, interrupt, /)\n--\n\n"
               "Raise one of two classes in other threads' callbacks of calls that have to end.")},
    {"overdue", overdue, METH_NOARGS,
     PyDoc_STR("overdue()\n--\n\n"
               "(kind, time limit) of the call of this thread that has to end, or None.")},
    {"reclaim_signals", reclaim_signals, METH_NOARGS,
     PyDoc_STR("reclaim_signals()\n--\n\n"
               "Take the fault signals again after another handler was installed.")},
    {"linux_rows", linux_rows, METH_NOARGS,
     PyDoc_STR("linux_rows()\n--\n\n"
               "Every Linux system call: (number, name, server, arguments) of linuxcalls.def.")},
    {"open_beneath", open_beneath, METH_VARARGS,
     PyDoc_STR("open_beneath(folder, path, flags, /)\n--\n\n"
               "openat2 that cannot leave the folder, nor follow any link, nor cross a mount.")},
    {"file_system", file_system, METH_VARARGS,
     PyDoc_STR("file_system(fd, /)\n--\n\nThe type of the file system a descriptor is on (statfs).")},
    {"directory_entries", directory_entries, METH_VARARGS,
     PyDoc_STR("directory_entries(fd, offset, size, /)\n--\n\n"
               "What getdents64 gives of a directory from an offset on, in at most so many bytes.")},
    {0},
};

/* Interpreters share nothing but the core, which has its own locks: each has its State, its types, its
 * plugins, and boxes that no other one can reach.  Within an interpreter the rules are those of lock.h. */
static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0},
};

static PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "vxplug._vx",
    .m_doc = PyDoc_STR("The C binding.  Private: the public API is in the package."),
    .m_size = sizeof(State),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__vx(void)
{
    return PyModuleDef_Init(&module_definition);
}
