/* The module multicast_expert._fast, which multicast_expert.engine uses. */

#include "fast.h"

#ifdef SYSTEM_CALLS

/* set_options(descriptor, options): set the options, tuples of name, level, number and value; return whether the kernel took
all. At the first that it refuses it stops. */
static PyObject *
set_options(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    int descriptor;
    PyObject *options;
    if (!PyArg_ParseTuple(arguments, "iO!:set_options", &descriptor, &PyTuple_Type, &options)) {
        return NULL;
    }
    for (Py_ssize_t place = 0; place < PyTuple_Size(options); place++) {
        PyObject *option = PyTuple_GetItem(options, place);
        int level, number;
        char *value;
        Py_ssize_t size;
        if (option == NULL || !PyTuple_Check(option) || PyTuple_Size(option) < 4) {
            PyErr_SetString(PyExc_TypeError, "an option is a tuple of name, level, number and value");
            return NULL;
        }
        if (!read_int(PyTuple_GetItem(option, 1), &level) || !read_int(PyTuple_GetItem(option, 2), &number) ||
            PyBytes_AsStringAndSize(PyTuple_GetItem(option, 3), &value, &size) < 0) {
            return NULL;
        }
        /* No option waits, so releasing the interpreter lock would cost more than it gains. */
        if (setsockopt(descriptor, level, number, value, (socklen_t)size) < 0) {
            return shared(Py_False);
        }
    }
    return shared(Py_True);
}

#endif

static PyMethodDef methods[] = {
    {"arrived", (PyCFunction)(void (*)(void))arrived, METH_FASTCALL, NULL},
    {"lay_datagrams", lay_datagrams, METH_VARARGS, NULL},
#ifdef SYSTEM_CALLS
    {"set_options", set_options, METH_VARARGS, NULL},
#endif
#ifdef LINUX_CALLS
    {"send", send_payloads, METH_VARARGS, NULL},
#endif
    {NULL, NULL, 0, NULL},
};

/* Return the new type; the module holds a reference to it, too. */
static PyTypeObject *
add_type(PyObject *module, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, type) < 0) {
        Py_CLEAR(type);
    }
    return type;
}

static int
execute(PyObject *module)
{
    State *state = PyModule_GetState(module);
    state->datagram = add_type(module, &datagram_spec);
    state->handed = add_type(module, &handed_spec);
    state->rows = add_type(module, &rows_spec);
    PyTypeObject *handout = add_type(module, &handout_spec);
    bool failed = state->datagram == NULL || state->handed == NULL || state->rows == NULL || handout == NULL;
    Py_XDECREF((PyObject *)handout);
#ifdef SYSTEM_CALLS
    PyTypeObject *intake = add_type(module, &intake_spec);
    PyTypeObject *shortcut = add_type(module, &shortcut_spec);
    failed = failed || intake == NULL || shortcut == NULL;
    Py_XDECREF((PyObject *)intake);
    Py_XDECREF((PyObject *)shortcut);
#endif
    return failed ? -1 : 0;
}

static int
traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->datagram);
    Py_VISIT(state->handed);
    Py_VISIT(state->rows);
    Py_VISIT(state->fields);
    return 0;
}

static void
release(void *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->datagram);
    Py_CLEAR(state->handed);
    Py_CLEAR(state->rows);
    Py_CLEAR(state->fields);
#ifdef SYSTEM_CALLS
    free_arenas(state);
#endif
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "multicast_expert._fast",
    .m_doc = "Batch receive and send; use it through multicast_expert.engine.",
    .m_size = sizeof(State),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_free = release,
};

PyMODINIT_FUNC
PyInit__fast(void)
{
    return PyModuleDef_Init(&definition);
}
