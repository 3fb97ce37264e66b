"""What the tests of `mcast doctor` share: facts, findings, and a host that hears something."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Thread

from multicast_expert import McastTxSocket
from multicast_expert.doctor.facts import Arrivals, Facts, InterfaceFacts, Machine, Target, Trial
from multicast_expert.doctor.report import Finding
from multicast_expert.testing import Host

NOON = "2026-11-22 12:00:00 UTC"
TARGET = Target("239.1.2.3", 5000, None, "eth0", 4)
FACTS = Facts(
    "2.0",
    0.0,
    TARGET,
    Machine("linux", "6.18.5", 1000, False),
    interfaces=(InterfaceFacts("eth0", 2, True, True, False, True, 1500, ("10.0.0.2/24",), chosen=True),),
    trial=Trial(5.0, False, arrivals=(Arrivals("eth0", "239.1.2.3", "10.0.0.7", 40000, 5, 52, 0.1, 4.9, True),)),
)
AS_ROOT = "sudo mcast doctor 239.1.2.3:5000%eth0"
PROBLEM = Finding(
    "reverse-path-filter",
    "problem",
    "The reverse path filter of eth0 drops what 172.16.5.5 sends, because the route back to it leads out of eth1.",
    {
        "net.ipv4.conf.eth0.rp_filter": "1",
        "TcpExt.IPReversePathFilter": 12,
        "route_back": "eth1",
        "senders": ["172.16.5.5", "172.16.5.6"],
        "strict": True,
        "gateway": None,
    },
    (
        "Say where the source is.",
        "ip route add 172.16.5.5/32 dev eth0",
        "Or switch the filter off, on this interface and on all.",
        "sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0 net.ipv4.conf.default.rp_filter=0",
    ),
)
SUSPECT = Finding(
    "querier",
    "suspect",
    "No query was heard on eth0 within 5 s; if a switch there snoops, it forgets this host after 260 s.",
    {},
    ("Ask who runs the switch for a querier.", "bridge -d link show"),
)
FINE = Finding("port", "ok", "Nothing comes to another port.")
FINDINGS = [
    PROBLEM,
    Finding("mtu", "problem", "Datagrams are longer than eth0 takes."),
    SUSPECT,
    FINE,
    replace(FINE, check="ttl"),
    Finding("firewall", "unknown", "The rules are shown to root only.", {}, (AS_ROOT,)),
    Finding("query-blocked", "unknown", "Raw frames are shown to root only.", {}, (AS_ROOT,)),
    Finding("checksum", "unknown", "Raw frames are shown to root only.", {}, (AS_ROOT,)),
    Finding("wireless", "unknown", "This OS does not tell."),
]


@contextmanager
def talking(host: Host, group: str, iface: str) -> Iterator[None]:
    """Inside the block, somebody on the host sends to port 5000 of the group all the time."""
    over = Event()

    def talk() -> None:
        while not over.wait(0.02):
            sender.sendto(b"hello", (group, 5000))

    with host.entered(), McastTxSocket(host_family(group), [group], iface, enable_external_loopback=True) as sender:
        thread = Thread(target=talk)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def host_family(group: str) -> int:
    """The address family of a group."""
    return socket.AF_INET6 if ":" in group else socket.AF_INET
