/* The type Function: an export as a Python callable, and the course of one call. */
#include "binding.h"

#include <string.h>
#include <structmember.h>

static void function_dealloc(Function *self);

/* ---- a call ---- */

/* The status as an error of the host, under the function's name. */
static void keep_status(const Function *function, Call *call, vx_status status)
{
    PyObject *what = PyUnicode_FromFormat("%U()", function->name);
    const char *text = what != NULL ? PyUnicode_AsUTF8(what) : NULL;
    if (text != NULL)
        error_status(status, text);
    Py_XDECREF(what);
    error_keep(call);
}

void *call_failed(const Function *function, Call *call, vx_status status)
{
    if (status == VX_TRAP)
        call->faulted = true;
    else
        keep_status(function, call, status);
    return NULL;
}

static PyObject *take_function(const Function *self, uint32_t address)
{
    if (address == 0)
        return Py_NewRef(Py_None);
    return pointer_get(self->box, self->result_layout->prototype, PyUnicode_FromFormat("result of %U()", self->name), address);
}

/* A result that is more than a number; the guest raised nothing. */
static PyObject *take_memory_result(Function *self, Call *call, const vx_result *result,
                                    const uint32_t *words)
{
    if (self->result == CODE_STR)
        return memory_string_result(self, call, result->eax);
    if (self->result == CODE_STRUCT)
        return memory_struct_result(self, call, self->result_layout, words[0]);
    if (self->result == CODE_HANDLE) {
        PyObject *handle = handle_get(self->box, self->result_layout, result->eax);
        if (handle == NULL)
            error_keep(call);
        return handle;
    }
    if (self->result == CODE_CALLBACK) {
        PyObject *function = take_function(self, result->eax);
        if (function == NULL)
            error_keep(call);
        return function;
    }
    if (result->eax == 0)
        return Py_NewRef(Py_None);
    return memory_struct_result(self, call, self->result_layout->target, result->eax);
}

/* A number of an enum, or what lives in guest memory. */
static PyObject *take_other_result(Function *self, Call *call, const vx_result *result,
                                   const uint32_t *words)
{
    if (self->result == CODE_BYTES || self->result == CODE_NUMBERS)
        return memory_owned_result(self, call, words[0]);
    if (call->raised != NULL || call->error != NULL)
        return NULL;
    if (self->result > CODE_BYTES || self->result == CODE_STR)
        return take_memory_result(self, call, result, words);
    PyObject *object = convert_result(self->result, result);
    if (self->result_layout->kind == KIND_ENUM)
        object = codec_enum(self->result_layout, object);
    if (object == NULL)
        error_keep(call);
    return object;
}

static inline PyObject *take_result(Function *self, Call *call, const vx_result *result,
                                    const uint32_t *words)
{
    if (!self->plain_result)
        return take_other_result(self, call, result, words);
    if (call->raised != NULL || call->error != NULL)
        return NULL;
    PyObject *object = convert_result(self->result, result);
    if (object == NULL)
        error_keep(call);
    return object;
}

/* With the box locked: everything between the arguments' words and the result object. */
static PyObject *run(Function *self, Call *call, uint32_t *words, Lease *leases)
{
    vx_result result;
    if (self->uses_memory) {
        if (self->result == CODE_STREAM)
            return stream_open(self, call, words, leases);
        if (!memory_copy_in(self, call, leases, words))
            return NULL;
    }
    vx_status status = vx_call(self->box->core, self->address, words, self->word_count, &result,
                               &call->trap);
    gil_take(call);
    if (status != VX_OK)
        return call_failed(self, call, status);
    if (leases == NULL)
        return take_result(self, call, &result, words);
    if (!memory_copy_out(self, call, leases))
        return NULL;
    PyObject *object = take_result(self, call, &result, words);
    return self->out_count == 0 ? object : memory_outputs(self, call, leases, object);
}

