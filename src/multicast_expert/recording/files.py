"""Writes the blocks of a recording to its files, in a thread of its own. Opens and deletes files.

What is written ends with a whole block, whatever happens: a block that a full disk cuts is taken back. A file is never
rewritten, so after SIGKILL all of it can be read but, perhaps, its last block.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import stat
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from queue import LifoQueue, SimpleQueue
from typing import Any, NamedTuple

from multicast_expert.wire.pcapng import PACKET

CHUNK = 1 << 20
"""Bytes that are written together."""
CHUNKS = 32
"""How many of them may wait for a slow disk, before datagrams wait in the receive buffers."""
_LOOK_EVERY = 1.0
"""Seconds between two looks at the free space."""


class Limits(NamedTuple):
    """How a recording is divided into files, and how much of the disk it leaves free."""

    every: float | None = None
    """Seconds after which the next file begins."""
    size: int | None = None
    """Bytes that a file has at most."""
    keep: int | None = None
    """How many files stay; the oldest is deleted."""
    spare: int = 0
    """Bytes that stay free on the disk."""

    @property
    def is_divided(self) -> bool:
        """Whether there may be several files."""
        return self.every is not None or self.size is not None


class Files:
    """The files of a recording, and the thread that writes them. Raises OSError if the first cannot be opened.

    path: the file, or the name that those of several begin with; None: standard output, as it was opened.

    `take` and `give` may be called by one thread. An error of the disk ends the writing and is kept in `error`.
    """

    def __init__(self, path: Path | None, limits: Limits) -> None:
        self._path, self._limits = path, limits
        self.names: list[Path] = []
        """The files that are there, the newest last."""
        self.begun: int = 0
        """How many were begun."""
        self.bytes: int = 0
        """How much was written, to all of them."""
        self.unwritten: int = 0
        """How many packets were given that are in none of them, because of the error."""
        self.error: OSError | None = None
        self._looked = 0.0
        # The last one that was written comes first: it is in the caches, and most of the others are never touched.
        self._free: LifoQueue[bytearray] = LifoQueue()
        for _ in range(CHUNKS):
            self._free.put(bytearray(CHUNK))
        self._filled: SimpleQueue[tuple[bytearray, int] | bool] = SimpleQueue()
        # Behind what takes time: the head of the file follows at once.
        self._descriptor = self._open()
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def take(self) -> bytearray:
        """Return an empty chunk, when there is one."""
        return self._free.get()

    def give(self, chunk: bytearray, size: int) -> None:
        """Write what a chunk holds, its first `size` bytes, which are whole blocks."""
        self._filled.put((chunk, size))

    def begin_next(self) -> None:
        """Let what is given from now on go to the next file."""
        self._filled.put(True)

    def close(self) -> None:
        """Write what was given, and close the file."""
        self._filled.put(False)
        self._thread.join()

    def _run(self) -> None:
        try:
            while (work := self._filled.get()) is not False:
                if work is True:
                    self._next()
                else:
                    chunk, size = work
                    self._write(memoryview(chunk)[:size])
                    self._free.put(chunk)
        finally:
            with suppress(OSError):
                os.close(self._descriptor)

    def _write(self, data: memoryview) -> None:
        if self.error is not None:
            self.unwritten += count_packets(data)
            return
        written = 0
        try:
            self._look()
            while written < len(data):
                try:
                    written += os.write(self._descriptor, data[written:])
                except BlockingIOError:
                    # Standard output that another program has set to non-blocking.
                    select.select([], [self._descriptor], [])
            self.bytes += written
        except OSError as error:
            whole = whole_blocks(data[:written])
            self.unwritten += count_packets(data[whole:])
            self.bytes += whole
            with suppress(OSError):
                os.ftruncate(self._descriptor, os.lseek(self._descriptor, whole - written, os.SEEK_CUR))
            self._fail(error)

    def _look(self) -> None:
        """Raise OSError when the disk has less free space than is to stay."""
        now = time.monotonic()
        if self._limits.spare and self._is_on_disk and now >= self._looked + _LOOK_EVERY:
            self._looked = now
            # The disk of the file itself, which a link may lead to.
            place = self._descriptor if hasattr(os, "statvfs") or self._path is None else self._path.parent
            free = shutil.disk_usage(place).free
            if free < self._limits.spare:
                left, wanted = f"{free >> 10:,} KiB", f"{self._limits.spare >> 10:,} KiB"
                raise OSError(f"the disk has {left} left, less than the {wanted} that stay free")

    def _next(self) -> None:
        if self.error is None:
            try:
                before, self._descriptor = self._descriptor, self._open()
                os.close(before)
                while self._limits.keep is not None and len(self.names) > self._limits.keep:
                    with suppress(FileNotFoundError):
                        self.names[0].unlink()
                    del self.names[0]
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Keep the error; a newest file of several that holds nothing goes, because no program opens it."""
        self.error = error
        if len(self.names) > 1 and not os.fstat(self._descriptor).st_size:
            with suppress(OSError):
                self.names[-1].unlink()
                del self.names[-1]
                self.begun -= 1

    def _open(self) -> int:
        if self._path is None:
            descriptor = os.dup(1)
        else:
            name = self._name(self._path)
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            try:
                _empty(descriptor)
            except OSError:
                os.close(descriptor)
                raise
            self.names.append(name)
        # Not a pipe to Wireshark, for instance. Windows tells the free space by names only.
        is_known = self._path is not None or hasattr(os, "statvfs")
        self._is_on_disk = is_known and stat.S_ISREG(os.fstat(descriptor).st_mode)
        self.begun += 1
        return descriptor

    def _name(self, path: Path) -> Path:
        """Return the name of the next file: with its number and time before the suffix, if there may be several."""
        if not self._limits.is_divided or not path.name:
            return path
        stamp = time.strftime("%Y%m%d-%H%M%S")
        return path.with_name(f"{path.stem}-{self.begun + 1:05d}-{stamp}{path.suffix}")


def _empty(descriptor: int) -> None:
    """Empty a file, and lock it as long as it is open. Raises OSError while another recorder writes it."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return
    try:
        fcntl: Any = import_module("fcntl")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(errno.EBUSY, "another recorder writes it") from None
    except (ImportError, OSError):
        # Windows has no such module, and some network file systems have no locks.
        pass
    os.ftruncate(descriptor, 0)


def whole_blocks(data: memoryview) -> int:
    """Return how many of the bytes, which begin with a block, are whole blocks."""
    return sum(size for _, size in _blocks(data))


def count_packets(data: memoryview) -> int:
    """Return how many of the blocks are packets."""
    return sum(kind == PACKET for kind, _ in _blocks(data))


def _blocks(data: memoryview) -> Iterator[tuple[int, int]]:
    """Yield the kind and the size of each whole block."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        at += size
        if at > len(data):
            return
        yield kind, size
