/* The type Intake, and how it turns what an arena holds into Datagrams. Nothing is allocated for a datagram but the objects
that the user gets: its sender, group and interface are looked up among those that came before. */

#include "intake.h"

#include <string.h>

void
release_message(Message *message)
{
    Py_CLEAR(message->origin);
    Py_CLEAR(message->timestamp);
}

/* As memcmp(3), which is quicker for what is longer than the few bytes that come with a message. */
static bool
same_bytes(const char *one, const char *other, size_t size)
{
    for (; size >= sizeof(uint64_t); size -= sizeof(uint64_t), one += sizeof(uint64_t), other += sizeof(uint64_t)) {
        uint64_t word, other_word;
        memcpy(&word, one, sizeof word);
        memcpy(&other_word, other, sizeof other_word);
        if (word != other_word) {
            return false;
        }
    }
    return size == 0 || memcmp(one, other, size) == 0;
}

/* Return whether the same came with two messages beside the payload, as it does most often. */
static bool
same_facts(const struct msghdr *one, const struct msghdr *other)
{
    return one->msg_controllen == other->msg_controllen && one->msg_namelen == other->msg_namelen &&
           same_bytes(one->msg_control, other->msg_control, one->msg_controllen) &&
           same_bytes(one->msg_name, other->msg_name, one->msg_namelen);
}

/* Read the arena's current message; return whether that worked. In either case the message is to be released. It begins
as zeros, or as the message before: then what is the same is not looked up again. */
bool
read_message(Intake *self, Arena *arena, Message *message)
{
    Slot *slot = &arena->headers[arena->slot];
    bool told = arena->told >= 0 && same_facts(&slot->msg_hdr, &arena->headers[arena->told].msg_hdr);
    arena->told = arena->slot;
    message->payload = slot->msg_hdr.msg_iov->iov_base;
    message->size = slot->msg_len < PAYLOAD ? slot->msg_len : PAYLOAD;
    message->truncated = (slot->msg_hdr.msg_flags & self->msg_trunc) != 0;
    if (told && message->origin != NULL) {
        return true;
    }
    release_message(message);
    const Facts *facts = &arena->facts;
    if (!told) {
        read_facts(&self->kinds, &slot->msg_hdr, &arena->facts);
    }
    message->segment_size = facts->segment_size > 0 ? facts->segment_size : PAYLOAD;
    message->has_timestamp = facts->has_timestamp;
    message->nanoseconds = facts->has_timestamp ? facts->timestamp : 0;
    message->origin = origin_of(&self->origins, &facts->source, self->learn);
    return message->origin != NULL;
}

/* Make the object that its Datagrams have for their time of arrival; return whether that worked. */
bool
stamp_message(Message *message)
{
    if (message->timestamp == NULL) {
        message->timestamp = message->has_timestamp ? PyLong_FromLongLong(message->nanoseconds) : shared(Py_None);
    }
    return message->timestamp != NULL;
}

static Py_ssize_t
next_segment(const Arena *arena, const Message *message)
{
    Py_ssize_t left = message->size - arena->offset;
    return left < message->segment_size ? left : message->segment_size;
}

/* Append the rest of the arena's current message; return how many datagrams, or -1. The arena's offset stays behind the last
datagram that the list holds. */
Py_ssize_t
append_segments(Intake *self, Arena *arena, Message *message, PyObject *list, Counts *counts)
{
    Py_ssize_t appended = 0;
    if (!stamp_message(message)) {
        return -1;
    }
    do {
        Py_ssize_t left = message->size - arena->offset;
        Py_ssize_t size = next_segment(arena, message);
        bool truncated = message->truncated && size == left;
        PyObject *payload = PyBytes_FromStringAndSize(message->payload + arena->offset, size);
        PyObject *datagram =
            received_datagram(self->state->datagram, payload, message->origin, message->timestamp, truncated);
        bool done = datagram != NULL && PyList_Append(list, datagram) == 0;
        Py_XDECREF(datagram);
        if (!done) {
            return -1;
        }
        appended++;
        arena->offset += size;
        counts->datagrams++;
        counts->payload_bytes += (unsigned long long)size;
        counts->truncated += truncated;
    } while (arena->offset < message->size);
    return appended;
}