static PyObject *run_locked(Function *self, uint32_t *words, Lease *leases)
{
    Call call;
    Box *box = self->box;
    if (!box_enter(box, &call))
        return NULL;
    if (leases != NULL)
        handle_use(self, leases, 1);
    PyObject *result = run(self, &call, words, leases);
    if (leases != NULL) {
        handle_use(self, leases, -1);
        callback_end(box, &call);
    }
    box_leave(box, &call, self->name);
    if (!box_outcome(box, &call, self->name))
        Py_CLEAR(result);
    return result;
}

/* Every value to its words, or to a lease where it lives in guest memory; in order, so that the
 * first wrong argument is the one reported.  The number of leases made is in `made`. */
static bool convert_all(Function *self, PyObject *const *args, uint32_t *words, Lease *leases,
                        unsigned *made)
{
    for (unsigned i = 0; i < self->parameter_count; i++) {
        const Parameter *parameter = &self->parameters[i];
        bool ok = code_is_leased(parameter->code)
            ? memory_lease(self, i, i < self->input_count ? args[i] : NULL, &leases[(*made)++])
            : convert_fast(parameter, args[i], &words[parameter->word])
                || convert_scalar(self, i, args[i], &words[parameter->word]);
        if (!ok)
            return false;
    }
    return true;
}

static PyObject *call_leased(Function *self, PyObject *const *args)
{
    uint32_t words[MAX_WORDS];
    Lease few[INLINE_LEASES], *leases = few;
    PyObject *result = NULL;
    unsigned made = 0;
    if (self->lease_count > INLINE_LEASES)
        leases = PyMem_New(Lease, self->lease_count);
    if (leases == NULL)
        return PyErr_NoMemory();
    if (convert_all(self, args, words, leases, &made))
        result = run_locked(self, words, leases);
    PyObject *error = error_take(); /* releasing a buffer may run Python code */
    memory_end_leases(leases, made);
    if (error != NULL)
        error_restore(error);
    if (leases != few)
        PyMem_Free(leases);
    return result;
}

static inline bool convert_numbers(Function *self, PyObject *const *args, uint32_t *words)
{
    const Parameter *parameter = self->parameters;
    for (unsigned i = 0; i < self->parameter_count; i++, parameter++)
        if (!USUALLY(convert_fast(parameter, args[i], &words[parameter->word]))
            && !convert_scalar(self, i, args[i], &words[parameter->word]))
            return false;
    return true;
}

static PyObject *end_plain(Function *self, Call *call, vx_status status, const vx_result *result)
{
    PyObject *object = NULL;
    gil_take(call);
    if (status != VX_OK)
        call_failed(self, call, status);
    else
        object = take_result(self, call, result, NULL);
    box_leave(self->box, call, self->name);
    if (!box_outcome(self->box, call, self->name))
        Py_CLEAR(object);
    return object;
}

/* The hot path: nothing here allocates or makes a system call. */
static inline PyObject *call_plain(Function *self, PyObject *const *args)
{
    uint32_t words[MAX_WORDS];
    Call call;
    vx_result result;
    Box *box = self->box;
    if (!USUALLY(convert_numbers(self, args, words) && box_enter(box, &call)))
        return NULL;
    vx_status status = vx_call(box->core, self->address, words, self->word_count, &result,
                               &call.trap);
    if (!USUALLY(status == VX_OK && box_leave_plain(box, &call)))
        return end_plain(self, &call, status, &result);
    return convert_result(self->result, &result);
}

static PyObject *call_scalars(Function *self, PyObject *const *args)
{
    uint32_t words[MAX_WORDS];
    return convert_numbers(self, args, words) ? run_locked(self, words, NULL) : NULL;
}

static PyObject *call_other(Function *self, PyObject *const *args)
{
    return self->lease_count == 0 ? call_scalars(self, args) : call_leased(self, args);
}

static inline PyObject *call_bound(Function *self, PyObject *const *args)
{
    return USUALLY(self->plain) ? call_plain(self, args) : call_other(self, args);
}

static PyObject *call_matched(Function *self, PyObject *const *args, Py_ssize_t count,
                              PyObject *keywords)
{
    PyObject *bound[MAX_PARAMETERS];
    if (!arguments_bind(self, args, count, keywords, bound))
        return NULL;
    return call_bound(self, bound);
}

