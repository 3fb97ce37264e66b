"""`mcast recv`: shows the datagrams of one or more groups, of both IP versions, on any ports."""

from __future__ import annotations

import logging
import socket
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from typing import Annotated

from multicast_expert.cli import terminal
from multicast_expert.cli.arrivals import arrivals, batches, first_of
from multicast_expert.cli.interruption import STATUS, end_with_reader, until_interrupted
from multicast_expert.cli.measurement import Measurement
from multicast_expert.cli.metrics import MetricsOption, open_exporter
from multicast_expert.cli.parameters import (
    InterfacesOption,
    JsonOption,
    Parameter,
    UsageError,
    WaitOption,
    command,
    named_interfaces,
    read_endpoints,
    seconds,
    whole,
)
from multicast_expert.cli.render.text import binary_size
from multicast_expert.cli.showing import show_hex, show_json, show_lines, show_raw
from multicast_expert.core.addresses import IPAddress, parse_source
from multicast_expert.core.datagram import ReceiveStats
from multicast_expert.core.endpoints import Endpoint
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.observe.meter import Meter
from multicast_expert.sockets.healing import HealingEvent
from multicast_expert.sockets.receiver import McastRxSocket

# Descriptors that the command needs in addition to those of its groups.
OWN_DESCRIPTORS = 64
# Groups of a receiver that the first line names.
GROUPS_NAMED = 8
SHORTEST_INTERVAL = 0.01
# The exit status where nothing tells whether there was a loss.
UNKNOWN = 3


def _interval(text: str) -> float:
    if (number := seconds(text)) < SHORTEST_INTERVAL:
        raise ValueError(f"an interval has at least {SHORTEST_INTERVAL} seconds.")
    return number


