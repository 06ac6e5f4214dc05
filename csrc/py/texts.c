/* Text that structs point to: `const char *` members, whose bytes lie outside the struct.
 *
 * In: the texts of one value follow its struct in one block of host memory, and pointers hold how far into
 * the block they lead, until the block has a place in the guest.  Out: each text is read where the guest's
 * pointer leads, through the range check; what the texts of one value may cost the host is bounded, since a
 * guest can point to the same one from everywhere. */
#include "binding.h"

#include <string.h>

/* ---- to bytes ---- */

/* Room for `more` bytes behind `size`, doubling. */
static bool reserve(void **memory, size_t size, size_t more, size_t *room)
{
    if (more <= *room - size)
        return true;
    size_t wanted = more > SIZE_MAX / 4 - size ? SIZE_MAX : 2 * (size + more);
    void *grown = PyMem_Realloc(*memory, wanted);
    if (grown == NULL)
        return PyErr_NoMemory() != NULL;
    *memory = grown;
    *room = wanted;
    return true;
}

bool texts_add(Texts *texts, const Place *place, PyObject *value, uint8_t *out)
{
    Py_ssize_t size;
    if (value == Py_None)
        return true; /* the bytes are zero */
    if (!PyUnicode_Check(value))
        return error_place(place, PyExc_TypeError, "expected str or None, got %s", Py_TYPE(value)->tp_name);
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    if (text == NULL)
        return false;
    if (strlen(text) != (size_t)size)
        return error_place(place, PyExc_ValueError, "embedded null character");
    size_t from = texts->size, length = (size_t)size + 1;
    uint32_t at[2] = {(uint32_t)(out - texts->base), (uint32_t)from};
    if (length > UINT32_MAX - from)
        return error_place(place, PyExc_OverflowError, "more text than 32-bit memory holds");
    if (!reserve((void **)&texts->data, from, length, &texts->room)
        || !reserve((void **)&texts->places, texts->count * sizeof at, sizeof at, &texts->places_room))
        return false;
    memcpy(texts->data + from, text, length);
    memcpy(texts->places + 2 * texts->count++, at, sizeof at);
    texts->size += length;
    return true;
}

/* Struct, texts, and, out of the guest's sight, the table of its pointers. */
static bool join(const Texts *texts, Lease *lease)
{
    size_t size = (size_t)lease->buffer.len, table = texts->count * 2 * sizeof *texts->places;
    uint8_t *block = PyMem_Realloc(lease->owned, size + texts->size + table);
    if (block == NULL)
        return PyErr_NoMemory() != NULL;
    memcpy(block + size, texts->data, texts->size);
    memcpy(block + size + texts->size, texts->places, table);
    lease->owned = lease->buffer.buf = block;
    lease->buffer.len = (Py_ssize_t)(size + texts->size);
    lease->texts_from = (uint32_t)size;
    lease->texts = texts->count;
    return true;
}

bool texts_finish(Texts *texts, bool ok, Lease *lease)
{
    ok = ok && (texts->count == 0 || join(texts, lease));
    PyMem_Free(texts->data);
    PyMem_Free(texts->places);
    return ok;
}

void texts_link(const Lease *lease, uint8_t *target)
{
    if (lease->texts == 0)
        return;
    const uint8_t *table = (const uint8_t *)lease->owned + lease->buffer.len;
    for (uint32_t i = 0; i < lease->texts; i++) {
        uint32_t at[2];
        memcpy(at, table + i * sizeof at, sizeof at);
        uint32_t pointer = lease->address.value + lease->texts_from + at[1];
        memcpy(target + at[0], &pointer, sizeof pointer);
    }
}

/* ---- from bytes ---- */

PyObject *texts_read(Reader *reader, uint32_t address)
{
    vx_gaddr at = {address};
    if (address == 0)
        return Py_NewRef(Py_None);
    if (reader == NULL)
        return PyErr_Format(PyExc_SystemError, "text where no guest is");
    reader->address = address;
    size_t size = vx_guest_strlen(reader->core, at, reader->left);
    const char *text = size == SIZE_MAX ? NULL
                                        : vx_guest_pointer(reader->core, at, size + 1, VX_PROT_READ);
    if (text == NULL) {
        reader->failed = true;
        return NULL;
    }
    reader->left -= size;
    return memory_decode(text, size);
}