PyObject *function_vectorcall(PyObject *self, PyObject *const *args, size_t flagged,
                              PyObject *keywords)
{
    Function *function = (Function *)self;
    Py_ssize_t count = PyVectorcall_NARGS(flagged);
    if (!USUALLY(keywords == NULL && count == function->input_count))
        return call_matched(function, args, count, keywords);
    return call_bound(function, args);
}

static PyObject *boxless_vectorcall(PyObject *self, PyObject *const *args, size_t flagged,
                                      PyObject *keywords)
{
    (void)args, (void)flagged, (void)keywords;
    const Function *function = (const Function *)self;
    return PyErr_Format(PyExc_TypeError, "%U is %s", function->name,
                        function->unbound ? "bound to no sandbox" : "a prototype");
}

/* ---- creation ---- */

bool function_check(PyObject *object)
{
    return Py_TYPE(object)->tp_dealloc == (destructor)function_dealloc;
}

static bool refuse_type(const char *what, PyObject *name, PyObject *type)
{
    PyErr_Format(PyExc_ValueError, "%s %U: unknown type %R", what, name, type);
    return false;
}

/* A code, or a layout, of which the code follows. */
static bool parse_type(PyObject *type, const char *what, PyObject *name, Code *code,
                       Layout **layout)
{
    *code = CODE_COUNT;
    if (PyUnicode_Check(type)) {
        *code = code_parse(type);
    } else if (layout_check(type)) {
        *code = layout_code((Layout *)type);
        *layout = (Layout *)Py_NewRef(type);
    }
    return *code != CODE_COUNT || refuse_type(what, name, type);
}

/* Text that a struct by value points to has no place: the words are all there is of it. */
static bool set_type(bool prototype, Parameter *parameter, PyObject *name, PyObject *type)
{
    Code code;
    if (!parse_type(type, "parameter", name, &code, &parameter->layout))
        return false;
    bool usable = code_set_parameter(code, parameter);
    if (code == CODE_STRUCT) {
        uint32_t words = (parameter->layout->size + 3) / 4;
        usable = words < MAX_WORDS && (prototype || !parameter->layout->text);
        parameter->words = (uint8_t)words;
    }
    if (!usable)
        PyErr_Format(PyExc_ValueError, "parameter %U cannot be %S", name, type);
    return usable;
}

static bool add_parameter(Function *self, PyObject *pair)
{
    PyObject *name, *type;
    Parameter *parameter = &self->parameters[self->parameter_count];
    int optional = 0;
    if (!PyArg_ParseTuple(pair, "UO|p:parameter", &name, &type, &optional))
        return false;
    *parameter = (Parameter){.name = Py_NewRef(name), .word = (uint8_t)self->word_count};
    parameter->optional = optional;
    self->parameter_count++;
    PyUnicode_InternInPlace(&parameter->name);
    if (!set_type(function_is_prototype(self), parameter, name, type))
        return false;
    self->word_count += parameter->words;
    if (self->word_count > MAX_WORDS) {
        PyErr_Format(PyExc_ValueError, "%U(): more than %d words of arguments", self->name,
                     MAX_WORDS);
        return false;
    }
    if (parameter->code == CODE_POINTER && parameter->layout->out)
        parameter->out = (uint8_t)self->out_count++;
    self->callback_count += parameter->code == CODE_CALLBACK;
    self->lease_count += code_is_leased(parameter->code);
    self->uses_memory |= code_is_leased(parameter->code);
    return true;
}

static bool is_input(const Parameter *parameter)
{
    return parameter->code != CODE_POINTER || parameter->layout->in;
}

/* Those that Python passes first, each kind in its order. */
static void sort_inputs(Function *self)
{
    Parameter sorted[MAX_PARAMETERS];
    unsigned count = 0;
    for (int inputs = 1; inputs >= 0; inputs--) {
        for (unsigned i = 0; i < self->parameter_count; i++)
            if (is_input(&self->parameters[i]) == inputs)
                sorted[count++] = self->parameters[i];
        if (inputs)
            self->input_count = (uint16_t)count;
    }
    memcpy(self->parameters, sorted, count * sizeof *sorted);
}

