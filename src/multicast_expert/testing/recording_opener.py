"""Opens recordings for one test, and closes them after it. Opens files."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

from multicast_expert.core.addresses import MulticastAddress
from multicast_expert.core.endpoints import Endpoint
from multicast_expert.recording import RecordedReceiver, Recording


class RecordingOpener:
    """What the fixture `multicast_recording` returns: opens recordings whose paths count from the test's folder.

    All that it opened is closed after the test.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Path = folder
        """The folder of the test file."""
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.close()

    def __call__(self, path: str | PathLike[str], endpoints: Iterable[str | Endpoint] | str | None = None) -> Recording:
        """Return an open Recording, of these endpoints only if there are any. Raises as Recording does."""
        return self._opened.enter_context(Recording(self.folder / path, endpoints))

    def receiver(self, path: str | PathLike[str], mcast_ips: Iterable[MulticastAddress], port: int) -> RecordedReceiver:
        """Return an open RecordedReceiver, for code that takes an McastRxSocket. Raises as RecordedReceiver does."""
        return self._opened.enter_context(RecordedReceiver(self.folder / path, mcast_ips, port))
