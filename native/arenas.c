/* Arenas, and the register of the calls that write into them without the interpreter lock.

Arenas come from the module's list and go back to it while the interpreter lock is held, so any number of threads may
receive at once, and nothing here needs a lock that a fork could copy while it is held. */

#include "intake.h"

#include <stdlib.h>
#include <string.h>

enum { SPARE_ARENAS = 16 };
/* Not a power of two: the beginnings of the payloads would compete for the same few lines of the processor's cache. */
enum { STRIDE = 65536 + 320 };

/* Ready the first slots for the next system call: the last one left the sizes of what it wrote in them. */
static void
ready_slots(Arena *arena, int count)
{
    for (int slot = 0; slot < count; slot++) {
        struct msghdr *header = &arena->headers[slot].msg_hdr;
        header->msg_namelen = sizeof arena->senders[slot];
        header->msg_controllen = CONTROL;
    }
    arena->filled = arena->slot = 0;
    arena->offset = 0;
    arena->told = -1;
}

static unsigned char *
home_of(Arena *arena, int slot)
{
    return arena->payloads + (size_t)slot * STRIDE;
}

/* Let a slot write into the arena itself. */
static void
point_home(Arena *arena, int slot)
{
    arena->pieces[slot][0] = (struct iovec){.iov_base = home_of(arena, slot), .iov_len = PAYLOAD};
    arena->headers[slot].msg_hdr.msg_iovlen = 1;
}

/* Let slots write where the rows will have their payloads, if all are as long as the longest of late; what is longer goes
on at home. Return how many slots may be filled. */
int
aim(Arena *arena, const Rows *rows, int slots)
{
    Py_ssize_t end = rows->end, length = rows->expected;
    if (length == 0) {
        return slots;
    }
    Py_ssize_t fitting = (rows->memory.len - end) / length;
    if (fitting == 0) {
        /* What does not fit is kept for another receive: not more than one message. */
        return 1;
    }
    arena->aimed = fitting < slots ? (int)fitting : slots;
    for (int slot = 0; slot < arena->aimed; slot++) {
        struct iovec *pieces = arena->pieces[slot];
        pieces[0] = (struct iovec){(char *)rows->memory.buf + end + slot * length, (size_t)length};
        pieces[1] = (struct iovec){home_of(arena, slot) + length, (size_t)(PAYLOAD - length)};
        arena->headers[slot].msg_hdr.msg_iovlen = 2;
    }
    return arena->aimed;
}

/* Make what the arena holds from its slot on one piece at home again, so that it no longer depends on any rows. */
void
keep_rest(Arena *arena)
{
    for (int slot = 0; slot < arena->aimed; slot++) {
        const struct iovec *piece = arena->pieces[slot];
        size_t size = arena->headers[slot].msg_len;
        if (slot >= arena->slot && slot < arena->filled) {
            memcpy(home_of(arena, slot), piece->iov_base, size < piece->iov_len ? size : piece->iov_len);
        }
        point_home(arena, slot);
    }
    arena->aimed = 0;
}

Arena *
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
    arena->aimed = 0;
    memset(arena->headers, 0, sizeof arena->headers);
    /* The kernel leaves gaps between control messages, and messages are compared. */
    memset(arena->control, 0, sizeof arena->control);
    for (size_t slot = 0; slot < SLOTS; slot++) {
        struct msghdr *header = &arena->headers[slot].msg_hdr;
        header->msg_iov = arena->pieces[slot];
        point_home(arena, (int)slot);
        header->msg_name = &arena->senders[slot];
        header->msg_control = arena->control[slot].bytes;
    }
    ready_slots(arena, SLOTS);
    return arena;
}

/* Return the oldest arena that an earlier call did not read to its end, or NULL. */
Arena *
take_oldest(Intake *self)
{
    Arena **place = &self->unread;
    while (*place != NULL && (*place)->next != NULL) {
        place = &(*place)->next;
    }
    Arena *arena = *place;
    *place = NULL;
    return arena;
}

/* Return the newest of them, or NULL. */
Arena *
take_unread(Intake *self)
{
    Arena *arena = self->unread;
    if (arena != NULL) {
        self->unread = arena->next;
    }
    return arena;
}

/* Forget what earlier calls could not read to its end. */
void
drop_unread(Intake *self)
{
    for (Arena *arena = take_unread(self); arena != NULL; arena = take_unread(self)) {
        arena->slot = arena->filled;
        give_back(self, arena);
    }
}

/* Put the arena back to the others; or keep it for the next call, if it holds something that no list holds yet. */
void
give_back(Intake *self, Arena *arena)
{
    State *state = self->state;
    if (arena->slot < arena->filled) {
        Arena **place = &self->unread;
        while (*place != NULL && (*place)->call.number > arena->call.number) {
            place = &(*place)->next;
        }
        arena->next = *place;
        *place = arena;
        return;
    }
    ready_slots(arena, arena->filled);
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
}

/* Register a call, and release the interpreter lock. */
PyThreadState *
begin_call(Intake *self, Arena *arena)
{
    Call *call = &arena->call;
    call->number = ++self->begun;
    call->newer = &self->calls;
    call->older = self->calls.older;
    call->older->newer = self->calls.older = call;
    return PyEval_SaveThread();
}

/* Take the interpreter lock, and unregister the call before code in Python can run: a signal handler that closes the
socket does not wait for the thread that it runs in. */
void
end_call(Arena *arena, PyThreadState *thread)
{
    PyEval_RestoreThread(thread);
    arena->call.older->newer = arena->call.newer;
    arena->call.newer->older = arena->call.older;
}

static double
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

PyObject *
intake_settle(Intake *self, PyObject *timeout)
{
    double longest = PyFloat_AsDouble(timeout), start = now();
    struct timespec pause = {.tv_nsec = 50000};
    unsigned long long last = self->begun;
    if (longest == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    self->settled++;
    while (self->calls.newer != &self->calls && self->calls.newer->number <= last) {
        if (!(now() - start < longest)) {
            return PyBool_FromLong(false);
        }
        Py_BEGIN_ALLOW_THREADS
        nanosleep(&pause, NULL);
        Py_END_ALLOW_THREADS
        pause.tv_nsec = pause.tv_nsec < 500000 ? 2 * pause.tv_nsec : 1000000;
    }
    return PyBool_FromLong(true);
}

PyObject *
intake_abandon(Intake *self, PyObject *Py_UNUSED(nothing))
{
    drop_unread(self);
    self->calls.older = self->calls.newer = &self->calls;
    return shared(Py_None);
}
