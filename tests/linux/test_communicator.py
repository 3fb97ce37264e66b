"""The example program on three hosts at a snooping switch."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from multicast_expert.testing import Host, Lab, wait_until

PROGRAM = Path(__file__).parents[2] / "examples" / "communicator.py"
ADDRESSES = {
    4: {machine: f"10.1.0.{machine}" for machine in (1, 2, 3)},
    6: {machine: f"fd01::{machine}" for machine in (1, 2, 3)},
}

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


class Machine:
    """One machine that runs the program."""

    def __init__(self, host: Host, number: int, directory: Path, *arguments: str) -> None:
        self.host = host
        self.output, self.messages = directory / f"{number}.out", directory / f"{number}.err"
        command = [sys.executable, str(PROGRAM), str(number), "--interval", "0.02", *arguments]
        with self.output.open("w") as output, self.messages.open("w") as messages:
            self.process = host.popen(command, stdout=output, stderr=messages)

    def lines(self) -> list[list[str]]:
        """What it has heard so far: group, machine, counter and address of each datagram."""
        text = self.output.read_text()
        return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]

    def has_heard(self, group: str, number: int, times: int) -> bool:
        """Whether it has heard the machine of that number so often in that group."""
        assert self.process.poll() is None, self.messages.read_text()
        return sum(line[:2] == [group, str(number)] for line in self.lines()) >= times

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit status."""
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(10)
        self.host.end_process(self.process)
        return status


def machines(lab: Lab, numbers: list[int]) -> dict[int, Host]:
    """As many hosts, plugged into a switch that forwards a group only to those who asked for it."""
    switch = lab.switch("switch", querier=True)
    hosts = {number: lab.host(f"machine{number}") for number in numbers}
    for number, host in hosts.items():
        lab.plug(host, switch, ipv4=f"{ADDRESSES[4][number]}/24", ipv6=f"{ADDRESSES[6][number]}/64")
    return hosts


def arguments(version: int, *others: str) -> list[str]:
    """The arguments that choose the IP version, and others."""
    return [*(["--ipv6"] if version == 6 else []), *others]


@pytest.mark.slow
@both_versions
@pytest.mark.parametrize("numbers", [[1, 2, 3], [3, 1]], ids=["three machines", "two machines"])
def test_who_hears_whom(multicast_lab: Lab, tmp_path: Path, version: int, numbers: list[int]) -> None:
    """Everybody hears all others in the shared group, and in the own groups only the next machine; all of it once."""
    hosts = machines(multicast_lab, numbers)
    running = {
        number: Machine(host, number, tmp_path, *arguments(version, "--interface", "eth0"))
        for number, host in hosts.items()
    }
    expected = {
        number: {("shared", other) for other in numbers if other != number}
        | {("own", other) for other in numbers if other == number % 3 + 1}
        for number in numbers
    }
    for number, machine in running.items():
        for group, other in expected[number]:
            wait_until(
                lambda machine=machine, group=group, other=other: machine.has_heard(group, other, 20),
                f"machine {number} hears machine {other} in the {group} group",
            )
    assert [machine.interrupt() for machine in running.values()] == [0] * len(numbers)
    for number, machine in running.items():
        lines = machine.lines()
        assert {(group, int(other)) for group, other, *_ in lines} == expected[number]
        assert all(address == ADDRESSES[version][int(other)] for _, other, _, address in lines)
        assert len({tuple(line) for line in lines}) == len(lines)
        for group, other in expected[number]:
            counters = [int(line[2]) for line in lines if line[:2] == [group, str(other)]]
            assert counters == sorted(counters)
        assert len(machine.messages.read_text().splitlines()) == 1


@both_versions
def test_alone_with_the_default_route(multicast_lab: Lab, tmp_path: Path, version: int) -> None:
    """Without an interface it takes the default gateway's; alone it hears nobody, nor itself; it ends in time."""
    (host,) = machines(multicast_lab, [1]).values()
    host.ip("route add default via 10.1.0.254", "route add ::/0 via fd01::ffff")
    machine = Machine(host, 1, tmp_path, *arguments(version, "--duration", "0.2"))
    assert machine.process.wait(20) == 0
    assert machine.lines() == []
    assert "machine 1 on eth0" in machine.messages.read_text()


@pytest.mark.parametrize(
    ("wrong", "status", "words"),
    [
        (["1", "--interface", "eth9"], 1, "eth9"),
        (["1"], 1, "default IPv4 route"),
        (["1", "--interface", "eth0", "--port", "70000"], 1, "port 70000 is out of range"),
        (["4"], 2, "invalid choice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_work_is_said(multicast_lab: Lab, wrong: list[str], status: int, words: str) -> None:
    """A wrong argument ends it with a message and without a traceback."""
    (host,) = machines(multicast_lab, [1]).values()
    process = host.popen([sys.executable, str(PROGRAM), *wrong], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    messages = process.stderr.read()
    assert process.wait(10) == status
    assert words in messages
    assert "Traceback" not in messages
