"""Numbered, stamped datagrams that flow all the time, and ears that hear them through every face of the library."""

import contextlib
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv6Interface
from itertools import count
from time import monotonic
from types import TracebackType
from typing import Any, NamedTuple, Self

import anyio
import pytest

from linux.plain_sockets import FAMILY, sender_on
from multicast_expert import AsyncMcastRxSocket, Datagram, HealingEvent, McastRxSocket
from multicast_expert.testing import Host, Interface, Lab, Switch

PORT = 5000
GROUP = {4: "239.1.1.1", 6: "ff15::1:1"}
JUDGES_GROUP = {4: "239.1.1.2", 6: "ff15::1:2"}
"""Carries the same traffic, for a receiver that must not help another one by its membership."""
FACES = ("blocking", pytest.param("asyncio", marks=pytest.mark.slow), pytest.param("trio", marks=pytest.mark.slow))
PATIENCE = 10.0
_STAMP = struct.Struct("=1sQd")


class Heard(NamedTuple):
    """A datagram of the traffic that was received."""

    talker: str
    number: int
    sent: float
    """When, on the clock `monotonic`."""
    datagram: Datagram


class Traffic:
    """Sends a datagram from every talker to every group 200 times a second, in a thread of its own."""

    def __init__(self, talkers: Mapping[str, Interface]) -> None:
        self._talkers = talkers
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic")
        self.last: dict[str, int] = {}
        """The number of each talker's last datagram, once it is over."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Send no more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with contextlib.ExitStack() as opened:
            senders = [
                (name.encode(), group, opened.enter_context(sender_on(talker, version)))
                for name, talker in self._talkers.items()
                for groups in (GROUP, JUDGES_GROUP)
                for version, group in groups.items()
            ]
            for number in count():
                for name, group, sender in senders:
                    sender.sendto(_STAMP.pack(name, number, monotonic()), (group, PORT))
                    self.last[name.decode()] = number
                if self._over.wait(0.005):
                    return


class Ear:
    """A receiver of the library, open on a host from construction on, and a thread that receives all the time."""

    def __init__(self, face: str, host: Host, version: int, group: str | None = None, **options: Any) -> None:
        made = McastRxSocket if face == "blocking" else AsyncMcastRxSocket
        self.version = version
        self.events: list[HealingEvent] = []
        self.heard: list[Heard] = []
        with host.entered():
            groups = [group or GROUP[version]]
            self.receiver = made(FAMILY[version], groups, PORT, on_event=self.events.append, timeout=0.05, **options)
            self.receiver.open()
        self._face = face
        self._changed = threading.Condition()
        self._over = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"{face} ear")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        self._thread.join()
        self.receiver.close()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            if isinstance(self.receiver, AsyncMcastRxSocket):
                anyio.run(self._listen_async, self.receiver, backend=self._face)
            else:
                self._listen(self.receiver)
        except BaseException as failure:  # noqa: BLE001 - raised again where the ear is left
            self._failure = failure

    def _listen(self, receiver: McastRxSocket) -> None:
        while not self._over:
            for datagram in receiver:
                self._hear(datagram)
                if self._over:
                    return

    async def _listen_async(self, receiver: AsyncMcastRxSocket) -> None:
        while not self._over:
            async for datagram in receiver:
                self._hear(datagram)
                if self._over:
                    return

    def _hear(self, datagram: Datagram) -> None:
        talker, number, sent = _STAMP.unpack(datagram.data)
        with self._changed:
            self.heard.append(Heard(talker.decode(), number, sent, datagram))
            self._changed.notify_all()

    def wait_for(self, wanted: Callable[[Heard], bool], what: str) -> Heard:
        """The first datagram of that kind; AssertionError when none comes."""
        deadline = monotonic() + PATIENCE
        looked_at = 0
        with self._changed:
            while True:
                for heard in self.heard[looked_at:]:
                    if wanted(heard):
                        return heard
                looked_at = len(self.heard)
                remaining = deadline - monotonic()
                assert remaining > 0, f"IPv{self.version} {self._face}: never heard {what}; events: {self.events}"
                assert self._failure is None, self._failure
                self._changed.wait(remaining)

    def wait_for_talker(self, talker: str, since: float = 0.0) -> Heard:
        """The first datagram of the talker that it sent at that time or later."""
        return self.wait_for(lambda heard: heard.talker == talker and heard.sent >= since, f"{talker} since {since}")

    def numbers(self, talker: str) -> list[int]:
        """The numbers of all that was heard of a talker, in the order of arrival."""
        return [heard.number for heard in self.heard if heard.talker == talker]


class TwoWires(NamedTuple):
    """A listener with eth0 and eth1, each in a switch of its own with a talker: a on eth0, b on eth1."""

    lab: Lab
    listener: Host
    switches: dict[str, Switch]
    talkers: dict[str, Interface]

    def plug(self, name: str) -> Interface:
        """Give the listener its interface eth0 or eth1."""
        return self.lab.plug(self.listener, self.switches[name], interface=name, **_addresses(int(name[-1]), 1))


def _addresses(wire: int, last: int) -> dict[str, str]:
    return {"ipv4": f"10.1.{wire}.{last}/24", "ipv6": str(IPv6Interface(f"fd01:{wire}::{last}/64"))}


@contextlib.contextmanager
def two_wires(
    plugged: tuple[str, ...] = ("eth0", "eth1"), *, dad: bool = False, querier: bool = False
) -> Iterator[TwoWires]:
    """A fresh network in which the listener has the interfaces that are plugged; with a querier the switches filter."""
    with Lab() as lab:
        switches, talkers = {}, {}
        for number, name in enumerate("ab"):
            switches[f"eth{number}"] = switch = lab.switch(f"switch{number}", snooping=querier, querier=querier)
            talkers[name] = lab.plug(lab.host(name), switch, **_addresses(number, 2))
        wires = TwoWires(lab, lab.host("listener", dad=dad), switches, talkers)
        for name in plugged:
            wires.plug(name)
        yield wires
