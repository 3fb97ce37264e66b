/* What the files of the extension share. The limited API; it decides nothing: numbers and rules come in as arguments. */

#ifndef MULTICAST_EXPERT_FAST_H
#define MULTICAST_EXPERT_FAST_H

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <limits.h>
#include <stdbool.h>

/* The blocks of memory that system calls write into, while nobody uses them. */
typedef struct Arena Arena;

typedef struct {
    Arena *arenas;
    int spare;
} Receiving;

extern PyType_Spec intake_spec;
void free_arenas(Receiving *state);

extern const char send_doc[];
PyObject *send_payloads(PyObject *module, PyObject *arguments);

static inline PyObject *
shared(PyObject *object)
{
    Py_INCREF(object);
    return object;
}

static inline bool
read_int(PyObject *object, int *number)
{
    long value = PyLong_AsLong(object);
    if (value == -1 && PyErr_Occurred()) {
        return false;
    }
    if (value < INT_MIN || value > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "the number does not fit a C int");
        return false;
    }
    *number = (int)value;
    return true;
}

#endif
