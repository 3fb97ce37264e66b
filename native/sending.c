/* Sending in batches, on Linux: runs of equal size as one piece (UDP_SEGMENT), all pieces in one system call. */

#include "fast.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

/* Fill in a destination from Python's pair, or the four values of IPv6. What fits no socket address raises OverflowError, as
it does in Python's own `sendto`. */
int
read_destination(PyObject *tuple, Destination *destination)
{
    const char *host;
    int port;
    unsigned int flow = 0, scope = 0;
    struct sockaddr_in *ipv4 = &destination->address.ipv4;
    struct sockaddr_in6 *ipv6 = &destination->address.ipv6;
    memset(destination, 0, sizeof *destination);
    if (!PyArg_ParseTuple(tuple, "si|II:send", &host, &port, &flow, &scope)) {
        return -1;
    }
    if (port < 0 || port > 0xffff || flow > 0xfffff) {
        PyErr_SetString(PyExc_OverflowError, flow > 0xfffff ? "flowinfo must be 0-1048575." : "port must be 0-65535.");
        return -1;
    }
    if (inet_pton(AF_INET, host, &ipv4->sin_addr) == 1) {
        ipv4->sin_family = AF_INET;
        ipv4->sin_port = htons((uint16_t)port);
        destination->length = sizeof *ipv4;
        return 0;
    }
    if (inet_pton(AF_INET6, host, &ipv6->sin6_addr) == 1) {
        ipv6->sin6_family = AF_INET6;
        ipv6->sin6_port = htons((uint16_t)port);
        ipv6->sin6_flowinfo = htonl(flow);
        ipv6->sin6_scope_id = scope;
        destination->length = sizeof *ipv6;
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "%s is not an IP address", host);
    return -1;
}

#ifdef LINUX_CALLS

/* The kernel's own limit is 1024 for both; with this many messages, the call itself costs next to nothing. */
enum { MOST_MESSAGES = 128, MOST_BUFFERS = 1024 };

struct limits {
    Py_ssize_t datagrams; /* that go as one piece */
    Py_ssize_t size;      /* of the longest */
    Py_ssize_t total;     /* bytes */
    int level;            /* of the control message with the size */
    int type;
};

union segment_size {
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
    struct cmsghdr aligned;
};

struct outgoing {
    struct mmsghdr messages[MOST_MESSAGES];
    union segment_size sizes[MOST_MESSAGES];
    struct iovec buffers[MOST_BUFFERS];
    unsigned int message_count;
    Destination destination;
};

/* Point a buffer at a payload, which lives as long as the tuple that holds it. */
static int
read_payload(PyObject *payloads, Py_ssize_t index, struct iovec *buffer)
{
    char *start;
    Py_ssize_t length;
    PyObject *payload = PyTuple_GetItem(payloads, index);
    if (payload == NULL || PyBytes_AsStringAndSize(payload, &start, &length) < 0) {
        return -1;
    }
    buffer->iov_base = start;
    buffer->iov_len = (size_t)length;
    return 0;
}

/* Lay out messages for the payloads from `first` on: a run of equal sizes, and then perhaps a shorter one, is one piece. Each
payload is read once, into the buffer that it has even if it turns out to begin the next piece. */
static int
lay_out(PyObject *payloads, Py_ssize_t first, Py_ssize_t stop, const struct limits *most, struct outgoing *outgoing)
{
    Py_ssize_t used = 0, available = stop - first < MOST_BUFFERS ? stop - first : MOST_BUFFERS;
    outgoing->message_count = 0;
    if (available > 0 && read_payload(payloads, first, outgoing->buffers) < 0) {
        return -1;
    }
    while (used < available && outgoing->message_count < MOST_MESSAGES) {
        struct iovec *start = outgoing->buffers + used;
        Py_ssize_t size = (Py_ssize_t)start->iov_len, room = 1, count = 1;
        struct msghdr *header = &outgoing->messages[outgoing->message_count].msg_hdr;
        if (size > 0 && size <= most->size) {
            room = most->total / size < most->datagrams ? most->total / size : most->datagrams;
        }
        for (; used + count < available; count++) {
            struct iovec *next = start + count;
            if (read_payload(payloads, first + used + count, next) < 0) {
                return -1;
            }
            if (count >= room || next->iov_len > start->iov_len || next->iov_len == 0 ||
                start[count - 1].iov_len < start->iov_len) {
                break;
            }
        }
        memset(header, 0, sizeof *header);
        header->msg_name = &outgoing->destination.address;
        header->msg_namelen = outgoing->destination.length;
        header->msg_iov = start;
        header->msg_iovlen = (size_t)count;
        if (count > 1) {
            union segment_size *control = &outgoing->sizes[outgoing->message_count];
            uint16_t length = (uint16_t)size;
            memset(control, 0, sizeof *control);
            header->msg_control = control;
            header->msg_controllen = sizeof control->bytes;
            control->aligned.cmsg_level = most->level;
            control->aligned.cmsg_type = most->type;
            control->aligned.cmsg_len = CMSG_LEN(sizeof length);
            memcpy(CMSG_DATA(&control->aligned), &length, sizeof length);
        }
        used += count;
        outgoing->message_count++;
    }
    return 0;
}

/* send(descriptor, payloads, first, stop, address, datagrams, size, total, option): send the payloads, a tuple of bytes, from
`first` up to `stop` until the OS refuses one. Return how many went, how many were in the piece that was refused, and the
error number. From `datagrams` on the arguments are the Limits of engine.offload. A signal ends the call early, because a
handler may have closed the socket. */
PyObject *
send_payloads(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    int descriptor, error = 0;
    PyObject *payloads, *address;
    Py_ssize_t first, stop, next, refused = 0;
    struct limits most;
    struct outgoing outgoing;
    if (!PyArg_ParseTuple(arguments, "iO!nnO!nnn(ii):send", &descriptor, &PyTuple_Type, &payloads, &first, &stop,
                          &PyTuple_Type, &address, &most.datagrams, &most.size, &most.total, &most.level,
                          &most.type) ||
        read_destination(address, &outgoing.destination) < 0) {
        return NULL;
    }
    for (next = first; next < stop && error == 0;) {
        int taken;
        if (lay_out(payloads, next, stop, &most, &outgoing) < 0) {
            return NULL;
        }
        Py_BEGIN_ALLOW_THREADS
        taken = sendmmsg(descriptor, outgoing.messages, outgoing.message_count, 0);
        error = taken < 0 ? errno : 0;
        Py_END_ALLOW_THREADS
        for (int message = 0; message < taken; message++) {
            next += (Py_ssize_t)outgoing.messages[message].msg_hdr.msg_iovlen;
        }
    }
    if (error == EINTR) {
        if (PyErr_CheckSignals() < 0) {
            return NULL;
        }
        error = 0;
    } else if (error != 0) {
        refused = (Py_ssize_t)outgoing.messages[0].msg_hdr.msg_iovlen;
    }
    return Py_BuildValue("nni", next - first, refused, error);
}

#endif
