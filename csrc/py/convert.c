/* Codes, and scalars between Python objects and guest words. */
#include "binding.h"

#include <math.h>
#include <string.h>

typedef enum Class {
    CLASS_NONE, CLASS_INTEGER, CLASS_BOOL, CLASS_FLOAT, CLASS_STR, CLASS_VIEW, CLASS_MUT,
    CLASS_BYTES, CLASS_STRUCT, CLASS_POINTER, CLASS_NUMBERS,
    CLASS_CALLBACK, CLASS_HANDLE, CLASS_STREAM,
} Class;

typedef struct CodeInfo {
    const char *text, *ctype;
    uint8_t words, class;
    int64_t low;
    uint64_t high;
} CodeInfo;

static const CodeInfo codes[CODE_COUNT] = {
#define CODE(name, text, ctype, words, class, low, high) \
    [CODE_##name] = {text, ctype, words, CLASS_##class, low, high},
#include "codes.def"
#undef CODE
};

Code code_parse(PyObject *text)
{
    Code code = CODE_NONE;
    while (code < CODE_STRUCT && PyUnicode_CompareWithASCIIString(text, codes[code].text) != 0)
        code++;
    return code < CODE_STRUCT ? code : CODE_COUNT;
}

bool code_set_parameter(Code code, Parameter *parameter)
{
    const CodeInfo *info = &codes[code];
    parameter->code = (uint8_t)code;
    parameter->words = info->words;
    parameter->low = info->class == CLASS_INTEGER ? info->low : 1;
    parameter->high = info->high > INT64_MAX ? INT64_MAX : (int64_t)info->high;
    return info->words != 0;
}

bool code_is_leased(Code code)
{
    return (codes[code].class >= CLASS_STR && codes[code].class <= CLASS_MUT)
        || code >= CODE_POINTER;
}

uint32_t code_size(Code code)
{
    static const uint8_t sizes[CODE_COUNT] = {
        [CODE_I8] = 1, [CODE_U8] = 1, [CODE_I16] = 2, [CODE_U16] = 2, [CODE_I32] = 4,
        [CODE_U32] = 4, [CODE_I64] = 8, [CODE_U64] = 8, [CODE_BOOL] = 1, [CODE_F32] = 4,
        [CODE_F64] = 8,
    };
    return sizes[code];
}

bool code_is_result(Code code)
{
    return codes[code].class != CLASS_VIEW && codes[code].class != CLASS_MUT;
}

int convert_long_word(PyObject *value, void *out)
{
    unsigned long long number = PyLong_AsUnsignedLongLong(value);
    if (number == UINT64_MAX && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError))
            PyErr_Format(PyExc_ValueError, "%R is not in the range of 64 bits", value);
        return 0;
    }
    *(uint64_t *)out = number;
    return 1;
}

int convert_word(PyObject *value, void *out)
{
    uint64_t number;
    if (!convert_long_word(value, &number))
        return 0;
    if (number > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "%R is not in the range of 32 bits", value);
        return 0;
    }
    *(uint32_t *)out = (uint32_t)number;
    return 1;
}

/* ---- integers ---- */

/* The decimal digits of a huge int can take minutes to make, or be refused by the interpreter;
 * its size is as telling. */
static PyObject *show_integer(PyObject *value)
{
    PyObject *bits = PyObject_CallMethod(value, "bit_length", NULL);
    if (bits == NULL)
        return NULL;
    long count = PyLong_AsLong(bits);
    Py_DECREF(bits);
    if (count == -1 && PyErr_Occurred())
        return NULL;
    return count <= 128 ? PyObject_Repr(value)
                        : PyUnicode_FromFormat("an int of %ld bits", count);
}

/* The integers that a type, or a bit-field of it, holds. */
typedef struct Range {
    int64_t low;
    uint64_t high;
} Range;

static bool out_of_range(const Place *place, const char *ctype, Range range, PyObject *value)
{
    PyObject *shown = show_integer(value);
    if (shown == NULL)
        return false;
    error_place(place, PyExc_OverflowError, "%U is out of range for %s (%lld to %llu)", shown, ctype,
                (long long)range.low, (unsigned long long)range.high);
    Py_DECREF(shown);
    return false;
}

/* `value` is an int.  The bits of what fits; whether it fits. */
static bool integer_bits(Range range, PyObject *value, uint64_t *bits)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    *bits = (uint64_t)number;
    if (overflow == 0)
        return number >= range.low && (number < 0 || (uint64_t)number <= range.high);
    if (overflow < 0 || range.high <= INT64_MAX)
        return false;
    *bits = PyLong_AsUnsignedLongLong(value);
    if (*bits == UINT64_MAX && PyErr_Occurred()) {
        PyErr_Clear(); /* OverflowError, the only one an int can cause; ours says more */
        return false;
    }
    return *bits <= range.high;
}

static void put_words(const CodeInfo *info, uint64_t bits, uint32_t *words)
{
    words[0] = (uint32_t)bits;
    if (info->words == 2)
        words[1] = (uint32_t)(bits >> 32);
}

