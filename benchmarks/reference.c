/* What the same work costs in C, without a Python object: receiving with recvmmsg, sending with sendmmsg, and the load
 * for the search of the highest rate without loss. Linux. Reads a line for each round and answers with one of JSON. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_MULTICAST_ALL
#define IP_MULTICAST_ALL 49
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SO_RCVBUFFORCE
#define SO_RCVBUFFORCE 33
#endif
#define VECTOR 64
#define CONTROL 128

static struct {
    const char *task;
    int port, size, unequal, groups, busy, batch, repeats, segments, coalesce, metadata;
} load;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void set(int fd, int level, int option, int value, int must) {
    if (setsockopt(fd, level, option, &value, sizeof value) && must)
        fail("setsockopt");
}

static struct sockaddr_in group_address(int number) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(load.port)};
    address.sin_addr.s_addr = htonl(0xefc80001u + number); /* 239.200.0.1 and following */
    return address;
}

static int open_receiver(int number) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in address = group_address(number);
    struct ip_mreqn membership = {.imr_multiaddr = address.sin_addr};
    struct timeval patience = {.tv_sec = 5};
    if (fd < 0)
        fail("socket");
    membership.imr_address.s_addr = htonl(INADDR_LOOPBACK);
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1, 1);
    set(fd, SOL_SOCKET, SO_RCVBUF, 8 << 20, 1);
    set(fd, SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20, 0);
    set(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0, 1);
    if (load.metadata) {
        set(fd, IPPROTO_IP, IP_PKTINFO, 1, 1);
        set(fd, IPPROTO_IP, IP_RECVTTL, 1, 1);
    }
    if (load.coalesce)
        set(fd, IPPROTO_UDP, UDP_GRO, 1, 1);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience))
        fail("SO_RCVTIMEO");
    if (bind(fd, (struct sockaddr *)&address, sizeof address))
        fail("bind");
    if (setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &membership, sizeof membership))
        fail("IP_ADD_MEMBERSHIP");
    return fd;
}

static int open_sender(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct ip_mreqn interface = {0};
    if (fd < 0)
        fail("socket");
    address.sin_addr.s_addr = interface.imr_address.s_addr = htonl(INADDR_LOOPBACK);
    if (setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &interface, sizeof interface))
        fail("IP_MULTICAST_IF");
    if (bind(fd, (struct sockaddr *)&address, sizeof address))
        fail("bind");
    return fd;
}

/* A vector of messages that live as long as the program. */
struct vector {
    struct mmsghdr messages[VECTOR];
    struct iovec pieces[VECTOR];
    struct sockaddr_in names[VECTOR];
    char control[VECTOR][CONTROL];
};

static struct vector *new_vector(size_t room) {
    size_t stride = room + 320; /* no power of two: the payloads would compete for the same lines of the cache */
    struct vector *vector = calloc(1, sizeof *vector);
    char *bytes = malloc(VECTOR * stride);
    if (!vector || !bytes)
        fail("malloc");
    memset(bytes, 'x', VECTOR * stride);
    for (int i = 0; i < VECTOR; i++) {
        vector->pieces[i] = (struct iovec){bytes + i * stride, room};
        vector->messages[i].msg_hdr = (struct msghdr){
            .msg_iov = &vector->pieces[i], .msg_iovlen = 1, .msg_name = &vector->names[i]};
    }
    return vector;
}

/* Returns how many datagrams were received; with GRO a message holds several. */
static int receive_some(int fd, struct vector *vector, int flags) {
    int datagrams = 0;
    for (int i = 0; i < VECTOR; i++) {
        struct msghdr *header = &vector->messages[i].msg_hdr;
        header->msg_namelen = sizeof vector->names[i];
        header->msg_control = load.metadata || load.coalesce ? vector->control[i] : NULL;
        header->msg_controllen = load.metadata || load.coalesce ? CONTROL : 0;
    }
    int count = recvmmsg(fd, vector->messages, VECTOR, flags, NULL);
    if (count < 0)
        return errno == EAGAIN ? 0 : -1;
    if (!load.coalesce)
        return count;
    for (int i = 0; i < count; i++) {
        struct msghdr *header = &vector->messages[i].msg_hdr;
        int segment = vector->messages[i].msg_len;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c))
            if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
                memcpy(&segment, CMSG_DATA(c), sizeof segment);
        datagrams += segment ? (vector->messages[i].msg_len + segment - 1) / segment : 1;
    }
    return datagrams;
}

