/* What the files of the extension share. They use the limited API only, and hold no policy: numbers and rules come in as
arguments. */

#ifndef MULTICAST_EXPERT_FAST_H
#define MULTICAST_EXPERT_FAST_H

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The system calls are those of Unix, and some of Linux. Tests define PORTABLE to build without the calls of Linux. */
#ifndef _WIN32
#define SYSTEM_CALLS
#include <netinet/in.h>
#include <sys/socket.h>
#endif
#if defined(__linux__) && !defined(PORTABLE)
#define LINUX_CALLS
#endif

/* datagram.c */
extern PyType_Spec datagram_spec;
enum { ORIGIN_PARTS = 7 };

PyObject *received_datagram(PyTypeObject *type, PyObject *data, PyObject *origin, PyObject *timestamp, bool truncated);
PyObject *arrived(PyObject *module, PyObject *const *arguments, Py_ssize_t count);

/* handout.c */
extern PyType_Spec handed_spec, handout_spec;

/* rows.c */
extern PyType_Spec rows_spec;

/* blocks.c */
PyObject *lay_datagrams(PyObject *module, PyObject *arguments);

typedef struct Arena Arena;

/* messages.c: the control messages that come with a payload. */

typedef enum {
    PKTINFO,
    PKTINFO6,
    DESTINATION,
    SOCKADDR_DL,
    HOP_LIMIT,
    TRAFFIC_CLASS,
    TIMESPEC,
    TIMEVAL,
    SEGMENT_SIZE,
    FIELDS
} Field;

enum { MOST_KINDS = 16 };

typedef struct {
    struct {
        int level;
        int type;
        Field field;
    } kinds[MOST_KINDS];
    int count;
} Kinds;

/* The state of the module, with the blocks of memory for system calls that no call uses now. */
typedef struct {
    PyTypeObject *datagram;
    PyTypeObject *handed;
    PyTypeObject *rows;
    Arena *arenas;
    int spare;
    /* The table that was read last: receivers share one, and to open one does not take long enough to read it again. */
    PyObject *fields;
    Kinds kinds;
} State;

#ifdef SYSTEM_CALLS

/* origins.c: where a datagram came from and arrived, as the kernel's bytes and as a tuple. */

typedef struct {
    struct sockaddr_in6 sender; /* or struct sockaddr_in, then zeros */
    uint32_t index;
    unsigned char destination[16];
    int32_t hop_limit;
    uint8_t sender_size;
    uint8_t destination_size;
    uint8_t traffic_class;
    uint8_t known; /* HAS_… */
} Source;

enum { HAS_INDEX = 1, HAS_HOP_LIMIT = 2, HAS_TRAFFIC_CLASS = 4 };

typedef struct {
    Source source;
    PyObject *origin;
} KnownOrigin;

typedef struct {
    KnownOrigin *entries;
    KnownOrigin *last; /* the one that was found last: most often the next one, too */
    size_t size;
    size_t misses;
    size_t forgotten; /* how many times */
} Origins;

PyObject *origin_of(Origins *origins, const Source *source, PyObject *learn);
void forget_origins(Origins *origins);

typedef struct {
    Source source;
    int segment_size;
    bool has_timestamp;
    long long timestamp;
} Facts;

bool read_kinds(PyObject *fields, Kinds *kinds);
void read_facts(const Kinds *kinds, struct msghdr *header, Facts *facts);

/* intake.c and arenas.c: what sockets hold, as Datagrams. */

extern PyType_Spec intake_spec;
void free_arenas(State *state);

/* sending.c */

typedef struct {
    union {
        struct sockaddr any;
        struct sockaddr_in ipv4;
        struct sockaddr_in6 ipv6;
    } address;
    socklen_t length;
} Destination;

int read_destination(PyObject *tuple, Destination *destination);
PyObject *send_payloads(PyObject *module, PyObject *arguments);

/* shortcut.c */

extern PyType_Spec shortcut_spec;

#endif

static inline PyObject *
shared(PyObject *object)
{
    Py_INCREF(object);
    return object;
}

static inline bool
read_int(PyObject *object, int *number)
{
    long value = PyLong_AsLong(object);
    if (value == -1 && PyErr_Occurred()) {
        return false;
    }
    if (value < INT_MIN || value > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "the number does not fit a C int");
        return false;
    }
    *number = (int)value;
    return true;
}

#endif
