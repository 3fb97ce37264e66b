"""What the kernel tells along with a datagram is decoded by the OS's own table."""

from ipaddress import IPv4Address, ip_address
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.datagram import Arrival, decode_arrival
from multicast_expert.platforms import PLATFORMS

GROUP, GROUP6 = ip_address("239.1.2.3").packed, ip_address("ff15::1234").packed
LOCAL = IPv4Address("10.0.0.1").packed
SECONDS, FRACTION = 1_700_000_000, 123_456

# What each kernel says of a datagram to the group that came in on interface 5 with 7 hops left.
MESSAGES = {
    ("linux", 4): [
        (1, 64, pack("=qq", SECONDS, FRACTION * 1000)),
        (0, 8, pack("=I", 5) + LOCAL + GROUP),
        (0, 2, pack("=i", 7)),
    ],
    ("linux", 6): [(41, 50, GROUP6 + pack("=I", 5)), (41, 52, pack("=i", 7))],
    ("macos", 4): [
        (0xFFFF, 2, pack("=qi4x", SECONDS, FRACTION)),
        (0, 26, pack("=I", 5) + LOCAL + GROUP),
        (0, 24, b"\x07"),
    ],
    ("macos", 6): [(41, 46, GROUP6 + pack("=I", 5)), (41, 47, pack("=i", 7))],
    ("windows", 4): [(0, 19, GROUP + pack("=I", 5)), (0, 21, pack("=i", 7))],
    ("windows", 6): [(41, 19, GROUP6 + pack("=I", 5)), (41, 21, pack("=i", 7))],
    ("freebsd", 4): [
        (0xFFFF, 2, pack("=qq", SECONDS, FRACTION)),
        (0, 7, GROUP),
        (0, 65, b"\x07"),
        (0, 20, pack("=BBHBBBB", 54, 6, 5, 6, 3, 6, 0) + b"em0".ljust(46, b"\0")),
    ],
    ("freebsd", 6): [(41, 46, GROUP6 + pack("=I", 5)), (41, 47, pack("=i", 7))],
}


@pytest.mark.parametrize(("system", "version"), MESSAGES)
def test_arrival(system: str, version: int) -> None:
    """Group, interface, hop limit and, where it was asked for, the time of arrival in nanoseconds."""
    messages = MESSAGES[system, version]
    stamped = any(len(data) == 16 and level in (1, 0xFFFF) for level, _, data in messages)
    expected = Arrival(GROUP if version == 4 else GROUP6, 5, 7, SECONDS * 10**9 + FRACTION * 1000 if stamped else None)
    fields = PLATFORMS[system].ancillary.fields
    assert decode_arrival(messages, fields) == expected
    assert decode_arrival(reversed(messages), fields) == expected


@pytest.mark.parametrize(("system", "version"), MESSAGES)
def test_what_is_missing_is_none(system: str, version: int) -> None:
    """Without control messages, or with those of other options, nothing is made up."""
    fields = PLATFORMS[system].ancillary.fields
    assert decode_arrival([], fields) == Arrival(None, None, None, None)
    assert decode_arrival([(99, 1, b"12345678901234567890")], fields) == Arrival()


@given(st.sampled_from(list(MESSAGES)), st.data())
def test_cut_messages(key: tuple[str, int], data: st.DataObject) -> None:
    """A message that the kernel had to cut gives its value or nothing, and never an error or a wrong group."""
    whole = decode_arrival(MESSAGES[key], PLATFORMS[key[0]].ancillary.fields)
    cut = [(level, kind, value[: data.draw(st.integers(0, len(value)))]) for level, kind, value in MESSAGES[key]]
    arrival = decode_arrival(cut, PLATFORMS[key[0]].ancillary.fields)
    assert arrival.destination in (None, whole.destination)
    assert arrival.interface_index in (None, whole.interface_index)
    assert arrival.timestamp_ns in (None, whole.timestamp_ns)


@given(st.sampled_from(sorted(PLATFORMS)), st.data())
def test_random_messages(system: str, data: st.DataObject) -> None:
    """Whatever bytes the kernel sends along, decoding gives an Arrival of the right types."""
    fields = PLATFORMS[system].ancillary.fields
    labels = st.one_of(st.sampled_from(sorted(fields)), st.tuples(st.integers(0, 70000), st.integers(0, 100)))
    messages = data.draw(st.lists(st.tuples(labels, st.binary(max_size=64)), max_size=5))
    arrival = decode_arrival([(*label, value) for label, value in messages], fields)
    assert arrival.destination is None or len(arrival.destination) in (4, 16)
    assert arrival.interface_index is None or 0 <= arrival.interface_index < 2**32
    assert arrival.hop_limit is None or isinstance(arrival.hop_limit, int)
    assert arrival.timestamp_ns is None or isinstance(arrival.timestamp_ns, int)
