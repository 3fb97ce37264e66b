"""Whatever a kernel says along with a datagram, or instead of one: no exception but the documented ones."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from multicast_expert import Datagram, IfaceInfo, MulticastExpertError, MulticastOSError
from multicast_expert.core.datagram import Arrival, decode_arrival
from multicast_expert.core.interfaces import InterfaceChoice
from multicast_expert.core.plan import Join, ReceiveSettings
from multicast_expert.engine import Reader, SocketSource, receiving
from multicast_expert.platforms import PLATFORMS, Platform

GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
SENDER = {4: ("10.0.0.9", 4711), 6: ("fd01::9", 4711, 0, 0)}
ETH0 = IfaceInfo("eth0", 2, None, (IPv4Interface("10.0.0.1/24"),), (IPv6Interface("fd01::1/64"),))

every_platform = pytest.mark.parametrize("platform", PLATFORMS.values(), ids=PLATFORMS)

Messages = list[tuple[int, int, bytes]]


def messages(platform: Platform) -> st.SearchStrategy[Messages]:
    """Control messages with lengths that fit, that were cut, and that nobody would send."""
    known = st.sampled_from(sorted(platform.ancillary.fields))
    unknown = st.tuples(st.integers(0, 300), st.integers(0, 100))
    groups = st.sampled_from([ip_address(group).packed for group in GROUP.values()])
    bodies = st.one_of(
        st.binary(max_size=40),
        st.builds(bytes.__add__, groups, st.binary(max_size=12)),
        st.builds(bytes.__add__, st.binary(max_size=8), groups),
    )
    return st.lists(st.builds(lambda key, body: (*key, body), known | unknown, bodies), max_size=5)


@every_platform
@settings(max_examples=50)
@given(data=st.data())
def test_control_messages_of_any_shape(platform: Platform, data: st.DataObject) -> None:
    """Decoding never raises, and yields fields of the right kind or None."""
    arrival = decode_arrival(data.draw(messages(platform)), platform.ancillary.fields)
    assert arrival.destination is None or len(arrival.destination) in (4, 16)
    for number in arrival[1:]:
        assert number is None or isinstance(number, int)
    assert arrival.interface_index is None or arrival.interface_index >= 0


@every_platform
@settings(max_examples=50)
@given(data=st.data())
def test_what_is_unknown_does_not_matter(platform: Platform, data: st.DataObject) -> None:
    """Messages of kinds that the platform does not have, in between, change nothing."""
    told = data.draw(messages(platform))
    unknown = [(level + 1000, kind, body) for level, kind, body in data.draw(messages(platform))]
    fields = platform.ancillary.fields
    mixed = [message for pair in zip(told, unknown, strict=False) for message in pair] + told[len(unknown) :]
    assert decode_arrival(mixed, fields) == decode_arrival(told, fields)
    assert decode_arrival(unknown, fields) == Arrival()


class FuzzedSocket:
    """A socket that is readable while it has something: what recvmsg returns, or an error."""

    def __init__(self, script: list[Any]) -> None:
        self._script = script
        self._descriptor, self._other_end = os.pipe()
        os.write(self._other_end, b"readable")
        self._readable = True

    def fileno(self) -> int:
        """A real one, so that it can be waited for."""
        return self._descriptor

    def close(self) -> None:
        """Close what makes it readable."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            os.close(self._other_end)
            self._descriptor = -1

    def _next(self) -> Any:
        if not self._script:
            if self._readable:
                os.read(self._descriptor, 100)
                self._readable = False
            raise BlockingIOError
        said = self._script.pop(0)
        if isinstance(said, OSError):
            raise said
        return said

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0) -> Any:
        """What the script says next."""
        payload, told, arrived, sender = self._next()
        return payload[:bufsize], told, arrived, sender

    def recvfrom(self, bufsize: int, flags: int = 0) -> Any:
        """What the script says next, without control messages."""
        payload, _, _, sender = self._next()
        return payload[:bufsize], sender

    def getsockopt(self, level: int, number: int, length: int) -> bytes:
        """Zeros."""
        return bytes(length)

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""

    def setsockopt(self, level: int, number: int, value: bytes) -> None:
        """It takes everything."""

    def ioctl_bytes(self, number: int, value: bytes) -> None:
        """It takes everything."""

    def bind(self, address: Any) -> None:
        """It takes everything."""


class FuzzedKernel:
    """A kernel of this platform with such sockets."""

    def __init__(self, platform: Platform, script: list[Any]) -> None:
        self.platform = platform
        self._script = script

    def interface_name(self, _: object, index: int) -> str | None:
        """No interface has a name here."""

    def socket(self, family: int, kind: int) -> Any:
        """A socket with the script of this kernel."""
        return FuzzedSocket(self._script)


