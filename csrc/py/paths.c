/* Opening what a path names beneath a folder, by openat2, and reading a folder by pieces: Python has no call for
 * either. */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* No component may be a symbolic link: who follows links does it knowingly, one at a time. */
#define RESOLVE \
    (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)

PyObject *open_beneath(PyObject *module, PyObject *args)
{
    int folder, flags;
    const char *path;
    long fd;
    (void)module;
    if (!PyArg_ParseTuple(args, "iyi:open_beneath", &folder, &path, &flags))
        return NULL;
    struct open_how how = {.flags = (unsigned)flags | O_CLOEXEC, .resolve = RESOLVE};
    do {
        Py_BEGIN_ALLOW_THREADS
        fd = syscall(SYS_openat2, folder, path, &how, sizeof how);
        Py_END_ALLOW_THREADS
    } while (fd < 0 && (errno == EAGAIN || errno == EINTR) && PyErr_CheckSignals() == 0);
    if (fd >= 0)
        return PyLong_FromLong(fd);
    return PyErr_Occurred() ? NULL : PyErr_SetFromErrno(PyExc_OSError);
}

PyObject *file_system(PyObject *module, PyObject *args)
{
    int fd, result;
    struct statfs info;
    (void)module;
    if (!PyArg_ParseTuple(args, "i:file_system", &fd))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = fstatfs(fd, &info);
    Py_END_ALLOW_THREADS
    return result == 0 ? PyLong_FromLong(info.f_type) : PyErr_SetFromErrno(PyExc_OSError);
}

PyObject *directory_entries(PyObject *module, PyObject *args)
{
    int fd;
    long long offset;
    unsigned size;
    long got;
    (void)module;
    if (!PyArg_ParseTuple(args, "iLI:directory_entries", &fd, &offset, &size))
        return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (bytes == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(bytes);
    do {
        Py_BEGIN_ALLOW_THREADS
        got = lseek(fd, offset, SEEK_SET) < 0 ? -1 : syscall(SYS_getdents64, fd, to, size);
        Py_END_ALLOW_THREADS
    } while (got < 0 && errno == EINTR && PyErr_CheckSignals() == 0);
    if (got >= 0)
        _PyBytes_Resize(&bytes, got);
    else if (!PyErr_Occurred())
        PyErr_SetFromErrno(PyExc_OSError);
    if (got < 0)
        Py_CLEAR(bytes);
    return bytes;
}