/* Append what the arena holds; return how many datagrams, or -1. */
Py_ssize_t
append_messages(Intake *self, Arena *arena, PyObject *list, Counts *counts)
{
    Py_ssize_t total = 0, longest = 1, run = 0;
    Message message = {0};
    for (; arena->slot < arena->filled; arena->slot++) {
        run = read_message(self, arena, &message) ? append_segments(self, arena, &message, list, counts) : -1;
        if (run < 0) {
            break;
        }
        arena->offset = 0;
        longest = run > longest ? run : longest;
        total += run;
    }
    release_message(&message);
    if (run < 0) {
        return -1;
    }
    self->run = longest;
    return total;
}

/* Store the rest of the arena's current message, as far as there is room; return how many datagrams, or -1. */
static Py_ssize_t
store_segments(Intake *self, Arena *arena, const Message *message, Rows *rows)
{
    Py_ssize_t stored = 0, place = -1;
    do {
        Py_ssize_t size = next_segment(arena, message);
        if (!has_room(rows, size)) {
            return stored;
        }
        if (place < 0 && (place = place_of(rows, message->origin)) < 0) {
            return -1;
        }
        add_row(rows, message->payload + arena->offset, size, place, message->nanoseconds);
        stored++;
        arena->offset += size;
        self->counts.datagrams++;
        self->counts.payload_bytes += (unsigned long long)size;
        self->counts.truncated += message->truncated && arena->offset == message->size;
    } while (arena->offset < message->size);
    arena->slot++;
    arena->offset = 0;
    return stored;
}

/* Store the messages behind the one that was read last which are like it, each in its place in the rows already, as most
are; return how many. */
static int
store_alike(Arena *arena, Rows *rows, Counts *counts)
{
    const Slot *model = &arena->headers[arena->told], *next = &arena->headers[arena->slot];
    const struct iovec *place = arena->pieces[arena->slot];
    const Py_ssize_t row = rows->count, end = rows->end, size = model->msg_len;
    if (arena->slot == arena->filled || arena->facts.segment_size != 0 ||
        place->iov_base != (char *)rows->memory.buf + end) {
        return 0;
    }
    const Py_ssize_t room = rows->capacity - row, left = arena->filled - arena->slot, most = room < left ? room : left;
    int64_t *offsets = rows->offsets + row, *timestamps = rows->timestamps + row;
    int32_t *lengths = rows->lengths + row, *sources = rows->sources + row;
    const int64_t timestamp = arena->facts.timestamp;
    const int32_t source = (int32_t)rows->last_place;
    int stored = 0;
    for (; stored < most; stored++, next++) {
        if (next->msg_len != model->msg_len || !same_facts(&next->msg_hdr, &model->msg_hdr)) {
            break;
        }
        offsets[stored] = end + stored * size;
        lengths[stored] = (int32_t)size;
        timestamps[stored] = timestamp;
        sources[stored] = source;
    }
    arena->slot += stored;
    rows->count += stored;
    rows->end += stored * size;
    counts->datagrams += (unsigned long long)stored;
    counts->payload_bytes += (unsigned long long)(stored * size);
    return stored;
}

/* As `append_messages`, for rows. What finds no room stays in the arena. */
Py_ssize_t
store_messages(Intake *self, Arena *arena, Rows *rows)
{
    Py_ssize_t total = 0, longest = 0, most = 1, run = 0;
    Message message = {0};
    while (arena->slot < arena->filled && !rows->refused) {
        if (arena->headers[arena->slot].msg_len > arena->pieces[arena->slot][0].iov_len) {
            /* It went on at home, and would be written over those behind it. */
            keep_rest(arena);
        }
        run = read_message(self, arena, &message) ? store_segments(self, arena, &message, rows) : -1;
        if (run < 0) {
            break;
        }
        longest = message.size > longest ? message.size : longest;
        most = run > most ? run : most;
        total += run + store_alike(arena, rows, &self->counts);
    }
    release_message(&message);
    expect_size(rows, longest);
    if (run < 0) {
        return -1;
    }
    self->run = most;
    return total;
}

