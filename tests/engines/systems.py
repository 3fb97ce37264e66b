"""The fake systems as the library meets them: a kernel with its table, and the public classes running on it."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Interface
from typing import Any, ClassVar

import pytest

from fakes import FakeFreeBSD, FakeKernel, FakeMacOS, FakeNetwork, FakeSocket, FakeWindows
from fakes.windows import WindowsSocket
from multicast_expert import IfaceInfo, McastRxSocket, McastSocket, McastTxSocket
from multicast_expert.platforms import FREEBSD, MACOS, WINDOWS, Platform
from multicast_expert.system import interfaces as discovery
from multicast_expert.system import kernel as running

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff15::1234"}
OTHER = {4: "239.9.9.9", 6: "ff15::9999"}
PEER = {4: "10.0.0.2", 6: "fd00::2"}
STRANGER = {4: "10.0.0.7", 6: "fd00::7"}
HERE = {4: "10.0.0.1", 6: "fd00::1"}

# PC/errmap.h of CPython: these Winsock numbers become the old errno ones, and stay readable as `winerror`.
RENUMBERED = (10004, 10009, 10013, 10014, 10022, 10024)


class PythonSocketOnWindows(WindowsSocket):
    """Receives as the library's own socket for Windows does: what is too long is cut, and MSG_TRUNC says so."""

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, tuple]:
        """Receive a datagram, its end cut off where it is too long."""
        data, control, told, sender = super().recvmsg(65535, ancbufsize, flags)
        return data[:bufsize], control, told | (0x100 if len(data) > bufsize else 0), sender


class PythonOnWindows(FakeWindows):
    """Windows as Python shows it."""

    SOCKET: ClassVar[type[FakeSocket]] = PythonSocketOnWindows

    def os_error(self, number: int, text: str) -> OSError:
        """Return the error with both of its numbers."""
        error = super().os_error(number, text)
        if number in RENUMBERED:
            error.errno = number - 10000
        return error


SYSTEMS: dict[str, tuple[Platform, Callable[[FakeNetwork, str], FakeKernel]]] = {
    "windows": (WINDOWS, PythonOnWindows),
    "windows-legacy": (WINDOWS, lambda network, host: PythonOnWindows(network, host, legacy=True)),
    "macos": (MACOS, FakeMacOS),
    "freebsd": (FREEBSD, FakeFreeBSD),
}


class Kernel:
    """What the library asks of an OS: its table, and sockets that never block."""

    def __init__(self, platform: Platform, fake: FakeKernel) -> None:
        self.platform = platform
        self._fake = fake

    def interface_name(self, _: object, index: int) -> str | None:
        """Return the name of an interface of the host."""
        found = self._fake.host.interface(index)
        return found and found.name

    def socket(self, family: int, kind: int) -> FakeSocket:
        """Return a new socket of the fake."""
        sock = self._fake.socket(family, kind)
        sock.setblocking(False)
        return sock


class System:
    """Host a of two, running one of the systems; the library's sockets are opened on it."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = name
        self.network = FakeNetwork.two_hosts()
        self.platform, self._boot = SYSTEMS[name]
        self._monkeypatch = monkeypatch
        self.kernel = self.boot("a")
        monkeypatch.setattr(discovery, "scan_interfaces", self.interfaces)

    def boot(self, host: str) -> FakeKernel:
        """Start the system on one of the hosts; what is opened from now on is opened there."""
        kernel = self._boot(self.network, host)
        self._monkeypatch.setattr(running, "SYSTEM", Kernel(self.platform, kernel))
        return kernel

    @property
    def is_old_windows(self) -> bool:
        """Whether it is a Windows that lacks what came later."""
        return self.name == "windows-legacy"

    @property
    def is_windows(self) -> bool:
        """Whether it is a Windows, old or new."""
        return self.platform is WINDOWS

    def number(self, error: str) -> int:
        """Return the number that the system itself has for an error."""
        return max(number for number, name in self.platform.errors.items() if name == error)

    def errno(self, error: str | int) -> int:
        """Return the number that Python shows for it in `errno`."""
        number = error if isinstance(error, int) else self.number(error)
        return number - 10000 if self.is_windows and number in RENUMBERED else number

    def interfaces(self, host: str = "a") -> list[IfaceInfo]:
        """Return the interfaces of a host as discovery would."""
        return [
            IfaceInfo(
                one.name,
                one.index,
                one.link_layer_address,
                tuple(one.ip4_addrs),
                tuple(
                    IPv6Interface(f"{own.ip}%{one.index if self.is_windows else one.name}/{own.network.prefixlen}")
                    if own.is_link_local
                    else own
                    for own in one.ip6_addrs
                ),
                one.name,
                one.up,
                one.multicast,
                one.loopback,
                one.mtu,
            )
            for one in self.network.hosts[host].interfaces
        ]

    def knows_sources(self, version: int) -> bool:
        """Whether it can join one source: an old Winsock has no call for it with IPv6."""
        return not self.is_old_windows or version == 4

    def interface(self, name: str, host: str = "a") -> IfaceInfo:
        """Return the interface of this name."""
        return next(iface for iface in self.interfaces(host) if iface.machine_name == name)

    def receiver(self, groups: list[str], interfaces: str | None = "eth0", **options: Any) -> McastRxSocket:
        """Return a receiver that does not wait, on interfaces named "eth0 eth1" (None: all)."""
        ifaces = None if interfaces is None else [self.interface(name) for name in interfaces.split()]
        family = 10 if ":" in groups[0] else 2
        options = {"timeout": 0, "heal": False, **options}
        return McastRxSocket(family, groups, PORT, ifaces=ifaces, **options)

    def transmitter(self, groups: list[str], interface: str = "eth0", host: str = "a", **options: Any) -> McastTxSocket:
        """Return a transmitter on one interface."""
        family = 10 if ":" in groups[0] else 2
        return McastTxSocket(family, groups, self.interface(interface, host), heal=False, **options)

    def both_ways(
        self, version: int, groups: list[str] | None = None, interfaces: str = "eth0", port: int = PORT, **options: Any
    ) -> McastSocket:
        """Return a socket that receives and sends, on interfaces named "eth0 eth1", and does not wait."""
        ifaces = [self.interface(name) for name in interfaces.split()]
        options = {"timeout": 0, "heal": False, **options}
        return McastSocket(10 if version == 6 else 2, groups or [], port, ifaces=ifaces, **options)

    def arrive(self, group: str, data: bytes, link: str = "lan0", source: str = "", **header: int) -> None:
        """Let a machine on the link send to a group, or to a unicast address."""
        source = source or PEER[6 if ":" in group else 4]
        self.network.inject(link, source, group, PORT, data, **header)


def heard(receiver: McastRxSocket) -> list[bytes]:
    """Return the payloads of all that is there."""
    payloads = []
    while (data := receiver.recv()) is not None:
        payloads.append(data)
    return payloads
