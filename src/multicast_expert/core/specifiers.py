"""What a text may mean where an interface is to be named. Pure: touches no OS.

People name an interface by what they have at hand, and one text may be read in several ways. Which one is meant depends
on the interfaces that there are: see `fitting` in `core/interfaces.py`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_interface
from typing import NamedTuple, TypeAlias

IPNetwork: TypeAlias = IPv4Network | IPv6Network
Text: TypeAlias = str | int | IPv4Address | IPv6Address | IPv4Network | IPv6Network
"""What names an interface and stands for its own text."""

_INDEX = re.compile(r"[1-9][0-9]{0,9}")
# As Linux, Windows and switches write it; some programs leave out the zero of a small octet.
_HARDWARE = re.compile(
    r"[0-9a-f]{1,2}(?:(?P<between>[:-])[0-9a-f]{1,2})(?:(?P=between)[0-9a-f]{1,2}){4,}", re.IGNORECASE
)
_DOTTED_HARDWARE = re.compile(r"[0-9a-f]{4}(?:\.[0-9a-f]{4}){2,}", re.IGNORECASE)


class Readings(NamedTuple):
    """All that a text may mean. What it cannot be is None or empty."""

    names: tuple[str, ...] = ()
    """Names, the likeliest first: `eth0@if2`, as ip(8) prints it, is read as `eth0` too."""
    number: int | None = None
    """An index."""
    network: IPNetwork | None = None
    """A network; an address is the network that holds nothing else."""
    address: IPv4Address | IPv6Address | None = None
    """The address, if it is one; an IPv6 address has its scope. Also that of `10.0.0.1/24`."""
    scope: str | None = None
    """The scope of the address or network: the name or index of an interface."""
    hardware: str = ""
    """A MAC address as digits only."""

    @property
    def means_any(self) -> bool:
        """Whether it is 0.0.0.0 or ::, which stand for any interface."""
        return self.address is not None and self.address.is_unspecified and self.scope is None


@lru_cache(maxsize=4096)
def _read(text: str) -> Readings:
    names = tuple(dict.fromkeys(name for name in (text, text.partition("@")[0]) if name))
    number = int(text) if _INDEX.fullmatch(text) else None
    try:
        interface = ip_interface(text)
    except ValueError:
        return Readings(names, number, hardware=hardware_digits(text))
    network = interface.network
    scope = interface.scope_id if isinstance(interface, IPv6Interface) else None
    if isinstance(network, IPv6Network):
        network = IPv6Network((network.network_address.packed, network.prefixlen))
    # With bits behind the prefix it is an address of a host, as ip(8) prints it.
    is_address = network.prefixlen == network.max_prefixlen or interface.packed != network.network_address.packed
    if not is_address:
        return Readings(names, number, network, None, scope, hardware_digits(text))
    address = IPv4Address(interface.packed) if interface.version == 4 else IPv6Address(str(interface).partition("/")[0])
    exact = IPv4Network(address) if isinstance(address, IPv4Address) else IPv6Network(address.packed)
    return Readings(names, number, exact, address, scope, hardware_digits(text))


def readings(specifier: object) -> Readings | None:
    """Return what the text, index, address or network may mean; None for an object of any other kind."""
    if isinstance(specifier, str):
        return _read(specifier)
    if isinstance(specifier, int) and not isinstance(specifier, bool):
        return Readings(number=specifier) if specifier > 0 else Readings()
    if isinstance(specifier, IPv4Address | IPv6Address | IPv4Network | IPv6Network):
        return _read(str(specifier))._replace(names=(), hardware="")
    return None


def hardware_digits(text: str) -> str:
    """Return the hexadecimal digits of a MAC address, small and without separators; empty for any other text."""
    if _DOTTED_HARDWARE.fullmatch(text):
        return text.replace(".", "").lower()
    if _HARDWARE.fullmatch(text):
        return "".join(octet.zfill(2) for octet in re.split("[:-]", text)).lower()
    return ""
