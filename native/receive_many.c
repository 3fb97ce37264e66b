/* Receiving many datagrams at once: from one socket, or from all that an epoll instance watches. */

#include "intake.h"

#ifdef LINUX_CALLS
#include <sys/epoll.h>
#endif

enum { MOST_REPORTS = 16 };

/* Fill slots; return the error number, 0 when the socket is only empty; `more`: whether it may hold more. */
static int
receive_some(int descriptor, Arena *arena, int slots, bool *more)
{
    int received = receive_slots(descriptor, arena->headers, slots);
    *more = received == slots;
    arena->filled = received < 0 ? 0 : received;
    return received < 0 && errno != EAGAIN && errno != EWOULDBLOCK ? errno : 0;
}

#ifdef LINUX_CALLS
/* As `receive_some`, with a share of the slots for each socket that is reported. No socket is passed over: what is left in
one makes it come last in the next report. */
static int
receive_from_all(int epoll, int alarm, Arena *arena, int slots, bool *more)
{
    struct epoll_event reports[MOST_REPORTS];
    int most = slots < MOST_REPORTS ? slots : MOST_REPORTS;
    int error = 0;
    *more = false;
    int found = epoll_wait(epoll, reports, most, 0);
    if (found == 1 && most == 1 && reports[0].data.fd == alarm) {
        /* The next report begins with what stands behind the alarm. */
        found = epoll_wait(epoll, reports, most, 0);
    }
    if (found < 0) {
        return errno;
    }
    for (int report = 0; report < found && error == 0; report++) {
        int descriptor = reports[report].data.fd;
        int share = (slots - arena->filled) / (found - report);
        if (descriptor == alarm) {
            continue;
        }
        int received = receive_slots(descriptor, arena->headers + arena->filled, share);
        if (received >= 0) {
            arena->filled += received;
        } else if (errno != EAGAIN && errno != EWOULDBLOCK) {
            error = errno;
        }
        *more |= received == share || found == most;
    }
    return error;
}
#endif

/* Return how many messages will hold about so many datagrams. */
static int
slots_for(const Intake *self, Py_ssize_t room)
{
    Py_ssize_t messages = (room - 1) / self->run + 1;
    return messages < SLOTS ? (int)messages : SLOTS;
}

/* Receive into a fresh arena, or straight into rows, from all that an epoll instance watches if there is an alarm; return
the arena, or NULL with an exception set. */
static Arena *
fill_arena(Intake *self, int descriptor, const int *alarm, int slots, Rows *rows, bool *more, int *error)
{
    Arena *arena = take_arena(self->state);
    if (arena != NULL) {
        if (rows != NULL) {
            slots = aim(arena, rows, slots);
        }
        PyThreadState *thread = begin_call(self, arena);
#ifdef LINUX_CALLS
        *error = alarm != NULL ? receive_from_all(descriptor, *alarm, arena, slots, more)
                               : receive_some(descriptor, arena, slots, more);
#else
        (void)alarm;
        *error = receive_some(descriptor, arena, slots, more);
#endif
        end_call(arena, thread);
        /* A socket that is reported and yet holds nothing may be reported for ever. */
        *more = *error != 0 || (*more && arena->filled > 0);
    }
    return arena;
}

static PyObject *
receive_to(Intake *self, PyObject *handle, const int *alarm, PyObject *limit, PyObject *list, Rows *rows)
{
    int descriptor;
    bool more = true;
    unsigned long long settled = self->settled;
    Py_ssize_t room = PyLong_AsSsize_t(limit);
    if ((room == -1 && PyErr_Occurred()) || !read_int(handle, &descriptor)) {
        return NULL;
    }
    while (room > 0 && more && self->settled == settled) {
        int error = 0;
        Arena *arena = take_oldest(self);
        if (arena == NULL) {
            arena = fill_arena(self, descriptor, alarm, slots_for(self, room), rows, &more, &error);
            if (arena == NULL) {
                return NULL;
            }
        }
        Py_ssize_t appended = rows != NULL ? store_messages(self, arena, rows)
                                           : append_messages(self, arena, list, &self->counts);
        keep_rest(arena);
        give_back(self, arena);
        if (appended < 0 || failed(error)) {
            return NULL;
        }
        room -= appended;
        more = more && (rows == NULL || !rows->refused);
    }
    return PyBool_FromLong(more);
}

/* Datagrams go to the end of a list or of Rows. */
static PyObject *
receive_many(Intake *self, PyObject *handle, const int *alarm, PyObject *limit, PyObject *target)
{
    if (Py_TYPE(target) != self->state->rows) {
        return receive_to(self, handle, alarm, limit, target, NULL);
    }
    Rows *rows = (Rows *)target;
    if (!begin_rows(rows)) {
        return NULL;
    }
    PyObject *more = receive_to(self, handle, alarm, limit, NULL, rows);
    end_rows(rows);
    return more;
}

/* Return whether so many arguments were given, the last of them a list or Rows. */
static bool
has_target(const Intake *self, Py_ssize_t given, Py_ssize_t wanted, PyObject *const *arguments)
{
    bool rows = given == wanted && Py_TYPE(arguments[wanted - 1]) == self->state->rows;
    return rows || enough_arguments(given, wanted, arguments, wanted - 1);
}

/* batch(handle, limit, datagrams) */
PyObject *
intake_batch(Intake *self, PyObject *const *arguments, Py_ssize_t count)
{
    bool enough = has_target(self, count, 3, arguments);
    return enough ? receive_many(self, arguments[0], NULL, arguments[1], arguments[2]) : NULL;
}

#ifdef LINUX_CALLS
/* sweep(epoll, alarm, limit, datagrams) */
PyObject *
intake_sweep(Intake *self, PyObject *const *arguments, Py_ssize_t count)
{
    int alarm;
    bool enough = has_target(self, count, 4, arguments) && read_int(arguments[1], &alarm);
    return enough ? receive_many(self, arguments[0], &alarm, arguments[2], arguments[3]) : NULL;
}
#endif
