"""`python -m benchmarks.micro`: what single pure functions cost. pyperf measures, and brings its own options. Pure."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Interface

import pyperf

from multicast_expert.core.addresses import parse_endpoint
from multicast_expert.core.datagram import Datagram, decode_arrival
from multicast_expert.core.interfaces import IfaceInfo, InterfaceChoice
from multicast_expert.core.plan import Join, ReceiveSettings, plan_receive
from multicast_expert.platforms import LINUX

GROUPS = [IPv4Address("239.200.0.1") + number for number in range(20)]
CHOICE = InterfaceChoice(IfaceInfo("eth0", 2, None, [IPv4Interface("10.9.0.1/24")], []))
JOINS = [Join(group, None, CHOICE) for group in GROUPS]
CONTROL = [
    (0, 8, struct.pack("=I4s4s", 2, bytes(4), GROUPS[0].packed)),  # IP_PKTINFO
    (0, 2, struct.pack("=i", 1)),  # IP_TTL
]
SENDER = ("10.9.0.7", 5000)


def main() -> None:
    """Measure each in processes of its own."""
    runner = pyperf.Runner()
    runner.bench_func("decode_arrival", decode_arrival, CONTROL, LINUX.ancillary.fields)
    runner.bench_func("Datagram", Datagram, b"payload", SENDER, "239.200.0.1", 2, "eth0", 1, None, False)
    runner.bench_func("parse_endpoint", parse_endpoint, "10.0.0.7@232.1.2.3:5000%eth0")
    runner.bench_func("plan_receive, 20 groups", plan_receive, LINUX, ReceiveSettings(4, 5000), JOINS)


if __name__ == "__main__":
    main()
