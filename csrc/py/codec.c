/* Values to the bytes that C has for them, and back: numbers, enums, structs, unions, arrays; texts.c
 * has the text that they point to.
 *
 * Both directions work on host memory, a copy of the guest's, so nothing changes under them.
 * Layouts nest MAX_DEPTH deep at most, and so does the recursion here. */
#include "binding.h"

#include <string.h>

/* ---- bits ---- */

/* A bit at a time: a field of 64 bits may lie in nine bytes. */
static void put_bits(uint8_t *out, uint32_t bit, unsigned width, uint64_t bits)
{
    for (unsigned i = 0; i < width; i++, bit++)
        out[bit / 8] |= (uint8_t)((bits >> i & 1) << bit % 8);
}

static uint64_t get_bits(const uint8_t *in, uint32_t bit, unsigned width)
{
    uint64_t bits = 0;
    for (unsigned i = 0; i < width; i++, bit++)
        bits |= (uint64_t)(in[bit / 8] >> bit % 8 & 1) << i;
    return bits;
}

/* ---- to bytes ---- */

static bool encode_scalar(const Place *place, const Layout *layout, PyObject *value, uint8_t *out)
{
    uint32_t words[2];
    if (!convert_value(place, layout->code, value, words))
        return false;
    memcpy(out, words, layout->size);
    return true;
}

bool codec_encode_member(const Place *outer, const Member *member, PyObject *value, uint8_t *out, Texts *texts)
{
    Place place = {.outer = outer, .name = member->name};
    if (member->bits == 0)
        return codec_encode(&place, member->type, value, out + member->bit / 8, texts);
    uint64_t bits;
    if (!convert_bits(&place, member->type->code, member->bits, value, &bits))
        return false;
    put_bits(out, member->bit, member->bits, bits);
    return true;
}

static bool is_instance(const Place *place, const Layout *layout, PyObject *value)
{
    if (PyObject_TypeCheck(value, (PyTypeObject *)layout->class))
        return true;
    return error_place(place, PyExc_TypeError, "expected %s, got %s",
                       ((PyTypeObject *)layout->class)->tp_name, Py_TYPE(value)->tp_name);
}

static bool encode_struct(const Place *place, const Layout *layout, PyObject *value, uint8_t *out, Texts *texts)
{
    bool ok = is_instance(place, layout, value);
    for (uint32_t i = 0; ok && i < layout->count; i++) {
        PyObject *part = PyObject_GetAttr(value, layout->members[i].name);
        ok = part != NULL && codec_encode_member(place, &layout->members[i], part, out, texts);
        Py_XDECREF(part);
    }
    return ok;
}

static bool encode_union(const Place *place, const Layout *layout, PyObject *value, uint8_t *out)
{
    if (!is_instance(place, layout, value))
        return false;
    PyObject *data = PyObject_GetAttrString(value, "__data__");
    if (data == NULL)
        return false;
    bool ok = PyBytes_Check(data) && PyBytes_GET_SIZE(data) == (Py_ssize_t)layout->size;
    if (ok)
        memcpy(out, PyBytes_AS_STRING(data), layout->size);
    else
        error_place(place, PyExc_TypeError, "a union that was not made by its class");
    Py_DECREF(data);
    return ok;
}

/* A new reference: a list may be another thread's to change. */
static PyObject *item_of(const Place *place, PyObject *items, uint32_t index)
{
    if (PyTuple_Check(items))
        return Py_NewRef(PyTuple_GET_ITEM(items, index));
    PyObject *item = PyList_GetItemRef(items, index);
    if (item == NULL)
        error_place(place, PyExc_RuntimeError, "changed size while it was read");
    return item;
}

