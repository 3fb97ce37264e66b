"""Which site wants which groups, as keys of Zenoh; and which groups a bridge carries. Pure.

    mcast/NETWORK/here/BRIDGE/NAME                   a bridge or program takes part
    mcast/NETWORK/want/BRIDGE/GROUP/PORT/SOURCE      it wants a group; PORT is 0 for any, SOURCE - for all
    mcast/NETWORK/data/GROUP/PORT                    where frames go
    mcast/NETWORK/pulse/BRIDGE                       what it reports about itself, each second

The first two are liveliness tokens: Zenoh withdraws them when their bridge dies or its connection breaks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple, TypeAlias

from multicast_expert.bridge.frames import ID_BYTES
from multicast_expert.core.addresses import IPAddress, is_multicast
from multicast_expert.core.endpoints import Endpoint

Network: TypeAlias = IPv4Network | IPv6Network
USUAL_RANGES: tuple[Network, ...] = (ip_network("239.0.0.0/8"), ip_network("232.0.0.0/8"), ip_network("ff00::/8"))
"""What a bridge carries that was told no endpoints."""
_LOCAL_RANGE = ip_network("224.0.0.0/24")
_LOCAL_SCOPES = (0, 1, 2)
MOST_WISHES = 16384
"""How many wishes of all sites are remembered."""
_ANY = "-"
_FORBIDDEN = set("/#?$*")


class Group(NamedTuple):
    """A group with its port, as bridges carry it; port 0 in a wish is any."""

    group: IPAddress
    port: int

    def __str__(self) -> str:
        return str(Endpoint(self.group, self.port or None))


class Wish(NamedTuple):
    """What a site wants."""

    group: Group
    source: IPAddress | None = None
    """The only sender that it wants to hear; None: all."""


class Keys:
    """The keys of one network of bridges. Raises ValueError for a name that no key can have."""

    def __init__(self, network: str) -> None:
        if not network or set(network) & _FORBIDDEN:
            raise ValueError(f"{network!r} is no name of a network: it must not be empty or contain / # ? $ *")
        self.root: str = f"mcast/{network}"

    def here(self, own: bytes, name: str) -> str:
        """Return the key of a bridge that takes part."""
        return f"{self.root}/here/{own.hex()}/{''.join(c for c in name if c not in _FORBIDDEN) or 'unnamed'}"

    def want(self, own: bytes, wish: Wish) -> str:
        """Return the key of a wish."""
        return f"{self.root}/want/{own.hex()}/{wish.group.group}/{wish.group.port}/{wish.source or _ANY}"

    def data(self, group: Group) -> str:
        """Return the key of a group's frames; port 0: of those to any port."""
        return f"{self.root}/data/{group.group}/{group.port or '*'}"

    def parts(self, key: str) -> tuple[str, ...]:
        """Return the parts of a key behind its kind; none if it is not of this network."""
        prefix, _, rest = key.removeprefix(self.root + "/").partition("/")
        return tuple(rest.split("/")) if key.startswith(f"{self.root}/{prefix}/") else ()


def parse_id(text: str) -> bytes | None:
    """Return the id of a bridge, None if the text is none."""
    if len(text) != 2 * ID_BYTES or set(text) - set("0123456789abcdef"):
        return None
    return bytes.fromhex(text)


def parse_wish(parts: Sequence[str]) -> tuple[bytes, Wish] | None:
    """Return the bridge and its wish that the parts of a key name; None if they name none."""
    if len(parts) != 4 or (sender := parse_id(parts[0])) is None:
        return None
    try:
        group, port = ip_address(parts[1]), int(parts[2]) if parts[2].isascii() and parts[2].isdecimal() else -1
        source = None if parts[3] == _ANY else ip_address(parts[3])
    except ValueError:
        return None
    if not is_multicast(group.packed) or not 0 <= port <= 0xFFFF:
        return None
    if source is not None and (source.version != group.version or is_multicast(source.packed)):
        return None
    return sender, Wish(Group(group, port), source)


class Interest:
    """The wishes of other sites."""

    def __init__(self, most: int = MOST_WISHES) -> None:
        self._wishes: dict[bytes, dict[Wish, None]] = {}
        self._count = 0
        self._most = most

    def __len__(self) -> int:
        return self._count

    def add(self, sender: bytes, wish: Wish) -> bool:
        """Remember a wish; return False if there is no room for it."""
        known = self._wishes.get(sender, {})
        if wish not in known:
            if self._count >= self._most:
                return False
            self._wishes.setdefault(sender, known)[wish] = None
            self._count += 1
        return True

    def remove(self, sender: bytes, wish: Wish) -> None:
        """Forget a wish."""
        known = self._wishes.get(sender, {})
        if wish in known:
            del known[wish]
            self._count -= 1
            if not known:
                del self._wishes[sender]

    def of(self, sender: bytes) -> list[Wish]:
        """Return what one site wants."""
        return list(self._wishes.get(sender, ()))

    def wanted(self, without: Collection[bytes]) -> dict[Group, set[IPAddress | None]]:
        """Return the groups that sites want, but for these, with the sources; None among them: all."""
        found: dict[Group, set[IPAddress | None]] = {}
        for sender, wishes in self._wishes.items():
            if sender not in without:
                for wish in wishes:
                    found.setdefault(wish.group, set()).add(wish.source)
        return found


class Policy(NamedTuple):
    """Which groups a bridge carries at all."""

    ranges: Sequence[Network] = USUAL_RANGES
    groups: Collection[Group] = frozenset()
    """If there are any, only these."""
    link_local: bool = False
    """Whether groups that must not leave their link are carried, too."""

    def allows(self, group: Group) -> bool:
        """Return whether the group is carried."""
        if self.groups:
            return group in self.groups
        inside = any(group.group.version == each.version and group.group in each for each in self.ranges)
        return inside and (self.link_local or not is_link_local(group.group))


def is_link_local(group: IPAddress) -> bool:
    """Return whether a group must not leave its link: 224.0.0.0/24 (RFC 5771), or by its scope (RFC 7346)."""
    if group.version == 4:
        return group in _LOCAL_RANGE
    return group.packed[1] & 0x0F in _LOCAL_SCOPES


def first_groups(groups: Iterable[Group], most: int) -> Iterator[Group]:
    """Yield so many of the groups, always the same ones of the same set."""
    yield from sorted(groups, key=lambda each: (each.group.version, each.group.packed, each.port))[:most]
