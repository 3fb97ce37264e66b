/* Receiving in batches

An Intake turns what the sockets of one receiver hold into Datagrams. The system calls write into an arena: a block of
slots that is taken from the module's list while the interpreter lock is held, and given back in the same way, so that
any number of threads may receive at once. Nothing is allocated for a datagram but the objects that the user gets: its
sender, group and interface are looked up among those that came before. */

#include "sockets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#ifdef LINUX_CALLS
#include <pthread.h>
#include <sys/epoll.h>
#endif

enum { SLOTS = 64, PAYLOAD = 65535, CONTROL = 256, SPARE_ARENAS = 16, MOST_REPORTS = 16 };
/* Not a power of two: the beginnings of the payloads would compete for the same few lines of the processor's cache. */
enum { STRIDE = 65536 + 320 };

struct Arena {
    Arena *next;
    Slot headers[SLOTS];
    struct iovec pieces[SLOTS];
    struct sockaddr_in6 senders[SLOTS];
    union {
        struct cmsghdr alignment;
        unsigned char bytes[CONTROL];
    } control[SLOTS];
    unsigned char payloads[];
};

/* Ready the first slots for the next system call: the last one left the sizes of what it wrote in them. */
static void
ready_slots(Arena *arena, int count)
{
    for (int slot = 0; slot < count; slot++) {
        struct msghdr *header = &arena->headers[slot].msg_hdr;
        header->msg_namelen = sizeof arena->senders[slot];
        header->msg_controllen = CONTROL;
    }
}

