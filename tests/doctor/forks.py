"""`mcast` on a host of the lab, in forks of a process that has imported everything.

Most runs of the doctor take less processor time than the start of an interpreter and the imports. Each fork is a
process of its own that begins like the program: in the host's network, with its streams, its user and its privileges.
"""

import atexit
import contextlib
import ctypes
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from multicast_expert.testing import Host
from multicast_expert.testing.namespaces import (
    CLONE_NEWNS,
    make_mounts_private,
    mount_fresh_sysfs,
    set_network_namespace,
    unshare,
)
from multicast_expert.testing.node import command_environment
from watched import end_with_any_thread

IMPORTED = (
    "multicast_expert.__main__", "multicast_expert.cli.doctor", "multicast_expert.cli.parsing",
    "multicast_expert.cli.recv", "multicast_expert.doctor.host.linux",
    "argparse", "email.parser", "gettext", "platform", "resource",
)  # fmt: skip
"""What the commands load, also late: another user may not be allowed to read the interpreter's files."""
TESTS = Path(__file__).parent.parent
# linux/prctl.h and linux/capability.h
DROP_FROM_BOUNDING_SET, SET_DUMPABLE, AMBIENT, CLEAR_ALL = 24, 4, 47, 4
CAPABILITY_VERSION = 0x20080522


class Forks:
    """A process that forks for each run of `mcast`."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = f"from doctor.forks import serve; serve({theirs.fileno()})"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", program],
                stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], cwd="/",
                env={**command_environment(), "PYTHONPATH": str(TESTS)},
            )  # fmt: skip
        atexit.register(self.close)

    def run(
        self, host: Host, words: Sequence[str], patience: float, user: int | None = 0
    ) -> "subprocess.CompletedProcess[str]":
        """Run `mcast` on the host to its end. user: another one than root has no privileges; None: root without any."""
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            descriptors = [output.fileno(), errors.fileno(), host.namespace.descriptor]
            socket.send_fds(self._requests, [json.dumps([user, *words]).encode()], descriptors)
            pid = int(self._requests.recv(20))
            self._requests.settimeout(patience)
            try:
                status = int(self._requests.recv(20))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self._requests.settimeout(None)
                self._requests.recv(20)
                raise
            return subprocess.CompletedProcess(words, status, written(output), written(errors))

    def close(self) -> None:
        """Let it end."""
        self._requests.close()
        self._process.wait()


@functools.cache
def forks() -> Forks:
    """The one of this process."""
    return Forks()


def written(file: IO[bytes]) -> str:
    """What a file holds."""
    file.seek(0)
    return file.read().decode()


def serve(descriptor: int) -> None:
    """Fork for each request until the requester is gone; answer with the number of the process, then its status.

    A request has descriptors with it: standard output, standard error and a network namespace.
    """
    end_with_any_thread()
    for module in IMPORTED:
        importlib.import_module(module)
    requests = socket.socket(fileno=descriptor)
    while True:
        request, descriptors, *_ = socket.recv_fds(requests, 1 << 16, 3)
        if not request:
            return
        pid = os.fork()
        if not pid:
            requests.close()
            os._exit(call(*json.loads(request), descriptors=descriptors))
        for each in descriptors:
            os.close(each)
        requests.send(b"%d" % pid)
        requests.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def call(user: int | None, *words: str, descriptors: Sequence[int]) -> int:
    """Become the program that was asked for, and return its exit status."""
    from multicast_expert.__main__ import main

    output, errors, network = descriptors
    os.dup2(output, 1)
    os.dup2(errors, 2)
    status: object = 70
    try:
        set_network_namespace(network)
        unshare(CLONE_NEWNS)
        make_mounts_private()
        mount_fresh_sysfs()
        for each in descriptors:
            os.close(each)
        if user != 0:
            drop_privileges(user)
        sys.argv = ["mcast", *words]
        main()
    except SystemExit as end:
        status = end.code
    except BaseException:  # noqa: BLE001 - the requester gets it, with the status
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    return status if isinstance(status, int) else 1


def drop_privileges(user: int | None) -> None:
    """Become this user, and give up all capabilities for good, as setpriv(1) does."""
    kernel = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        if kernel.prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0):
            break  # the kernel knows no more of them
    kernel.prctl(AMBIENT, CLEAR_ALL, 0, 0, 0)
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header, nothing = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if kernel.capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")
    # A process that changes its user may not read its own files in /proc, until it starts a program.
    kernel.prctl(SET_DUMPABLE, 1, 0, 0, 0)
