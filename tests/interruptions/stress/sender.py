"""Send numbered datagrams until standard input ends: `python sender.py BOARD RATE GROUP=INTERFACE...`.

BOARD is a file of 64-bit numbers, two for each group: how many datagrams were begun, and how many were sent. The first
is written before the datagram leaves and the second afterwards, so that a receiver which reads the first after a join
knows from which number on nothing may be missing.
"""

import mmap
import select
import socket
import sys
import time
from pathlib import Path

with Path(sys.argv[1]).open("r+b") as file:
    board = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
rate, groups = int(sys.argv[2]), [argument.split("=") for argument in sys.argv[3:]]
sockets: dict[str, socket.socket | None] = dict.fromkeys(interface for _, interface in groups)


def sender(interface: str) -> socket.socket:
    """Return a socket that sends out of the interface, to receivers on this host."""
    index = socket.if_nametoindex(interface).to_bytes(4, sys.byteorder)
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(8) + index)
    return opened


turn = 0
begun = time.monotonic()
while not select.select([0], [], [], 0.002)[0]:
    # A machine that slept is not owed more than a receive buffer holds.
    begun = max(begun, time.monotonic() - (turn + 200) / rate)
    while turn < (time.monotonic() - begun) * rate:
        number, (group, interface) = turn % len(groups), groups[turn % len(groups)]
        turn += 1
        place = 2 * number
        count = board[place] + 1
        board[place] = count
        try:
            sockets[interface] = out = sockets[interface] or sender(interface)
            out.sendto(b"%s %d" % (group.encode(), count - 1), (group, 5000))
        except OSError:
            # The interface is away. Its groups are held to less.
            sockets[interface] = None
        board[place + 1] = count