static int payload_size(int number) {
    int varied = load.size / 2 + number * 37 % (load.size ? load.size : 1);
    return !load.unequal ? load.size : varied > 1 ? varied : 1;
}

static void send_batch(int fd, struct vector *vector) {
    int targets = load.busy ? load.busy : load.groups;
    for (int sent = 0; sent < load.batch;) {
        int count = load.batch - sent < VECTOR ? load.batch - sent : VECTOR;
        for (int i = 0; i < count; i++) {
            vector->names[i] = group_address((sent + i) % targets);
            vector->messages[i].msg_hdr.msg_namelen = sizeof vector->names[i];
            vector->pieces[i].iov_len = payload_size(sent + i);
        }
        if ((count = sendmmsg(fd, vector->messages, count, 0)) < 0)
            fail("sendmmsg");
        sent += count;
    }
}

/* One send that the kernel cuts into `count` datagrams. */
static void send_segments(int fd, struct vector *vector, int count) {
    struct msghdr header = vector->messages[0].msg_hdr;
    struct iovec piece = {vector->pieces[0].iov_base, (size_t)load.size * count};
    char control[CMSG_SPACE(sizeof(unsigned short))] = {0};
    struct sockaddr_in target = group_address(0);
    unsigned short size = load.size;
    header.msg_iov = &piece;
    header.msg_name = &target;
    header.msg_namelen = sizeof target;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    struct cmsghdr *c = CMSG_FIRSTHDR(&header);
    *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof size), .cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_SEGMENT};
    memcpy(CMSG_DATA(c), &size, sizeof size);
    if (sendmsg(fd, &header, 0) < 0)
        fail("sendmsg");
}

static void fill(int fd, struct vector *vector) {
    if (load.segments <= 1) {
        send_batch(fd, vector);
        return;
    }
    for (int sent = 0; sent < load.batch; sent += load.segments)
        send_segments(fd, vector, load.batch - sent < load.segments ? load.batch - sent : load.segments);
}

static int *receivers, selector = -1;

static void open_receivers(void) {
    receivers = calloc(load.groups, sizeof *receivers);
    if (load.groups > 1)
        selector = epoll_create1(0);
    for (int i = 0; i < load.groups; i++) {
        struct epoll_event interest = {.events = EPOLLIN, .data.fd = receivers[i] = open_receiver(i)};
        if (load.groups > 1 && epoll_ctl(selector, EPOLL_CTL_ADD, receivers[i], &interest))
            fail("epoll_ctl");
    }
}

static void drain(struct vector *vector) {
    struct epoll_event ready[VECTOR];
    for (int received = 0, count; received < load.batch;) {
        if (selector < 0) {
            if ((count = receive_some(receivers[0], vector, MSG_WAITFORONE)) <= 0)
                fail("recvmmsg");
            received += count;
            continue;
        }
        int sockets = epoll_wait(selector, ready, VECTOR, 5000);
        if (sockets <= 0)
            fail("epoll_wait");
        for (int i = 0; i < sockets; i++) {
            if ((count = receive_some(ready[i].data.fd, vector, MSG_DONTWAIT)) < 0)
                fail("recvmmsg");
            received += count;
        }
    }
}

static void answer(double value) {
    printf("[%.12g]\n", value);
    fflush(stdout);
}

static void measure_sending(size_t room) {
    struct vector *out = new_vector(room), *in = new_vector(room);
    int sender = open_sender();
    char line[64];
    open_receivers();
    answer(0);
    while (fgets(line, sizeof line, stdin)) {
        double spent = 0;
        for (int i = 0; i < load.repeats; i++) {
            double start = seconds(CLOCK_THREAD_CPUTIME_ID);
            fill(sender, out);
            spent += seconds(CLOCK_THREAD_CPUTIME_ID) - start;
            drain(in);
        }
        answer(spent / load.repeats / load.batch);
    }
}

/* Receives a batch that is there. */
static void measure_receiving(size_t room) {
    struct vector *in = new_vector(room);
    char line[64];
    open_receivers();
    answer(0);
    while (fgets(line, sizeof line, stdin)) {
        double start = seconds(CLOCK_THREAD_CPUTIME_ID);
        drain(in);
        answer((seconds(CLOCK_THREAD_CPUTIME_ID) - start) / load.batch);
    }
}

