/* The module multicast_expert._fast: use it through multicast_expert.engine.fast. */

#include "fast.h"

#include <errno.h>
#include <sys/socket.h>

PyDoc_STRVAR(set_options_doc, "set_options(descriptor, options, first)\n--\n\n"
                              "Set the options (tuples with level, number and value behind the name) from `first` on; return "
                              "how many of all are set and the error number of the next one, 0 when there is none.");

static PyObject *
set_options(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    int descriptor, error = 0;
    PyObject *options;
    Py_ssize_t next;
    if (!PyArg_ParseTuple(arguments, "iO!n:set_options", &descriptor, &PyTuple_Type, &options, &next)) {
        return NULL;
    }
    for (; next < PyTuple_Size(options); next++) {
        PyObject *option = PyTuple_GetItem(options, next);
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
        /* None of them waits: it is not worth while to release the interpreter lock. */
        if (setsockopt(descriptor, level, number, value, (socklen_t)size) < 0) {
            error = errno;
            break;
        }
    }
    return Py_BuildValue("ni", next, error);
}

static PyMethodDef methods[] = {
    {"set_options", set_options, METH_VARARGS, set_options_doc},
    {"send", send_payloads, METH_VARARGS, send_doc},
    {NULL, NULL, 0, NULL},
};

static int
execute(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &intake_spec, NULL);
    int result = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return result;
}

static void
release(void *module)
{
    Receiving *state = PyModule_GetState(module);
    if (state != NULL) {
        free_arenas(state);
    }
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "multicast_expert._fast",
    .m_doc = "Batch receive and send for Linux; use it through multicast_expert.engine.fast.",
    .m_size = sizeof(Receiving),
    .m_methods = methods,
    .m_slots = slots,
    .m_free = release,
};

PyMODINIT_FUNC
PyInit__fast(void)
{
    return PyModuleDef_Init(&definition);
}
