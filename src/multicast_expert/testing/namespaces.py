"""Network namespaces of Linux, held by file descriptor and entered by one thread at a time. Calls the kernel.

A namespace made here has no name, so nothing can collide, and the kernel removes it when its last descriptor, thread
and socket are gone: setns(2), unshare(2), network_namespaces(7). Python has `os.unshare` and `os.setns` from 3.12 on
only, hence ctypes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from multicast_expert.core.errors import MulticastExpertError

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000

THREAD_NAMESPACE = "/proc/thread-self/ns/net"

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class LabError(MulticastExpertError):
    """The network laboratory could not do what you asked for."""


def namespaces_exist() -> bool:
    """Return whether this system has network namespaces at all: Linux with a mounted /proc."""
    return Path(THREAD_NAMESPACE).exists()


@functools.cache
def _libc() -> Any:
    import ctypes  # noqa: PLC0415 - costs milliseconds, and only a lab needs it

    if not namespaces_exist():
        raise LabError("Network namespaces exist on Linux only")
    return ctypes.CDLL(None, use_errno=True)


def _check(returned: int, step: str) -> None:
    import ctypes  # noqa: PLC0415 - see above

    if returned:
        number = ctypes.get_errno()
        raise OSError(number, f"{step}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces; OSError if the kernel refuses."""
    _check(_libc().unshare(flags), "unshare")


def set_network_namespace(descriptor: int) -> None:
    """Move the calling thread into the network namespace that the descriptor holds."""
    _check(_libc().setns(descriptor, CLONE_NEWNET), "setns")


def mount(source: str, target: str, kind: str | None, flags: int = 0) -> None:
    """Mount `source` on `target` in the mount namespace of the calling thread."""
    arguments = source.encode(), os.fsencode(target), kind.encode() if kind else None, flags, None
    _check(_libc().mount(*arguments), f"mount on {target}")


def make_mounts_private() -> None:
    """Keep later mounts from spreading into the mount namespace that this one was copied from."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)


def mount_fresh_sysfs() -> None:
    """Show this thread's network in /sys/class/net: a sysfs shows the network namespace of the process that mounted it.

    A container that masks parts of /sys may not mount a fresh one; its old view is then all there is.
    """
    with contextlib.suppress(OSError):
        mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def in_new_thread(
    function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Call the function in a thread of its own, wait for it, and return its result or raise its exception."""
    results: list[Result] = []
    failures: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function(*args, **kwargs))
        except BaseException as failure:  # noqa: BLE001 - raised again below, in the thread that waits
            failures.append(failure)

    thread = threading.Thread(target=call, name=f"lab-{getattr(function, '__name__', 'call')}", daemon=True)
    thread.start()
    thread.join()
    # To Python it has ended after its last bytecode; to the kernel, which gives no user namespace to a process with
    # several threads, a moment later.
    task, deadline = Path(f"/proc/self/task/{thread.native_id}"), time.monotonic() + 1
    while task.exists() and time.monotonic() < deadline:
        time.sleep(0.0001)
    if failures:
        try:
            raise failures[0]
        finally:
            failures.clear()  # else the exception, its traceback and this frame keep each other alive
    return results[0]


class NetworkNamespace:
    """One network namespace, alive as long as this object is open."""

    def __init__(self) -> None:
        descriptor = in_new_thread(_open_new_namespace)
        # Also for a node whose construction fails half-way, before anything could close it
        self._release = weakref.finalize(self, os.close, descriptor)
        self._descriptor = descriptor

    @property
    def descriptor(self) -> int:
        """The file descriptor that holds the namespace; LabError once it is closed."""
        if not self._release.alive:
            raise LabError("This network namespace is closed")
        return self._descriptor

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in this namespace inside the block, and back where it was after it."""
        descriptor = self.descriptor
        before = os.open(THREAD_NAMESPACE, os.O_RDONLY)
        try:
            set_network_namespace(descriptor)
            try:
                yield
            finally:
                set_network_namespace(before)
        finally:
            os.close(before)

    def run(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Call the function in a new thread that sees this namespace everywhere, in /sys and /proc/net too."""
        return in_new_thread(self._call, functools.partial(function, *args, **kwargs))

    def _call(self, function: Callable[[], Result]) -> Result:
        set_network_namespace(self.descriptor)
        unshare(CLONE_NEWNS)
        make_mounts_private()
        mount_fresh_sysfs()
        # /proc/net leads to the main thread's network; in this thread's own table of mounts, to this thread's.
        with contextlib.suppress(OSError):
            mount("/proc/thread-self/net", f"/proc/{os.getpid()}/net", None, MS_BIND)
        return function()

    def close(self) -> None:
        """Give the namespace up; closing again does nothing."""
        self._release()


def _open_new_namespace() -> int:
    try:
        unshare(CLONE_NEWNET)
    except PermissionError as error:
        raise LabError(
            "Making a network namespace needs root, or a private network: call multicast_expert.testing."
            "enter_private_network() before the first thread starts"
        ) from error
    except OSError as error:  # such as the limit in user.max_net_namespaces
        raise LabError(f"The kernel refused a network namespace ({error})") from error
    return os.open(THREAD_NAMESPACE, os.O_RDONLY)
