/* Datagram: one datagram with all that the kernel reported about it. Its Python twin, in multicast_expert/core/datagram.py, lends
it the methods that compare and print.

The garbage collector sees a Datagram that a program made, because its parts may be anything. One that was received is not
the collector's: bytes, numbers and text cannot refer to it, and the collector's header would cost time for each. No method
can change a Datagram, so every cycle goes through another object, and the collector breaks it there, as with a tuple. */

#include "fast.h"

typedef struct {
    PyObject_HEAD
    PyObject *data;
    PyObject *origin; /* a tuple of ORIGIN_PARTS: sender, group, interface's index and name, hop limit, destination, traffic
                         class */
    PyObject *timestamp;
    PyObject *truncated;
    bool collected; /* whether it has the header of the garbage collector */
} Datagram;

/* In the order of the arguments; the parts behind the first, but for the time and the truth value, are those of the origin. */
enum { PARTS = 10, DESTINATION_PART = 8 };

static char *const NAMES[PARTS + 1] = {
    "data", "sender", "group", "interface_index", "interface_name", "hop_limit", "timestamp_ns", "truncated",
    "destination", "traffic_class", NULL,
};

/* Return a Datagram that is not the garbage collector's. `data` is bytes, the reference to which goes over to it, and may be
NULL after a failure; `origin` is a tuple of ORIGIN_PARTS. */
PyObject *
received_datagram(PyTypeObject *type, PyObject *data, PyObject *origin, PyObject *timestamp, bool truncated)
{
    Datagram *self = data == NULL ? NULL : PyObject_New(Datagram, type);
    if (self == NULL) {
        Py_XDECREF(data);
        return NULL;
    }
    self->data = data;
    self->origin = shared(origin);
    self->timestamp = shared(timestamp);
    self->truncated = shared(truncated ? Py_True : Py_False);
    self->collected = false;
    return (PyObject *)self;
}

static PyObject *
datagram_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *parts[PARTS] = {NULL, NULL, Py_None, Py_None, Py_None, Py_None, Py_None, Py_False, Py_None, Py_None};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OO|OOOOOOOO:Datagram", (char **)NAMES, &parts[0], &parts[1],
                                     &parts[2], &parts[3], &parts[4], &parts[5], &parts[6], &parts[7], &parts[DESTINATION_PART],
                                     &parts[9])) {
        return NULL;
    }
    PyObject *destination = parts[DESTINATION_PART] == Py_None ? parts[2] : parts[DESTINATION_PART];
    PyObject *origin = PyTuple_Pack(ORIGIN_PARTS, parts[1], parts[2], parts[3], parts[4], parts[5], destination, parts[9]);
    Datagram *self = origin == NULL ? NULL : (Datagram *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        Py_XDECREF(origin);
        return NULL;
    }
    self->data = shared(parts[0]);
    self->origin = origin;
    self->timestamp = shared(parts[6]);
    self->truncated = shared(parts[7]);
    self->collected = true;
    return (PyObject *)self;
}

/* arrived(data, origin, timestamp_ns, truncated) */
PyObject *
arrived(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = PyModule_GetState(module);
    if (count != 4 || !PyBytes_CheckExact(arguments[0]) || !PyTuple_Check(arguments[1]) ||
        PyTuple_Size(arguments[1]) != ORIGIN_PARTS) {
        PyErr_SetString(PyExc_TypeError, "a Datagram that arrived has bytes, an origin of seven parts, a time and a truth value");
        return NULL;
    }
    return received_datagram(state->datagram, shared(arguments[0]), arguments[1], arguments[2], arguments[3] == Py_True);
}

static int
datagram_is_gc(Datagram *self)
{
    return self->collected;
}

static void datagram_dealloc(Datagram *self);

/* Release a part of a Datagram that is freed. A collected Datagram that nothing else holds goes to the front of the chain
`next`, to be freed in its turn; `origin` links the chain. */
static void
release_part(PyTypeObject *type, PyObject *part, Datagram **next)
{
    Datagram *datagram = (Datagram *)part;
    if (Py_TYPE(part) != type || Py_REFCNT(part) != 1 || !datagram->collected ||
        PyType_GetSlot(type, Py_tp_dealloc) != (void *)datagram_dealloc) {
        Py_DECREF(part);
        return;
    }
    PyObject_GC_UnTrack(part);
    Py_DECREF(datagram->origin);
    datagram->origin = (PyObject *)*next;
    *next = datagram;
}

