"""What bridges between sites say about themselves on their own network, to and from bytes. Pure."""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

GREETINGS = {4: ["239.255.77.66"], 6: ["ff15::4d42", "ff12::4d42"]}
"""For IPv6 of both scopes for which hosts choose different source addresses: those of datagrams, and those of MLD."""
PORT = 7448
"""Where bridges greet each other; no router forwards it, because the hop limit is 1."""

_GREETING = Struct("<4s8sB8s")
_MARK = b"mcG\x01"
_CONNECTED, _SPEAKING = 1, 2


class Greeting(NamedTuple):
    """What a bridge says about itself to those on its network."""

    sender: bytes
    connected: bool
    """Whether it reaches other sites."""
    speaking: bool

    @property
    def rank(self) -> tuple[bool, bool, bytes]:
        """The lowest one speaks."""
        return not self.connected, not self.speaking, self.sender


def network_mark(name: str) -> bytes:
    """Return what tells bridges of this name from others on the same network."""
    return blake2b(name.encode(), digest_size=8).digest()


def build_greeting(greeting: Greeting, network: bytes) -> bytes:
    """Return the bytes of a greeting."""
    flags = _CONNECTED * greeting.connected | _SPEAKING * greeting.speaking
    return _GREETING.pack(_MARK, greeting.sender, flags, network)


def parse_greeting(data: bytes, network: bytes | None) -> Greeting | None:
    """Return the greeting of a bridge of this network, or of any (None); None for anything else."""
    if len(data) != _GREETING.size:
        return None
    mark, sender, flags, name = _GREETING.unpack(data)
    if mark != _MARK or network not in (None, name) or flags > _CONNECTED | _SPEAKING:
        return None
    return Greeting(sender, bool(flags & _CONNECTED), bool(flags & _SPEAKING))
