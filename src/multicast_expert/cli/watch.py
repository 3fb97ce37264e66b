"""`mcast watch`: shows what hosts and queriers say about groups, as they say it. Sends and joins nothing."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from contextlib import ExitStack, closing
from shutil import which
from time import localtime, monotonic, strftime
from typing import TYPE_CHECKING, Annotated

from multicast_expert.cli import terminal
from multicast_expert.cli.interruption import end_with_reader
from multicast_expert.cli.metrics import MetricsOption, open_exporter
from multicast_expert.cli.parameters import (
    InterfacesOption,
    JsonOption,
    Parameter,
    UsageError,
    command,
    only_group,
    read_endpoints,
    some_seconds,
)
from multicast_expert.cli.render.metrics import Heard, watch_families
from multicast_expert.cli.render.text import counted
from multicast_expert.cli.render.watch import event_line, event_object
from multicast_expert.observe.hooks import Hooks
from multicast_expert.observe.messages import Happening, Watch
from multicast_expert.observe.source import FrameSource

if TYPE_CHECKING:
    from multicast_expert.cli.exporter import Exporter

LOOK_AT_COMMANDS, LOOK_AT_METRICS = 0.1, 1.0
"""Seconds between two looks at the commands that run, and at what the metrics are made of."""


@command(
    """
    It reads IGMP and MLD from the wire as root and shows queries, reports, joins and leaves, which querier is elected,
    and what times out. It follows all interfaces, also those that come later. It joins and sends nothing, so behind a
    snooping switch it may see only what the switch sends to this port: queries always, the reports of others often not.

    The commands of --on-join and --on-leave run without a shell, with MCAST_EVENT (join, leave or timeout),
    MCAST_GROUP, MCAST_SOURCE (empty for all), MCAST_HOST and MCAST_INTERFACE in their environment.
    """,
    ("mcast watch", "All of IGMP and MLD, until Ctrl-C"),
    ("mcast watch 239.1.2.3 -i eth0 --for 300 --json", "One group, for a program"),
    ("mcast watch 239.1.2.3 --on-join ./start --on-leave ./stop", "Run a script when a host joins or leaves"),
)
def run(
    texts: Annotated[Sequence[str], Parameter("GROUP...", "Groups, or ranges of them.", values="group")] = (),
    ifaces: InterfacesOption = (),
    on_join: Annotated[str | None, Parameter("--on-join COMMAND", "Run it when a host joins.")] = None,
    on_leave: Annotated[str | None, Parameter("--on-leave COMMAND", "Run it when a host leaves.")] = None,
    all_groups: Annotated[
        bool, Parameter("--all-groups", "Let the network cards pass all groups (allmulti) while it runs.")
    ] = False,
    duration: Annotated[float | None, Parameter("--for SECONDS", "Stop after so long.", some_seconds)] = None,
    as_json: JsonOption = False,
    metrics: MetricsOption = None,
) -> int:
    """Return 0 when the time is over."""
    why = "IGMP and MLD know no ports, and interfaces come with -i"
    groups = {str(only_group(each, why)) for each in read_endpoints(texts, needs_port=False)}
    try:
        hooks = Hooks(on_join, on_leave)
    except ValueError as error:
        raise UsageError(f"--on-join, --on-leave: {error}.") from None
    for name in hooks.programs:
        if which(name) is None:
            raise UsageError(f"--on-join, --on-leave: there is no program {name}.")
    with ExitStack() as opened:
        exporter = open_exporter(metrics, opened)
        source = opened.enter_context(closing(FrameSource(ifaces or None, all_groups=all_groups)))
        names = ", ".join(each.machine_name for each in source.interfaces)
        for_so_long = "; Ctrl-C ends it" if duration is None else f" for {duration:g} s"
        terminal.tell(f"watching IGMP and MLD on {names}{for_so_long}")
        end_with_reader()
        _follow(source, hooks, groups, duration, as_json, exporter)
    return 0


def _follow(
    source: FrameSource,
    hooks: Hooks,
    groups: Collection[str],
    duration: float | None,
    as_json: bool,
    exporter: Exporter | None,
) -> None:
    watch, deadline = Watch(source), None if duration is None else monotonic() + duration
    heard = Heard()
    told: dict[str, int] = {}
    while deadline is None or monotonic() < deadline:
        waits = [] if deadline is None else [max(0.0, deadline - monotonic())]
        waits += [LOOK_AT_COMMANDS] if hooks.busy else [LOOK_AT_METRICS] if exporter else []
        happened = watch.step(min(waits, default=None))
        for each in happened:
            if not groups or each.event.group is None or each.event.group in groups:
                show_happening(each, as_json=as_json)
                hooks.take(each)
                heard.note(each.interface, each.version, each.event)
        terminal.flush()
        for failure in hooks.step():
            terminal.tell(f"mcast: {failure}")
        tell_more(told, source.lost(), "frame", "came faster than they were read")
        tell_more(told, watch.links.ignored, "message", "of too many VLANs were ignored")
        tell_more(told, hooks.skipped, "event", "ran no command, because too many ran")
        if exporter is not None and exporter.is_due():
            interfaces = [each.machine_name for each in source.interfaces]
            exporter.families = watch_families(watch.links.known, interfaces, heard)


def tell_more(told: dict[str, int], count: int, noun: str, what: str) -> None:
    """Tell a count that has grown since it was told."""
    if count > told.get(what, 0):
        told[what] = count
        terminal.tell(f"mcast: {counted(count, noun)} {what}")


def show_happening(happening: Happening, own: Collection[str] = (), *, as_json: bool) -> None:
    """Write an event as a line or as JSON."""
    interface, version, stamp, event = happening
    if as_json:
        terminal.write_json(event_object(stamp / 1e9, interface, version, event))
        return
    clock = strftime("%H:%M:%S", localtime(stamp // 10**9)) + f".{stamp // 10**6 % 1000:03d}"
    terminal.show_lines([event_line(clock, interface, version, event, own)], sys.stdout)
