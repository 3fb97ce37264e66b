"""The drop monitor, which tells where neither BPF nor perf is allowed, and what switches it off."""

import errno
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.stage import GROUP, GROUP6, PORT, Stage
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.system import netlink
from multicast_expert.system.drops import drop_monitor, monitor_watch
from multicast_expert.system.drops.dropped import Dropped
from multicast_expert.system.drops.monitor_watch import Guard, MonitorWatch
from multicast_expert.testing import wait_until
from multicast_expert.wire.frames import udp_packet

FAMILY = drop_monitor.Family(0x1C, 5)


def family_body(name: bytes = b"NET_DM", group: bytes = b"events") -> bytes:
    """The answer of the kernel about a family of generic netlink."""
    described = netlink.attribute(1, group + b"\0") + netlink.attribute(2, struct.pack("=I", FAMILY.group))
    body = struct.pack("=BBxx", 1, 2) + netlink.attribute(2, name + b"\0")
    body += netlink.attribute(1, struct.pack("=H", FAMILY.number))
    return body + netlink.attribute(7, netlink.attribute(1, described))


def alert(frame: bytes, reason: bytes | None = b"NETFILTER_DROP", origin: int = 0) -> bytes:
    """What the monitor tells of one packet."""
    body = struct.pack("=BBxx", 5, 2) + netlink.attribute(14, struct.pack("=H", origin))
    body += netlink.attribute(2, struct.pack("=Q", 0xFFFFFFFF81000001))
    body += netlink.attribute(3, b"nft_do_chain.isra.0+0x3c/0x510 [nf_tables]\0")
    body += netlink.attribute(4, netlink.attribute(0, struct.pack("=I", 3)) + netlink.attribute(1, b"eth0\0"))
    body += netlink.attribute(6, struct.pack("=H", 0x0800)) + netlink.attribute(7, frame)
    return body if reason is None else body + netlink.attribute(23, reason + b"\0")


PACKET = udp_packet(("10.1.0.2", 4000), (GROUP, PORT), bytes(100))
PACKET6 = udp_packet(("fd01::2", 4000), (GROUP6, PORT), bytes(100))
ETHERNET = bytes(12) + b"\x08\x00"
EXPECTED = Dropped(
    "NETFILTER_DROP", "nft_do_chain", 3, ip_address(GROUP), PORT, ip_address("10.1.0.2"), False, "", None, 1
)
OPTIONS = PACKET6[:6] + b"\x00" + PACKET6[7:40] + b"\x11\x00" + bytes(6) + PACKET6[40:]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (ETHERNET + PACKET, EXPECTED),
        (PACKET, EXPECTED),
        (bytes(12) + b"\x81\x00\x00\x05\x08\x00" + PACKET, EXPECTED),
        (PACKET[:6] + b"\x20\x00" + PACKET[8:], EXPECTED._replace(port=None)),
        (bytes(12) + b"\x86\xdd" + PACKET6,
         EXPECTED._replace(group=ip_address(GROUP6), source=ip_address("fd01::2"))),
        (OPTIONS, EXPECTED._replace(group=ip_address(GROUP6), source=ip_address("fd01::2"))),
        (PACKET[:9] + b"\x06" + PACKET[10:], None),
        (udp_packet(("10.1.0.2", 4000), ("10.1.0.1", PORT), b""), None),
        (b"", None),
    ],
    ids=["Ethernet", "bare", "VLAN", "fragment", "IPv6", "IPv6 with options", "TCP", "unicast", "nothing"],
)  # fmt: skip
def test_alerts(frame: bytes, expected: Dropped | None) -> None:
    """The monitor tells group, port, source, interface, function and reason; what is no datagram of a group is left."""
    assert drop_monitor.parse_alert(alert(frame)) == expected


def test_alerts_of_older_kernels_and_of_hardware() -> None:
    """Before Linux 5.18 there is no reason; what a switch chip dropped is not ours."""
    assert drop_monitor.parse_alert(alert(PACKET, None)) == EXPECTED._replace(reason="NOT_SPECIFIED")
    assert drop_monitor.parse_alert(alert(PACKET, origin=1)) is None


def test_families() -> None:
    """The monitor is found among all families by its name, with the group of its events."""
    assert drop_monitor.parse_family(family_body()) == FAMILY
    assert drop_monitor.parse_family(family_body(b"ethtool")) is None
    assert drop_monitor.parse_family(family_body(group=b"others")) is None
    requests = [drop_monitor.configuration(FAMILY), drop_monitor.start(FAMILY), drop_monitor.stop(FAMILY)]
    assert [each.hex(" ", 4) for each in requests] == [
        "2c000000 1c000500 01000000 00000000 02020000 05000100 01000000 08000900 80000000 08000b00 e8030000",
        "14000000 1c000500 01000000 00000000 03020000",
        "14000000 1c000500 01000000 00000000 04020000",
    ]


