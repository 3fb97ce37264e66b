"""What can keep multicast from arriving, each built in a lab, with the cause that the doctor is to name.

A builder makes one thing wrong on a stage and returns the arguments of `mcast doctor`; its docstring is what the
documentation's table says.
"""

from collections.abc import Callable
from dataclasses import dataclass

from doctor.stage import (
    ENDPOINT,
    ENDPOINT6,
    GROUP,
    GROUP6,
    PORT,
    SSM,
    SSM_ENDPOINT,
    TALKER,
    TALKER6,
    Arguments,
    Stage,
)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and what is expected of the doctor."""

    build: Callable[[Stage], Arguments]
    causes: tuple[str, ...]
    """What names it: the first is the cause itself, the others are true as well and say less."""
    cured: bool
    """Whether the commands of the remedy must make the datagrams arrive."""
    varies: bool = False
    """Whether it depends on other packets of the moment if the answer without privileges is right or unknown."""

    @property
    def name(self) -> str:
        """The builder's name."""
        return self.build.__name__

    @property
    def story(self) -> str:
        """What is wrong, for people."""
        return (self.build.__doc__ or "").strip().rstrip(".")


FAULTS: list[Fault] = []


MATCHING = f"match ip dst {GROUP}/32"
"""What the filter `u32` of tc matches the group by."""


def _tc(made: Stage, *commands: str) -> None:
    for command in commands:
        made.listener.command("tc", *command.split())


def fault(
    *causes: str, cured: bool = False, varies: bool = False
) -> Callable[[Callable[[Stage], Arguments]], Callable[[Stage], Arguments]]:
    """Put what the decorated builder builds into the table of faults."""

    def add(build: Callable[[Stage], Arguments]) -> Callable[[Stage], Arguments]:
        FAULTS.append(Fault(build, causes, cured, varies))
        return build

    return add


# What was asked for


@fault("group-address")
def not_multicast(made: Stage) -> Arguments:
    """The address is not a multicast address."""
    made.cable()
    return [f"{TALKER}:{PORT}"]


@fault("group-address")
def interface_local_group(made: Stage) -> Arguments:
    """The IPv6 group has scope 1, which never leaves the sender's host."""
    made.cable()
    made.talker.send_datagrams("ff11::1:2:3", PORT, interface="eth0")
    return [f"[ff11::1:2:3]:{PORT}"]


@fault("group-address")
def link_local_group_across_a_router(made: Stage) -> Arguments:
    """The group is 224.0.0.200, which no router forwards, and the sender is behind one."""
    made.router()
    made.talker.send_datagrams("224.0.0.200", PORT, interface="eth0", hop_limit=8)
    return [f"224.0.0.200:{PORT}", "--source", "10.2.0.2"]


@fault("group-address")
def source_specific_group_without_source(made: Stage) -> Arguments:
    """The group is a source-specific one, the receiver names no source, and the router between requires one."""
    made.router()
    made.talker.send_datagrams(SSM, PORT, interface="eth0", hop_limit=8)
    return [SSM_ENDPOINT]


@fault("source-filter")
def other_source(made: Stage) -> Arguments:
    """The datagrams come from another source than the one that was asked for."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT, "--source", "10.1.0.99"]


@fault("source-filter")
def other_source_ipv6(made: Stage) -> Arguments:
    """The same with IPv6."""
    made.cable()
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    return [ENDPOINT6, "--source", "fd01::99"]


@fault("port")
def other_port(made: Stage) -> Arguments:
    """The datagrams go to another port."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT + 1, interface="eth0")
    return [ENDPOINT]


@fault("port")
def other_port_ipv6(made: Stage) -> Arguments:
    """The same with IPv6."""
    made.cable()
    made.talker.send_datagrams(GROUP6, PORT + 1, interface="eth0")
    return [ENDPOINT6]


@fault("port")
def other_port_amid_noise(made: Stage) -> Arguments:
    """The same, and other groups are lost to the firewall, the filter, full buffers and wrong checksums."""
    made.cable()
    made.noise()
    made.talker.send_datagrams(GROUP, PORT + 9, interface="eth0")
    return [ENDPOINT]


