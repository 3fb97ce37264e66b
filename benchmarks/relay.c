/* What a bridge of one group costs in C and does no more than it must: receives with recvmmsg, sends over one TCP
 * connection, and sends again with sendmmsg. And the load for it.
 *
 * relay take GROUP PORT INTERFACE HOST TCPPORT   from the group to the connection
 * relay give GROUP PORT INTERFACE TCPPORT        from the connection to the group; listens
 * relay load GROUP PORT INTERFACE RATE COUNT     sends so many numbered datagrams of 1,000 bytes at this rate
 *
 * INTERFACE is the address of one. Over the connection each datagram has its length before it, in two bytes.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, ROOM = 2048, SIZE = 1000 };

static struct sockaddr_in group;
static struct mmsghdr messages[BATCH];
static struct iovec pieces[BATCH];
static char rooms[BATCH][ROOM];

static void check(int fine, const char *what) {
    if (!fine) {
        perror(what);
        exit(1);
    }
}

static struct sockaddr_in address(const char *host, const char *port) {
    struct sockaddr_in made = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    check(inet_pton(AF_INET, host, &made.sin_addr) == 1, host);
    return made;
}

static int sending(const char *interface) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), hops = 8, off = 0;
    struct sockaddr_in own = address(interface, "0");
    check(!setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &own.sin_addr, sizeof own.sin_addr), "IP_MULTICAST_IF");
    check(!setsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &hops, sizeof hops), "IP_MULTICAST_TTL");
    check(!setsockopt(fd, IPPROTO_IP, IP_MULTICAST_LOOP, &off, sizeof off), "IP_MULTICAST_LOOP");
    for (int place = 0; place < BATCH; place++)
        messages[place].msg_hdr = (struct msghdr){.msg_name = &group, .msg_namelen = sizeof group,
                                                  .msg_iov = &pieces[place], .msg_iovlen = 1};
    return fd;
}

static void send_all(int fd, int count) {
    for (int sent = 0; sent < count;) {
        int went = sendmmsg(fd, messages + sent, count - sent, 0);
        check(went > 0, "sendmmsg");
        sent += went;
    }
}

static void take(const char *interface, struct sockaddr_in peer) {
    int in = socket(AF_INET, SOCK_DGRAM, 0), out = socket(AF_INET, SOCK_STREAM, 0), on = 1, large = 8 << 20;
    static char stream[BATCH * (ROOM + 2)];
    struct ip_mreq join = {group.sin_addr, address(interface, "0").sin_addr};
    check(!setsockopt(in, SOL_SOCKET, SO_RCVBUFFORCE, &large, sizeof large), "SO_RCVBUFFORCE");
    check(!bind(in, (void *)&group, sizeof group), "bind");
    check(!setsockopt(in, IPPROTO_IP, IP_ADD_MEMBERSHIP, &join, sizeof join), "IP_ADD_MEMBERSHIP");
    check(!connect(out, (void *)&peer, sizeof peer), "connect");
    check(!setsockopt(out, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
    for (int place = 0; place < BATCH; place++) {
        pieces[place] = (struct iovec){rooms[place], ROOM};
        messages[place].msg_hdr = (struct msghdr){.msg_iov = &pieces[place], .msg_iovlen = 1};
    }
    for (;;) {
        int count = recvmmsg(in, messages, BATCH, MSG_WAITFORONE, NULL);
        size_t size = 0;
        check(count > 0, "recvmmsg");
        for (int place = 0; place < count; place++) {
            uint16_t length = messages[place].msg_len;
            memcpy(stream + size, &length, 2);
            memcpy(stream + size + 2, rooms[place], length);
            size += 2 + length;
        }
        for (size_t sent = 0; sent < size;) {
            ssize_t went = write(out, stream + sent, size - sent);
            check(went > 0, "write");
            sent += went;
        }
    }
}

static void give(const char *interface, const char *port) {
    int out = sending(interface), listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    static char stream[1 << 17];
    struct sockaddr_in here = address("0.0.0.0", port);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    check(!bind(listener, (void *)&here, sizeof here) && !listen(listener, 1), "listen");
    int in = accept(listener, NULL, NULL);
    for (size_t held = 0;;) {
        ssize_t came = read(in, stream + held, sizeof stream - held);
        check(came >= 0, "read");
        if (!came)
            return;
        held += came;
        size_t start = 0;
        int count = 0;
        for (uint16_t length; held - start >= 2; start += 2 + length) {
            memcpy(&length, stream + start, 2);
            if (held - start < 2u + length)
                break;
            pieces[count++] = (struct iovec){stream + start + 2, length};
            if (count == BATCH) {
                send_all(out, count);
                count = 0;
            }
        }
        if (count)
            send_all(out, count);
        memmove(stream, stream + start, held - start);
        held -= start;
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void load(const char *interface, double rate, long count) {
    int out = sending(interface);
    double began = now();
    for (long sent = 0; sent < count;) {
        long due = (now() - began) * rate;
        int many = 0;
        for (; many < BATCH && sent + many < count && sent + many < due; many++) {
            uint64_t number = sent + many;
            struct timespec time;
            clock_gettime(CLOCK_REALTIME, &time);
            uint64_t stamp = time.tv_sec * 1000000000ull + time.tv_nsec;
            memcpy(rooms[many], &number, 8);
            memcpy(rooms[many] + 8, &stamp, 8);
            pieces[many] = (struct iovec){rooms[many], SIZE};
        }
        if (many) {
            send_all(out, many);
            sent += many;
        } else {
            usleep(200);
        }
    }
    printf("%ld %f\n", count, now() - began);
}

int main(int argc, char **argv) {
    check(argc >= 6, "arguments");
    group = address(argv[2], argv[3]);
    if (!strcmp(argv[1], "take") && argc == 7)
        take(argv[4], address(argv[5], argv[6]));
    else if (!strcmp(argv[1], "give"))
        give(argv[4], argv[5]);
    else if (!strcmp(argv[1], "load") && argc == 7)
        load(argv[4], atof(argv[5]), atol(argv[6]));
    return 0;
}
