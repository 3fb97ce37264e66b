/* What the files of the Intake share. An Intake turns what the sockets of one receiver hold into Datagrams.

Three rules hold in all of them. (1) A call that uses a descriptor number without the interpreter lock is registered from
before it releases the lock until it has the lock again, so `settle` knows when a number is free to be closed. (2) After
code in Python may have run, a number is used again only if `settle` was not called meanwhile. (3) What the kernel handed
over stays in its arena until the caller's list holds it; an arena with a rest is kept for the next call. */

#ifndef MULTICAST_EXPERT_INTAKE_H
#define MULTICAST_EXPERT_INTAKE_H

#include "rows.h"
#include "sockets.h"

#include <errno.h>

enum { SLOTS = 64, PAYLOAD = 65535, CONTROL = 256 };

/* A call that has released the interpreter lock, in a ring ordered by number. */
typedef struct Call {
    struct Call *older;
    struct Call *newer;
    unsigned long long number;
} Call;

/* A block of memory that a system call writes into, used by one call at a time. */
struct Arena {
    Arena *next;
    Call call; /* here and not on the stack, which is gone if the interpreter ends and stops this thread */
    /* What the kernel filled, and what comes next: a slot, and the offset of a datagram within it. */
    int filled;
    int slot;
    Py_ssize_t offset;
    /* How many slots write into Rows instead of `payloads`: see `aim`. */
    int aimed;
    /* What came beside the payload of one slot, the one that was read last; -1: of none. */
    int told;
    Facts facts;
    Slot headers[SLOTS];
    struct iovec pieces[SLOTS][2];
    struct sockaddr_in6 senders[SLOTS];
    union {
        struct cmsghdr alignment;
        unsigned char bytes[CONTROL];
    } control[SLOTS];
    unsigned char payloads[];
};

typedef struct {
    unsigned long long datagrams;
    unsigned long long payload_bytes;
    unsigned long long truncated;
} Counts;

typedef struct {
    PyObject_HEAD
    State *state;
    PyObject *learn;
    Kinds kinds;
    int msg_trunc;
    Origins origins;
    Counts counts;
    /* How many datagrams a message holds, as seen last: more than one where the kernel coalesces. */
    Py_ssize_t run;
    /* Arenas that hold something because reading them failed, or Rows were full, newest first; the next call begins with
    them. */
    Arena *unread;
    Call calls; /* the ring's beginning: its `newer` is the oldest call */
    unsigned long long begun;
    unsigned long long settled;
} Intake;

/* What all datagrams of one message share; the objects are references of its own. */
typedef struct {
    PyObject *origin;
    PyObject *timestamp; /* NULL until `stamp_message` */
    bool has_timestamp;
    long long nanoseconds;
    const char *payload;
    Py_ssize_t size;
    Py_ssize_t segment_size;
    bool truncated;
} Message;

/* arenas.c */
Arena *take_arena(State *state);
Arena *take_unread(Intake *self);
Arena *take_oldest(Intake *self);
void drop_unread(Intake *self);
int aim(Arena *arena, const Rows *rows, int slots);
void keep_rest(Arena *arena);
void give_back(Intake *self, Arena *arena);
PyThreadState *begin_call(Intake *self, Arena *arena);
void end_call(Arena *arena, PyThreadState *thread);
PyObject *intake_settle(Intake *self, PyObject *timeout);
PyObject *intake_abandon(Intake *self, PyObject *nothing);

/* intake.c */
bool enough_arguments(Py_ssize_t given, Py_ssize_t wanted, PyObject *const *arguments, Py_ssize_t list);
bool failed(int error);
bool read_message(Intake *self, Arena *arena, Message *message);
bool stamp_message(Message *message);
void release_message(Message *message);
Py_ssize_t append_segments(Intake *self, Arena *arena, Message *message, PyObject *list, Counts *counts);
Py_ssize_t append_messages(Intake *self, Arena *arena, PyObject *list, Counts *counts);
Py_ssize_t store_messages(Intake *self, Arena *arena, Rows *rows);

/* receive_many.c */
PyObject *intake_batch(Intake *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *intake_sweep(Intake *self, PyObject *const *arguments, Py_ssize_t count);

/* receive_one.c */
PyObject *intake_one(Intake *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *intake_expect(Intake *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *intake_expect_any(Intake *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *intake_next(Intake *self, PyObject *key);

#endif
