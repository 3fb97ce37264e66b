"""`mcast drops` on a host that loses something."""

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable

import pytest

from cli.conftest import Run
from drops.conftest import verdict_unavailable
from multicast_expert.testing import Host, Lab
from programs import MCAST

PORT = 5000


@pytest.fixture(autouse=True)
def _allowed() -> None:
    if reason := verdict_unavailable():
        pytest.skip(f"no verdict of the kernel: {reason}")


@pytest.fixture(scope="module")
def losing(host: Host) -> Host:
    """The host has a program that never reads, on its loopback interface, and a sender."""
    host.join_and_never_read("239.1.2.3", PORT, interface="lo", buffer=2048)
    host.send_datagrams("239.1.2.3", PORT, interface="lo", interval=0.005)
    return host


def test_a_loss(losing: Host, mcast: Run) -> None:
    """The loss is shown with its place, its program and the command that explains it; the status says so."""
    done = mcast("drops", "239.1.2.3", "--for", "0.3", on=losing)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[0].startswith("239.1.2.3:5000 on lo: ")
    assert " dropped at socket, buffer (SOCKET_RCVBUFF in udp_queue_rcv_one_skb), socket of " in lines[0]
    assert lines[-1] == "mcast doctor 239.1.2.3:5000 -i lo"
    assert " of 1 group lost in " in lines[-2]


def test_json(losing: Host, mcast: Run) -> None:
    """One document at the end; the group, the port and the interface choose."""
    document = json.loads(mcast("drops", "239.1.2.3:5000", "-i", "lo", "--for", "0.3", "--json").stdout)
    (found,) = document["drops"]
    assert (found["group"], found["port"], found["interface"], found["lost"]) == ("239.1.2.3", PORT, "lo", True)
    assert (found["station"], found["reason"], found["run"]) == (
        "socket", "SOCKET_RCVBUFF", "mcast doctor 239.1.2.3:5000 -i lo",
    )  # fmt: skip
    for other in (["239.1.2.4"], ["239.1.2.3:5001"], ["10.9.9.9@239.1.2.3"], ["-i", "eth0"]):
        done = mcast("drops", *other, "--for", "0.2", "--json")
        assert (done.returncode, json.loads(done.stdout)["drops"]) == (0, [])


def test_nothing_is_lost(bare: Host, mcast: Run) -> None:
    """Then it says so, and the status is 0."""
    done = mcast("drops", "--for", "0", on=bare)
    assert done.returncode == 0
    assert re.fullmatch(r"Nothing was lost in \d\.\d s\.\n", done.stdout)


def test_nobody_has_joined(lab: Lab, mcast: Run) -> None:
    """What no program asks for is no case for the doctor, and an endpoint that nobody joined is said to be none."""
    host = lab.host("asleep")
    host.add_interface("eth0", ipv4="10.9.3.1/24")
    done = mcast("drops", "239.1.2.3", "--for", "0.1", on=host)
    assert (done.returncode, done.stdout) == (0, f"Nothing was lost in {done.stdout.split()[-2]} s.\n")
    assert done.stderr.splitlines()[-1] == (
        "no program of this host has joined 239.1.2.3: only what it sends there could be lost"
    )


def test_a_program_on_another_port(lab: Lab, mcast: Run) -> None:
    """A program that joined the group, and listens where nothing comes, is named."""
    host = lab.host("astray")
    host.add_interface("eth0", ipv4="10.9.4.1/24")
    host.join_and_never_read("239.1.2.3", PORT + 1, interface="lo")
    host.send_datagrams("239.1.2.3", PORT, interface="lo", interval=0.005)
    watcher = host.popen([*MCAST, "drops", "--for", "1", "--json"], stdout=subprocess.PIPE, encoding="utf-8")
    document = json.loads(watcher.communicate(timeout=20)[0])
    (found,) = [each for each in document["drops"] if each["group"] == "239.1.2.3"]
    (name,) = found["joined_on_other_ports"]
    assert name.endswith(" on port 5001")
    assert (found["lost"], found["joined"], found["port"]) == (False, True, PORT)


@pytest.mark.parametrize("arguments", [["--for", "nan"], ["nonsense"], ["10.1.2.3:5000"]])
def test_a_wrong_command_line(mcast: Run, arguments: list[str]) -> None:
    """It is refused before anything is counted."""
    assert mcast("drops", *arguments).returncode == 2


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="the program `setpriv` is not installed")
def test_without_privileges(host: Host) -> None:
    """It says who may, and ends with 3."""
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *MCAST, "drops", "--for", "1"]
    done = host.run(subprocess.run, powerless, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "mcast: Only root can ask the kernel which datagrams it drops and why (CAP_BPF and CAP_PERFMON).\n"
    )


def test_ctrl_c(losing: Host, program: Callable[..., "subprocess.Popen[str]"]) -> None:
    """Ctrl-C ends it with its summary."""
    process = program("drops", "239.1.2.3")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("239.1.2.3:5000 on lo: ")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert output.endswith("mcast doctor 239.1.2.3:5000 -i lo\n")


@pytest.mark.parametrize(("redirection", "said"), [(">/dev/full", "No space left on device"), ("| head -0", "")])
def test_output_that_goes_nowhere(losing: Host, redirection: str, said: str) -> None:
    """A full disk is an error in a line; a reader that is gone is none."""
    command = f"{' '.join(MCAST)} drops 239.1.2.3 --for 3 {redirection}"
    done = losing.run(subprocess.run, ["sh", "-c", command], capture_output=True, text=True, timeout=30)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
