"""Checks of ports, sockets and their buffers, and of checksums. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable

from multicast_expert.doctor import phrases
from multicast_expert.doctor.checks.program import needs_privilege
from multicast_expert.doctor.evidence import background, counters, sightings, this_host, whose_losses
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Buffer, Facts, Unread, known, same
from multicast_expert.doctor.path import endings
from multicast_expert.doctor.report import Finding, finding, ok, problem, suspect, unknown
from multicast_expert.system.listings import UdpSocket
from multicast_expert.wire.frames import HEADER_CHECKSUM
from multicast_expert.wire.tallies import Frames

_ENOUGH_BUFFER = 8 * 1024 * 1024


def port(facts: Facts) -> Finding:
    """The datagrams go to another port.

    A membership is for the group alone: the host takes all of it, and the kernel then looks for a socket with the
    datagram's destination port. Where there is none it throws the datagram away, counts it in `Udp: IgnoredMulti`, and
    sends no ICMP message, since groups never get any. Two streams of one group on two ports are a usual design, so
    one digit is enough to hear nothing.

    **How to see it:** the port is the last number of the destination.

        tcpdump -ni eth0 host 239.1.2.3
        nstat -az UdpIgnoredMulti Udp6IgnoredMulti

    **Cure:** listen on the port that the datagrams go to, or set the sender right.

        mcast recv 239.1.2.3:5001
    """
    target, names = facts.target, set(this_host.chosen_names(facts))
    seen = sightings.frames(facts)
    if target.port is None:
        return _port_to_name(facts, seen or ())
    if received(facts):
        return ok("The port is right.")
    if seen is None:
        return _port_by_counters(facts)
    mine = [each for each in (*seen, *(sightings.frames(facts, outgoing=True) or ())) if each.interface in names]
    if target.source is not None:
        mine = [each for each in mine if same(each.sender, target.source)]
    ports = sorted({each.port for each in mine if each.port is not None})
    evidence = {"asked for": target.port, "seen": ", ".join(map(str, ports)) or "none"}
    if not ports or target.port in ports:
        return ok("No datagram of the group went to another port.", evidence)
    evidence["from"] = phrases.named(sightings.senders(mine))
    plural = "s" if len(ports) > 1 else ""
    summary = f"The datagrams go to port{plural} {phrases.named(ports)}, not to {target.port}."
    step = f"Listen on that port, as in `mcast recv {phrases.endpoint(facts, port=ports[0])}`."
    return problem(summary, evidence, (step,))


def _port_to_name(facts: Facts, seen: Iterable[Frames]) -> Finding:
    """Name a port: a socket receives on one."""
    ports = sorted({each.port for each in seen if each.port is not None and same(each.group, facts.target.group)})
    came = f" Datagrams come in for {phrases.named(ports)}." if ports else ""
    example = phrases.endpoint(facts, port=ports[0] if ports else 5000)
    step = f"Name the port, as in `mcast doctor {example}`."
    return unknown(f"No port was named, so nothing can be received.{came}", {}, (step,))


def _port_by_counters(facts: Facts) -> Finding:
    """Judge without frames, by the datagrams that found no socket."""
    lost = background.beyond_usual(facts, counters.without_a_socket)
    why = phrases.reason(facts.trial, trial_of(facts).frames)
    if lost is None:
        return unknown(why[0], {}, why[1])
    # A single one may belong to another group that a program on this host has joined.
    if lost < 2 or trial_of(facts).arrivals:
        text = "Every datagram of a joined group found a socket."
        if counters.without_a_socket(facts):
            text = "No more datagrams were without a socket than before the join."
        return ok(text, {"without a socket": lost})
    if unclear := whose_losses.unclear(facts):
        return unknown(unclear, {"without a socket": lost}, why[1])
    if this_host.may_be_rewritten(facts):
        text = (
            "Datagrams of joined groups found no socket: they go to another port, or a filter of tc changes the port."
        )
        return unknown(text, {"without a socket": lost}, why[1])
    if facts.target.group_version == 6:
        text = "Datagrams of joined groups found no socket: they go to another port, or have no checksum."
        return unknown(text, {"without a socket": lost}, why[1])
    summary = (
        f"{phrases.counted(lost, 'datagram')} of joined groups found no socket: most likely they go to another port."
    )
    steps = ["Ask the sender for its port, or run this as root."]
    if isinstance(facts.firewall, Unread):
        steps.append("If that is the expected port, a rule of the firewall here may write another one.")
    return suspect(summary, {"without a socket": lost}, (*steps, *why[1]))


def port_conflict(facts: Facts) -> Finding:
    """Another program holds the port, or shares it in a way that takes datagrams away.

    Several programs may listen on one port if all of them set `SO_REUSEADDR` before they bind (on macOS and FreeBSD
    `SO_REUSEPORT`); each then gets every datagram of the group. If one does not, the others fail with `EADDRINUSE`. On
    Linux a program that sets only `SO_REUSEPORT` cannot share with one that sets only `SO_REUSEADDR`.

    Sharing has a price for unicast: a unicast datagram goes to one of the sockets only, to the one that was bound last.
    A receiver that is bound to any address (0.0.0.0) instead of the group therefore takes the unicast datagrams
    (replies, for example) of the others on its port. This library binds to the group.

    **How to see it:** all sockets on the port, with their programs (as root, those of other users too).

        ss -ulpn 'sport = :5000'
        lsof -nP -iUDP:5000

    **Cure:** stop the other program, have it set `SO_REUSEADDR`, or take another port. Bind receivers to the group.
    """
    refusals = [each for each in trial_of(facts).joins if each.error == "EADDRINUSE"]
    if not needs_privilege(facts) and facts.machine.system != "linux":
        # Windows: a program holds the port exclusively.
        refusals += [each for each in trial_of(facts).joins if each.error == "EACCES"]
    sockets = None if isinstance(facts.sockets, Unread) else _on_the_port(facts, facts.sockets)
    evidence: dict[str, object] = {}
    if sockets:
        evidence["sockets on the port"] = ", ".join(map(_describe, sockets))
    if refusals and not received(facts):
        who = phrases.named(map(_describe, sockets)) if sockets else "another program"
        summary = f"Port {facts.target.port} cannot be used ({refusals[0].error}): {who} holds it."
        step = "Stop that program, or have it set SO_REUSEADDR before it binds (`ss -ulpn` as root names it)."
        return problem(summary, evidence | {"error": refusals[0].error}, (step,))
    if sockets is None and isinstance(facts.trial, Unread):
        why = phrases.reason(facts.sockets)
        return unknown(why[0], evidence, why[1])
    greedy = [each for each in sockets or () if each.address.is_unspecified]
    if len(greedy) > 1 and received(facts):
        summary = f"{len(greedy)} sockets share the port for any address: only the last one gets unicast datagrams."
        step = "Bind receivers of groups to the group, so that they leave unicast datagrams to others."
        return suspect(summary, evidence, (step,))
    return ok("The port can be used.", evidence)


def _on_the_port(facts: Facts, sockets: Iterable[UdpSocket]) -> list[UdpSocket]:
    return [each for each in sockets if facts.target.port in (None, each.port)]


def _describe(socket: UdpSocket) -> str:
    programs = ", ".join(f"{each.name} (process {each.pid})" for each in socket.processes)
    return programs or f"a socket of user {socket.user_id} on {socket.address}"


def receive_buffer(facts: Facts) -> Finding:
    """Datagrams are lost because the receive buffer of a socket is full.

    The kernel keeps what a program has not read yet, up to the size of the socket's receive buffer, and throws away
    what comes then. A burst fills 208 KiB, the usual size, with about 90 large datagrams, which a gigabit link delivers
    in a millisecond. A program can ask for more (`SO_RCVBUF`), but gets at most `net.core.rmem_max` without a word
    about it. Lost datagrams are counted for each socket, and in `Udp: RcvbufErrors`.

    **How to see it:** the last column of the list, or `d` with ss; what is granted; the sum since boot.

        cat /proc/net/udp /proc/net/udp6
        ss -ulmn 'sport = :5000'
        nstat -az UdpRcvbufErrors Udp6RcvbufErrors

    **Cure:** let programs have more, and ask for it; and read faster (a thread that only reads, `recv_many`).

        sysctl -w net.core.rmem_max=8388608
        mcast recv --receive-buffer 8388608 239.1.2.3:5000
    """
    if isinstance(facts.trial, Unread) and facts.receiver is None:
        return unknown(facts.trial.reason)
    trial = trial_of(facts)
    errors = counters.moved(facts, "Udp.RcvbufErrors")
    buffer = facts.receiver.buffer if facts.receiver is not None and facts.receiver.buffer else trial.buffer
    evidence: dict[str, object] = {} if errors is None else {"lost by full buffers": errors}
    if buffer is not None:
        evidence |= {"buffer asked for": buffer.asked, "buffer granted": buffer.granted}
        evidence |= {} if not isinstance(buffer.maximum, int) else {"net.core.rmem_max": buffer.maximum}
    earlier = 0 if facts.receiver is None else facts.receiver.kernel_drops or 0
    ours = trial.socket_drops or earlier
    summary = f"The receive buffer overflowed: {phrases.counted(ours, 'datagram')} of the target lost."
    if ours and errors != 0:
        return problem(summary, evidence | {"lost": ours}, _enlarge(facts, buffer))
    if earlier and received(facts):
        return suspect(summary, evidence | {"lost before": earlier}, _enlarge(facts, buffer))
    losers = _losers(facts) if errors != 0 else {}
    if losers:
        evidence |= {_describe(each): f"{lost} lost" for each, lost in losers.items()}
        who = phrases.named(map(_describe, losers))
        summary = f"The receive buffer of {who} overflowed: {phrases.counted(sum(losers.values()), 'datagram')} lost."
        step = "Have that program read faster, or ask for a larger receive buffer (SO_RCVBUF)."
        return problem(summary, evidence, (step, *_enlarge(facts, buffer)[:-1]))
    if errors is None and trial.socket_drops is None:
        return unknown("This OS does not count what full buffers lost.", evidence)
    return ok("No receive buffer of the target overflowed.", evidence)


def _losers(facts: Facts) -> dict[UdpSocket, int]:
    """Return the other programs' sockets that may want the target and lost datagrams, and how many."""
    full, told = counters.moved(facts, "Udp.RcvbufErrors"), endings.by_socket(facts, "receive-buffer")
    return {
        each: lost
        for each, lost in this_host.growing_drops(facts).items()
        if this_host.may_want(facts, each) and (told[each.inode] or full is None or 2 * full >= lost)
    }


