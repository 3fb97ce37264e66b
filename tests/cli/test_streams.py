"""Streams that fail and signals that come at any moment: a line, the right status, and never a traceback."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from cli.conftest import ENVIRONMENT, PATIENCE, Done, on_terminal
from multicast_expert.testing import Host, wait_until
from programs import MCAST

QUIET = "239.55.66.77:5000%lo"


def shell(host: Host, command: str) -> Done:
    """Run a line of the shell on the host, where `mcast` is this command; its status is that of `mcast`."""
    script = f'mcast() {{ {" ".join(MCAST)} "$@"; }}; set -o pipefail; {command}'
    done = host.run(
        subprocess.run, ["bash", "-c", script], capture_output=True, text=True, timeout=PATIENCE, env=ENVIRONMENT
    )
    return Done(done.returncode, done.stdout, done.stderr)


WRITES = ["--help", "--version", "--version -v", "recv --help", "interfaces", "interfaces --json", "completion bash",
          f"plan {QUIET}", "groups --json", "doctor --explain querier"]  # fmt: skip


@pytest.mark.parametrize("arguments", WRITES)
def test_a_full_disk(host: Host, arguments: str) -> None:
    """Output that cannot be written is an error in one line that names it."""
    done = shell(host, f"mcast {arguments} > /dev/full")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "mcast: standard output: No space left on device\n"


@pytest.mark.parametrize("arguments", [*WRITES, f"recv {QUIET} -c 1"])
def test_a_reader_that_is_gone(host: Host, arguments: str) -> None:
    """It has seen what it wanted: no error."""
    done = shell(host, f"mcast {arguments} | true")
    messages = re.sub(r"listening to 239\.55\.66\.77 port 5000 on lo \(receive buffer .*\)\n", "", done.stderr)
    assert (done.returncode, messages) == (0, "")


@pytest.mark.parametrize("arguments", WRITES)
@pytest.mark.parametrize("closed", [">&-", "<&-", "2>/dev/full"])
def test_streams_that_are_closed(host: Host, arguments: str, closed: str) -> None:
    """A stream that is not there, or not needed, changes nothing."""
    done = shell(host, f"mcast {arguments} {closed}")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_payload_from_a_closed_stream(host: Host) -> None:
    """Where the payload is to come from standard input, and there is none, it says so."""
    done = shell(host, f"mcast send {QUIET} --file - <&-")
    assert (done.returncode, done.stderr) == (1, "mcast: standard input is closed.\n")


def test_received_onto_a_full_disk(host: Host) -> None:
    """`recv` ends with the error at the first datagram that it cannot write."""
    host.send_datagrams("239.55.66.78", 5000, interface="lo", interval=0.01)
    for form in ("", "--json", "--raw", "--hex"):
        done = shell(host, f"mcast recv 239.55.66.78:5000%lo -W 20 {form} > /dev/full")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == "mcast: standard output: No space left on device"


@pytest.mark.parametrize("arguments", [f"recv {QUIET}", f"record - {QUIET}", "scan -i lo --for 60"])
def test_head_of_a_silent_group(host: Host, arguments: str) -> None:
    """When the reader ends, a command ends at once, although nothing comes that it could fail to write."""
    process = host.popen([*MCAST, *arguments.split()], stdout=-1, stderr=-1, text=True, env=ENVIRONMENT)
    assert process.stderr.readline().startswith(("listening to ", "recording ", "looking for "))
    started = monotonic()
    process.stdout.close()
    assert (process.wait(PATIENCE), process.stderr.read()) == (0, "")
    assert monotonic() - started < PATIENCE / 2


def test_an_interrupt_that_python_drops() -> None:
    """Python drops what a finalizer raises; an interrupt that comes there is repeated, and not written about."""
    program = """
import signal, sys, time
from multicast_expert.cli.interruption import until_interrupted

class Finalized:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0)

def work():
    Finalized()
    time.sleep(30)

print(until_interrupted(work))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_a_second_interrupt_ends_the_summary() -> None:
    """The first one ends the work, and the second one the process, as before the work."""
    program = """
import os, signal
from multicast_expert.cli.interruption import until_interrupted

signal.signal(signal.SIGINT, lambda *_: os._exit(130))
print(until_interrupted(lambda: signal.raise_signal(signal.SIGINT)), flush=True)
signal.raise_signal(signal.SIGINT)
print("swallowed")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (130, "True\n")


def has_begun(pid: int) -> bool:
    """Whether our first instruction has run: the process catches SIGTERM, which Python by itself never does."""
    status = Path(f"/proc/{pid}/status").read_text()
    return any(int(caught, 16) & 1 << (signal.SIGTERM - 1) for caught in re.findall(r"SigCgt:\s+(\w+)", status))


@pytest.mark.slow
@pytest.mark.parametrize("beginning", range(10))
def test_an_interrupt_at_each_millisecond_of_the_start(host: Host, beginning: int) -> None:
    """Ctrl-C at each millisecond from our first instruction on, up to 0.5 s, ends the command with 130.

    None is swallowed, and none makes it write a traceback. What comes before meets Python's own start; when some have
    met a command that listens, the later ones would too.
    """
    listening = 0
    for moment in range(beginning, 500, 10):
        process = host.popen(
            [sys.executable, "-m", "multicast_expert", "recv", QUIET],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        wait_until(lambda: has_begun(process.pid), "it has begun")  # noqa: B023 - called at once
        sleep(moment / 1000)
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130, messages
        # It may come while the first line is written.
        assert re.fullmatch(
            r"(listening to .*\n)?(0 datagrams.*\n0 dropped.*\n(nothing came for.*\nhint.*\n)?)?", messages
        )
        listening += messages.startswith("listening")
        if listening == 5:
            break


def test_ctrl_c_and_the_summary(host: Host) -> None:
    """On a terminal, which shows ^C, the summary begins on a line of its own."""
    shown = on_terminal(host, "recv", "239.55.66.79:5000%lo", "-W", "0.2", status=1)
    assert re.search(r"\r\n0 datagrams", shown)
