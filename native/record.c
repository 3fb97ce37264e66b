/* Record: the base of multicast_expert.datagram.Datagram, which holds its parts. The Python twin is there. */

#include "fast.h"

static PyObject *
record_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(keywords))
{
    PyObject *data, *origin, *timestamp, *truncated;
    if (!PyArg_ParseTuple(arguments, "OO!OO:Record", &data, &PyTuple_Type, &origin, &timestamp, &truncated)) {
        return NULL;
    }
    if (PyTuple_Size(origin) != 5) {
        PyErr_SetString(PyExc_ValueError, "an origin has five parts");
        return NULL;
    }
    Record *self = (Record *)PyType_GenericAlloc(type, 0);
    if (self != NULL) {
        self->data = shared(data);
        self->origin = shared(origin);
        self->timestamp = shared(timestamp);
        self->truncated = shared(truncated);
    }
    return (PyObject *)self;
}

static void
record_dealloc(Record *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_XDECREF(self->data);
    Py_XDECREF(self->origin);
    Py_XDECREF(self->timestamp);
    Py_XDECREF(self->truncated);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *
record_part(Record *self, void *part)
{
    return shared(PyTuple_GetItem(self->origin, (Py_ssize_t)(intptr_t)part));
}

static PyGetSetDef record_parts[] = {
    {"sender", (getter)record_part, NULL,
     "As `recvfrom` gives it: `(ip, port)`, for IPv6 `(ip, port, flow info, scope id)`.", (void *)0},
    {"group", (getter)record_part, NULL, "The group that it was sent to.", (void *)1},
    {"interface_index", (getter)record_part, NULL, "The interface that it arrived on.", (void *)2},
    {"interface_name", (getter)record_part, NULL, "The name of that interface.", (void *)3},
    {"hop_limit", (getter)record_part, NULL, "The hops that it had left on arrival (IPv4: the TTL).", (void *)4},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef record_members[] = {
    {"data", T_OBJECT, offsetof(Record, data), READONLY, "The payload; empty for a datagram without one."},
    {"timestamp_ns", T_OBJECT, offsetof(Record, timestamp), READONLY,
     "When the kernel received it, in nanoseconds since 1970; only with `timestamps=True`; of a `gro` run, one."},
    {"truncated", T_OBJECT, offsetof(Record, truncated), READONLY,
     "Whether the buffer was too small, so that the end of the payload is lost."},
    {"_origin", T_OBJECT, offsetof(Record, origin), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot record_slots[] = {
    {Py_tp_doc, "Record(data, origin, timestamp_ns, truncated)\n--\n\n"
                "The parts of a Datagram; see multicast_expert.datagram."},
    {Py_tp_new, record_new},
    {Py_tp_dealloc, record_dealloc},
    {Py_tp_getset, record_parts},
    {Py_tp_members, record_members},
    {0, NULL},
};

PyType_Spec record_spec = {
    .name = "multicast_expert._fast.Record",
    .basicsize = sizeof(Record),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = record_slots,
};