def _enlarge(facts: Facts, buffer: Buffer | None) -> tuple[str, ...]:
    """Return how to enlarge the buffer; the last line is about the receiver itself."""
    ask = f"Ask for a larger buffer, as in `mcast recv --receive-buffer {_ENOUGH_BUFFER} {phrases.endpoint(facts)}`."
    limit = None if buffer is None else buffer.maximum
    if facts.machine.system == "linux" and not (isinstance(limit, int) and limit >= _ENOUGH_BUFFER):
        return phrases.set_command("net.core.rmem_max", _ENOUGH_BUFFER), ask
    return (ask,)


def checksum(facts: Facts) -> Finding:
    """Datagrams have a wrong checksum, and the kernel throws them away.

    A wrong UDP checksum is noticed when the program reads, and counted in `Udp: InCsumErrors`; a wrong one of the IPv4
    header earlier, in `IpExt: InCsumErrors`. tcpdump shows the datagrams all the same. Bad cables cannot be the reason,
    since Ethernet has a checksum of its own. Software is: a sender that builds packets itself, a device that rewrites
    addresses without correcting the sum, or a virtual machine or container whose sender leaves the sum to a network
    card that never sees the packet (checksum offload).

    **How to see it:** with `-vv` tcpdump says `bad udp cksum`. On the sender's own host that is normal, since the card
    computes the sum later; look on the receiver.

        tcpdump -vvni eth0 host 239.1.2.3
        nstat -az UdpInCsumErrors IpExtInCsumErrors

    **Cure:** correct the sender. Where offload is to blame, switch it off on the sender's interface:

        ethtool -K eth0 tx off
    """
    known(facts.trial)
    wanted = sightings.wanted(facts)
    counted = _wrong_checksums(facts) if wanted is not None else background.beyond_usual(facts, _wrong_checksums)
    bad = sum(each.bad_checksums for each in wanted or ())
    header = sum(each.count for each in sightings.flawed(facts) if each.flaw == HEADER_CHECKSUM)
    evidence: dict[str, object] = {"packets with a wrong checksum": counted}
    if wanted is not None:
        evidence["frames of the target with a wrong one"] = bad + header
    step = "Correct the sender; if checksum offload is the reason, run `ethtool -K INTERFACE tx off` there."
    why = phrases.reason(trial_of(facts).frames)
    if counted and wanted is None and (unclear := whose_losses.unclear(facts)):
        return unknown(unclear, evidence, why[1])
    # Unicast may have wrong checksums, too, so frames decide.
    # IPv6 forbids to leave the checksum out, and the kernel does not count such datagrams.
    missing = bad and facts.target.group_version == 6 and not received(facts)
    if missing or (counted and (wanted is None or bad or header)) or (bad and counted is None and not received(facts)):
        summary = f"{phrases.counted(counted or bad, 'packet')} with a wrong checksum came in and were dropped."
        return finding("suspect" if received(facts) else "problem", summary, evidence, (step,))
    if counted is None and wanted is None:
        return finding("ok" if received(facts) else "unknown", why[0], {}, why[1])
    headers = trial_of(facts).counters.get("IpExt.InCsumErrors", 0)
    if wanted is None and facts.target.group_version == 4 and counters.only_loss(facts, headers):
        evidence = {"packets with a wrong checksum of the IPv4 header": headers}
        summary = f"{phrases.counted(headers, 'packet')} with a wrong checksum of the header came, and no datagram."
        return suspect(summary, evidence, (step, *why[1]))
    return ok("No datagram of the target had a wrong checksum.", evidence)


def _wrong_checksums(facts: Facts) -> int | None:
    """Return how many packets of the IP version had a wrong checksum, of UDP or of the IPv4 header."""
    header = 0 if facts.target.group_version == 6 else trial_of(facts).counters.get("IpExt.InCsumErrors", 0)
    udp = counters.moved(facts, "Udp.InCsumErrors")
    return None if udp is None else udp + header
