"""The view that a snooping bridge of the lab has, the view of `observe`, and queriers as programs."""

import json
import subprocess
import threading
from collections.abc import Callable
from ipaddress import ip_address
from time import monotonic
from typing import Any

from multicast_expert.observe.links import Links
from multicast_expert.observe.members import Timers
from multicast_expert.observe.messages import Happening, Watch
from multicast_expert.observe.source import FrameSource
from multicast_expert.system import netlink
from multicast_expert.system.linux import ask
from multicast_expert.testing import Host, Switch, wait_until
from multicast_expert.wire.group_messages import GroupQuery, parse_group_message
from multicast_expert.wire.packet_socket import Frame
from programs import MCAST

INTERVAL, RESPONSE, LAST = 1.0, 0.4, 0.2
MEMBERSHIP, OTHER_QUERIER = 2 * INTERVAL + RESPONSE, 2 * INTERVAL + RESPONSE / 2
TIMERS = ["--query-interval", f"{INTERVAL}", "--response-time", f"{RESPONSE}", "--last-member-interval", f"{LAST}"]
PATIENCE = 20

Entry = tuple[str, str, str, tuple[str, ...]]
"""Port, group, filter mode and sources."""


class Program:
    """`mcast` in JSON on a host; its events are collected by a thread."""

    def __init__(self, host: Host, *arguments: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.process = host.popen(
            [*MCAST, *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def find(self, **wanted: object) -> list[dict[str, Any]]:
        """Return the events that have these values."""
        return [each for each in list(self.events) if wanted.items() <= each.items()]

    def wait_for(self, **wanted: object) -> dict[str, Any]:
        """Return the first event that has these values, as soon as it is there."""
        wait_until(lambda: bool(self.find(**wanted)), f"an event with {wanted} among {self.events}", PATIENCE)
        return self.find(**wanted)[0]

    def die(self) -> None:
        """Kill it, so that it can say nothing more."""
        self.process.kill()
        self.process.wait()
        self._thread.join()


def querier(host: Host, *more: str) -> Program:
    """Start a querier with short timers on a host's eth0."""
    return Program(host, "querier", "-i", "eth0", *TIMERS, *more)


class PortSource(FrameSource):
    """What comes in on the ports, and queries; reports that the switch passes on are members of another port."""

    def __init__(self, ports: list[str]) -> None:
        super().__init__(ports)
        self.askers: set[tuple[str, str]] = set()
        """Ports with the hosts behind them that asked."""

    def take(self, limit: int = 256) -> list[Frame]:
        """Return frames that wait."""
        return [frame for frame in super().take(limit) if self._asks(frame) or not frame.outgoing]

    def _asks(self, frame: Frame) -> bool:
        message = parse_group_message(frame.packet)
        if message is None or not isinstance(message.content, GroupQuery):
            return False
        if not frame.outgoing:
            self.askers.add((frame.interface, message.host))
        return True


class Views:
    """What `observe` makes of the frames on the switch's ports, and what the switch itself makes of them."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        switch._set_times(interval=INTERVAL, response=RESPONSE, membership=MEMBERSHIP, querier=OTHER_QUERIER)
        switch._set_bridge(f"mcast_last_member_interval {round(LAST * 100)}")
        with switch.entered():
            self._source = PortSource([port.name for port in switch.ports])
        self.watch = Watch(self._source)
        self.watch.links = Links(timers=Timers(INTERVAL, RESPONSE))
        self.happened: list[Happening] = []

    def step(self) -> None:
        """Take what has come so far."""
        with self._switch.entered():
            while new := self.watch.step(0):
                self.happened += new

    def ours(self) -> tuple[set[Entry], set[str]]:
        """Return the members and queriers that we know behind each port, like the switch: not those of 224.0.0.0/24."""
        self.step()
        known = self.watch.links.known.items()
        members = {
            (port, group, "include" if member.includes else "exclude", tuple(sorted(member.sources)))
            for (port, _), link in known
            for (group, _), member in link.members.items()
            if ":" in group or not group.startswith("224.0.0.")
        }
        queriers = {(port, link.querier.address) for (port, _), link in known if link.querier}
        return members, {port for port, _ in queriers & self._source.askers}

    def theirs(self) -> tuple[set[Entry], set[str]]:
        """Return the members that the switch knows behind each port, and the ports that it knows queriers behind."""
        listing = json.loads(self._switch.command("bridge", "-j", "-d", "-s", "mdb", "show", "dev", "br0"))
        members = {
            (row["port"], str(ip_address(row["grp"])), row["filter_mode"], _sources(row))
            for row in listing[0]["mdb"]
            if "src" not in row and row["port"] != "br0"
        }
        return members, {each["port"] for each in listing[0].get("router", {}).get("br0", ())}

    def queriers(self) -> set[str]:
        """Return the queriers that we know behind any port."""
        self.step()
        return {link.querier.address for link in self.watch.links.known.values() if link.querier}

    def their_queriers(self) -> set[str]:
        """Return the queriers that the switch knows."""
        links = map(netlink.parse_link, self._switch.run(ask, netlink.link_request()))
        return {
            str(each.address)
            for link in links
            if link and link.bridge
            for each in link.bridge.queriers
            if each.is_other
        }

    def agree(self, what: Callable[[], bool] = lambda: True) -> None:
        """Return as soon as both views are equal and as expected."""
        deadline = monotonic() + PATIENCE
        ours, theirs = self.ours(), self.theirs()
        while not what() or ours != theirs:
            assert monotonic() < deadline, [(one - two, two - one) for one, two in zip(ours, theirs, strict=True)]
            self._source.wait(0.05)
            ours, theirs = self.ours(), self.theirs()

    def close(self) -> None:
        """Close the source of frames."""
        self._source.close()


def _sources(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(str(ip_address(each["address"])) for each in row.get("source_list", ())))
