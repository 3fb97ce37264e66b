"""The lab that a fault or a healthy network is built in: who listens, who sends, and what is between them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from multicast_expert import scan_interfaces
from multicast_expert.testing import Host, Lab, Router, Switch
from multicast_expert.testing.interface import Interface

GROUP, GROUP6, SSM = "239.1.2.3", "ff15::1:2:3", "232.1.2.3"
PORT = 5000
ENDPOINT, ENDPOINT6, SSM_ENDPOINT = f"{GROUP}:{PORT}", f"[{GROUP6}]:{PORT}", f"{SSM}:{PORT}"
TALKER, TALKER6 = "10.1.0.2", "fd01::2"

Arguments = list[str]


@dataclass
class Stage:
    """The lab of one fault: the host that the doctor runs on, and the one that sends."""

    lab: Lab
    listener: Host
    talker: Host
    seconds: float = 1.5
    """How long the doctor is to listen."""

    def cable(self) -> None:
        """Join listener and talker by a cable."""
        self.lab.link(
            self.listener, self.talker, ipv4=("10.1.0.1/24", "10.1.0.2/24"), ipv6=("fd01::1/64", "fd01::2/64")
        )

    def switch(self, **settings: bool) -> Switch:
        """Plug both into a switch."""
        switch = self.lab.switch("switch", **settings)
        self.lab.plug(self.listener, switch, ipv4="10.1.0.1/24", ipv6="fd01::1/64")
        self.lab.plug(self.talker, switch, ipv4="10.1.0.2/24", ipv6="fd01::2/64")
        return switch

    def router(self) -> Router:
        """Put a router between them; the talker is 10.2.0.2 and fd02::2 then."""
        router = self.lab.router("router")
        self.lab.link(
            self.listener,
            router,
            second_interface="near",
            ipv4=("10.1.0.1/24", "10.1.0.254/24"),
            ipv6=("fd01::1/64", "fd01::ffff/64"),
        )
        self.lab.link(
            self.talker,
            router,
            second_interface="far",
            ipv4=("10.2.0.2/24", "10.2.0.254/24"),
            ipv6=("fd02::2/64", "fd02::ffff/64"),
        )
        self.listener.ip("route add default via 10.1.0.254", "route add default via fd01::ffff")
        self.talker.ip("route add default via 10.2.0.254", "route add default via fd02::ffff")
        return router

    def second_interface(self) -> None:
        """The listener gets an interface eth1 on another network, where nothing happens."""
        self.listener.add_interface("eth1", ipv4="10.7.0.1/24", ipv6="fd07::1/64")

    def add_macvlan(self, mode: str = "bridge") -> None:
        """The listener gets a macvlan mv0 of eth0 with an address of its own."""
        self.listener.ip(
            "link add mv0 link eth0 type macvlan mode " + mode.partition(" ")[0],
            *([f"link set link dev mv0 type macvlan {mode.partition(' ')[2]}"] if " " in mode else []),
            "link set mv0 up",
            "addr add 10.1.0.9/24 dev mv0",
        )

    def station_of_the_talker(self) -> str:
        """The Ethernet address of the talker."""
        found = self.talker.run(scan_interfaces)
        return next(each.link_layer_address for each in found if each.machine_name == "eth0") or ""

    def container_with_macvlan(self) -> Host:
        """A container of the listener: a network of its own with a macvlan mv0 of the listener's eth0."""
        container = self.lab.host("container")
        descriptor = container.namespace.descriptor
        self.listener.ip(
            "link add mv0 link eth0 type macvlan mode bridge",
            f"link set mv0 netns /proc/self/fd/{descriptor}",
            pass_fds=[descriptor],
        )
        container.ip("link set mv0 up", "addr add 10.1.0.9/24 dev mv0")
        container.interfaces["mv0"] = Interface(container, "mv0", ["10.1.0.9/24"])
        return container

    def add_vxlans(self, here: str = "", there: str = "") -> None:
        """Listener and talker get a VXLAN vx0 over their cable; the arguments name where each sends groups."""
        for host, remote, address in ((self.listener, here, "10.8.0.1/24"), (self.talker, there, "10.8.0.2/24")):
            host.ip(
                f"link add vx0 type vxlan id 42 dstport 4789 dev eth0 {remote}",
                "link set vx0 up",
                f"addr add {address} dev vx0",
            )
            host.interfaces["vx0"] = Interface(host, "vx0", [address])

    def noise(self, *kinds: str) -> None:
        """Let other groups, on other ports, come to grief in every way that counters count, or only in these."""
        for number, kind in enumerate(kinds or ("firewall", "filter", "buffer", "checksum", "not joined"), 1):
            group, port = f"239.77.0.{number}", PORT + number
            if kind != "not joined":
                self.listener.join_and_never_read(group, port, interface="eth0", buffer=4096)
            if kind == "firewall":
                self.listener.firewall_drop(f"ip daddr {group}")
            if kind == "filter":
                self.listener.set_reverse_path_filter("eth0", 1)
                self.talker.forge_datagrams(group, port, interface="eth0", source="172.16.3.3")
            elif kind == "checksum":
                self.talker.forge_datagrams(group, port, interface="eth0", source=TALKER, wrong_checksum=True)
            else:
                self.talker.send_datagrams(group, port, interface="eth0")


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """An empty stage; all of it is gone after the block."""
    with Lab() as lab:
        yield Stage(lab, lab.host("listener"), lab.host("talker"))
