"""Checks of the environment: containers, wireless networks, the privacy of macOS. Pure: touches no OS."""

from __future__ import annotations

import re
from ipaddress import ip_network

from multicast_expert.doctor import phrases
from multicast_expert.doctor.evidence import counters, sightings, this_host
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Facts, Unread, known
from multicast_expert.doctor.report import Finding, Verdict, finding, ok, problem, unknown

# The default networks of container engines and WSL.
_POOLS = {
    "docker": tuple(f"172.{second}.0.0/16" for second in range(17, 32)),
    "podman": ("10.88.0.0/16", "10.89.0.0/16"),
    "lxc": ("10.0.3.0/24",),
    "wsl": ("172.16.0.0/12",),
}
# Kinds of interfaces that engines connect to such networks.
_OF_ENGINES = {"veth", "tun", "ipvlan"}
# Virtual machines with a network like that, whatever interface they show: those of Docker Desktop and WSL.
_MACHINES = ("linuxkit", "microsoft")
# macOS 15 is Darwin 24.
_FIRST_WITH_PRIVACY = 24


def container(facts: Facts) -> Finding:
    """The program runs in a container, or in WSL, whose network passes no multicast from outside.

    The usual network of Docker and Podman is a bridge on the host with address translation behind it, and that of WSL 2
    is the same in a virtual machine. Translation works for connections; groups from outside are never passed on, and
    no published port changes that. Containers on the same bridge do hear each other. Kubernetes leaves it to the
    network plugin, and most plugins carry no multicast.

    **How to see it:** inside, the address is one that is known nowhere else; outside, the datagrams arrive.

        ip -br addr
        mcast doctor 239.1.2.3:5000        (on the host itself)

    **Cure:** one of these.

    - Run it in the host's network: `docker run --network host`, `hostNetwork: true`, WSL with
      `networkingMode=mirrored`.
    - Give the container an interface in the real network: a macvlan network, or Multus with Kubernetes.
    - Route the group into the bridge with a daemon such as smcroute on the host; the hop limit has to be 2 or more.
    """
    kind = facts.machine.container
    if isinstance(kind, Unread):
        verdict: Verdict = "ok" if received(facts) else "unknown"
        return finding(verdict, kind.reason, {}, phrases.remedy(kind))
    if kind is None:
        return ok("The network of this program is not that of a known kind of container.")
    evidence = {"container": kind} | {each.name: ", ".join(each.addresses) for each in this_host.chosen(facts)}
    if trial_of(facts).arrivals or sightings.frames(facts):
        return ok(f"This is a container ({kind}), and datagrams get in.", evidence)
    pools = [ip_network(pool) for pool in _POOLS.get(kind, ())]
    mine = [address for each in this_host.chosen(facts) for address in this_host.addresses(each)]
    translated = any(each.ip in pool for each in mine if each.version == 4 for pool in pools)
    source = facts.target.source
    if not translated and not _may_be_behind_an_engine(facts):
        return ok(f"This is a container ({kind}), and listens on no interface that its engine translates.", evidence)
    if not translated or (source is not None and this_host.is_near(facts, source)):
        summary = f"This is a container ({kind}); from inside one cannot see whether its network forwards groups."
        step = "Run `mcast doctor` outside of the container; if datagrams arrive there, use the host's network."
        return unknown(summary, evidence, (step,))
    summary = f"This container ({kind}) is behind a bridge with address translation, which forwards no groups."
    step = "Run it in the host's network: `--network host`, `hostNetwork: true`, or `networkingMode=mirrored` of WSL."
    verdict = "problem" if counters.nothing_came(facts) else "suspect"
    return finding(verdict, summary, evidence, (step,))


def _may_be_behind_an_engine(facts: Facts) -> bool:
    """Return whether the container's network may keep groups away: a macvlan or the host's own interface never does."""
    release = facts.machine.release.lower()
    kinds = {each.kind for each in this_host.chosen(facts)}
    return bool(kinds & _OF_ENGINES) or any(name in release for name in _MACHINES)


def wireless(facts: Facts) -> Finding:
    """The interface is wireless, and access points treat groups badly.

    An access point sends groups without acknowledgement, at a low rate, and holds them back for stations that sleep:
    ten percent of loss is nothing unusual, and bursts get lost as a whole. Many access points also filter: client
    isolation keeps stations apart, and IGMP snooping or "multicast enhancement" sends a group only to stations that
    they believe to have joined. Guest networks usually pass none at all.

    **How to see it:** connect the same host by cable. If the datagrams arrive then, it is the access point. A test
    stream shows what is lost:

        mcast send --stamp 239.1.2.3:5000      (elsewhere)
        mcast recv 239.1.2.3:5000              (here, and at its end the loss is printed)

    **Cure:** use a cable. Else switch off client isolation and power saving, raise the basic (multicast) rate of the
    access point, or have it convert groups to unicast. Send less, and so that loss does not matter.
    """
    known(facts.interfaces)
    names = [each.name for each in this_host.chosen(facts) if each.is_wireless]
    evidence = {"wireless": ", ".join(names)} if names else {}
    if not names:
        return ok("No wireless interface is used.")
    if received(facts) or len(names) < len(this_host.chosen(facts)):
        return ok(f"{phrases.named(names)}: groups may get lost on wireless networks.", evidence)
    step = "Try the same host with a cable: if datagrams arrive then, it is the access point."
    summary = f"{phrases.named(names)}: wireless networks often hold groups back, and this host cannot see it."
    return finding("suspect" if counters.nothing_came(facts) else "unknown", summary, evidence, (step,))


def macos_privacy(facts: Facts) -> Finding:
    """macOS keeps the program from the local network until the user allows it.

    Since macOS 15 a program needs the user's consent before it may send or receive groups (Local Network privacy).
    Without it sending fails with `EHOSTUNREACH` ("No route to host"), and what comes in is dropped without a word. The
    consent belongs to the application that started the program: an editor's terminal, a launch agent or a scheduled
    job may lack it while the same command works in Terminal. Programs of root, and those started from Terminal or over
    ssh, need none.

    **How to see it:** the same command works in Terminal or with sudo, and fails elsewhere with errno 65.

        sudo mcast doctor 239.1.2.3:5000

    **Cure:** System Settings, Privacy & Security, Local Network: switch the application on that starts the program, and
    start that application again. For services, run them as root or as a launch daemon.
    """
    machine, trial = facts.machine, trial_of(facts)
    if machine.system != "macos":
        return ok("This is not macOS.")
    errors = [*(join.error for join in trial.joins), *(probe.error for probe in trial.probes)].count("EHOSTUNREACH")
    step = (
        "Allow it: System Settings, Privacy & Security, Local Network; or start it from Terminal, over ssh or as root."
    )
    if errors and machine.user_id != 0:
        summary = "macOS answered EHOSTUNREACH: the user has not allowed this program to use the local network."
        return problem(summary, {"refusals": errors}, (step,))
    release = re.match(r"\d+", machine.release)
    if machine.user_id == 0 or received(facts) or (release and int(release[0]) < _FIRST_WITH_PRIVACY):
        return ok("The privacy settings do not prevent it.")
    if isinstance(facts.trial, Unread) or not any(probe.came_back for probe in trial.probes):
        summary = "It is not known whether the user has allowed this program to use the local network."
        return unknown(summary, {"release": machine.release}, (step,))
    return ok("This program may use the local network: its own datagram came back.")
