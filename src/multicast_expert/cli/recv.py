"""`mcast recv`: shows the datagrams of one or more groups, of both IP versions, on any ports."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Annotated

from multicast_expert.cli import terminal
from multicast_expert.cli.arrivals import arrivals, batches, buffers, first_of
from multicast_expert.cli.interruption import STATUS, end_with_reader, held, until_interrupted
from multicast_expert.cli.measurement import Measurement
from multicast_expert.cli.metrics import MetricsOption, open_exporter
from multicast_expert.cli.parameters import (
    InterfacesOption,
    JsonOption,
    Parameter,
    UsageError,
    WaitOption,
    command,
    pairs,
    read_endpoints,
    seconds,
    whole,
)
from multicast_expert.cli.receivers import (
    Unheard,
    allow_descriptors,
    buffer_text,
    described,
    exclude_hosts,
    hosts,
    open_to,
    tell_unheard,
    tell_what_is_missing,
)
from multicast_expert.cli.showing import show_hex, show_json, show_lines, show_raw
from multicast_expert.core.datagram import ReceiveStats
from multicast_expert.core.datagram_buffer import DatagramBuffer
from multicast_expert.observe.meter import Meter
from multicast_expert.sockets.receiver import McastRxSocket

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
    `mcast send --stamp`, iperf 2 and RTP also duplicates, order and jitter. The exit status is 1 if an endpoint brought
    nothing, if fewer than -c datagrams came, or if a stream lost more than --max-loss. With --max-loss it is 3 if none
    of that is so, but a stream has no numbers, or fell silent before the end without an end mark.

    A range is 239.1.1.1+20:5000 for 20 groups, or 239.1.1.1:5000-5003 for four ports.
    """,
    ("mcast recv 239.1.2.3:5000 '[ff15::1234]:5000%eth0'", "Two groups, the second one on eth0 only"),
    ("mcast recv 10.0.0.7@232.1.2.3:5000 -c 1 -W 10", "Whether anything comes from this source within 10 s"),
    ("mcast recv 239.1.2.3:5000 --raw | ffplay -", "Hand a stream to a player"),
    ("mcast recv -q --every 1 239.1.2.3:5000", "Rate and loss each second, and a summary"),
    excludes=("--json --hex --raw", *pairs("-q", "--hex --raw --full")),
    needs=("--every -q", "--csv -q"),
)
def run(
    texts: Annotated[Sequence[str], Parameter("ENDPOINT...", "group:port, several, or ranges.", values="endpoint")],
    ifaces: InterfacesOption = (),
    source: Annotated[Sequence[str], Parameter("--source ADDR...", "Only from this host; repeatable.")] = (),
    exclude: Annotated[Sequence[str], Parameter("--exclude ADDR...", "Not from this host; repeatable.")] = (),
    number: Annotated[int | None, Parameter("-c, --count N", "Stop after N datagrams.", whole(1))] = None,
    duration: Annotated[
        float | None, Parameter("-W, --for, --seconds SECONDS", "Stop after so many seconds.", seconds)
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
        str | None,
        Parameter("--csv FILE", "With -q, the same as CSV, too; - is standard output.", values="file"),
    ] = None,
    max_loss: Annotated[
        float | None,
        Parameter("--max-loss PERCENT", "End with status 1 if a stream lost more.", _percent),
    ] = None,
    metrics: MetricsOption = None,
) -> int:
    """Return 0, 1 if too little came, 3 if a loss cannot be told, 130 if Ctrl-C ended it."""
    if as_json and csv == "-":
        raise UsageError("--json and --csv - both write to standard output: name a file, or leave one out.")
    show = show_json if as_json else show_hex if as_hex else show_raw if as_raw else show_lines(full)
    excluded = hosts(exclude)
    wanted = open_to(read_endpoints(texts), ifaces, hosts(source), excluded, buffer, wait, traffic_class=as_json)
    receivers = list(wanted)
    unheard = Unheard(wanted)
    allow_descriptors(receivers)

    def listen() -> None:
        terminal.tell(f"listening to {described(receivers)}{buffer_text(receivers)}")
        tell_what_is_missing(receivers)
        deadline = None if duration is None else start + duration
        # Without an object for each datagram, where none is needed.
        is_counted = quiet and number is None and not excluded
        for _ in buffers(receivers, deadline, measurement.patience, count) if is_counted else taken(deadline):
            measurement.go_on()
            if exporter is not None and exporter.is_due():
                from multicast_expert.cli.render.metrics import recv_families  # noqa: PLC0415 - else it loads quicker

                exporter.families = recv_families(meter, *reception())
            if meter.datagrams == number:
                return

    def count(receiver: McastRxSocket, buffer: DatagramBuffer) -> None:
        with held:
            meter.take_buffer(buffer, receiver.port, time.time_ns())
            unheard.take(receiver, buffer.origins)

    def taken(deadline: float | None) -> Iterator[None]:
        for batch in batches(receivers, deadline, measurement.patience, {str(each) for each in excluded}):
            counted = batch if number is None else first_of(batch, number - meter.datagrams)
            now_ns = time.time_ns()
            with held:
                for receiver, datagrams in counted:
                    meter.take(datagrams, receiver.port, now_ns)
                    unheard.take(receiver, datagrams)
            if not quiet:
                show(arrivals(counted))
            yield

    def reception() -> tuple[list[ReceiveStats], int]:
        return [each.stats() for each in receivers], min(each.receive_buffer for each in receivers)

    with ExitStack() as opened:
        exporter = open_exporter(metrics, opened)
        for receiver in receivers:
            opened.enter_context(receiver)
            exclude_hosts(receiver, excluded)
        start = time.monotonic()
        measurement = opened.enter_context(Measurement(every, quiet, as_json, csv))
        meter = measurement.meter
        end_with_reader()
        interrupted = until_interrupted(listen)
        if interrupted:
            terminal.end_line()
        # A count that is reached says enough, unless losses are to be judged.
        is_enough = number is not None and meter.datagrams >= number and max_loss is None
        silent = [] if is_enough else unheard.endpoints
        ended_ns = measurement.finish(*reception(), silent)
    tell_unheard(silent, ifaces)
    return STATUS if interrupted else _status(meter, number or 1, bool(silent), max_loss, ended_ns)


def _status(meter: Meter, least: int, misses: bool, max_loss: float | None, ended_ns: int) -> int:
    """Return the exit status after so many datagrams at least, of which so many per cent may be lost."""
    if misses or meter.datagrams < least:
        return 1
    if max_loss is None:
        return 0
    streams = [*meter.streams, *([] if meter.forgotten is None else [meter.forgotten])]
    if any(max(each.worst_percent, each.loss_percent or 0.0) > max_loss for each in streams):
        return 1
    if all(each.is_judged(ended_ns) for each in streams) and not meter.unfollowed:
        return 0
    if all(each.loss_percent is None for each in streams):
        terminal.tell("no datagram has a number that shows a loss: send with mcast send --stamp, iperf 2 or RTP")
    else:
        terminal.tell("--max-loss cannot be judged for every stream: one is silent at the end, or has no numbers")
    return UNKNOWN
