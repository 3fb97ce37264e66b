"""Send numbered datagrams out of the loopback interface: `python numbering.py PORT RATE GROUP...`.

Sends RATE datagrams a second, one to each group in turn, each "GROUP NUMBER", until its standard input ends. Then it
prints how many it sent to each group. It imports nothing of the library, and starts in a few milliseconds.
"""

import select
import socket
import sys
import time

port, rate, groups = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
rounds = 0
begun = time.monotonic()
while not select.select([0], [], [], 0.001)[0]:
    # A machine that slept owes at most 50 ms of datagrams: a receive buffer has room for those.
    due = int((time.monotonic() - begun) * rate / len(groups))
    if due - rounds > rate / 20:
        begun += (due - rounds - rate / 20) * len(groups) / rate
    while rounds < due:
        for group in groups:
            sender.sendto(b"%s %d" % (group.encode(), rounds), (group, port))
        rounds += 1
print(rounds)
