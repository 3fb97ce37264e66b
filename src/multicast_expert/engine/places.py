"""Places: where datagrams were sent to and arrived, as text. Touches no OS."""

from __future__ import annotations

from multicast_expert.core.addresses import address_text


class Places:
    """The groups and interfaces of one receiver, as its datagrams name them."""

    __slots__ = ("_known", "_names")

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._known: dict[tuple[bytes | None, int | None], tuple[str | None, str | None]] = {}

    def learn(self, destination: bytes | None, index: int | None) -> tuple[str | None, str | None]:
        """Return the group as text and the name of the interface."""
        place = self._known.get((destination, index))
        if place is None:
            group = None if destination is None else address_text(destination)
            place = group, None if index is None else self._names.get(index)
            if place[1] is not None:
                # It may be asked for again: an intake does not keep all of them.
                self._known[destination, index] = place
        return place

    def name(self, index: int, name: str) -> bool:
        """Call the interface so from now on; return whether what was learned before is wrong now."""
        if self._names.get(index) == name:
            return False
        self._names[index] = name
        outdated = bool(self._known)
        self._known.clear()
        return outdated
