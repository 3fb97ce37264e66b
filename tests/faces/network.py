"""The network of these tests: a host in which they run, its two cables, and a far host that sends through them."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from linux.plain_sockets import FAMILY, own_address, sender_on
from multicast_expert.testing import Host, Interface, Lab

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
OTHER_GROUP = {4: "239.1.2.4", 6: "ff15::1:2:4"}
SECOND_SOURCE = {4: "10.1.0.3", 6: "fd01::3"}
"""Of the far host, on its eth0."""
ABSENT_SOURCE = {4: "10.1.0.77", 6: "fd01::77"}


@dataclass(frozen=True)
class Network:
    """`near` are the interfaces of the host in which the tests run, `far` the other ends of their cables."""

    near: tuple[Interface, Interface]
    far: tuple[Interface, Interface]

    @property
    def host(self) -> Host:
        """The host in which the tests run."""
        host = self.near[0].node
        assert isinstance(host, Host)
        return host

    def source(self, version: int, cable: int = 0) -> str:
        """The address that `send` sends from when none is named."""
        return own_address(self.far[cable], version)

    def sender(self, version: int, cable: int = 0, *, source: str | None = None, hops: int = 1) -> socket.socket:
        """A plain socket of the far host that sends to groups through this cable."""
        return sender_on(self.far[cable], version, source=source, hops=hops)

    def send(
        self, payload: bytes, group: str, *, cable: int = 0, source: str | None = None, hops: int = 1, port: int = PORT
    ) -> None:
        """Send one datagram from the far host."""
        with self.sender(6 if ":" in group else 4, cable, source=source, hops=hops) as sender:
            sender.sendto(payload, (group, port))

    def kernel_memberships(self) -> list[str]:
        """What the host has joined, as the kernel lists it, without timers: interface, group, users, source filters."""
        lines = []
        for name, fields in (("igmp", 2), ("igmp6", 4), ("mcfilter", 6), ("mcfilter6", 6)):
            device = ""
            for line in Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1 if name != "igmp6" else 0 :]:
                words = line.split()
                if name == "igmp" and words[0].isdecimal() and not line.startswith("\t"):
                    device = words[1]
                else:
                    lines.append(f"{name} {device} {' '.join(words[:fields])}")
        return lines


def build(lab: Lab) -> Network:
    """Two hosts and two cables; the far end of the first has a second address to send from."""
    near, far = lab.host("near"), lab.host("far")
    cables = [
        lab.link(
            near,
            far,
            interface=f"eth{number}",
            ipv4=(f"10.1.{number}.1/24", f"10.1.{number}.2/24"),
            ipv6=(f"fd01:{number}::1/64", f"fd01:{number}::2/64"),
        )
        for number in range(2)
    ]
    far.ip("addr add 10.1.0.3/24 dev eth0", "addr add fd01::3/64 dev eth0 nodad")
    near.allow_ipv6_loopback()
    return Network((cables[0][0], cables[1][0]), (cables[0][1], cables[1][1]))


def watched_descriptors() -> int:
    """How many descriptors the epoll instances of this process watch; a copy of an instance counts once with it."""
    watched = set()
    for descriptor in os.listdir("/proc/self/fdinfo"):  # noqa: PTH208 - a Path would open one more
        try:
            text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
        except FileNotFoundError:
            continue
        watched |= {line for line in text.splitlines() if line.startswith("tfd:")}
    return len(watched)


def family(version: int) -> int:
    """AF_INET or AF_INET6."""
    return FAMILY[version]
