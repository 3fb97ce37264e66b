"""Interfaces as a table and as JSON. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from multicast_expert.interfaces import IfaceInfo


def interfaces_table(ifaces: Sequence[IfaceInfo], default4: IfaceInfo | None, default6: IfaceInfo | None) -> Table:
    """Return a table with a row for every interface and a line for each of its addresses."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("#", "interface", "state", "mtu", "multicast", "default", "addresses"):
        table.add_column(
            heading,
            justify="right" if heading in ("#", "mtu") else "left",
            overflow="fold",
            no_wrap=heading not in ("interface", "addresses"),
        )
    for iface in ifaces:
        versions = [name for name, default in (("v4", default4), ("v6", default6)) if iface == default]
        table.add_row(
            str(iface.index),
            Text(iface.display_name, style="bold"),
            Text("up", style="green") if iface.is_up else Text("down", style="red"),
            "" if iface.mtu is None else str(iface.mtu),
            multicast_ability(iface),
            " ".join(versions),
            "\n".join(_addresses(iface)) or "none",
        )
    return table


def multicast_ability(iface: IfaceInfo) -> str:
    """Return "yes", "no", or "local" for the loopback interface, which carries it without being marked as able to."""
    if iface.is_localhost():
        return "local"
    return "yes" if iface.supports_multicast else "no"


def _addresses(iface: IfaceInfo) -> list[str]:
    return [str(interface) for interface in (*iface.ip4_addrs, *iface.ip6_addrs)]


def interface_object(iface: IfaceInfo, default_for: Collection[str]) -> dict[str, Any]:
    """Return the JSON object of an interface; `default_for` holds "IPv4", "IPv6", both or nothing."""
    return {
        "name": iface.machine_name,
        "friendly_name": iface.display_name,
        "index": iface.index,
        "up": iface.is_up,
        "mtu": iface.mtu,
        "multicast": multicast_ability(iface),
        "loopback": iface.is_localhost(),
        "link_layer_address": iface.link_layer_address,
        "ipv4": [str(interface) for interface in iface.ip4_addrs],
        "ipv6": [str(interface) for interface in iface.ip6_addrs],
        "default_for": list(default_for),
    }