@fault("port")
def other_port_of_a_program(made: Stage) -> Arguments:
    """The datagrams go to another port, on which another program of this host receives them."""
    made.cable()
    made.listener.join_and_never_read(GROUP, PORT + 1, interface="eth0", buffer=1 << 20)
    made.talker.send_datagrams(GROUP, PORT + 1, interface="eth0")
    return [ENDPOINT]


@fault("wrong-interface")
def other_interface(made: Stage) -> Arguments:
    """The datagrams come in on another interface than the one that was asked for."""
    made.cable()
    made.second_interface()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT, "-i", "eth1"]


@fault("wrong-interface")
def other_interface_ipv6(made: Stage) -> Arguments:
    """The same with IPv6."""
    made.cable()
    made.second_interface()
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    return [ENDPOINT6, "-i", "eth1"]


@fault("wrong-interface")
def sent_on_loopback(made: Stage) -> Arguments:
    """A program on the same host sends on the loopback interface."""
    made.cable()
    made.listener.send_datagrams(GROUP, PORT, interface="lo", source="127.0.0.1")
    return [ENDPOINT, "-i", "eth0"]


@fault("membership")
def program_joined_elsewhere(made: Stage) -> Arguments:
    """The program on this port has joined on another interface than the one that the datagrams come in on."""
    made.cable()
    made.second_interface()
    made.listener.join_and_never_read(GROUP, PORT, interface="eth1")
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT]


@fault("send-route", cured=True)
def sender_without_route(made: Stage) -> Arguments:
    """A program on the same host names no interface to send on, and there is no route to the group."""
    made.cable()
    made.listener.send_datagrams(GROUP, PORT, interface=None, loop=True)
    return [ENDPOINT]


@fault("send-route", cured=True)
def sender_behind_a_blackhole(made: Stage) -> Arguments:
    """A program on the same host names no interface to send on, and the route to the group is a blackhole."""
    made.cable()
    made.listener.ip("route add blackhole 239.0.0.0/8")
    made.listener.send_datagrams(GROUP, PORT, interface=None, loop=True)
    return [ENDPOINT]


@fault("send-route", cured=True)
def sender_prohibited_by_a_rule(made: Stage) -> Arguments:
    """A policy rule prohibits what a program on the same host sends to the group."""
    made.cable()
    made.listener.ip("route add default dev eth0", "rule add to 239.0.0.0/8 prohibit pref 100")
    made.listener.send_datagrams(GROUP, PORT, interface=None, loop=True)
    return [ENDPOINT]


@fault("send-route")
def sender_without_its_address(made: Stage) -> Arguments:
    """A program on the same host is bound to an address that the host lost."""
    made.cable()
    made.listener.ip("addr add 10.1.0.9/24 dev eth0")
    made.listener.send_datagrams(GROUP, PORT, interface="eth0", source="10.1.0.9")
    made.listener.ip("addr del 10.1.0.9/24 dev eth0")
    return [ENDPOINT]


@fault("mtu", "no-traffic")
def sender_of_datagrams_too_long(made: Stage) -> Arguments:
    """A program on the same host sends more at once than a datagram can hold."""
    made.cable()
    made.listener.send_datagrams(GROUP, PORT, interface="eth0", size=65510)
    return [ENDPOINT]


@fault("ipsec", cured=True)
def sender_without_an_association(made: Stage) -> Arguments:
    """An IPsec policy demands encryption of what a program on the same host sends, and there is no association."""
    made.cable()
    made.listener.ip(f"xfrm policy add dir out dst {GROUP}/32 tmpl src 10.1.0.1 dst {GROUP} proto esp mode transport")
    made.listener.send_datagrams(GROUP, PORT, interface="eth0", loop=True)
    return [ENDPOINT]


@fault("ipsec", cured=True)
def sender_blocked_by_ipsec(made: Stage) -> Arguments:
    """An IPsec policy blocks what a program on the same host sends."""
    made.cable()
    made.listener.ip(f"xfrm policy add dir out dst {GROUP}/32 action block")
    made.listener.send_datagrams(GROUP, PORT, interface="eth0", loop=True)
    return [ENDPOINT]


@fault("traffic-control")
def sender_behind_a_shaper(made: Stage) -> Arguments:
    """A shaper of the interface drops what a program on the same host sends."""
    made.cable()
    _tc(made, "qdisc add dev eth0 root tbf rate 4kbit burst 1540 limit 1540")
    made.listener.send_datagrams(GROUP, PORT, interface="eth0", loop=False)
    return [ENDPOINT]


