"""What netlink tells: against the kernel itself, which `ip` asked too, and against bytes that nobody meant."""

import json
import socket
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.system import netlink
from multicast_expert.testing import Lab, lab_unavailable

pytestmark = pytest.mark.skipif(lab_unavailable() is not None, reason=f"no multicast lab: {lab_unavailable()}")


def asked(request: bytes) -> list[bytes]:
    """The bodies of the messages that answer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as channel:
        channel.settimeout(5)
        channel.send(request)
        bodies = []
        while True:
            for message in netlink.messages(channel.recv(1 << 18)):
                if message.kind in (netlink.NLMSG_DONE, netlink.NLMSG_ERROR):
                    return bodies
                bodies.append(message.body)
            if request[4] == 26:  # RTM_GETROUTE
                return bodies


def test_links() -> None:
    """Names, states, kinds and bridges are those that `ip -d link` shows."""
    with Lab() as lab:
        host = lab.host("host")
        host.ip(
            "link add br0 type bridge mcast_snooping 1 mcast_querier 1",
            "link add br1 type bridge mcast_snooping 0",
            "link add port type veth peer name far",
            "link set port master br0",
            "link set port type bridge_slave mcast_flood off",
            "link set br0 up",
            "link set port up",
            "link set far mtu 1400",
        )
        found = host.run(asked, netlink.link_request())
        shown = json.loads(host.command("ip", "-j", "-d", "link", "show"))
    links = {link.name: link for body in found if (link := netlink.parse_link(body))}
    assert set(links) == {each["ifname"] for each in shown}
    for each in shown:
        link = links[each["ifname"]]
        assert link.number == each["ifindex"]
        assert link.mtu == each["mtu"]
        assert link.kind == each.get("linkinfo", {}).get("info_kind")
        assert (link.is_up, link.has_carrier) == ("UP" in each["flags"], "LOWER_UP" in each["flags"])
        assert link.is_loopback == ("LOOPBACK" in each["flags"])
    bridge, plain = links["br0"].bridge, links["br1"].bridge
    assert bridge is not None
    assert plain is not None
    assert (bridge.snooping, bridge.querier) == (True, True)
    assert (plain.snooping, plain.querier) == (False, False)
    assert links["port"].master == links["br0"].number
    assert (links["port"].floods, links["far"].floods) == (False, True)


def test_routes() -> None:
    """Interface, source and gateway of a route; None where there is none, or it is a dead end."""
    with Lab() as lab:
        host, router = lab.host("host"), lab.router("router")
        lab.link(host, router, ipv4=("10.1.0.1/24", "10.1.0.254/24"), ipv6=("fd01::1/64", "fd01::ffff/64"))
        host.ip("route add 10.2.0.0/16 via 10.1.0.254", "route add fd02::/16 via fd01::ffff")
        host.ip("route add blackhole 10.3.0.0/16", "route add unreachable fd03::/64")
        index = host.interface("eth0").index()
        family = {4: socket.AF_INET, 6: socket.AF_INET6}
        found = {}
        for text in ("10.1.0.9", "10.2.0.9", "10.3.0.9", "10.9.0.9", "fd02::9", "fd01::9", "fd03::9"):
            address = ip_address(text)
            bodies = host.run(asked, netlink.route_request(address, family[address.version]))
            found[text] = [netlink.parse_route(body) for body in bodies]
    own, own6 = ip_address("10.1.0.1"), ip_address("fd01::1")
    assert found == {
        "10.1.0.9": [(index, own, None)],
        "10.2.0.9": [(index, own, ip_address("10.1.0.254"))],
        "10.3.0.9": [],
        "10.9.0.9": [],
        "fd02::9": [(index, own6, ip_address("fd01::ffff"))],
        "fd01::9": [(index, own6, None)],
        "fd03::9": found["fd03::9"],
    }
    assert found["fd03::9"] in ([], [None])


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_no_bytes_break_anything(body: bytes, head: bytes) -> None:
    """Cut and senseless messages are passed over."""
    for message in netlink.messages(head + body):
        netlink.parse_link(message.body)
    netlink.parse_link(body)
    netlink.parse_route(body)
    list(netlink.parse_members(body))
