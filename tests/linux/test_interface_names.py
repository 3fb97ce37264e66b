"""Interfaces by each name that Linux has for them, for every class, function and command that takes one."""

import errno
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from linux.plain_sockets import FAMILY
from multicast_expert import (
    AsyncMcastRxSocket,
    AsyncMcastTxSocket,
    IfaceSpecifier,
    McastRxSocket,
    McastTxSocket,
    MulticastExpertError,
    UnknownInterfaceError,
    find_interfaces,
    scan_interfaces,
)
from multicast_expert.doctor import diagnose
from multicast_expert.system import kernel
from multicast_expert.testing import Host, Lab, wait_until

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
LONG = "a-name-that-is-longer-than-fifteen-bytes"
MAC = "02:00:00:00:00:aa"

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


@pytest.fixture(scope="module")
def host(lab: Lab) -> Iterator[Host]:
    """A host whose eth0 has all kinds of names, and an eth1 with two addresses; the tests run in it."""
    host = lab.host("many-names")
    host.ip(
        "link add eth0 type veth peer name far0",
        "link add eth1 type veth peer name far1",
        f"link set eth0 address {MAC}",
        f"link property add dev eth0 altname uplink altname {LONG}",
        "addr add 10.2.0.1/24 dev eth0",
        "addr add 10.2.0.2/24 dev eth0 label eth0:1",
        "addr add fd02::1/64 dev eth0 nodad",
        "addr add 10.3.0.1/24 dev eth1",
        "addr add fd03::1/64 dev eth1 nodad",
        "link set eth0 up",
        "link set far0 up",
        "link set eth1 up",
        "link set far1 up",
        "route add default via 10.3.0.254",
        "route add default via fd03::254 dev eth1",
    )
    with host.entered():
        yield host


NAMES = ["eth0", "uplink", LONG, "eth0:1", "eth0@far0", "eth0@if7", "uplink@if7", MAC, MAC.upper().replace(":", "-")]
NAMES_OF_VERSION: dict[int, list[str]] = {
    4: [*NAMES, "10.2.0.1", "10.2.0.2/24", "10.2.0.0/16"],
    6: [*NAMES, "fd02::1", "fd02::1/64", "fd02::/16"],
}
CASES = [(version, name) for version, names in NAMES_OF_VERSION.items() for name in names]


@pytest.mark.parametrize(("version", "name"), CASES)
def test_each_name_names_it(host: Host, version: int, name: str) -> None:
    """Receivers and senders, async ones too, memberships, the list and the doctor find eth0 by each of its names."""
    with (
        McastRxSocket(FAMILY[version], [GROUP[version]], PORT, iface=name, timeout=5) as receiver,
        McastTxSocket(FAMILY[version], [GROUP[version]], iface=name, enable_external_loopback=True) as sender,
        McastRxSocket(FAMILY[version], [GROUP[version]], PORT, iface="lo") as other,
    ):
        sender.sendto(b"by name", (GROUP[version], PORT))
        datagram = receiver.receive()
        assert (datagram.data, datagram.interface_name) == (b"by name", "eth0")
        other.leave_group(GROUP[version])
        membership = other.join_group(GROUP[version], iface=name)
        assert [iface.machine_name for iface in membership.interfaces] == ["eth0"]
        other.leave_group(GROUP[version], iface=name)
        assert other.memberships == []
    for made in (
        AsyncMcastRxSocket(FAMILY[version], [GROUP[version]], PORT, ifaces=[name]),
        AsyncMcastTxSocket(FAMILY[version], [GROUP[version]], iface_ip=name),
    ):
        assert [iface.machine_name for iface in made.network_interfaces] == ["eth0"]
    assert [iface.machine_name for iface in find_interfaces([name])] == ["eth0"]
    assert diagnose(f"{GROUP[version]}:{PORT}", iface=name, listen=0).target.interface == "eth0"


@both_versions
@pytest.mark.parametrize("as_text", [True, False])
def test_an_index(host: Host, version: int, as_text: bool) -> None:
    """The index does, as a number and as text."""
    index = socket.if_nametoindex("eth0")
    specifier: IfaceSpecifier = str(index) if as_text else index
    with McastRxSocket(FAMILY[version], [GROUP[version]], PORT, iface=specifier) as receiver:
        assert [iface.index for iface in receiver.network_interfaces] == [index]


