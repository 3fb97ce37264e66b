/* The type Rows: what a DatagramBuffer holds. Payloads stand one after the other in memory that Python owns, and the facts
about each in arrays; nothing is allocated for a datagram. Rows never grow, so a view of the memory stays valid. */

#include "rows.h"

#include <string.h>
#ifdef SYSTEM_CALLS
#include <unistd.h>
#endif

static long
this_process(void)
{
#ifdef SYSTEM_CALLS
    return (long)getpid();
#else
    return 1;
#endif
}

/* Return whether no receive into the rows is under way, in another thread or below a signal handler; if one is, with an
exception set. */
static bool
is_free(const Rows *rows)
{
    if (rows->busy == 0 || rows->busy != this_process()) {
        return true;
    }
    PyErr_SetString(PyExc_BufferError, "a receive into this buffer is under way");
    return false;
}

/* Begin a receive into the rows; return whether that is allowed. It ends with `end_rows`. */
bool
begin_rows(Rows *rows)
{
    if (!is_free(rows)) {
        return false;
    }
    rows->busy = this_process();
    return true;
}

void
end_rows(Rows *rows)
{
    rows->busy = 0;
}

/* Return the index of an origin in the list, or -1 with an exception set. */
Py_ssize_t
place_of(Rows *rows, PyObject *origin)
{
    if (origin == rows->last) {
        return rows->last_place;
    }
    PyObject *known = PyDict_GetItemWithError(rows->places, origin);
    Py_ssize_t place = known == NULL ? PyList_Size(rows->origins) : PyLong_AsSsize_t(known);
    if (known == NULL) {
        PyObject *number = PyErr_Occurred() ? NULL : PyLong_FromSsize_t(place);
        bool done = number != NULL && PyList_Append(rows->origins, origin) == 0;
        if (done && PyDict_SetItem(rows->places, origin, number) < 0) {
            /* The list keeps one that no row has: it does no harm. */
            done = false;
        }
        Py_XDECREF(number);
        if (!done) {
            return -1;
        }
    }
    /* The list holds an equal one as long as `last` points here. */
    rows->last = PyList_GetItem(rows->origins, place);
    rows->last_place = place;
    return place;
}

/* Copy one Datagram into a row; return 1, 0 if there is no room for it, -1 with an exception set. */
static int
add_datagram(Rows *rows, PyObject *datagram)
{
    int added = -1;
    char *payload;
    Py_ssize_t size;
    PyObject *data = PyObject_GetAttrString(datagram, "data");
    PyObject *origin = PyObject_GetAttrString(datagram, "_origin");
    PyObject *timestamp = PyObject_GetAttrString(datagram, "timestamp_ns");
    if (data != NULL && origin != NULL && timestamp != NULL && PyBytes_AsStringAndSize(data, &payload, &size) == 0) {
        long long nanoseconds = timestamp == Py_None ? 0 : PyLong_AsLongLong(timestamp);
        Py_ssize_t place = -1;
        if (nanoseconds == -1 && PyErr_Occurred()) {
            added = -1;
        } else if (!has_room(rows, size)) {
            added = 0;
        } else if ((place = place_of(rows, origin)) >= 0) {
            add_row(rows, payload, size, place, nanoseconds);
            added = 1;
        }
    }
    Py_XDECREF(data);
    Py_XDECREF(origin);
    Py_XDECREF(timestamp);
    return added;
}

/* take(backlog): move datagrams from the end of a list, as long as there is room. */
static PyObject *
rows_take(Rows *rows, PyObject *backlog)
{
    if (!PyList_Check(backlog)) {
        return PyErr_Format(PyExc_TypeError, "a list of datagrams is needed");
    }
    if (!is_free(rows)) {
        return NULL;
    }
    for (Py_ssize_t left = PyList_Size(backlog); left > 0; left--) {
        int added = add_datagram(rows, PyList_GetItem(backlog, left - 1));
        if (added < 0 || (added > 0 && PyList_SetSlice(backlog, left - 1, left, NULL) < 0)) {
            return NULL;
        }
        if (added == 0) {
            break;
        }
    }
    return shared(Py_None);
}

