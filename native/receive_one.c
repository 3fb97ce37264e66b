/* Receiving one message, after waiting for it where the caller asks for that. */

#include "intake.h"

typedef struct {
    int descriptor;
    Py_ssize_t bufsize;
    int flags;
    PyObject *waiting;
    /* Only of `expect`. */
    bool waits;
    int alarm;
    double timeout;
} Request;

/* Append the datagrams newest first: all of them or, with an exception set, none. */
static bool
append_reversed(Intake *self, Arena *arena, Py_ssize_t most, PyObject *waiting, Counts *counts)
{
    PyObject *list = PyList_New(0);
    bool done = list != NULL && append_messages(self, arena, most, list, counts) >= 0 && PyList_Reverse(list) == 0;
    if (done) {
        Py_ssize_t end = PyList_Size(waiting);
        done = PyList_SetSlice(waiting, end, end, list) == 0;
    }
    Py_XDECREF(list);
    return done;
}

/* Append what the arena holds newest first, the oldest cut to `most` bytes, and count it unless it was only looked at;
return whether that worked. */
static bool
hand_over(Intake *self, Arena *arena, Py_ssize_t most, bool peeking, PyObject *waiting)
{
    int slot = arena->slot;
    Py_ssize_t offset = arena->offset;
    Counts counts = {0, 0, 0};
    Message message;
    bool done = read_message(self, arena, &message);
    if (done && slot + 1 == arena->filled && message.size - offset <= message.segment_size) {
        /* A single datagram needs no list of its own. */
        done = append_segments(self, arena, &message, most, waiting, &counts) == 1;
        arena->slot++;
    } else if (done) {
        done = append_reversed(self, arena, most, waiting, &counts);
    }
    release_message(&message);
    if (done && !peeking) {
        self->counts.datagrams += counts.datagrams;
        self->counts.payload_bytes += counts.payload_bytes;
        self->counts.truncated += counts.truncated;
        arena->offset = 0;
    } else {
        arena->slot = slot;
        arena->offset = offset;
    }
    return done;
}

/* Receive a message into the arena; return the error number. Closing a socket begins with the alarm, so nothing is
received while that rings. */
static int
receive_message(const Request *request, Arena *arena)
{
    struct pollfd polled[2] = {{.fd = request->descriptor, .events = POLLIN}, {.fd = request->alarm, .events = POLLIN}};
    if (request->waits) {
        if (wait_for(polled, 2, request->timeout) < 0) {
            return errno;
        }
        if (polled[0].revents == 0 || polled[1].revents != 0) {
            return EAGAIN;
        }
    }
    ssize_t received = recvmsg(request->descriptor, &arena->headers[0].msg_hdr, request->flags | MSG_DONTWAIT);
    if (received < 0) {
        return errno;
    }
    arena->headers[0].msg_len = (unsigned)received;
    arena->filled = 1;
    return 0;
}

static PyObject *
receive_one(Intake *self, const Request *request)
{
    bool peeking = (request->flags & MSG_PEEK) != 0;
    bool fresh = self->unread == NULL;
    bool done;
    Arena *arena = fresh ? take_arena(self->state) : take_unread(self);
    if (arena == NULL) {
        return NULL;
    }
    if (fresh) {
        PyThreadState *thread = begin_call(self, arena);
        int error = receive_message(request, arena);
        end_call(arena, thread);
        if (error != 0) {
            give_back(self, arena);
            return failed(error) ? NULL : PyBool_FromLong(false);
        }
    }
    do {
        Py_ssize_t most = self->unread == NULL ? request->bufsize : PAYLOAD;
        done = hand_over(self, arena, most, peeking, request->waiting);
        if (peeking && fresh) {
            /* The kernel still has it. */
            arena->slot = arena->filled;
        }
        give_back(self, arena);
        /* All that was kept goes at once: no socket becomes readable because of it. */
        arena = done && !peeking && !fresh ? take_unread(self) : NULL;
    } while (arena != NULL);
    return done ? PyBool_FromLong(true) : NULL;
}

static bool
read_request(PyObject *const *arguments, Py_ssize_t count, Py_ssize_t wanted, Request *request)
{
    if (!enough_arguments(count, wanted, arguments, 3) || !read_int(arguments[0], &request->descriptor) ||
        !read_int(arguments[2], &request->flags)) {
        return false;
    }
    request->bufsize = PyLong_AsSsize_t(arguments[1]);
    if (request->bufsize < 0 && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "negative buffer size");
    }
    request->waiting = arguments[3];
    return request->bufsize >= 0;
}

/* one(handle, bufsize, flags, waiting) */
PyObject *
intake_one(Intake *self, PyObject *const *arguments, Py_ssize_t count)
{
    Request request = {.waits = false};
    return read_request(arguments, count, 4, &request) ? receive_one(self, &request) : NULL;
}

/* expect(handle, bufsize, flags, waiting, alarm, timeout) */
PyObject *
intake_expect(Intake *self, PyObject *const *arguments, Py_ssize_t count)
{
    Request request = {.waits = true};
    if (!read_request(arguments, count, 6, &request) || !read_int(arguments[4], &request.alarm)) {
        return NULL;
    }
    double timeout = PyFloat_AsDouble(arguments[5]);
    /* No clock goes as far as some numbers do. */
    request.timeout = timeout >= 0 && timeout < 1e9 ? timeout : -1;
    return timeout == -1.0 && PyErr_Occurred() ? NULL : receive_one(self, &request);
}

/* `intake[handle, waiting]`: an operator, because CPython runs signal handlers after a call and may drop its result. A
single datagram is the result; a run goes to the list, newest first, and the result is None. */
PyObject *
intake_next(Intake *self, PyObject *key)
{
    Request request = {.bufsize = PAYLOAD};
    if (!PyTuple_Check(key) || PyTuple_Size(key) != 2 || !PyList_Check(PyTuple_GetItem(key, 1))) {
        return PyErr_Format(PyExc_TypeError, "a handle and a list are needed");
    }
    request.waiting = PyTuple_GetItem(key, 1);
    if (!read_int(PyTuple_GetItem(key, 0), &request.descriptor)) {
        return NULL;
    }
    if (self->unread != NULL) {
        PyObject *count = receive_one(self, &request);
        Py_XDECREF(count);
        return count == NULL ? NULL : shared(Py_None);
    }
    Arena *arena = take_arena(self->state);
    if (arena == NULL) {
        return NULL;
    }
    PyThreadState *thread = begin_call(self, arena);
    int error = receive_message(&request, arena);
    end_call(arena, thread);
    if (error != 0) {
        give_back(self, arena);
        return failed(error) ? NULL : shared(Py_None);
    }
    Message message;
    PyObject *datagram = NULL;
    bool run = false;
    if (read_message(self, arena, &message)) {
        run = message.size > message.segment_size;
        if (!run) {
            PyObject *payload = PyBytes_FromStringAndSize(message.payload, message.size);
            datagram = received_datagram(self->state->datagram, payload, message.origin, message.timestamp,
                                         message.truncated);
        }
        if (datagram != NULL) {
            arena->slot++;
            self->counts.datagrams++;
            self->counts.payload_bytes += (unsigned long long)message.size;
            self->counts.truncated += message.truncated;
        }
    }
    release_message(&message);
    if (run && hand_over(self, arena, PAYLOAD, false, request.waiting)) {
        datagram = shared(Py_None);
    }
    give_back(self, arena);
    return datagram;
}
