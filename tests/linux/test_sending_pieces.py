"""Datagrams of equal size go to the kernel as one piece (GSO); where it takes none, they go one by one."""

import contextlib
import os
import socket
from collections.abc import Iterator
from errno import EPERM

import pytest

from linux.judges import (
    SOL_UDP,
    Network,
    at_once,
    both_forms,
    both_versions,
    by_loop,
    dispatching,
    payloads_of,
)
from multicast_expert import McastTxSocket
from multicast_expert.engine import offload as segmentation
from multicast_expert.testing import Host

# linux/udp.h, asm-generic/socket.h
SO_NO_CHECK, UDP_NO_CHECK6_TX = 11, 101


@contextlib.contextmanager
def option(transmitter: McastTxSocket, level: int, number: int) -> Iterator[None]:
    """Inside the block an option of the transmitter's socket is on."""
    with socket.socket(fileno=os.dup(transmitter.fileno())) as same:
        same.setsockopt(level, number, 1)
        yield
        same.setsockopt(level, number, 0)


@both_forms
@both_versions
class TestPieces:
    """How the datagrams reach a receiver that gets pieces whole."""

    def test_equal_sizes_go_together(self, network: Network, form: str, version: int) -> None:
        """Up to 128 datagrams of one size, or 64 KiB, leave as one piece; a shorter last one goes with them."""
        judges = network.judges[version, "eth0"]
        with dispatching(form, version) as transmitter:
            for sizes, pieces in (([100] * 200, 2), ([1400] * 60, 2), ([100] * 9 + [1], 1), ([100] * 9 + [101], 2)):
                payloads = payloads_of(sizes)
                assert at_once(transmitter, payloads, version) == (len(sizes), None)
                assert judges.heard() == (payloads, payloads, pieces)

    def test_a_small_send_buffer_keeps_its_meaning(self, network: Network, form: str, version: int) -> None:
        """Who asks for a small buffer gets no long pieces that pass it by."""
        with dispatching(form, version) as transmitter:
            with socket.socket(fileno=os.dup(transmitter.fileno())) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
            payloads = payloads_of([1000] * 40)
            assert at_once(transmitter, payloads, version) == (40, None)
        assert network.judges[version, "eth0"].heard() == (payloads, payloads, 4)


@both_forms
@both_versions
class TestRefusedPieces:
    """Where the kernel does not take a piece, its datagrams go one by one: none is lost, none is sent twice."""

    def test_without_checksums(self, network: Network, form: str, version: int) -> None:
        """A socket that makes no UDP checksums cannot send pieces (EINVAL); it does not try again."""
        payloads = payloads_of([100] * 30)
        judges = network.judges[version, "eth0"]
        switch = (socket.SOL_SOCKET, SO_NO_CHECK) if version == 4 else (SOL_UDP, UDP_NO_CHECK6_TX)
        with dispatching(form, version) as transmitter:
            with option(transmitter, *switch):
                assert at_once(transmitter, payloads, version) == (30, None)
                assert judges.heard() == (payloads, payloads, 30)
            assert at_once(transmitter, payloads, version) == (30, None)
            assert judges.heard() == (payloads, payloads, 30)

    def test_an_old_limit(self, network: Network, form: str, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """A kernel that takes fewer datagrams than others gets 64 from then on, as all do that know pieces."""
        monkeypatch.setattr(segmentation, "_MOST_SEGMENTS", 150)
        payloads = payloads_of([10] * 200)
        judges = network.judges[version, "eth0"]
        with dispatching(form, version) as transmitter:
            assert at_once(transmitter, payloads, version) == (200, None)
            assert judges.heard() == (payloads, payloads, 151)
            assert at_once(transmitter, payloads, version) == (200, None)
            assert judges.heard() == (payloads, payloads, 4)

    def test_an_mtu_that_fell(self, network: Network, form: str, version: int) -> None:
        """Datagrams that the interface no longer carries whole are fragmented; shorter ones still go together."""
        long, short = payloads_of([1400] * 30), payloads_of([1300] * 30)
        judges = network.judges[version, "eth0"]
        with dispatching(form, version) as transmitter:
            network.near.node.ip(f"link set {network.near.name} mtu 1390")
            try:
                assert at_once(transmitter, long, version) == (30, None)
                assert judges.heard() == (long, long, 30)
                assert at_once(transmitter, short, version) == (30, None)
                assert judges.heard() == (short, short, 1)
            finally:
                network.near.node.ip(f"link set {network.near.name} mtu 1500")

    def test_no_way_out(self, network: Network, form: str, version: int) -> None:
        """Where the datagrams themselves are refused, their error is raised, and pieces are tried again later."""
        payloads = payloads_of([100] * 30)
        host = network.near.node
        assert isinstance(host, Host)
        with dispatching(form, version) as transmitter:
            with host.firewall_drop("multicast-udp", direction="output"):
                assert at_once(transmitter, payloads, version) == by_loop(transmitter, payloads, version) == (0, EPERM)
            assert at_once(transmitter, payloads, version) == (30, None)
        assert network.judges[version, "eth0"].heard() == (payloads, payloads, 1)
