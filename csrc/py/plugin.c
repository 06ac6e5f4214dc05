/* The type Plugin: checked segments handed to the core. */
#include "binding.h"

#include <structmember.h>

/* The core copies what it keeps, so views of the data live only during creation. */
typedef struct Segments {
    vx_segment *items;
    Py_buffer *data;
    size_t count;
} Segments;

static void segments_free(Segments *segments)
{
    for (size_t i = 0; i < segments->count; i++)
        PyBuffer_Release(&segments->data[i]);
    PyMem_Free(segments->items);
    PyMem_Free(segments->data);
}

static bool segment_fill(Segments *segments, size_t index, PyObject *item)
{
    vx_segment *out = &segments->items[index];
    Py_buffer *data = &segments->data[index];
    PyObject *tuple = PySequence_Tuple(item);
    bool parsed = tuple != NULL
        && PyArg_ParseTuple(tuple, "O&O&O&O&y*:segment", convert_word, &out->vaddr, convert_word,
                            &out->memsz, convert_word, &out->prot, convert_word, &out->lead, data);
    Py_XDECREF(tuple);
    if (!parsed)
        return false;
    segments->count = index + 1;
    if (out->lead > out->memsz || (uint64_t)data->len > out->memsz - out->lead) {
        PyErr_Format(PyExc_ValueError, "segment %zu: %zd bytes of data for a size of %u", index,
                     data->len, (unsigned)out->memsz);
        return false;
    }
    out->data = data->buf;
    out->filesz = (uint32_t)data->len;
    return true;
}

static bool segments_parse(PyObject *sequence, Segments *segments)
{
    PyObject *list = PySequence_List(sequence); /* a copy: exporters of buffers may run code */
    if (list == NULL)
        return false;
    Py_ssize_t count = PyList_GET_SIZE(list);
    segments->items = PyMem_Calloc((size_t)count, sizeof *segments->items);
    segments->data = PyMem_Calloc((size_t)count, sizeof *segments->data);
    bool ok = segments->items != NULL && segments->data != NULL;
    if (!ok)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; ok && i < count; i++)
        ok = segment_fill(segments, (size_t)i, PyList_GET_ITEM(list, i));
    Py_DECREF(list);
    return ok;
}

static PyObject *plugin_make(PyTypeObject *type, const vx_image *image)
{
    Plugin *self = (Plugin *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    vx_status status = vx_plugin_create(image, &self->core);
    if (status != VX_OK) {
        self->core = NULL;
        error_status(status, "plugin");
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static PyObject *plugin_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"segments", "entry", "phdr", "phent", "phnum", "exec_stack", NULL};
    PyObject *sequence, *result = NULL;
    vx_image image = {0};
    int exec_stack = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO&|O&O&O&p:Plugin", names, &sequence,
                                     convert_word, &image.entry, convert_word, &image.phdr,
                                     convert_word, &image.phent, convert_word, &image.phnum,
                                     &exec_stack))
        return NULL;
    image.exec_stack = exec_stack;
    Segments segments = {0};
    if (segments_parse(sequence, &segments)) {
        image.segments = segments.items;
        image.count = segments.count;
        result = plugin_make(type, &image);
    }
    segments_free(&segments);
    return result;
}

static void plugin_dealloc(Plugin *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    vx_plugin_unref(self->core);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *plugin_stats(Plugin *self, PyObject *unused)
{
    (void)unused;
    vx_stats stats;
    vx_plugin_stats(self->core, &stats);
    return Py_BuildValue("{sKsKsKsK}", "blocks", (unsigned long long)stats.blocks,
                         "guest_bytes", (unsigned long long)stats.guest_bytes,
                         "code_bytes", (unsigned long long)stats.code_bytes,
                         "flushes", (unsigned long long)stats.flushes);
}

static PyMethodDef plugin_methods[] = {
    {"stats", (PyCFunction)plugin_stats, METH_NOARGS,
     PyDoc_STR("stats($self)\n--\n\nTranslation statistics.")},
    {"places", (PyCFunction)plugin_places, METH_NOARGS,
     PyDoc_STR("places($self)\n--\n\nTranslated blocks as (guest address, host address, size).")},
    {0},
};

static PyMemberDef plugin_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Plugin, weakrefs), READONLY, NULL},
    {0},
};

static PyType_Slot plugin_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Plugin(segments, entry, phdr=0, phent=0, phnum=0)\n--\n\n"
                                  "Checked segments in a form that sandboxes share.")},
    {Py_tp_new, plugin_new},
    {Py_tp_dealloc, plugin_dealloc},
    {Py_tp_methods, plugin_methods},
    {Py_tp_members, plugin_members},
    {0, NULL},
};

PyType_Spec plugin_spec = {
    .name = "vxplug._vx.Plugin",
    .basicsize = sizeof(Plugin),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = plugin_slots,
};