static Arena *
take_arena(State *state)
{
    Arena *arena = state->arenas;
    if (arena != NULL) {
        state->arenas = arena->next;
        state->spare--;
        return arena;
    }
    /* Pages that no datagram reaches are never touched, and cost nothing. */
    arena = malloc(sizeof(Arena) + (size_t)SLOTS * STRIDE);
    if (arena == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memset(arena->headers, 0, sizeof arena->headers);
    for (size_t slot = 0; slot < SLOTS; slot++) {
        struct msghdr *header = &arena->headers[slot].msg_hdr;
        arena->pieces[slot].iov_base = arena->payloads + slot * STRIDE;
        arena->pieces[slot].iov_len = PAYLOAD;
        header->msg_iov = &arena->pieces[slot];
        header->msg_iovlen = 1;
        header->msg_name = &arena->senders[slot];
        header->msg_control = arena->control[slot].bytes;
    }
    ready_slots(arena, SLOTS);
    return arena;
}

static void
give_back(State *state, Arena *arena, int used)
{
    ready_slots(arena, used);
    if (state->spare >= SPARE_ARENAS) {
        free(arena);
        return;
    }
    arena->next = state->arenas;
    state->arenas = arena;
    state->spare++;
}

void
free_arenas(State *state)
{
    while (state->arenas != NULL) {
        Arena *arena = state->arenas;
        state->arenas = arena->next;
        free(arena);
    }
    state->spare = 0;
}

typedef struct {
    PyObject_HEAD
    State *state;
    PyObject *learn;
    PyObject *fields; /* NULL as soon as the kinds are known */
    Kinds kinds;
    int msg_trunc;
    Origins origins;
    /* How many datagrams a message holds, as seen last: more than one where the kernel coalesces. */
    Py_ssize_t run;
    unsigned long long datagrams;
    unsigned long long payload_bytes;
    unsigned long long truncated;
#ifdef LINUX_CALLS
    /* Held for reading while the sockets of an epoll instance are swept, without the interpreter lock. */
    pthread_rwlock_t descriptors;
#endif
} Intake;

/* What all datagrams of one message share; the objects are references of its own. */
typedef struct {
    PyObject *origin;
    PyObject *timestamp;
    const char *payload;
    Py_ssize_t size;
    Py_ssize_t segment_size;
    bool truncated;
} Message;

static void
release_message(Message *message)
{
    Py_CLEAR(message->origin);
    Py_CLEAR(message->timestamp);
}

/* Return whether that worked; in either case the message is to be released. */
static bool
read_message(Intake *self, Slot *received, Message *message)
{
    struct msghdr *header = &received->msg_hdr;
    Facts facts;
    read_facts(&self->kinds, header, &facts);
    message->payload = header->msg_iov->iov_base;
    message->size = received->msg_len < PAYLOAD ? received->msg_len : PAYLOAD;
    message->segment_size = facts.segment_size > 0 ? facts.segment_size : PAYLOAD;
    message->truncated = (header->msg_flags & self->msg_trunc) != 0;
    message->timestamp = facts.has_timestamp ? PyLong_FromLongLong(facts.timestamp) : shared(Py_None);
    message->origin = origin_of(&self->origins, &facts.source, self->learn);
    return message->origin != NULL && message->timestamp != NULL;
}

/* Return a Datagram of `kept` bytes at the offset. */
static PyObject *
new_datagram(Intake *self, const Message *message, Py_ssize_t offset, Py_ssize_t kept, bool truncated)
{
    PyObject *payload = PyBytes_FromStringAndSize(message->payload + offset, kept);
    PyTypeObject *type = self->state->datagram;
    Datagram *datagram = payload == NULL ? NULL : (Datagram *)PyType_GenericAlloc(type, 0);
    if (datagram == NULL) {
        Py_XDECREF(payload);
        return NULL;
    }
    datagram->data = payload;
    datagram->origin = shared(message->origin);
    datagram->timestamp = shared(message->timestamp);
    datagram->truncated = shared(truncated ? Py_True : Py_False);
    return (PyObject *)datagram;
}

/* Append the datagrams of the message from the offset on; return how many, or -1. */
static Py_ssize_t
append_segments(Intake *self, const Message *message, Py_ssize_t offset, PyObject *list)
{
    Py_ssize_t count = 0;
    do {
        Py_ssize_t left = message->size - offset;
        Py_ssize_t size = left < message->segment_size ? left : message->segment_size;
        bool truncated = message->truncated && size == left;
        PyObject *datagram = new_datagram(self, message, offset, size, truncated);
        if (datagram == NULL) {
            return -1;
        }
        int failed = PyList_Append(list, datagram);
        Py_DECREF(datagram);
        if (failed) {
            return -1;
        }
        count++;
        offset += size;
        self->datagrams++;
        self->payload_bytes += (unsigned long long)size;
        self->truncated += truncated;
    } while (offset < message->size);
    return count;
}

/* The methods of an Intake */

/* Opening a receiver does not wait for this. */
static bool
prepare(Intake *self)
{
    if (self->fields != NULL) {
        if (!read_kinds(self->fields, &self->kinds)) {
            return false;
        }
        Py_CLEAR(self->fields);
    }
    return true;
}

/* Return whether to try again after a failed system call; an exception is set unless the socket was just empty. */
static bool
try_again(void)
{
    if (errno == EINTR) {
        return PyErr_CheckSignals() == 0;
    }
    if (errno != EAGAIN && errno != EWOULDBLOCK) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return false;
}

/* Append what the slots hold; return how many datagrams, or -1. */
static Py_ssize_t
append_messages(Intake *self, Arena *arena, int count, PyObject *list)
{
    Py_ssize_t total = 0;
    Py_ssize_t longest = 1;
    for (int slot = 0; slot < count; slot++) {
        Message message;
        Py_ssize_t run = -1;
        if (read_message(self, &arena->headers[slot], &message)) {
            run = append_segments(self, &message, 0, list);
        }
        release_message(&message);
        if (run < 0) {
            return -1;
        }
        longest = run > longest ? run : longest;
        total += run;
    }
    self->run = longest;
    return total;
}

static bool
enough_arguments(Py_ssize_t given, Py_ssize_t wanted)
{
    if (given != wanted) {
        PyErr_Format(PyExc_TypeError, "%zd arguments were given instead of %zd", given, wanted);
    }
    return given == wanted;
}

/* Return how many messages will hold about so many datagrams. */
static int
slots_for(const Intake *self, Py_ssize_t room)
{
    Py_ssize_t messages = (room - 1) / self->run + 1;
    return messages < SLOTS ? (int)messages : SLOTS;
}

/* Where datagrams are taken from: one socket; or those that an epoll instance watches, beside an alarm. */
typedef struct {
    bool swept;
    int descriptor;
    int alarm;
} Supply;

/* Return how many slots hold something now; `more`: whether there may be more. */
static int
receive_some(const Supply *from, Arena *arena, int slots, bool *more, int *error)
{
    int received = receive_slots(from->descriptor, arena->headers, slots);
    *more = received == slots;
    *error = received >= 0 || errno == EAGAIN || errno == EWOULDBLOCK ? 0 : errno;
    return received < 0 ? 0 : received;
}

#ifdef LINUX_CALLS
/* As `receive_some`: a share of the slots for each socket that is reported. No socket is passed over: what is left in one
makes it come last in the next report. The interpreter lock is not held, so nobody but `settle` keeps a descriptor from
being closed meanwhile. */
static int
sweep(Intake *self, const Supply *from, Arena *arena, int slots, bool *more, int *error)
{
    struct epoll_event reports[MOST_REPORTS];
    int most = slots < MOST_REPORTS ? slots : MOST_REPORTS;
    int received = 0;
    *more = false;
    pthread_rwlock_rdlock(&self->descriptors);
    int found = epoll_wait(from->descriptor, reports, most, 0);
    if (found == 1 && most == 1 && reports[0].data.fd == from->alarm) {
        /* The next report begins with what stands behind it. */
        found = epoll_wait(from->descriptor, reports, most, 0);
    }
    *error = found < 0 ? errno : 0;
    for (int report = 0; report < found && *error == 0; report++) {
        int descriptor = reports[report].data.fd;
        int share = (slots - received) / (found - report);
        if (descriptor == from->alarm) {
            continue;
        }
        int came = receive_slots(descriptor, arena->headers + received, share);
        if (came >= 0) {
            received += came;
        } else if (errno != EAGAIN && errno != EWOULDBLOCK) {
            *error = errno;
        }
        *more |= came == share || found == most;
    }
    pthread_rwlock_unlock(&self->descriptors);
    return received;
}
#endif

/* Append datagrams to the list, `limit` and perhaps the rest of a coalesced run; return whether there may be more. */
static PyObject *
take(Intake *self, const Supply *from, PyObject *limit, PyObject *list)
{
    Py_ssize_t room = PyLong_AsSsize_t(limit);
    if (room == -1 && PyErr_Occurred()) {
        return NULL;
    }
    Arena *arena = take_arena(self->state);
    if (arena == NULL) {
        return NULL;
    }
    bool more = true;
    int received = 0;
    while (room > 0 && more) {
        int error, slots = slots_for(self, room);
        ready_slots(arena, received);
        Py_BEGIN_ALLOW_THREADS
#ifdef LINUX_CALLS
        received = from->swept ? sweep(self, from, arena, slots, &more, &error)
                               : receive_some(from, arena, slots, &more, &error);
#else
        received = receive_some(from, arena, slots, &more, &error);
#endif
        Py_END_ALLOW_THREADS
        Py_ssize_t appended = append_messages(self, arena, received, list);
        if (appended < 0) {
            break;
        }
        room -= appended;
        errno = error;
        if (error != 0 && !try_again()) {
            break;
        }
        /* What is reported and yet holds nothing may be reported for ever. */
        more = error != 0 || (more && received > 0);
    }
    give_back(self->state, arena, received);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(more);
}

PyDoc_STRVAR(batch_doc, "batch(handle, limit, datagrams)\n--\n\n"
                        "Append what the socket holds, `limit` datagrams and perhaps the rest of a coalesced run; return "
                        "whether it may hold more.");

static PyObject *
intake_batch(Intake *self, PyObject *const *arguments, Py_ssize_t count)
{
    Supply from = {.swept = false};
    if (!enough_arguments(count, 3) || !read_int(arguments[0], &from.descriptor) || !prepare(self)) {
        return NULL;
    }
    return take(self, &from, arguments[1], arguments[2]);
}

#ifdef LINUX_CALLS
PyDoc_STRVAR(sweep_doc, "sweep(epoll, alarm, limit, datagrams)\n--\n\n"
                        "As `batch`, for the sockets that an epoll instance watches, in fair turns. The alarm is watched too, "
                        "and is no such socket.");

static PyObject *
intake_sweep(Intake *self, PyObject *const *arguments, Py_ssize_t count)
{
    Supply from = {.swept = true};
    if (!enough_arguments(count, 4) || !read_int(arguments[0], &from.descriptor) ||
        !read_int(arguments[1], &from.alarm) || !prepare(self)) {
        return NULL;
    }
    return take(self, &from, arguments[2], arguments[3]);
}

PyDoc_STRVAR(settle_doc, "settle()\n--\n\n"
                         "Return when no sweep is under way that began before: to be called when an epoll instance no longer "
                         "watches a socket, and before that is closed.");

static PyObject *
intake_settle(Intake *self, PyObject *Py_UNUSED(nothing))
{
    Py_BEGIN_ALLOW_THREADS
    pthread_rwlock_wrlock(&self->descriptors);
    pthread_rwlock_unlock(&self->descriptors);
    Py_END_ALLOW_THREADS
    return shared(Py_None);
}
#endif

/* Return what becomes of the first datagram of a message: a Datagram, or a pair of payload and sender. */
static PyObject *
first_datagram(Intake *self, const Message *message, Py_ssize_t size, Py_ssize_t kept, bool pair)
{
    bool truncated = kept < size || (message->truncated && size == message->size);
    if (!pair) {
        return new_datagram(self, message, 0, kept, truncated);
    }
    PyObject *payload = PyBytes_FromStringAndSize(message->payload, kept);
    PyObject *result = payload == NULL ? NULL : PyTuple_New(2);
    if (result == NULL) {
        Py_XDECREF(payload);
        return NULL;
    }
    PyTuple_SetItem(result, 0, payload);
    PyTuple_SetItem(result, 1, shared(PyTuple_GetItem(message->origin, 0)));
    return result;
}

/* Hand over the first datagram of a message; the others that were coalesced with it go to `rest`. */
static PyObject *
hand_over(Intake *self, Slot *received, Py_ssize_t bufsize, bool peeking, PyObject *rest, bool pair)
{
    Message message;
    PyObject *result = NULL;
    if (read_message(self, received, &message)) {
        Py_ssize_t size = message.size < message.segment_size ? message.size : message.segment_size;
        Py_ssize_t kept = size < bufsize ? size : bufsize;
        result = first_datagram(self, &message, size, kept, pair);
        if (result != NULL && !peeking) {
            self->datagrams++;
            self->payload_bytes += (unsigned long long)kept;
            self->truncated += kept < size || (message.truncated && size == message.size);
            if (size < message.size) {
                PyObject *others = PyList_New(0);
                PyObject *done = NULL;
                if (others != NULL && append_segments(self, &message, size, others) >= 0) {
                    done = PyObject_CallMethod(rest, "extend", "O", others);
                }
                if (done == NULL) {
                    Py_CLEAR(result);
                }
                Py_XDECREF(others);
                Py_XDECREF(done);
            }
        }
    }
    release_message(&message);
    return result;
}

/* What a caller of recvmsg asks for. */
typedef struct {
    int descriptor;
    Py_ssize_t bufsize;
    int flags;
    PyObject *rest;
    bool pair;
} Request;

/* Return the result of a recvmsg into the arena, which goes back to the list. */
static PyObject *
finish_one(Intake *self, Arena *arena, ssize_t received, const Request *request)
{
    PyObject *result = NULL;
    if (received >= 0) {
        arena->headers[0].msg_len = (unsigned)received;
        bool peeking = (request->flags & MSG_PEEK) != 0;
        result = hand_over(self, &arena->headers[0], request->bufsize, peeking, request->rest, request->pair);
    } else if (!PyErr_Occurred()) {
        result = shared(Py_None);
    }
    give_back(self->state, arena, 1);
    return result;
}

static PyObject *
receive_one(Intake *self, const Request *request)
{
    Arena *arena = take_arena(self->state);
    if (arena == NULL) {
        return NULL;
    }
    ssize_t received;
    do {
        Py_BEGIN_ALLOW_THREADS
        received = recvmsg(request->descriptor, &arena->headers[0].msg_hdr, request->flags | MSG_DONTWAIT);
        Py_END_ALLOW_THREADS
    } while (received < 0 && try_again());
    return finish_one(self, arena, received, request);
}

static bool
read_request(Intake *self, PyObject *const *arguments, Py_ssize_t count, Py_ssize_t wanted, Request *request)
{
    if (!enough_arguments(count, wanted) || !read_int(arguments[0], &request->descriptor) ||
        !read_int(arguments[2], &request->flags) || !prepare(self)) {
        return false;
    }
    request->bufsize = PyLong_AsSsize_t(arguments[1]);
    if (request->bufsize < 0 && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "negative buffer size");
    }
    request->rest = arguments[3];
    return request->bufsize >= 0;
}