static PyObject *
rows_clear(Rows *rows, PyObject *Py_UNUSED(nothing))
{
    if (!is_free(rows)) {
        return NULL;
    }
    rows->count = rows->end = 0;
    rows->refused = false;
    rows->last = NULL;
    PyDict_Clear(rows->places);
    return PyList_SetSlice(rows->origins, 0, PyList_Size(rows->origins), NULL) < 0 ? NULL : shared(Py_None);
}

static PyObject *
rows_is_full(Rows *rows, void *Py_UNUSED(nothing))
{
    return PyBool_FromLong(rows->refused || rows->count >= rows->capacity);
}

static Py_ssize_t
rows_length(Rows *rows)
{
    return rows->count;
}

/* Hold the memory of an array with room for `capacity` items; return its beginning. */
static void *
held(PyObject *owner, Py_buffer *buffer, Py_ssize_t capacity, size_t item)
{
    if (PyObject_GetBuffer(owner, buffer, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    if ((uintptr_t)buffer->buf % item != 0 || buffer->len / (Py_ssize_t)item < capacity) {
        PyErr_SetString(PyExc_ValueError, "an array is too short, or at an odd address");
        return NULL;
    }
    return buffer->buf;
}

static PyObject *
rows_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(keywords))
{
    Py_ssize_t capacity;
    PyObject *memory, *offsets, *lengths, *timestamps, *sources;
    if (!PyArg_ParseTuple(arguments, "nOOOOO:Rows", &capacity, &memory, &offsets, &lengths, &timestamps, &sources)) {
        return NULL;
    }
    Rows *rows = (Rows *)PyType_GenericAlloc(type, 0);
    if (rows == NULL) {
        return NULL;
    }
    rows->capacity = capacity;
    rows->origins = PyList_New(0);
    rows->places = PyDict_New();
    if (rows->origins == NULL || rows->places == NULL || held(memory, &rows->memory, 0, 1) == NULL ||
        (rows->offsets = held(offsets, &rows->holds[0], capacity, sizeof(int64_t))) == NULL ||
        (rows->lengths = held(lengths, &rows->holds[1], capacity, sizeof(int32_t))) == NULL ||
        (rows->timestamps = held(timestamps, &rows->holds[2], capacity, sizeof(int64_t))) == NULL ||
        (rows->sources = held(sources, &rows->holds[3], capacity, sizeof(int32_t))) == NULL) {
        Py_CLEAR(rows);
    }
    return (PyObject *)rows;
}

static void
rows_dealloc(Rows *rows)
{
    PyTypeObject *type = Py_TYPE((PyObject *)rows);
    PyBuffer_Release(&rows->memory);
    for (size_t hold = 0; hold < sizeof rows->holds / sizeof *rows->holds; hold++) {
        PyBuffer_Release(&rows->holds[hold]);
    }
    Py_XDECREF(rows->origins);
    Py_XDECREF(rows->places);
    PyObject_Free(rows);
    Py_DECREF(type);
}

static PyMethodDef rows_methods[] = {
    {"take", (PyCFunction)rows_take, METH_O, NULL},
    {"clear", (PyCFunction)rows_clear, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef rows_properties[] = {
    {"is_full", (getter)rows_is_full, NULL, "Whether there is no room for another, or one was refused.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef rows_members[] = {
    {"capacity", T_PYSSIZET, offsetof(Rows, capacity), READONLY, "How many there is room for."},
    {"refused", T_BOOL, offsetof(Rows, refused), READONLY, "Whether one found no room since the last clear."},
    {"origins", T_OBJECT, offsetof(Rows, origins), READONLY, "The origins that `sources` counts."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot rows_slots[] = {
    {Py_tp_doc, "Rows(capacity, memory, offsets, lengths, timestamps, sources)\n--\n\n"
                "What a DatagramBuffer holds; see multicast_expert.core.datagram_buffer."},
    {Py_tp_new, rows_new},
    {Py_tp_dealloc, rows_dealloc},
    {Py_tp_methods, rows_methods},
    {Py_tp_members, rows_members},
    {Py_tp_getset, rows_properties},
    {Py_sq_length, rows_length},
    {0, NULL},
};

PyType_Spec rows_spec = {
    .name = "multicast_expert._fast.Rows",
    .basicsize = sizeof(Rows),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = rows_slots,
};