/* A stream goes on after the call: nothing lent for the call may be left with it. */
static bool stream_possible(const Function *self)
{
    bool lent = self->out_count != 0 || self->callback_count != 0;
    for (unsigned i = 0; i < self->parameter_count; i++)
        lent |= self->parameters[i].code == CODE_MUT
            || (self->parameters[i].code == CODE_NUMBERS && self->parameters[i].layout->out);
    if (self->result != CODE_STREAM || !lent)
        return true;
    PyErr_Format(PyExc_ValueError, "%U(): a stream with outputs or callbacks", self->name);
    return false;
}

/* Expects the result to be known: it decides whether the first word is the hidden pointer. */
static bool add_parameters(Function *self, PyObject *sequence)
{
    PyObject *list = PySequence_List(sequence);
    if (list == NULL)
        return false;
    Py_ssize_t count = PyList_GET_SIZE(list);
    bool ok = count <= MAX_PARAMETERS;
    if (!ok)
        PyErr_Format(PyExc_ValueError, "%U(): more than %d parameters", self->name,
                     MAX_PARAMETERS);
    else if ((self->parameters = PyMem_New(Parameter, (size_t)count)) == NULL)
        ok = PyErr_NoMemory() != NULL;
    for (Py_ssize_t i = 0; ok && i < count; i++) {
        PyObject *pair = PySequence_Tuple(PyList_GET_ITEM(list, i));
        ok = pair != NULL && add_parameter(self, pair);
        Py_XDECREF(pair);
    }
    Py_DECREF(list);
    if (ok)
        sort_inputs(self);
    return ok && stream_possible(self);
}

/* What a host function gives differs: buffers without an owner, and no text in structs. */
static bool is_result(bool prototype, Code code, const Layout *layout)
{
    if (!prototype)
        return code_is_result(code) && !(code == CODE_NUMBERS && layout->in);
    if (code == CODE_CALLBACK || (layout != NULL && layout->text))
        return false;
    return code == CODE_VIEW || (code_is_result(code) && !(code == CODE_NUMBERS && layout->out));
}

static bool set_result(Function *self, PyObject *type)
{
    Code code;
    if (!parse_type(type, "result of", self->name, &code, &self->result_layout))
        return false;
    bool prototype = function_is_prototype(self);
    if (!is_result(prototype, code, self->result_layout)) {
        PyErr_Format(PyExc_ValueError, "result of %U cannot be %S", self->name, type);
        return false;
    }
    self->result = (uint8_t)code;
    if (code == CODE_BYTES || (code == CODE_NUMBERS && !prototype))
        self->result_size = BYTES_RESULT_SIZE;
    else if (code == CODE_VIEW || code == CODE_NUMBERS)
        self->result_size = VIEW_RESULT_SIZE;
    else if (code == CODE_STRUCT)
        self->result_size = self->result_layout->size;
    self->uses_memory = self->result_size != 0 || code == CODE_STREAM;
    self->plain_result = code < CODE_STR && self->result_layout == NULL;
    self->word_count = self->result_size != 0;
    return true;
}

/* "(a, b)": inspect and help() read it when there is no __signature__. */
static bool set_text_signature(Function *self)
{
    PyObject *names = PyList_New(self->input_count), *comma = PyUnicode_FromString(", ");
    PyObject *joined = NULL;
    if (names != NULL && comma != NULL) {
        for (unsigned i = 0; i < self->input_count; i++)
            PyList_SET_ITEM(names, i, Py_NewRef(self->parameters[i].name));
        joined = PyUnicode_Join(comma, names);
    }
    if (joined != NULL)
        self->text_signature = PyUnicode_FromFormat("(%U)", joined);
    Py_XDECREF(joined);
    Py_XDECREF(comma);
    Py_XDECREF(names);
    return self->text_signature != NULL;
}