PyDoc_STRVAR(datagram_doc, "datagram(handle, bufsize, flags, rest)\n--\n\n"
                           "Return the next datagram, cut to `bufsize` bytes, or None; the rest of a coalesced run goes to "
                           "the end of `rest`.");

static PyObject *
intake_datagram(Intake *self, PyObject *const *arguments, Py_ssize_t count)
{
    Request request = {.pair = false};
    return read_request(self, arguments, count, 4, &request) ? receive_one(self, &request) : NULL;
}

PyDoc_STRVAR(payload_doc, "payload(handle, bufsize, flags, rest)\n--\n\n"
                          "As `datagram`, but return the payload and the sender only.");

static PyObject *
intake_payload(Intake *self, PyObject *const *arguments, Py_ssize_t count)
{
    Request request = {.pair = true};
    return read_request(self, arguments, count, 4, &request) ? receive_one(self, &request) : NULL;
}

PyDoc_STRVAR(expect_doc, "expect(handle, bufsize, flags, rest, pair, alarm, timeout)\n--\n\n"
                         "Wait until the socket or the alarm is readable, `timeout` seconds at most (negative: no limit); "
                         "then as `payload` where `pair` is true, else as `datagram`. None: nothing came, it is the alarm, "
                         "or a signal was handled.");

