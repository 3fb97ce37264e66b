"""What frames say about the datagrams in them, beyond test_packets.py."""

from multicast_expert.wire.frames import HEADER_CHECKSUM, parse_packet, udp_packet

PACKET = udp_packet(("10.0.0.7", 4000), ("239.1.2.3", 5000), b"x")


def test_what_fills_a_short_frame_is_no_payload() -> None:
    """Ethernet frames have 60 bytes at least; some cards fill them with what was in their memory."""
    assert parse_packet(PACKET + b"\xff" * 17) == parse_packet(PACKET)


def test_a_header_checksum() -> None:
    """A wrong one is a flaw, unless the network card is yet to compute it."""
    wrong = bytearray(PACKET)
    wrong[10] ^= 1
    found, unchecked = parse_packet(bytes(wrong)), parse_packet(bytes(wrong), checked=False)
    assert found is not None
    assert found.flaw == HEADER_CHECKSUM
    assert unchecked is not None
    assert unchecked.flaw == ""
