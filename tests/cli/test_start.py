"""How quickly the command starts, as a ratio to Python itself, and what it loads."""

import re
import resource
import subprocess
import sys
from statistics import median

import pytest

from multicast_expert.testing import Host

ROUNDS = 15


def processor_time(command: list[str]) -> float:
    """Seconds of processor time that a program takes, from its start to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.alone
@pytest.mark.slow
def test_the_start_is_quick(host: Host) -> None:
    """`mcast --version` takes at most 5 times as long as Python alone, `mcast recv -c 1` at most 9 times.

    The three take turns, and the medians are compared, so that the load of the machine hardly matters.
    """
    mcast = [sys.executable, "-m", "multicast_expert"]
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "version": [*mcast, "--version"],
        "recv": [*mcast, "recv", "239.4.5.6:5000%lo", "-c", "1", "-W", "20"],
    }
    host.send_datagrams("239.4.5.6", 5000, interface="lo", interval=0.005)
    host.run(lambda: [processor_time(command) for command in commands.values()])  # writes what Python compiles
    times = host.run(
        lambda: [{name: processor_time(command) for name, command in commands.items()} for _ in range(ROUNDS)]
    )
    middle = {name: median(each[name] for each in times) for name in commands}
    assert middle["version"] < 5 * middle["python"], middle
    assert middle["recv"] < 9 * middle["python"], middle


@pytest.mark.parametrize(
    ("arguments", "foreign"),
    [
        (
            ["--version"],
            {"dataclasses", "inspect", "socket", "json", "logging", "multicast_expert.core.errors"},
        ),
        (
            ["recv", "239.1.2.3:5000%lo", "-W", "0"],
            {"json", "datetime", "asyncio", "multicast_expert.core.near_misses"},
        ),
    ],
)
def test_what_a_command_loads(host: Host, arguments: list[str], foreign: set[str]) -> None:
    """It loads what it needs, and nothing that only others need."""
    program = [sys.executable, "-X", "importtime", "-m", "multicast_expert", *arguments]
    done = host.run(subprocess.run, program, capture_output=True, text=True, timeout=30)
    loaded = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "multicast_expert.cli" in loaded
    assert loaded & foreign == set()
