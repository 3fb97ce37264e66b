"""Checks of the programs that want the group: deaf sockets, filters on sockets, privileges. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterator

from multicast_expert.doctor import phrases
from multicast_expert.doctor.evidence import background, counters, sightings, this_host
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Facts, Unread, address_of, known, same
from multicast_expert.doctor.path import endings, sending
from multicast_expert.doctor.report import Finding, finding, ok, problem, suspect, unknown
from multicast_expert.system.listings import Member, Membership, UdpSocket

_FORBIDDEN = ("EPERM", "EACCES", "ENOSYS")
_UNPRIVILEGED_PORTS = 1024
_MOST = 0.9
"""The part of the datagrams that a filter must drop before it is said to drop all."""


def program(facts: Facts) -> Finding:
    """A program on this host wants the group, and its socket can never receive it.

    The group arrives, other programs get it, and one does not. The kernel gives a datagram to each socket that

    - is bound to the port that the datagrams go to. A membership is for all ports of a group, so that a program that
      joined and listens on another port keeps the datagrams coming, and gets none of them;
    - is bound to any address, or to the group itself. A socket that is bound to a unicast address of
      this host, or to another group, gets no datagram of the group, whatever it has joined;
    - is not connected, or connected to the sender's address and port;
    - is not bound to another interface (`SO_BINDTODEVICE`);
    - has joined the group on this interface, and takes the sender. Without a membership of its own it gets the group
      only while others have joined it, and never if `IP_MULTICAST_ALL` is 0.

    None of it gives the program an error.

    **How to see it:** the sockets of each group with what they are bound to and have joined; as root, those of all
    users.

        mcast groups
        ss -uanp 'sport = :5000'

    **Cure:** in the program: bind to the port of the datagrams, and to the group or to any address, do not connect,
    join where the datagrams come in.
    """
    if isinstance(facts.sockets, Unread):
        return finding("ok" if received(facts) else "unknown", facts.sockets.reason, {}, phrases.remedy(facts.sockets))
    deaf = [*_deaf(facts)]
    if deaf:
        socket, why, step = deaf[0]
        name = describe(socket)
        evidence: dict[str, object] = {describe(each): reason for each, reason, _ in deaf[:8]}
        summary = f"{name[:1].upper()}{name[1:]} can never receive the group: {why}."
        return problem(summary, evidence, (step,))
    if strays := _on_other_ports(facts):
        target = facts.target
        names = phrases.named(f"{describe(each.socket)} on port {each.socket.port}" for each in strays)
        evidence = {f"joined by {describe(each.socket)}": f"port {each.socket.port}" for each in strays[:8]}
        summary = f"The datagrams go to port {target.port}, where no program listens; {names} joined the group."
        step = f"If that program expects them, have it listen on port {target.port}, or the sender send to its port."
        return suspect(summary, evidence, (step,))
    hidden = [each for each in _at_port(facts) if each.inode not in {member.socket.inode for member in facts.members}]
    if hidden and (found := _asking_others(facts)):
        return found
    if hidden and not received(facts) and not facts.machine.may_capture:
        text = "Only root sees what the programs of other users have joined."
        return unknown(text, {}, phrases.remedy(trial_of(facts).frames))
    return ok("No program of this host is deaf to the group.")


def _asking_others(facts: Facts) -> Finding | None:
    """Judge programs of others: the memberships of this host may all name other sources than those that send."""
    arrived = [each for each in trial_of(facts).arrivals if each.asked]
    places = {each.interface for each in arrived}
    joined = [
        each
        for each in (() if isinstance(facts.memberships, Unread) else facts.memberships)
        if same(str(each.group), facts.target.group) and each.interface in places
    ]
    sources = {address_of(str(use.source)) for each in joined for use in each.included}
    senders = {address_of(each.sender) for each in arrived}
    if facts.receiver is not None or not sources or sources & senders or any(each.any_source for each in joined):
        return None
    names = phrases.named(sorted(map(str, sources)))
    evidence: dict[str, object] = {"requested sources": names, "from": phrases.named(sorted(map(str, senders)))}
    summary = f"The programs of this host that joined the group ask for {names} only, not for the sender."
    return problem(summary, evidence, ("Have the program name the source that sends, or none.",))


def describe(socket: UdpSocket) -> str:
    """Return the programs of a socket, or its user."""
    programs = ", ".join(f"{each.name} (process {each.pid})" for each in socket.processes)
    return programs or f"a program of user {socket.user_id}"


def _at_port(facts: Facts) -> list[UdpSocket]:
    sockets = () if isinstance(facts.sockets, Unread) else facts.sockets
    return [each for each in sockets if facts.target.port in (None, each.port)]


def _on_other_ports(facts: Facts) -> list[Member]:
    """Return the programs that joined the group on ports that nothing comes to, while nothing takes what comes."""
    wanted = received(facts) or sightings.wanted(facts)
    if facts.receiver is not None or not wanted or any(this_host.may_want(facts, each) for each in _at_port(facts)):
        return []
    busy = {each.port for each in sightings.frames(facts) or ()} | {facts.target.port, None}
    # Sockets that are bound to the group are among the members, whatever their port.
    bound = (each for each in facts.members if same(str(each.socket.address), facts.target.group) and each.memberships)
    return [each for each in (*facts.members_elsewhere, *bound) if each.socket.port not in busy]


def _deaf(facts: Facts) -> Iterator[tuple[UdpSocket, str, str]]:
    """Yield the sockets that can never receive the group, with the reason and the cure."""
    group = facts.target.group
    for member in facts.members:
        if facts.target.port not in (None, member.socket.port):
            continue
        memberships = [each for each in member.memberships if same(str(each.group), group)]
        reasons = [_deafness(facts, member, each) for each in memberships]
        if memberships and all(why for why, _ in reasons):
            yield member.socket, *reasons[0]
        elif not memberships and same(str(member.socket.address), group) and not member.is_open_to_all:
            yield member.socket, "it has not joined it, and IP_MULTICAST_ALL is 0", "Have the program join the group."
    joined = True if isinstance(facts.memberships, Unread) else this_host.was_joined(facts)
    for socket in _at_port(facts):
        if not joined and same(str(socket.address), group) and trial_of(facts).arrivals:
            why = "it is bound to it, and no program on this host has joined it"
            yield socket, why, "Have the program join the group; being bound to it is not enough."


def _deafness(facts: Facts, member: Member, membership: Membership) -> tuple[str, str]:
    """Return why a socket never receives what it has joined, and the cure; empty if it may."""
    if why := member.deafness(membership):
        step = f"Have the program bind to {membership.group} or to any address, and to no other interface."
        return f"it has joined it on {membership.interface}, and is {why}", step
    senders = {
        (each.sender, each.sender_port) for each in trial_of(facts).arrivals if same(each.group, facts.target.group)
    }
    if not senders:
        return ("", "")
    if member.peer:
        address, _, port = member.peer.rpartition(":")
        fits = any(same(sender, address.strip("[]")) and str(number) == port for sender, number in senders)
        step = "Have the program use a socket that is not connected to receive the group."
        from_ = phrases.named(f"{sender} port {number}" for sender, number in sorted(senders))
        return ("", "") if fits else (f"it is connected to {member.peer}, and the datagrams come from {from_}", step)
    addresses = {address_of(sender) for sender, _ in senders}
    sources = set(membership.sources)
    if membership.includes and not addresses & sources:
        text = f"it asks for {phrases.named(sorted(map(str, sources)))} only, and the datagrams come from others"
        return text, "Have the program name the source that sends, or none."
    if not membership.includes and sources and addresses <= sources:
        return "it blocks the sources that send", "Have the program unblock them."
    return ("", "")


def socket_filter(facts: Facts) -> Finding:
    """A filter on the socket, or a BPF program of its cgroup, drops the datagrams.

    After the firewall, and after the port was found, a datagram may still meet two filters: one that a program put on
    its own socket (`SO_ATTACH_FILTER`, `SO_ATTACH_BPF`), and a BPF program on the control group that the process runs
    in. The latter is what systemd makes of `IPAddressDeny=` and `IPAddressAllow=` in a unit, and what some container
    networks use. tcpdump shows the datagrams, the firewall counts nothing, other services receive. The kernel counts it
    in `Udp: InErrors` and as drops of the socket, like a full buffer. Such a program may also drop what the control
    group sends; then sending fails with `EPERM`.

    **How to see it:** drops of the socket grow while `RcvbufErrors` does not; the programs of control groups.

        ss -uanpm 'sport = :5000'
        nstat -az UdpInErrors UdpRcvbufErrors
        bpftool cgroup tree
        systemctl show UNIT -p IPAddressDeny -p IPAddressAllow

    **Cure:** allow the sender's address in the unit, or change the filter.

        systemctl set-property UNIT IPAddressAllow=10.1.0.2
    """
    known(facts.trial)
    trial = trial_of(facts)
    dropped = endings.lost_to(facts, "socket-filter")
    errors, full = counters.moved(facts, "Udp.InErrors") or 0, counters.moved(facts, "Udp.RcvbufErrors") or 0
    wrong = counters.moved(facts, "Udp.InCsumErrors") or 0
    by_policy = counters.dropped_by_ipsec(facts) or 0
    mine = (trial.socket_drops or 0) if errors > full + wrong + by_policy and not full else 0
    evidence: dict[str, object] = {"dropped by filters": dropped} if dropped else {}
    evidence |= {"drops of the doctor's socket": mine} if mine else {}
    if not received(facts) and (mine or dropped):
        summary = "A BPF program of this control group, or a filter of the kernel's security, drops the datagrams."
        steps = (
            "Look for it: `bpftool cgroup tree`; with systemd, `IPAddressDeny=` of the unit that this runs in.",
            "Allow the sender there, as with `systemctl set-property UNIT IPAddressAllow=ADDRESS`.",
        )
        return problem(summary, evidence, steps)
    if sent := endings.lost_to(facts, "socket-filter", outgoing=True):
        evidence["datagrams sent that it dropped"] = sent
        evidence |= {"programs that send": ", ".join(sending.programs(facts))} if sending.programs(facts) else {}
        summary = "A BPF program of the sender's control group drops what it sends to the group (EPERM)."
        steps = (
            "Look for it: `bpftool cgroup tree`; with systemd, `IPAddressDeny=` of the unit that sends.",
            f"Allow the group there, as with `systemctl set-property UNIT IPAddressAllow={facts.target.group}`.",
        )
        return (suspect if sending.others_arrive(facts) else problem)(summary, evidence, steps)
    for socket, lost in this_host.growing_drops(facts).items():
        told = any(each.socket.inode == socket.inode for each in facts.members)
        # Whether another user's socket has a filter is hidden; what else loses datagrams at a socket is counted.
        unexplained = errors - full - wrong - by_policy - (counters.moved(facts, "Udp.MemErrors") or 0)
        hidden = not told and this_host.may_want(facts, socket) and unexplained >= lost > background.STRAY
        if lost <= full or not (_is_filtered(facts, socket) or hidden):
            continue
        evidence[describe(socket)] = f"{lost} dropped"
        summary = (
            f"A filter on the socket of {describe(socket)} drops {phrases.counted(lost, 'datagram')} of the group."
        )
        # A filter that lets a part pass does what its program wants.
        everything = lost >= _MOST * max(1, received(facts)) and (told or same(str(socket.address), facts.target.group))
        return finding(
            "problem" if everything else "suspect", summary, evidence, ("Change the filter in that program.",)
        )
    return ok("No filter of a socket drops the datagrams.", evidence)


def _is_filtered(facts: Facts, socket: UdpSocket) -> bool:
    members = [each for each in facts.members if each.socket.inode == socket.inode]
    return this_host.may_want(facts, socket) and all(each.has_filter for each in members) and bool(members)


def privileged_port(facts: Facts) -> Finding:
    """The port is below 1024, where only privileged programs may listen.

    On Linux, binding to a port below `net.ipv4.ip_unprivileged_port_start` (1024) fails with `EACCES`, unless the
    program has CAP_NET_BIND_SERVICE. Root has it, except in a container or service that drops it. It has nothing to do
    with other programs on that port.

    **How to see it:** the limit.

        sysctl net.ipv4.ip_unprivileged_port_start

    **Cure:** give the program the capability, lower the limit, or take a port from 1024 on.

        setcap cap_net_bind_service+ep /path/to/program
        sysctl -w net.ipv4.ip_unprivileged_port_start=500
    """
    known(facts.trial)
    if not needs_privilege(facts):
        return ok("The port needs no privilege here.")
    limit = this_host.number(facts, "net.ipv4.ip_unprivileged_port_start")
    port = facts.target.port
    evidence: dict[str, object] = {"port": port, "net.ipv4.ip_unprivileged_port_start": limit, "error": "EACCES"}
    summary = (
        f"Only a privileged program may listen on port {port} (EACCES): it is below {limit or _UNPRIVILEGED_PORTS}."
    )
    steps = (
        "Run the program as root, or give it CAP_NET_BIND_SERVICE (`setcap cap_net_bind_service+ep PROGRAM`).",
        phrases.set_command("net.ipv4.ip_unprivileged_port_start", port),
    )
    return problem(summary, evidence, steps if facts.machine.system == "linux" else steps[:1])


def needs_privilege(facts: Facts) -> bool:
    """Return whether binding to the port failed because it is a privileged one."""
    limit = this_host.number(facts, "net.ipv4.ip_unprivileged_port_start")
    port = facts.target.port
    below = port is not None and port < (_UNPRIVILEGED_PORTS if limit is None else limit)
    # Root that has lost one capability has usually lost all.
    is_root = facts.machine.user_id == 0 and (facts.machine.may_capture or facts.machine.system != "linux")
    return below and not is_root and any(each.error == "EACCES" for each in trial_of(facts).joins)


def sandbox(facts: Facts) -> Finding:
    """A sandbox refuses what a receiver needs.

    Containers, Flatpak, snaps, browsers and hardened services run programs under a filter of system calls (seccomp) or
    a security module (AppArmor, SELinux). Such a filter may forbid to join a group, or to open a UDP socket at all, for
    root too, or one of IPv6 (`RestrictAddressFamilies=`). The program gets `EPERM`, `EACCES` or, for a family,
    `EAFNOSUPPORT` from a call that never fails that way otherwise.

    **How to see it:** the mode of seccomp, 2 for a filter, and the profile.

        grep Seccomp /proc/self/status; cat /proc/self/attr/current
        journalctl -k | grep -iE 'seccomp|apparmor|avc'

    **Cure:** allow it in the configuration of the sandbox: `SystemCallFilter=` of the unit, `--security-opt` of the
    container engine, the profile. Outside of the sandbox the same program works.
    """
    known(facts.trial)
    refused = refusals(facts)
    state = facts.sandbox
    evidence: dict[str, object] = {}
    if state is not None:
        evidence = {"seccomp filter": state.seccomp} | ({"profile": state.label} if state.label else {})
    if not refused:
        return ok("Nothing refuses what a receiver needs.", evidence)
    evidence["error"] = refused[0]
    confined = state is not None and (state.seccomp or bool(state.label))
    summary = f"The kernel refuses to join ({refused[0]}): a sandbox of this process forbids it."
    steps = ("Allow it in the sandbox: `SystemCallFilter=` of the unit, the engine's seccomp profile, or AppArmor.",)
    return problem(summary, evidence, steps) if confined else suspect(summary, evidence, steps)


def refusals(facts: Facts) -> list[str]:
    """Return the errors of the joins, if all failed for want of a permission that no port explains."""
    joins = trial_of(facts).joins
    forbidden = (*_FORBIDDEN, "EAFNOSUPPORT") if _has_family(facts) else _FORBIDDEN
    errors = [each.error for each in joins if each.error in forbidden]
    if len(errors) < len(joins) or needs_privilege(facts) or facts.machine.system != "linux":
        return []
    return [error for error in errors if error is not None]


def _has_family(facts: Facts) -> bool:
    """Return whether this kernel has the IP version of the group: it counts its packets."""
    return counters.moved(facts, "Ip.InReceives") is not None
