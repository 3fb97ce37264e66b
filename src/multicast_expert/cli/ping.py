"""`mcast ping`: unicast and multicast beside each other, to one host or between many, and what that means."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import Annotated, Any

from multicast_expert.cli import terminal
from multicast_expert.cli.interruption import STATUS, end_with_reader, until_interrupted
from multicast_expert.cli.parameters import JsonOption, Parameter, UsageError, command, seconds, whole
from multicast_expert.cli.render.ping import (
    answer_object,
    finding_line,
    late_line,
    matrix_lines,
    pair_lines,
    query_line,
    summary_lines,
    summary_object,
)
from multicast_expert.cli.render.text import Line
from multicast_expert.core.addresses import IPAddress, parse_group
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.ping.client import Pinging, pairs_of, resolve, verdict_of, wish_for
from multicast_expert.ping.conversation import Answer, Conversation, Wish
from multicast_expert.ping.measuring import result_of
from multicast_expert.ping.sweep import sweep
from multicast_expert.ping.verdict import Finding, status

HERE = "this host"
_LOOK = 0.25
"""Seconds, at most, until a signal for a summary is noticed."""
_PATIENCE = 0.5
"""Seconds after which the line of a query is shown although an answer is missing."""
_FASTEST = 0.001
_FLOOD = 0.01
_LARGEST = 65_000
_SWEEP_FIRST = 3
"""Queries before the first size, so that the tree is set up."""


def _interval(text: str) -> float:
    value = seconds(text)
    if value < _FASTEST:
        raise ValueError(f"{text!r} is less than {_FASTEST} seconds.")
    return value


@command(
    """
    HOST runs `mcast pong`, or omping or ssmpingd. Each query gets two answers, by unicast and by multicast, and a line
    shows both. At the end come the numbers for each way, and the verdict in words. `mcast pong` also pings this host,
    which shows the other direction. With several hosts all pairs are measured; the same list, with the own address in
    it, may be given on every host.

    The time until the first multicast answer, in which a network sets up its tree, is shown and is no loss. Ctrl-\\\\
    shows the summary so far. Exit status: 0 all were heard, 1 some were lost, 2 usage, 3 nothing could be told.
    """,
    ("mcast ping 10.0.0.2 -c 5", "Five queries"),
    ("mcast ping 10.0.0.2 239.1.2.3 --for 600 -q", "One group, for ten minutes: long enough for switches to forget"),
    ("mcast ping 10.0.0.2 10.0.0.3 10.0.0.4 -c 10", "All pairs of these hosts, as a table"),
)
def run(
    texts: Annotated[Sequence[str], Parameter("HOST...", "Names or addresses, and at most one group.")],
    count: Annotated[int | None, Parameter("-c, --count N", "Stop after N queries to each host.", whole(1))] = None,
    interval: Annotated[
        float | None, Parameter("-i, --interval SECONDS", "Between two queries (default 1).", _interval)
    ] = None,
    iface: Annotated[str | None, Parameter("-I, --interface IFACE", "Use only it.", values="interface")] = None,
    ssm: Annotated[bool, Parameter("--ssm", "Receive from the host only; usual without a group.")] = False,
    asm: Annotated[bool, Parameter("--asm", "Receive the group from any source.")] = False,
    size: Annotated[int, Parameter("-s, --size N", "Bytes of each answer, at least.", whole(0, _LARGEST))] = 0,
    ttl: Annotated[int | None, Parameter("--ttl N", "Hops that this host's datagrams may go.", whole(1, 255))] = None,
    only4: Annotated[bool, Parameter("-4, --ipv4", "IPv4 addresses of names.")] = False,
    only6: Annotated[bool, Parameter("-6, --ipv6", "IPv6 addresses of names.")] = False,
    flood: Annotated[bool, Parameter("-f, --flood", "As fast as answers come; implies -q.")] = False,
    quiet: Annotated[bool, Parameter("-q, --quiet", "Show the summary only.")] = False,
    stamped: Annotated[bool, Parameter("-D", "Begin each line with the time.")] = False,
    sweeps: Annotated[bool, Parameter("--sweep", "Try sizes and rates with one host.")] = False,
    duration: Annotated[float | None, Parameter("--for SECONDS", "Stop after so long.", seconds)] = None,
    patience: Annotated[
        float | None, Parameter("-W SECONDS", "Give a host up that has not answered for so long (default 5).", seconds)
    ] = None,
    doctor: Annotated[
        bool,
        Parameter("--doctor/--no-doctor", "Whether the doctor looks here for what is wrong; it does."),
    ] = True,
    as_json: JsonOption = False,
) -> int:
    """Return 0 all heard, 1 some lost, 3 nothing could be told, 130 if Ctrl-C ended it before anything came."""
    if (ssm and asm) or (only4 and only6):
        raise UsageError("--ssm and --asm, and -4 and -6, exclude each other.")
    hosts, group = _split(texts)
    if sweeps and (len(hosts) > 1 or as_json or count is not None or flood or size):
        raise UsageError("--sweep takes one host, and neither -c, -f, -s nor --json.")
    version = 4 if only4 else 6 if only6 else None
    try:
        names = asyncio.run(_resolved(hosts, version))
    except MulticastExpertError as error:
        return _told_nothing(error)
    family = next(iter(names)).version
    try:
        wish = wish_for(family, group, True if ssm else False if asm else None)
    except MulticastExpertError as error:
        raise UsageError(str(error)) from None
    if sweeps:
        wish = replace(wish, interval=0.1, count=_SWEEP_FIRST)
    else:
        wish = replace(wish, interval=interval or (_FLOOD if flood else 1.0), count=count, size=size, flood=flood)
    try:
        if sweeps:
            (name,) = names.values()
            return asyncio.run(_sweep(Pinging(names, wish, iface=iface, ttl=ttl, measures=False), name))
        work = _Work(names, wish, iface, ttl, 5.0 if patience is None else patience, duration)
    except MulticastExpertError as error:
        return _told_nothing(error)
    work.asks_doctor = doctor
    work.quiet, work.stamped, work.as_json = quiet or flood, stamped, as_json
    end_with_reader()
    interrupted = until_interrupted(lambda: asyncio.run(work.run()))
    if interrupted:
        terminal.end_line()
    return work.finish(interrupted)


def _told_nothing(error: MulticastExpertError) -> int:
    terminal.complain(error)
    return 3


async def _sweep(pinging: Pinging, name: str) -> int:
    """Show what came of each size and rate; return the exit status."""
    found: list[Finding] = []
    tried = 0
    async with pinging:
        async for what, trial in sweep(pinging, found):
            tried += 1
            text = f"unicast {trial.unicast} of {trial.sent}, multicast {trial.multicast} of {trial.sent}"
            terminal.show_lines([Line(f"{name}: {what}: ", (text, "" if trial.multicast else "red"))], sys.stdout)
            terminal.flush()
    if not tried:
        found = verdict_of(pinging, {None: HERE, **dict.fromkeys(pinging.hosts, name)})
    good = Finding("works", "all sizes and rates arrive by multicast", is_bad=False)
    terminal.show_lines(map(finding_line, found or [good]), sys.stdout)
    return (1 if found else 0) if tried else 3


def _split(texts: Sequence[str]) -> tuple[list[str], str | None]:
    """Return the hosts, and the group if there is one."""
    groups = []
    for text in texts:
        for version in (4, 6):
            try:
                groups.append((text, str(parse_group(text, version))))
            except MulticastExpertError:
                continue
    hosts = [text for text in dict.fromkeys(texts) if text not in dict(groups)]
    if len(groups) > 1 or not hosts:
        raise UsageError("Name one host or more, and at most one group.")
    return hosts, groups[0][1] if groups else None


async def _resolved(hosts: Sequence[str], version: int | None) -> dict[IPAddress, str]:
    """Return the hosts' addresses with the names to show; UsageError if they differ in their version of IP."""
    names: dict[IPAddress, str] = {}
    for host in hosts:
        first, *others = await resolve(host, version)
        if others:
            terminal.tell(f"mcast: {host} has {len(others) + 1} addresses; {first} is pinged")
        names.setdefault(first, host)
        known = next(iter(names)).version
        if first.version != known:
            raise UsageError(f"{host} is IPv{first.version}, and the first host IPv{known}: ping them apart.")
    return names


