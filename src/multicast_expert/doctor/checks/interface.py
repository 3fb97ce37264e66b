"""Checks of the interfaces: state, addresses, MTU. Pure: touches no OS."""

from __future__ import annotations

import shlex

from multicast_expert.doctor import phrases
from multicast_expert.doctor.checks.early import on_a_closed_port
from multicast_expert.doctor.checks.fragments import only_the_last
from multicast_expert.doctor.evidence import sightings, this_host
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Facts, InterfaceFacts, Unread, address_of, interface_setting, known
from multicast_expert.doctor.path import sending
from multicast_expert.doctor.report import Finding, Verdict, finding, ok, problem, suspect, unknown

_SMALLEST_IPV6_MTU = 1280
_USUAL_MTU = 1500
# How many interfaces are shown at most.
_SHOWN = 8


def interface_down(facts: Facts) -> Finding:
    """The interface is switched off, has no cable, or is gone.

    Nothing comes in on an interface that is down. The kernel still lets programs join on it, without an error, and
    the membership works as soon as the interface comes up: so a program that waits in silence looks the same as one
    that works. Where an interface was removed and came back (a USB adapter, a VPN, a container's network), the
    memberships of before are lost for good, also without an error.

    **How to see it:** `state UP` and `LOWER_UP` mean switched on and connected; `NO-CARRIER` means that the far end is
    missing.

        ip -br link
        mcast interfaces

    **Cure:** switch it on, and plug the cable in at both ends. For Wi-Fi and VPNs, connect.

        ip link set eth0 up

    Receivers of this library join again by themselves when an interface comes back. Other programs have to be started
    again after it was removed.
    """
    known(facts.interfaces)
    target, names = facts.target.interface, [each.name for each in this_host.interfaces(facts)]
    if target is not None and target not in names:
        step = "List the interfaces with `mcast interfaces`."
        summary = f"There is no interface {target or repr(target)} on this host."
        evidence = {"interfaces": ", ".join(names)}
        if address_of(target) is not None:
            summary = f"No interface of this host has the address {target}."
            evidence = {each.name: ", ".join(each.addresses) for each in this_host.interfaces(facts)[:_SHOWN]}
        return problem(summary, evidence, (step,))
    candidates = this_host.chosen(facts) or tuple(each for each in this_host.interfaces(facts) if not each.is_loopback)
    dead = [each for each in candidates if not (each.is_up and each.has_carrier)]
    # A bridge whose ports are closed has no carrier either.
    dead = [each for each in dead if not (each.is_up and on_a_closed_port(facts, each))]
    evidence = {each.name: _state(each) for each in (dead or candidates)[:_SHOWN]}
    if received(facts) or not dead:
        text = "Some interfaces are down, but datagrams arrive on others." if dead else "The interfaces are up."
        return ok(text, evidence)
    if len(dead) < len(candidates):
        which = phrases.named(each.name for each in dead)
        return ok(f"Down or without a cable: {which}. Others are up.", evidence)
    verb = "is" if len(dead) == 1 else "are"
    summary = f"{phrases.named(each.name for each in dead)} {verb} {phrases.named(_state(each) for each in dead)}."
    return problem(summary, evidence, tuple(line for each in dead for line in _raise_interface(facts, each)))


def _state(interface: InterfaceFacts) -> str:
    return "switched off" if not interface.is_up else "up" if interface.has_carrier else "without a cable or far end"


def _raise_interface(facts: Facts, interface: InterfaceFacts) -> tuple[str, ...]:
    if interface.is_up:
        return (f"Connect {interface.name}: its cable, its far end, or its wireless network.",)
    if facts.machine.system == "windows":
        quoted = interface.name.replace("'", "''")
        return (f"Enable the adapter: `Enable-NetAdapter -Name '{quoted}'` as administrator.",)
    name = shlex.quote(interface.name)
    return (f"ip link set {name} up",) if facts.machine.system == "linux" else (f"ifconfig {name} up",)


