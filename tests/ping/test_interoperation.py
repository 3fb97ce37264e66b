"""Programs that others wrote: Debian's ssmpingd, ssmping and asmping; routers and switches in between."""

import re
import subprocess

import pytest

from multicast_expert.testing import Host, Lab, wait_until
from ping.network import ping, pong, two_hosts
from programs import need

pytestmark = pytest.mark.slow

ADDRESS = {4: "10.0.0.2", 6: "fd00::2"}
GROUPS = {4: ("232.43.211.234", "239.1.2.234"), 6: ("ff3e::4321:1234", "ff15::4321:1234")}
versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


def serve(host: Host, path: str) -> None:
    """Run ssmpingd until it has its port."""
    host.popen([path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: ":10E1" in host.run(_ports), "ssmpingd has port 4321")


def _ports() -> str:
    with open("/proc/thread-self/net/udp6") as six, open("/proc/thread-self/net/udp") as four:  # noqa: PTH123
        return six.read() + four.read()


@versions
@pytest.mark.parametrize("specific", [True, False], ids=["SSM", "ASM"])
def test_our_client_and_ssmpingd(version: int, specific: bool) -> None:
    """It gets no session, asks in ssmping's dialect, and sees both answers, by both ways to join."""
    with two_hosts() as (ours, theirs, _):
        serve(theirs, need("ssmpingd"))
        group = [] if specific else [GROUPS[version][1]]
        done = ping(ours, ADDRESS[version], *group, "-c", "3", "-i", "0.2", "--json")
        host = done.summary["hosts"][ADDRESS[version]]
        assert (host["dialect"], host["group"]) == ("ssmping", GROUPS[version][not specific])
        assert (host["sent"], host["unicast"]["received"], host["multicast"]["received"]) == (3, 3, 3)
        assert (host["unicast"]["hops"], host["multicast"]["hops"]) == (0, 0)
        assert (done.status, done.kinds) == (0, {"one way only"})


@versions
@pytest.mark.parametrize("name", ["ssmping", "asmping"])
def test_their_clients_and_our_server(version: int, name: str) -> None:
    """ssmping and asmping count all answers of our server, by unicast and by multicast."""
    with two_hosts() as (theirs, ours, _):
        pong(ours)
        group = [GROUPS[version][1]] if name == "asmping" else []
        words = [need(name), f"-{version}", "-I", "eth0", "-c", "3", *group, ADDRESS[version]]
        text = theirs.command(*words)
        assert len(re.findall(r"unicast from .* seq=\d+ dist=0 time=", text)) == 3, text
        assert len(re.findall(r"multicast from .* seq=\d+ dist=0 time=", text)) >= 2, text


@versions
def test_across_a_router(version: int) -> None:
    """smcroute forwards the group: one hop by both ways, and the verdict says that it is routed."""
    with Lab() as lab:
        first, router, second = lab.host("first"), lab.router("router"), lab.host("second")
        for host, net, name in ((first, 1, "near"), (second, 2, "far")):
            ipv4, ipv6 = (f"10.{net}.0.1/24", f"10.{net}.0.9/24"), (f"fd0{net}::1/64", f"fd0{net}::9/64")
            lab.link(host, router, second_interface=name, ipv4=ipv4, ipv6=ipv6)
        for host, net in ((first, 1), (second, 2)):
            host.ip(f"route add default via 10.{net}.0.9", f"route add default via fd0{net}::9")
        for group in GROUPS[version]:
            router.route_multicast(group, "far", ["near"])
            router.route_multicast(group, "near", ["far"])
        pong(second)
        target = {4: "10.2.0.1", 6: "fd02::1"}[version]
        for more in ([], [GROUPS[version][1]]):
            done = ping(first, target, *more, "-c", "4", "-i", "0.2", "--json")
            assert {each["hops"] for each in done.objects[:-1]} == {1}, done.text
            assert (done.status, done.kinds) == (0, {"works", "routed"}), done.text
            assert "TTL 63 of 64: routed by 1 router" in done.text
        usual = ping(first, target, "-c", "3", "-i", "0.2")
        assert "1 hop, min/avg/max/mdev" in usual.text


@versions
@pytest.mark.parametrize("way", ["--ssm", "--asm"])
def test_across_a_snooping_switch(version: int, way: str) -> None:
    """A switch that drops groups without members forwards the answers, because the client joined before it asked."""
    with two_hosts(querier=True, flood_unknown=False) as (first, second, _):
        pong(second)
        done = ping(first, ADDRESS[version], way, "-c", "5", "-i", "0.2", "--json")
        multicast = done.summary["hosts"][ADDRESS[version]]["multicast"]
        assert multicast["first_sequence"] <= 2
        assert (done.status, done.kinds) == (0, {"works"}), done.text
