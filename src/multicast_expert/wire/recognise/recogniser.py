"""A protocol that shows itself in a payload, and the texts that recognisers read. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

LONGEST = 80
"""Characters of a text that a payload may bring into a detail."""


class Recogniser(NamedTuple):
    """How to tell one protocol from all others.

    Content that could be anything needs one thing more: a port or a group of the protocol, or that the payload
    `follows` an earlier one of the stream. Without any of the three, content alone decides.
    """

    name: str
    source: str
    """The document that defines its bytes."""
    detail: Callable[[bytes], str | None]
    """Returns what is in the payload, which may be empty; None if the payload is of another protocol."""
    ports: frozenset[int] = frozenset()
    groups: frozenset[str] = frozenset()
    follows: Callable[[bytes, bytes], bool] | None = None
    """Returns whether the second payload continues the first, of which both have a detail."""

    @property
    def is_certain(self) -> bool:
        """Whether content alone decides."""
        return not self.ports and not self.groups and self.follows is None


def text(raw: bytes) -> str:
    """Return bytes as UTF-8 up to their first NUL, and at most LONGEST characters of them."""
    decoded = raw[: 4 * LONGEST].partition(b"\0")[0].decode("utf-8", "replace").strip()
    return decoded if len(decoded) <= LONGEST else decoded[: LONGEST - 1] + "…"


def joined(*parts: str) -> str:
    """Return the parts that are not empty, with commas."""
    return ", ".join(part for part in parts if part)
