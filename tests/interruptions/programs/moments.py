"""Every moment at which CPython may run a signal handler or another thread, one after the other.

CPython does so when a function begins, after a call of something that is no Python function, and where a loop turns
(`eval_frame_handle_pending` in Python/ceval.c); never between two other bytecodes. A trace function sees each of these
moments in the library's own code. So a test that takes them in turn is no matter of luck, as one with real signals is.
"""

import dis
import functools
import itertools
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

import multicast_expert

_LIBRARY = (str(Path(multicast_expert.__file__).parent), "selectors.py")
_CALLS = {"CALL", "CALL_FUNCTION_EX", "CALL_KW"}


class Moments:
    """A block in which `act` is called at some of the moments, counted from 1. What it raises, the library meets."""

    def __init__(self, at: Collection[int], act: Callable[[], object]) -> None:
        self._at = at
        self._act = act
        self._last = max(at)
        self.passed = 0
        """How many moments there were, up to the last at which it acts."""
        self.where: list[str] = []
        """Where those were at which it acted."""
        self._entered: dict[FrameType, int] = {}
        """The frames that have called a Python function, and by which bytecode they did last."""

    def __enter__(self) -> "Moments":
        sys.settrace(self._called)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.settrace(None)
        # They would keep alive what they hold.
        self._entered.clear()

    def _called(self, frame: FrameType, _event: str, _argument: object) -> Any:
        entered = self._entered
        caller = frame.f_back
        if caller is not None and caller.f_trace is not None:
            entered[caller] = caller.f_lasti
        operations = _operations(frame.f_code)
        if operations is None:
            return None
        calls, jumps = operations
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        self._moment(frame)
        last = -1

        def stepped(frame: FrameType, event: str, _argument: object) -> Any:
            nonlocal last
            if event == "opcode":
                before, last = last, frame.f_lasti
                if before in calls:
                    # Within the call, f_lasti is that of the bytecode or of the cache that follows it.
                    if not before <= entered.pop(frame, -1) < calls[before]:
                        self._moment(frame)
                elif before in jumps and last < before:
                    self._moment(frame)
            elif event == "return":
                entered.pop(frame, None)
            return stepped

        return stepped

    def _moment(self, frame: FrameType) -> None:
        self.passed += 1
        if self.passed == self._last:
            # To watch the others would take as long again.
            sys.settrace(None)
            self._entered.clear()
        if self.passed in self._at:
            self.where.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}")
            self._act()


@functools.cache
def _operations(code: CodeType) -> tuple[dict[int, int], set[int]] | None:
    """Return where code of the library calls, with the bytecode after that, and where it jumps backward; else None."""
    if not code.co_filename.startswith(_LIBRARY[0]) and not code.co_filename.endswith(_LIBRARY[1]):
        return None
    operations = [*dis.get_instructions(code)]
    calls = {each.offset: after.offset for each, after in itertools.pairwise(operations) if each.opname in _CALLS}
    jumps = {each.offset for each in operations if "JUMP_BACKWARD" in each.opname and "NO_INTERRUPT" not in each.opname}
    return calls, jumps


def each_moment(act: Callable[[], object]) -> Iterator[Moments]:
    """Yield a block for the first moment, for the second, and so on, until a block ends before its moment comes."""
    for at in itertools.count(1):
        moments = Moments((at,), act)
        yield moments
        if moments.passed < at:
            return
