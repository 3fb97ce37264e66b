"""The networks of these tests."""

from dataclasses import dataclass

from multicast_expert.testing import Host, Interface, Lab


@dataclass(frozen=True)
class TwoLinks:
    """A host with eth0 and eth1, each on a link of its own with some other hosts."""

    host: Host
    near: tuple[Interface, Interface]
    far: tuple[tuple[Interface, ...], tuple[Interface, ...]]
    """The interfaces of the other hosts, by link."""


def two_links(lab: Lab, others: tuple[int, int] = (1, 1), name: str = "near") -> TwoLinks:
    """A host, two switches, and so many other hosts on each: 10.1.LINK.1 and 10.1.LINK.2 and so on, fd01:LINK::…"""
    host = lab.host(name)
    near, far = [], []
    for number in range(2):
        switch = lab.switch(f"{name}-link{number}")
        plugged = []
        for last in range(1, others[number] + 2):
            at = host if last == 1 else lab.host(f"{name}-{number}-{last}")
            ipv4, ipv6 = f"10.1.{number}.{last}/24", f"fd01:{number}::{last}/64"
            interface = f"eth{number}" if last == 1 else "eth0"
            plugged.append(lab.plug(at, switch, ipv4=ipv4, ipv6=ipv6, interface=interface))
        near.append(plugged[0])
        far.append(tuple(plugged[1:]))
    return TwoLinks(host, (near[0], near[1]), (far[0], far[1]))
