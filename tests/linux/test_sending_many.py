"""`send_many` sends what as many calls of `sendto` would: the same datagrams, in order, and the same errors."""

import os
import socket
import threading
from collections.abc import Iterator
from errno import EPERM
from time import monotonic
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from linux.judges import (
    GROUP,
    PORT,
    Network,
    at_once,
    both_forms,
    both_versions,
    by_loop,
    dispatching,
    payloads_of,
    slow_line,
    telling_hop_limits,
)
from multicast_expert import MulticastExpertError
from multicast_expert.testing import Host

# A receive buffer of the default size holds this many datagrams, whatever their size up to a page.
ROOM = 60


RUNS = st.lists(
    st.tuples(st.sampled_from([0, 1, 7, 8, 200, 1452, 1453, 1472, 1473, 3000, 65_508, 65_528]), st.integers(1, 12))
)


@both_forms
@both_versions
class TestWhatArrives:
    """Sizes in any order, on a cable and on the loopback interface, with both kinds of receivers."""

    @pytest.mark.parametrize("interface", ["eth0", "lo"])
    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(runs=RUNS)
    @example(runs=[(200, ROOM)])
    @example(runs=[(1472, 46)])
    @example(runs=[(1452, 46)])
    @example(runs=[(8, 5), (7, 1), (8, 5), (0, 5), (8, 5), (9, 1), (8, 1)])
    @example(runs=[(1, 1), (65_508, 1), (1, 1)])
    @example(runs=[(65_528, 2)])
    def test_as_from_a_loop(self, network: Network, form: str, version: int, interface: str, runs: Any) -> None:
        """The same datagrams, in order; the same count, and the same error where the first is refused."""
        sizes = [size for size, count in runs for _ in range(count)]
        assume(len(sizes) <= ROOM and sum(size for size in sizes if size < 65_528) < 100_000)
        payloads = payloads_of(sizes)
        judges = network.judges[version, interface]
        with dispatching(form, version, interface) as transmitter:
            expected = by_loop(transmitter, payloads, version)
            one_by_one, joined, pieces = judges.heard()
            assert (one_by_one, joined) == (payloads[: expected[0]],) * 2
            assert pieces == expected[0]
            assert at_once(transmitter, payloads, version) == expected
            assert judges.heard()[:2] == (one_by_one, joined)

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_kinds_of_payloads(self, network: Network, form: str, version: int, kind: type) -> None:
        """Bytes, and what can be read as bytes, from any iterable."""
        payloads = payloads_of([100] * 20 + [3, 0])
        with dispatching(form, version) as transmitter:
            for given_as in (list, tuple, iter):
                assert at_once(transmitter, given_as([kind(payload) for payload in payloads]), version) == (22, None)
                assert network.judges[version, "eth0"].heard()[:2] == (payloads, payloads)

    def test_a_buffer_that_is_filled_anew(self, network: Network, form: str, version: int) -> None:
        """A generator may yield one buffer again and again: each datagram has what was in it then."""
        buffer = bytearray(10)

        def filled() -> Iterator[bytearray]:
            for number in range(50):
                buffer[:] = b"%010d" % number
                yield buffer

        with dispatching(form, version) as transmitter:
            assert at_once(transmitter, filled(), version) == (50, None)
        assert network.judges[version, "eth0"].heard()[0] == [b"%010d" % number for number in range(50)]

    def test_an_iterable_that_fails(self, network: Network, form: str, version: int) -> None:
        """What it yielded before goes out; its error comes through, and so does that of what is no payload."""

        def failing() -> Iterator[bytes]:
            yield from (b"%02d" % number for number in range(50))
            raise LookupError("out of payloads")

        with dispatching(form, version) as transmitter:
            with pytest.raises(LookupError, match="out of payloads"):
                at_once(transmitter, failing(), version)
            assert network.judges[version, "eth0"].heard()[0] == [b"%02d" % number for number in range(50)]
            with pytest.raises(TypeError, match="bytes-like"):
                at_once(transmitter, [b"1", b"2", "3", b"4"], version)
            assert network.judges[version, "eth0"].heard()[0] == [b"1", b"2"]


