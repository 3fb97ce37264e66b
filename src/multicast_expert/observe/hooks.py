"""Runs a command of the user's when hosts join or leave: without a shell, and only a few at once."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from multicast_expert.observe.messages import Happening

AT_ONCE = 8
"""How many commands run at the same time."""
WAITING = 256
"""How many events wait for their command; for any further one none is run."""
_WHEN = {"join": "on join", "leave": "on leave", "timeout": "on leave"}


class _Run(NamedTuple):
    words: list[str]
    environment: Mapping[str, str]


class Hooks:
    """The commands for joins and leaves, as one text each that is split like a shell would. Raises ValueError for it.

    The environment of a command has MCAST_EVENT (join, leave or timeout), MCAST_GROUP, MCAST_HOST, MCAST_INTERFACE, and
    MCAST_SOURCE: the sources that a joining host receives from, with blanks between them, empty for all sources.
    Its output goes to our standard error. Events run their commands in their order, but not one after the other.
    """

    def __init__(self, on_join: str | None = None, on_leave: str | None = None) -> None:
        given = {"on join": on_join, "on leave": on_leave}
        self._words = {when: shlex.split(text) for when, text in given.items() if text}
        for when, words in self._words.items():
            if not words:
                raise ValueError(f"the command {when} is empty")
        self._waiting: deque[_Run] = deque()
        self._running: list[tuple[_Run, subprocess.Popen[bytes]]] = []
        self.skipped: int = 0
        """For how many events no command was run, because too many waited."""

    @property
    def programs(self) -> list[str]:
        """The programs that the commands name."""
        return [words[0] for words in self._words.values()]

    def take(self, happening: Happening) -> None:
        """Have the command of an event run, if it has one."""
        event = happening.event
        words = self._words.get(_WHEN.get(event.kind, ""))
        if words is None:
            return
        if len(self._waiting) >= WAITING:
            self.skipped += 1
            return
        environment = {
            "MCAST_EVENT": event.kind,
            "MCAST_GROUP": event.group or "",
            "MCAST_HOST": event.host,
            "MCAST_INTERFACE": happening.interface,
            "MCAST_SOURCE": " ".join(event.sources if event.kind == "join" and event.includes else ()),
        }
        self._waiting.append(_Run(words, environment))

    @property
    def busy(self) -> bool:
        """Whether commands run or wait."""
        return bool(self._running or self._waiting)

    def step(self) -> list[str]:
        """Start the commands that there is room for; return in words what failed since the last call."""
        failures, running = [], []
        for run, process in self._running:
            status = process.poll()
            if status is None:
                running.append((run, process))
            elif status:
                failures.append(
                    _failure(run, f"ended with status {status}" if status > 0 else f"died of signal {-status}")
                )
        self._running = running
        while self._waiting and len(self._running) < AT_ONCE:
            run = self._waiting.popleft()
            try:
                process = subprocess.Popen(
                    run.words, env={**os.environ, **run.environment}, stdin=subprocess.DEVNULL, stdout=2
                )
            except OSError as error:
                failures.append(_failure(run, error.strerror or str(error)))
            else:
                self._running.append((run, process))
        return failures


def _failure(run: _Run, what: str) -> str:
    told = run.environment
    return f"{shlex.join(run.words)}: {what} ({told['MCAST_EVENT']} of {told['MCAST_HOST']}, {told['MCAST_GROUP']})"