def interface_address(facts: Facts) -> Finding:
    """The interface, or that of the sender, has no address.

    A host without an IPv4 address on an interface sends with the source 0.0.0.0, and every Linux receiver drops such
    datagrams without counting why (only IGMP and 224.0.0.x are let through). The sender gets no error. It happens when
    DHCP has not answered yet, or when the address was set on another interface.

    Receiving needs no IPv4 address on Linux, but a program that joins on all interfaces passes over those without one.
    IPv6 needs a link-local address to tell the network what it has joined: without IPv6 on the interface nothing works,
    and while the address is `tentative` (about two seconds after the interface came up) nothing is sent or received.

    **How to see it:** on both hosts. A sender with 0.0.0.0 is seen with tcpdump on the receiver.

        ip -br addr
        tcpdump -ni eth0 host 239.1.2.3

    **Cure:** give the interface an address, or ask DHCP for one; let IPv6 work on it.

        ip addr add 10.0.0.7/24 dev eth0
        sysctl -w net.ipv6.conf.eth0.disable_ipv6=0
    """
    known(facts.interfaces)
    if missing := this_host.missing(facts):
        return unknown(missing)
    version, arrived = facts.target.group_version, received(facts)
    evidence = {each.name: ", ".join(each.addresses) or "no address" for each in this_host.chosen(facts)[:_SHOWN]}
    nameless = [each for each in sightings.wanted(facts) or () if each.sender in ("0.0.0.0", "::")]
    if nameless and version == 4 and not facts.target.group.startswith("224.0.0."):
        evidence |= {"sender": "0.0.0.0", "sent by": phrases.named(each.ethernet_source for each in nameless)}
        summary = "The sender has no address on its interface: its datagrams come from 0.0.0.0 and are dropped here."
        step = "Give the sender's interface an address, as with `ip addr add 10.0.0.7/24 dev eth0` there."
        return problem(summary, evidence, (step,))
    # A port of a bridge receives nothing for the host itself, so it needs no address.
    bare = [each for each in this_host.chosen(facts) if not _usable(each, version) and each.bridge is None]
    if arrived or version is None or (this_host.chosen(facts) and len(bare) < len(this_host.chosen(facts))):
        return ok("The interfaces have addresses.", evidence)
    if sightings.wanted(facts) and version == 4:
        return ok("Frames come in, and Linux needs no address to receive them.", evidence)
    which = phrases.named(each.name for each in bare) if bare else "No interface but loopback"
    verb = "has no" if bare else "has a"
    tentative = [each for each in bare if each.tentative]
    if tentative:
        evidence |= {f"tentative on {each.name}": ", ".join(each.tentative) for each in tentative}
        summary = (
            f"The IPv6 addresses of {which} are tentative: the check for duplicates is not over, or has found one."
        )
        step = "Wait two seconds; if `ip -6 addr` still shows `tentative` or `dadfailed`, another host has the address."
        return problem(summary, evidence, (step,))
    summary = f"{which} {verb} usable IPv{version} address."
    # Linux joins and receives over IPv4 without an address, but some switches ignore reports from 0.0.0.0.
    verdict: Verdict = "suspect" if bare and version == 4 else "problem"
    return finding(verdict, summary, evidence, _give_address(facts, bare))


def _usable(interface: InterfaceFacts, version: int | None) -> bool:
    """Return whether it has an address of the IP version that is not tentative."""
    return any(address.version == version for address in this_host.addresses(interface, usable=True))


def _give_address(facts: Facts, bare: list[InterfaceFacts]) -> tuple[str, ...]:
    version = facts.target.group_version
    if facts.machine.system != "linux":
        return (f"Give the interface an IPv{version} address in the system's network settings.",)
    # Without a named interface none was chosen, because none has an address.
    deprived = bare or [each for each in this_host.interfaces(facts) if not each.is_loopback and each.is_up]
    off = [each.name for each in deprived if version == 6 and this_host.setting(facts, each.name, "disable_ipv6") == 1]
    if off:
        # `all` sets every interface (ip-sysctl.rst).
        everywhere = this_host.setting(facts, "all", "disable_ipv6") == 1
        names = ("all", *off) if everywhere else off
        return tuple(phrases.set_command(interface_setting(6, name, "disable_ipv6"), 0) for name in names)
    others = [
        each for each in this_host.interfaces(facts) if not each.is_loopback and each.is_up and each.bridge is None
    ]
    name = shlex.quote(next((each.name for each in (*bare, *others)), "eth0"))
    example = f"ip addr add 10.0.0.7/24 dev {name}" if version == 4 else f"ip link set dev {name} addrgenmode eui64"
    return (f"Give the interface an address by DHCP or by hand, as with `{example}`.",)


