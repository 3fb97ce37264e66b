"""What `send_many` sends, in both of its forms, and who listens: plain receivers, one of which gets pieces whole."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import unpack
from typing import Any

import pytest

from linux.plain_sockets import FAMILY, join, member_on, nothing_for, udp_socket
from multicast_expert import McastTxSocket, MulticastOSError, extension
from multicast_expert.testing import Host, Interface, Lab

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
# udp(7), linux/udp.h
SOL_UDP, UDP_GRO, UDP_NO_CHECK6_RX = 17, 104, 102

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
both_forms = pytest.mark.parametrize(
    "form",
    [
        pytest.param(
            "extension", marks=pytest.mark.skipif(extension.native is None, reason="the extension is not there")
        ),
        "Python",
    ],
)


@dataclass(frozen=True)
class Judges:
    """Two plain receivers of what a host sends: one gets every datagram by itself, one those of a piece together."""

    plain: socket.socket
    joined: socket.socket

    def heard(self) -> tuple[list[bytes], list[bytes], int]:
        """What each got up to now, and how many pieces the second one got it in; nothing is on its way any more."""
        plain = []
        while not nothing_for(self.plain):
            plain.append(self.plain.recv(65535))
        joined: list[bytes] = []
        pieces = 0
        while not nothing_for(self.joined):
            data, control, _, _ = self.joined.recvmsg(65535, 64)
            size = next((unpack("=i", value)[0] for *kind, value in control if kind == [SOL_UDP, UDP_GRO]), len(data))
            joined += [data[first : first + size] for first in range(0, len(data), size)] if data else [data]
            pieces += 1
        return plain, joined, pieces


@dataclass(frozen=True)
class Network:
    """A host in which the tests run, with a cable to another, and who listens: on the far end, and on its own lo."""

    near: Interface
    judges: dict[tuple[int, str], Judges]


@contextlib.contextmanager
def audience(lab: Lab) -> Iterator[Network]:
    """The host and its judges, for all tests of a file."""
    host = lab.host("host")
    near, far = lab.link(host, lab.host("far"), ipv4=("10.1.0.1/24", "10.1.0.2/24"), ipv6=("fd01::1/64", "fd01::2/64"))
    host.allow_ipv6_loopback()
    with contextlib.ExitStack() as opened:

        def judges(version: int, interface: str) -> Judges:
            both = [
                opened.enter_context(
                    on_loopback(host, version) if interface == "lo" else member_on(far, GROUP[version], PORT)
                )
                for _ in range(2)
            ]
            both[1].setsockopt(SOL_UDP, UDP_GRO, 1)
            if version == 6:
                for judge in both:
                    # IPv6 datagrams without a checksum are dropped, unless who receives them agrees (RFC 6936).
                    judge.setsockopt(SOL_UDP, UDP_NO_CHECK6_RX, 1)
            return Judges(*both)

        network = Network(
            near,
            {(version, interface): judges(version, interface) for version in (4, 6) for interface in ("eth0", "lo")},
        )
        opened.enter_context(host.entered())
        yield network


def on_loopback(host: Host, version: int) -> socket.socket:
    """A plain receiver of the group on the host's own loopback interface."""
    opened = udp_socket(host, version, (GROUP[version], PORT))
    join(opened, GROUP[version], 1)
    return opened


@contextlib.contextmanager
def running_as(form: str) -> Iterator[None]:
    """Inside the block the library sends in this form: by its extension, or in Python."""
    native = extension.native
    try:
        extension.native = native if form == "extension" else None
        yield
    finally:
        extension.native = native


@contextlib.contextmanager
def dispatching(form: str, version: int, *ifaces: str) -> Iterator[McastTxSocket]:
    """A transmitter of the library, in this form; on eth0, if no interface is named."""
    with (
        running_as(form),
        McastTxSocket(FAMILY[version], [GROUP[version]], ifaces=ifaces or ["eth0"]) as transmitter,
    ):
        yield transmitter


@contextlib.contextmanager
def telling_hop_limits(judge: socket.socket, version: int) -> Iterator[Callable[[int], dict[int, list[int]]]]:
    """What receives so many payloads, each a hop limit and a number, and tells the numbers that came with each.

    Each has to have the hop limit that it speaks of.
    """
    receive_hops, hops = {4: ((0, 12), (0, 2)), 6: ((41, 51), (41, 52))}[version]

    def receive(count: int) -> dict[int, list[int]]:
        numbers: dict[int, list[int]] = {}
        for _ in range(count):
            data, control, _, _ = judge.recvmsg(100, 100)
            hop_limit, number = map(int, data.split())
            assert [unpack("=i", value)[0] for *kind, value in control if tuple(kind) == hops] == [hop_limit]
            numbers.setdefault(hop_limit, []).append(number)
        return numbers

    judge.setsockopt(*receive_hops, 1)
    try:
        yield receive
    finally:
        judge.setsockopt(*receive_hops, 0)


def payloads_of(sizes: list[int]) -> list[bytes]:
    """A payload of each size, each with its own content."""
    return [(b"%d " % number * size)[:size] for number, size in enumerate(sizes)]


def by_loop(transmitter: McastTxSocket, payloads: list[bytes], version: int) -> tuple[int, int | None]:
    """Send one by one; return how many went, and the error number where the first was refused."""
    for number, payload in enumerate(payloads):
        try:
            transmitter.sendto(payload, (GROUP[version], PORT))
        except MulticastOSError as error:
            return number, None if number else error.errno
    return len(payloads), None


def at_once(transmitter: McastTxSocket, payloads: Any, version: int) -> tuple[int, int | None]:
    """The same by one call."""
    try:
        return transmitter.send_many(payloads, (GROUP[version], PORT)), None
    except MulticastOSError as error:
        return 0, error.errno


@contextlib.contextmanager
def slow_line(interface: Interface, rate: str) -> Iterator[None]:
    """Datagrams leave the interface at this rate, wait in a long queue, and arrive in order.

    A timer lets out what waits, on the processor that set it. Behind a veth cable each processor has its own queue, so
    what another processor sends could overtake it: inside the block this thread, with those it starts, keeps to one.
    """
    processors = sorted(os.sched_getaffinity(0))
    tc = interface.node.command
    tc("tc", "qdisc", "add", "dev", interface.name, "root", "tbf", "rate", rate, "burst", "2000", "limit", "10000000")
    try:
        os.sched_setaffinity(0, {processors[os.getpid() % len(processors)]})
        yield
    finally:
        os.sched_setaffinity(0, processors)
        tc("tc", "qdisc", "del", "dev", interface.name, "root")
