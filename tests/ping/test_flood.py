"""A real server under a flood of forged messages: rates hold, memory does not grow, an honest client is answered."""

import json
import socket
import struct
import time
from pathlib import Path
from random import Random

import pytest

from multicast_expert.testing import Host, wait_until
from multicast_expert.wire.frames import udp_packet
from ping.network import ended, pong, start, two_hosts
from ping.recorded import INIT, MEASURE, OLD_BARE, OLD_QUERY, QUERY

pytestmark = pytest.mark.slow

COUNT = 6_000
TARGET = "10.0.0.2"
STATION = bytes.fromhex("02000000beef")
"""Whose frames they are; a bridge passes none without a sender."""


def memory(pid: int) -> int:
    """The resident memory of a process in KiB."""
    (line,) = (each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1])


def is_drained() -> bool:
    """Whether no datagram waits in any socket."""
    rows = Path("/proc/thread-self/net/udp").read_text().splitlines()[1:]
    return all(row.split()[4].endswith(":00000000") for row in rows)


def flood(here: Host, there: Host) -> None:
    """Send datagrams from as many addresses, in packets that only this test can have made."""
    random = Random(1)
    (link,) = json.loads(there.command("ip", "-j", "link", "show", "eth0"))
    station = bytes.fromhex(link["address"].replace(":", ""))
    with here.entered():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sender.bind(("eth0", 0))
    forms = [INIT, QUERY, OLD_QUERY, OLD_BARE, MEASURE]
    with sender:
        for number in range(COUNT):
            source = f"172.{16 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
            port = (9903, 4321)[number % 2]
            packet = udp_packet((source, 4000), (TARGET, port), random.choice(forms), hop_limit=64, identity=1)
            sender.send(station + STATION + struct.pack("!H", 0x0800) + packet)
            if number % 100 == 0:
                # As fast as the server reads: what its kernel drops would be nobody's fault.
                wait_until(lambda: there.run(is_drained), "the server has read all", 30)


def test_a_flood_of_forged_messages_at_a_real_server() -> None:
    """What leaves is at most 1,000 answers a second of two datagrams; the honest client misses nothing."""
    with two_hosts() as (here, there, _):
        # The forged addresses lead back here, so that every answer is seen leaving.
        there.ip("route add 172.16.0.0/12 via 10.0.0.1")
        counted = there.firewall_drop("ip daddr 172.16.0.0/12", direction="output")
        groups = there.firewall_drop("ip daddr 232.0.0.0/8 udp dport 4000", direction="output")
        server = pong(there, "-4")
        honest = start(here, TARGET, "--for", "8", "-i", "0.1", "--json", "--no-doctor")
        time.sleep(2.5)
        before, began = memory(server.pid), time.monotonic()
        flood(here, there)
        seconds = time.monotonic() - began
        done = ended(honest)
        host = done.summary["hosts"][TARGET]
        assert host["dialect"] == "RFC 6450"
        assert host["unicast"]["received"] == host["multicast"]["received"] == host["sent"] > 30, done.text[-2000:]
        assert 100 < counted.dropped() <= 1000 * (seconds + 2)
        assert groups.dropped() <= counted.dropped()
        assert memory(server.pid) < before + 8192
