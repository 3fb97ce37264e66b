/* Reads the control messages of a message. */

#include "fast.h"

#include <string.h>

/* The fields, and the least bytes that each has. */
static const struct {
    const char *name;
    size_t least;
} KNOWN[FIELDS] = {
    {"pktinfo", 12}, {"pktinfo6", 20}, {"destination", 4}, {"sockaddr_dl", 4},
    {"hop_limit", 1}, {"traffic_class", 1}, {"timespec", 8}, {"timeval", 12}, {"segment_size", 4},
};

/* Read the table of control messages: (level, type) to the name of a field. */
bool
read_kinds(PyObject *fields, Kinds *kinds)
{
    PyObject *items = PyMapping_Items(fields);
    Py_ssize_t count = items == NULL ? -1 : PyList_Size(items);
    if (count > MOST_KINDS) {
        PyErr_SetString(PyExc_ValueError, "there are too many kinds of control messages");
        count = -1;
    }
    for (kinds->count = 0; kinds->count < count; kinds->count++) {
        const char *name;
        int level, type, field = 0;
        if (!PyArg_ParseTuple(PyList_GetItem(items, kinds->count), "(ii)s", &level, &type, &name)) {
            break;
        }
        while (field < FIELDS && strcmp(KNOWN[field].name, name) != 0) {
            field++;
        }
        if (field == FIELDS) {
            PyErr_Format(PyExc_ValueError, "there is no field %s here", name);
            break;
        }
        kinds->kinds[kinds->count].level = level;
        kinds->kinds[kinds->count].type = type;
        kinds->kinds[kinds->count].field = (Field)field;
    }
    Py_XDECREF(items);
    return kinds->count == count;
}

/* The table may call any message a time: whatever its bytes are, this must not overflow. */
static long long
nanoseconds_of(int64_t seconds, int64_t nanoseconds)
{
    return (long long)((uint64_t)seconds * 1000000000u + (uint64_t)nanoseconds);
}

static void
read_field(Facts *facts, Field field, const unsigned char *data, size_t size)
{
    Source *source = &facts->source;
    int64_t seconds, nanoseconds;
    int32_t microseconds;
    uint16_t index;
    if (size < KNOWN[field].least) {
        return;
    }
    switch (field) {
    case PKTINFO: /* struct in_pktinfo: index, local address, destination */
        memcpy(&source->index, data, 4);
        memcpy(source->destination, data + 8, 4);
        source->destination_size = 4;
        source->known |= HAS_INDEX;
        break;
    case PKTINFO6: /* struct in6_pktinfo: destination, index */
        memcpy(source->destination, data, 16);
        memcpy(&source->index, data + 16, 4);
        source->destination_size = 16;
        source->known |= HAS_INDEX;
        break;
    case DESTINATION: /* struct in_addr */
        memcpy(source->destination, data, 4);
        source->destination_size = 4;
        break;
    case SOCKADDR_DL: /* length, family, index */
        memcpy(&index, data + 2, 2);
        source->index = index;
        source->known |= HAS_INDEX;
        break;
    case HOP_LIMIT: /* an int or a byte */
        source->hop_limit = data[0];
        if (size >= 4) {
            memcpy(&source->hop_limit, data, 4);
        }
        source->known |= HAS_HOP_LIMIT;
        break;
    case TRAFFIC_CLASS: /* likewise */
        source->traffic_class = data[0];
        if (size >= 4) {
            int32_t number;
            memcpy(&number, data, 4);
            source->traffic_class = (uint8_t)number;
        }
        source->known |= HAS_TRAFFIC_CLASS;
        break;
    case TIMESPEC:
        if (size >= 16) {
            memcpy(&seconds, data, 8);
            memcpy(&nanoseconds, data + 8, 8);
            facts->timestamp = nanoseconds_of(seconds, nanoseconds);
        } else { /* the older SO_TIMESTAMPNS on a 32-bit machine */
            int32_t parts[2];
            memcpy(parts, data, sizeof parts);
            facts->timestamp = nanoseconds_of(parts[0], parts[1]);
        }
        facts->has_timestamp = true;
        break;
    case TIMEVAL: /* tv_usec is an int on macOS and a long on FreeBSD; both have their value in the first four bytes */
        memcpy(&seconds, data, 8);
        memcpy(&microseconds, data + 8, 4);
        facts->timestamp = nanoseconds_of(seconds, microseconds * 1000LL);
        facts->has_timestamp = true;
        break;
    default: /* SEGMENT_SIZE */
        memcpy(&facts->segment_size, data, 4);
    }
}

/* Unknown control messages, and those that the kernel had to cut, are ignored. */
void
read_facts(const Kinds *kinds, struct msghdr *header, Facts *facts)
{
    const unsigned char *end = (unsigned char *)header->msg_control + header->msg_controllen;
    Source *source = &facts->source;
    memset(facts, 0, sizeof *facts);
    source->sender_size = header->msg_namelen < sizeof source->sender ? header->msg_namelen : sizeof source->sender;
    memcpy(&source->sender, header->msg_name, source->sender_size);
    for (struct cmsghdr *message = CMSG_FIRSTHDR(header); message != NULL; message = CMSG_NXTHDR(header, message)) {
        const unsigned char *data = CMSG_DATA(message);
        if (message->cmsg_len < CMSG_LEN(0) || data > end) {
            break;
        }
        size_t size = message->cmsg_len - CMSG_LEN(0);
        size_t there = (size_t)(end - data);
        for (int kind = 0; kind < kinds->count; kind++) {
            if (kinds->kinds[kind].type == message->cmsg_type && kinds->kinds[kind].level == message->cmsg_level) {
                read_field(facts, kinds->kinds[kind].field, data, size < there ? size : there);
                break;
            }
        }
    }
}
