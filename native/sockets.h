/* Calls that Linux has in a better form: several messages in one system call, and waiting to the nanosecond. */

#ifndef MULTICAST_EXPERT_SOCKETS_H
#define MULTICAST_EXPERT_SOCKETS_H

#include "fast.h"

#include <poll.h>
#include <sys/uio.h>
#include <time.h>

#ifdef LINUX_CALLS

typedef struct mmsghdr Slot;

/* Receive at most so many messages without waiting; return how many, or -1 with `errno` if there is none. */
static inline int
receive_slots(int descriptor, Slot *slots, int count)
{
    return recvmmsg(descriptor, slots, (unsigned)count, MSG_DONTWAIT, NULL);
}

/* As poll(2), with a timeout in seconds; negative: no limit. */
static inline int
wait_for(struct pollfd *polled, nfds_t count, double timeout)
{
    struct timespec longest = {.tv_sec = (time_t)timeout};
    longest.tv_nsec = (long)((timeout - (double)longest.tv_sec) * 1e9);
    return ppoll(polled, count, timeout < 0 ? NULL : &longest, NULL);
}

#else

typedef struct {
    struct msghdr msg_hdr;
    unsigned msg_len;
} Slot;

static inline int
receive_slots(int descriptor, Slot *slots, int count)
{
    for (int slot = 0; slot < count; slot++) {
        ssize_t received = recvmsg(descriptor, &slots[slot].msg_hdr, MSG_DONTWAIT);
        if (received < 0) {
            return slot > 0 ? slot : -1;
        }
        slots[slot].msg_len = (unsigned)received;
    }
    return count;
}

/* To the millisecond. A timeout that is longer than poll(2) can wait ends early. */
static inline int
wait_for(struct pollfd *polled, nfds_t count, double timeout)
{
    double milliseconds = timeout * 1e3 + 0.999;
    return poll(polled, count, timeout < 0 ? -1 : milliseconds < INT_MAX ? (int)milliseconds : INT_MAX);
}

#endif

#endif