static Function *function_alloc(PyTypeObject *type, PyObject *box, PyObject *name, uint32_t address)
{
    Function *self = (Function *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->vectorcall = box != Py_None ? function_vectorcall : boxless_vectorcall;
        self->box = box != Py_None ? (Box *)Py_NewRef(box) : NULL;
        self->name = Py_NewRef(name);
        self->address = (vx_gaddr){address};
    }
    return self;
}

static bool usable_in_a_box(const Function *prototype)
{
    bool usable = prototype->result != CODE_VIEW && prototype->result != CODE_NUMBERS;
    for (unsigned i = 0; usable && i < prototype->parameter_count; i++) {
        const Parameter *parameter = &prototype->parameters[i];
        usable = parameter->code != CODE_STRUCT || !parameter->layout->text;
    }
    if (!usable)
        PyErr_Format(PyExc_ValueError, "%U cannot be called from here", prototype->name);
    return usable;
}

static bool copy_parameters(Function *self, const Function *from)
{
    self->parameters = PyMem_New(Parameter, from->parameter_count);
    if (self->parameters == NULL)
        return PyErr_NoMemory() != NULL;
    for (; self->parameter_count < from->parameter_count; self->parameter_count++) {
        Parameter *parameter = &self->parameters[self->parameter_count];
        *parameter = from->parameters[self->parameter_count];
        Py_INCREF(parameter->name);
        Py_XINCREF(parameter->layout);
    }
    return true;
}

static Function *copy_for(const Function *from, Box *box, PyObject *name)
{
    Function *self = function_alloc(Py_TYPE(from), (PyObject *)box, name, 0);
    if (self == NULL || !copy_parameters(self, from)) {
        Py_XDECREF(self);
        return NULL;
    }
    self->input_count = from->input_count;
    self->word_count = from->word_count;
    self->lease_count = from->lease_count;
    self->out_count = from->out_count;
    self->callback_count = from->callback_count;
    self->uses_memory = from->uses_memory;
    self->result = from->result;
    self->plain_result = from->plain_result;
    self->result_size = from->result_size;
    self->result_layout = (Layout *)Py_XNewRef(from->result_layout);
    self->text_signature = Py_NewRef(from->text_signature);
    return self;
}

Function *function_of(const Function *prototype, Box *box, PyObject *name)
{
    return usable_in_a_box(prototype) ? copy_for(prototype, box, name) : NULL;
}

/* What an export is was found out once, and every sandbox of the plugin has it. */
static PyObject *function_bind(Function *self, PyObject *const *args, Py_ssize_t count)
{
    State *state = PyType_GetModuleState(Py_TYPE(self));
    if (!self->unbound || count != 2 || !Py_IS_TYPE(args[0], state->box_type))
        return PyErr_Format(PyExc_TypeError, "bind(box, module) of what is bound to none");
    Function *bound = copy_for(self, (Box *)args[0], self->name);
    if (bound == NULL)
        return NULL;
    bound->address = self->address;
    bound->plain = self->plain;
    bound->doc = Py_NewRef(self->doc);
    bound->signature = Py_NewRef(self->signature);
    bound->module = Py_NewRef(args[1]);
    return (PyObject *)bound;
}

static PyObject *function_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"box", "name", "address", "params", "result", "doc", "module",
                            "signature", "unbound", NULL};
    State *state = PyType_GetModuleState(type);
    PyObject *box, *name, *params, *result, *doc = Py_None, *module = Py_None;
    PyObject *signature = Py_None;
    uint32_t address;
    int unbound = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OUO&OO|$OOOp:Function", names,
                                     &box, &name, convert_word, &address, &params,
                                     &result, &doc, &module, &signature, &unbound))
        return NULL;
    if (box != Py_None && (unbound || !Py_IS_TYPE(box, state->box_type)))
        return PyErr_Format(PyExc_TypeError, unbound ? "box: expected None" : "box: expected Box or None");
    Function *self = function_alloc(type, box, name, address);
    if (self == NULL)
        return NULL;
    self->unbound = unbound;
    self->doc = Py_NewRef(doc);
    self->module = Py_NewRef(module);
    self->signature = Py_NewRef(signature);
    if (!set_result(self, result) || !add_parameters(self, params) || !set_text_signature(self)) {
        Py_DECREF(self);
        return NULL;
    }
    self->plain = self->plain_result && !self->uses_memory;
    return (PyObject *)self;
}

