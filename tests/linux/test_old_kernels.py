"""What an old kernel lacks has a fallback: this one stands in for it, with the option refused."""

import errno
import os
import socket
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from linux.plain_sockets import FAMILY
from multicast_expert import McastRxSocket, McastTxSocket, MulticastOSError, extension
from multicast_expert.core.datagram import decode_arrival
from multicast_expert.engine.intake import recvmmsg
from multicast_expert.platforms import LINUX
from multicast_expert.system import kernel
from multicast_expert.testing import Lab, wait_until

SO_TIMESTAMPNS, SO_TIMESTAMPNS_NEW = 35, 64
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
PORT = 5000

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


def without(monkeypatch: pytest.MonkeyPatch, refused: set[int], error: int) -> list[int]:
    """Open sockets that refuse these options of SOL_SOCKET; returns the numbers of those that were set."""
    done: list[int] = []

    class OldSocket(socket.socket):
        def setsockopt(self, level: int, number: int, *value: Any) -> None:
            if level == socket.SOL_SOCKET and number in refused:
                raise OSError(error, os.strerror(error))
            super().setsockopt(level, number, *value)
            if level == socket.SOL_SOCKET:
                done.append(number)

    monkeypatch.setattr(kernel.SYSTEM, "socket", lambda family, kind: OldSocket(family, kind | socket.SOCK_NONBLOCK))
    return done


@both_versions
@pytest.mark.parametrize("error", [errno.ENOPROTOOPT, errno.EINVAL], ids=errno.errorcode.get)
@pytest.mark.parametrize("form", ["fast", "plain"])
def test_timestamps_before_linux_5_1(
    version: int, error: int, form: str, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without SO_TIMESTAMPNS_NEW the older SO_TIMESTAMPNS is used, and the time of arrival is there all the same."""
    if form == "plain":
        monkeypatch.setattr(extension, "native", None)
        monkeypatch.setattr(recvmmsg, "available", lambda: False)
    done = without(monkeypatch, {SO_TIMESTAMPNS_NEW}, error)
    host = lab.host(f"old{len(lab.nodes)}")
    with host.entered():
        host.allow_ipv6_loopback()
        with (
            McastRxSocket(FAMILY[version], [GROUP[version]], PORT, iface="lo", timestamps=True, timeout=5) as receiver,
            McastTxSocket(FAMILY[version], [GROUP[version]], iface="lo") as sender,
        ):
            assert SO_TIMESTAMPNS in done
            sender.sendto(b"stamped", (GROUP[version], PORT))
            found = receiver.receive()
    assert found is not None
    assert found.timestamp_ns is not None
    assert found.timestamp_ns > 1_700_000_000 * 10**9


def test_a_fallback_that_is_refused_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, and nothing stays open."""
    without(monkeypatch, {SO_TIMESTAMPNS, SO_TIMESTAMPNS_NEW}, errno.ENOPROTOOPT)
    with lab.host(f"old{len(lab.nodes)}").entered():
        receiver = McastRxSocket(socket.AF_INET, ["239.1.2.3"], PORT, iface="lo", timestamps=True)
        with pytest.raises(MulticastOSError, match="Cannot set SO_TIMESTAMPNS to 1"):
            receiver.open()


@pytest.mark.parametrize("form", ["=qq", "=ii"])
def test_the_time_in_both_sizes(form: str) -> None:
    """The older option writes native longs, which have 32 bits on 32-bit machines."""
    found = decode_arrival([(1, SO_TIMESTAMPNS, pack(form, 1_700_000_000, 5))], LINUX.ancillary.fields)
    assert found.timestamp_ns == 1_700_000_000 * 10**9 + 5


def test_a_duplicate_address(lab: Lab) -> None:
    """Sending from an interface whose only IPv6 address another host has says so, and not that time will help."""
    host, other = lab.host(f"host{len(lab.nodes)}"), lab.host(f"other{len(lab.nodes)}")
    lab.link(host, other, interface="eth0", ipv6=("fd01::1/64", "fd01::5/64"))
    with host.entered():
        for setting in ("accept_dad", "dad_transmits"):
            Path(f"/proc/sys/net/ipv6/conf/eth0/{setting}").write_text("1")
        host.ip("link set eth0 addrgenmode none", "addr flush dev eth0", "addr add fd01::5/64 dev eth0")
        wait_until(lambda: kernel.SYSTEM.duplicate_addresses() == {"eth0", "fd01::5"}, "the kernel found the duplicate")
        with McastTxSocket(socket.AF_INET6, ["ff15::1"], iface="eth0") as sender:
            with pytest.raises(MulticastOSError, match="it is a duplicate, another host on the link has it") as caught:
                sender.sendto(b"x", ("ff15::1", PORT))
        with pytest.raises(MulticastOSError, match="it is a duplicate"):
            McastTxSocket(socket.AF_INET6, ["ff15::1"], iface="fd01::5").open()
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert "wait" not in str(caught.value)
    assert "dadfailed" in caught.value.remedy
