"""Senders and receivers that nobody here wrote, each on a host of its own: iperf 2, socat, ssmping, python-zeroconf."""

import contextlib
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from time import sleep, time
from typing import Any, NamedTuple

import pytest

from linux.plain_sockets import FAMILY, own_address
from multicast_expert import McastRxSocket, McastTxSocket
from multicast_expert.testing import Host, Interface, Lab, wait_until
from programs import need

PORT = 5001  # iperf's own
GROUP = {4: "239.5.5.5", 6: "ff15::5:5"}
PATIENCE = 10.0


both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


class Network(NamedTuple):
    """The hosts on one switch; we are on `ours`, their programs on the others."""

    ours: Interface
    theirs: Interface
    third: Interface


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """Three hosts on a switch, as at home."""
    with Lab() as lab:
        switch = lab.switch("switch")
        yield Network(
            *(
                lab.plug(lab.host(name), switch, ipv4=f"10.1.0.{last}/24", ipv6=f"fd01::{last}/64")
                for last, name in enumerate(Network._fields, 1)
            )
        )


@contextlib.contextmanager
def receiver(network: Network, version: int, group: str, port: int = PORT, **options: Any) -> Iterator[McastRxSocket]:
    """The library's receiver on our host."""
    with network.ours.node.entered():
        opened = McastRxSocket(FAMILY[version], [group], port, "eth0", timeout=PATIENCE, **options).open()
    with contextlib.closing(opened):
        yield opened


@contextlib.contextmanager
def transmitter(network: Network, version: int) -> Iterator[McastTxSocket]:
    """The library's sender on our host."""
    with network.ours.node.entered():
        opened = McastTxSocket(FAMILY[version], [GROUP[version]], "eth0").open()
    with contextlib.closing(opened):
        yield opened


