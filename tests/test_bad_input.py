"""What makes no sense is refused in words that say what is wrong, and nothing is left of it.

Everything happens on the loopback interface and on `eth0` of the network that the documentation speaks of.
"""

import asyncio
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Interface
from typing import Any

import pytest

from multicast_expert import (
    IfaceInfo,
    McastRxSocket,
    McastTxSocket,
    MulticastExpertError,
    MulticastOSError,
    find_interfaces,
    multicast_ping,
    plain_sockets,
)
from multicast_expert.system import interfaces as discovery
from multicast_expert.system import kernel, routes

pytestmark = pytest.mark.usefixtures("documentation_network")

V4, V6 = socket.AF_INET, socket.AF_INET6
GROUP = {V4: "239.1.2.3", V6: "ff15::1234"}
OTHER = {V4: "239.9.9.9", V6: "ff15::9999"}
LOOPBACK = {V4: "127.0.0.1", V6: "::1"}
ETHERNET = {V4: "10.9.0.1", V6: "fd09::1"}
PORT = 12345
FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])


def ping(**wish: Any) -> Any:
    """The first answer to a ping."""
    return asyncio.run(anext(multicast_ping("127.0.0.1", iface="lo", **wish)))  # type: ignore[arg-type]  # an async generator


BAD_INPUT: dict[str, tuple[Callable[[], Any], str]] = {
    "unicast group": (lambda: McastRxSocket(V4, ["10.0.0.1"], PORT, "lo"), "not a multicast address"),
    "unicast group among others": (
        lambda: McastRxSocket(V6, ["ff15::1", "fd00::1"], PORT, "lo"),
        "not a multicast address",
    ),
    "unicast group to send to": (lambda: McastTxSocket(V4, ["10.0.0.1"], "lo"), "not a multicast address"),
    "no address": (lambda: McastRxSocket(V4, ["nonsense"], PORT, "lo"), "'nonsense' is not an IP address"),
    "a number": (lambda: McastRxSocket(V4, [3758096385], PORT, "lo"), "is not an IP address"),  # type: ignore[list-item]  # the claim
    "mixed families": (lambda: McastRxSocket(V4, ["239.1.2.3", "ff15::1"], PORT, "lo"), "is IPv6 but"),
    "other family": (lambda: McastTxSocket(V6, ["239.1.2.3"], "lo"), "is IPv4 but"),
    "source of the other family": (
        lambda: McastRxSocket(V4, ["232.1.2.3"], PORT, "lo", source_ips=["fd00::1"]),
        "is IPv6 but",
    ),
    "group as a source": (
        lambda: McastRxSocket(V4, ["232.1.2.3"], PORT, "lo", source_ips=["239.1.2.3"]),
        "source 239.1.2.3",
    ),
    "nobody as a source": (
        lambda: McastRxSocket(V4, ["232.1.2.3"], PORT, "lo", source_ips=["0.0.0.0"]),
        "source 0.0.0.0",
    ),
    "no group": (lambda: McastRxSocket(V4, [], PORT, "lo"), "mcast_ips is empty"),
    "no group to send to": (lambda: McastTxSocket(V4, [], "lo"), "mcast_ips is empty"),
    "text instead of a list": (lambda: McastRxSocket(V4, "239.1.2.3", PORT, "lo"), "goes into brackets"),
    "object instead of a list": (
        lambda: McastTxSocket(V4, IPv4Address("239.1.2.3"), "lo"),  # type: ignore[arg-type]  # the claim
        "goes into brackets",
    ),
    "text instead of sources": (
        lambda: McastRxSocket(V4, ["232.1.2.3"], PORT, "lo", source_ips="10.0.0.1"),
        "brackets",
    ),
    "port 0": (lambda: McastRxSocket(V4, ["239.1.2.3"], 0, "lo"), "port 0 is out of range"),
    "port 65536": (lambda: McastRxSocket(V4, ["239.1.2.3"], 65536, "lo"), "port 65536 is out of range"),
    "negative port": (lambda: McastRxSocket(V4, ["239.1.2.3"], -1, "lo"), "port -1 is out of range"),
    "port as text": (lambda: McastRxSocket(V4, ["239.1.2.3"], "5000", "lo"), "port '5000'"),  # type: ignore[arg-type]  # the claim
    "ttl 256": (lambda: McastTxSocket(V4, ["239.1.2.3"], "lo", 256), "ttl 256 is out of range"),
    "negative ttl": (lambda: McastTxSocket(V6, ["ff15::1"], "lo", ttl=-1), "ttl -1 is out of range"),
    "ttl as text": (lambda: McastTxSocket(V4, ["239.1.2.3"], "lo", ttl="1"), "ttl '1'"),  # type: ignore[arg-type]  # the claim
    "half a ttl": (lambda: McastTxSocket(V4, ["239.1.2.3"], "lo", ttl=1.5), "ttl 1.5"),  # type: ignore[arg-type]  # the claim
    "dscp 64": (lambda: McastTxSocket(V4, ["239.1.2.3"], "lo", dscp=64), "dscp 64 is out of range: 0 to 63"),
    "dscp as text": (lambda: McastTxSocket(V4, ["239.1.2.3"], "lo", dscp="46"), "dscp '46'"),  # type: ignore[arg-type]  # the claim
    "half a dscp": (lambda: McastTxSocket(V6, ["ff15::1"], "lo", dscp=1.5), "dscp 1.5"),  # type: ignore[arg-type]  # the claim
    "both spellings": (lambda: McastRxSocket(V4, ["239.1.2.3"], PORT, iface="lo", iface_ip="lo"), "iface and iface_ip"),
    "one and several": (lambda: McastRxSocket(V4, ["239.1.2.3"], PORT, iface="lo", ifaces=["lo"]), "iface and ifaces"),
    "both older spellings": (
        lambda: McastRxSocket(V4, ["239.1.2.3"], PORT, iface_ip="lo", iface_ips=["lo"]),
        "iface_ip and iface_ips",
    ),
    "both spellings to send": (
        lambda: McastTxSocket(V4, ["239.1.2.3"], iface="lo", iface_ip="lo"),
        "iface and iface_ip",
    ),
    "no interface in the list": (lambda: McastRxSocket(V4, ["239.1.2.3"], PORT, ifaces=[]), "ifaces is empty"),
    "unknown interface": (
        lambda: McastRxSocket(V4, ["239.1.2.3"], PORT, "eth77"),
        "does not appear to be a valid interface name or IP address",
    ),
    "unknown interface to send from": (
        lambda: McastTxSocket(V4, ["239.1.2.3"], "eth77"),
        "does not appear to be a valid interface name or IP address",
    ),
    "unknown address": (
        lambda: McastRxSocket(V4, ["239.1.2.3"], PORT, "10.77.77.77"),
        "No matches found for interface IP address",
    ),
    "unknown address to send from": (
        lambda: McastTxSocket(V6, ["ff15::1"], "fd77::77"),
        "No matches found for interface IP address",
    ),
    "interface without an address of the family": (
        lambda: McastTxSocket(V4, ["239.1.2.3"], IfaceInfo("bare0", 9, None, (), (IPv6Interface("fd00::1/64"),))),
        "bare0 has no IPv4 address",
    ),
    "no such family": (lambda: McastRxSocket(1, ["239.1.2.3"], PORT, "lo"), "neither socket.AF_INET"),
    "no such family to send": (lambda: McastTxSocket(1, ["239.1.2.3"], "lo"), "neither socket.AF_INET"),
    "negative timeout": (lambda: McastRxSocket(V4, ["239.1.2.3"], PORT, "lo", timeout=-1), "timeout -1"),
    "buffer as text": (
        lambda: McastRxSocket(V4, ["239.1.2.3"], PORT, "lo", receive_buffer="1"),  # type: ignore[arg-type]  # the claim
        "receive_buffer '1'",
    ),
    "no buffer": (lambda: plain_sockets(V4, ["239.1.2.3"], PORT, "lo", receive_buffer=-1), "receive_buffer -1"),
    "a buffer beyond all": (
        lambda: plain_sockets(V4, ["239.1.2.3"], PORT, "lo", receive_buffer=1 << 31),
        "receive_buffer 2147483648",
    ),
    "no query": (lambda: ping(count=0), "count 0"),
    "half a query": (lambda: ping(count=1.5), "count 1.5"),
    "no interval": (lambda: ping(interval=0), "interval 0"),
    "interval as text": (lambda: ping(interval="1"), "interval '1'"),
    "queries too long for UDP": (lambda: ping(size=70_000), "size 70000"),
    "negative patience": (lambda: ping(timeout=-1), "timeout -1"),
    "timeout as text": (lambda: McastRxSocket(V4, ["239.1.2.3"], PORT, "lo", timeout="1"), "timeout '1'"),  # type: ignore[arg-type]  # the claim
}