class _Work:
    """One run of the command: what it pings, and what it has shown."""

    quiet = stamped = as_json = asks_doctor = False

    def __init__(
        self,
        names: dict[IPAddress, str],
        wish: Wish,
        iface: str | None,
        ttl: int | None,
        patience: float,
        duration: float | None,
    ) -> None:
        self._pinging = Pinging(names, wish, iface=iface, ttl=ttl, patience=patience)
        own = [name for address, name in names.items() if address not in self._pinging.hosts]
        self._names: dict[IPAddress | None, str] = {None: own[0] if own else HERE}
        for address, name in names.items():
            self._names[address] = name
        self._wish, self._duration = wish, duration
        self._began = monotonic()
        self._is_matrix = len(self._pinging.hosts) > 1
        self._pending: dict[tuple[IPAddress, int], tuple[float, list[Answer]]] = {}
        self._shown: dict[IPAddress, int] = {}
        self._told: dict[IPAddress, str] = {}
        self._progress_at = 0.0
        self._causes: list[Finding] = []
        self._wants_summary = False
        self._progress = terminal.Progress()

    async def run(self) -> None:
        """Ping until all is done."""
        quit_signal: Any = getattr(signal, "SIGQUIT", None)  # Windows has none
        before = signal.signal(quit_signal, self._ask_summary) if quit_signal is not None else None
        try:
            async with self._pinging as pinging:
                self._began = monotonic()
                while not pinging.is_over:
                    heard = await pinging.step(monotonic() + _LOOK)
                    self._show([each.answer for each in heard if each.answer is not None])
                    if self._duration is not None and monotonic() >= self._began + self._duration:
                        self._duration = None
                        pinging.stop()
                if self.asks_doctor:
                    self._progress.show("asking the doctor on this host")
                    self._causes = await pinging.consult_doctor()
        finally:
            if quit_signal is not None:
                signal.signal(quit_signal, before)

    def finish(self, interrupted: bool) -> int:
        """Show the summary; return the exit status."""
        self._progress.show("")
        self._flush_pending(float("inf"))
        findings, pairs = [*verdict_of(self._pinging, self._names), *self._causes], pairs_of(self._pinging, self._names)
        outcome = status(findings, pairs)
        self._summary(findings, outcome)
        return STATUS if interrupted and outcome == 3 else outcome

    def _ask_summary(self, *_: object) -> None:
        self._wants_summary = True

    def _show(self, answers: Sequence[Answer]) -> None:
        pinging, now = self._pinging, monotonic()
        for host, failure in pinging.pinger.failures.items():
            if self._told.get(host) != failure:
                self._told[host] = failure
                terminal.tell(f"mcast: {self._names[host]}: {failure}")
        for host, sender in pinging.pinger.other_senders.items():
            if self._told.get(host) != sender:
                self._told[host] = sender
                terminal.tell(f"mcast: answers for {self._names[host]} come from {sender} and are not counted")
        by_text = {str(each.host): each for each in pinging.conversations}
        if not self.quiet and not self._is_matrix:
            for each in pinging.conversations:
                for sequence in range(self._shown.get(each.host, 0) + 1, each.sequence + 1):
                    self._pending[each.host, sequence] = now, []
                self._shown[each.host] = each.sequence
        for answer in answers:
            if self.as_json and not self.quiet:
                terminal.write_json(answer_object(answer))
            elif not self.quiet and not self._is_matrix:
                self._take(by_text[answer.host], answer)
        self._flush_pending(now)
        if self._wants_summary:
            self._wants_summary = False
            findings = verdict_of(pinging, self._names)
            self._summary(findings, status(findings, pairs_of(pinging, self._names)))
        self._show_progress(now)
        terminal.flush()

    def _take(self, conversation: Conversation, answer: Answer) -> None:
        known = self._pending.get((conversation.host, answer.sequence))
        name = self._names[conversation.host]
        if known is None or answer.is_duplicate:
            terminal.show_lines([late_line(name, answer, self._head(answer))], sys.stdout)
            return
        known[1].append(answer)
        if len({each.is_multicast for each in known[1]}) == 2:
            self._end_query(conversation.host, answer.sequence)

    def _flush_pending(self, now: float) -> None:
        """Show the queries to which nothing more is expected."""
        late = [key for key, (since, _) in self._pending.items() if now > since + _PATIENCE]
        for host, sequence in late:
            self._end_query(host, sequence)

    def _end_query(self, host: IPAddress, sequence: int) -> None:
        _, answers = self._pending.pop((host, sequence))
        conversation = next(each for each in self._pinging.conversations if each.host == host)
        if not self.as_json and (answers or conversation.state != "asking"):
            head = self._head(answers[0]) if answers else ""
            terminal.show_lines([query_line(self._names[host], sequence, answers, head)], sys.stdout)

    def _head(self, answer: Answer) -> str:
        return f"[{answer.stamp_ns / 1e9:.6f}] " if self.stamped else ""

    def _show_progress(self, now: float) -> None:
        if now < self._progress_at or not (self.quiet or self._is_matrix or self._duration is not None):
            return
        self._progress_at = now + 1.0
        pairs = pairs_of(self._pinging, self._names)
        heard = sum(each.result.multicast > 0 for each in pairs)
        seconds_text = f"{now - self._began:,.0f}"
        if self._duration is not None:
            done = min(1.0, (now - self._began) / max(self._duration, 0.001))
            seconds_text = f"[{'#' * int(done * 30):.<30}] {seconds_text} of {self._duration:,.0f}"
        self._progress.show(f"{seconds_text} s, multicast heard between {heard} of {len(pairs)} pairs")

    def _summary(self, findings: Sequence[Finding], outcome: int) -> None:
        pinging, names = self._pinging, self._names
        pairs = pairs_of(pinging, names)
        if self.as_json:
            known = {names[each.host]: each for each in pinging.conversations}
            terminal.write_json(summary_object(known, pairs, findings, outcome))
            return
        lines = []
        if self._is_matrix:
            shown = [names[each] for each in pinging.hosts]
            lines += list(matrix_lines([names[None], *shown], pairs))
            lines += [] if self.quiet else list(pair_lines(pairs))
        else:
            for each in pinging.conversations:
                lines += list(summary_lines(names[each.host], each, result_of(each)))
        terminal.show_lines([*lines, *map(finding_line, findings)], sys.stdout)
        terminal.flush()