@fault("traffic-control")
def sender_behind_a_filter(made: Stage) -> Arguments:
    """A filter at the egress sends to another interface what a program on the same host sends to the group."""
    made.cable()
    made.second_interface()
    action = "action mirred egress redirect dev eth1"
    _tc(made, "qdisc add dev eth0 clsact", f"filter add dev eth0 egress protocol ip u32 {MATCHING} {action}")
    made.listener.send_datagrams(GROUP, PORT, interface="eth0", loop=False)
    return [f"{ENDPOINT}%eth0"]


@fault("traffic-control", cured=True)
def redirected_at_ingress(made: Stage) -> Arguments:
    """A filter at the ingress redirects the group to another interface."""
    made.cable()
    made.second_interface()
    action = "action mirred egress redirect dev eth1"
    _tc(made, "qdisc add dev eth0 clsact", f"filter add dev eth0 ingress protocol ip u32 {MATCHING} {action}")
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [f"{ENDPOINT}%eth0"]


@fault("local-sender")
def sender_without_loopback(made: Stage) -> Arguments:
    """A program on the same host sends and keeps its datagrams from receivers there."""
    made.cable()
    made.listener.send_datagrams(GROUP, PORT, interface="eth0", loop=False)
    return [ENDPOINT]


@fault("ethernet-address")
def wrong_ethernet_address(made: Stage) -> Arguments:
    """The frames go to the Ethernet address of another station instead of the group's."""
    made.cable()
    made.talker.forge_datagrams(GROUP, PORT, interface="eth0", source=TALKER, station="02:00:00:00:00:99")
    return [ENDPOINT]


# Tunnels, and interfaces that share a wire


@fault("macvlan", "wrong-interface")
def macvlan_of_the_sender(made: Stage) -> Arguments:
    """The program listens on a macvlan, and the sender is a program on the host that the macvlan is on."""
    made.cable()
    made.add_macvlan()
    made.listener.send_datagrams(GROUP, PORT, interface="eth0", loop=True)
    return [ENDPOINT, "-i", "mv0"]


@fault("macvlan", "no-traffic")
def container_with_a_macvlan(made: Stage) -> Arguments:
    """The sender is a container of this host with a macvlan on the interface that the program listens on."""
    made.cable()
    container = made.container_with_macvlan()
    container.send_datagrams(GROUP, PORT, interface="mv0")
    return [ENDPOINT, "-i", "eth0"]


@fault("macvlan", "wrong-interface", "no-traffic", cured=True)
def macvlan_for_other_stations(made: Stage) -> Arguments:
    """The macvlan is in mode source, and the sender is not among its stations."""
    made.cable()
    made.add_macvlan("source macaddr add 02:00:00:00:00:77")
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT, "-i", "mv0"]


@fault("macvlan")
def macvlan_for_no_station(made: Stage) -> Arguments:
    """The macvlan is in mode source, and its list of stations is empty."""
    made.cable()
    made.add_macvlan("source")
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT, "-i", "mv0"]


@fault("tunnel", "no-traffic")
def vxlan_without_peers(made: Stage) -> Arguments:
    """The interface is a VXLAN with neither a group nor a peer to send groups to."""
    made.cable()
    made.add_vxlans()
    return [ENDPOINT, "-i", "vx0"]


@fault("firewall")
def short_datagrams(made: Stage) -> Arguments:
    """A firewall rule drops the datagrams, which are as short as queries of IGMP."""
    made.cable()
    made.listener.firewall_drop(f"ip daddr {GROUP}")
    made.talker.send_datagrams(GROUP, PORT, interface="eth0", size=8)
    return [ENDPOINT]


# Interfaces and addresses


@fault("interface-down", cured=True)
def interface_down(made: Stage) -> Arguments:
    """The interface is switched off."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.listener.set_link("eth0", up=False)
    return [ENDPOINT, "-i", "eth0"]


@fault("interface-down")
def interface_down_ipv6(made: Stage) -> Arguments:
    """The same with IPv6."""
    made.cable()
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    made.listener.set_link("eth0", up=False)
    return [ENDPOINT6, "-i", "eth0"]


@fault("interface-down")
def no_carrier(made: Stage) -> Arguments:
    """The cable is pulled out."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.listener.set_cable("eth0", plugged=False)
    return [ENDPOINT]