static bool wrong_type(const Place *place, const char *expected, PyObject *value)
{
    return error_place(place, PyExc_TypeError, "expected %s, got %s", expected,
                       Py_TYPE(value)->tp_name);
}

static bool convert_integer(const Place *place, const char *ctype, Range range, PyObject *value,
                            uint64_t *bits)
{
    if (!PyIndex_Check(value))
        return wrong_type(place, "int", value);
    PyObject *number = PyNumber_Index(value);
    if (number == NULL)
        return false;
    bool fits = integer_bits(range, number, bits);
    if (!fits)
        out_of_range(place, ctype, range, number);
    Py_DECREF(number);
    return fits;
}

static bool integer_words(const Place *place, const CodeInfo *info, PyObject *value,
                          uint32_t *words)
{
    uint64_t bits = 0;
    if (!convert_integer(place, info->ctype, (Range){info->low, info->high}, value, &bits))
        return false;
    put_words(info, bits, words);
    return true;
}

bool convert_bits(const Place *place, Code code, unsigned width, PyObject *value, uint64_t *bits)
{
    const CodeInfo *info = &codes[code];
    uint64_t top = (uint64_t)1 << (width - 1);
    Range range = {0, top - 1 + top};
    if (info->class == CLASS_BOOL) {
        int truth = PyObject_IsTrue(value);
        *bits = truth > 0;
        return truth >= 0;
    }
    if (info->low != 0)
        range = (Range){-(int64_t)(top - 1) - 1, top - 1};
    return convert_integer(place, "its bit-field", range, value, bits);
}

/* ---- bool and floats ---- */

static bool convert_bool(PyObject *value, uint32_t *words)
{
    int truth = PyObject_IsTrue(value);
    words[0] = truth > 0;
    return truth >= 0;
}

/* Any real number, as float(x) takes it, but no text. */
static bool real_number(const Place *place, PyObject *value, double *out)
{
    PyNumberMethods *methods = Py_TYPE(value)->tp_as_number;
    if (methods == NULL || (methods->nb_float == NULL && methods->nb_index == NULL))
        return wrong_type(place, "float", value);
    *out = PyFloat_AsDouble(value);
    if (*out != -1.0 || !PyErr_Occurred())
        return true;
    if (PyLong_Check(value) && PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        error_place(place, PyExc_OverflowError, "int too large for a float");
    }
    return false;
}

static bool put_float(const Place *place, PyObject *value, double number, uint32_t *words)
{
    float narrow = (float)number;
    if (isinf(narrow) && !isinf(number))
        return error_place(place, PyExc_OverflowError, "%R is out of range for float", value);
    memcpy(words, &narrow, sizeof narrow);
    return true;
}

static bool convert_real(const Place *place, Code code, PyObject *value, uint32_t *words)
{
    double number = 0;
    if (PyFloat_CheckExact(value))
        number = PyFloat_AS_DOUBLE(value);
    else if (!real_number(place, value, &number))
        return false;
    if (code == CODE_F32)
        return put_float(place, value, number, words);
    memcpy(words, &number, sizeof number);
    return true;
}

bool convert_value(const Place *place, Code code, PyObject *value, uint32_t *words)
{
    switch (codes[code].class) {
    case CLASS_INTEGER:
        return integer_words(place, &codes[code], value, words);
    case CLASS_BOOL:
        return convert_bool(value, words);
    default:
        return convert_real(place, code, value, words);
    }
}

bool convert_scalar(const Function *function, unsigned index, PyObject *value, uint32_t *words)
{
    const Parameter *parameter = &function->parameters[index];
    Place place = place_argument(function, index);
    if (parameter->code != CODE_STRUCT)
        return convert_value(&place, parameter->code, value, words);
    memset(words, 0, parameter->words * sizeof *words);
    return codec_encode(&place, parameter->layout, value, (uint8_t *)words, NULL);
}

/* ---- results ---- */

/* Only as many low bits as the C type has mean anything. */
PyObject *convert_result_slow(Code code, const vx_result *result)
{
    uint32_t low = result->eax;
    uint64_t wide = (uint64_t)result->edx << 32 | low;
    switch (code) {
    case CODE_I8:
        return PyLong_FromLong((int8_t)low);
    case CODE_U8:
        return PyLong_FromLong((uint8_t)low);
    case CODE_I16:
        return PyLong_FromLong((int16_t)low);
    case CODE_U16:
        return PyLong_FromLong((uint16_t)low);
    case CODE_I32:
        return PyLong_FromLong((int32_t)low);
    case CODE_U32:
        return PyLong_FromUnsignedLong(low);
    case CODE_I64:
        return PyLong_FromLongLong((int64_t)wide);
    case CODE_U64:
        return PyLong_FromUnsignedLongLong(wide);
    case CODE_BOOL:
        return PyBool_FromLong((uint8_t)low);
    case CODE_F32:
    case CODE_F64:
        return PyFloat_FromDouble(result->st0);
    default:
        return Py_NewRef(Py_None);
    }
}
