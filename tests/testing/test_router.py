"""Routers of the lab."""

import shutil

import pytest

from multicast_expert.testing import Interface, Lab, LabError, Router, Switch
from multicast_expert.testing.private_network import find_tool
from testing.plain_sockets import PATIENCE, arrives, member_of, surely_arrives

GROUPS = ["239.9.9.9", "ff15::9:9"]

needs_smcroute = pytest.mark.skipif(find_tool("smcrouted") is None, reason="the program smcrouted is not installed")


@pytest.fixture
def campus(multicast_lab: Lab) -> tuple[Router, Interface, Interface]:
    """A host on a snooping switch, and a router between it and a host far away."""
    switch = multicast_lab.switch("switch", querier=True)
    router, near, far = multicast_lab.router("router"), multicast_lab.host("near"), multicast_lab.host("far")
    near_eth = multicast_lab.plug(near, switch, ipv4="10.1.0.1/24", ipv6="fd01::1/64")
    multicast_lab.plug(router, switch, ipv4="10.1.0.254/24", ipv6="fd01::ff/64", interface="lan")
    _, far_eth = multicast_lab.link(
        router,
        far,
        interface="wan",
        second_interface="eth0",
        ipv4=("10.2.0.254/24", "10.2.0.1/24"),
        ipv6=("fd02::ff/64", "fd02::1/64"),
    )
    for host, gateway, gateway6 in ((near, "10.1.0.254", "fd01::ff"), (far, "10.2.0.254", "fd02::ff")):
        host.command("ip", "route", "add", "default", "via", gateway)
        host.command("ip", "-6", "route", "add", "default", "via", gateway6)
    return router, near_eth, far_eth


def forward(router: Router, group: str, *further: str) -> None:
    """Route the group, and wait until the switch has learnt that the router wants it."""
    router.route_multicast(group, "lan", ["wan", *further])
    lan = router.interface("lan")
    assert isinstance(lan.peer.node, Switch)
    lan.peer.node.wait_for_member(group, lan)


@needs_smcroute
@pytest.mark.parametrize("group", GROUPS)
def test_a_router_counts_hops(campus: tuple[Router, Interface, Interface], group: str) -> None:
    """A datagram with TTL 2 crosses the router, one with TTL 1 does not."""
    router, near, far = campus
    forward(router, group)
    with member_of(group, far) as member:
        assert surely_arrives(group, near, member, ttl=2)
        assert not arrives(group, near, member, ttl=1)


@needs_smcroute
def test_a_router_forwards_only_what_it_was_told(campus: tuple[Router, Interface, Interface]) -> None:
    """Groups without a route stay; routes are added one after another, also after a new interface has come."""
    router, near, far = campus
    forward(router, GROUPS[0])
    with member_of("239.9.9.8", far) as member:
        assert not arrives("239.9.9.8", near, member, ttl=5)
        forward(router, "239.9.9.8")
        assert surely_arrives("239.9.9.8", near, member, ttl=5)
    router.add_interface("late", ipv4="10.3.0.1/24")
    forward(router, "239.9.9.7", "late")
    for group in (GROUPS[0], "239.9.9.7"):
        with member_of(group, far) as member:
            assert surely_arrives(group, near, member, ttl=5)


def test_a_router_forwards_unicast(campus: tuple[Router, Interface, Interface]) -> None:
    """Unicast of both IP versions crosses the router without anything being told."""
    _, near, far = campus
    for family, address in ((2, far.ipv4), (10, far.ipv6)):
        with near.node.entered():
            import socket

            with socket.socket(family, socket.SOCK_STREAM) as client:
                client.settimeout(PATIENCE)
                # Nobody listens there: the refusal itself has made the way there and back
                with pytest.raises(ConnectionRefusedError):
                    client.connect((address, 9))


def test_a_route_needs_interfaces(campus: tuple[Router, Interface, Interface]) -> None:
    """An unknown interface is refused by name."""
    with pytest.raises(LabError, match="router has no interface dmz"):
        campus[0].route_multicast(GROUPS[0], "lan", ["dmz"])


def test_a_missing_daemon_is_named(
    campus: tuple[Router, Interface, Interface], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without smcroute on the machine the error says what to install."""
    monkeypatch.setattr("multicast_expert.testing.router.DAEMON", "no-such-daemon")
    assert shutil.which("no-such-daemon") is None
    with pytest.raises(LabError, match="no-such-daemon"):
        campus[0].route_multicast(GROUPS[0], "lan", ["wan"])
