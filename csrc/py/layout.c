/* The type Layout: a C type as the host sees it in guest memory, built from parts that are done.
 *
 * vxplug/types.py has checked what the plugin's note says; the checks here are of what memory
 * safety rests on, so that no caller of the private module can break it either. */
#include "binding.h"

#include <string.h>
#include <structmember.h>

static void layout_dealloc(Layout *self);

static const char *const kinds[KIND_COUNT] = {
    [KIND_SCALAR] = "scalar", [KIND_ENUM] = "enum", [KIND_STRUCT] = "struct",
    [KIND_UNION] = "union", [KIND_ARRAY] = "array", [KIND_CHARS] = "chars", [KIND_BYTES] = "bytes",
    [KIND_TEXT] = "text", [KIND_POINTER] = "pointer", [KIND_NUMBERS] = "numbers",
    [KIND_FUNCTION] = "function", [KIND_HANDLE] = "handle",
    [KIND_STREAM] = "stream",
};

Code layout_code(const Layout *layout)
{
    switch ((Kind)layout->kind) {
    case KIND_SCALAR:
    case KIND_ENUM:
        return layout->code;
    case KIND_STRUCT:
    case KIND_UNION:
        return CODE_STRUCT;
    case KIND_POINTER:
        return CODE_POINTER;
    case KIND_FUNCTION:
        return CODE_CALLBACK;
    case KIND_HANDLE:
        return CODE_HANDLE;
    case KIND_STREAM:
        return CODE_STREAM;
    case KIND_NUMBERS:
        return CODE_NUMBERS;
    default:
        return CODE_COUNT; /* arrays stand in structs only */
    }
}

bool layout_check(PyObject *object)
{
    return Py_TYPE(object)->tp_dealloc == (destructor)layout_dealloc;
}

static bool refuse(const char *what)
{
    PyErr_Format(PyExc_ValueError, "layout: %s", what);
    return false;
}

static bool set_kind(Layout *self, const char *text)
{
    while (self->kind < KIND_COUNT && strcmp(kinds[self->kind], text) != 0)
        self->kind++;
    return self->kind < KIND_COUNT || refuse("unknown kind");
}

static bool add_below(Layout *self, const Layout *below)
{
    bool out_handle = self->kind == KIND_POINTER && !self->in && below->kind == KIND_HANDLE;
    if (below->kind >= KIND_POINTER && !out_handle)
        return refuse("a pointer in memory");
    if (below->text && self->kind == KIND_UNION)
        return refuse("text in a union, whose bytes outlive the guest's");
    self->text |= below->text;
    if (below->depth >= MAX_DEPTH)
        return refuse("nested too deep");
    if (self->depth <= below->depth)
        self->depth = below->depth + 1;
    return true;
}

/* ---- members ---- */

static bool member_fits(const Layout *self, const Member *member)
{
    uint64_t width = (uint64_t)member->type->size * 8;
    if (member->bits != 0) {
        bool number = member->type->kind <= KIND_ENUM && member->type->code != CODE_F32
            && member->type->code != CODE_F64;
        if (!number || member->bits > width)
            return refuse("not a bit-field");
        width = member->bits;
    } else if (member->bit % 8 != 0) {
        return refuse("member not at a byte");
    }
    return member->bit + width <= (uint64_t)self->size * 8 || refuse("member outside its struct");
}

static bool add_member(State *state, Layout *self, PyObject *item)
{
    Member *member = &self->members[self->count];
    PyObject *name, *type;
    if (!PyTuple_Check(item)
        || !PyArg_ParseTuple(item, "UO!O&b:member", &name, state->layout_type, &type, convert_word,
                             &member->bit, &member->bits))
        return PyErr_Occurred() != NULL ? false : refuse("member is not a tuple");
    member->name = Py_NewRef(name);
    PyUnicode_InternInPlace(&member->name);
    member->type = (Layout *)Py_NewRef(type);
    self->count++;
    return add_below(self, member->type) && member_fits(self, member);
}

static bool add_members(State *state, Layout *self, PyObject *sequence)
{
    PyObject *list = PySequence_List(sequence);
    if (list == NULL)
        return false;
    Py_ssize_t count = PyList_GET_SIZE(list);
    self->members = PyMem_Calloc((size_t)count, sizeof *self->members);
    bool ok = self->members != NULL || PyErr_NoMemory() != NULL;
    for (Py_ssize_t i = 0; ok && i < count; i++)
        ok = add_member(state, self, PyList_GET_ITEM(list, i));
    Py_DECREF(list);
    return ok;
}

/* ---- creation ---- */

static bool set_code(Layout *self, PyObject *text)
{
    Code code = PyUnicode_Check(text) ? code_parse(text) : CODE_COUNT;
    if (code == CODE_COUNT || code_size(code) == 0)
        return refuse("not the code of a number");
    self->code = (uint8_t)code;
    self->size = code_size(code);
    return true;
}

