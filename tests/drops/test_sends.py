"""What the kernel tells about sends that fail before there is a packet."""

import errno
import socket
from contextlib import closing, suppress
from ipaddress import ip_address

import pytest

from doctor.stage import GROUP, GROUP6, PORT, Stage
from multicast_expert.system.drops.sends import FailedSend, SendWatch

NUMBER = 20
DO_NOT_FRAGMENT = {4: (socket.IPPROTO_IP, 10, 2), 6: (socket.IPPROTO_IPV6, 23, 2)}
"""IP_MTU_DISCOVER, IPV6_MTU_DISCOVER and IP_PMTUDISC_DO, which Python does not name."""


def opened(version: int) -> socket.socket:
    """A socket of the IP version that sends to groups on eth0."""
    made = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    index = socket.if_nametoindex("eth0")
    if version == 6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    else:
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(8) + index.to_bytes(4, "little"))
    made.setsockopt(*DO_NOT_FRAGMENT[version])
    return made


def failures(sender: socket.socket, group: str, length: int) -> list[FailedSend]:
    """What the watch tells while NUMBER datagrams of a length, and one that succeeds, are sent to the group."""
    with closing(SendWatch(ip_address(group))) as watch:
        for _ in range(NUMBER):
            with suppress(OSError):
                sender.sendto(bytes(length), (group, PORT))
        return watch.found()


@pytest.mark.parametrize("group", [GROUP, GROUP6])
def test_datagrams_that_are_too_long_are_counted(cabled: Stage, group: str) -> None:
    """Each send that fails counts, with its errno, and none that succeeds does."""
    with cabled.listener.entered(), opened(ip_address(group).version) as sender:
        (only,) = failures(sender, group, 2000)
        assert (only.number, only.times, only.own.is_unspecified) == (errno.EMSGSIZE, NUMBER, True)
        assert only.is_for_groups is (group == GROUP)
        assert failures(sender, group, 200) == []


def test_the_lost_address_and_the_peer_of_a_socket_are_told(cabled: Stage) -> None:
    """A socket whose address went away fails; the watch names the address and what it is connected to."""
    cabled.listener.ip("addr add 10.1.0.9/24 dev eth0")
    with cabled.listener.entered(), opened(4) as sender:
        sender.bind(("10.1.0.9", 0))
        sender.connect((GROUP, PORT))
        cabled.listener.ip("addr del 10.1.0.9/24 dev eth0")
        with closing(SendWatch(ip_address(GROUP))) as watch:
            for _ in range(NUMBER):
                with suppress(OSError):
                    sender.send(b"x")
            (only,) = watch.found()
    assert (str(only.own), str(only.peer), only.peer_port) == ("10.1.0.9", GROUP, PORT)
    assert (only.times, only.is_for_groups) == (NUMBER, True)
    # Older kernels answer EINVAL.
    assert only.number in (errno.ENETUNREACH, errno.EINVAL)


def test_other_namespaces_are_not_counted(cabled: Stage) -> None:
    """What fails on another host does not show."""
    with cabled.listener.entered():
        watch = SendWatch(ip_address(GROUP))
    with closing(watch), cabled.talker.entered(), opened(4) as sender:
        with suppress(OSError):
            sender.sendto(bytes(2000), (GROUP, PORT))
        assert watch.found() == []