@contextlib.contextmanager
def running(host: Host, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program that runs on a host until the end of the block."""
    pipe = subprocess.PIPE
    process = host.popen(arguments, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        host.end_process(process)


def wait_until_joined(interface: Interface, group: str) -> None:
    """Return when some program on the host has joined the group."""

    def joined() -> bool:
        (listing,) = json.loads(interface.node.command("ip", "-j", "maddr", "show", "dev", interface.name))
        return any(entry.get("address") == group for entry in listing["maddr"])

    wait_until(joined, f"a program has joined {group}")


def line_with(process: subprocess.Popen[str], words: str) -> str:
    """The next line of the program's output with these words; AssertionError with the output if it ends before."""
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return line
    raise AssertionError(f"it never said {words!r}: {''.join(lines)}")


# iperf 2


def iperf_number(payload: bytes) -> int:
    """The number of an iperf datagram; that of the last is negative (struct UDP_datagram in iperf's payloads.h)."""
    (number,) = struct.unpack_from("!i", payload)
    return int(number)


@both_versions
def test_we_hear_all_that_iperf_sends(network: Network, version: int) -> None:
    """A stream of the iperf 2 client arrives whole and in order, up to the datagram that iperf marks as the last."""
    # -n: bytes in all; -l: bytes in each; -b: bits per second
    arguments = ["-u", "-c", GROUP[version], "-b", "5m", "-n", "100K", "-l", "500"]
    source = own_address(network.theirs, version)
    arguments += ["-B", source] if version == 4 else ["-V", "-B", f"{source}%eth0"]
    with (
        receiver(network, version, GROUP[version]) as listening,
        running(network.theirs.node, need("iperf"), *arguments),
    ):
        first = listening.receive()
        numbers = [iperf_number(first.data)]
        while numbers[-1] > 0:
            numbers.append(iperf_number(listening.receive().data))
    assert first.sender[0] == source
    assert (first.group, first.interface_name, first.hop_limit, len(first.data)) == (GROUP[version], "eth0", 1, 500)
    assert len(numbers) > 200
    assert [abs(number) for number in numbers] == list(range(1, len(numbers) + 1))


@both_versions
def test_iperf_hears_all_that_we_send(network: Network, version: int) -> None:
    """The iperf 2 server counts every datagram of ours, and none as lost."""
    host, count = network.theirs.node, 200
    arguments = ["-s", "-u", "-B", f"{GROUP[version]}%eth0", "-l", "500", *(["-V"] if version == 6 else [])]
    with running(host, need("iperf"), *arguments) as iperf, transmitter(network, version) as sending:
        wait_until_joined(network.theirs, GROUP[version])
        # iperf's own client paces itself, too, and repeats the last datagram
        for number in [*range(1, count), *[-count] * 5]:
            seconds, fraction = divmod(time(), 1)
            header = struct.pack("!iIIi", number, int(seconds), int(fraction * 1e6), 0)
            sending.sendto(header + bytes(484), (GROUP[version], PORT))
            sleep(0.0005)
        assert f" 0/{count} (0%)" in line_with(iperf, "%)")


# socat


@both_versions
def test_we_hear_socat(network: Network, version: int) -> None:
    """What socat sends to the group arrives with its address, group and interface."""
    options = "ip-multicast-if=10.1.0.2" if version == 4 else "so-bindtodevice=eth0"
    group = GROUP[4] if version == 4 else f"[{GROUP[6]}]"
    with receiver(network, version, GROUP[version]) as listening:
        address = f"UDP{version}-DATAGRAM:{group}:{PORT},{options}"
        network.theirs.node.command(need("socat"), "-u", "STDIN", address, stdin="spoken by socat")
        heard = listening.receive()
    assert (heard.data, heard.group, heard.interface_name) == (b"spoken by socat", GROUP[version], "eth0")
    assert heard.sender[0] == own_address(network.theirs, version)


@both_versions
@pytest.mark.parametrize("kind", ["RECV", "RECVFROM"])
def test_socat_hears_us(network: Network, kind: str, version: int) -> None:
    """socat, having joined the group, prints what we send."""
    option = f"ip-add-membership={GROUP[4]}:eth0" if version == 4 else f"ipv6-join-group=[{GROUP[6]}]:eth0"
    arguments = ["-u", f"UDP{version}-{kind}:{PORT},{option}", "STDOUT"]
    with running(network.theirs.node, need("socat"), *arguments) as socat, transmitter(network, version) as sending:
        wait_until_joined(network.theirs, GROUP[version])
        sending.sendto(b"spoken by us\n", (GROUP[version], PORT))
        assert line_with(socat, "spoken") == "spoken by us\n"


# ssmping

SSMPING_GROUP = {4: "232.43.211.234", 6: "ff3e::4321:1234"}  # ssmping(1)


def bound_port(interface: Interface, version: int, group: str) -> int | None:
    """The port of a socket on this host that is bound to the group: ssmping chooses it, and the answers go to it."""
    table = "/proc/thread-self/net/udp" + ("6" if version == 6 else "")
    packed = socket.inet_pton(FAMILY[version], group)
    words = [packed[start : start + 4][::-1].hex().upper() for start in range(0, len(packed), 4)]
    with interface.node.entered(), open(table) as rows:  # noqa: PTH123 - a Path has no better way
        for row in rows:
            address, _, port = row.split()[1].partition(":")
            if address == "".join(words):
                return int(port, 16)
    return None


@pytest.mark.slow
@both_versions
def test_we_hear_the_channel_of_ssmpingd(network: Network, version: int) -> None:
    """ssmpingd answers a third host's ssmping on its channel: we hear it if we ask for its source, and only then."""
    group, server = SSMPING_GROUP[version], own_address(network.theirs, version)
    arguments = [need("ssmping"), f"-{version}", "-I", "eth0", "-c", "8", server]
    with contextlib.ExitStack() as opened:
        opened.enter_context(running(network.theirs.node, need("ssmpingd")))
        wait_until(lambda: _answers(network.theirs, version), "ssmpingd is bound to its port")
        opened.enter_context(running(network.third.node, *arguments))
        wait_until(lambda: bound_port(network.third, version, group) is not None, "ssmping is bound to its port")
        port = bound_port(network.third, version, group)
        assert port is not None
        listening = opened.enter_context(receiver(network, version, group, port, source_ips=[server]))
        elsewhere = own_address(network.third, version)
        deaf = opened.enter_context(receiver(network, version, group, port, source_ips=[elsewhere]))
        heard = [listening.receive() for _ in range(2)]
        with pytest.raises(TimeoutError):
            deaf.receive(timeout=0)
    assert {each.sender[:2] for each in heard} == {(server, 4321)}
    assert {each.group for each in heard} == {group}
    assert [each.data[:1] for each in heard] == [b"A", b"A"], "an echo reply"


def _answers(interface: Interface, version: int) -> bool:
    table = "udp6" if version == 6 else "udp"
    with interface.node.entered(), open(f"/proc/thread-self/net/{table}") as rows:  # noqa: PTH123
        return any(row.split()[1].endswith(":10E1") for row in rows)  # 4321


# python-zeroconf


ANNOUNCER = """
import socket, sys
from zeroconf import IPVersion, ServiceInfo, Zeroconf

announcer = Zeroconf(ip_version=IPVersion.All)
address = socket.inet_aton("10.1.0.2")
service = ServiceInfo("_loud._udp.local.", "speaker._loud._udp.local.", addresses=[address], port=4711)
announcer.register_service(service, cooperating_responders=True)
print("announced", flush=True)
sys.stdin.read()
announcer.close()
"""


@both_versions
def test_we_hear_zeroconf_announce_a_service(network: Network, version: int) -> None:
    """python-zeroconf's announcement arrives on 224.0.0.251 and ff02::fb, port 5353, with hop limit 255."""
    pytest.importorskip("zeroconf", reason="python-zeroconf is not installed (it is in the test extra)")
    group = {4: "224.0.0.251", 6: "ff02::fb"}[version]
    with (
        receiver(network, version, group, 5353) as listening,
        running(network.theirs.node, sys.executable, "-c", ANNOUNCER),
    ):
        announcement = next(heard for heard in listening if b"\x07speaker" in heard.data and heard.data[2] & 0x80)
    assert announcement.sender[1] == 5353
    assert (announcement.group, announcement.interface_name, announcement.hop_limit) == (group, "eth0", 255)
    assert struct.pack("!HHH", 0, 0, 4711) in announcement.data, "the service record has the port (RFC 2782)"