static bool set_class(Layout *self, PyObject *class)
{
    if (class == NULL || !PyType_Check(class))
        return refuse("no class");
    self->class = Py_NewRef(class);
    if (self->kind != KIND_ENUM)
        return true;
    self->values = PyObject_GetAttrString(class, "_value2member_map_");
    return self->values != NULL && (PyDict_CheckExact(self->values) || refuse("not an enum"));
}

static bool set_items(Layout *self, uint32_t count)
{
    if (self->target == NULL || self->target->kind >= KIND_POINTER)
        return refuse("an array of what memory does not hold");
    uint64_t size = (uint64_t)count * self->target->size;
    if (count == 0 || size > MAX_LAYOUT)
        return refuse("array size");
    if ((self->kind == KIND_BYTES || self->kind == KIND_CHARS) && self->target->size != 1)
        return refuse("bytes that are not bytes");
    self->count = count;
    self->size = (uint32_t)size;
    return add_below(self, self->target);
}

static bool set_pointer(Layout *self)
{
    if (self->target == NULL)
        return refuse("a pointer to nothing");
    self->size = 4;
    return add_below(self, self->target);
}

/* Of a prototype: calling a function of a sandbox goes another way.  Those that it takes make it deeper. */
static bool set_prototype(Layout *self, PyObject *object)
{
    if (object == NULL || !function_check(object) || !function_is_prototype((Function *)object))
        return refuse("not a prototype");
    const Function *function = (const Function *)object;
    for (unsigned i = 0; i < function->parameter_count; i++)
        if (function->parameters[i].code == CODE_CALLBACK && self->depth <= function->parameters[i].layout->depth)
            self->depth = function->parameters[i].layout->depth + 1;
    if (self->depth > MAX_DEPTH)
        return refuse("nested too deep");
    self->prototype = (Function *)Py_NewRef(object);
    self->size = 4;
    return true;
}

/* handle.c relies on the class being a subclass of Handle that adds nothing in C. */
static bool set_handle(State *state, Layout *self, PyObject *class, uint32_t destroy)
{
    if (class == NULL || !PyType_Check(class)
        || !PyType_IsSubtype((PyTypeObject *)class, state->handle_type))
        return refuse("not a class of handles");
    self->class = Py_NewRef(class);
    self->destroy = destroy;
    self->size = 4;
    return true;
}

static bool set_stream(Layout *self, uint32_t open, uint32_t alloc)
{
    if (self->target == NULL || self->target->kind != KIND_HANDLE)
        return refuse("a stream without its handle");
    self->open = open;
    self->alloc = alloc;
    return true;
}

typedef struct LayoutArguments {
    const char *kind, *mode;
    PyObject *code, *target, *class, *members, *prototype;
    uint32_t size, count, destroy, open, alloc;
} LayoutArguments;

static bool layout_fill(State *state, Layout *self, const LayoutArguments *from)
{
    self->in = strcmp(from->mode, "out") != 0;
    self->out = strcmp(from->mode, "in") != 0;
    self->target = (Layout *)Py_XNewRef(from->target);
    switch ((Kind)self->kind) {
    case KIND_SCALAR:
        return set_code(self, from->code);
    case KIND_ENUM:
        return set_code(self, from->code) && set_class(self, from->class);
    case KIND_STRUCT:
    case KIND_UNION:
        if (from->size == 0 || from->size > MAX_LAYOUT)
            return refuse("struct size");
        self->size = from->size;
        return set_class(self, from->class) && add_members(state, self, from->members);
    case KIND_POINTER:
        return set_pointer(self);
    case KIND_HANDLE:
        return set_handle(state, self, from->class, from->destroy);
    case KIND_STREAM:
        return set_stream(self, from->open, from->alloc);
    case KIND_FUNCTION:
        return set_prototype(self, from->prototype);
    case KIND_NUMBERS:
        return set_code(self, from->code);
    case KIND_TEXT:
        self->text = true;
        self->size = 4;
        return true;
    default:
        return set_items(self, from->count);
    }
}

static PyObject *layout_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"kind", "code", "size", "count", "target", "cls", "members", "mode",
                            "prototype", "destroy", "open", "alloc", NULL};
    State *state = PyType_GetModuleState(type);
    PyObject *none = PyTuple_New(0);
    LayoutArguments from = {.mode = "", .code = Py_None, .members = none};
    Layout *self = NULL;
    if (none != NULL
        && PyArg_ParseTupleAndKeywords(args, keywords, "s|$OO&O&O!OOsOO&O&O&:Layout", names, &from.kind,
                                       &from.code, convert_word, &from.size, convert_word,
                                       &from.count, state->layout_type, &from.target, &from.class,
                                       &from.members, &from.mode, &from.prototype,
                                       convert_word, &from.destroy, convert_word, &from.open,
                                       convert_word, &from.alloc))
        self = (Layout *)type->tp_alloc(type, 0);
    if (self != NULL && (!set_kind(self, from.kind) || !layout_fill(state, self, &from)))
        Py_CLEAR(self);
    Py_XDECREF(none);
    return (PyObject *)self;
}

