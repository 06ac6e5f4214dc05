/* Arrays of numbers through the buffer protocol: the format is checked, then bytes are copied. */
#include "binding.h"

#include <string.h>

/* typecode of array.array; all of them have the size of their C type on x86-64 Linux. */
static char typecode(Code code)
{
    static const char codes[CODE_COUNT] = {
        [CODE_I8] = 'b', [CODE_U8] = 'B', [CODE_I16] = 'h', [CODE_U16] = 'H', [CODE_I32] = 'i',
        [CODE_U32] = 'I', [CODE_I64] = 'q', [CODE_U64] = 'Q', [CODE_F32] = 'f', [CODE_F64] = 'd',
    };
    return codes[code];
}

/* Formats of the struct module that mean the same, byte order and size given. */
static bool same_format(Code code, const char *format)
{
    char wanted = typecode(code);
    if (format == NULL)
        format = "B";
    if (*format == '@' || *format == '=' || *format == '<')
        format++;
    if (format[0] == '\0' || format[1] != '\0')
        return false;
    if (wanted == 'i' || wanted == 'q')
        return strchr("ilqn", *format) != NULL;
    if (wanted == 'I' || wanted == 'Q')
        return strchr("ILQN", *format) != NULL;
    return *format == wanted;
}

bool numbers_fit(const Place *place, const Layout *layout, const Py_buffer *buffer)
{
    if (buffer->itemsize == (Py_ssize_t)layout->size && same_format(layout->code, buffer->format))
        return true;
    return error_place(place, PyExc_TypeError, "expected numbers of format '%c', got format '%s'",
                       typecode(layout->code), buffer->format != NULL ? buffer->format : "B");
}

bool numbers_lease(const Function *function, unsigned index, PyObject *value, Lease *lease)
{
    const Layout *layout = function->parameters[index].layout;
    int flags = PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | (layout->out ? PyBUF_WRITABLE : 0);
    Place place = place_argument(function, index);
    return lease_buffer(function, index, value, flags, lease) && numbers_fit(&place, layout, &lease->buffer);
}

static PyObject *zeros(PyObject *type, Code code, uint32_t count)
{
    PyObject *one = PyObject_CallFunction(type, "C[i]", typecode(code), 0);
    PyObject *array = one != NULL ? PySequence_Repeat(one, count) : NULL;
    Py_XDECREF(one);
    return array;
}

PyObject *numbers_create(State *state, Code code, uint32_t count, void **memory)
{
    Py_buffer buffer;
    PyObject *array = zeros(state->array_type, code, count);
    if (array == NULL || PyObject_GetBuffer(array, &buffer, PyBUF_WRITABLE) < 0) {
        Py_XDECREF(array);
        return NULL;
    }
    *memory = buffer.buf;
    PyBuffer_Release(&buffer); /* nobody else has the array, so nobody can resize it */
    return array;
}
