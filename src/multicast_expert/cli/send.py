"""`mcast send`: sends datagrams to a group."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import count, repeat
from pathlib import Path
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
    some_seconds,
    whole,
)
from multicast_expert.cli.render.text import counted, scaled
from multicast_expert.cli.sending import Patience, Sending, Stamper
from multicast_expert.core.datagram import MAX_PAYLOAD
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.pacing import Pace, Rate, parse_rate
from multicast_expert.sockets.transmitter import McastTxSocket

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
    says once what is missing, and sends when all are there; and again, should a single one go meanwhile, unless
    --keep-going has it go on.

    A stamp takes the first 40 bytes of each datagram. With --rate it keeps to a schedule, and reports what it achieved.
    """,
    ("mcast send 239.1.2.3:5000%eth0 'hello' -c 3", "Three datagrams out of eth0, one each second"),
    (
        "mcast send 239.1.2.3:5000 --stamp -s 1400 --rate 5Mbps --for 20",
        "A numbered test stream, for mcast recv -q to measure",
    ),
    ("mcast send '[ff15::1234]:5000' --file song.ts -t 8", "A file as one datagram, across routers"),
    excludes=(
        "TEXT --file --lines",
        "--rate --interval",
    ),
    needs=(
        "--interval -c --for --lines",
        "--burst -c --for --lines --rate",
    ),
)
def run(
    endpoint: EndpointArgument,
    text: Annotated[str | None, Parameter("TEXT", f"The payload; usually {DEFAULT_TEXT!r}.")] = None,
    file: Annotated[
        str | None, Parameter("--file FILE", "Send the content of FILE; - is standard input.", values="file")
    ] = None,
    lines: Annotated[bool, Parameter("--lines", "Send each line of standard input as a datagram.")] = False,
    size: Annotated[
        int, Parameter("-s, --size BYTES", "Pad with zeros to this size; IPv4 has at most 65,507.", whole(0))
    ] = 0,
    ifaces: InterfacesOption = (),
    ttl: Annotated[int, Parameter("-t, --ttl HOPS", "How many hops datagrams may go; usually 1.", whole(0, 255))] = 1,
    dscp: Annotated[
        int | None,
        Parameter("--dscp DSCP", "Priority: 0 to 63, or a name such as ef, af41, cs1.", read_dscp, tuple(DSCP)),
    ] = None,
    number: Annotated[
        int | None,
        Parameter("-c, --count N", "How many datagrams, usually 1; 0, or with --for or --rate: no limit.", whole(0)),
    ] = None,
    duration: Annotated[float | None, Parameter("--for SECONDS", "Stop after so many seconds.", some_seconds)] = None,
    interval: Annotated[
        float | None, Parameter("--interval SECONDS", "Seconds from one to the next, usually 1.", seconds)
    ] = None,
    rate: Annotated[
        Rate | None, Parameter("--rate RATE", "5Mbps of payload, or 1000pps, instead of --interval.", parse_rate)
    ] = None,
    burst: Annotated[
        int, Parameter("--burst N", "N datagrams together, and then the pause for all of them.", whole(1))
    ] = 1,
    keep_going: Annotated[
        bool, Parameter("--keep-going", "Count datagrams that fail, as while an interface is down, and go on.")
    ] = False,
    stamping: Annotated[
        bool, Parameter("--stamp", "Number datagrams: `mcast recv` then reports loss, order and latency.")
    ] = False,
    wait: WaitOption = False,
    loopback: LoopbackOption = True,
) -> int:
    """Return 0 if all were sent, 1 if some failed, 130 if Ctrl-C came before."""
    if endpoint.source is not None:
        raise UsageError(
            f"{endpoint} asks for the source {endpoint.source}, which only a receiver can do. A sender's source is its "
            "own address: choose that with -i."
        )
    named = named_interfaces(endpoint, ifaces)
    head = stamp.SIZE if stamping else 0
    most = MAX_PAYLOAD[endpoint.group.version]
    if size > most:
        raise UsageError(f"a datagram of IPv{endpoint.group.version} has at most {most:,} bytes, not {size:,}.")
    if number is None:
        number = 0 if lines or rate is not None or duration is not None else 1
    if lines:
        payloads = _lines(number, (size or most) - head)
        interval = interval or 0.0
    else:
        payload = _read_payload(text, file, most)
        length = len(payload) + head
        if length > (size or most):
            limit = f"--size {size}" if size else f"a datagram of IPv{endpoint.group.version}, at most {most:,}"
            stamped = " with the stamp" if stamping else ""
            raise UsageError(f"{counted(length, 'byte')}{stamped} do not fit into {limit}.")
        payloads = _payloads(payload, number)
    spaced = rate is None and interval != 0
    pace = Pace(Rate(1 / (interval or 1.0)) if spaced else rate, burst)
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
        address = (str(endpoint.group), endpoint.port or 0)
        sending = Sending(transmitter, address, pace, Stamper() if stamping else None, patience, keep_going)
        interrupted = False
        try:
            interrupted = until_interrupted(lambda: sending.send_all(payloads, size, duration))
            if interrupted:
                terminal.end_line()
            sending.end()
        finally:
            # An interface that went meanwhile is still one that it sent from.
            here = [iface.display_name for iface in transmitter.network_interfaces]
            place = " and ".join([*here, *transmitter.missing_interfaces])
            _tell_result(sending, f"{endpoint._replace(iface=None)} out of {place}", rate, interrupted)
        return STATUS if interrupted else 1 if sending.failed else 0


def _read_payload(text: str | None, file: str | None, most: int) -> bytes:
    """Return the payload; of a file, which may be of any length or have no end, no more than tells that it fits."""
    if file == "-" and sys.stdin is None:
        raise MulticastExpertError("standard input is closed.")
    if file is None:
        return os.fsencode(DEFAULT_TEXT if text is None else text)
    with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as opened:
        payload = opened.read(most + 1)
    if len(payload) > most:
        raise UsageError(f"{'standard input' if file == '-' else file} has more than the {most:,} bytes that fit.")
    return payload


def _payloads(payload: bytes, number: int) -> Iterator[bytes]:
    return repeat(payload, number) if number else repeat(payload)


def _lines(number: int, room: int) -> Iterator[bytes]:
    """Yield the lines of standard input without their ends, each as soon as it is there."""
    if sys.stdin is None:
        raise MulticastExpertError("standard input is closed.")
    turns = range(1, number + 1) if number else count(1)
    for turn, line in zip(turns, iter(lambda: sys.stdin.buffer.readline(room + 2), b""), strict=False):
        text = line.removesuffix(b"\n").removesuffix(b"\r")
        if len(text) > room:
            raise MulticastExpertError(f"line {turn} of standard input has more than the {room:,} bytes that fit.")
        yield text


def _tell_result(sending: Sending, place: str, rate: Rate | None, interrupted: bool) -> None:
    sent, seconds = sending.sent, sending.seconds
    # Ctrl-C may come before the first one is counted.
    if sent or interrupted:
        terminal.tell(f"{counted(sent, 'datagram')}, {counted(sending.bytes, 'byte')} to {place}")
    if sent and rate is not None and seconds > 0:
        achieved = f"{sent / seconds:,.6g} datagrams/s, {scaled(8 * sending.bytes / seconds)}bit/s in {seconds:.1f} s"
        asked = f"{scaled(rate.amount)}bit/s" if rate.is_bits else f"{rate.amount:,.6g} datagrams/s"
        terminal.tell(f"{achieved}; asked for: {asked}")
    if sending.failed:
        terminal.tell(f"{counted(sending.failed, 'datagram')} could not be sent", "red")