@fault("interface-address")
def no_address(made: Stage) -> Arguments:
    """The interface has no IPv4 address."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.listener.remove_addresses("eth0", ipv6=False)
    return [ENDPOINT]


@fault("interface-address")
def ipv6_disabled(made: Stage) -> Arguments:
    """IPv6 is switched off on the interface."""
    made.cable()
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    made.listener.disable_ipv6("eth0")
    return [ENDPOINT6, "-i", "eth0"]


@fault("interface-address")
def sender_without_address(made: Stage) -> Arguments:
    """The sender's interface has no address, so that its datagrams come from 0.0.0.0."""
    made.cable()
    made.talker.remove_addresses("eth0", ipv6=False)
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT]


@fault("loopback-route", cured=True)
def no_loopback_route(made: Stage) -> Arguments:
    """IPv6 multicast has no route on the loopback interface."""
    made.listener.send_datagrams(GROUP6, PORT, interface="lo")
    return [ENDPOINT6, "-i", "lo"]


@fault("mtu", cured=True)
def mtu_too_small_for_ipv6(made: Stage) -> Arguments:
    """The MTU of the interface is below 1280, where IPv6 ends."""
    made.cable()
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    made.listener.set_mtu("eth0", 1200)
    return [ENDPOINT6, "-i", "eth0"]


@fault("fragments")
def lost_fragments(made: Stage) -> Arguments:
    """The datagrams are longer than the MTU, and only the first fragment of each arrives."""
    made.cable()
    made.talker.forge_datagrams(
        GROUP, PORT, interface="eth0", source=TALKER, size=2400, only_first_fragment=True, interval=0.1
    )
    return [ENDPOINT]


@fault("fragments")
def lost_fragments_ipv6(made: Stage) -> Arguments:
    """The same with IPv6."""
    made.cable()
    made.talker.forge_datagrams(
        GROUP6, PORT, interface="eth0", source=TALKER6, size=2400, only_first_fragment=True, interval=0.1
    )
    return [ENDPOINT6]


# Limits of the kernel, and other programs


@fault("membership-limit", cured=True)
def no_more_memberships(made: Stage) -> Arguments:
    """The host lets no socket join (igmp_max_memberships is 0)."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.listener.limit_memberships(0)
    return [ENDPOINT]


@fault("membership-limit", cured=True)
def no_memory_for_memberships(made: Stage) -> Arguments:
    """The host has no memory for a membership (optmem_max is 16)."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.listener.limit_option_memory(16)
    return [ENDPOINT]


@fault("membership-limit", cured=True)
def no_memory_for_memberships_ipv6(made: Stage) -> Arguments:
    """The same with IPv6."""
    made.cable()
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    made.listener.limit_option_memory(16)
    return [ENDPOINT6]