/* Free a Datagram that a program made. Datagrams within it, however deep, are freed one after the other: the C stack does not
grow with them. */
static void
free_collected(PyTypeObject *type, Datagram *self)
{
    PyObject_GC_UnTrack(self);
    Py_DECREF(self->origin);
    self->origin = NULL;
    for (Datagram *next = self; next != NULL;) {
        Datagram *freed = next;
        next = (Datagram *)freed->origin;
        release_part(type, freed->data, &next);
        release_part(type, freed->timestamp, &next);
        release_part(type, freed->truncated, &next);
        PyObject_GC_Del(freed);
        Py_DECREF(type);
    }
}

static void
datagram_dealloc(Datagram *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    if (self->collected) {
        free_collected(type, self);
        return;
    }
    Py_DECREF(self->data);
    Py_DECREF(self->origin);
    Py_DECREF(self->timestamp);
    Py_DECREF(self->truncated);
    PyObject_Free(self);
    Py_DECREF(type);
}

static int
datagram_traverse(Datagram *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->data);
    Py_VISIT(self->origin);
    Py_VISIT(self->timestamp);
    Py_VISIT(self->truncated);
    return 0;
}

/* Return all parts as a tuple. */
static PyObject *
parts_of(Datagram *self, PyObject *Py_UNUSED(nothing))
{
    PyObject *origin[ORIGIN_PARTS];
    for (Py_ssize_t part = 0; part < ORIGIN_PARTS; part++) {
        origin[part] = PyTuple_GetItem(self->origin, part);
    }
    return PyTuple_Pack(PARTS, self->data, origin[0], origin[1], origin[2], origin[3], origin[4], self->timestamp,
                        self->truncated, origin[5], origin[6]);
}

static PyObject *
datagram_part(Datagram *self, void *part)
{
    return shared(PyTuple_GetItem(self->origin, (Py_ssize_t)(intptr_t)part));
}

static PyGetSetDef datagram_parts[] = {
    {"sender", (getter)datagram_part, NULL,
     "As `recvfrom` gives it: `(ip, port)`, for IPv6 `(ip, port, flow info, scope id)`.", (void *)0},
    {"group", (getter)datagram_part, NULL, "The group that it was sent to; None: the destination is the address of a host, or unknown.", (void *)1},
    {"interface_index", (getter)datagram_part, NULL, "The interface that it arrived on.", (void *)2},
    {"interface_name", (getter)datagram_part, NULL, "The name of that interface.", (void *)3},
    {"hop_limit", (getter)datagram_part, NULL, "The hops that it had left on arrival (IPv4: the TTL).", (void *)4},
    {"destination", (getter)datagram_part, NULL, "The address that it was sent to: a group, or an address of this host.",
     (void *)5},
    {"traffic_class", (getter)datagram_part, NULL,
     "Its traffic class (IPv4: the TOS) on arrival, DSCP * 4 + ECN, 0 to 255; only with `traffic_class=True`.", (void *)6},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef datagram_members[] = {
    {"_origin", T_OBJECT, offsetof(Datagram, origin), READONLY, NULL},
    {"data", T_OBJECT, offsetof(Datagram, data), READONLY, "The payload; empty for a datagram without one."},
    {"timestamp_ns", T_OBJECT, offsetof(Datagram, timestamp), READONLY,
     "When the kernel received it, in nanoseconds since 1970; only with `timestamps=True`; of a `gro` run, one."},
    {"truncated", T_OBJECT, offsetof(Datagram, truncated), READONLY,
     "Whether the buffer was too small, so that the end of the payload is lost."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef datagram_methods[] = {
    {"_parts", (PyCFunction)parts_of, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot datagram_slots[] = {
    {Py_tp_doc, "Datagram(data, sender, group=None, interface_index=None, interface_name=None, hop_limit=None, "
                "timestamp_ns=None, truncated=False, destination=None, traffic_class=None)\n--\n\n"
                "One datagram with all that the kernel reported about it. Parts that an OS does not report are None."},
    {Py_tp_new, datagram_new},
    {Py_tp_dealloc, datagram_dealloc},
    {Py_tp_traverse, datagram_traverse},
    {Py_tp_is_gc, datagram_is_gc},
    {Py_tp_getset, datagram_parts},
    {Py_tp_members, datagram_members},
    {Py_tp_methods, datagram_methods},
    {0, NULL},
};

PyType_Spec datagram_spec = {
    .name = "multicast_expert.core.datagram.Datagram",
    .basicsize = sizeof(Datagram),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = datagram_slots,
};
