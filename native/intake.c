/* Receiving in batches

An Intake turns what the sockets of one receiver hold into Datagrams. The system calls write into an arena: a block of
slots that is taken from the module's list while the interpreter lock is held, and given back in the same way, so that
any number of threads may receive at once. Nothing is allocated for a datagram but the objects that the user gets: its
sender, group and interface are looked up among those that came before. */

#include "fast.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

enum { SLOTS = 64, PAYLOAD = 65535, CONTROL = 256, SPARE_ARENAS = 16 };
/* Not a power of two: the beginnings of the payloads would compete for the same few lines of the processor's cache. */
enum { STRIDE = 65536 + 320 };

struct Arena {
    Arena *next;
    struct mmsghdr headers[SLOTS];
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
take_arena(Receiving *state)
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
give_back(Receiving *state, Arena *arena, int used)
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
free_arenas(Receiving *state)
{
    while (state->arenas != NULL) {
        Arena *arena = state->arenas;
        state->arenas = arena->next;
        free(arena);
    }
    state->spare = 0;
}

/* What came before, by the kernel's bytes: a table in which each key has two places, and a new key takes one of them. Its
objects are text, numbers and tuples of them: letting go of one runs no other code. */

enum { KEY_WORDS = 4, VALUES = 3, FIRST_ENTRIES = 16, MOST_SENDERS = 1024, MOST_PLACES = 32768 };

typedef struct {
    uint64_t words[KEY_WORDS];
} Key;

typedef struct {
    Key key;
    PyObject *values[VALUES];
} Entry;

typedef struct {
    Entry *entries;
    size_t size;
    size_t most;
    size_t misses;
} Cache;

static void
empty_cache(Cache *cache)
{
    for (size_t entry = 0; entry < cache->size; entry++) {
        for (int value = 0; value < VALUES; value++) {
            Py_XDECREF(cache->entries[entry].values[value]);
        }
    }
    free(cache->entries);
    cache->entries = NULL;
    cache->size = cache->misses = 0;
}

/* Return the first of the two places; the other one is its neighbour. */
static size_t
place_in(const Cache *cache, const Key *key)
{
    uint64_t hash = 0;
    for (int word = 0; word < KEY_WORDS; word++) {
        hash = (hash ^ key->words[word]) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    }
    return hash & (cache->size - 1);
}

static Entry *
find(const Cache *cache, const Key *key)
{
    if (cache->size == 0) {
        return NULL;
    }
    size_t first = place_in(cache, key);
    for (size_t place = 0; place < 2; place++) {
        Entry *entry = &cache->entries[first ^ place];
        if (entry->values[0] != NULL && memcmp(&entry->key, key, sizeof *key) == 0) {
            return entry;
        }
    }
    return NULL;
}

/* Keep references of its own under the key, where there is memory for it. */
static void
remember(Cache *cache, const Key *key, PyObject *values[VALUES])
{
    if (2 * cache->misses >= cache->size && cache->size < cache->most) {
        size_t size = cache->size == 0 ? FIRST_ENTRIES : 2 * cache->size;
        Entry *entries = calloc(size, sizeof(Entry));
        if (entries != NULL) {
            empty_cache(cache);
            cache->entries = entries;
            cache->size = size;
        }
    }
    cache->misses++;
    if (cache->size == 0) {
        return;
    }
    size_t first = place_in(cache, key);
    size_t place = cache->entries[first].values[0] == NULL ? 0 : cache->entries[first ^ 1].values[0] == NULL ? 1 : 0;
    Entry *entry = &cache->entries[first ^ place];
    entry->key = *key;
    for (int value = 0; value < VALUES; value++) {
        PyObject *old = entry->values[value];
        Py_XINCREF(values[value]);
        entry->values[value] = values[value];
        Py_XDECREF(old);
    }
}

/* The facts of a message */

typedef enum { PKTINFO, PKTINFO6, HOP_LIMIT, TIMESPEC, SEGMENT_SIZE, FIELDS } Field;

static const char *const FIELD_NAMES[FIELDS] = {"pktinfo", "pktinfo6", "hop_limit", "timespec", "segment_size"};

enum { MOST_KINDS = 16, MEMBERS = 8 };

typedef struct {
    int level;
    int type;
    Field field;
} Kind;

typedef struct {
    PyObject_HEAD
    Receiving *state;
    PyTypeObject *datagram;
    allocfunc allocate; /* NULL where a Datagram has to be made by its class */
    PyObject *learn;
    PyObject *fields; /* NULL as soon as the kinds are known */
    Kind kinds[MOST_KINDS];
    int kind_count;
    int msg_trunc;
    Cache senders;
    Cache places;
    /* How many datagrams a message holds, as seen last: more than one where the kernel coalesces. */
    Py_ssize_t run;
    unsigned long long datagrams;
    unsigned long long payload_bytes;
    unsigned long long truncated;
} Intake;

/* What the control messages of a message say. */
typedef struct {
    unsigned char destination[16];
    uint8_t destination_size;
    bool has_index;
    bool has_hop_limit;
    bool has_timestamp;
    uint32_t index;
    int hop_limit;
    int segment_size;
    long long timestamp;
} Facts;

static void
read_field(Facts *facts, Field field, const unsigned char *data, size_t size)
{
    int number;
    int64_t time[2];
    switch (field) {
    case PKTINFO: /* struct in_pktinfo: index, local address, destination */
        if (size >= 12) {
            memcpy(&facts->index, data, 4);
            memcpy(facts->destination, data + 8, 4);
            facts->destination_size = 4;
            facts->has_index = true;
        }
        break;
    case PKTINFO6: /* struct in6_pktinfo: destination, index */
        if (size >= 20) {
            memcpy(facts->destination, data, 16);
            memcpy(&facts->index, data + 16, 4);
            facts->destination_size = 16;
            facts->has_index = true;
        }
        break;
    case HOP_LIMIT:
        if (size >= sizeof number) {
            memcpy(&number, data, sizeof number);
            facts->hop_limit = number;
            facts->has_hop_limit = true;
        } else if (size > 0) {
            facts->hop_limit = data[0];
            facts->has_hop_limit = true;
        }
        break;
    case TIMESPEC:
        if (size >= sizeof time) {
            memcpy(time, data, sizeof time);
            facts->timestamp = time[0] * 1000000000LL + time[1];
            facts->has_timestamp = true;
        }
        break;
    case SEGMENT_SIZE:
        if (size >= sizeof number) {
            memcpy(&number, data, sizeof number);
            facts->segment_size = number;
        }
        break;
    case FIELDS:
        break;
    }
}

/* Unknown control messages and those that the kernel had to cut are passed over. */
static void
read_facts(const Intake *self, struct msghdr *header, Facts *facts)
{
    const unsigned char *end = (unsigned char *)header->msg_control + header->msg_controllen;
    memset(facts, 0, sizeof *facts);
    for (struct cmsghdr *message = CMSG_FIRSTHDR(header); message != NULL; message = CMSG_NXTHDR(header, message)) {
        const unsigned char *data = CMSG_DATA(message);
        if (message->cmsg_len < CMSG_LEN(0) || data > end) {
            break;
        }
        size_t size = message->cmsg_len - CMSG_LEN(0);
        size_t there = (size_t)(end - data);
        for (int kind = 0; kind < self->kind_count; kind++) {
            if (self->kinds[kind].type == message->cmsg_type && self->kinds[kind].level == message->cmsg_level) {
                read_field(facts, self->kinds[kind].field, data, size < there ? size : there);
                break;
            }
        }
    }
}

/* Return the sender as `socket.recvfrom` gives it, a new reference. */
static PyObject *
sender_of(Intake *self, const struct msghdr *header)
{
    const struct sockaddr_in6 *address = header->msg_name;
    Key key = {{0}};
    size_t length = header->msg_namelen < sizeof *address ? header->msg_namelen : sizeof *address;
    memcpy(&key, address, length);
    Entry *entry = find(&self->senders, &key);
    if (entry != NULL) {
        return shared(entry->values[0]);
    }
    char text[INET6_ADDRSTRLEN];
    PyObject *sender;
    if (length >= sizeof(struct sockaddr_in) && address->sin6_family == AF_INET) {
        const struct sockaddr_in *address4 = header->msg_name;
        inet_ntop(AF_INET, &address4->sin_addr, text, sizeof text);
        sender = Py_BuildValue("si", text, (int)ntohs(address4->sin_port));
    } else if (length >= sizeof *address && address->sin6_family == AF_INET6) {
        inet_ntop(AF_INET6, &address->sin6_addr, text, sizeof text);
        sender = Py_BuildValue("siII", text, (int)ntohs(address->sin6_port), (unsigned)ntohl(address->sin6_flowinfo),
                               (unsigned)address->sin6_scope_id);
    } else {
        return shared(Py_None);
    }
    if (sender != NULL) {
        PyObject *values[VALUES] = {sender};
        remember(&self->senders, &key, values);
    }
    return sender;
}

/* Fill in the group's text, the index and the interface's name, new references; return whether that worked. */
static bool
place_of(Intake *self, const Facts *facts, PyObject *place[VALUES])
{
    Key key = {{0}};
    memcpy(key.words, facts->destination, sizeof facts->destination);
    key.words[2] = facts->index;
    key.words[3] = (uint64_t)facts->destination_size << 1 | facts->has_index;
    Entry *entry = find(&self->places, &key);
    if (entry != NULL) {
        for (int value = 0; value < VALUES; value++) {
            place[value] = shared(entry->values[value]);
        }
        return true;
    }
    const char *destination = facts->destination_size == 0 ? NULL : (const char *)facts->destination;
    PyObject *index = facts->has_index ? PyLong_FromUnsignedLong(facts->index) : shared(Py_None);
    PyObject *learned = NULL;
    if (index != NULL) {
        learned = PyObject_CallFunction(self->learn, "y#O", destination, (Py_ssize_t)facts->destination_size, index);
    }
    if (learned == NULL || !PyArg_ParseTuple(learned, "OO", &place[0], &place[2])) {
        Py_XDECREF(learned);
        Py_XDECREF(index);
        return false;
    }
    Py_INCREF(place[0]);
    Py_INCREF(place[2]);
    place[1] = index;
    Py_DECREF(learned);
    /* An interface without a name may get one. */
    if (place[2] != Py_None) {
        remember(&self->places, &key, place);
    }
    return true;
}

/* What all datagrams of one message share, as new references. */
typedef struct {
    PyObject *sender;
    PyObject *place[VALUES];
    PyObject *hop_limit;
    PyObject *timestamp;
    const char *payload;
    Py_ssize_t size;
    Py_ssize_t segment_size;
    bool truncated;
} Message;

static void
release_message(Message *message)
{
    Py_CLEAR(message->sender);
    for (int value = 0; value < VALUES; value++) {
        Py_CLEAR(message->place[value]);
    }
    Py_CLEAR(message->hop_limit);
    Py_CLEAR(message->timestamp);
}

/* Return whether that worked; in either case the message is to be released. */
static bool
read_message(Intake *self, struct mmsghdr *received, Message *message)
{
    struct msghdr *header = &received->msg_hdr;
    Facts facts;
    memset(message, 0, sizeof *message);
    read_facts(self, header, &facts);
    message->payload = header->msg_iov->iov_base;
    message->size = received->msg_len < PAYLOAD ? received->msg_len : PAYLOAD;
    message->segment_size = facts.segment_size > 0 ? facts.segment_size : PAYLOAD;
    message->truncated = (header->msg_flags & self->msg_trunc) != 0;
    message->sender = sender_of(self, header);
    if (message->sender == NULL || !place_of(self, &facts, message->place)) {
        return false;
    }
    message->hop_limit = facts.has_hop_limit ? PyLong_FromLong(facts.hop_limit) : shared(Py_None);
    message->timestamp = facts.has_timestamp ? PyLong_FromLongLong(facts.timestamp) : shared(Py_None);
    return message->hop_limit != NULL && message->timestamp != NULL;
}

/* Fill a new tuple; the payload's reference goes over to it. */
static void
fill(PyObject *tuple, const Message *message, PyObject *payload, bool truncated)
{
    PyTuple_SetItem(tuple, 0, payload);
    PyTuple_SetItem(tuple, 1, shared(message->sender));
    PyTuple_SetItem(tuple, 2, shared(message->place[0]));
    PyTuple_SetItem(tuple, 3, shared(message->place[1]));
    PyTuple_SetItem(tuple, 4, shared(message->place[2]));
    PyTuple_SetItem(tuple, 5, shared(message->hop_limit));
    PyTuple_SetItem(tuple, 6, shared(message->timestamp));
    PyTuple_SetItem(tuple, 7, shared(truncated ? Py_True : Py_False));
}

/* Return a Datagram of `kept` bytes at the offset. */
static PyObject *
new_datagram(Intake *self, const Message *message, Py_ssize_t offset, Py_ssize_t kept, bool truncated)
{
    PyObject *payload = PyBytes_FromStringAndSize(message->payload + offset, kept);
    if (payload == NULL) {
        return NULL;
    }
    PyObject *tuple = self->allocate == NULL ? PyTuple_New(MEMBERS) : self->allocate(self->datagram, MEMBERS);
    if (tuple == NULL) {
        Py_DECREF(payload);
        return NULL;
    }
    if (self->allocate != NULL) {
        /* Nothing in it can refer to it: the garbage collector need not look at it. */
        PyObject_GC_UnTrack(tuple);
        fill(tuple, message, payload, truncated);
        return tuple;
    }
    fill(tuple, message, payload, truncated);
    newfunc construct = (newfunc)PyType_GetSlot(&PyTuple_Type, Py_tp_new);
    PyObject *arguments = PyTuple_Pack(1, tuple);
    PyObject *datagram = arguments == NULL ? NULL : construct(self->datagram, arguments, NULL);
    Py_XDECREF(arguments);
    Py_DECREF(tuple);
    return datagram;
}

/* A Datagram adds nothing to a tuple, and may be made like one: allocated, and filled. Find out whether what comes out
is then as good as what its class makes: a tuple of Python 3.14 remembers its hash, and its class sees to that. */
static bool
choose_allocation(Intake *self)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(self->datagram, Py_tp_alloc);
    PyObject *made = allocate(self->datagram, MEMBERS);
    PyObject *model = PyTuple_New(MEMBERS);
    if (made != NULL && model != NULL) {
        for (Py_ssize_t member = 0; member < MEMBERS; member++) {
            PyTuple_SetItem(made, member, shared(Py_None));
            PyTuple_SetItem(model, member, shared(Py_None));
        }
        Py_hash_t hash = PyObject_Hash(made);
        bool same = hash == PyObject_Hash(model) && PyObject_RichCompareBool(made, model, Py_EQ) == 1;
        self->allocate = same ? allocate : NULL;
    }
    Py_XDECREF(made);
    Py_XDECREF(model);
    return !PyErr_Occurred();
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

/* Read the table of control messages: (level, type) to the name of a field. Opening a receiver does not wait for it. */
static bool
prepare(Intake *self)
{
    if (self->fields == NULL) {
        return true;
    }
    PyObject *items = PyMapping_Items(self->fields);
    Py_ssize_t count = items == NULL ? -1 : PyList_Size(items);
    self->kind_count = 0;
    for (Py_ssize_t item = 0; item < count; item++) {
        const char *name;
        Kind *kind = &self->kinds[self->kind_count];
        if (item == MOST_KINDS) {
            PyErr_SetString(PyExc_ValueError, "there are too many kinds of control messages");
            break;
        }
        if (!PyArg_ParseTuple(PyList_GetItem(items, item), "(ii)s", &kind->level, &kind->type, &name)) {
            break;
        }
        int field = 0;
        while (field < FIELDS && strcmp(FIELD_NAMES[field], name) != 0) {
            field++;
        }
        if (field == FIELDS) {
            PyErr_Format(PyExc_ValueError, "there is no field %s here", name);
            break;
        }
        kind->field = (Field)field;
        self->kind_count++;
    }
    Py_XDECREF(items);
    if (PyErr_Occurred() || !choose_allocation(self)) {
        return false;
    }
    Py_CLEAR(self->fields);
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

PyDoc_STRVAR(batch_doc, "batch(handle, limit, datagrams)\n--\n\n"
                        "Append what the socket holds, `limit` datagrams and perhaps the rest of a coalesced run; return "
                        "whether it may hold more.");

static PyObject *
intake_batch(Intake *self, PyObject *const *arguments, Py_ssize_t count)
{
    int descriptor;
    if (!enough_arguments(count, 3) || !read_int(arguments[0], &descriptor) || !prepare(self)) {
        return NULL;
    }
    Py_ssize_t room = PyLong_AsSsize_t(arguments[1]);
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
        Py_ssize_t messages = (room - 1) / self->run + 1;
        int wanted = messages < SLOTS ? (int)messages : SLOTS;
        ready_slots(arena, received);
        Py_BEGIN_ALLOW_THREADS
        received = recvmmsg(descriptor, arena->headers, (unsigned)wanted, MSG_DONTWAIT, NULL);
        Py_END_ALLOW_THREADS
        if (received < 0) {
            more = try_again();
            continue;
        }
        Py_ssize_t appended = append_messages(self, arena, received, arguments[2]);
        if (appended < 0) {
            break;
        }
        room -= appended;
        more = received == wanted;
    }
    give_back(self->state, arena, received);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(more);
}

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
    PyTuple_SetItem(result, 1, shared(message->sender));
    return result;
}

