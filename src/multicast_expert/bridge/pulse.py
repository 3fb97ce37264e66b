"""What each bridge reports about itself every second, and what that tells about the others: names and delays. Pure.

A pulse carries the sender's clock, and the last such clocks that it heard with how long ago that was; so two bridges
know the time there and back without equal clocks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from multicast_expert.bridge.interest import parse_id

EVERY = 1.0
"""Seconds between two pulses."""
MOST_SITES = 1024
"""How many sites are followed."""
_LONGEST, _LONGEST_NAME = 65536, 64
_NS = 1_000_000_000


@dataclass(slots=True)
class Site:
    """Another bridge or program."""

    name: str = ""
    speaking: bool = True
    delay: float | None = None
    """Seconds to there: half of the time there and back, at its least of late."""
    clock: int | None = None
    heard_at: int = 0
    """Its clock in its last pulse, and when that came by the own clock, in nanoseconds."""


class Pulses:
    """The other sites, by id."""

    def __init__(self, own: bytes) -> None:
        self.sites: dict[bytes, Site] = {}
        self._own = own

    def add(self, sender: bytes, name: str) -> bool:
        """Follow a site that takes part; return False if there is no room."""
        if sender == self._own or (sender not in self.sites and len(self.sites) >= MOST_SITES):
            return False
        self.sites.setdefault(sender, Site()).name = name[:_LONGEST_NAME]
        return True

    def remove(self, sender: bytes) -> None:
        """Forget a site."""
        self.sites.pop(sender, None)

    def build(self, speaking: bool, now_ns: int) -> bytes:
        """Return a pulse."""
        heard = {
            key.hex(): [site.clock, now_ns - site.heard_at]
            for key, site in self.sites.items()
            if site.clock is not None
        }
        return json.dumps({"clock": now_ns, "speaking": speaking, "heard": heard}).encode()

    def take(self, sender: bytes, data: bytes, now_ns: int) -> bool:
        """Take in a pulse; return False for what is none, or of an unknown site."""
        site = self.sites.get(sender)
        if site is None or len(data) > _LONGEST:
            return False
        try:
            told = json.loads(data)
            clock, speaking, heard = told["clock"], told["speaking"], told["heard"]
            own = heard.get(self._own.hex())
            if not (_is_time(clock) and isinstance(speaking, bool)):
                return False
            if own is not None:
                sent, held = own
                if not (_is_time(sent) and _is_time(held)):
                    return False
                self._note_delay(site, now_ns - sent - held)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return False
        site.clock, site.speaking, site.heard_at = clock, speaking, now_ns
        return True

    @staticmethod
    def _note_delay(site: Site, there_and_back: int) -> None:
        if 0 <= there_and_back < 60 * _NS:
            delay = there_and_back / 2 / _NS
            site.delay = delay if site.delay is None else min(delay, site.delay * 1.1)


def _is_time(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def sender_of(parts: tuple[str, ...]) -> bytes | None:
    """Return the id in the parts of a key behind its kind."""
    return parse_id(parts[0]) if parts else None
