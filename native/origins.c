/* Origins: the tuples of what came before, by the kernel's bytes. In this table each source has two places, and a new source
takes one of them. An origin is a tuple of text and numbers, so releasing one runs no other code. */

#include "fast.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_SIZE = 16, LARGEST_SIZE = 32768, WORDS = sizeof(Source) / sizeof(uint64_t) };

/* A source has no room between its members: its bytes would differ by chance. */
_Static_assert(sizeof(Source) == WORDS * sizeof(uint64_t), "a source is compared as bytes");
_Static_assert(offsetof(Source, known) == sizeof(Source) - 1, "a source is compared as bytes");

void
forget_origins(Origins *origins)
{
    for (size_t entry = 0; entry < origins->size; entry++) {
        Py_XDECREF(origins->entries[entry].origin);
    }
    free(origins->entries);
    *origins = (Origins){.forgotten = origins->forgotten + 1};
}

/* Return the first of the two places of a source; the other one is its neighbour. */
static size_t
place_in(const Origins *origins, const Source *source)
{
    uint64_t words[WORDS], hash = 0;
    memcpy(words, source, sizeof words);
    for (size_t word = 0; word < WORDS; word++) {
        hash = (hash ^ words[word]) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    }
    return hash & (origins->size - 1);
}

static PyObject *
find(Origins *origins, const Source *source)
{
    if (origins->last != NULL && memcmp(&origins->last->source, source, sizeof *source) == 0) {
        return origins->last->origin;
    }
    if (origins->size == 0) {
        return NULL;
    }
    size_t first = place_in(origins, source);
    for (size_t place = 0; place < 2; place++) {
        KnownOrigin *entry = &origins->entries[first ^ place];
        if (entry->origin != NULL && memcmp(&entry->source, source, sizeof *source) == 0) {
            origins->last = entry;
            return entry->origin;
        }
    }
    return NULL;
}

/* Keep a reference of its own, if there is memory for it. */
static void
remember(Origins *origins, const Source *source, PyObject *origin)
{
    if (2 * origins->misses >= origins->size && origins->size < LARGEST_SIZE) {
        size_t size = origins->size == 0 ? FIRST_SIZE : 2 * origins->size;
        KnownOrigin *entries = calloc(size, sizeof *entries);
        if (entries != NULL) {
            forget_origins(origins);
            origins->entries = entries;
            origins->size = size;
        }
    }
    origins->misses++;
    if (origins->size == 0) {
        return;
    }
    size_t place = place_in(origins, source);
    if (origins->entries[place].origin != NULL && origins->entries[place ^ 1].origin == NULL) {
        place ^= 1;
    }
    KnownOrigin *entry = &origins->entries[place];
    PyObject *old = entry->origin;
    entry->source = *source;
    entry->origin = shared(origin);
    Py_XDECREF(old);
}

/* Return the sender as `socket.recvfrom` gives it, a new reference. */
static PyObject *
sender_of(const Source *source)
{
    char text[INET6_ADDRSTRLEN];
    const struct sockaddr_in6 *address = &source->sender;
    if (source->sender_size >= sizeof(struct sockaddr_in) && address->sin6_family == AF_INET) {
        struct sockaddr_in address4;
        memcpy(&address4, address, sizeof address4);
        inet_ntop(AF_INET, &address4.sin_addr, text, sizeof text);
        return Py_BuildValue("si", text, (int)ntohs(address4.sin_port));
    }
    if (source->sender_size >= sizeof *address && address->sin6_family == AF_INET6) {
        inet_ntop(AF_INET6, &address->sin6_addr, text, sizeof text);
        return Py_BuildValue("siII", text, (int)ntohs(address->sin6_port), (unsigned)ntohl(address->sin6_flowinfo),
                             (unsigned)address->sin6_scope_id);
    }
    return shared(Py_None);
}

/* Return the tuple of a source, a new reference; `learn` returns the texts of its group, destination and interface. */
PyObject *
origin_of(Origins *origins, const Source *source, PyObject *learn)
{
    PyObject *origin = find(origins, source);
    if (origin != NULL) {
        return shared(origin);
    }
    const char *destination = source->destination_size == 0 ? NULL : (const char *)source->destination;
    PyObject *group, *text, *name, *learned = NULL;
    size_t forgotten = origins->forgotten;
    PyObject *sender = sender_of(source);
    PyObject *index = source->known & HAS_INDEX ? PyLong_FromUnsignedLong(source->index) : shared(Py_None);
    PyObject *hop_limit = source->known & HAS_HOP_LIMIT ? PyLong_FromLong(source->hop_limit) : shared(Py_None);
    PyObject *class = source->known & HAS_TRAFFIC_CLASS ? PyLong_FromLong(source->traffic_class) : shared(Py_None);
    if (sender != NULL && index != NULL && hop_limit != NULL && class != NULL) {
        learned = PyObject_CallFunction(learn, "y#O", destination, (Py_ssize_t)source->destination_size, index);
    }
    if (learned != NULL && PyArg_ParseTuple(learned, "OOO", &group, &text, &name)) {
        origin = PyTuple_Pack(ORIGIN_PARTS, sender, group, index, name, hop_limit, text, class);
        /* An interface without a name may get one, and a name may have changed while it was learned. */
        if (origin != NULL && name != Py_None && forgotten == origins->forgotten) {
            remember(origins, source, origin);
        }
    }
    Py_XDECREF(learned);
    Py_XDECREF(sender);
    Py_XDECREF(index);
    Py_XDECREF(hop_limit);
    Py_XDECREF(class);
    return origin;
}