@both_versions
@pytest.mark.parametrize("anything", ["0.0.0.0", "::"])
def test_any_interface(host: Host, version: int, anything: str) -> None:
    """0.0.0.0 and :: are as if no interface was named: a receiver listens on all, also later ones; a sender uses the
    default one.
    """
    with McastRxSocket(FAMILY[version], [GROUP[version]], PORT, iface=anything) as receiver:
        assert {"eth0", "eth1"} <= {iface.machine_name for iface in receiver.network_interfaces}
        assert "lo" not in {iface.machine_name for iface in receiver.network_interfaces}
        receiver.leave_group(GROUP[version], iface=anything)
        assert receiver.memberships == []
        receiver.join_group(GROUP[version], iface=anything)
        assert len(receiver.memberships) == len(receiver.network_interfaces)
        host.ip("link add late0 type veth peer name late1", "addr add 10.4.0.1/24 dev late0", "link set late0 up")
        host.ip("addr add fd04::1/64 dev late0 nodad", "link set late1 up")
        wait_until(lambda: "late0" in {each.machine_name for each in receiver.network_interfaces}, "late0 is joined")
        host.ip("link delete late0")
    with McastTxSocket(FAMILY[version], [GROUP[version]], iface=anything) as sender:
        assert [iface.machine_name for iface in sender.network_interfaces] == ["eth1"]


def test_a_sender_sends_from_the_address_that_was_named(host: Host) -> None:
    """A label and a network name an address, which datagrams leave with."""
    sources = {"eth0:1": "10.2.0.2", "10.2.0.2/24": "10.2.0.2", "10.2.0.2/31": "10.2.0.2", "10.2.0.0/31": "10.2.0.1"}
    for specifier, source in sources.items():
        with McastTxSocket(socket.AF_INET, iface=specifier) as sender:
            assert sender.getsockname()[0] == source


def test_what_several_interfaces_fit(host: Host) -> None:
    """A receiver listens on all of them; a sender needs one, and the error lists those that fit."""
    with McastRxSocket(socket.AF_INET, ["239.1.2.3"], PORT, iface="10.0.0.0/14") as receiver:
        assert [iface.machine_name for iface in receiver.network_interfaces] == sorted(
            ["eth0", "eth1"], key=socket.if_nametoindex
        )
    with pytest.raises(MulticastExpertError, match=r"10\.0\.0\.0/14 fits several interfaces: eth\d, eth\d\."):
        McastTxSocket(socket.AF_INET, iface="10.0.0.0/14")


UNKNOWN = {
    "eth9": ["lo", "eth0", "eth1", "far0", "far1", "uplink (eth0)", f"{LONG} (eth0)", "eth0:1 (eth0)"],
    "4095": ["lo", "eth0", "eth1", "1 (lo)"],
    "02:00:00:00:00:bb": ["lo", "eth1", f"{MAC} (eth0)"],
    "10.9.0.0/16": ["127.0.0.1 (lo)", "10.2.0.1 (eth0)", "10.2.0.2 (eth0)", "10.3.0.1 (eth1)"],
    "fe80::1%eth9": ["::1 (lo)", "fd02::1 (eth0)", "fd03::1 (eth1)"],
    "fd02::1%eth1": ["::1 (lo)", "fd02::1 (eth0)", "fd03::1 (eth1)"],
}


@pytest.mark.parametrize(("specifier", "listed"), UNKNOWN.items())
@pytest.mark.parametrize("beside", [(), ("eth0",)], ids=["alone", "beside one that is there"])
def test_unknown_ones(host: Host, specifier: str, listed: list[str], beside: tuple[str, ...]) -> None:
    """Each class and function says so with ENODEV, and lists all that there is, not only what it looked at."""
    calls = (
        lambda: McastRxSocket(socket.AF_INET, ["239.1.2.3"], PORT, ifaces=[*beside, specifier]),
        lambda: AsyncMcastRxSocket(socket.AF_INET6, ["ff15::1"], PORT, ifaces=[*beside, specifier]),
        lambda: McastTxSocket(socket.AF_INET, ifaces=[*beside, specifier]),
        lambda: AsyncMcastTxSocket(socket.AF_INET, ifaces=[*beside, specifier]),
        lambda: find_interfaces([*beside, specifier]),
    )
    for call in calls:
        with pytest.raises(UnknownInterfaceError) as caught:
            call()
        assert caught.value.errno == errno.ENODEV
        for each in listed:
            assert each in str(caught.value)
    with McastRxSocket(socket.AF_INET, ["239.1.2.3"], PORT, iface="eth0") as receiver:
        for change in (receiver.join_group, receiver.leave_group):
            with pytest.raises(OSError, match=specifier) as refused:
                change("239.1.2.4", iface=specifier)
            assert refused.value.errno == errno.ENODEV
        for change in (receiver.block_source, receiver.unblock_source):
            with pytest.raises(OSError, match=specifier):
                change("239.1.2.3", "10.0.0.7", iface=specifier)