static bool encode_items(const Place *outer, const Layout *layout, PyObject *items, uint8_t *out, Texts *texts)
{
    for (uint32_t i = 0; i < layout->count; i++) {
        Place place = {.outer = outer, .item = i};
        if ((uint32_t)PySequence_Fast_GET_SIZE(items) != layout->count)
            return error_place(outer, PyExc_RuntimeError, "changed size while it was read");
        PyObject *item = item_of(outer, items, i);
        bool ok = item != NULL && codec_encode(&place, layout->target, item, out + i * layout->target->size, texts);
        Py_XDECREF(item);
        if (!ok)
            return false;
    }
    return true;
}

static bool encode_array(const Place *place, const Layout *layout, PyObject *value, uint8_t *out, Texts *texts)
{
    if (!PySequence_Check(value) || PyUnicode_Check(value))
        return error_place(place, PyExc_TypeError, "expected a sequence of %u items, got %s",
                           (unsigned)layout->count, Py_TYPE(value)->tp_name);
    PyObject *items = PySequence_Fast(value, "not a sequence");
    if (items == NULL)
        return false;
    Py_ssize_t size = PySequence_Fast_GET_SIZE(items);
    bool ok = size == (Py_ssize_t)layout->count;
    if (ok)
        ok = encode_items(place, layout, items, out, texts);
    else
        error_place(place, PyExc_ValueError, "expected %u items, got %zd", (unsigned)layout->count,
                    size);
    Py_DECREF(items);
    return ok;
}

/* char[n] takes fewer bytes than n, as C's string literals do; uint8_t[n] takes n. */
static bool encode_bytes(const Place *place, const Layout *layout, PyObject *value, uint8_t *out)
{
    Py_buffer view;
    if (!PyObject_CheckBuffer(value))
        return error_place(place, PyExc_TypeError, "expected a bytes-like object, got %s",
                           Py_TYPE(value)->tp_name);
    const char *pointers = buffer_pointers(value);
    if (pointers != NULL)
        return error_place(place, PyExc_TypeError, BUFFER_OF, Py_TYPE(value)->tp_name, pointers);
    if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0)
        return false;
    Py_ssize_t room = layout->count;
    bool ok = layout->kind == KIND_CHARS ? view.len <= room : view.len == room;
    if (ok && view.len != 0)
        memcpy(out, view.buf, (size_t)view.len);
    if (!ok)
        error_place(place, PyExc_ValueError, "expected %s%zd bytes, got %zd",
                    layout->kind == KIND_CHARS ? "at most " : "", room, view.len);
    PyBuffer_Release(&view);
    return ok;
}

bool codec_encode(const Place *place, const Layout *layout, PyObject *value, uint8_t *out, Texts *texts)
{
    switch ((Kind)layout->kind) {
    case KIND_SCALAR:
    case KIND_ENUM:
        return encode_scalar(place, layout, value, out);
    case KIND_STRUCT:
        return encode_struct(place, layout, value, out, texts);
    case KIND_UNION:
        return encode_union(place, layout, value, out);
    case KIND_ARRAY:
        return encode_array(place, layout, value, out, texts);
    case KIND_CHARS:
    case KIND_BYTES:
        return encode_bytes(place, layout, value, out);
    case KIND_TEXT:
        if (texts != NULL)
            return texts_add(texts, place, value, out);
        /* fall through */
    default:
        return error_place(place, PyExc_SystemError, "not a type that memory can hold");
    }
}

/* ---- from bytes ---- */

/* As convert_result takes it: integers in eax and edx, floating point on the x87 stack. */
static PyObject *decode_number(Code code, uint64_t bits)
{
    vx_result result = {(uint32_t)bits, (uint32_t)(bits >> 32), 0};
    if (code == CODE_F64) {
        memcpy(&result.st0, &bits, sizeof result.st0);
    } else if (code == CODE_F32) {
        float narrow;
        memcpy(&narrow, &bits, sizeof narrow);
        result.st0 = narrow;
    }
    return convert_result(code, &result);
}

/* A number that is no member stays a number: C lets an enum hold any. */
PyObject *codec_enum(const Layout *layout, PyObject *number)
{
    PyObject *member = NULL;
    if (number == NULL || PyDict_GetItemRef(layout->values, number, &member) == 0)
        return number;
    Py_DECREF(number);
    return member;
}