/* Hand over the first datagram of a message; the others that were coalesced with it go to `rest`. */
static PyObject *
hand_over(Intake *self, struct mmsghdr *received, Py_ssize_t bufsize, bool peeking, PyObject *rest, bool pair)
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
    struct timespec longest = {.tv_sec = (time_t)timeout};
    longest.tv_nsec = (long)((timeout - (double)longest.tv_sec) * 1e9);
    struct pollfd polled[2] = {{.fd = request.descriptor, .events = POLLIN}, {.fd = alarm, .events = POLLIN}};
    Arena *arena = take_arena(self->state);
    if (arena == NULL) {
        return NULL;
    }
    ssize_t received = -1;
    Py_BEGIN_ALLOW_THREADS
    if (ppoll(polled, 2, timeout < 0 ? NULL : &longest, NULL) >= 0) {
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
    empty_cache(&self->places);
    return shared(Py_None);
}

static PyObject *
intake_new(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(keywords))
{
    PyObject *datagram, *fields, *learn;
    int msg_trunc;
    if (!PyArg_ParseTuple(arguments, "OOiO", &datagram, &fields, &msg_trunc, &learn)) {
        return NULL;
    }
    if (!PyType_Check(datagram) || !PyType_IsSubtype((PyTypeObject *)datagram, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "a Datagram is a kind of tuple");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Intake *self = (Intake *)allocate(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = PyType_GetModuleState(type);
    self->datagram = (PyTypeObject *)shared(datagram);
    self->learn = shared(learn);
    self->msg_trunc = msg_trunc;
    self->senders.most = MOST_SENDERS;
    self->places.most = MOST_PLACES;
    self->run = 1;
    self->fields = shared(fields);
    return (PyObject *)self;
}

static int
intake_traverse(Intake *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->datagram);
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
    empty_cache(&self->senders);
    empty_cache(&self->places);
    Py_CLEAR(self->learn);
    Py_CLEAR(self->fields);
    Py_CLEAR(self->datagram);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

#define METHOD(function) (PyCFunction)(void (*)(void)) function

static PyMethodDef intake_methods[] = {
    {"batch", METHOD(intake_batch), METH_FASTCALL, batch_doc},
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
    {Py_tp_doc, "Intake(datagram, fields, msg_trunc, learn)\n--\n\n"
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