@pytest.fixture
def sockets_made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list that grows with every multicast socket that is asked of the OS."""
    made = []
    original = kernel.SYSTEM.socket

    def count(family: int, kind: int) -> kernel.Socket:
        made.append((family, kind))
        return original(family, kind)

    monkeypatch.setattr(kernel.SYSTEM, "socket", count)
    return made


@pytest.mark.parametrize(("call", "words"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input(call: Callable[[], Any], words: str, sockets_made: list[tuple[int, int]]) -> None:
    """Is a MulticastExpertError that names what is wrong, before any socket exists."""
    with pytest.raises(MulticastExpertError, match=words) as caught:
        call()
    assert not isinstance(caught.value, MulticastOSError)
    assert sockets_made == []


def test_sockets_are_made_by_open(sockets_made: list[tuple[int, int]]) -> None:
    """A constructor makes none, so that the count above says something; opening makes them."""
    receiver = McastRxSocket(V4, ["239.1.2.3"], PORT, "lo")
    sender = McastTxSocket(V4, ["239.1.2.3"], "lo")
    assert sockets_made == []
    with receiver, sender:
        assert len(sockets_made) == 2


@FAMILIES
def test_other_destinations_are_refused(family: int) -> None:
    """What is none of mcast_ips, no group at all, or has no port."""
    group = GROUP[family]
    with McastTxSocket(family, [group], "lo") as sender:
        for address in ((OTHER[family], PORT), (LOOPBACK[family], PORT), (group, 0), (group, 65536)):
            with pytest.raises(MulticastExpertError):
                sender.sendto(b"x", address)


@FAMILIES
def test_no_default_route(family: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No interface named and none to be found is an error that says how to name one."""
    monkeypatch.setattr(routes, "source_address", lambda *_: None)
    monkeypatch.setattr(routes, "group_routes", lambda *_: {})
    with pytest.raises(MulticastExpertError, match="iface="):
        McastTxSocket(family, [GROUP[family]])


@FAMILIES
def test_an_address_of_two_interfaces(family: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names neither: refused with the advice to pass an IfaceInfo, and that works."""
    (ethernet,) = find_interfaces(["eth0"])
    twin = IfaceInfo("eth9", 99, None, ethernet.ip4_addrs, ethernet.ip6_addrs)
    monkeypatch.setattr(discovery, "_known", lambda *_: [ethernet, twin])
    with pytest.raises(MulticastExpertError, match=r"fits several interfaces.*IfaceInfo"):
        McastTxSocket(family, [GROUP[family]], ETHERNET[family])
    with McastTxSocket(family, [GROUP[family]], ethernet) as sender:
        assert sender.network_interface is ethernet