/* Return whether so many arguments were given, with a list at this place. */
bool
enough_arguments(Py_ssize_t given, Py_ssize_t wanted, PyObject *const *arguments, Py_ssize_t list)
{
    if (given != wanted) {
        PyErr_Format(PyExc_TypeError, "%zd arguments were given instead of %zd", given, wanted);
        return false;
    }
    if (!PyList_Check(arguments[list])) {
        PyErr_SetString(PyExc_TypeError, "datagrams go into a list");
        return false;
    }
    return true;
}

/* Return whether a system call failed, with an exception set. It did not if the socket is only empty, or if a signal came
and its handler in Python raised nothing. */
bool
failed(int error)
{
    if (error == EINTR) {
        return PyErr_CheckSignals() < 0;
    }
    if (error == 0 || error == EAGAIN || error == EWOULDBLOCK) {
        return false;
    }
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    return true;
}

static PyObject *
intake_forget_places(Intake *self, PyObject *Py_UNUSED(nothing))
{
    forget_origins(&self->origins);
    return shared(Py_None);
}

static PyObject *
intake_unread(Intake *self, void *Py_UNUSED(nothing))
{
    return PyBool_FromLong(self->unread != NULL);
}

static PyObject *
intake_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(keywords))
{
    PyObject *fields, *learn;
    int msg_trunc;
    if (!PyArg_ParseTuple(arguments, "OiO:Intake", &fields, &msg_trunc, &learn)) {
        return NULL;
    }
    Intake *self = (Intake *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = PyType_GetModuleState(type);
    self->learn = shared(learn);
    self->msg_trunc = msg_trunc;
    self->calls.older = self->calls.newer = &self->calls;
    self->run = 1;
    State *state = self->state;
    if (fields != state->fields) {
        Py_CLEAR(state->fields);
        if (!read_kinds(fields, &state->kinds)) {
            Py_CLEAR(self);
            return NULL;
        }
        state->fields = shared(fields);
    }
    self->kinds = state->kinds;
    return (PyObject *)self;
}

/* The collector breaks a cycle elsewhere: what leads from `learn` back to an Intake can be changed, as the Intake cannot. */
static int
intake_traverse(Intake *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->learn);
    return 0;
}

static void
intake_dealloc(Intake *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    forget_origins(&self->origins);
    drop_unread(self);
    Py_XDECREF(self->learn);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

#define METHOD(function) (PyCFunction)(void (*)(void)) function

/* multicast_expert.engine.intake.Intake describes them. */
static PyMethodDef intake_methods[] = {
    {"batch", METHOD(intake_batch), METH_FASTCALL, NULL},
    {"one", METHOD(intake_one), METH_FASTCALL, NULL},
    {"expect", METHOD(intake_expect), METH_FASTCALL, NULL},
#ifdef LINUX_CALLS
    {"expect_any", METHOD(intake_expect_any), METH_FASTCALL, NULL},
    {"sweep", METHOD(intake_sweep), METH_FASTCALL, NULL},
#endif
    {"forget_places", METHOD(intake_forget_places), METH_NOARGS, NULL},
    {"settle", METHOD(intake_settle), METH_O, NULL},
    {"abandon", METHOD(intake_abandon), METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef intake_properties[] = {
    {"unread", (getter)intake_unread, NULL, "Whether the next call hands over something that a failed one kept.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef intake_members[] = {
    {"datagrams", T_ULONGLONG, offsetof(Intake, counts.datagrams), READONLY, "Datagrams received."},
    {"payload_bytes", T_ULONGLONG, offsetof(Intake, counts.payload_bytes), READONLY, "Bytes of payload received."},
    {"truncated", T_ULONGLONG, offsetof(Intake, counts.truncated), READONLY, "Datagrams that lost their end."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot intake_slots[] = {
    {Py_tp_doc, "Intake(fields, msg_trunc, learn)\n--\n\n"
                "Receives what the sockets of one receiver hold, as Datagrams; see multicast_expert.engine.intake."},
    {Py_tp_new, intake_new},
    {Py_tp_traverse, intake_traverse},
    {Py_tp_dealloc, intake_dealloc},
    {Py_tp_methods, intake_methods},
    {Py_tp_getset, intake_properties},
    {Py_tp_members, intake_members},
    {Py_mp_subscript, intake_next},
    {0, NULL},
};

PyType_Spec intake_spec = {
    .name = "multicast_expert._fast.Intake",
    .basicsize = sizeof(Intake),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = intake_slots,
};
