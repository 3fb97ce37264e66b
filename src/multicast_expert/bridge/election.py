"""Which of the bridges on one network speaks: takes in its datagrams and re-sends those of others. Pure, no clock.

Each bridge greets the others on its network by multicast. A bridge that reaches other sites comes before one that does
not, the one that speaks already before the others, and then the lowest id. So the speaker changes only when it has to.
"""

from __future__ import annotations

from multicast_expert.wire.bridge_greeting import Greeting

GREET_EVERY = 0.15
"""Seconds between two greetings."""
GONE_AFTER = 0.55
"""Seconds of silence after which a bridge counts as gone."""
LISTEN_FIRST = 0.4
"""Seconds that a bridge listens before it speaks."""
MOST_NEIGHBOURS = 16
"""How many bridges on one network are followed, and may be: anybody there can invent more."""

_MOST_ADDRESSES = 16


class Election:
    """The bridges on one network, as one of them hears them; `own` is its id, `now` when it starts."""

    def __init__(self, own: bytes, now: float) -> None:
        self.own = own
        self.speaking: bool = False
        self.is_settled: bool = False
        """Whether it has listened for long enough to decide."""
        self._connected = False
        self._since = now
        self._heard: dict[bytes, tuple[Greeting, float, frozenset[str]]] = {}

    def hear(self, greeting: Greeting, address: str, now: float) -> None:
        """Take in a greeting that came from this address."""
        known = self._heard.get(greeting.sender)
        if greeting.sender == self.own or (known is None and len(self._heard) >= MOST_NEIGHBOURS):
            return
        addresses = frozenset() if known is None or len(known[2]) >= _MOST_ADDRESSES else known[2]
        self._heard[greeting.sender] = greeting, now, addresses | {address}

    def step(self, connected: bool, now: float) -> bool:
        """Decide anew; return whether this bridge speaks."""
        self._heard = {key: each for key, each in self._heard.items() if each[1] > now - GONE_AFTER}
        self._connected = connected
        self.is_settled = now >= self._since + LISTEN_FIRST
        if self.is_settled:
            own = self.greeting.rank
            self.speaking = all(own < greeting.rank for greeting, _, _ in self._heard.values())
        return self.speaking

    @property
    def greeting(self) -> Greeting:
        """What to say now."""
        return Greeting(self.own, self._connected, self.speaking)

    @property
    def neighbours(self) -> dict[bytes, frozenset[str]]:
        """The other bridges on this network, and the addresses that they greet from."""
        return {key: addresses for key, (_, _, addresses) in self._heard.items()}
