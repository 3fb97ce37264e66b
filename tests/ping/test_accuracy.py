"""The round trip that a ping shows is that between the packets on the wire, whatever else the programs do."""

import asyncio
import re
import socket
import struct
from statistics import median

import pytest

from multicast_expert import Answer, multicast_ping
from multicast_expert.ping import messages as m
from multicast_expert.testing import Host
from ping.network import pong, two_hosts
from ping.test_interoperation import serve
from programs import need

COUNT = 300
SO_TIMESTAMPNS, SO_RCVBUFFORCE, ETH_P_ALL = 35, 33, 3

Stamps = dict[tuple[int, int, bool], int]
"""When a message of this kind and number, to a group or not, was on the wire."""


class Capture:
    """Messages of multicast ping on an interface, with the kernel's time."""

    def __init__(self, host: Host) -> None:
        with host.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self._socket.bind(("eth0", ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        self._socket.setblocking(False)

    def stamps(self) -> Stamps:
        """Read all that was captured."""
        found: Stamps = {}
        while True:
            try:
                frame, control, *_ = self._socket.recvmsg(2048, 64)
            except BlockingIOError:
                self._socket.close()
                return found
            seconds, nanoseconds = struct.unpack("=qq", control[0][2])
            try:
                message = m.parse_message(frame[42:])
            except m.MalformedMessageError:
                continue
            if message.sequence is not None:
                key = message.kind, message.sequence, frame[30] >= 224
                found.setdefault(key, seconds * 10**9 + nanoseconds)


def differences(stamps: Stamps, measured: dict[tuple[int, bool], float]) -> list[float]:
    """By how many microseconds the measured round trips differ from those on the wire."""
    return [
        round_trip / 1000 - (stamps[m.REPLY, number, way] - stamps[m.REQUEST, number, False]) / 1000
        for (number, way), round_trip in measured.items()
        if (m.REPLY, number, way) in stamps
    ]


@pytest.mark.alone
@pytest.mark.slow
def test_the_round_trip_is_that_on_the_wire() -> None:
    """Its median difference to two capture timestamps is about that of ssmping, a C program, in the same run."""
    with two_hosts() as (here, there, _):
        server = pong(there, "-4", "--rate", "10000")
        capture = Capture(here)

        async def ping() -> list[Answer]:
            return [each async for each in multicast_ping("10.0.0.2", count=COUNT, interval=0.004)]

        with here.entered():
            answers = asyncio.run(ping())
        measured = {(each.sequence, each.is_multicast): float(each.round_trip_ns) for each in answers}
        ours = differences(capture.stamps(), measured)
        there.end_process(server)
        serve(there, need("ssmpingd"))
        capture = Capture(here)
        text = here.command(need("ssmping"), "-4", "-I", "eth0", "-c", "4", "10.0.0.2")
        lines = re.findall(r"(unicast|multicast) from \S+ seq=(\d+) dist=\d+ time=([\d.]+)", text)
        theirs = differences(
            capture.stamps(), {(int(number), way == "multicast"): float(ms) * 1e6 for way, number, ms in lines}
        )
    assert len(theirs) >= 4
    print(f"ours {median(ours):.1f} us of {len(ours)}, ssmping's {median(theirs):.1f} us of {len(theirs)}")
    assert len(ours) > COUNT
    assert abs(median(ours)) < 2 * abs(median(theirs))