@fault("port-conflict")
def port_taken(made: Stage) -> Arguments:
    """Another program holds the port and does not share it."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.listener.hold_port(PORT)
    return [ENDPOINT]


@fault("port-conflict")
def port_taken_ipv6(made: Stage) -> Arguments:
    """The same with IPv6."""
    made.cable()
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    made.listener.hold_port(PORT, version=6)
    return [ENDPOINT6]


@fault("receive-buffer")
def buffer_too_small(made: Stage) -> Arguments:
    """The program that has joined is too busy to read, and its receive buffer is full."""
    made.cable()
    made.listener.join_and_never_read(GROUP, PORT, interface="eth0", buffer=4096)
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT]


@fault("receive-buffer")
def buffer_too_small_ipv6(made: Stage) -> Arguments:
    """The same with IPv6."""
    made.cable()
    made.listener.join_and_never_read(GROUP6, PORT, interface="eth0", buffer=4096)
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    return [ENDPOINT6]


# What the kernel drops


@fault("reverse-path-filter", cured=True)
def strict_reverse_path_filter(made: Stage) -> Arguments:
    """The reverse path filter is strict, and the route to the sender leads through another interface."""
    made.cable()
    made.second_interface()
    made.listener.ip("route add 172.16.0.0/16 dev eth1")
    made.listener.set_reverse_path_filter("eth0", 1)
    source = made.talker.add_unroutable_address("eth0")
    made.talker.send_datagrams(GROUP, PORT, interface="eth0", source=source)
    return [ENDPOINT]


@fault("reverse-path-filter", cured=True)
def strict_reverse_path_filter_everywhere(made: Stage) -> Arguments:
    """Every interface has a strict reverse path filter, and the default route to the sender leads through another."""
    made.cable()
    made.second_interface()
    made.listener.ip("route add default via 10.7.0.254")
    made.listener.set_reverse_path_filter("all", 1)
    source = made.talker.add_unroutable_address("eth0")
    made.talker.send_datagrams(GROUP, PORT, interface="eth0", source=source)
    return [ENDPOINT, "-i", "eth0"]


@fault("reverse-path-filter", cured=True)
def loose_reverse_path_filter(made: Stage) -> Arguments:
    """The reverse path filter is loose, and there is no route to the sender at all."""
    made.cable()
    made.listener.set_reverse_path_filter("all", 2)
    source = made.talker.add_unroutable_address("eth0")
    made.talker.send_datagrams(GROUP, PORT, interface="eth0", source=source)
    return [ENDPOINT]


@fault("reverse-path-filter", cured=True)
def filter_of_a_program(made: Stage) -> Arguments:
    """A program has joined already, and the reverse path filter keeps the datagrams from it too."""
    made.cable()
    made.listener.join_and_never_read(GROUP, PORT, interface="eth0", buffer=1 << 20)
    made.listener.set_reverse_path_filter("all", 2)
    source = made.talker.add_unroutable_address("eth0")
    made.talker.send_datagrams(GROUP, PORT, interface="eth0", source=source)
    return [ENDPOINT]


@fault("local-source", cured=True)
def own_address(made: Stage) -> Arguments:
    """The datagrams come from an address that is this host's own."""
    made.cable()
    made.talker.forge_datagrams(GROUP, PORT, interface="eth0", source="10.1.0.1")
    return [ENDPOINT]


@fault("checksum")
def wrong_checksums(made: Stage) -> Arguments:
    """The datagrams have wrong UDP checksums."""
    made.cable()
    made.talker.forge_datagrams(GROUP, PORT, interface="eth0", source=TALKER, wrong_checksum=True)
    return [ENDPOINT]


@fault("checksum")
def wrong_checksums_ipv6(made: Stage) -> Arguments:
    """The same with IPv6."""
    made.cable()
    made.talker.forge_datagrams(GROUP6, PORT, interface="eth0", source=TALKER6, wrong_checksum=True)
    return [ENDPOINT6]


# Firewalls


@fault("firewall", cured=True)
def firewall_drops_group(made: Stage) -> Arguments:
    """A rule of nftables drops the group."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.listener.firewall_drop(f"ip daddr {GROUP}")
    return [ENDPOINT]


@fault("firewall", cured=True)
def firewall_drops_group_ipv6(made: Stage) -> Arguments:
    """The same with IPv6."""
    made.cable()
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    made.listener.firewall_drop(f"ip6 daddr {GROUP6}")
    return [ENDPOINT6]


@fault("firewall", cured=True)
def firewall_drops_port(made: Stage) -> Arguments:
    """A rule of nftables drops the port."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.listener.firewall_drop(f"udp dport {PORT}")
    return [ENDPOINT]


@fault("firewall", cured=True)
def firewall_refuses_by_default(made: Stage) -> Arguments:
    """The firewall drops whatever it does not accept, and it does not accept the group."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.listener.firewall_refuse("ip protocol { icmp, igmp }", "meta l4proto ipv6-icmp", "tcp dport 22")
    return [ENDPOINT]


@fault("firewall", cured=True)
def firewall_refuses_by_default_ipv6(made: Stage) -> Arguments:
    """The same with IPv6."""
    made.cable()
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    made.listener.firewall_refuse("ip protocol { icmp, igmp }", "meta l4proto ipv6-icmp", "tcp dport 22")
    return [ENDPOINT6]


@fault("firewall")
def firewall_drops_reports(made: Stage) -> Arguments:
    """A rule of nftables drops what the host says by IGMP, so that the switch never learns of it."""
    made.switch().start_querier()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.listener.firewall_drop("igmp", direction="output")
    return [ENDPOINT]


@fault("firewall", cured=True)
def firewall_drops_before_routing(made: Stage) -> Arguments:
    """A rule of nftables drops the group before the kernel has looked at it."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.listener.firewall_drop(f"ip daddr {GROUP}", direction="prerouting")
    return [ENDPOINT]