@both_forms
@both_versions
def test_threads_at_once(network: Network, form: str, version: int) -> None:
    """Of several threads that send many, each sees its own in order and with its own hop limit."""
    counts: list[int] = []

    def send(hop_limit: int) -> None:
        payloads = [b"%03d %d" % (hop_limit, number) for number in range(50)]
        counts.append(transmitter.send_many(payloads, (GROUP[version], PORT), hop_limit=hop_limit))

    with telling_hop_limits(network.judges[version, "eth0"].plain, version) as receive:
        with dispatching(form, version) as transmitter:
            threads = [threading.Thread(target=send, args=(hop_limit,)) for hop_limit in (10, 20, 30, 40)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert receive(200) == {hop_limit: list(range(50)) for hop_limit in (10, 20, 30, 40)}
    assert counts == [50] * 4


@both_forms
@both_versions
class TestSeveralInterfaces:
    """Each datagram leaves from each of them; a count is what left from all."""

    def test_one_that_is_slow(self, network: Network, form: str, version: int) -> None:
        """While one interface has no room it is waited for; then it goes on with the very datagram that had none."""
        payloads = payloads_of([700] * 25 + [300, 500, 400] * 10 + [700] * 25)
        with slow_line(network.near, "8mbit"), dispatching(form, version, "eth0", "lo") as transmitter:
            with socket.socket(fileno=os.dup(transmitter.fileno())) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
            start = monotonic()
            assert at_once(transmitter, payloads, version) == (len(payloads), None)
            assert monotonic() - start > 0.02, "it never had to wait: this test shows nothing"
            assert [network.judges[version, "eth0"].plain.recv(1000) for _ in payloads] == payloads
        assert network.judges[version, "lo"].heard()[0] == payloads

    def test_one_that_refuses(self, network: Network, form: str, version: int) -> None:
        """The first datagram is tried on all before an error is raised, and nothing is sent after it."""
        host = network.near.node
        assert isinstance(host, Host)
        payloads = payloads_of([100] * 30)
        judges = network.judges[version, "eth0"]
        for ifaces in (["eth0", "lo"], ["lo", "eth0"]):
            with dispatching(form, version, *ifaces) as transmitter:
                with host.firewall_drop("oif lo meta l4proto udp", direction="output"):
                    for send in (by_loop, at_once):
                        assert send(transmitter, payloads, version) == (0, EPERM)
                        assert judges.heard() == (payloads[:1], payloads[:1], 1)

    def test_a_payload_that_all_refuse(self, network: Network, form: str, version: int) -> None:
        """Each sends what comes before it."""
        payloads = payloads_of([100] * 30 + [65_528] + [100] * 30)
        with dispatching(form, version, "eth0", "lo") as transmitter:
            assert at_once(transmitter, payloads, version) == (30, None)
        for interface in ("eth0", "lo"):
            assert network.judges[version, interface].heard()[0] == payloads[:30]


@both_forms
@pytest.mark.parametrize("flow", [0x100000, 0xFFFFFFFF])
def test_wrong_flow_infos(network: Network, form: str, flow: int) -> None:
    """What does not fit the 20 bits of a flow info is refused in the same words, by whichever way it would be sent."""
    with dispatching(form, 6) as transmitter:
        address = (GROUP[6], PORT, flow, 0)
        transmitter.sendto(b"right", (GROUP[6], PORT, 0xFFFFF, 0))
        for send in (
            lambda: transmitter.sendto(b"wrong", address),
            lambda: transmitter.sendto(b"wrong", address),
            lambda: transmitter.send_many([b"wrong"], address),
            lambda: transmitter.send_many([b"wrong"] * 10, address),
        ):
            with pytest.raises(MulticastExpertError, match=f"flow info {flow} .* from 0 to 1048575"):
                send()
