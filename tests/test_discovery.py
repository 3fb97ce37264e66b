"""What the OS says about its interfaces and its default route: on this host, and as other systems say it."""

import json
import shutil
import socket
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from struct import calcsize
from time import monotonic
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import multicast_expert
from fakes.adapters import Adapter, adapters_addresses
from multicast_expert import (
    IfaceInfo,
    MulticastExpertError,
    MulticastWarning,
    find_interfaces,
    get_default_gateway_iface,
    get_default_gateway_iface_ip,
    get_default_gateway_iface_ip_v4,
    get_default_gateway_iface_ip_v6,
    get_interface_ips,
    scan_interfaces,
)
from multicast_expert.platforms import MACOS
from multicast_expert.system import interfaces as discovery
from multicast_expert.system import kernel, routes
from multicast_expert.system.bsd import BsdSystem
from multicast_expert.system.interfaces import choose_for_receiving, choose_for_sending
from multicast_expert.system.windows import WindowsSystem, parse_adapters

IP = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")
needs_ip = pytest.mark.skipif(IP is None or sys.platform != "linux", reason="makes interfaces with `ip` on Linux")


def ip(*arguments: str) -> str:
    """Run `ip` in the network of this process, which is the suite's own."""
    done = subprocess.run([str(IP), *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def wait_until(true: Callable[[], bool]) -> bool:
    """Ask again and again until it is true; False when it is not within ten seconds."""
    deadline = monotonic() + 10
    while monotonic() < deadline:
        if true():
            return True
    return False


Wire = Callable[..., None]


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Make one more interface (half of a veth pair) with these addresses; all go when the test ends."""
    made = []

    def make(name: str, *addresses: str) -> None:
        ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")
        made.append(name)
        for end in (name, f"{name}p"):
            ip("link", "set", end, "addrgenmode", "none")  # else an IPv6 address appears a moment later
        for address in addresses:
            ip("address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
        ip("link", "set", name, "up")
        ip("link", "set", f"{name}p", "up")

    yield make
    for name in made:
        ip("link", "delete", name)


def by_name() -> dict[str, IfaceInfo]:
    """Return a scan by machine name."""
    return {iface.machine_name: iface for iface in scan_interfaces()}


@needs_ip
def test_scan_agrees_with_ip(wire: Wire) -> None:
    """Index, state, MTU, link address and every address are those that `ip` shows."""
    wire("scan0", "10.77.0.1/24", "10.77.0.2/25", "fd77::1/64")
    wire("scan1", "fe80::77/64")
    ip("link", "set", "scan0", "mtu", "1400")
    ip("link", "set", "scan0p", "down")
    # The kernel takes a moment to notice that a cable was plugged in or pulled out.
    assert wait_until(lambda: not by_name()["scan0"].is_up and by_name()["scan1"].is_up)
    known = by_name()
    for name in ("lo", "scan0", "scan1"):
        (row,) = json.loads(ip("-json", "address", "show", "dev", name))
        iface = known[name]
        addresses = [f"{one['local']}/{one['prefixlen']}" for one in row["addr_info"]]
        assert iface.index == row["ifindex"]
        assert iface.mtu == row["mtu"]
        assert iface.is_loopback == ("LOOPBACK" in row["flags"])
        assert iface.link_layer_address == (None if iface.is_loopback else row["address"])
        assert {str(one) for one in iface.ip4_addrs} == {one for one in addresses if ":" not in one}
        assert {str(one).replace(f"%{name}", "") for one in iface.ip6_addrs} == {one for one in addresses if ":" in one}
    assert known["lo"].is_up
    assert (known["scan0"].mtu, len(known["scan0"].ip4_addrs)) == (1400, 2)
    assert known["lo"].is_localhost()
    assert known["lo"].supports_multicast
    assert [iface.index for iface in scan_interfaces()] == sorted(iface.index for iface in scan_interfaces())


@needs_ip
def test_labels_are_no_interfaces(wire: Wire) -> None:
    """Linux lets an address have a name of its own, which looks like an interface: eth0:1 is eth0."""
    wire("label0", "10.78.0.1/24")
    ip("address", "add", "10.78.0.2/24", "dev", "label0", "label", "label0:1")
    iface = by_name()["label0"]
    assert [str(one.ip) for one in iface.ip4_addrs] == ["10.78.0.1", "10.78.0.2"]
    assert not any(":" in name for name in by_name())
    assert find_interfaces(["10.78.0.2"]) == [iface]
    assert iface.labels == (("label0:1", ip_address("10.78.0.2")),)
    assert find_interfaces(["label0:1"]) == [iface]


@needs_ip
def test_interface_ips(wire: Wire) -> None:
    """Every address once, link-local ones with their scope; one family on demand."""
    wire("ips0", "10.79.0.1/24", "fe80::79/64", "fd79::1/64")
    every = get_interface_ips()
    assert {"127.0.0.1", "::1", "10.79.0.1", "fd79::1", "fe80::79%ips0"} <= set(every)
    assert len(every) == len(set(every))
    assert {"::1", "fd79::1", "fe80::79%ips0"} <= set(get_interface_ips(False, True))
    assert not any("." in text for text in get_interface_ips(False, True))
    only_ipv4 = get_interface_ips(include_ipv4=True, include_ipv6=False)
    assert only_ipv4 == [text for text in every if ":" not in text]
    assert get_interface_ips(False, False) == []


@needs_ip
def test_shared_addresses_are_warned_of(wire: Wire) -> None:
    """As text, an address that two interfaces have says neither of them; the warning points at the caller."""
    wire("twin0", "10.80.0.1/24")
    wire("twin1", "10.80.0.1/24")
    with pytest.warns(MulticastWarning, match="twin0, twin1 share the address 10.80.0.1") as caught:
        every = get_interface_ips()
    assert every.count("10.80.0.1") == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "10.80.0.1" not in get_interface_ips(include_ipv4=False)


@needs_ip
@pytest.mark.usefixtures("no_default_route")
def test_default_gateway(wire: Wire) -> None:
    """The interface of the default route, for each family its own, and its address there."""
    wire("gate4", "10.81.0.1/24")
    wire("gate6", "fd81::1/64")
    assert get_default_gateway_iface_ip_v4() is None
    assert get_default_gateway_iface(socket.AF_INET6) is None
    ip("route", "add", "default", "via", "10.81.0.254")
    ip("-6", "route", "add", "default", "via", "fd81::254", "dev", "gate6")
    gate4, gate6 = find_interfaces(["gate4", "gate6"])
    assert get_default_gateway_iface(socket.AF_INET) == gate4
    assert get_default_gateway_iface(socket.AF_INET6) == gate6
    assert get_default_gateway_iface_ip_v4() == get_default_gateway_iface_ip(socket.AF_INET) == "10.81.0.1"
    assert get_default_gateway_iface_ip_v6() == get_default_gateway_iface_ip(socket.AF_INET6) == "fd81::1"


@needs_ip
@pytest.mark.usefixtures("no_default_route")
@pytest.mark.parametrize("leads_to", ["same0", "same1"])
def test_default_gateway_where_two_interfaces_share_an_address(leads_to: str, wire: Wire) -> None:
    """Both have 10.82.0.1 and fd82::1; the kernel is asked which of them the route leads to."""
    wire("same0", "10.82.0.1/24", "fd82::1/64")
    wire("same1", "10.82.0.1/24", "fd82::1/64")
    ip("route", "add", "default", "via", "10.82.0.254", "dev", leads_to)
    ip("-6", "route", "add", "default", "via", "fd82::254", "dev", leads_to)
    for family in (socket.AF_INET, socket.AF_INET6):
        iface = get_default_gateway_iface(family)
        assert iface is not None
        assert iface.machine_name == leads_to


@needs_ip
@pytest.mark.usefixtures("no_default_route")
def test_given_interfaces_are_not_looked_up(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ifaces= the OS is asked for the route only; what is not among them is not found."""
    wire("given0", "10.83.0.1/24", "fd83::1/64")
    ip("route", "add", "default", "via", "10.83.0.254")
    ip("-6", "route", "add", "default", "via", "fd83::254", "dev", "given0")
    ifaces = scan_interfaces()
    given = next(iface for iface in ifaces if iface.machine_name == "given0")
    monkeypatch.setattr(kernel.SYSTEM, "interfaces", lambda meant=None: pytest.fail("the OS was asked"))
    assert get_default_gateway_iface(socket.AF_INET, ifaces=ifaces) is given
    assert get_default_gateway_iface(socket.AF_INET6, ifaces=ifaces) is given
    assert get_default_gateway_iface_ip(socket.AF_INET, ifaces=ifaces) == "10.83.0.1"
    assert get_default_gateway_iface_ip_v4(ifaces=ifaces) == "10.83.0.1"
    assert get_default_gateway_iface_ip_v6(ifaces=ifaces) == "fd83::1"
    assert get_default_gateway_iface(socket.AF_INET, ifaces=[]) is None
    assert find_interfaces(["10.83.0.1", "given0", given], ifaces=ifaces) == [given]
    assert find_interfaces([given, given]) == [given]


@needs_ip
@pytest.mark.usefixtures("no_default_route")
def test_the_source_address_may_be_another_interfaces(wire: Wire) -> None:
    """A route can lead out of one interface with the address of another; the interface is that of the route."""
    wire("home0", "10.84.0.1/24")
    wire("away0", "10.85.0.1/24")
    ip("route", "add", "default", "via", "10.85.0.254", "dev", "away0", "src", "10.84.0.1")
    iface = get_default_gateway_iface(socket.AF_INET)
    assert iface is not None
    assert iface.machine_name == "away0"
    assert get_default_gateway_iface_ip_v4() == "10.85.0.1"


@pytest.fixture
def no_default_route() -> Iterator[None]:
    """Take the default routes away for a test, and put them back."""

    def take_away() -> list[list[str]]:
        taken = []
        for family in ("-4", "-6"):
            for line in ip(family, "route", "show", "default").splitlines():
                words = line.split()
                taken.append([family, *words[: words.index("dev") + 2]])
                ip(family, "route", "delete", *taken[-1][1:])
        return taken

    kept = take_away()
    yield
    take_away()
    for family, *route in kept:
        ip(family, "route", "add", *route)


def test_a_family_that_is_none() -> None:
    """Only AF_INET and AF_INET6 have default gateways."""
    with pytest.raises(MulticastExpertError, match=r"neither socket.AF_INET nor socket.AF_INET6"):
        get_default_gateway_iface(1)


@needs_ip
def test_specifiers_of_real_interfaces(wire: Wire) -> None:
    """By name, by address with and without scope; what is unknown is refused with what there is."""
    wire("find0", "10.86.0.1/24", "fe80::86/64")
    wire("find1", "fe80::86/64")
    names = {"find0": ["find0"], "10.86.0.1": ["find0"], "fe80::86": ["find0", "find1"], "fe80::86%find1": ["find1"]}
    for specifier, expected in names.items():
        assert [iface.machine_name for iface in find_interfaces([specifier])] == expected
    assert [iface.machine_name for iface in find_interfaces([ip_address("fe80::86%find1")])] == ["find1"]
    with pytest.raises(MulticastExpertError, match=r"does not appear to be a valid interface name.*find0, find1"):
        find_interfaces(["find2"])
    with pytest.raises(MulticastExpertError, match=r"No matches found for interface IP address 10.86.0.9.*10.86.0.1"):
        find_interfaces(["10.86.0.9"])


GUID = "{0C1B5CE4-0000-4000-8000-00000000A001}"


ADAPTERS = [
    Adapter(
        GUID,
        "Ethernet 2",
        12,
        12,
        (IPv4Interface("192.168.7.4/24"), IPv6Interface("fe80::9/64"), IPv6Interface("fd07::4/64")),
        scope=12,
        hardware=bytes.fromhex("02abcdef0001"),
    ),
    Adapter(
        "{LOOP}",
        "Loopback Pseudo-Interface 1",
        1,
        1,
        (IPv4Interface("127.0.0.1/8"), IPv6Interface("::1/128")),
        type=24,
        mtu=0xFFFFFFFF,
    ),
    Adapter("{TUNNEL}", "Büro", 0, 7, (IPv4Interface("10.0.0.1/8"), IPv6Interface("fd08::1/64")), flags=0x10, status=2),
    Adapter("{NOTHING}", "Unplugged", 0, 0, (IPv4Interface("169.254.3.4/16"),)),
]


@pytest.fixture
def on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask a Windows host, whose iphlpapi.dll writes ADAPTERS."""
    winsock: Any = types.ModuleType("winsock")
    # On a 32-bit machine it would write the other form.
    winsock.adapters_addresses = lambda: adapters_addresses(ADAPTERS, calcsize("P"))
    monkeypatch.setitem(sys.modules, "multicast_expert.system.winsock", winsock)
    monkeypatch.setattr(kernel, "SYSTEM", WindowsSystem())


@pytest.mark.usefixtures("on_windows")
def test_windows_interfaces() -> None:
    """Everything comes from one list: names, index, addresses, link address, state, MTU, loopback and multicast."""
    loopback, tunnel, ethernet = scan_interfaces()
    assert (ethernet.machine_name, ethernet.index, ethernet.friendly_name) == (GUID, 12, "Ethernet 2")
    assert (ethernet.link_layer_address, ethernet.is_up, ethernet.mtu) == ("02-AB-CD-EF-00-01", True, 1500)
    assert (ethernet.supports_multicast, ethernet.is_loopback) == (True, False)
    assert ethernet.ip4_addrs == (IPv4Interface("192.168.7.4/24"),)
    assert ethernet.ip6_addrs[1] == IPv6Interface("fd07::4/64")
    assert ethernet.ip6_addrs[0].network == IPv6Interface("fe80::9/64").network
    assert (loopback.index, loopback.is_loopback, loopback.mtu) == (1, True, None)
    assert (tunnel.friendly_name, tunnel.is_up, tunnel.supports_multicast) == ("Büro", False, False)


@pytest.mark.usefixtures("on_windows")
def test_an_index_of_zero_is_never_used() -> None:
    """An adapter without an index for IPv4 has no IPv4 address to join on; without any index, it is left out."""
    assert 0 not in [iface.index for iface in scan_interfaces()]
    (tunnel,) = find_interfaces(["{TUNNEL}"])
    assert (tunnel.index, tunnel.ip4_addrs, tunnel.ip6_addrs) == (7, (), (IPv6Interface("fd08::1/64"),))
    with pytest.raises(MulticastExpertError, match="does not appear to be a valid interface name"):
        find_interfaces(["Unplugged"])


@pytest.mark.parametrize("pointer_size", [4, 8])
def test_adapters_of_both_sizes_of_pointers(pointer_size: int) -> None:
    """The list of a 32-bit and of a 64-bit program say the same."""
    found = list(parse_adapters(*adapters_addresses(ADAPTERS, pointer_size), pointer_size))
    assert [iface.index for iface in found] == [12, 1, 7]
    assert [len(iface.ip6_addrs) for iface in found] == [2, 1, 1]


GOOD_LIST, START = adapters_addresses(ADAPTERS)


@given(st.integers(0, len(GOOD_LIST)), st.integers(0, len(GOOD_LIST) - 8), st.binary(max_size=8))
def test_a_broken_list_of_adapters(length: int, place: int, junk: bytes) -> None:
    """Cut, or with pointers and lengths that lie, it gives fewer or odd adapters, and never an exception or a loop."""
    broken = GOOD_LIST[:place] + junk + GOOD_LIST[place + len(junk) :]
    for data in (GOOD_LIST[:length], broken):
        assert len(list(parse_adapters(data, START, 8))) <= len(data)


@pytest.mark.usefixtures("on_windows")
def test_windows_link_local_addresses_have_their_scope() -> None:
    """Without it the address says nothing. The scope on Windows is the index."""
    assert "fe80::9%12" in get_interface_ips()
    assert find_interfaces(["fe80::9%12"]) == find_interfaces(["fe80::9"]) == find_interfaces([GUID])


@pytest.mark.usefixtures("on_windows")
@pytest.mark.parametrize(
    "specifier",
    [
        "Ethernet 2",
        "ethernet 2",
        "ETHERNET 2",
        GUID,
        GUID.lower(),
        "192.168.7.4",
        "fd07::4",
        "fe80::9%ethernet 2",
        "12",
        12,
        "192.168.0.0/16",
        "02-AB-CD-EF-00-01",
        "02:ab:cd:ef:00:01",
        "0.0.0.0",
    ],
)
def test_windows_specifiers(specifier: str | int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By each name, address and number; Windows does not tell capital letters from small ones."""
    monkeypatch.setattr(discovery, "_default_route", lambda *_: (find_interfaces([GUID])[0], "192.168.7.4"))
    found = [find_interfaces([specifier])]
    found += [[choice.iface for choice in choose_for_sending([specifier], 4)]]
    found += [[choice.iface for choice in choose_for_receiving([specifier], 4, True)]]
    for ifaces in found:
        # Any interface: the tunnel of ADAPTERS has an IPv6 address only.
        assert [iface.index for iface in ifaces] == [12]


def row(family: int, address: str, netmask: str | None = None) -> SimpleNamespace:
    """Return one address as psutil.net_if_addrs() has it."""
    return SimpleNamespace(family=family, address=address, netmask=netmask, broadcast=None, ptp=None)


def test_macos_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil's flags tell loopback and multicast ability; link-local addresses come with their scope."""
    addresses = {
        "lo0": [
            row(socket.AF_INET, "127.0.0.1", "255.0.0.0"),
            row(socket.AF_INET6, "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            row(socket.AF_INET6, "fe80::1%lo0", "ffff:ffff:ffff:ffff::"),
        ],
        "en0": [
            row(psutil.AF_LINK, "02:00:00:00:00:03"),
            row(socket.AF_INET6, "fe80::c0%en0", "ffff:ffff:ffff:ffff::"),
            row(socket.AF_INET, "192.168.7.5", "255.255.255.0"),
        ],
        "utun0": [row(socket.AF_INET6, "fe80::77%utun0", "ffff:ffff:ffff:ffff::")],
        "gone0": [row(socket.AF_INET, "10.87.0.1", "255.255.255.0")],
    }
    stats = {
        "lo0": SimpleNamespace(isup=True, mtu=16384, flags="up,loopback,running,multicast"),
        "en0": SimpleNamespace(isup=False, mtu=1500, flags="up,broadcast,multicast"),
        "utun0": SimpleNamespace(isup=True, mtu=1380, flags="up,pointopoint,running"),
    }
    monkeypatch.setattr(kernel, "SYSTEM", BsdSystem(MACOS))
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: addresses)
    monkeypatch.setattr(psutil, "net_if_stats", lambda: stats)

    def index(name: str) -> int:
        """One that vanished since it was listed has none."""
        if name == "gone0":
            raise OSError("no interface with this name")
        return {"lo0": 1, "en0": 4, "utun0": 9}[name]

    monkeypatch.setattr(socket, "if_nametoindex", index)
    lo0, en0, utun0 = scan_interfaces()
    assert (lo0.is_loopback, lo0.mtu, lo0.supports_multicast) == (True, 16384, True)
    assert (en0.is_up, en0.is_loopback, en0.supports_multicast) == (False, False, True)
    assert en0.link_layer_address == "02:00:00:00:00:03"
    assert not utun0.supports_multicast
    assert "fe80::c0%en0" in get_interface_ips()
    assert en0.ip6_addrs[0].network.prefixlen == 64


def test_the_public_names_are_these_functions() -> None:
    """The package hands out what is tested here, and the routing question of the same module."""
    assert multicast_expert.scan_interfaces is discovery.scan_interfaces
    assert discovery.routes is routes
