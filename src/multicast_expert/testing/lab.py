"""The laboratory: hosts, switches and routers that exist only while it is open. Makes Linux network namespaces."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Self, TypeVar

from multicast_expert.testing.host import Host
from multicast_expert.testing.interface import Cables, Interface
from multicast_expert.testing.namespaces import LabError
from multicast_expert.testing.node import Node
from multicast_expert.testing.router import Router
from multicast_expert.testing.switch import Switch

AnyNode = TypeVar("AnyNode", bound=Node)


class Lab:
    """Machines in network namespaces of their own: `with Lab() as lab`. The machine's own interfaces are never touched.

    It needs root, or a process that called `enter_private_network()`; else LabError. Labs know nothing of each other:
    any number can be open in threads and processes. Everything is gone after the block: processes, interfaces,
    addresses, files.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._cables = Cables()
        self._opened = contextlib.ExitStack()
        self._opened.callback(self._cables.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process and give up every network; closing again does nothing."""
        self._opened.close()

    def host(self, name: str, *, dad: bool = False) -> Host:
        """Return a new host with no interface but `lo`; `dad=True` keeps IPv6 duplicate address detection."""
        self._check_name(name)
        return self._add(Host(name, self._cables, dad=dad))

    def router(self, name: str, *, dad: bool = False) -> Router:
        """Return a new host that forwards IPv4 and IPv6."""
        self._check_name(name)
        return self._add(Router(name, self._cables, dad=dad))

    def switch(self, name: str, *, snooping: bool = True, querier: bool = False, flood_unknown: bool = True) -> Switch:
        """Return a new switch with no host plugged in. Switch explains the settings."""
        self._check_name(name)
        return self._add(Switch(name, snooping=snooping, querier=querier, flood_unknown=flood_unknown))

    def plug(
        self,
        host: Host,
        switch: Switch,
        *,
        ipv4: str | None = None,
        ipv6: str | None = None,
        interface: str = "eth0",
        mtu: int | None = None,
        default: bool = False,
    ) -> Interface:
        """Give the host a new interface with a cable into the switch, and return it. Addresses have prefix lengths.

        With `default`, everything that no other route leads to leaves through it, so that programs that name no
        interface join and send there.
        """
        near = self._new_interface(host, interface, ipv4, ipv6, mtu)
        self._cables.connect(near, switch.new_port())
        host.interfaces[interface] = near
        if default:
            everywhere = ["0.0.0.0/0", "::/0"] if near.has_ipv6() else ["0.0.0.0/0"]
            host.ip(*(f"route add {destination} dev {interface}" for destination in everywhere))
        return near

    def link(
        self,
        first: Host,
        second: Host,
        *,
        interface: str = "eth0",
        second_interface: str | None = None,
        ipv4: tuple[str, str] | None = None,
        ipv6: tuple[str, str] | None = None,
        mtu: int | None = None,
    ) -> tuple[Interface, Interface]:
        """Join two hosts by a cable: a new interface in each, with the first and the second address of each pair."""
        near_ipv4, far_ipv4 = ipv4 or (None, None)
        near_ipv6, far_ipv6 = ipv6 or (None, None)
        near = self._new_interface(first, interface, near_ipv4, near_ipv6, mtu)
        far = self._new_interface(second, second_interface or interface, far_ipv4, far_ipv6, mtu)
        self._cables.connect(near, far)
        first.interfaces[near.name], second.interfaces[far.name] = near, far
        return near, far

    def _check_name(self, name: str) -> None:
        if name in self.nodes:
            raise LabError(f"This lab has a {self.nodes[name]} already")

    def _add(self, node: AnyNode) -> AnyNode:
        self.nodes[node.name] = node
        self._opened.callback(node.close)
        return node

    @staticmethod
    def _new_interface(host: Host, name: str, ipv4: str | None, ipv6: str | None, mtu: int | None) -> Interface:
        if name in host.interfaces:
            raise LabError(f"{host.name} has an interface {name} already")
        return Interface(host, name, [address for address in (ipv4, ipv6) if address], mtu)