@pytest.mark.parametrize("name", [*NAMES, "10.2.0.1", "10.2.0.0/16", "{index}"])
def test_only_what_is_meant_is_looked_at(host: Host, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is asked for the one interface, not for all; only a MAC address needs all of them."""
    described: list[list[str]] = []
    original = kernel.SYSTEM.interfaces

    def interfaces(meant: object = None) -> object:
        found = original(meant)  # type: ignore[arg-type]  # passed on as it is
        described.append([iface.machine_name for iface in found])
        return found

    monkeypatch.setattr(kernel.SYSTEM, "interfaces", interfaces)
    find_interfaces([name.format(index=socket.if_nametoindex("eth0"))])
    if name.lower().replace("-", ":") == MAC:
        assert described[0] == []
        assert len(described) == 2
    else:
        assert described == [["eth0"]]


def test_scan(host: Host) -> None:
    """A scan lists the alternative names, and the labels of addresses that have one of their own."""
    known = {iface.machine_name: iface for iface in scan_interfaces()}
    assert known["eth0"].alternative_names == ("uplink", LONG)
    assert [(label, str(address)) for label, address in known["eth0"].labels] == [("eth0:1", "10.2.0.2")]
    for name in ("lo", "eth1", "far0"):
        assert (known[name].alternative_names, known[name].labels) == ((), ())


def mcast(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where the test runs."""
    return subprocess.run(
        [sys.executable, "-m", "multicast_expert", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uplink", "eth0:1", MAC, "10.2.0.0/16", "eth0@far0"])
def test_the_command(host: Host, name: str) -> None:
    """Each command that takes an interface takes each of its names, by -i and in the endpoint."""
    sent = mcast("send", "239.1.2.3:5000", "-i", name)
    assert (sent.returncode, sent.stderr.rpartition(" ")[2]) == (0, "eth0\n")
    assert "out of eth0" in mcast("send", f"239.1.2.3:5000%{name}").stderr
    with McastRxSocket(socket.AF_INET, ["239.7.7.7"], PORT, iface="eth0"):
        groups = mcast("groups", "-i", name)
    assert "239.7.7.7" in groups.stdout
    assert "lo " not in groups.stdout
    assert "on eth0 (" in mcast("recv", "239.1.2.3:5000", "-i", name, "-W", "0").stderr
    assert "eth0" in mcast("plan", f"239.1.2.3:5000%{name}").stdout
    assert mcast("doctor", f"239.1.2.3:5000%{name}", "--listen", "0").returncode in (0, 1, 3)
    assert "eth0" in mcast("demo", "-i", name).stdout


def test_unknown_ones_of_the_command(host: Host) -> None:
    """What fits none is an error with the list."""
    for arguments in (("send", "239.1.2.3:5000"), ("recv", "239.1.2.3:5000"), ("groups",), ("demo",)):
        failed = mcast(*arguments, "-i", "eth9")
        assert failed.returncode == 1
        assert "Other names here: uplink (eth0)" in " ".join(failed.stderr.split())


def test_the_command_receives_ranges(host: Host) -> None:
    """One text names several groups and ports, each of which is received."""
    with subprocess.Popen(
        [sys.executable, "-m", "multicast_expert", "recv", "239.1.1.1+2:5000-5001%lo", "-c", "4", "-W", "20"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stderr is not None
        assert child.stdout is not None
        assert "listening" in child.stderr.readline()
        with McastTxSocket(socket.AF_INET, iface="lo") as sender:
            for group in ("239.1.1.1", "239.1.1.2", "239.1.1.3"):
                for port in (5000, 5001, 5002):
                    sender.sendto(b"x", (group, port))
        lines = child.stdout.read().splitlines()
    assert sorted(line.split()[1] for line in lines) == [
        "239.1.1.1:5000%lo", "239.1.1.1:5001%lo", "239.1.1.2:5000%lo", "239.1.1.2:5001%lo",
    ]  # fmt: skip