/* ---- use from Python, by unions ---- */

static const Member *find_member(const Layout *self, PyObject *name)
{
    for (uint32_t i = 0; i < self->count && self->members != NULL; i++) {
        int equal = PyObject_RichCompareBool(self->members[i].name, name, Py_EQ);
        if (equal != 0)
            return equal > 0 ? &self->members[i] : NULL;
    }
    PyErr_Format(PyExc_TypeError, "%s has no member %R",
                 self->class != NULL ? ((PyTypeObject *)self->class)->tp_name : "layout", name);
    return NULL;
}

static PyObject *layout_pack_member(Layout *self, PyObject *args)
{
    PyObject *name, *value;
    if (!PyArg_ParseTuple(args, "UO:pack_member", &name, &value))
        return NULL;
    const Member *member = find_member(self, name);
    PyObject *owner = NULL;
    if (member != NULL)
        owner = PyUnicode_FromString(((PyTypeObject *)self->class)->tp_name);
    PyObject *data = owner != NULL ? PyBytes_FromStringAndSize(NULL, self->size) : NULL;
    if (data != NULL) {
        Place place = {.owner = owner, .role = "() argument", .name = owner};
        memset(PyBytes_AS_STRING(data), 0, self->size);
        if (!codec_encode_member(&place, member, value, (uint8_t *)PyBytes_AS_STRING(data), NULL))
            Py_CLEAR(data);
    }
    Py_XDECREF(owner);
    return data;
}

static bool whole(const Layout *self, Py_ssize_t size)
{
    if (self->kind < KIND_POINTER && size == (Py_ssize_t)self->size)
        return true;
    PyErr_Format(PyExc_ValueError, "expected %u bytes, got %zd", (unsigned)self->size, size);
    return false;
}

static PyObject *layout_unpack_member(Layout *self, PyObject *args)
{
    PyObject *name;
    const uint8_t *data;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "Uy#:unpack_member", &name, &data, &size) || !whole(self, size))
        return NULL;
    const Member *member = find_member(self, name);
    return member != NULL ? codec_decode_member(member, data, NULL) : NULL;
}

static PyObject *layout_unpack(Layout *self, PyObject *args)
{
    const uint8_t *data;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "y#:unpack", &data, &size) || !whole(self, size))
        return NULL;
    return codec_decode(self, data, NULL);
}

static PyObject *layout_members(Layout *self, void *unused)
{
    (void)unused;
    uint32_t count = self->members != NULL ? self->count : 0;
    PyObject *names = PyTuple_New(count);
    for (uint32_t i = 0; names != NULL && i < count; i++)
        PyTuple_SET_ITEM(names, i, Py_NewRef(self->members[i].name));
    return names;
}

/* ---- the type ---- */

/* No tp_clear: calls rely on every field.  A cycle passes a class, which is cleared. */
static int layout_traverse(Layout *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->class);
    Py_VISIT(self->values);
    Py_VISIT(self->target);
    Py_VISIT(self->prototype);
    for (uint32_t i = 0; i < self->count && self->members != NULL; i++)
        Py_VISIT(self->members[i].type);
    return 0;
}

static void layout_dealloc(Layout *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    for (uint32_t i = 0; i < self->count && self->members != NULL; i++) {
        Py_DECREF(self->members[i].name);
        Py_DECREF(self->members[i].type);
    }
    PyMem_Free(self->members);
    Py_XDECREF(self->class);
    Py_XDECREF(self->values);
    Py_XDECREF(self->target);
    Py_XDECREF(self->prototype);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef layout_methods[] = {
    {"pack_member", (PyCFunction)layout_pack_member, METH_VARARGS,
     PyDoc_STR("pack_member($self, name, value, /)\n--\n\nBytes with one member set.")},
    {"unpack_member", (PyCFunction)layout_unpack_member, METH_VARARGS,
     PyDoc_STR("unpack_member($self, name, data, /)\n--\n\nOne member of the bytes.")},
    {"unpack", (PyCFunction)layout_unpack, METH_VARARGS,
     PyDoc_STR("unpack($self, data, /)\n--\n\nThe value of the bytes.")},
    {0},
};

static PyGetSetDef layout_getset[] = {
    {"members", (getter)layout_members, NULL, PyDoc_STR("Names of the members."), NULL},
    {0},
};

static PyType_Slot layout_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Layout(kind, **parts)\n--\n\nA C type in guest memory.")},
    {Py_tp_new, layout_new},
    {Py_tp_dealloc, layout_dealloc},
    {Py_tp_traverse, layout_traverse},
    {Py_tp_methods, layout_methods},
    {Py_tp_getset, layout_getset},
    {0, NULL},
};

PyType_Spec layout_spec = {
    .name = "vxplug._vx.Layout",
    .basicsize = sizeof(Layout),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = layout_slots,
};