def _percent(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (number := float(text.removesuffix("%"))) <= 100:
            return number
    raise ValueError(f"{text!r} is not a number from 0 to 100.")


@command(
    """
    It receives until Ctrl-C, -c or -W ends it, on all interfaces but loopback unless -i or the endpoint names one.
    With --wait it starts before its interfaces, and says once what is missing; they are joined when they come.
    --source and --exclude apply to all endpoints of their IP version. At the end it reports loss, and for datagrams of
    `mcast send --stamp`, iperf 2 and RTP also duplicates, order and jitter. The exit status is 1 if nothing came, or
    fewer than -c.

    A range is 239.1.1.1+20:5000 for 20 groups, or 239.1.1.1:5000-5003 for four ports.
    """,
    ("mcast recv 239.1.2.3:5000 '[ff15::1234]:5000%eth0'", "Two groups, the second one on eth0 only"),
    ("mcast recv 10.0.0.7@232.1.2.3:5000 -c 1 -W 10", "Whether anything comes from this source within 10 s"),
    ("mcast recv 239.1.2.3:5000 --raw | ffplay -", "Hand a stream to a player"),
    ("mcast recv -q --every 1 239.1.2.3:5000", "Rate and loss each second, and a summary"),
)
def run(
    texts: Annotated[Sequence[str], Parameter("ENDPOINT...", "group:port, several, or ranges.", values="endpoint")],
    ifaces: InterfacesOption = (),
    source: Annotated[Sequence[str], Parameter("--source ADDR...", "Only from this host; repeatable.")] = (),
    exclude: Annotated[Sequence[str], Parameter("--exclude ADDR...", "Not from this host; repeatable.")] = (),
    number: Annotated[int | None, Parameter("-c, --count N", "Stop after N datagrams.", whole(1))] = None,
    duration: Annotated[
        float | None, Parameter("-W, --seconds SECONDS", "Stop after so many seconds.", seconds)
    ] = None,
    wait: WaitOption = False,
    buffer: Annotated[
        int | None,
        Parameter("--receive-buffer BYTES", "Of each socket; usually the largest there is.", whole(1, 0x3FFFFFFF)),
    ] = None,
    as_json: JsonOption = False,
    as_hex: Annotated[bool, Parameter("--hex", "Show payloads in hexadecimal.")] = False,
    full: Annotated[bool, Parameter("--full", "Show payloads whole, however long, on a terminal, too.")] = False,
    as_raw: Annotated[bool, Parameter("--raw", "Write payloads and nothing else, byte for byte.")] = False,
    quiet: Annotated[bool, Parameter("-q, --quiet", "Show no datagrams: only measure.")] = False,
    every: Annotated[
        float | None, Parameter("--every SECONDS", "With -q, a line for each stream so often.", _interval)
    ] = None,
    csv: Annotated[
        str | None, Parameter("--csv FILE", "With -q, intervals and summaries as CSV, too.", values="file")
    ] = None,
    max_loss: Annotated[
        float | None, Parameter("--max-loss PERCENT", "End with status 1 if a stream lost more.", _percent)
    ] = None,
    metrics: MetricsOption = None,
) -> int:
    """Return 0, 1 if too little came, 3 if a loss cannot be told, 130 if Ctrl-C ended it."""
    if as_json + as_hex + as_raw > 1:
        raise UsageError("--json, --hex and --raw exclude each other.")
    if quiet and (as_hex or as_raw or full):
        raise UsageError("-q shows no datagrams: leave --hex, --raw and --full out.")
    if not quiet and (every is not None or csv is not None):
        raise UsageError("--every and --csv need -q.")
    show = show_json if as_json else show_hex if as_hex else show_raw if as_raw else show_lines(full)
    excluded = _hosts(exclude)
    receivers = receivers_for(read_endpoints(texts), ifaces, _hosts(source), excluded, buffer, wait)
    allow_descriptors(receivers)

    def listen() -> None:
        terminal.tell(f"listening to {described(receivers)}{_buffer_text(receivers)}")
        tell_what_is_missing(receivers)
        deadline = None if duration is None else start + duration
        for batch in batches(receivers, deadline, measurement.patience, {str(each) for each in excluded}):
            wanted = batch if number is None else first_of(batch, number - meter.datagrams)
            now_ns = time.time_ns()
            for port, datagrams in wanted:
                meter.take(datagrams, port, now_ns)
            if not quiet:
                show(arrivals(wanted))
            measurement.go_on()
            if exporter is not None and exporter.is_due():
                from multicast_expert.cli.render.metrics import recv_families  # noqa: PLC0415 - else it loads quicker

                exporter.families = recv_families(meter, *reception())
            if meter.datagrams == number:
                return

    def reception() -> tuple[list[ReceiveStats], int]:
        return [each.stats() for each in receivers], min(each.receive_buffer for each in receivers)

    with ExitStack() as opened:
        exporter = open_exporter(metrics, opened)
        for receiver in receivers:
            opened.enter_context(receiver)
            _exclude(receiver, excluded)
        # The events are shown here. Python would show what the library logs about them, too, if nothing took it.
        logging.getLogger("multicast_expert").addHandler(logging.NullHandler())
        start = time.monotonic()
        measurement = opened.enter_context(Measurement(every, quiet, as_json, csv))
        meter = measurement.meter
        end_with_reader()
        interrupted = until_interrupted(listen)
        if interrupted:
            terminal.end_line()
        measurement.finish(*reception())
    return STATUS if interrupted else _status(meter, number or 1, max_loss)


def _status(meter: Meter, least: int, max_loss: float | None) -> int:
    """Return the exit status after so many datagrams, of which so many per cent may be lost."""
    if meter.datagrams < least:
        return 1
    if max_loss is None:
        return 0
    losses = [each.loss_percent for each in meter.streams if each.loss_percent is not None]
    if any(each > max_loss for each in losses):
        return 1
    if not losses:
        terminal.tell("no datagram has a number that shows a loss: send with mcast send --stamp, iperf 2 or RTP")
        return UNKNOWN
    return 0


# Opening


def _hosts(texts: Iterable[str]) -> list[IPAddress]:
    """Return the addresses of hosts, each once; UsageError for any other text."""
    try:
        return list(dict.fromkeys(parse_source(text) for text in texts))
    except MulticastExpertError as error:
        raise UsageError(str(error)) from None


def receivers_for(
    endpoints: Iterable[Endpoint],
    ifaces: Sequence[str],
    sources: Collection[IPAddress],
    excluded: Collection[IPAddress],
    buffer: int | None,
    wait: bool,
) -> list[McastRxSocket]:
    """Return a receiver for every IP version, port, set of sources and interfaces, with all groups that share them."""
    groups: dict[tuple[int, int, tuple[IPAddress, ...], tuple[str, ...]], list[IPAddress]] = defaultdict(list)
    for endpoint in endpoints:
        version = endpoint.group.version
        wanted = _sources(endpoint, sources, excluded)
        groups[version, endpoint.port or 0, wanted, tuple(named_interfaces(endpoint, ifaces))].append(endpoint.group)
    for source in excluded:
        if all(version != source.version for version, *_ in groups):
            raise UsageError(f"--exclude {source} is IPv{source.version}, and no endpoint is.")
    return [
        McastRxSocket(
            socket.AF_INET if version == 4 else socket.AF_INET6,
            members,
            port,
            ifaces=named or None,
            source_ips=wanted or None,
            enable_external_loopback=True,
            receive_buffer=buffer or "largest",
            timestamps=True,
            allow_missing=wait,
            on_event=_report,
        )
        for (version, port, wanted, named), members in groups.items()
    ]


def _sources(
    endpoint: Endpoint, sources: Collection[IPAddress], excluded: Collection[IPAddress]
) -> tuple[IPAddress, ...]:
    """Return the only hosts to receive the endpoint from, empty for all; UsageError if the options contradict it."""
    version = endpoint.group.version
    wanted = [source for source in sources if source.version == version]
    unwanted = [source for source in excluded if source.version == version]
    if endpoint.source is not None:
        wanted.append(endpoint.source)
    elif sources and not wanted and not unwanted:
        raise UsageError(
            f"{endpoint} is IPv{version}, and no --source is; name one, or receive it with another command."
        )
    if wanted and unwanted:
        raise UsageError(f"--exclude applies to groups from all hosts, and {endpoint} names its sources.")
    return tuple(dict.fromkeys(wanted))


def _exclude(receiver: McastRxSocket, excluded: Iterable[IPAddress]) -> None:
    version = 4 if receiver.addr_family == socket.AF_INET else 6
    for source in excluded:
        if source.version == version:
            for group in receiver.mcast_ips:
                receiver.block_source(group, source)


def allow_descriptors(receivers: Iterable[McastRxSocket]) -> None:
    """Raise the limit of open descriptors if the receivers may need more, as far as the administrator allows."""
    try:
        resource = import_module("resource")
    except ModuleNotFoundError:  # Windows, which has no such limit
        return
    # At most; Linux needs one for each IPv4 group, and for IPv6 one on each interface.
    needed = OWN_DESCRIPTORS + sum(len(each.mcast_ips) * (1 + len(each.network_interfaces)) for each in receivers)
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != usual < needed:
        # macOS calls its limit infinite and grants no infinity.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed if most == resource.RLIM_INFINITY else most, most))


def _report(event: HealingEvent) -> None:
    terminal.tell(f"mcast: {event}")


def _buffer_text(receivers: Iterable[McastRxSocket]) -> str:
    sizes = [size for receiver in receivers if (size := receiver.receive_buffer)]
    return f" (receive buffer {binary_size(min(sizes))})" if sizes else ""


def described(receivers: Iterable[McastRxSocket]) -> str:
    """Return the groups, ports and interfaces of receivers, as one text."""
    return "; ".join(
        f"{_first_of(receiver.mcast_ips)} port {receiver.port} on "
        f"{', '.join(iface.display_name for iface in receiver.network_interfaces) or 'no interface yet'}"
        + _sources_of(receiver)
        for receiver in receivers
    )


def _sources_of(receiver: McastRxSocket) -> str:
    sources = dict.fromkeys(each.source for each in receiver.memberships if each.source is not None)
    return f", from {_first_of(list(sources))} only" if sources else ""


def tell_what_is_missing(receivers: Iterable[McastRxSocket]) -> None:
    """Say once which interfaces receivers wait for."""
    missing = [name for receiver in receivers for name in _missing_of(receiver)]
    if missing:
        terminal.tell(f"waiting for {', '.join(dict.fromkeys(missing))}")


def _missing_of(receiver: McastRxSocket) -> list[str]:
    if receiver.network_interfaces or receiver.missing_interfaces:
        return receiver.missing_interfaces
    return [f"an interface with an IPv{4 if receiver.addr_family == socket.AF_INET else 6} address"]


def _first_of(groups: Sequence[str]) -> str:
    more = len(groups) - GROUPS_NAMED
    return ", ".join(groups[:GROUPS_NAMED]) + (f" and {more:,} more" if more > 0 else "")