@given(st.data())
def test_messages_that_are_cut_or_damaged(data: st.DataObject) -> None:
    """An answer or none, and never an exception."""
    for read, body in (
        (drop_monitor.parse_family, family_body()),
        (drop_monitor.parse_alert, alert(ETHERNET + PACKET)),
        (drop_monitor.parse_alert, alert(OPTIONS)),
    ):
        damaged = bytearray(body[: data.draw(st.integers(0, len(body)))])
        for place in data.draw(st.lists(st.integers(0, len(body)), max_size=4)):
            damaged[place : place + 1] = data.draw(st.binary(min_size=1, max_size=1)) if place < len(damaged) else b""
        found: Any = read(bytes(damaged))
        assert found is None or isinstance(found, drop_monitor.Family | Dropped)


class Monitor:
    """A kernel that has the drop monitor, as its documentation describes it: stands in for the netlink channel."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.busy = False
        self.bodies = [family_body(b"nlctrl"), family_body()]
        self.alerts, self.told = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __call__(self, protocol: int) -> "Monitor":
        """Open a channel."""
        assert protocol == 16
        return self

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, request: bytes) -> list[bytes]:
        """Answer as the kernel."""
        (message,) = netlink.messages(request)
        if message.kind == 16:
            return self.bodies
        assert message.kind == FAMILY.number
        command = {2: "configure", 3: "start", 4: "stop"}[message.body[0]]
        if self.busy and command == "configure":
            raise OSError(errno.EBUSY, "busy")
        self.asked.append(command)
        return []


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitor]:
    """The watch speaks with a stand-in of the kernel, and the guard's message goes there too."""
    made = Monitor()

    class Alerts:
        """The socket of the alerts."""

        def __init__(self, *_: object) -> None:
            self.close = made.told.close
            self.recv = made.told.recv
            self.setblocking = made.told.setblocking
            self.options: list[object] = []

        def __enter__(self) -> "Alerts":
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def setsockopt(self, *option: object) -> None:
            if option[0] == 270:
                assert option[1:] == (1, FAMILY.group)

    class Guarding:
        """A guard that asks at once."""

        def __init__(self, protocol: int, message: bytes) -> None:
            assert protocol == 16
            self.close = lambda: made.ask(message)

    monkeypatch.setattr(monitor_watch, "Channel", made)
    monkeypatch.setattr(monitor_watch, "Guard", Guarding)
    monkeypatch.setattr(monitor_watch.socket, "socket", Alerts)
    yield made
    made.alerts.close()
    made.told.close()


def test_the_monitor_is_started_read_and_stopped(monitor: Monitor) -> None:
    """It is configured and guarded before it starts; alerts are counted by kind, and those of other groups left out."""
    found = MonitorWatch([ip_address(GROUP)])
    assert monitor.asked == ["configure", "start"]
    other = udp_packet(("10.1.0.2", 4000), ("239.9.9.9", PORT), b"")
    for frame in (PACKET, PACKET, other, b"nonsense"):
        monitor.alerts.send(netlink.request(FAMILY.number, 0, alert(frame)))
    monitor.alerts.send(b"\x05")
    assert found.drops() == found.drops() == [EXPECTED._replace(number=2)]
    monitor.alerts.send(netlink.request(FAMILY.number, 0, alert(PACKET)))
    found.restart()
    assert found.drops() == []
    assert "all network namespaces" in found.limits
    found.close()
    found.close()
    assert monitor.asked == ["configure", "start", "stop"]


def test_a_monitor_that_is_in_use_or_missing(monitor: Monitor) -> None:
    """It belongs to another program then, and is left as it is."""
    monitor.busy = True
    with pytest.raises(MulticastExpertError, match="Another program"):
        MonitorWatch()
    monitor.bodies = []
    with pytest.raises(MulticastExpertError, match="modprobe drop_monitor"):
        MonitorWatch()
    assert monitor.asked == []


GUARDED = """
import sys, time
from multicast_expert.system.drops.monitor_watch import Guard
guard = Guard(0, bytes.fromhex(sys.argv[1]))
print(flush=True)
sys.stdin.read()
guard.close()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_the_guard_sends_its_message_however_the_process_ends(cabled: Stage, end: signal.Signals | None) -> None:
    """Here the message switches an interface off, as this kernel has no drop monitor."""
    cabled.listener.ip("link set lo up")
    with cabled.listener.entered():
        index = socket.if_nametoindex("lo")
    message = netlink.request(netlink.RTM_NEWLINK, 4, struct.pack("=BxHiII", 0, 0, index, 0, 1))
    process = cabled.listener.popen(
        [sys.executable, "-c", GUARDED, message.hex()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.readline()
    assert "<LOOPBACK,UP" in cabled.listener.command("ip", "link", "show", "lo")
    if end is None:
        process.stdin.close()
    else:
        process.send_signal(end)
    process.wait(20)
    wait_until(lambda: "UP" not in cabled.listener.command("ip", "link", "show", "lo"), "the message")
    cabled.listener.end_process(process)


def test_a_guard_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a guard the monitor is not started."""
    monkeypatch.setattr(monitor_watch, "_GUARD", "raise SystemExit(1)")
    with pytest.raises(OSError, match="no process could be started"):
        Guard(0, b"")
