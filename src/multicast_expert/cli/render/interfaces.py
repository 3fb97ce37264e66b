"""Interfaces as lines and as JSON. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from ipaddress import IPv4Interface
from typing import Any

from multicast_expert.cli.render.text import Line, printable
from multicast_expert.core.interfaces import IfaceInfo


def interface_lines(
    ifaces: Sequence[IfaceInfo], default4: IfaceInfo | None, default6: IfaceInfo | None
) -> Iterator[Line]:
    """Yield a line for every interface and, below it, one for each of its addresses, and for its further names."""
    names = [printable(iface.display_name) for iface in ifaces]
    width = max(map(len, ["interface", *names]))
    yield Line(f" #  {'interface':<{width}}  state    mtu  multicast  default", style="bold")
    for iface, name in zip(ifaces, names, strict=True):
        versions = ", ".join(each for each, default in (("IPv4", default4), ("IPv6", default6)) if iface == default)
        yield Line(
            f"{iface.index:>2}  ",
            (f"{name:<{width}}", "bold"),
            ("  up   ", "green") if iface.is_up else ("  down ", "red"),
            f"  {'' if iface.mtu is None else iface.mtu:>5}  {multicast_ability(iface):<9}  {versions}",
        )
        labels = {address: printable(label) for label, address in iface.labels}
        for interface in (*iface.ip4_addrs, *iface.ip6_addrs):
            label = labels.get(interface.ip) if isinstance(interface, IPv4Interface) else None
            yield Line(f"    {interface}" + (f"  called {label}" if label else ""))
        if iface.alternative_names:
            yield Line(f"    also called {', '.join(map(printable, iface.alternative_names))}")


def multicast_ability(iface: IfaceInfo) -> str:
    """Return "yes", "no", or "local" for the loopback interface, which carries multicast without the flag for it."""
    if iface.is_localhost():
        return "local"
    return "yes" if iface.supports_multicast else "no"


def interface_object(iface: IfaceInfo, default_for: Collection[str]) -> dict[str, Any]:
    """Return the JSON object of an interface; `default_for` holds "IPv4", "IPv6", both or nothing."""
    return {
        "name": iface.machine_name,
        "friendly_name": iface.display_name,
        "alternative_names": list(iface.alternative_names),
        "index": iface.index,
        "up": iface.is_up,
        "mtu": iface.mtu,
        "multicast": multicast_ability(iface),
        "loopback": iface.is_localhost(),
        "link_layer_address": iface.link_layer_address,
        "ipv4": [str(interface) for interface in iface.ip4_addrs],
        "ipv6": [str(interface) for interface in iface.ip6_addrs],
        "labels": {label: str(address) for label, address in iface.labels},
        "default_for": list(default_for),
    }
