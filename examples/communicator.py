"""Up to three machines talk to each other by multicast.

Each machine sends to a group that all share and to a group of its own. It listens to the shared group and to the own
group of the next machine: 1 to that of 2, 2 to that of 3, 3 to that of 1. So what machine 2 sends to its own group is
heard by machine 1 only.

Start it on each machine, with the machine's number and the name or an address of the interface that the machines share:

    python communicator.py 1 --interface eth0
    python communicator.py 2 --interface eth0

It sends once a second and prints a line for each datagram that it hears: the group ("shared" or "own"), what the
datagram says (the number of the machine that sent it, and a counter), and the address that it came from, with tabs
between. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import contextlib
import select
import signal
import socket
import sys
import time
from typing import NamedTuple

from multicast_expert import McastRxSocket, McastTxSocket, MulticastExpertError

MACHINES = (1, 2, 3)


class Groups(NamedTuple):
    """The groups of one IP version."""

    family: int
    shared: str
    own: dict[int, str]
    """By machine."""


# Free for anybody's use: administratively scoped for IPv4 (RFC 2365), transient and site-local for IPv6 (RFC 4291).
GROUPS = {
    4: Groups(socket.AF_INET, "239.255.40.100", {machine: f"239.255.40.{100 + machine}" for machine in MACHINES}),
    6: Groups(socket.AF_INET6, "ff15::40:100", {machine: f"ff15::40:10{machine}" for machine in MACHINES}),
}


def parse_arguments() -> argparse.Namespace:
    """Return what the user asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("machine", type=int, choices=MACHINES, help="the number of this machine")
    parser.add_argument("-i", "--interface", help="name or address of the interface (else: the default gateway's)")
    parser.add_argument("-6", "--ipv6", action="store_true", help="use IPv6")
    parser.add_argument("-p", "--port", type=int, default=40_100, help="UDP port (%(default)s)")
    parser.add_argument(
        "--interval", type=float, default=1.0, help="seconds between two rounds of sending (%(default)s)"
    )
    parser.add_argument("--duration", type=float, help="seconds after which it ends by itself")
    return parser.parse_args()


def communicate(options: argparse.Namespace) -> None:
    """Send and listen until the duration is over or somebody interrupts."""
    groups = GROUPS[6 if options.ipv6 else 4]
    own = groups.own[options.machine]
    following = groups.own[options.machine % len(MACHINES) + 1]

    with contextlib.ExitStack() as opened:
        sender = opened.enter_context(McastTxSocket(groups.family, [groups.shared, own], options.interface))
        # Listen where we send: without --interface, that is the default gateway's interface.
        interface = sender.network_interface
        # One receiver for each group, so that each datagram's group is known. timeout=0: select() does the waiting.
        receivers = {
            name: opened.enter_context(McastRxSocket(groups.family, [group], options.port, interface, timeout=0))
            for name, group in (("shared", groups.shared), ("own", following))
        }
        descriptors = [descriptor for receiver in receivers.values() for descriptor in receiver.filenos()]
        print(f"machine {options.machine} on {interface.display_name}: sends to {groups.shared} and {own}, "
              f"listens to {groups.shared} and {following}", file=sys.stderr)  # fmt: skip

        counter = 0
        next_round = time.monotonic()
        end = None if options.duration is None else next_round + options.duration
        while end is None or next_round < end:
            for group in (groups.shared, own):
                sender.sendto(f"{options.machine} {counter}".encode(), (group, options.port))
            counter += 1
            next_round += options.interval
            while (pause := next_round - time.monotonic()) > 0:
                select.select(descriptors, [], [], pause)
                for name, receiver in receivers.items():
                    print_arrivals(name, receiver)


def print_arrivals(name: str, receiver: McastRxSocket) -> None:
    """Print the datagrams that have come to the group of this name."""
    while (received := receiver.recvfrom()) is not None:
        data, sender = received
        text = data.decode(errors="replace")
        # Anybody can send to a group: what would upset a terminal is shown as an escape.
        print(name, text if text.isprintable() else ascii(text), sender[0], sep="\t", flush=True)


def main() -> int:
    """Run the program; return its exit status."""
    options = parse_arguments()
    # A service manager ends programs with SIGTERM: treat it as Ctrl-C, so that the sockets are closed in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        communicate(options)
    except MulticastExpertError as error:
        print(f"communicator: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
