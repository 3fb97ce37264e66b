"""`mcast recv`: shows what arrives for one or more groups, of both IP versions, on any ports."""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import islice
from operator import attrgetter
from typing import Annotated, NamedTuple

import typer

from multicast_expert.addresses import Endpoint, IPAddress
from multicast_expert.cli import terminal
from multicast_expert.cli.parameters import JsonOption, UsageError, read_endpoint
from multicast_expert.cli.render.datagram import datagram_line, datagram_object, headline, hex_dump, summary
from multicast_expert.datagram import Datagram
from multicast_expert.healing import HealingEvent
from multicast_expert.receiver import McastRxSocket

# How many datagrams one receiver may hand out before the others are asked.
BATCH = 64
# Seconds after which the descriptors are asked for again: a receiver may replace its sockets while it is waited for.
PATIENCE = 1.0


class Arrival(NamedTuple):
    """A datagram, the port that it was sent to, and when it came."""

    datagram: Datagram
    port: int
    time: datetime


def command(
    endpoints: Annotated[
        list[Endpoint],
        typer.Argument(metavar="ENDPOINT...", parser=read_endpoint, show_default=False, help="group:port, several."),
    ],
    ifaces: Annotated[
        list[str] | None,
        typer.Option("-i", "--interface", metavar="IFACE", show_default=False, help="Name or address; repeatable."),
    ] = None,
    number: Annotated[int | None, typer.Option("-c", "--count", min=1, help="Stop after so many datagrams.")] = None,
    wait: Annotated[float | None, typer.Option("-W", "--wait", min=0, help="Stop after so many seconds.")] = None,
    as_json: JsonOption = False,
    as_hex: Annotated[bool, typer.Option("--hex", help="Show payloads in hexadecimal.")] = False,
) -> None:
    """Receive from groups and show every datagram.

    It goes on until Ctrl-C, -c or -W, and listens on all interfaces but loopback unless -i or the endpoint names one.
    Exit status 1: nothing came, or fewer than -c within -W.

    Example: mcast recv 239.1.2.3:5000 '[ff15::1234]:5000%eth0'
    """
    if as_json and as_hex:
        raise UsageError("--json and --hex exclude each other.")
    with ExitStack() as opened:
        receivers = [opened.enter_context(receiver) for receiver in _receivers(endpoints, ifaces or [])]
        start = time.monotonic()
        sizes: list[int] = []
        interrupted = False
        try:
            terminal.tell(f"listening to {_described(receivers)}")
            for arrival in islice(_arrivals(receivers, None if wait is None else start + wait), number):
                sizes.append(len(arrival.datagram.data))
                _show(arrival, as_json, as_hex)
        except KeyboardInterrupt:
            interrupted = True
        terminal.tell(summary(sizes, time.monotonic() - start, [receiver.stats() for receiver in receivers]))
    if not sizes or (number is not None and len(sizes) < number and not interrupted):
        raise typer.Exit(1)


def _receivers(endpoints: Iterable[Endpoint], ifaces: Sequence[str]) -> list[McastRxSocket]:
    """Return a receiver for every IP version, port, source and set of interfaces, with all groups that share them."""
    groups: dict[tuple[int, int, IPAddress | None, tuple[str, ...]], list[IPAddress]] = defaultdict(list)
    for endpoint in endpoints:
        if endpoint.iface is not None and ifaces and endpoint.iface not in ifaces:
            raise UsageError(f"{endpoint} names another interface than -i: name one.")
        named = tuple(ifaces) if endpoint.iface is None else (endpoint.iface,)
        groups[endpoint.group.version, endpoint.port or 0, endpoint.source, named].append(endpoint.group)
    return [
        McastRxSocket(
            socket.AF_INET if version == 4 else socket.AF_INET6,
            members,
            port,
            ifaces=named or None,
            source_ips=None if source is None else [source],
            enable_external_loopback=True,
            timestamps=True,
            on_event=_report,
        )
        for (version, port, source, named), members in groups.items()
    ]


def _report(event: HealingEvent) -> None:
    terminal.tell(f"mcast: {event}")


def _described(receivers: Iterable[McastRxSocket]) -> str:
    return "; ".join(
        f"{', '.join(receiver.mcast_ips)} port {receiver.port} on "
        f"{', '.join(iface.display_name for iface in receiver.network_interfaces)}"
        for receiver in receivers
    )


def _arrivals(receivers: Sequence[McastRxSocket], deadline: float | None) -> Iterator[Arrival]:
    """Yield what arrives until the deadline (monotonic seconds), and flush the output before each wait."""
    busy: list[McastRxSocket] = []
    while True:
        patience = 0.0 if busy else PATIENCE
        if deadline is not None:
            patience = min(patience, deadline - time.monotonic())
        if patience < 0:
            return
        busy = list(dict.fromkeys((*busy, *_readable(receivers, patience))))
        arrivals: list[Arrival] = []
        for receiver in tuple(busy):
            taken = _take(receiver)
            arrivals += taken
            if len(taken) < BATCH:
                busy.remove(receiver)
        yield from sorted(arrivals, key=attrgetter("time"))
        sys.stdout.flush()


def _readable(receivers: Iterable[McastRxSocket], timeout: float) -> list[McastRxSocket]:
    """Return the receivers for which something may have arrived, after `timeout` seconds at the latest."""
    # Made anew each time, and not of the kind that keeps descriptors in the kernel: a receiver may have replaced a
    # socket by another one with the same descriptor.
    with getattr(selectors, "PollSelector", selectors.SelectSelector)() as selector:
        for receiver in receivers:
            for descriptor in receiver.filenos():
                selector.register(descriptor, selectors.EVENT_READ, receiver)
        return [key.data for key, _ in selector.select(timeout)]


def _take(receiver: McastRxSocket) -> list[Arrival]:
    try:
        datagrams = receiver.receive_many(BATCH, timeout=0)
    except TimeoutError:
        return []
    now = time.time_ns()
    return [
        Arrival(datagram, receiver.port, datetime.fromtimestamp((datagram.timestamp_ns or now) / 1e9, UTC))
        for datagram in datagrams
    ]


def _show(arrival: Arrival, as_json: bool, as_hex: bool) -> None:
    datagram, port, when = arrival
    if as_json:
        text = when.isoformat(timespec="microseconds").replace("+00:00", "Z")
        # The one control character that JSON may hold as it is
        terminal.write(json.dumps(datagram_object(datagram, port, text)).replace("\x7f", "\\u007f"))
        return
    text = when.astimezone().strftime("%H:%M:%S.%f")
    if not as_hex:
        terminal.write(datagram_line(datagram, port, text))
        return
    terminal.write(headline(datagram, port, text))
    for row in hex_dump(datagram.data):
        terminal.write(row)
