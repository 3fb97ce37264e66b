/* Handout: an async iterator over a backlog, for what is there already. It costs less than a coroutine per datagram. */

#include "fast.h"

/* What `__anext__` returns: it is ready, and awaiting it takes the datagram out. */
typedef struct {
    PyObject_HEAD
    PyObject *datagram;
    PyObject *backlog;
} Handed;

typedef struct {
    PyObject_HEAD
    PyObject *backlog;  /* a list of datagrams, newest first */
    PyObject *promised; /* a sequence; as long as it holds something, other tasks go first */
    PyObject *next;     /* returns an awaitable of the next datagram, when it is not simply the last of the backlog */
} Handout;

/* PyIter_Send calls this, so no exception has to carry the value. */
static PySendResult
handed_send(PyObject *object, PyObject *Py_UNUSED(value), PyObject **result)
{
    Handed *self = (Handed *)object;
    *result = self->datagram;
    self->datagram = NULL;
    if (*result == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited datagram");
        return PYGEN_ERROR;
    }
    return PYGEN_RETURN;
}

static PyObject *
handed_iternext(PyObject *self)
{
    PyObject *datagram;
    if (handed_send(self, NULL, &datagram) == PYGEN_RETURN) {
        PyObject *stop = PyObject_CallFunctionObjArgs(PyExc_StopIteration, datagram, NULL);
        if (stop != NULL) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
        Py_DECREF(datagram);
    }
    return NULL;
}

static int
handed_traverse(PyObject *object, visitproc visit, void *arg)
{
    Handed *self = (Handed *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->datagram);
    Py_VISIT(self->backlog);
    return 0;
}

/* A datagram that nobody awaited goes back. */
static int
handed_clear(PyObject *object)
{
    Handed *self = (Handed *)object;
    if (self->datagram != NULL && self->backlog != NULL && PyList_Append(self->backlog, self->datagram) < 0) {
        PyErr_WriteUnraisable(object);
    }
    Py_CLEAR(self->datagram);
    Py_CLEAR(self->backlog);
    return 0;
}

static void
handed_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    handed_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyObject *
itself(PyObject *self)
{
    return shared(self);
}

static PyType_Slot handed_slots[] = {
    {Py_tp_doc, "A datagram that can be awaited; see Handout."},
    {Py_am_await, itself},
    {Py_am_send, handed_send},
    {Py_tp_iter, itself},
    {Py_tp_iternext, handed_iternext},
    {Py_tp_traverse, handed_traverse},
    {Py_tp_clear, handed_clear},
    {Py_tp_dealloc, handed_dealloc},
    {0, NULL},
};

PyType_Spec handed_spec = {
    .name = "multicast_expert._fast.Handed",
    .basicsize = sizeof(Handed),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_GC,
    .slots = handed_slots,
};

static PyObject *
handout_anext(PyObject *object)
{
    Handout *self = (Handout *)object;
    Py_ssize_t count = PyList_Size(self->backlog);
    if (count <= 0 || PyObject_Size(self->promised) != 0) {
        return PyErr_Occurred() ? NULL : PyObject_CallNoArgs(self->next);
    }
    State *state = PyType_GetModuleState(Py_TYPE(object));
    Handed *handed = state == NULL ? NULL : (Handed *)PyType_GenericAlloc(state->handed, 0);
    if (handed == NULL) {
        return NULL;
    }
    handed->backlog = shared(self->backlog);
    /* To make one may have run other code. */
    count = PyList_Size(self->backlog);
    handed->datagram = count > 0 ? PyList_GetItem(self->backlog, count - 1) : NULL;
    Py_XINCREF(handed->datagram);
    if (handed->datagram == NULL || PyList_SetSlice(self->backlog, count - 1, count, NULL) < 0) {
        Py_CLEAR(handed->datagram);
        Py_DECREF((PyObject *)handed);
        return PyErr_Occurred() ? NULL : PyObject_CallNoArgs(self->next);
    }
    return (PyObject *)handed;
}

static PyObject *
handout_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(keywords))
{
    PyObject *backlog, *promised, *next;
    if (!PyArg_ParseTuple(arguments, "O!OO:Handout", &PyList_Type, &backlog, &promised, &next)) {
        return NULL;
    }
    Handout *self = (Handout *)PyType_GenericAlloc(type, 0);
    if (self != NULL) {
        self->backlog = shared(backlog);
        self->promised = shared(promised);
        self->next = shared(next);
    }
    return (PyObject *)self;
}

static int
handout_traverse(PyObject *object, visitproc visit, void *arg)
{
    Handout *self = (Handout *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->backlog);
    Py_VISIT(self->promised);
    Py_VISIT(self->next);
    return 0;
}

static int
handout_clear(PyObject *object)
{
    Handout *self = (Handout *)object;
    Py_CLEAR(self->next);
    return 0;
}

static void
handout_dealloc(PyObject *object)
{
    Handout *self = (Handout *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    handout_clear(object);
    Py_XDECREF(self->backlog);
    Py_XDECREF(self->promised);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyType_Slot handout_slots[] = {
    {Py_tp_doc, "Handout(backlog, promised, next)\n--\n\n"
                "Iterates over what a receiver has taken already; see multicast_expert.sockets.aio."},
    {Py_tp_new, handout_new},
    {Py_am_aiter, itself},
    {Py_am_anext, handout_anext},
    {Py_tp_traverse, handout_traverse},
    {Py_tp_clear, handout_clear},
    {Py_tp_dealloc, handout_dealloc},
    {0, NULL},
};

PyType_Spec handout_spec = {
    .name = "multicast_expert._fast.Handout",
    .basicsize = sizeof(Handout),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = handout_slots,
};
