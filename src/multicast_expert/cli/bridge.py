"""`mcast bridge`: carries groups between sites that have no multicast between them."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import ip_network
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Annotated

from multicast_expert.bridge.bridge import MOST_BYTES, MOST_GROUPS, Bridge, Settings
from multicast_expert.bridge.interest import USUAL_RANGES, Group, Network, Policy, Wish
from multicast_expert.bridge.network import USUAL_PLACE, Connection, read_locator
from multicast_expert.bridge.status import Status
from multicast_expert.cli import terminal
from multicast_expert.cli.interruption import STATUS, until_interrupted
from multicast_expert.cli.metrics import MetricsOption, open_exporter
from multicast_expert.cli.parameters import (
    InterfacesOption,
    JsonOption,
    Parameter,
    UsageError,
    WaitOption,
    command,
    read_endpoints,
    seconds,
    whole,
)
from multicast_expert.cli.render.bridge import bridge_families, rates_between, status_lines, status_object
from multicast_expert.cli.waiting import missing_interfaces, tell_wait
from multicast_expert.system.interfaces import find_interfaces

if TYPE_CHECKING:
    from multicast_expert.cli.exporter import Exporter

EVERY = 1.0
"""Seconds between two statuses on a terminal, or of --json."""
EVERY_OF_A_LOG = 60.0
"""Seconds between two statuses that go elsewhere."""
_WITH_CERTIFICATES = ("tls/", "quic/")
DISCOVERY = (
    "224.0.0.251:5353",
    "[ff02::fb]:5353",
    "239.255.255.250:1900",
    "[ff02::c]:1900",
    "[ff05::c]:1900",
    "239.255.255.250:3702",
    "[ff02::c]:3702",
)
"""mDNS, SSDP and WS-Discovery."""


def read_range(text: str) -> Network:
    """Return a range of groups. Raises ValueError."""
    network = ip_network(text)
    if not network.is_multicast:
        raise ValueError(f"{text}: these are no groups.")
    return network


@command(
    """
    Run one at each site, each with the endpoints that its hosts want; they connect over Eclipse Zenoh
    (python -m pip install 'multicast-expert[bridge]'), by TCP, TLS or QUIC. Without endpoints, as root on Linux, a site
    wants what its hosts have joined. A group crosses only while another site wants it. Several bridges on one network
    elect the one that speaks, and another takes over when it dies.

    Every datagram loses a hop on its way, as at a router, and one without hops left is dropped: give --ttl if the
    senders' TTL is 1. Receivers see the address of their bridge as the sender, unless it runs with --keep-source.

    It listens on the loopback interface only, unless --listen or --connect says otherwise. With --trust and
    --identity, and locators that begin with tls/, sites prove to each other who they are.
    """,
    ("mcast bridge 239.1.2.3:5000 -i eth0 --listen tcp/0.0.0.0:7447", "At the first site"),
    ("mcast bridge 239.1.2.3:5000 -i eth0 --connect tcp/192.0.2.1:7447 --ttl 4", "At every other site"),
    (
        "mcast bridge '[ff15::1234]:5000' --connect tls/plant.example:7447 --trust ca.pem --identity me.pem",
        "With certificates on both sides",
    ),
)
def run(
    texts: Annotated[
        Sequence[str], Parameter("ENDPOINT...", "[source@]group:port, what this site wants.", values="endpoint")
    ] = (),
    ifaces: InterfacesOption = (),
    listen: Annotated[
        Sequence[str],
        Parameter("--listen LOCATOR...", f"Where other sites connect: {USUAL_PLACE}. Repeatable.", read_locator),
    ] = (),
    connect: Annotated[
        Sequence[str],
        Parameter("--connect LOCATOR...", "Another site, or a router of Zenoh. Repeatable.", read_locator),
    ] = (),
    config: Annotated[str | None, Parameter("--config FILE", "Settings of Zenoh's own (JSON5).", values="file")] = None,
    trust: Annotated[
        str | None, Parameter("--trust FILE", "Certificates (PEM) that sign those of other sites.", values="file")
    ] = None,
    identity: Annotated[
        str | None, Parameter("--identity FILE", "Own certificate and key (PEM).", values="file")
    ] = None,
    network: Annotated[str, Parameter("--network NAME", "Only bridges of this name form a network.")] = "default",
    name: Annotated[str | None, Parameter("--name SITE", "How others see this site; the host's name.")] = None,
    ttl: Annotated[
        int | None,
        Parameter("--ttl N", "Hops that what is sent here may go at other sites, whatever it had.", whole(1, 255)),
    ] = None,
    keep_source: Annotated[
        bool, Parameter("--keep-source", "Send with the source that datagrams had; needs root.")
    ] = False,
    most_groups: Annotated[
        int, Parameter("--max-groups N", f"Groups to carry, at most (default {MOST_GROUPS}).", whole(1, 4096))
    ] = MOST_GROUPS,
    most_megabits: Annotated[
        int, Parameter("--max-rate MBITS", "Megabits a second from other sites, at most (1000).", whole(1, 1_000_000))
    ] = MOST_BYTES // 125_000,
    ranges: Annotated[
        Sequence[Network],
        Parameter("--allow RANGE...", "Without endpoints: only these groups, not 239/8, 232/8, ff00::/8.", read_range),
    ] = (),
    link_local: Annotated[
        bool, Parameter("--link-local", "Without endpoints: also groups that must not leave their link.")
    ] = False,
    discovery: Annotated[
        bool, Parameter("--discovery", "Also want the groups of mDNS, SSDP and WS-Discovery.")
    ] = False,
    duration: Annotated[float | None, Parameter("--for SECONDS", "Stop after so long.", seconds)] = None,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    metrics: MetricsOption = None,
) -> int:
    """Return 0 when the time is over, 1 if an interface is missing, 130 if Ctrl-C ended it."""
    wishes = _wishes([*texts, *(DISCOVERY if discovery else ())])
    if wishes and (ranges or link_local):
        raise UsageError("--allow and --link-local are for a bridge without endpoints.")
    if (
        (trust or identity)
        and config is None
        and not any(each.startswith(_WITH_CERTIFICATES) for each in (*listen, *connect))
    ):
        raise UsageError(
            "--trust and --identity need a locator that begins with tls/ or quic/: others are not encrypted."
        )
    settings = Settings(
        Connection(listen, connect, config, trust, identity),
        network,
        name or socket.gethostname(),
        wishes,
        Policy(ranges or USUAL_RANGES, frozenset(each.group for each in wishes), link_local),
        list(ifaces) or None,
        ttl,
        most_groups,
        most_megabits * 125_000,
        keep_source,
        not wishes,
    )
    missing = missing_interfaces(ifaces)
    if missing and not wait:
        find_interfaces(missing)
    with ExitStack() as opened:
        exporter = open_exporter(metrics, opened)
        bridge = opened.enter_context(Bridge(settings))
        where = ", ".join(settings.connection.listen) or (USUAL_PLACE if not connect and config is None else "")
        listening = f"listening on {where}" if where else ""
        connecting = f"connecting to {', '.join(connect)}" if connect else ""
        terminal.tell(f"bridging {_carried(settings)}, {' and '.join(filter(None, (listening, connecting)))}")
        tell_wait(missing)
        terminal.silence_log()
        view = _View(bridge, settings.name, as_json, exporter)
        interrupted = until_interrupted(lambda: view.follow(duration))
        view.show()
    return STATUS if interrupted else 0


def _wishes(texts: Sequence[str]) -> list[Wish]:
    found = []
    for endpoint in read_endpoints(texts):
        if endpoint.iface is not None:
            raise UsageError(f"{endpoint}: name the interface of a bridge with -i.")
        found.append(Wish(Group(endpoint.group, endpoint.port or 0), endpoint.source))
    return list(dict.fromkeys(found))


def _carried(settings: Settings) -> str:
    if settings.follows:
        return f"what other sites have joined of {', '.join(map(str, settings.policy.ranges))}"
    first = [str(each.group) for each in settings.wishes[:3]]
    more = len(settings.wishes) - len(first)
    return f"{', '.join(first)}{f' and {more} more' if more else ''}"


class _View:
    """Shows the status of a bridge while it runs."""

    def __init__(self, bridge: Bridge, name: str, as_json: bool, exporter: Exporter | None) -> None:
        self._bridge, self._name, self._as_json, self._exporter = bridge, name, as_json, exporter
        self._redraws = not as_json and terminal.can_redraw(sys.stdout)
        self._before: tuple[Status, float] = bridge.status(), monotonic()
        self._lines = 0

    def follow(self, duration: float | None) -> None:
        """Show the status again and again until the time is over."""
        deadline = None if duration is None else monotonic() + duration
        every = EVERY if self._as_json or self._redraws else EVERY_OF_A_LOG
        due = monotonic() + every
        while deadline is None or monotonic() < deadline:
            if self._exporter is not None and self._exporter.is_due():
                self._exporter.families = bridge_families(self._bridge.status())
            if monotonic() >= due:
                due = monotonic() + every
                self.show()
            until = due if deadline is None else min(due, deadline)
            sleep(max(0.0, min(EVERY, until - monotonic())))

    def show(self) -> None:
        """Show the status of now."""
        status, now = self._bridge.status(), monotonic()
        before, since = self._before
        rates = rates_between(before, status, now - since)
        self._before = status, now
        if self._as_json:
            terminal.write_json(status_object(round(time(), 3), self._name, status, rates))
        else:
            lines = list(status_lines(self._name, status, rates))
            if self._redraws:
                width, _ = terminal.size(sys.stdout)
                lines = [row for line in lines for row in line.rows(width)]
            if self._redraws and self._lines:
                terminal.put(f"\x1b[{self._lines}F\x1b[J")
            self._lines = len(lines)
            terminal.show_lines(lines, sys.stdout)
        terminal.flush()
