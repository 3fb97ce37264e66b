"""Frames from the wire of the lab."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from multicast_expert import McastTxSocket
from multicast_expert.core.errors import MulticastOSError, UnknownInterfaceError
from multicast_expert.observe.source import FrameSource
from multicast_expert.testing import Host, Lab
from multicast_expert.wire.frame import Frame
from multicast_expert.wire.group_messages import GroupQuery, GroupReport, parse_group_message

GROUP, GROUP6 = "239.1.2.3", "ff15::1:2"


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts with a cable between them."""
    with Lab() as lab:
        one, two = lab.host("one"), lab.host("two")
        lab.link(one, two, ipv4=("10.0.0.1/24", "10.0.0.2/24"), ipv6=("fd00::1/64", "fd00::2/64"))
        yield one, two


def until(source: FrameSource, wanted: Callable[[Frame], bool]) -> list[Frame]:
    """Return the frames up to the wanted one."""
    frames: list[Frame] = []
    deadline = time.monotonic() + 10
    while not any(map(wanted, frames)):
        assert time.monotonic() < deadline, frames
        source.wait(1)
        frames += source.take()
    return frames


def carries(destination: bytes, frame: Frame) -> bool:
    """Whether it is a datagram of the lab to this destination."""
    return frame.length > 100 and destination in frame.packet[:40]


def reports(frame: Frame, group: str) -> bool:
    """Whether the frame is a report of the group."""
    message = parse_group_message(frame.packet)
    content = message and message.content
    return isinstance(content, GroupReport) and content.records[0].group == group


def test_messages_and_datagrams(hosts: tuple[Host, Host]) -> None:
    """Queries, reports and datagrams come with interface, direction and the kernel's time; datagrams only if wanted."""
    one, two = hosts
    began = time.time_ns()
    with one.entered():
        everything, messages = FrameSource(["eth0"], udp=True), FrameSource()
    two.send_datagrams(GROUP, 5000, interface="eth0")
    two.send_datagrams(GROUP6, 5000, interface="eth0")
    two.send_queries("eth0", source="10.0.0.2")
    two.join_and_never_read(GROUP, 5000, interface="eth0")
    one.join_and_never_read(GROUP6, 5000, interface="eth0")
    seen = until(messages, lambda frame: reports(frame, GROUP6) and frame.outgoing)
    seen += until(messages, lambda frame: reports(frame, GROUP) and not frame.outgoing)
    assert all(parse_group_message(frame.packet) for frame in seen)
    assert any(isinstance(m.content, GroupQuery) for frame in seen if (m := parse_group_message(frame.packet)))
    for group, version in ((GROUP, 4), (GROUP6, 6)):
        packed = ip_address(group).packed
        is_wanted = partial(carries, packed)
        frame = next(filter(is_wanted, until(everything, is_wanted)))
        assert frame.packet[0] >> 4 == version
        assert (frame.interface, frame.outgoing, frame.vlan) == ("eth0", False, None)
        assert len(frame.packet) == frame.length
        assert len(frame.ethernet) == 14
        assert frame.timestamp_ns is not None
        assert began <= frame.timestamp_ns <= time.time_ns()
    everything.close()
    messages.close()


@pytest.mark.parametrize("ring", [None, 4 << 20], ids=["queue", "ring"])
def test_loopback_shows_each_datagram_once(hosts: tuple[Host, Host], ring: int | None) -> None:
    """Other packet sockets see it twice there, as it leaves and as it comes in."""
    one, _ = hosts
    with one.entered(), closing(FrameSource(udp=True, ring=ring)) as source:
        with McastTxSocket(socket.AF_INET, [GROUP], iface="lo") as sender:
            for number in range(3):
                sender.sendto(b"%d" % number, (GROUP, 5000))
        with McastTxSocket(socket.AF_INET, [GROUP], iface="eth0") as sender:
            sender.sendto(b"last", (GROUP, 5000))
        seen = until(source, lambda frame: frame.packet.endswith(b"last"))
    to_group = [frame for frame in seen if frame.packet[16:20] == ip_address(GROUP).packed]
    found = [(frame.interface, frame.outgoing, frame.packet[28:]) for frame in to_group]
    assert found == [("lo", False, b"0"), ("lo", False, b"1"), ("lo", False, b"2"), ("eth0", True, b"last")]


def test_nothing_is_joined(hosts: tuple[Host, Host]) -> None:
    """The host has the same memberships with the source as without, and its card passes no further address."""
    one, _ = hosts

    def lists() -> list[str]:
        return [one.command("cat", f"/proc/net/{name}") for name in ("igmp", "igmp6", "dev_mcast")]

    before = lists()
    with one.entered():
        source = FrameSource(udp=True)
    assert lists() == before
    assert "ALLMULTI" not in one.command("ip", "link", "show", "eth0")
    source.close()
    with one.entered():
        source = FrameSource(all_groups=True)
    assert lists() == before
    assert "allmulti 1" in one.command("ip", "-d", "link", "show", "eth0")
    source.close()
    assert "allmulti 0" in one.command("ip", "-d", "link", "show", "eth0")


@pytest.mark.parametrize("chosen", [None, ["eth1"]])
def test_interfaces_that_come_later(hosts: tuple[Host, Host], chosen: list[str] | None) -> None:
    """An interface that comes back under a chosen name is taken in, as are new ones without a choice."""
    one, _ = hosts
    one.add_interface("eth1", ipv4="10.1.0.1/24")
    with one.entered():
        source = FrameSource(chosen)
        one.remove_interface("eth1")
        source.wait(5)
        source.take()
        assert "eth1" not in {each.machine_name for each in source.interfaces}
        one.recreate_interface("eth1")
        one.join_and_never_read(GROUP, 5000, interface="eth0")
        one.join_and_never_read(GROUP, 5000, interface="eth1")
        frames = until(source, lambda frame: reports(frame, GROUP) and frame.interface == "eth1")
        assert ("eth0" in {frame.interface for frame in frames}) == (chosen is None)
        assert "eth1" in {each.machine_name for each in source.interfaces}
    source.close()


def test_frames_are_cut_and_losses_counted(hosts: tuple[Host, Host]) -> None:
    """`keep` bytes of a frame arrive, and the length on the wire with them; what finds no room is counted."""
    one, two = hosts
    with one.entered():
        source = FrameSource(udp=True, keep=64, buffer=4096)
    sending = two.send_datagrams(GROUP, 5000, interface="eth0", size=500, interval=0.0005)
    deadline = time.monotonic() + 10
    while not (lost := source.lost()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    frame = next(frame for frame in until(source, lambda frame: frame.length > 500) if frame.length > 500)
    assert (len(frame.packet), frame.length) == (50, 528)
    sending.stop()
    in_all = source.lost()
    assert source.lost() == in_all >= lost
    source.close()


def test_refusals(hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown interface, and a program without the privilege, get an error with a remedy; nothing stays open."""
    one, _ = hosts
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with one.entered(), pytest.raises(UnknownInterfaceError):
        FrameSource(["eth9"])

    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("multicast_expert.wire.packet_socket.socket.socket", forbidden)
    with pytest.raises(MulticastOSError, match="sudo"):
        FrameSource()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
