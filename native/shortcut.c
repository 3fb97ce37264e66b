/* Sends a datagram the short way: to an address that was checked before, with the hop limit that the socket has. */

#include "fast.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

/* How many addresses are remembered; before one more, all are forgotten. */
enum { MOST_ADDRESSES = 1024 };

typedef struct {
    PyObject_HEAD
    PyObject *known; /* from an address to its Destination, as bytes */
    int descriptor;
    int hop_limit;
    /* A send happens wholly before a change of the hop limit, or wholly after it, without the interpreter lock. */
    pthread_mutex_t sending;
} Shortcut;

/* Whether an address has the plain types. Others may equal a known one and yet be refused, as port 5000.0 is. */
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

PyDoc_STRVAR(shortcut_send_doc, "send(data, address, hop_limit)\n--\n\n"
                                "Send one datagram and return True; or False, and nothing happened: it has to go the long "
                                "way, or there is no room for it yet. Raises OSError when the OS refuses it.");

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
    PyObject *known = hop_limit < 0 ? NULL : PyDict_GetItemWithError(self->known, address);
    if (known == NULL) {
        return PyErr_Occurred() ? NULL : PyBool_FromLong(false);
    }
    Destination destination;
    memcpy(&destination, PyBytes_AsString(known), sizeof destination);
    if (PyBytes_AsStringAndSize(arguments[0], &data, &size) < 0) {
        return NULL;
    }
    int error = EAGAIN;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&self->sending);
    if (hop_limit == self->hop_limit) {
        ssize_t sent = sendto(self->descriptor, data, (size_t)size, MSG_DONTWAIT, &destination.address.any,
                              destination.length);
        error = sent < 0 ? errno : 0;
    }
    pthread_mutex_unlock(&self->sending);
    Py_END_ALLOW_THREADS
    if (error == 0 || error == EAGAIN) {
        return PyBool_FromLong(error == 0);
    }
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

PyDoc_STRVAR(shortcut_learn_doc, "learn(address)\n--\n\n"
                                 "Remember that datagrams may go to this address, unless it is of another form than the "
                                 "usual one.");

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

static PyObject *
shortcut_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(keywords))
{
    int descriptor, hop_limit;
    if (!PyArg_ParseTuple(arguments, "ii:Shortcut", &descriptor, &hop_limit)) {
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Shortcut *self = (Shortcut *)allocate(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->descriptor = descriptor;
    self->hop_limit = hop_limit;
    self->sending = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    self->known = PyDict_New();
    if (self->known == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
shortcut_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((Shortcut *)self)->known);
    pthread_mutex_destroy(&((Shortcut *)self)->sending);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(shortcut_set_hop_limit_doc, "set_hop_limit(hop_limit)\n--\n\n"
                                         "What the socket has from now on; -1: nothing may go this way. Returns when no send is "
                                         "under way that began before.");

static PyObject *
shortcut_set_hop_limit(Shortcut *self, PyObject *argument)
{
    int hop_limit;
    if (!read_int(argument, &hop_limit)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&self->sending);
    self->hop_limit = hop_limit;
    pthread_mutex_unlock(&self->sending);
    Py_END_ALLOW_THREADS
    return shared(Py_None);
}

static PyMethodDef shortcut_methods[] = {
    {"send", (PyCFunction)(void (*)(void))shortcut_send, METH_FASTCALL, shortcut_send_doc},
    {"learn", (PyCFunction)shortcut_learn, METH_O, shortcut_learn_doc},
    {"set_hop_limit", (PyCFunction)shortcut_set_hop_limit, METH_O, shortcut_set_hop_limit_doc},
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
