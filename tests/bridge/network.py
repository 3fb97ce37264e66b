"""Sites with routed unicast between them only, and `mcast bridge` on them as a program."""

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from time import monotonic, sleep
from typing import Any, NamedTuple

from multicast_expert import Datagram, McastRxSocket, McastTxSocket
from multicast_expert.testing import Host, Lab, Switch
from programs import MCAST

GROUPS = {4: "239.1.2.3", 6: "ff15::1234"}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
PORT = 5000
ENDPOINTS = [f"{GROUPS[4]}:{PORT}", f"[{GROUPS[6]}]:{PORT}"]
HUB = "tcp/192.0.1.1:7447"
PATIENCE = 20.0


class Site(NamedTuple):
    """A network with a host, and hosts for bridges, which are also on the way to other sites."""

    number: int
    switch: Switch
    host: Host
    gates: list[Host]


class Running:
    """A bridge that runs, and what it shows."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._statuses: list[dict[str, Any]] = []
        self._more = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with suppress(ValueError):  # the lab closes it
            for line in self.process.stdout:
                with self._more:
                    self._statuses.append(json.loads(line))
                    self._more.notify_all()

    def line(self) -> dict[str, Any]:
        """The next status."""
        with self._more:
            count = len(self._statuses)
            came = self._more.wait_for(lambda: len(self._statuses) > count, PATIENCE)
        assert came, self.process.stderr.read() if self.process.poll() is not None and self.process.stderr else "hangs"
        return self._statuses[-1]

    def status(self, condition: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        """The first status from now on that is as it should be."""
        deadline = monotonic() + PATIENCE
        while not condition(found := self.line()):
            assert monotonic() < deadline, f"{what}; instead {found}"
        return found


@contextmanager
def sites(*gates: int) -> Iterator[list[Site]]:
    """So many sites, each with so many hosts for bridges: 10.N.0.1 and on, and 192.0.N.1 and on the way to others."""
    with Lab() as lab:
        router = lab.router("router")
        made = []
        for number, count in enumerate(gates, 1):
            switch, wan = lab.switch(f"lan{number}"), lab.switch(f"wan{number}")
            lab.plug(router, wan, ipv4=f"192.0.{number}.254/24", ipv6=f"fd1{number}::ff/64", interface=f"wan{number}")
            host = lab.host(f"host{number}")
            lab.plug(host, switch, ipv4=f"10.{number}.0.100/24", ipv6=f"fd0{number}::100/64")
            doors = []
            for each in range(1, count + 1):
                door = lab.host(f"gate{number}{each}")
                lab.plug(door, switch, ipv4=f"10.{number}.0.{each}/24", ipv6=f"fd0{number}::{each}/64")
                ipv6 = f"fd1{number}::{each}/64"
                lab.plug(door, wan, ipv4=f"192.0.{number}.{each}/24", ipv6=ipv6, interface="wan")
                door.ip(f"route add 192.0.0.0/16 via 192.0.{number}.254")
                doors.append(door)
            made.append(Site(number, switch, host, doors))
        yield made


def bridge(gate: Host, *arguments: str, endpoints: Sequence[str] = ENDPOINTS, before: Sequence[str] = ()) -> Running:
    """Start a bridge that shows its status as JSON, and return when it runs."""
    words = [*before, *MCAST, "bridge", *endpoints, "-i", "eth0", "--name", gate.name, "--json", *arguments]
    process: subprocess.Popen[str] = gate.popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "bridging" in line, line + process.stderr.read()
    return Running(process)


def hub_and_spokes(places: Sequence[Site], *arguments: str, **more: Any) -> list[Running]:
    """Start a bridge on every gate: the first listens, the others connect; return when all see each other."""
    gates = [gate for site in places for gate in site.gates]
    running = [
        bridge(gate, *(("--connect", HUB) if number else ("--listen", HUB)), *arguments, **more)
        for number, gate in enumerate(gates)
    ]
    for each in running:
        each.status(lambda status: len(status["sites"]) == len(gates) - 1, "sees the others")
    for place in places:
        numbers = [number for number, gate in enumerate(gates) if gate in place.gates]
        deadline = monotonic() + PATIENCE
        while sum(running[number].line()["speaking"] for number in numbers) != 1:
            assert monotonic() < deadline, "one bridge of each site speaks"
    for each in running:
        each.status(lambda status: all(found["wanted_by"] for found in status["groups"]), "is wanted elsewhere")
    return running


@contextmanager
def listening(host: Host, version: int, group: str | None = None, **more: Any) -> Iterator[McastRxSocket]:
    """A receiver on a host."""
    with host.entered(), ExitStack() as opened:
        yield opened.enter_context(
            McastRxSocket(
                FAMILIES[version], [group or GROUPS[version]], PORT, iface="eth0", receive_buffer=4_000_000, **more
            )
        )


def send(
    host: Host,
    version: int,
    payloads: Sequence[bytes],
    *,
    ttl: int = 8,
    pause: float = 0.0,
    group: str | None = None,
    dscp: int | None = None,
) -> None:
    """Send payloads to the group, 50 at a time with a pause between."""
    with host.entered(), McastTxSocket(FAMILIES[version], iface="eth0", ttl=ttl, dscp=dscp) as sender:
        for start in range(0, len(payloads), 50):
            sender.send_many(payloads[start : start + 50], (group or GROUPS[version], PORT))
            sleep(pause)


def numbered(count: int, start: int = 0, size: int = 100) -> list[bytes]:
    """Payloads with numbers."""
    return [number.to_bytes(4, "big").ljust(size, b".") for number in range(start, start + count)]


def received(receiver: McastRxSocket, count: int, patience: float = PATIENCE) -> list[Datagram]:
    """Receive so many, and what comes within a moment after them."""
    found: list[Datagram] = []
    deadline = monotonic() + patience
    while len(found) < count and monotonic() < deadline:
        try:
            found += receiver.receive_many(1024, timeout=0.5)
        except TimeoutError:
            continue
    try:
        while True:
            found += receiver.receive_many(1024, timeout=0.3)
    except TimeoutError:
        return found