@fault("firewall", cured=True)
def firewall_drops_at_ingress(made: Stage) -> Arguments:
    """A rule of nftables drops the group as it comes in from the wire."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    hook = 'type filter hook ingress device "eth0" priority 0;'
    made.listener.command("nft", f"add table netdev edge; add chain netdev edge incoming {{ {hook} }}")
    made.listener.command("nft", f"add rule netdev edge incoming ip daddr {GROUP} counter drop")
    return [ENDPOINT]


@fault("firewall", cured=True)
def firewall_drops_later_fragments(made: Stage) -> Arguments:
    """The datagrams are longer than the MTU, and a rule of nftables drops all fragments but the first ones."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0", size=2400)
    made.listener.firewall_drop("ip frag-off & 0x1fff != 0", direction="prerouting")
    return [ENDPOINT]


@fault("nat", "port", cured=True)
def firewall_writes_another_port(made: Stage) -> Arguments:
    """A rule of nftables writes another port into the datagrams."""
    made.cable()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    hook = "type filter hook prerouting priority -150;"
    made.listener.command("nft", f"add table ip changes; add chain ip changes incoming {{ {hook} }}")
    made.listener.command("nft", f"add rule ip changes incoming udp dport {PORT} udp dport set 5099")
    return [ENDPOINT]


# Switches and routers


@fault("igmp-version", cured=True)
def forced_igmp_version(made: Stage) -> Arguments:
    """The host is set to speak IGMPv2, which names no sources, and the network serves source-specific groups only."""
    switch = made.switch()
    # Before a query comes: an answer that is under way would still be of the new version.
    made.listener.force_igmp_version("eth0", 2)
    switch.start_querier()
    switch.ignore_old_reports()
    made.talker.send_datagrams(SSM, PORT, interface="eth0")
    return [SSM_ENDPOINT, "--source", TALKER]


@fault("igmp-version", cured=True)
def forced_mld_version(made: Stage) -> Arguments:
    """The same with IPv6 and MLDv1."""
    switch = made.switch()
    # Before a query comes: an answer that is under way would still be of the new version.
    made.listener.force_mld_version("eth0", 1)
    switch.start_querier()
    switch.ignore_old_reports()
    made.talker.send_datagrams("ff35::8000:1", PORT, interface="eth0")
    return [f"[ff35::8000:1]:{PORT}", "--source", TALKER6]


@fault("igmp-version")
def old_querier(made: Stage) -> Arguments:
    """A querier of IGMPv2 makes the host name no sources."""
    switch = made.switch()
    switch.start_querier(igmp_version=2)
    switch.ignore_old_reports()
    made.talker.send_datagrams(SSM, PORT, interface="eth0")
    return [SSM_ENDPOINT, "--source", TALKER]


@fault("querier")
def dead_querier(made: Stage) -> Arguments:
    """The querier has died, so that the switch forgets who joined: the datagrams come and then cease."""
    switch = made.switch()
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    switch.one_query(membership=2)
    made.seconds = 7
    return [ENDPOINT]


@fault("querier", varies=True)  # neighbour discovery is counted as what groups send
def dead_querier_ipv6(made: Stage) -> Arguments:
    """The same with IPv6."""
    switch = made.switch()
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    switch.one_query(membership=2)
    made.seconds = 7
    return [ENDPOINT6]


@fault("querier", "no-traffic")
def no_querier(made: Stage) -> Arguments:
    """There is no querier, and the switch drops groups that it knows nobody to want."""
    made.switch(flood_unknown=False)
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT]


@fault("query-blocked", cured=True)
def queries_filtered(made: Stage) -> Arguments:
    """The reverse path filter drops the queries, since the host has no route to the querier: the datagrams cease."""
    switch = made.switch()
    switch.start_querier(source="10.99.0.1", membership=2)
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.listener.set_reverse_path_filter("eth0", 1)
    made.seconds = 5
    return [ENDPOINT]


@fault("query-blocked", cured=True)
def queries_dropped_by_the_firewall(made: Stage) -> Arguments:
    """The firewall accepts the group and drops IGMP: the datagrams cease."""
    switch = made.switch()
    switch.start_querier(membership=2)
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.listener.firewall_drop("igmp")
    made.seconds = 5
    return [ENDPOINT]