def mtu(facts: Facts) -> Finding:
    """Packets are larger than an interface takes, here or on the way.

    A receiver whose MTU is smaller than that of the sender drops the large frames before anything can count them,
    except the interface's own `rx_dropped` or `rx_errors`. A switch drops what is too large for it without a word, and
    nobody tells the sender: there is no path MTU discovery for groups. Where the sender's MTU is larger than one on the
    way, its datagrams travel in fragments that are too large as well, and only the last, short one of each arrives.

    A program that forbids fragments (`IP_PMTUDISC_DO`), or sends more than 65,507 bytes at once, gets `EMSGSIZE` on its
    own host, and nothing leaves. Since Linux 6.4 root sees such sends.

    IPv6 is switched off on an interface with an MTU below 1280; all its IPv6 memberships are lost then, and stay lost
    when the MTU is set back.

    **How to see it:**

        ip -s link show dev eth0
        nstat -az | grep -i reasm
        tcpdump -ni eth0 'ip[6:2] & 0x3fff != 0'

    **Cure:** send no more than 1472 bytes per datagram over IPv4 and 1452 over IPv6, or give all hosts and switches
    the same MTU. After an MTU below 1280, start IPv6 receivers again.

        ip link set dev eth0 mtu 1500
    """
    known(facts.interfaces)
    interfaces = this_host.chosen(facts)
    evidence: dict[str, object] = {f"MTU of {each.name}": each.mtu for each in interfaces[:_SHOWN] if each.mtu}
    small = [each for each in interfaces if each.mtu and each.mtu < _SMALLEST_IPV6_MTU]
    if facts.target.group_version == 6 and small and not received(facts):
        summary = (
            f"The MTU of {phrases.named(each.name for each in small)} is below 1280, which switches IPv6 off there."
        )
        remedy = (*(f"ip link set dev {shlex.quote(each.name)} mtu 1500" for each in small),)
        return problem(summary, evidence, (*remedy, "Start the receivers again, so that they join."))
    if too_long := sending.too_long(facts):
        evidence |= {each.program: f"{each.count} sends failed" for each in too_long}
        summary = f"{too_long[0].program} of this host sends datagrams that are longer than the MTU, and they fail."
        steps = (
            "Have it send shorter datagrams, or allow fragments (IP_MTU_DISCOVER, IPV6_DONTFRAG).",
            f"Or raise the MTU of the interface, or of the route (`ip route get {facts.target.group}`).",
        )
        partly = sending.others_arrive(facts) or sending.left(facts)
        return finding("suspect" if partly else "problem", summary, evidence, steps)
    dropped = {each.name: _dropped(facts, each.name) for each in interfaces if (each.mtu or _USUAL_MTU) < _USUAL_MTU}
    if any(dropped.values()) and not received(facts) and not sightings.frames(facts):
        name = next(name for name, count in dropped.items() if count)
        evidence |= {f"packets that {name} dropped": dropped[name]}
        summary = f"{name} dropped {phrases.counted(dropped[name], 'frame')}, and its MTU is smaller than usual."
        return suspect(summary, evidence, (f"ip link set dev {shlex.quote(name)} mtu 1500",))
    if not received(facts) and (pieces := only_the_last(facts)):
        evidence["last fragments"] = pieces
        summary = "Only the last, short fragments of the datagrams come: the others are too large for the way."
        step = "Send datagrams that need no fragments, or give all hosts and switches on the way the same MTU."
        return suspect(summary, evidence, (step,))
    if isinstance(facts.trial, Unread):
        return unknown(facts.trial.reason, evidence)
    return ok("No packet was too large.", evidence)


def _dropped(facts: Facts, interface: str) -> int:
    counters = trial_of(facts).interface_counters.get(interface, {})
    return counters.get("rx_dropped", 0) + counters.get("rx_errors", 0)
