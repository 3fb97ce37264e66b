"""Ctrl-C on a real terminal, which shows `^C` where the cursor is, and gets back what a command took from it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest

from cli.conftest import ENVIRONMENT, PATIENCE, on_terminal
from multicast_expert.testing import Host

CTRL_C = b"\x03"
LEAVES_ITS_SCREEN = b"\x1b[?1049l"


class Terminal:
    """A terminal, and a command that it controls."""

    def __init__(self, host: Host, *arguments: str) -> None:
        self.screen, self._tty = pty.openpty()
        fcntl.ioctl(self._tty, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self._before = termios.tcgetattr(self._tty)
        environment = {name: value for name, value in ENVIRONMENT.items() if name not in ("COLUMNS", "NO_COLOR")}
        ends: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), self._tty)
        # nohup has the suite ignore SIGHUP, and so its programs.
        command = ["env", "--default-signal=HUP", sys.executable, "-m", "multicast_expert", *arguments]
        words = ["setsid", "--ctty", *command]
        self.process: subprocess.Popen[bytes] = host.popen(words, env=environment | {"TERM": "xterm-256color"}, **ends)

    def until(self, text: str) -> None:
        """Return when the text is on the screen."""
        seen, deadline = b"", monotonic() + PATIENCE
        while text.encode() not in seen:
            assert monotonic() < deadline, seen
            if select.select([self.screen], [], [], 0.1)[0]:
                seen += os.read(self.screen, 65536)

    def rest(self) -> bytes:
        """Return what is written until the command ends."""
        seen, deadline, has_ended = b"", monotonic() + PATIENCE, False
        while True:
            assert monotonic() < deadline, seen
            if select.select([self.screen], [], [], 0.05)[0]:
                seen += os.read(self.screen, 65536)
            elif has_ended:
                return seen
            else:
                has_ended = self.process.poll() is not None

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal echoes, buffers lines and sends signals as before."""
        return termios.tcgetattr(self._tty) == self._before

    def close(self) -> None:
        """Close both ends."""
        os.close(self.screen)
        os.close(self._tty)


@contextmanager
def terminal(host: Host, *arguments: str) -> Iterator[Terminal]:
    """A command on a terminal, which ends with the block."""
    opened = Terminal(host, *arguments)
    try:
        yield opened
    finally:
        host.end_process(opened.process)
        opened.close()


RECEIVED_NOTHING = r"\d+ datagrams.*filtered\r\n[^\r]*nothing came for: .*\r\nhint: .*\r\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "ready", "after", "status"),
    [
        (
            "recv 239.55.66.80:5000%lo",
            "listening to",
            RECEIVED_NOTHING,
            130,
        ),
        (
            "recv -q --every 1 239.55.66.80:5000%lo",
            "listening to",
            RECEIVED_NOTHING,
            130,
        ),
        (
            "send 239.55.66.81:5000%lo --rate 100pps --for 60",
            "",
            r"\d+ datagrams?, .* asked for: 100 datagrams/s\r\n",
            130,
        ),
        ("doctor 239.55.66.80:5000%lo --listen 60", "listening", r".*\r\n", 3),
        ("watch", "watching", "", 130),
        ("querier -i eth0", "this host is the querier now", "", 130),
        ("scan --for 60", "looking", "", 130),
    ],
)
def test_what_follows_ctrl_c(host: Host, arguments: str, ready: str, after: str, status: int) -> None:
    """The summary, or the prompt of the shell, begins on a line of its own; no traceback."""
    member = host.join_and_never_read("239.55.66.81", 5000, interface="lo")
    member.settimeout(PATIENCE)
    with member, terminal(host, *arguments.split()) as opened:
        if ready:
            opened.until(ready)
        else:  # it shows nothing until its end
            for _ in range(2):
                member.recv(1500)
        os.write(opened.screen, CTRL_C)
        shown = opened.rest().decode()
        assert opened.process.wait(PATIENCE) == status
        assert opened.is_as_before
    # The line of the doctor's progress, with the ^C in it, is blanked.
    assert re.search(r"\^C\r(\n| +\r)" + after + r"\Z", shown, re.DOTALL), shown
    assert "Traceback" not in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "module", "shown"),
    [("top -i lo --for 2", "textual", "streams on lo"), ("bridge 239.55.66.82:5000 -i lo --for 3", "zenoh", "IN/s")],
)
def test_a_terminal_that_only_writes_on(host: Host, arguments: str, module: str, shown: str) -> None:
    """Where the cursor cannot be moved, nothing is drawn anew."""
    pytest.importorskip(module)
    written = on_terminal(host, *arguments.split(), TERM="dumb")
    assert shown in written
    assert "\x1b" not in written


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    [
        lambda opened: os.write(opened.screen, CTRL_C),
        lambda opened: opened.process.send_signal(signal.SIGTERM),
        lambda opened: opened.process.send_signal(signal.SIGHUP),
    ],
    ids=["Ctrl-C", "SIGTERM", "SIGHUP"],
)
def test_the_live_table_gives_the_terminal_back(host: Host, end: Callable[[Terminal], object]) -> None:
    """However it ends, it leaves its screen, and the terminal works as before."""
    pytest.importorskip("textual", reason="Textual is not installed (it is in the extra [top])")
    with terminal(host, "top", "-i", "eth0") as opened:
        opened.until("q quit")
        end(opened)
        shown = opened.rest()
        assert opened.process.wait(PATIENCE) == 130
        assert opened.is_as_before
    assert LEAVES_ITS_SCREEN in shown
    assert b"Traceback" not in shown
