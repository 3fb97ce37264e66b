/* Receiving one message, after waiting for it where the caller asks for that. */

#include "intake.h"

#ifdef LINUX_CALLS
#include <sys/epoll.h>
#endif

typedef struct {
    int descriptor;
    PyObject *waiting;
    /* Whether to wait: for the socket, or for one that the epoll instance `descriptor` reports. */
    bool waits;
    bool is_epoll;
    int alarm;
    double timeout;
} Request;

/* Append the datagrams newest first: all of them or, with an exception set, none. */
static bool
append_reversed(Intake *self, Arena *arena, PyObject *waiting, Counts *counts)
{
    PyObject *list = PyList_New(0);
    bool done = list != NULL && append_messages(self, arena, list, counts) >= 0 && PyList_Reverse(list) == 0;
    if (done) {
        Py_ssize_t end = PyList_Size(waiting);
        done = PyList_SetSlice(waiting, end, end, list) == 0;
    }
    Py_XDECREF(list);
    return done;
}

/* Append what the arena holds newest first, and count it; return whether that worked. */
static bool
hand_over(Intake *self, Arena *arena, PyObject *waiting)
{
    int slot = arena->slot;
    Py_ssize_t offset = arena->offset;
    Counts counts = {0, 0, 0};
    Message message = {0};
    bool done = read_message(self, arena, &message);
    if (done && slot + 1 == arena->filled && message.size - offset <= message.segment_size) {
        /* A single datagram needs no list of its own. */
        done = append_segments(self, arena, &message, waiting, &counts) == 1;
        arena->slot++;
    } else if (done) {
        done = append_reversed(self, arena, waiting, &counts);
    }
    release_message(&message);
    if (done) {
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

#ifdef LINUX_CALLS
/* Wait until an epoll instance reports one of its sockets; return it, or -1 with `errno`. The sockets take turns: the one
that was reported comes last in the next report. */
static int
reported_socket(const Request *request)
{
    struct epoll_event report;
    double milliseconds = request->timeout * 1e3 + 0.999;
    int longest = request->timeout < 0 ? -1 : milliseconds < INT_MAX ? (int)milliseconds : INT_MAX;
    int found = epoll_wait(request->descriptor, &report, 1, longest);
    if (found > 0 && report.data.fd != request->alarm) {
        return report.data.fd;
    }
    errno = found < 0 ? errno : EAGAIN;
    return -1;
}
#endif

/* Wait until the socket is readable; return it, or -1 with `errno`. Closing a socket begins with the alarm, so nothing is
received while that rings. */
static int
readable_socket(const Request *request)
{
    struct pollfd polled[2] = {{.fd = request->descriptor, .events = POLLIN}, {.fd = request->alarm, .events = POLLIN}};
    int found = wait_for(polled, 2, request->timeout);
    if (found > 0 && polled[0].revents != 0 && polled[1].revents == 0) {
        return request->descriptor;
    }
    errno = found < 0 ? errno : EAGAIN;
    return -1;
}

/* Receive a message into the arena; return the error number. */
static int
receive_message(const Request *request, Arena *arena)
{
    int descriptor = request->descriptor;
    if (request->waits) {
#ifdef LINUX_CALLS
        descriptor = request->is_epoll ? reported_socket(request) : readable_socket(request);
#else
        descriptor = readable_socket(request);
#endif
        if (descriptor < 0) {
            return errno;
        }
    }
    ssize_t received = recvmsg(descriptor, &arena->headers[0].msg_hdr, MSG_DONTWAIT);
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
        done = hand_over(self, arena, request->waiting);
        give_back(self, arena);
        /* All that was kept goes at once: no socket becomes readable because of it. */
        arena = done && !fresh ? take_unread(self) : NULL;
    } while (arena != NULL);
    return done ? PyBool_FromLong(true) : NULL;
}

/* one(handle, waiting) */
PyObject *
intake_one(Intake *self, PyObject *const *arguments, Py_ssize_t count)
{
    Request request = {.waits = false};
    if (!enough_arguments(count, 2, arguments, 1) || !read_int(arguments[0], &request.descriptor)) {
        return NULL;
    }
    request.waiting = arguments[1];
    return receive_one(self, &request);
}

static PyObject *
wait_and_receive(Intake *self, PyObject *const *arguments, Py_ssize_t count, bool is_epoll)
{
    Request request = {.waits = true, .is_epoll = is_epoll};
    if (!enough_arguments(count, 4, arguments, 1) || !read_int(arguments[0], &request.descriptor) ||
        !read_int(arguments[2], &request.alarm)) {
        return NULL;
    }
    request.waiting = arguments[1];
    double timeout = PyFloat_AsDouble(arguments[3]);
    /* No clock goes as far as some numbers do. */
    request.timeout = timeout >= 0 && timeout < 1e9 ? timeout : -1;
    return timeout == -1.0 && PyErr_Occurred() ? NULL : receive_one(self, &request);
}

/* expect(handle, waiting, alarm, timeout) */
PyObject *
intake_expect(Intake *self, PyObject *const *arguments, Py_ssize_t count)
{
    return wait_and_receive(self, arguments, count, false);
}

#ifdef LINUX_CALLS
/* expect_any(epoll, waiting, alarm, timeout) */
PyObject *
intake_expect_any(Intake *self, PyObject *const *arguments, Py_ssize_t count)
{
    return wait_and_receive(self, arguments, count, true);
}
#endif

/* `intake[handle, waiting]`: an operator, because CPython runs signal handlers after a call and may drop its result. A
single datagram is the result; a run goes to the list, newest first, and the result is None. */
PyObject *
intake_next(Intake *self, PyObject *key)
{
    Request request = {.waits = false};
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
    Message message = {0};
    PyObject *datagram = NULL;
    bool run = false;
    if (read_message(self, arena, &message)) {
        run = message.size > message.segment_size;
        if (!run && stamp_message(&message)) {
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
    if (run && hand_over(self, arena, request.waiting)) {
        datagram = shared(Py_None);
    }
    give_back(self, arena);
    return datagram;
}
