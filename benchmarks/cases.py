"""What is measured, as data: the cases with their subjects, and the ratios that shall hold. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Runs(Enum):
    """What a subject runs in."""

    HERE = "this interpreter"
    PURE = "this interpreter, without the C extension"
    INCUMBENT = "the interpreter that has multicast_expert 1.x"
    C = "the C program"


@dataclass(frozen=True, slots=True)
class Subject:
    """One way to do the work of a case."""

    label: str
    name: str
    runs: Runs = Runs.HERE
    load: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the load of the case."""
    tunables: str = ""
    """What glibc is told (GLIBC_TUNABLES), so that a worker does not depend on what its program did before."""
    instead: str | None = None
    """The label of the subject that stands in where this one cannot run."""


@dataclass(frozen=True, slots=True)
class Case:
    """One piece of work, done in several ways by turns."""

    name: str
    title: str
    task: str
    subjects: tuple[Subject, ...]
    load: Mapping[str, Any] = field(default_factory=dict)
    varied: str | None = None
    """What is varied: a field of the load."""
    points: tuple[int, ...] = ()
    quick_points: tuple[int, ...] = ()
    unit: str = "µs per datagram"
    scale: float = 1e6
    """What seconds are multiplied by to get the unit."""


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio that shall hold."""

    text: str
    case: str
    subject: str
    reference: str
    limit: float
    points: tuple[int, int] | None = None
    """The two points to compare, where one subject is compared with itself."""
    beside: bool = False
    """Whether it is only shown beside another, as a second reading of it."""


# asyncio reads each datagram into a new buffer of 256 KiB. A fresh program gets it from the kernel each time, and gives
# the rest back, page faults included. Once a program has freed a large block, glibc keeps such memory: much cheaper.
# Which of the two a program sees is chance; so both are measured, and the fresh program is the reference.
FRESH = "glibc.malloc.mmap_threshold=131072"
KEPT = "glibc.malloc.mmap_threshold=4194304:glibc.malloc.trim_threshold=67108864"
KEEPING = "asyncio DatagramProtocol, glibc keeping its buffer"

C_RECVMMSG = Subject("C recvmmsg", "C", Runs.C, {"metadata": True})
C_BARE = Subject("C recvmmsg, payload and sender only", "C", Runs.C)
C_EPOLL = Subject("C epoll and recvmmsg", "C", Runs.C, {"metadata": True})
C_SENDMMSG = Subject("C sendmmsg", "C", Runs.C)
RAW_RECVMSG = Subject("raw recvmsg, not decoded", "raw_recvmsg")
RAW_METADATA = Subject("raw recvmsg, decoded by hand", "raw_metadata")
RAW_RECVFROM = Subject("raw recvfrom", "raw_recvfrom")
RAW_SENDTO = Subject("raw sendto", "raw_sendto")
RECEIVE_MANY = Subject("receive_many", "receive_many")
RECEIVE_INTO = Subject("receive_into", "receive_into")
INTO_WITHOUT_GRO = Subject("receive_into, GRO off", "receive_into", load={"gro": False})
BY_NUMPY, BY_LOOP = "receive_into and numpy", "receive_many and a loop"
RECEIVE = Subject("receive", "receive")
BOTH_WAYS_MANY = Subject("receive_many of McastSocket", "both_ways_many")
BOTH_WAYS = Subject("receive of McastSocket", "both_ways")
SEND_MANY = Subject("send_many", "send_many")
SENDTO = Subject("sendto", "sendto")
STAND_IN = "stand-in for the incumbent's sendto"
OLD_SENDTO = Subject("incumbent's sendto", "sendto", Runs.INCUMBENT, instead=STAND_IN)
CHECKED_SENDTO = Subject(STAND_IN, "checked_sendto")

SENDING = (SEND_MANY, C_SENDMMSG, SENDTO, RAW_SENDTO, OLD_SENDTO, CHECKED_SENDTO)

CASES = (
    Case(
        "receive-many",
        "Receiving all that is there",
        "receive",
        (
            RECEIVE_MANY,
            INTO_WITHOUT_GRO,
            C_RECVMMSG,
            C_BARE,
            BOTH_WAYS_MANY,
            Subject("iteration", "iterate"),
            RAW_RECVMSG,
            RAW_METADATA,
        ),
    ),
    Case(
        "receive-into",
        "Receiving into arrays, eight calls one after the other",
        "receive",
        (INTO_WITHOUT_GRO, C_RECVMMSG),
        {"batch": 8 * 1024, "repeats": 1},
    ),
    Case(
        "receive-gro",
        "Receiving what a local sender sent 64 at a time (GSO)",
        "receive",
        (
            RECEIVE_MANY,
            RECEIVE_INTO,
            C_RECVMMSG,
            C_BARE,
            Subject("C recvmmsg with GRO", "C", Runs.C, {"coalesce": True, "metadata": True}),
        ),
        {"segments": 64},
    ),
    Case(
        "receive-large",
        "The same with larger payloads",
        "receive",
        (RECEIVE_MANY, RECEIVE_INTO, Subject("C recvmmsg with GRO", "C", Runs.C, {"coalesce": True, "metadata": True})),
        {"segments": 32, "size": 1000},
    ),
    Case(
        "fields",
        "Summing a field of 32 bits over all datagrams, local sender, GRO",
        "receive",
        (Subject(BY_NUMPY, "sum_by_numpy"), Subject(BY_LOOP, "sum_by_loop")),
        {"segments": 64},
    ),
    Case("receive", "Receiving one at a time", "receive", (RECEIVE, BOTH_WAYS, RAW_METADATA, RAW_RECVMSG)),
    Case(
        "recvfrom",
        "Receiving payload and sender",
        "receive",
        (
            Subject("recvfrom", "recvfrom"),
            RAW_RECVFROM,
            Subject("incumbent's recvfrom", "recvfrom", Runs.INCUMBENT),
        ),
    ),
    Case(
        "async",
        "Receiving in an event loop",
        "receive",
        (
            Subject("async iteration", "async_iterate"),
            C_RECVMMSG,
            Subject("async receive_many", "async_receive_many"),
            Subject("async recvfrom", "async_recvfrom"),
            Subject("asyncio DatagramProtocol", "asyncio_protocol", tunables=FRESH),
            Subject(KEEPING, "asyncio_protocol", tunables=KEPT),
            Subject("async iteration on uvloop", "uvloop_iterate"),
            Subject("uvloop DatagramProtocol", "uvloop_protocol"),
            Subject("incumbent's async recvfrom", "async_recvfrom", Runs.INCUMBENT),
        ),
        {"repeats": 4},
    ),
    Case(
        "pure",
        "Receiving without the C extension",
        "receive",
        (Subject("pure receive_many", "receive_many", Runs.PURE), RAW_METADATA, RAW_RECVMSG),
    ),
    Case("send-plain", "Sending equal sizes to a plain receiver", "send", SENDING),
    Case("send-gro", "Sending equal sizes to a receiver with GRO", "send", SENDING, {"coalesce": True}),
    Case("send-unequal", "Sending unequal sizes to a plain receiver", "send", SENDING, {"unequal": True}),
    Case(
        "latency",
        "Round trip between two processes",
        "latency",
        (
            Subject("recvfrom and sendto", "recvfrom"),
            Subject("receive and sendto", "receive"),
            Subject("raw sockets", "raw"),
            Subject("incumbent", "recvfrom", Runs.INCUMBENT),
        ),
        {"batch": 1000},
        unit="µs",
    ),
    Case(
        "latency-async",
        "Round trip between two processes with event loops",
        "latency",
        (
            Subject("await recvfrom, sendto", "awaited"),
            Subject("await recvfrom, await sendto", "awaited_both"),
            Subject("asyncio DatagramProtocol", "asyncio_called_back", tunables=FRESH),
            Subject(KEEPING, "asyncio_called_back", tunables=KEPT),
            Subject("asyncio DatagramProtocol and a future", "asyncio_future", tunables=FRESH),
            Subject("await recvfrom, sendto on uvloop", "uvloop_awaited"),
            Subject("uvloop DatagramProtocol", "uvloop_called_back"),
            Subject("incumbent", "awaited", Runs.INCUMBENT),
        ),
        {"batch": 500},
        unit="µs",
    ),
    Case(
        "rate",
        "Highest rate without loss",
        "count",
        (
            Subject("receive_many, GRO off", "receive_many", load={"gro": False}),
            Subject("receive_many, GRO on", "receive_many"),
            C_RECVMMSG,
            RAW_RECVFROM,
            Subject("async iteration, GRO off", "async_iterate", load={"gro": False}),
            Subject("asyncio DatagramProtocol", "asyncio_protocol", tunables=FRESH),
        ),
        {"segments": 16},
        unit="datagrams per second",
        scale=1,
    ),
    Case(
        "groups",
        "Cost against the number of groups, traffic on all of them",
        "receive",
        (RECEIVE_MANY, C_EPOLL),
        {"batch": 8_000, "repeats": 5},
        "groups",
        (1, 20, 200, 2_000, 10_000),
        (1, 2_000),
    ),
    Case(
        "busy-group",
        "Cost against the number of groups, traffic on one of them",
        "receive",
        (RECEIVE_MANY, C_EPOLL),
        {"busy": 1},
        "groups",
        (1, 20, 200, 2_000, 10_000),
        (1, 2_000),
    ),
    Case(
        "sizes",
        "Cost against the size of the payload",
        "receive",
        (
            RECEIVE_MANY,
            Subject("receive_many(64)", "receive_many_64"),
            RECEIVE,
            C_RECVMMSG,
            RAW_METADATA,
        ),
        {"repeats": 4},
        "size",
        (0, 64, 200, 1_400, 8_000, 60_000),
        (200, 8_000),
    ),
    Case(
        "opening",
        "Opening and closing on a machine with many interfaces",
        "open",
        (
            Subject("receiver on a named interface", "receiver_by_name"),
            Subject("receiver on all interfaces", "receiver_everywhere"),
            Subject("sender on a named interface", "sender_by_name"),
            Subject("raw socket that joins", "raw"),
            Subject("incumbent's receiver on a named interface", "receiver_by_name", Runs.INCUMBENT),
        ),
        {"repeats": 2},
        "interfaces",
        (2, 10, 50, 100),
        (2, 10),
        unit="µs",
    ),
)

TARGETS = (
    Target(
        "`receive_many` with full metadata / C `recvmmsg` with the same",
        *("receive-many", "receive_many", C_RECVMMSG.label, 1.3),
    ),
    Target(
        "the same / C `recvmmsg`, payload and sender only",
        *("receive-many", "receive_many", C_BARE.label, 1.3),
        beside=True,
    ),
    Target(
        "`receive_into` without GRO / C `recvmmsg` with the same metadata",
        *("receive-into", INTO_WITHOUT_GRO.label, C_RECVMMSG.label, 1.05),
    ),
    Target(
        "the same in single calls, with other programs on the core in between",
        *("receive-many", INTO_WITHOUT_GRO.label, C_RECVMMSG.label, 1.05),
        beside=True,
    ),
    Target(
        "`receive` one at a time / raw `socket.recvmsg` with the same metadata",
        *("receive", "receive", RAW_METADATA.label, 1.2),
    ),
    Target(
        "`receive_many` of McastSocket, with unicast / of McastRxSocket",
        *("receive-many", BOTH_WAYS_MANY.label, "receive_many", 1.1),
    ),
    Target("`receive` of McastSocket, with unicast / of McastRxSocket", "receive", BOTH_WAYS.label, "receive", 1.25),
    Target("`recvfrom` / raw `socket.recvfrom`", "recvfrom", "recvfrom", "raw recvfrom", 1.3),
    Target(
        "async iteration on asyncio / C `recvmmsg` with the same metadata",
        *("async", "async iteration", C_RECVMMSG.label, 1.5),
    ),
    Target(
        "async iteration on asyncio / asyncio DatagramProtocol",
        *("async", "async iteration", "asyncio DatagramProtocol", 0.12),
    ),
    Target(
        "the same / asyncio DatagramProtocol where glibc keeps its buffer",
        *("async", "async iteration", KEEPING, 0.12),
        beside=True,
    ),
    Target(
        "`send_many` of equal sizes, receiver with GRO / incumbent's `sendto` loop",
        *("send-gro", "send_many", OLD_SENDTO.label, 0.05),
    ),
    Target(
        "`send_many` of equal sizes, plain receiver / C `sendmmsg`",
        *("send-plain", "send_many", "C sendmmsg", 0.35),
    ),
    Target(
        "receive with GRO, local sender / C `recvmmsg` without GRO",
        *("receive-gro", "receive_many", C_RECVMMSG.label, 0.2),
    ),
    Target(
        "the same / C `recvmmsg` without GRO, payload and sender only",
        *("receive-gro", "receive_many", C_BARE.label, 0.2),
        beside=True,
    ),
    Target(
        "`receive_into` / `receive_many`, local sender, GRO, 1,000 bytes",
        *("receive-large", "receive_into", "receive_many", 0.5),
    ),
    Target("`receive_into` and numpy / `receive_many` and a loop, one field", "fields", BY_NUMPY, BY_LOOP, 0.5),
    Target(
        "ping-pong latency, blocking, median / raw sockets",
        *("latency", "recvfrom and sendto", "raw sockets", 1.1),
    ),
    Target(
        "ping-pong latency, asyncio, median / asyncio DatagramProtocol",
        *("latency-async", "await recvfrom, sendto", "asyncio DatagramProtocol", 1.0),
    ),
    Target(
        "the same / asyncio DatagramProtocol where glibc keeps its buffer",
        *("latency-async", "await recvfrom, sendto", KEEPING, 1.0),
        beside=True,
    ),
    Target(
        "per datagram at 2,000 groups / at 1 group, traffic on all of them",
        *("groups", "receive_many", "receive_many", 1.5, (2_000, 1)),
    ),
    Target(
        "the same of C `epoll_wait` and `recvmmsg`",
        *("groups", C_EPOLL.label, C_EPOLL.label, 1.5, (2_000, 1)),
        beside=True,
    ),
    Target(
        "per datagram at 2,000 groups / at 1 group, traffic on one only",
        *("busy-group", "receive_many", "receive_many", 1.5, (2_000, 1)),
        beside=True,
    ),
    Target(
        "pure Python `receive_many` / raw `socket.recvmsg` loop",
        *("pure", "pure receive_many", RAW_METADATA.label, 1.15),
    ),
)
