/* Sends a datagram the short way: to an address that was checked before, with the hop limit that the socket has.

The datagram is sent while the interpreter lock is held. That takes microseconds, because the call does not wait; and so a
send needs no lock of its own against a change of the hop limit, or against closing the socket. */

#include "fast.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

/* How many addresses are remembered; before one more, all are forgotten. */
enum { MOST_ADDRESSES = 1024 };

typedef struct {
    PyObject_HEAD
    PyObject *known; /* from an address to its Destination, as bytes */
    int descriptor;
    int hop_limit; /* of the socket; -1: nothing goes this way */
} Shortcut;

/* Return whether an address has the plain types. Others may equal a known one and yet be wrong, as port 5000.0 is. */
static bool
is_plain(PyObject *address)
{
    if (!PyTuple_CheckExact(address) || PyTuple_Size(address) < 2 ||
        !PyUnicode_CheckExact(PyTuple_GetItem(address, 0))) {
        return false;
    }
    for (Py_ssize_t index = PyTuple_Size(address); --index > 0;) {
        if (!PyLong_CheckExact(PyTuple_GetItem(address, index))) {
            return false;
        }
    }
    return true;
}

/* send(data, address, hop_limit) */
static PyObject *
shortcut_send(Shortcut *self, PyObject *const *arguments, Py_ssize_t count)
{
    char *data;
    Py_ssize_t size;
    int hop_limit;
    if (count != 3) {
        return PyErr_Format(PyExc_TypeError, "send() takes 3 arguments");
    }
    PyObject *address = arguments[1];
    if (!PyBytes_CheckExact(arguments[0]) || !is_plain(address) || !PyLong_CheckExact(arguments[2])) {
        return PyBool_FromLong(false);
    }
    if (!read_int(arguments[2], &hop_limit)) {
        PyErr_Clear();
        return PyBool_FromLong(false);
    }
    PyObject *known = hop_limit < 0 || hop_limit != self->hop_limit ? NULL : PyDict_GetItemWithError(self->known, address);
    if (known == NULL) {
        return PyErr_Occurred() ? NULL : PyBool_FromLong(false);
    }
    Destination destination;
    memcpy(&destination, PyBytes_AsString(known), sizeof destination);
    if (PyBytes_AsStringAndSize(arguments[0], &data, &size) < 0) {
        return NULL;
    }
    ssize_t sent = sendto(self->descriptor, data, (size_t)size, MSG_DONTWAIT, &destination.address.any, destination.length);
    if (sent >= 0 || errno == EAGAIN || errno == EWOULDBLOCK) {
        return PyBool_FromLong(sent >= 0);
    }
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* learn(address) */
static PyObject *
shortcut_learn(Shortcut *self, PyObject *address)
{
    Destination destination;
    if (!is_plain(address)) {
        return shared(Py_None);
    }
    if (read_destination(address, &destination) < 0) {
        PyErr_Clear();
        return shared(Py_None);
    }
    if (PyDict_Size(self->known) >= MOST_ADDRESSES) {
        PyDict_Clear(self->known);
    }
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)&destination, sizeof destination);
    bool failed = bytes == NULL || PyDict_SetItem(self->known, address, bytes) < 0;
    Py_XDECREF(bytes);
    return failed ? NULL : shared(Py_None);
}

/* prepare(address): the address as `send_prepared` takes it */
static PyObject *
shortcut_prepare(Shortcut *Py_UNUSED(self), PyObject *address)
{
    Destination destination;
    if (!is_plain(address)) {
        return PyErr_Format(PyExc_TypeError, "an address is a tuple of text and numbers");
    }
    if (read_destination(address, &destination) < 0) {
        return NULL;
    }
    return PyBytes_FromStringAndSize((const char *)&destination, sizeof destination);
}

/* send_prepared(data, destination, control): to a host; `control` is one control message, with its header */
static PyObject *
shortcut_send_prepared(Shortcut *self, PyObject *const *arguments, Py_ssize_t count)
{
    char *parts[3];
    Py_ssize_t sizes[3];
    union {
        struct cmsghdr alignment;
        unsigned char bytes[64];
    } control;
    if (count != 3) {
        return PyErr_Format(PyExc_TypeError, "send_prepared() takes 3 arguments");
    }
    if (!PyBytes_CheckExact(arguments[0]) || self->hop_limit < 0) {
        return PyBool_FromLong(false);
    }
    for (Py_ssize_t part = 0; part < 3; part++) {
        if (PyBytes_AsStringAndSize(arguments[part], &parts[part], &sizes[part]) < 0) {
            return NULL;
        }
    }
    if (sizes[1] != sizeof(Destination) || sizes[2] > (Py_ssize_t)sizeof control) {
        return PyErr_Format(PyExc_ValueError, "no such destination or control message was prepared");
    }
    Destination destination;
    memcpy(&destination, parts[1], sizeof destination);
    memcpy(control.bytes, parts[2], (size_t)sizes[2]);
    struct iovec piece = {.iov_base = parts[0], .iov_len = (size_t)sizes[0]};
    struct msghdr message = {
        .msg_name = &destination.address,
        .msg_namelen = destination.length,
        .msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = sizes[2] == 0 ? NULL : control.bytes,
        .msg_controllen = (size_t)sizes[2],
    };
    ssize_t sent = sendmsg(self->descriptor, &message, MSG_DONTWAIT);
    if (sent >= 0 || errno == EAGAIN || errno == EWOULDBLOCK) {
        return PyBool_FromLong(sent >= 0);
    }
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* set_hop_limit(hop_limit) */
static PyObject *
shortcut_set_hop_limit(Shortcut *self, PyObject *hop_limit)
{
    return read_int(hop_limit, &self->hop_limit) ? shared(Py_None) : NULL;
}

static PyObject *
shortcut_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(keywords))
{
    int descriptor, hop_limit;
    if (!PyArg_ParseTuple(arguments, "ii:Shortcut", &descriptor, &hop_limit)) {
        return NULL;
    }
    Shortcut *self = (Shortcut *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->descriptor = descriptor;
    self->hop_limit = hop_limit;
    self->known = PyDict_New();
    if (self->known == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void
shortcut_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((Shortcut *)self)->known);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef shortcut_methods[] = {
    {"send", (PyCFunction)(void (*)(void))shortcut_send, METH_FASTCALL, NULL},
    {"learn", (PyCFunction)shortcut_learn, METH_O, NULL},
    {"prepare", (PyCFunction)shortcut_prepare, METH_O, NULL},
    {"send_prepared", (PyCFunction)(void (*)(void))shortcut_send_prepared, METH_FASTCALL, NULL},
    {"set_hop_limit", (PyCFunction)shortcut_set_hop_limit, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot shortcut_slots[] = {
    {Py_tp_doc, "Shortcut(descriptor, hop_limit)\n--\n\n"
                "Sends to addresses that were checked before; see multicast_expert.engine.send."},
    {Py_tp_new, shortcut_new},
    {Py_tp_dealloc, shortcut_dealloc},
    {Py_tp_methods, shortcut_methods},
    {0, NULL},
};

PyType_Spec shortcut_spec = {
    .name = "multicast_expert._fast.Shortcut",
    .basicsize = sizeof(Shortcut),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = shortcut_slots,
};
