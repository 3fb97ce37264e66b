"""What Windows hands back by WSARecvMsg is read as it is laid out, and rubbish never does harm."""

import struct
from ipaddress import IPv4Address, IPv6Address
from struct import calcsize, pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.platforms.layouts import control_message, control_messages, socket_address

HEADER = calcsize("@Pii")
POINTER = calcsize("P")
INTEGER = st.integers(-(2**31), 2**31 - 1)
MESSAGES = st.lists(st.tuples(INTEGER, INTEGER, st.binary(max_size=40)), max_size=6)
PORT = st.integers(0, 65535)


def wsa_messages(messages: list[tuple[int, int, bytes]]) -> bytes:
    """Lay control messages out as WSACMSGHDR does, the padding after the last included (WSA_CMSG_SPACE)."""
    control = b""
    for level, kind, data in messages:
        control += pack("@Pii", HEADER + len(data), level, kind) + data
        control += bytes(-len(control) % POINTER)
    return control


@pytest.mark.skipif(POINTER != 8, reason="the sizes are those of 64-bit Windows")
def test_sizes_of_windows() -> None:
    """WSA_CMSG_SPACE is 24 for in_pktinfo and 40 for in6_pktinfo on 64-bit Windows."""
    assert len(wsa_messages([(0, 19, bytes(8))])) == 24
    assert len(wsa_messages([(41, 19, bytes(20))])) == 40


@given(MESSAGES)
def test_control_messages_round_trip(messages: list[tuple[int, int, bytes]]) -> None:
    """Whatever was laid out is read back."""
    assert control_messages(wsa_messages(messages)) == messages


@given(MESSAGES, st.integers(min_value=0))
def test_a_cut_buffer_gives_the_whole_messages_before_the_cut(
    messages: list[tuple[int, int, bytes]], length: int
) -> None:
    """A buffer that was too small ends the list; nothing is made up."""
    control = wsa_messages(messages)
    found = control_messages(control[: length % (len(control) + 1)])
    assert found == messages[: len(found)]


@given(st.binary(max_size=200))
def test_control_messages_of_rubbish(control: bytes) -> None:
    """Random bytes give a list whose data fit into them, and never an error or an endless loop."""
    assert sum(HEADER + len(data) for _, _, data in control_messages(control)) <= len(control)


@given(st.ip_addresses(v=4), PORT)
def test_ipv4_socket_address(address: IPv4Address, port: int) -> None:
    """A sockaddr_in becomes (address, port)."""
    sockaddr = pack("=H", 2) + pack("!H", port) + address.packed + bytes(8)
    assert socket_address(sockaddr.ljust(128, b"\0")) == (str(address), port)


@given(st.ip_addresses(v=6), PORT, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_ipv6_socket_address(address: IPv6Address, port: int, flow: int, scope: int) -> None:
    """A sockaddr_in6 becomes Python's four values; the scope stands in the text too, as recvfrom on Unix has it."""
    sockaddr = pack("=H", 23) + pack("!HI", port, flow) + address.packed + pack("=I", scope)
    text, *rest = socket_address(sockaddr.ljust(128, b"\0"))
    assert rest == [port, flow, scope]
    assert text == (f"{address}%{scope}" if scope else str(address))


@given(st.binary(max_size=40))
def test_socket_address_of_rubbish(sockaddr: bytes) -> None:
    """Random bytes give an address or struct.error."""
    try:
        address = socket_address(sockaddr)
    except struct.error:
        assert len(sockaddr) < 28
    else:
        assert len(address) in (2, 4)


@pytest.mark.parametrize("size", [1, 4, 8, 12, 20])
def test_control_messages_for_sending_follow_each_other(size: int) -> None:
    """Each is padded to the size of a pointer, as CMSG_SPACE of sys/socket.h does, so that another one can follow."""
    first, second = control_message(0, 8, bytes(size)), control_message(41, 50, b"1234")
    assert len(first) % calcsize("P") == 0
    assert control_messages(first + second) == [(0, 8, bytes(size)), (41, 50, b"1234")]