PyObject *codec_number(Code code, const Layout *layout, uint64_t bits)
{
    PyObject *number = decode_number(code, bits);
    return layout != NULL && layout->kind == KIND_ENUM ? codec_enum(layout, number) : number;
}

static PyObject *decode_scalar(const Layout *layout, uint64_t bits)
{
    return codec_number(layout->code, layout, bits);
}

PyObject *codec_decode_member(const Member *member, const uint8_t *in, Reader *reader)
{
    if (member->bits == 0)
        return codec_decode(member->type, in + member->bit / 8, reader);
    uint64_t bits = get_bits(in, member->bit, member->bits);
    Code code = member->type->code;
    bool is_signed = code == CODE_I8 || code == CODE_I16 || code == CODE_I32 || code == CODE_I64;
    if (is_signed && bits >> (member->bits - 1) != 0 && member->bits < 64)
        bits |= ~(uint64_t)0 << member->bits;
    return decode_scalar(member->type, bits);
}

/* By the object's own dictionary: a frozen dataclass refuses assignment, and its __init__ would do
 * the same a member at a time. */
static PyObject *decode_struct(const Layout *layout, const uint8_t *in, Reader *reader)
{
    PyTypeObject *class = (PyTypeObject *)layout->class;
    PyObject *object = class->tp_alloc(class, 0);
    for (uint32_t i = 0; object != NULL && i < layout->count; i++) {
        PyObject *part = codec_decode_member(&layout->members[i], in, reader);
        if (part == NULL || PyObject_GenericSetAttr(object, layout->members[i].name, part) < 0)
            Py_CLEAR(object);
        Py_XDECREF(part);
    }
    return object;
}

static PyObject *decode_union(const Layout *layout, const uint8_t *in)
{
    PyTypeObject *class = (PyTypeObject *)layout->class;
    PyObject *name = PyUnicode_InternFromString("__data__");
    PyObject *data = PyBytes_FromStringAndSize((const char *)in, layout->size);
    PyObject *object = name != NULL && data != NULL ? class->tp_alloc(class, 0) : NULL;
    if (object != NULL && PyObject_GenericSetAttr(object, name, data) < 0)
        Py_CLEAR(object);
    Py_XDECREF(data);
    Py_XDECREF(name);
    return object;
}

static PyObject *decode_array(const Layout *layout, const uint8_t *in, Reader *reader)
{
    PyObject *items = PyTuple_New(layout->count);
    for (uint32_t i = 0; items != NULL && i < layout->count; i++) {
        PyObject *item = codec_decode(layout->target, in + i * layout->target->size, reader);
        if (item == NULL)
            Py_CLEAR(items);
        else
            PyTuple_SET_ITEM(items, i, item);
    }
    return items;
}

PyObject *codec_decode(const Layout *layout, const uint8_t *in, Reader *reader)
{
    uint64_t bits = 0;
    switch ((Kind)layout->kind) {
    case KIND_SCALAR:
    case KIND_ENUM:
        memcpy(&bits, in, layout->size);
        return decode_scalar(layout, bits);
    case KIND_STRUCT:
        return decode_struct(layout, in, reader);
    case KIND_UNION:
        return decode_union(layout, in);
    case KIND_ARRAY:
        return decode_array(layout, in, reader);
    case KIND_CHARS:
        return PyBytes_FromStringAndSize((const char *)in,
                                         (Py_ssize_t)strnlen((const char *)in, layout->count));
    case KIND_BYTES:
        return PyBytes_FromStringAndSize((const char *)in, layout->count);
    case KIND_TEXT:
        memcpy(&bits, in, layout->size);
        return texts_read(reader, (uint32_t)bits);
    default:
        return PyErr_Format(PyExc_SystemError, "not a type that memory can hold");
    }
}
