"""Networks in which multicast arrives, so that the doctor must be content. Each builder's docstring says what it is."""

from collections.abc import Callable

from doctor.stage import ENDPOINT, ENDPOINT6, GROUP, GROUP6, PORT, SSM, SSM_ENDPOINT, TALKER, Arguments, Stage


def plain(made: Stage) -> Arguments:
    """A host with one interface."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT]


def two_interfaces(made: Stage) -> Arguments:
    """A host with two interfaces and a default route on the other one."""
    made.cable()
    made.second_interface()
    made.listener.ip("route add default via 10.7.0.254")
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT]


def ipv6_only(made: Stage) -> Arguments:
    """A host without any IPv4 address."""
    made.cable()
    made.listener.remove_addresses("eth0", ipv6=False)
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    return [ENDPOINT6]


def loopback(made: Stage) -> Arguments:
    """A sender on the same host's loopback interface."""
    made.listener.send_datagrams(GROUP, PORT, interface="lo", source="127.0.0.1")
    return [ENDPOINT, "-i", "lo"]


def loopback_ipv6(made: Stage) -> Arguments:
    """The same with IPv6, and the route that it needs."""
    made.listener.allow_ipv6_loopback()
    made.listener.send_datagrams(GROUP6, PORT, interface="lo")
    return [ENDPOINT6, "-i", "lo"]


def snooping_switch(made: Stage) -> Arguments:
    """A snooping switch with a querier."""
    made.switch().start_querier()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.seconds = 5
    return [ENDPOINT]


def snooping_switch_ipv6(made: Stage) -> Arguments:
    """The same with IPv6."""
    made.switch().start_querier()
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    made.seconds = 5
    return [ENDPOINT6]


def across_a_router(made: Stage) -> Arguments:
    """A sender behind a multicast router, with a TTL that is just large enough."""
    made.router().route_multicast(GROUP, "far", ["near"])
    made.talker.send_datagrams(GROUP, PORT, interface="eth0", hop_limit=2)
    return [ENDPOINT]


def source_specific(made: Stage) -> Arguments:
    """A source-specific group and its source."""
    made.cable()
    made.talker.send_datagrams(SSM, PORT, interface="eth0")
    return [SSM_ENDPOINT, "--source", TALKER]


def firewall_lets_it_through(made: Stage) -> Arguments:
    """A firewall that drops what it does not accept, and accepts the group and IGMP."""
    made.cable()
    made.listener.firewall_refuse(f"ip daddr {GROUP} udp dport {PORT}", "ip protocol { icmp, igmp }")
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT]


def loose_filter_and_default_route(made: Stage) -> Arguments:
    """A loose reverse path filter, a sender from elsewhere, and a default route."""
    made.cable()
    made.second_interface()
    made.listener.ip("route add default via 10.7.0.254")
    made.listener.set_reverse_path_filter("all", 2)
    source = made.talker.add_unroutable_address("eth0")
    made.talker.send_datagrams(GROUP, PORT, interface="eth0", source=source)
    return [ENDPOINT]


def long_datagrams(made: Stage) -> Arguments:
    """Datagrams that are longer than the MTU, and a neighbour whose other traffic is dropped."""
    made.cable()
    made.listener.firewall_drop("ip daddr 239.77.77.77")
    made.talker.send_datagrams("239.77.77.77", PORT, interface="eth0")
    made.talker.send_datagrams(GROUP, PORT, interface="eth0", size=4000)
    return [ENDPOINT]


def a_program_listens(made: Stage) -> Arguments:
    """A program that has joined already, on a host whose bridge is none of its business."""
    made.cable()
    made.second_interface()
    made.listener.put_into_bridge("eth1")
    made.listener.join_and_never_read(GROUP, PORT, interface="eth0", buffer=1 << 20)
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT]


def amid_noise(made: Stage) -> Arguments:
    """Datagrams arrive, and other groups are lost to the firewall, the filter, full buffers and wrong checksums."""
    made.cable()
    made.noise()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT]


