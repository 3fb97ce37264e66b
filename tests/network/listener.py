"""A receiver on eth0 of the listener that notes its events, and a talker that sends one datagram."""

import contextlib
from typing import Any

from linux.plain_sockets import FAMILY, sender_on
from multicast_expert import Datagram, HealingEvent, McastRxSocket
from multicast_expert.testing import wait_until
from network.traffic import GROUP, PATIENCE, PORT, TwoWires


class Listener(McastRxSocket):
    """A receiver on eth0 that notes what it reports, and can wait for it."""

    def __init__(self, version: int, group: str | None = None, **options: Any) -> None:
        self.events: list[HealingEvent] = []
        options = {"iface": "eth0", "timeout": PATIENCE, "on_event": self.events.append, **options}
        super().__init__(FAMILY[version], [group or GROUP[version]], PORT, **options)

    def wait_for_event(self, kind: str, interface: str = "eth0") -> None:
        """Return when it has reported that."""
        wait_until(
            lambda: any((event.kind, event.interface) == (kind, interface) for event in self.events),
            f"{kind} on {interface}",
        )

    def drain(self) -> list[Datagram]:
        """All that is there now."""
        with contextlib.suppress(TimeoutError):
            return self.receive_many(timeout=0)
        return []


def send(wires: TwoWires, group: str, payload: bytes, *, talker: str = "a", source: str | None = None) -> None:
    """A talker sends one datagram."""
    with sender_on(wires.talkers[talker], 6 if ":" in group else 4, source=source) as sender:
        sender.sendto(payload, (group, PORT))