static PyObject *
intake_expect(Intake *self, PyObject *const *arguments, Py_ssize_t count)
{
    Request request;
    int alarm;
    if (!read_request(self, arguments, count, 7, &request) || !read_int(arguments[5], &alarm)) {
        return NULL;
    }
    request.pair = arguments[4] == Py_True;
    double timeout = PyFloat_AsDouble(arguments[6]);
    if (timeout == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    struct pollfd polled[2] = {{.fd = request.descriptor, .events = POLLIN}, {.fd = alarm, .events = POLLIN}};
    Arena *arena = take_arena(self->state);
    if (arena == NULL) {
        return NULL;
    }
    ssize_t received = -1;
    Py_BEGIN_ALLOW_THREADS
    if (wait_for(polled, 2, timeout) >= 0) {
        errno = EAGAIN;
        /* Whoever rings may have closed the socket. */
        if (polled[0].revents != 0 && polled[1].revents == 0) {
            received = recvmsg(request.descriptor, &arena->headers[0].msg_hdr, request.flags | MSG_DONTWAIT);
        }
    }
    Py_END_ALLOW_THREADS
    if (received < 0) {
        try_again();
    }
    return finish_one(self, arena, received, &request);
}

PyDoc_STRVAR(forget_places_doc, "forget_places()\n--\n\n"
                                "Ask anew for the texts of groups and interfaces.");

static PyObject *
intake_forget_places(Intake *self, PyObject *Py_UNUSED(nothing))
{
    forget_origins(&self->origins);
    return shared(Py_None);
}

static PyObject *
intake_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(keywords))
{
    PyObject *fields, *learn;
    int msg_trunc;
    if (!PyArg_ParseTuple(arguments, "OiO:Intake", &fields, &msg_trunc, &learn)) {
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Intake *self = (Intake *)allocate(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = PyType_GetModuleState(type);
    self->learn = shared(learn);
    self->msg_trunc = msg_trunc;
#ifdef LINUX_CALLS
    self->descriptors = (pthread_rwlock_t)PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
#endif
    self->run = 1;
    self->fields = shared(fields);
    return (PyObject *)self;
}

static int
intake_traverse(Intake *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->learn);
    Py_VISIT(self->fields);
    return 0;
}

static int
intake_clear(Intake *self)
{
    Py_CLEAR(self->learn);
    return 0;
}

static void
intake_dealloc(Intake *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    forget_origins(&self->origins);
#ifdef LINUX_CALLS
    pthread_rwlock_destroy(&self->descriptors);
#endif
    Py_CLEAR(self->learn);
    Py_CLEAR(self->fields);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

#define METHOD(function) (PyCFunction)(void (*)(void)) function

static PyMethodDef intake_methods[] = {
    {"batch", METHOD(intake_batch), METH_FASTCALL, batch_doc},
#ifdef LINUX_CALLS
    {"sweep", METHOD(intake_sweep), METH_FASTCALL, sweep_doc},
    {"settle", METHOD(intake_settle), METH_NOARGS, settle_doc},
#endif
    {"datagram", METHOD(intake_datagram), METH_FASTCALL, datagram_doc},
    {"payload", METHOD(intake_payload), METH_FASTCALL, payload_doc},
    {"expect", METHOD(intake_expect), METH_FASTCALL, expect_doc},
    {"forget_places", METHOD(intake_forget_places), METH_NOARGS, forget_places_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef intake_members[] = {
    {"datagrams", T_ULONGLONG, offsetof(Intake, datagrams), READONLY, "Datagrams received."},
    {"payload_bytes", T_ULONGLONG, offsetof(Intake, payload_bytes), READONLY, "Bytes of payload received."},
    {"truncated", T_ULONGLONG, offsetof(Intake, truncated), READONLY, "Datagrams of which the end is lost."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot intake_slots[] = {
    {Py_tp_doc, "Intake(fields, msg_trunc, learn)\n--\n\n"
                "What the sockets of one receiver hold, as Datagrams; see multicast_expert.engine.intake."},
    {Py_tp_new, intake_new},
    {Py_tp_traverse, intake_traverse},
    {Py_tp_clear, intake_clear},
    {Py_tp_dealloc, intake_dealloc},
    {Py_tp_methods, intake_methods},
    {Py_tp_members, intake_members},
    {0, NULL},
};

PyType_Spec intake_spec = {
    .name = "multicast_expert._fast.Intake",
    .basicsize = sizeof(Intake),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = intake_slots,
};