def sender_that_pauses(made: Stage) -> Arguments:
    """A sender that falls silent while the doctor listens, for longer than that."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0", pauses=(4, 60))
    made.seconds = 6
    return [ENDPOINT]


def slow_sender(made: Stage) -> Arguments:
    """A sender of one datagram in two seconds."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0", interval=2)
    made.seconds = 5
    return [ENDPOINT]


def busy_traffic_control(made: Stage) -> Arguments:
    """Filters that mirror, redirect another group and pass, an `ifb` on the way in, and a shaper with enough rate."""
    made.cable()
    made.second_interface()
    made.listener.ip("link add ifb7 type ifb", "link set ifb7 up")
    ingress, every = "filter add dev eth0 ingress protocol ip", "u32 match u32 0 0 action mirred egress"
    for command in (
        "qdisc add dev ifb7 root tbf rate 50mbit burst 50k limit 100k",
        "qdisc add dev eth0 root tbf rate 50mbit burst 50k limit 100k",
        "qdisc add dev eth0 clsact",
        f"{ingress} pref 1 u32 match ip dst 239.8.8.8/32 action mirred egress redirect dev eth1",
        f"{ingress} pref 2 {every} mirror dev eth1",
        f"{ingress} pref 3 {every} redirect dev ifb7",
        f"filter add dev eth0 egress protocol all {every} mirror dev eth1",
    ):
        made.listener.command("tc", *command.split())
    made.talker.send_datagrams("239.8.8.8", PORT, interface="eth0")
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.listener.send_datagrams(GROUP, PORT, interface="eth0", loop=True)
    return [f"{ENDPOINT}%eth0"]


def refused_elsewhere(made: Stage) -> Arguments:
    """Routes, a policy rule and IPsec refuse other groups, also to a program here, and this group to nobody."""
    made.cable()
    made.listener.ip(
        "route add default dev eth0", "route add blackhole 239.9.0.0/16", "rule add to 239.7.0.0/16 prohibit pref 100",
        "xfrm policy add dir out dst 239.6.0.0/16 action block",
    )  # fmt: skip
    for other in ("239.9.9.9", "239.7.7.7", "239.6.6.6"):
        made.listener.send_datagrams(other, PORT, interface=None, loop=True)
    made.listener.send_datagrams(GROUP, PORT, interface=None, loop=True)
    return [ENDPOINT]


def macvlan_hears_others(made: Stage) -> Arguments:
    """A macvlan, and a sender on another host."""
    made.cable()
    made.add_macvlan()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT, "-i", "mv0"]


def macvlan_of_listed_stations(made: Stage) -> Arguments:
    """A macvlan in mode source, with the sender among its stations."""
    made.cable()
    made.add_macvlan(f"source macaddr add {made.station_of_the_talker()}")
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT, "-i", "mv0"]


def vxlan_with_a_peer(made: Stage) -> Arguments:
    """A VXLAN whose far end copies groups to this host."""
    made.cable()
    made.add_vxlans(f"remote {TALKER}", "remote 10.1.0.1")
    made.talker.send_datagrams(GROUP, PORT, interface="vx0")
    return [ENDPOINT, "-i", "vx0"]


def short_datagrams_arrive(made: Stage) -> Arguments:
    """Datagrams that are as short as queries of IGMP."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0", size=8)
    return [ENDPOINT]


HEALTHY: list[Callable[[Stage], Arguments]] = [
    plain,
    two_interfaces,
    ipv6_only,
    loopback,
    loopback_ipv6,
    snooping_switch,
    snooping_switch_ipv6,
    across_a_router,
    source_specific,
    firewall_lets_it_through,
    loose_filter_and_default_route,
    long_datagrams,
    a_program_listens,
    amid_noise,
    sender_that_pauses,
    slow_sender,
    busy_traffic_control,
    refused_elsewhere,
    macvlan_hears_others,
    macvlan_of_listed_stations,
    vxlan_with_a_peer,
    short_datagrams_arrive,
]
