"""What `mcast ping` shows while it runs and at its end: a line for each query, the table of all pairs, the verdict."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from time import monotonic
from typing import Any

from multicast_expert.cli import terminal
from multicast_expert.cli.interruption import STATUS
from multicast_expert.cli.render.ping import (
    answer_object,
    finding_lines,
    late_line,
    matrix_lines,
    pair_lines,
    query_line,
    summary_lines,
    summary_object,
)
from multicast_expert.cli.render.text import Line
from multicast_expert.core.addresses import IPAddress
from multicast_expert.ping.client import Pinging, pairs_of, verdict_of
from multicast_expert.ping.conversation import Conversation
from multicast_expert.ping.measuring import result_of
from multicast_expert.ping.queries import Answer
from multicast_expert.ping.verdict import Finding, status
from multicast_expert.ping.wish import Wish

HERE = "this host"
_LOOK = 0.25
"""Seconds, at most, until a signal for a summary is noticed."""
_PATIENCE = 0.5
"""Seconds after which the line of a query is shown although an answer is missing."""


class Run:
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

    def _tell(self, host: IPAddress, what: str, text: str) -> None:
        """Write a message about a host, unless it is the last one that was written."""
        if self._told.get(host) != what:
            self._told[host] = what
            self._progress.show("")
            terminal.tell(f"mcast: {text}")

    def _show(self, answers: Sequence[Answer]) -> None:
        pinging, now = self._pinging, monotonic()
        for host, failure in pinging.pinger.failures.items():
            self._tell(host, failure, f"{self._names[host]}: {failure}")
        for host, sender in pinging.pinger.other_senders.items():
            self._tell(host, sender, f"answers for {self._names[host]} come from {sender} and are not counted")
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
            self._progress.show("")
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
        line = f"{seconds_text} s, multicast heard between {heard} of {len(pairs)} pairs"
        if self._is_matrix and not self.quiet and not self.as_json:
            self._progress.show_all([*self._matrix(sys.stderr), Line(line)])
        else:
            self._progress.show(line)

    def _matrix(self, stream: Any) -> list[Line]:
        pinging, names = self._pinging, self._names
        known = [names[None], *(names[each] for each in pinging.hosts)]
        return list(matrix_lines(known, pairs_of(pinging, names), terminal.size(stream)[0]))

    def _summary(self, findings: Sequence[Finding], outcome: int) -> None:
        pinging, names = self._pinging, self._names
        pairs = pairs_of(pinging, names)
        if self.as_json:
            known = {names[each.host]: each for each in pinging.conversations}
            terminal.write_json(summary_object(known, pairs, findings, outcome))
            return
        lines = []
        if self._is_matrix:
            lines += self._matrix(sys.stdout)
            lines += [] if self.quiet else list(pair_lines(pairs))
        else:
            for each in pinging.conversations:
                lines += list(summary_lines(names[each.host], each, result_of(each)))
        verdict = [line for each in findings for line in finding_lines(each)]
        terminal.show_lines([*lines, *verdict], sys.stdout)
        terminal.flush()