@contextmanager
def reader_of(platform: Platform, version: int, script: list[Any]) -> Iterator[tuple[Reader, SocketSource]]:
    """What reads a socket with one membership."""
    sockets, reader, source = receiving(FuzzedKernel(platform, script), ReceiveSettings(version, 5000))
    try:
        sockets.add([Join(ip_address(GROUP[version]), None, InterfaceChoice(ETH0))])
        yield reader, source
    finally:
        sockets.close()


def scripts(platform: Platform, version: int) -> st.SearchStrategy[list[Any]]:
    """What a socket receives: datagrams with any control messages and flags, and errors with any number."""
    datagrams = st.tuples(st.binary(max_size=20), messages(platform), st.integers(0, 0xFFFF), st.just(SENDER[version]))
    numbers = st.sampled_from(sorted(platform.errors)) | st.integers(1, 12_000) | st.none()
    # Python turns these into BlockingIOError, which a script says by being over; EINTR it never lets through.
    errors = numbers.filter(lambda number: number not in (errno.EAGAIN, errno.EINTR)).map(
        lambda number: OSError() if number is None else OSError(number, "fuzzed")
    )
    return st.lists(datagrams | datagrams | errors, max_size=8)


@every_platform
@pytest.mark.parametrize("version", [4, 6])
@settings(max_examples=30)
@given(data=st.data())
def test_receiving_whatever_a_kernel_says(platform: Platform, version: int, data: st.DataObject) -> None:
    """Receiving yields Datagrams, nothing, or MulticastOSErrors; a filtering platform lets in the membership alone."""
    script = data.draw(scripts(platform, version))
    given_out = [said for said in script if not isinstance(said, OSError)]
    attempts = data.draw(st.lists(st.sampled_from(["datagram", "payload", "more"]), min_size=10, max_size=20))
    filtered = platform.receive[version].filtered
    received: list[Any] = []
    refusals: list[MulticastOSError] = []
    with reader_of(platform, version, script) as (reader, source):
        for attempt in attempts:
            try:
                if attempt == "datagram":
                    received.append(reader.take_one())
                elif attempt == "payload":
                    received.append(reader.take_one(data.draw(st.sampled_from([0, 5, 65535]))))
                else:
                    received += reader.take(3)
            except MulticastOSError as error:
                refusals.append(error)
        datagrams, filtered_out = source.counts()[0], source.filtered
    for each in received:
        if isinstance(each, Datagram):
            assert each.sender == SENDER[version]
            assert isinstance(each.group, str | None)
            assert each.interface_name in (None, "eth0")
            if filtered:
                assert (each.group, each.interface_index) == (GROUP[version], 2)
    assert all(error.step == "receive" and str(error) for error in refusals)
    handed_out = [each for each in received if each is not None]
    assert len(handed_out) <= datagrams
    assert datagrams + filtered_out <= len(given_out)
    assert filtered or filtered_out == 0


@pytest.mark.parametrize(
    "platform", [each for each in PLATFORMS.values() if not each.receive[4].filtered], ids=lambda each: each.name
)
@settings(max_examples=40)
@given(numbers=st.lists(st.sampled_from(["ECONNREFUSED", "ECONNRESET"]), max_size=200))
@example(numbers=["ECONNRESET"] * 200)
def test_stale_errors_do_not_hide_what_is_there(platform: Platform, numbers: list[str]) -> None:
    """Errors that belong to something once sent are passed over, and the datagram behind them comes."""
    by_name = {name: number for number, name in platform.errors.items()}
    script: list[Any] = [OSError(by_name[name], name) for name in numbers if name in by_name]
    script.append((b"x", [], 0, SENDER[4]))
    with reader_of(platform, 4, script) as (reader, _):
        received = None
        for _ in range(10):
            received = received or reader.take_one()
        assert received is not None
        assert received.data == b"x"


@given(text=st.text(max_size=30) | st.binary(max_size=20) | st.integers() | st.none())
def test_groups_and_sources_of_any_kind(text: Any) -> None:
    """Whatever is given as a group or source is taken as an address, or is a MulticastExpertError."""
    from multicast_expert.core.addresses import parse_group, parse_source

    for parse, version in ((parse_group, 4), (parse_group, 6), (parse_source, 4), (parse_source, 6)):
        try:
            assert parse(text, version).version == version
        except MulticastExpertError:
            continue
