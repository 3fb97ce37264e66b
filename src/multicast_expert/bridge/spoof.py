"""Sends datagrams with the source that they had at another site, by raw sockets. Needs root or CAP_NET_RAW."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

from multicast_expert.bridge.frames import Origin
from multicast_expert.bridge.interest import Group
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.system.interfaces import find_interfaces, scan_interfaces
from multicast_expert.wire.frames import fragments, udp_packet

LOOK_EVERY = 2.0
"""Seconds between two looks at the interfaces."""
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_USUAL_MTU = 1500


class RawSpoof:
    """Sends out of the named interfaces, None: all but loopback. Raises MulticastExpertError without the privilege."""

    def __init__(self, ifaces: Sequence[str] | None) -> None:
        self._names = ifaces
        self._ifaces: list[IfaceInfo] = []
        self._looked_at = float("-inf")
        try:
            # The protocol of both means that the packet comes with its IP header: raw(7), and ip6(4).
            self._sockets = {
                version: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
                for version, family in _FAMILIES.items()
            }
        except PermissionError:
            raise MulticastExpertError("--keep-source needs root or CAP_NET_RAW, for raw sockets.") from None
        except OSError as error:
            raise MulticastExpertError(f"--keep-source: this system has no raw sockets ({error.strerror}).") from None

    def send(self, origin: Origin, payloads: Sequence[bytes], group: Group) -> int:
        """Send datagrams to the group as if they came from their origin; return how many the OS took."""
        sent = 0
        version, source = group.group.version, (origin.address, origin.port)
        ifaces = [each for each in self._interfaces() if each.addresses(version)]
        for payload in payloads:
            identity = int.from_bytes(os.urandom(2), "big")
            packet = udp_packet(
                source,
                (str(group.group), group.port),
                payload,
                hop_limit=origin.hop_limit,
                traffic_class=(origin.dscp or 0) << 2,
                identity=identity,
            )
            went = [self._send_out_of(each, version, packet, identity, group) for each in ifaces]
            sent += any(went)
        return sent

    def _send_out_of(self, iface: IfaceInfo, version: int, packet: bytes, identity: int, group: Group) -> bool:
        sender = self._sockets[version]
        address = (str(group.group), 0) if version == 4 else (str(group.group), 0, 0, iface.index)
        with suppress(OSError):
            if version == 4:
                own = next(iter(iface.ip4_addrs)).ip.packed
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
            for piece in fragments(packet, iface.mtu or _USUAL_MTU, identity):
                sender.sendto(piece, address)
            return True
        return False

    def _interfaces(self) -> list[IfaceInfo]:
        now = monotonic()
        if now > self._looked_at + LOOK_EVERY:
            self._looked_at = now
            with suppress(MulticastExpertError):  # missing for a while
                everything = [each for each in scan_interfaces() if not each.is_localhost()]
                self._ifaces = everything if self._names is None else find_interfaces(self._names)
        return self._ifaces

    def close(self) -> None:
        """Send nothing more."""
        for each in self._sockets.values():
            each.close()
