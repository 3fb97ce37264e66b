"""The doctor is right: it names what was broken in a lab, and is content with what was not."""

import shlex
import subprocess
import sys

import pytest

from doctor import proof
from doctor.command import NOBODY, Diagnosis, arriving, as_nobody, doctor, run
from doctor.faults import FAULTS, Fault, dead_querier
from doctor.forks import forks
from doctor.stage import ENDPOINT, Arguments, Stage, stage
from drops.conftest import verdict_unavailable
from multicast_expert.doctor import facts_from_text
from multicast_expert.testing import lab_unavailable

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(lab_unavailable() is not None, reason=f"no multicast lab: {lab_unavailable()}"),
]

EVERY = [pytest.param(fault, id=fault.name) for fault in FAULTS]


@pytest.mark.parametrize("fault", EVERY)
def test_root_is_told_the_cause(fault: Fault) -> None:
    """The doctor names what is wrong, and where the document says so, its remedy cures it."""
    with stage() as made:
        arguments = fault.build(made)
        said = doctor(made.listener, arguments, made.seconds)
        if said.cause not in fault.causes and (reason := verdict_unavailable()):
            pytest.skip(f"no verdict of the kernel: {reason}")
        assert said.cause in fault.causes, said.weighty
        assert said.status == 1
        if fault.cured:
            cure(made, arguments, said)
    cells = {"root": proof.named(said.cause), "cured": "yes" if fault.cured else ""}
    if proof.WRITES:
        proof.write(fault, **cells)
    else:
        assert proof.row_of(fault)._replace(**cells) == proof.row_of(fault)


def cure(made: Stage, arguments: Arguments, said: Diagnosis) -> None:
    """After the commands of the remedy the datagrams arrive, and the doctor finds nothing wrong any more."""
    commands = [line for line in said.finding["remedy"] if not line.endswith(".")]
    assert commands, said.weighty
    for command in commands:
        done = run(made.listener, ["sh", "-c", command])
        assert done.returncode == 0, f"{command}: {done.stderr}"
    wanted = round(made.seconds * 40)
    assert arriving(made.listener, arguments, wanted, made.seconds + 3) == wanted, commands
    healthy = doctor(made.listener, arguments, made.seconds)
    assert (healthy.status, healthy.report["verdict"]) == (0, "ok"), healthy.weighty


@pytest.mark.parametrize("fault", EVERY)
def test_anybody_is_told_the_cause_or_nothing(fault: Fault) -> None:
    """Without privileges the doctor names what is wrong, or no cause at all and what to run instead."""
    with stage() as made:
        arguments = fault.build(made)
        said = doctor(made.listener, arguments, made.seconds, privileged=False)
    assert said.cause in (*fault.causes, None), said.weighty
    if said.cause is None:
        assert said.status == 3
        remedies = [line for each in said.report["findings"] if each["verdict"] != "ok" for line in each["remedy"]]
        assert any(line.startswith("sudo mcast doctor") for line in remedies), said.weighty
    else:
        assert said.status == 1
    answer = proof.NOTHING if fault.varies else proof.named(said.cause)
    if proof.WRITES:
        proof.write(fault, unprivileged=answer)
    else:
        assert proof.row_of(fault).unprivileged == answer


def test_our_querier_cures() -> None:
    """The querier that the doctor advises keeps alive what a switch forgot; its timers suit the switch of the lab."""
    with stage() as made:
        arguments = dead_querier(made)
        said = doctor(made.listener, arguments, made.seconds)
        (advice,) = [line for line in said.finding["remedy"] if "mcast querier" in line]
        words = shlex.split(advice.split("`")[1])
        assert words[:3] == ["sudo", "mcast", "querier"]
        fast = ["--query-interval", "0.4", "--response-time", "0.1"]
        wanted = round(made.seconds * 40)
        assert arriving(made.listener, arguments, wanted, made.seconds + 3) < wanted
        command = [sys.executable, "-m", "multicast_expert", *words[2:], *fast]
        asking = made.listener.popen(command, stdout=subprocess.PIPE, encoding="utf-8")
        assert asking.stdout is not None
        assert any(line.endswith("this host is the querier now\n") for line in asking.stdout)
        assert arriving(made.listener, arguments, wanted, made.seconds + 3) == wanted
        asking.stdout.close()


def test_the_unprivileged_have_no_privileges() -> None:
    """A program started that way has no capability and may not open a raw socket."""
    program = "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 2)"
    with stage() as made:
        status = run(made.listener, ["cat", "/proc/self/status"], privileged=False).stdout
        raw = run(made.listener, [sys.executable, "-c", program], privileged=False)
        user = NOBODY if as_nobody() else None
        asked = forks().run(made.listener, ["doctor", ENDPOINT, "--listen", "0", "--save", "-"], 60, user)
    assert {line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "CapPrm", "CapBnd"))} == {
        "0000000000000000"
    }
    assert "PermissionError" in raw.stderr
    machine = facts_from_text(asked.stdout.encode()).machine
    assert (machine.user_id, machine.may_capture) == (user or 0, False)


def test_the_table_is_complete_and_good_enough() -> None:
    """The document has a row for each fault, none of the answers in it is wrong, and its sums are right."""
    rows = proof.rows()
    assert list(rows) == [fault.name for fault in FAULTS]
    assert proof.PATH.read_text(encoding="utf-8") == proof.document(rows)
    for fault in FAULTS:
        assert {rows[fault.name].root, rows[fault.name].unprivileged} <= proof.right(fault) | {proof.NOTHING}
    assert {name for name, row in rows.items() if row.cured} == {fault.name for fault in FAULTS if fault.cured}
    assert len(rows) >= 25
    assert sum(row.root != proof.NOTHING for row in rows.values()) >= 23
    assert sum(row.unprivileged != proof.NOTHING for row in rows.values()) >= 15
    assert sum(row.cured == "yes" for row in rows.values()) >= 10
