"""Sends queries out of one interface, from an address of it or from another one. Linux, with CAP_NET_RAW."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from struct import pack

from multicast_expert.core.addresses import ethernet_address
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.system import kernel
from multicast_expert.system.kernel import os_error
from multicast_expert.wire.group_messages import ALL_HOSTS, ALL_NODES, GroupMessage, GroupQuery, build_group_message
from multicast_expert.wire.packet_socket import frame_sender

_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD


class Outlet:
    """Sends queries from `address`, hop limit 1, to the link of an interface. Raises MulticastOSError.

    This host hears them too, and answers for its own memberships. Only those go past it whose address the kernel would
    replace or refuse: 0.0.0.0, and an IPv6 address that is not the interface's.
    """

    def __init__(self, iface: IfaceInfo, address: str) -> None:
        self.iface = iface
        self.address = address
        self._is_ipv6 = ":" in address
        own = {str(each.ip).partition("%")[0] for each in iface.addresses(6)}
        self._is_bare = address == "0.0.0.0" or (self._is_ipv6 and address not in own)
        try:
            self._socket = self._open()
        except OSError as error:
            raise os_error(kernel.SYSTEM, error, "capture", f"ask on {iface.machine_name}") from error

    def _open(self) -> socket.socket:
        if self._is_bare:
            return frame_sender()
        # On a socket of IPPROTO_RAW the program writes the IP header (raw(7), and RFC 3542, 3).
        sender = socket.socket(
            socket.AF_INET6 if self._is_ipv6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW
        )
        index = self.iface.index
        try:
            if self._is_ipv6:
                sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            else:
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, pack("=4x4xi", index))
            sender.setblocking(False)
        except BaseException:
            sender.close()
            raise
        return sender

    def send(self, query: GroupQuery) -> None:
        """Send a query to all hosts of the link, or to the members of its group."""
        packet = build_group_message(GroupMessage(self.address, query))
        group = query.group or (ALL_NODES if self._is_ipv6 else ALL_HOSTS)
        station = bytes.fromhex(ethernet_address(ip_address(group)).replace(":", ""))
        name, protocol = self.iface.machine_name, _ETH_P_IPV6 if self._is_ipv6 else _ETH_P_IP
        try:
            if self._is_bare:
                self._socket.sendto(packet, (name, protocol, 0, 0, station))
            else:
                self._socket.sendto(packet, (group, 0, 0, self.iface.index) if self._is_ipv6 else (group, 0))
        except OSError as error:
            raise os_error(kernel.SYSTEM, error, "send", f"ask on {name}", group=group, interface=name) from error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