/* Sends a batch to whatever receives it. */
static void feed(size_t room) {
    struct vector *out = new_vector(room);
    int sender = open_sender();
    char line[64];
    answer(0);
    while (fgets(line, sizeof line, stdin)) {
        fill(sender, out);
        answer(0);
    }
}

/* Receives until nothing has come for a while, and tells how much it was. */
static void count(size_t room) {
    struct vector *in = new_vector(room);
    struct timeval idle = {.tv_usec = 100000}, patience = {.tv_sec = 5};
    char line[64];
    open_receivers();
    answer(0);
    while (fgets(line, sizeof line, stdin)) {
        long received = 0, some;
        setsockopt(receivers[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        while ((some = receive_some(receivers[0], in, MSG_WAITFORONE)) > 0) {
            if (!received)
                setsockopt(receivers[0], SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle);
            received += some;
        }
        answer(received);
    }
}

/* Reads bytes in hexadecimal digits; returns how many. */
static size_t read_hex(const char *digits, unsigned char *bytes, size_t room) {
    size_t size = 0;
    while (size < room && sscanf(digits + 2 * size, "%2hhx", bytes + size) == 1)
        size++;
    return size;
}

/* Sends one datagram to a group, by turns, with its number at a place in its payload, of 2 or 4 bytes or 10 digits. */
static void send_numbered(int fd, struct vector *vector, size_t size, long turn, int place, int width) {
    char *payload = vector->pieces[0].iov_base, digits[24];
    struct sockaddr_in target = group_address(turn % load.groups);
    long number = turn / load.groups + 1;
    if (width == 10) {
        snprintf(digits, sizeof digits, "%010ld", number);
        memcpy(payload + place, digits, 10);
    }
    for (int i = 0; width < 10 && i < width; i++)
        payload[place + i] = number >> 8 * (width - 1 - i);
    if (sendto(fd, payload, size, 0, (struct sockaddr *)&target, sizeof target) < 0)
        fail("sendto");
}

/* For each line, "RATE COUNT" or "RATE COUNT PLACE WIDTH PAYLOAD" with a payload of its own, sends so many datagrams at
 * that rate; tells the rate that it reached. */
static void pace(size_t room) {
    struct vector *out = new_vector(room);
    int sender = open_sender(), place, width;
    char line[8192], digits[8192];
    double rate;
    long total;
    answer(0);
    while (fgets(line, sizeof line, stdin)) {
        int fields = sscanf(line, "%lf %ld %d %d %8000s", &rate, &total, &place, &width, digits);
        if (fields != 2 && fields != 5)
            fail("rate and count expected");
        size_t size = fields == 5 ? read_hex(digits, out->pieces[0].iov_base, room) : 0;
        int step = size ? 1 : load.segments;
        double start = seconds(CLOCK_MONOTONIC);
        for (long sent = 0; sent < total; sent += step) {
            while (seconds(CLOCK_MONOTONIC) < start + sent / rate)
                ;
            if (size)
                send_numbered(sender, out, size, sent, place, width);
            else
                send_segments(sender, out, load.segments);
        }
        answer(total / (seconds(CLOCK_MONOTONIC) - start));
    }
}

int main(int argc, char **argv) {
    int *numbers[] = {&load.port, &load.size, &load.unequal, &load.groups, &load.busy, &load.batch,
                      &load.repeats, &load.segments, &load.coalesce, &load.metadata};
    int expected = sizeof numbers / sizeof *numbers;
    if (argc != 2 + expected) {
        fprintf(stderr, "expected a task and %d numbers\n", expected);
        return 2;
    }
    load.task = argv[1];
    for (int i = 0; i < expected; i++)
        *numbers[i] = atoi(argv[2 + i]);
    size_t room = load.coalesce || load.size > 2048 || load.segments > 1 ? 65536 : 2048;
    if (!strcmp(load.task, "count"))
        count(room);
    else if (!strcmp(load.task, "pace"))
        pace(room);
    else if (!strcmp(load.task, "feed"))
        feed(room);
    else if (!strcmp(load.task, "send"))
        measure_sending(room);
    else
        measure_receiving(room);
    return 0;
}
