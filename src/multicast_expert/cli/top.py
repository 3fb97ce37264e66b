"""`mcast top`: a live table of the streams on the wire."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from time import monotonic
from typing import Annotated, Any

from multicast_expert.cli import terminal
from multicast_expert.cli.interruption import STATUS, end_with_reader, until_interrupted
from multicast_expert.cli.live import Live
from multicast_expert.cli.metrics import MetricsOption, open_exporter
from multicast_expert.cli.parameters import (
    InterfacesOption,
    JsonOption,
    Parameter,
    command,
    read_endpoints,
    some_seconds,
)
from multicast_expert.cli.render.metrics import top_families
from multicast_expert.cli.render.streams import stream_object, table_lines, told_apart
from multicast_expert.cli.render.text import Line, counted
from multicast_expert.cli.render.top import Snapshot, View
from multicast_expert.core.errors import MulticastExpertError

INTERVAL = 1.0
PLAIN_COLUMNS = (
    "group", "source", "interface", "dgram/s", "bit/s", "loss", "drops", "last", "jitter", "hops", "dscp", "joined by",
    "protocol",
)  # fmt: skip
WITHOUT_TEXTUAL = (
    "the live table needs Textual: python -m pip install 'multicast-expert[top]'. "
    "Without it, mcast top | cat shows plain tables, and --json one object a second."
)


@command(
    "Shows a row for each stream on the wire: rates, protocol, loss and jitter where its datagrams have numbers, when "
    "it was last heard, what the kernel of this host drops of it, and which programs have joined. It joins and sends "
    "nothing, and needs root on Linux. Endpoints choose streams, otherwise all are shown.\n\n"
    "On a terminal, keys sort, filter, pause and mark, and open one stream. Elsewhere it writes a table every second, "
    "and with --json an object, also when Ctrl-C ends it.",
    ("mcast top", "follow all streams on all interfaces"),
    ("mcast top 239.1.2.3:5000 -i eth0", "follow one stream"),
    ("mcast top --json --for 5", "write an object a second, for a program"),
)
def run(
    endpoints: Annotated[
        Sequence[str], Parameter("ENDPOINT...", "group[:port], several, or ranges.", values="endpoint")
    ] = (),
    duration: Annotated[float | None, Parameter("--for SECONDS", "Stop after so long.", some_seconds)] = None,
    ifaces: InterfacesOption = (),
    as_json: JsonOption = False,
    metrics: MetricsOption = None,
) -> int:
    """Show the streams until the time is over, or a key or Ctrl-C ends it."""
    screen = _screen() if not as_json and _has_terminal() else None
    with ExitStack() as opened:
        exporter = open_exporter(metrics, opened)
        live = opened.enter_context(closing(Live(ifaces or None, read_endpoints(endpoints, needs_port=False))))
        if exporter is not None:
            exporter.families = lambda: top_families(live.latest)
        if screen is not None:
            app = screen(live, duration)
            app.run()
            return STATUS if app.is_interrupted else 0
        end_with_reader()
        interrupted = until_interrupted(lambda: _write(live, duration, as_json))
        if interrupted:
            live.take()
            _write_one(live.snapshot(), as_json)
    return STATUS if interrupted else 0


def _has_terminal() -> bool:
    # Textual draws on standard error.
    return all(terminal.can_redraw(stream) for stream in (sys.stdin, sys.stdout, sys.stderr))


def _screen() -> Any:
    """Return the screen; MulticastExpertError without Textual."""
    try:
        from multicast_expert.cli.top_screen import TopScreen  # noqa: PLC0415 - slow to load, and not always there
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise MulticastExpertError(WITHOUT_TEXTUAL) from None
    return TopScreen


def _write(live: Live, duration: float | None, as_json: bool) -> None:
    """Write what is there each second, and at the end."""
    start = monotonic()
    deadline = None if duration is None else start + duration
    following = start + INTERVAL
    while deadline is None or monotonic() < deadline:
        until = following if deadline is None else min(following, deadline)
        while (left := until - monotonic()) > 0:
            live.source.wait(left)
            live.take()
        following += INTERVAL
        _write_one(live.snapshot(), as_json)
        terminal.flush()


def _write_one(found: Snapshot, as_json: bool) -> None:
    view = View(found)
    if as_json:
        terminal.write_json(
            {
                "type": "interval",
                "time": round(found.now, 3),
                "interfaces": list(found.interfaces),
                "frames_lost": found.lost,
                "unfollowed": found.unfollowed,
                "forgotten": found.forgotten,
                "streams": [stream_object(each, found.now, found.around) for each in view.rows],
            }
        )
        return
    names, width = told_apart(PLAIN_COLUMNS, found.interfaces), terminal.size(sys.stdout)[0]
    lines = list(table_lines(view.rows, found.now, found.around, width, names))
    head = f"{counted(len(view.rows), 'stream')} on {', '.join(found.interfaces)}"
    troubles = [Line(text, style="red") for text in found.troubles()]
    terminal.show_lines([Line(head, style="bold"), *troubles, *lines, Line("")], sys.stdout)
