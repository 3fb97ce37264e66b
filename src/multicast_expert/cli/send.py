"""`mcast send`: sends datagrams to a group."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from time import monotonic, sleep, time_ns
from typing import Annotated

from multicast_expert import stamp
from multicast_expert.cli import terminal
from multicast_expert.cli.interruption import STATUS, until_interrupted
from multicast_expert.cli.parameters import (
    EndpointArgument,
    InterfacesOption,
    LoopbackOption,
    Parameter,
    UsageError,
    WaitOption,
    command,
    named_interfaces,
    seconds,
    whole,
)
from multicast_expert.cli.render.text import counted
from multicast_expert.core.addresses import IPv4Or6Address
from multicast_expert.core.datagram import MAX_DATAGRAM
from multicast_expert.core.endpoints import Endpoint
from multicast_expert.core.errors import MulticastExpertError, MulticastOSError
from multicast_expert.sockets.transmitter import McastTxSocket
from multicast_expert.system.kernel import SYSTEM, error_name

# What a send answers while the interface or its address is not there, or cannot be used yet.
NOT_YET = ("ENODEV", "ENXIO", "EADDRNOTAVAIL", "ENETUNREACH", "ENETDOWN")
# Seconds between two attempts.
PAUSE = 0.2
DEFAULT_TEXT = "hello from mcast"
# RFC 2474 (cs), RFC 2597 (af), RFC 3246 (ef), RFC 5865 (va), RFC 8622 (le); RFC 4594 explains their use.
DSCP = {
    **{f"cs{priority}": priority << 3 for priority in range(8)},
    **{f"af{priority}{drop}": priority << 3 | drop << 1 for priority in range(1, 5) for drop in range(1, 4)},
    "be": 0,
    "le": 1,
    "va": 44,
    "ef": 46,
}


def read_dscp(text: str) -> int:
    """Return the number of a DSCP; UsageError for any other text."""
    number = int(text) if text.isascii() and text.isdecimal() else DSCP.get(text.lower(), -1)
    if not 0 <= number <= 63:
        raise UsageError(f"DSCP {text!r} is neither a number from 0 to 63 nor one of {', '.join(DSCP)}.")
    return number


@command(
    """
    They leave from the interface of the default route, or without one that of a route for the group, unless -i or the
    endpoint names another; you may repeat -i. With --wait it starts before its interfaces, or before there is a route,
    says once what is missing, and sends when all are there; and again, should a single one go meanwhile.

    A stamp takes the first 40 bytes of each datagram.
    """,
    ("mcast send 239.1.2.3:5000%eth0 'hello' -c 3", "Three datagrams out of eth0, one each second"),
    (
        "mcast send 239.1.2.3:5000 --stamp -s 1400 -c 0 --interval 0.001",
        "A numbered test stream, for mcast recv to measure",
    ),
    ("mcast send '[ff15::1234]:5000' --file song.ts -t 8", "A file as one datagram, across routers"),
)
def run(
    endpoint: EndpointArgument,
    text: Annotated[str | None, Parameter("TEXT", f"The payload; usually {DEFAULT_TEXT!r}.")] = None,
    file: Annotated[
        str | None, Parameter("--file FILE", "Send the content of FILE; - is standard input.", values="file")
    ] = None,
    size: Annotated[int, Parameter("-s, --size BYTES", "Pad with zeros to this size.", whole(0, MAX_DATAGRAM))] = 0,
    ifaces: InterfacesOption = (),
    ttl: Annotated[int, Parameter("-t, --ttl HOPS", "How many hops datagrams may go; usually 1.", whole(0, 255))] = 1,
    dscp: Annotated[
        int | None,
        Parameter("--dscp DSCP", "Priority: 0 to 63, or a name such as ef, af41, cs1.", read_dscp, tuple(DSCP)),
    ] = None,
    number: Annotated[int, Parameter("-c, --count N", "How many datagrams, usually 1; 0: until Ctrl-C.", whole(0))] = 1,
    interval: Annotated[
        float, Parameter("--interval SECONDS", "Seconds from one to the next, usually 1.", seconds)
    ] = 1.0,
    stamping: Annotated[
        bool, Parameter("--stamp", "Number datagrams: `mcast recv` then reports loss, order and latency.")
    ] = False,
    wait: WaitOption = False,
    loopback: LoopbackOption = True,
) -> int:
    """Return 0 if all were sent, 130 if Ctrl-C came before."""
    if endpoint.source is not None:
        raise UsageError(
            f"{endpoint} asks for the source {endpoint.source}, which only a receiver can do. A sender's source is its "
            "own address: choose that with -i."
        )
    if text is not None and file is not None:
        raise UsageError("the payload is TEXT or --file, not both.")
    named = named_interfaces(endpoint, ifaces)
    payload = _read_payload(text, file)
    length = max(size, len(payload) + (stamp.SIZE if stamping else 0))
    if size not in (0, length):
        raise UsageError(f"{counted(length, 'byte')} do not fit into --size {size}.")
    if stamping and length > MAX_DATAGRAM:
        raise UsageError(f"stamp and payload are {counted(length, 'byte')}; a datagram has at most {MAX_DATAGRAM:,}.")
    family = socket.AF_INET if endpoint.group.version == 4 else socket.AF_INET6
    changed = threading.Event()
    transmitter = McastTxSocket(
        family,
        [endpoint.group],
        ifaces=named or None,
        ttl=ttl,
        enable_external_loopback=loopback,
        dscp=dscp,
        allow_missing=wait,
        on_event=lambda event: changed.set(),
    )
    with transmitter:
        patience = Patience(transmitter, changed) if wait else None
        if patience is not None:
            patience.wait_for_all()
        compose = _stamper(payload, length) if stamping else _repeater(payload.ljust(length, b"\0"))
        return STATUS if _send_all(transmitter, endpoint, compose, number, interval, patience) else 0


def _read_payload(text: str | None, file: str | None) -> bytes:
    if file == "-" and sys.stdin is None:
        raise MulticastExpertError("standard input is closed.")
    if file is None:
        return os.fsencode(DEFAULT_TEXT if text is None else text)
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def _repeater(payload: bytes) -> Callable[[int], bytes]:
    return lambda turn: payload


def _stamper(payload: bytes, length: int) -> Callable[[int], bytes]:
    """Return a function that stamps the datagram of each turn, so that the stamp has the time of sending."""
    stream = secrets.randbits(64)
    return lambda turn: stamp.stamped(stamp.Stamp(stream, turn + 1, time_ns()), payload, length)


class Patience:
    """Waits for interfaces that are missing, and says once what it waits for."""

    def __init__(self, transmitter: McastTxSocket, changed: threading.Event) -> None:
        self._transmitter = transmitter
        self._changed = changed
        self._told = ""

    def wait_for_all(self) -> None:
        """Return when all interfaces are there."""
        while missing := self._transmitter.missing_interfaces:
            self._tell(f"waiting for {', '.join(missing)}")
            self._pause()

    def wait_after(self, error: MulticastOSError) -> None:
        """Wait a little before the datagram is sent again. Raises the error where waiting does not help.

        With several interfaces that is so: the others have sent it.
        """
        if len(self._transmitter.filenos()) > 1 or error_name(SYSTEM, error) not in NOT_YET:
            raise error
        self._tell(f"waiting: {error}")
        self._pause()

    def _tell(self, message: str) -> None:
        if message != self._told:
            self._told = message
            terminal.tell(message)

    def _pause(self) -> None:
        self._changed.wait(PAUSE)
        self._changed.clear()


def _send_one(transmitter: McastTxSocket, datagram: bytes, address: IPv4Or6Address, patience: Patience | None) -> float:
    """Send one datagram; return for how many seconds it had to wait."""
    start = None
    while True:
        try:
            transmitter.sendto(datagram, address)
            return 0.0 if start is None else monotonic() - start
        except MulticastOSError as error:
            if patience is None:
                raise
            start = start or monotonic()
            patience.wait_after(error)


def _send_all(
    transmitter: McastTxSocket,
    endpoint: Endpoint,
    compose: Callable[[int], bytes],
    number: int,
    interval: float,
    patience: Patience | None,
) -> bool:
    """Send, and write how many went; return whether Ctrl-C ended it."""
    address = (str(endpoint.group), endpoint.port or 0)
    sent = size = 0

    def send() -> None:
        nonlocal sent, size
        start = monotonic()
        for turn in range(number) if number else count():
            sleep(max(0.0, start + turn * interval - monotonic()))
            datagram = compose(turn)
            # The next ones keep their distance to one that had to wait, instead of catching up.
            start += _send_one(transmitter, datagram, address, patience)
            sent = turn + 1
            size += len(datagram)

    try:
        interrupted = until_interrupted(send)
        if interrupted:
            terminal.end_line()
        return interrupted
    finally:
        if sent:
            total = f"{counted(sent, 'datagram')}, {counted(size, 'byte')}"
            place = " and ".join(iface.display_name for iface in transmitter.network_interfaces)
            terminal.tell(f"{total} to {endpoint._replace(iface=None)} out of {place}")