/* ---- the type ---- */

/* No tp_clear: calls rely on every field.  A cycle through a function always passes the
 * callables of its box, which are cleared, or an object of the caller's. */
static int function_traverse(Function *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->box);
    Py_VISIT(self->module);
    Py_VISIT(self->doc);
    Py_VISIT(self->signature);
    Py_VISIT(self->result_layout);
    for (unsigned i = 0; i < self->parameter_count; i++)
        Py_VISIT(self->parameters[i].layout);
    return 0;
}

static void function_dealloc(Function *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    for (unsigned i = 0; i < self->parameter_count; i++) {
        Py_DECREF(self->parameters[i].name);
        Py_XDECREF(self->parameters[i].layout);
    }
    PyMem_Free(self->parameters);
    Py_XDECREF(self->name);
    Py_XDECREF(self->module);
    Py_XDECREF(self->doc);
    Py_XDECREF(self->signature);
    Py_XDECREF(self->text_signature);
    Py_XDECREF(self->result_layout);
    Py_XDECREF(self->box);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *function_repr(Function *self)
{
    return PyUnicode_FromFormat("<sandboxed function %U%U>", self->name, self->text_signature);
}

/* Like a built-in function it does not bind when found on a class; that it has __get__ at all
 * makes it a routine to inspect and pydoc. */
static PyObject *function_get(PyObject *self, PyObject *object, PyObject *type)
{
    (void)object, (void)type;
    return Py_NewRef(self);
}

#define FUNCTION_MEMBER(name, field) {name, T_OBJECT, offsetof(Function, field), READONLY, NULL}

/* Made when it is asked for: an import pays for no signature. */
static PyObject *function_signature(Function *self, void *unused)
{
    (void)unused;
    bool none = self->signature == NULL || self->signature == Py_None;
    return none ? Py_NewRef(Py_None) : PyObject_CallNoArgs(self->signature);
}

static PyGetSetDef function_getset[] = {
    {"__signature__", (getter)function_signature, NULL, NULL, NULL},
    {0},
};

static PyMethodDef function_methods[] = {
    {"bind", (PyCFunction)(void (*)(void))function_bind, METH_FASTCALL,
     PyDoc_STR("bind($self, box, module, /)\n--\n\nAn unbound function as the callable of one box.")},
    {0},
};

static PyMemberDef function_members[] = {
    FUNCTION_MEMBER("__name__", name),
    FUNCTION_MEMBER("box", box),
    FUNCTION_MEMBER("__qualname__", name),
    FUNCTION_MEMBER("__doc__", doc),
    FUNCTION_MEMBER("__text_signature__", text_signature),
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Function, vectorcall), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Function, weakrefs), READONLY, NULL},
    {0},
};

static PyMemberDef function_module_member = FUNCTION_MEMBER("__module__", module);

/* PyType_FromSpec writes the type's own module over a member of that name, so it is added after. */
bool function_finish_type(PyTypeObject *type)
{
    PyObject *member = PyDescr_NewMember(type, &function_module_member);
    int done = member != NULL ? PyDict_SetItemString(type->tp_dict, "__module__", member) : -1;
    Py_XDECREF(member);
    PyType_Modified(type);
    return done == 0;
}

static PyType_Slot function_slots[] = {
    {Py_tp_new, function_new},
    {Py_tp_dealloc, function_dealloc},
    {Py_tp_traverse, function_traverse},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_repr, function_repr},
    {Py_tp_descr_get, function_get},
    {Py_tp_methods, function_methods},
    {Py_tp_members, function_members},
    {Py_tp_getset, function_getset},
    {0, NULL},
};

PyType_Spec function_spec = {
    .name = "vxplug._vx.Function",
    .basicsize = sizeof(Function),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL
        | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = function_slots,
};
