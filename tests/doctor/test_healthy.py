"""No false alarm: where multicast arrives, the doctor finds nothing wrong, and is quick about it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from doctor.command import Diagnosis, as_nobody, doctor
from doctor.healthy import HEALTHY
from doctor.stage import Arguments, Stage, stage
from multicast_expert.testing import lab_unavailable

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(lab_unavailable() is not None, reason=f"no multicast lab: {lab_unavailable()}"),
]


def assert_content(said: Diagnosis) -> None:
    """The verdict is good, the exit status says so, and no check has found a problem."""
    assert (said.status, said.report["verdict"], said.cause) == (0, "ok", None), said.weighty
    assert [each["check"] for each in said.report["findings"] if each["verdict"] == "problem"] == [], said.weighty
    assert said.report["received"] > 0


@pytest.mark.parametrize("privileged", [True, False], ids=["root", "unprivileged"])
@pytest.mark.parametrize("build", HEALTHY, ids=lambda build: build.__name__)
def test_no_false_alarm(build: Callable[[Stage], Arguments], privileged: bool) -> None:
    """Whoever asks, a network that works is called one."""
    with stage() as made:
        arguments = build(made)
        assert_content(doctor(made.listener, arguments, made.seconds, privileged=privileged))


IN_A_USER_NAMESPACE = """
from multicast_expert.testing import enter_private_network
enter_private_network()
from doctor import healthy
from doctor.stage import stage
from multicast_expert.doctor import diagnose
with stage() as made:
    (endpoint,) = healthy.plain(made)
    report = made.listener.run(diagnose, endpoint, listen=made.seconds)
problems = [finding for finding in report.findings if finding.verdict == "problem"]
assert (report.verdict, report.cause, problems) == ("ok", None, []), report
assert report.received > 0
"""


def test_no_false_alarm_in_an_unprivileged_namespace() -> None:
    """An ordinary user's own network, where the user is root of nothing else, is healthy too.

    Where there is no other user to be, this suite is such a user's already.
    """
    done = subprocess.run(
        [*as_nobody(), sys.executable, "-c", IN_A_USER_NAMESPACE],
        env={"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "lets an ordinary user make no user namespace" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