@fault("query-blocked", cured=True)
def queries_dropped_by_the_firewall_ipv6(made: Stage) -> Arguments:
    """The same with IPv6 and MLD."""
    switch = made.switch()
    switch.start_querier(membership=2)
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    made.listener.firewall_drop("mld")
    made.seconds = 5
    return [ENDPOINT6]


@fault("snooping", cured=True)
def bridge_of_this_host(made: Stage) -> Arguments:
    """A bridge of this host filters, nobody asks for memberships, and it forgets its own: the datagrams cease."""
    made.cable()
    made.listener.put_into_bridge("eth0", membership=1.5)
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    made.talker.send_queries("eth0")
    made.seconds = 5
    return [ENDPOINT, "-i", "br0"]


@fault("wrong-interface", "snooping")
def port_of_a_bridge(made: Stage) -> Arguments:
    """The interface that was asked for is a port of a bridge of this host, which gets its datagrams."""
    made.cable()
    made.listener.put_into_bridge("eth0", snooping=False)
    made.talker.send_datagrams(GROUP, PORT, interface="eth0")
    return [ENDPOINT, "-i", "eth0"]


@fault("ttl", "no-traffic")
def hop_limit_too_small(made: Stage) -> Arguments:
    """The sender is behind a router and sends with TTL 1."""
    router = made.router()
    router.route_multicast(GROUP, "far", ["near"])
    made.talker.send_datagrams(GROUP, PORT, interface="eth0", hop_limit=1)
    return [ENDPOINT, "--source", "10.2.0.2"]


@fault("no-traffic")
def nothing_sent(made: Stage) -> Arguments:
    """Nobody sends."""
    made.cable()
    return [ENDPOINT]


@fault("no-traffic", varies=True)  # neighbours' reports are counted as what groups send
def nothing_sent_ipv6(made: Stage) -> Arguments:
    """The same with IPv6."""
    made.cable()
    return [ENDPOINT6]


@fault("no-traffic")
def nothing_sent_amid_noise(made: Stage) -> Arguments:
    """Nobody sends, and other groups are lost to the firewall, the filter, full buffers and wrong checksums."""
    made.cable()
    made.noise()
    return [ENDPOINT]


@fault("no-traffic")
def nothing_sent_and_drops_of_others(made: Stage) -> Arguments:
    """Nobody sends, and another group is lost to the firewall."""
    made.cable()
    made.noise("firewall")
    return [ENDPOINT]


@fault("no-traffic")
def nothing_sent_and_filtered_others(made: Stage) -> Arguments:
    """Nobody sends, and another group is lost to the reverse path filter."""
    made.cable()
    made.noise("filter")
    return [ENDPOINT]


@fault("no-traffic")
def nothing_sent_and_checksums_of_others(made: Stage) -> Arguments:
    """Nobody sends, and another group has wrong checksums."""
    made.cable()
    made.noise("checksum")
    return [ENDPOINT]


@fault("no-traffic")
def nothing_sent_and_buffers_of_others(made: Stage) -> Arguments:
    """Nobody sends, and another group is lost to a full buffer."""
    made.cable()
    made.noise("buffer")
    return [ENDPOINT]


@fault("no-traffic")
def nothing_sent_to_a_program_and_drops_of_others(made: Stage) -> Arguments:
    """Nobody sends, a program has joined already, and another group is lost to the firewall."""
    made.cable()
    made.listener.join_and_never_read(GROUP, PORT, interface="eth0")
    made.noise("firewall")
    return [ENDPOINT]


@fault("no-traffic")
def nothing_sent_but_others_by_this_host(made: Stage) -> Arguments:
    """Nobody sends, and a program on the same host sends another group and keeps it from receivers there."""
    made.cable()
    made.listener.send_datagrams("239.77.0.1", PORT, interface="eth0", loop=False)
    return [ENDPOINT]


@fault("no-traffic")
def other_group_sent(made: Stage) -> Arguments:
    """The sender sends to another group, which has the same Ethernet address."""
    made.cable()
    made.talker.send_datagrams("239.129.2.3", PORT, interface="eth0")
    return [ENDPOINT]
