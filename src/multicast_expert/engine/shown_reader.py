"""ShownReader: a Reader for selectors of the user's own. Touches no OS.

What was taken from the OS and not handed out makes no socket readable, so a descriptor of its own shows it. An
interrupt meanwhile puts back what was about to be handed out: no call stands between a receive and its `try`.
"""

from __future__ import annotations

from collections.abc import Callable

from multicast_expert.core.datagram import MAX_DATAGRAM, Datagram
from multicast_expert.core.datagram_buffer import Rows
from multicast_expert.engine.reader import MSG_PEEK, Reader


class ShownReader(Reader):
    """Goes on where another Reader of the same source is; calls `show` after each change of what is left."""

    def __init__(self, before: Reader, show: Callable[[], None]) -> None:
        super().__init__(before._source, before.backlog)
        self.cut: int = before.cut
        self.cut_bytes: int = before.cut_bytes
        self._show = show

    def take_one(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> Datagram | None:
        """See `Reader.take_one`."""
        datagram = super().take_one(bufsize, flags)
        try:
            self._show()
        except BaseException:
            self._put_back(datagram, flags)
            raise
        return datagram

    def wait_for_one(self, timeout: float | None, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> Datagram | None:
        """See `Reader.wait_for_one`."""
        datagram = super().wait_for_one(timeout, bufsize, flags)
        try:
            self._show()
        except BaseException:
            self._put_back(datagram, flags)
            raise
        return datagram

    def take_into(self, rows: Rows) -> int:
        """See `Reader.take_into`."""
        try:
            return super().take_into(rows)
        finally:
            self._show()

    def _put_back(self, datagram: Datagram | None, flags: int) -> None:
        if datagram is not None and not flags & MSG_PEEK:
            backlog = self.backlog
            backlog += (datagram,)

    def take(self, limit: int) -> list[Datagram]:
        """See `Reader.take`."""
        datagrams = super().take(limit)
        try:
            self._show()
        except BaseException:
            backlog = self.backlog
            backlog += datagrams[::-1]
            raise
        return datagrams
