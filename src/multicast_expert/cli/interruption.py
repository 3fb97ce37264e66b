"""Ctrl-C, SIGTERM and SIGHUP in a command that does something at its end, and the end of the output's reader.

Elsewhere they end the process at once, with status 130, once Python has started (see `__main__`).
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# A terminal or connection that goes away sends SIGHUP; Windows has none.
SIGNALS = tuple(each for each in signal.Signals if each.name in ("SIGINT", "SIGTERM", "SIGHUP"))
STATUS = 130
# Seconds until an interruption that Python dropped is repeated, by the timer of POSIX that sends SIGALRM.
AGAIN = 0.01
ITIMER_REAL = 0


class Held:
    """While it is entered, an interruption waits until it is left. It does not nest."""

    def __init__(self) -> None:
        self._is_entered = self._waits = False

    def __enter__(self) -> None:
        self._is_entered = True

    def __exit__(self, *_: object) -> None:
        self._is_entered = False
        if self._waits:
            self._waits = False
            raise KeyboardInterrupt

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt, now or when it is left."""
        if self._is_entered:
            self._waits = True
        else:
            raise KeyboardInterrupt


held: Held = Held()


def until_interrupted(work: Callable[[], None]) -> bool:
    """Do the work; return whether one of SIGNALS ended it, as KeyboardInterrupt. A second one ends the process."""
    before = _handlers()

    def interrupt(*_: Any) -> None:
        _set(dict.fromkeys(before, _leave))
        held.interrupt()

    def repeat(dropped: Any) -> None:
        # Python drops exceptions of finalizers and callbacks; such a moment must not swallow Ctrl-C.
        if dropped.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(dropped)
        elif timer := getattr(signal, "setitimer", None):
            signal.signal(signal.Signals["SIGALRM"], interrupt)
            timer(ITIMER_REAL, AGAIN)
        else:
            _leave()

    hook, sys.unraisablehook = sys.unraisablehook, repeat
    try:
        try:
            _set(dict.fromkeys(before, interrupt))
            work()
        finally:
            _set(before)
    except KeyboardInterrupt:
        return True
    finally:
        sys.unraisablehook = hook
    return False


@contextmanager
def stopped_by_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Record the first of SIGNALS inside the block, for the yielded function; the next one interrupts."""
    noted = False

    def note(*_: Any) -> None:
        nonlocal noted
        if noted:
            raise KeyboardInterrupt
        noted = True

    # A shell ignores Ctrl-C for programs in the background; and only the main thread may set handlers.
    watched = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    handlers: dict[signal.Signals, Any] = {}
    with suppress(ValueError):
        handlers = {each: signal.signal(each, note) for each in watched}
    try:
        yield lambda: noted
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def end_with_reader() -> None:
    """End the process, without a word, as soon as nothing can read its standard output any more."""
    with suppress(AttributeError, OSError):  # no `poll`, or no descriptor
        watched = getattr(select, "poll")()  # noqa: B009 - Windows has none
        watched.register(sys.stdout.fileno(), 0)
        threading.Thread(target=_wait_for_end, args=(watched,), daemon=True).start()


def _wait_for_end(watched: Any) -> None:
    watched.poll()
    os._exit(0)


def _leave(*_: Any) -> None:
    os._exit(STATUS)


def _handlers() -> dict[signal.Signals, Any]:
    """Return the handlers of now; none where the shell has the process ignore the signal, or in another thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {each: signal.getsignal(each) for each in SIGNALS}
    return {each: handler for each, handler in found.items() if handler is not signal.SIG_IGN}


def _set(handlers: dict[signal.Signals, Any]) -> None:
    for each, handler in handlers.items():
        signal.signal(each, handler)
