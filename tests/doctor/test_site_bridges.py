"""The doctor hears the bridges on its network, and says which of them reach no other site."""

import subprocess
from typing import Any

import pytest

from doctor.command import doctor
from doctor.stage import ENDPOINT, Stage, stage
from multicast_expert.testing import lab_unavailable, wait_until
from programs import MCAST

pytest.importorskip("zenoh", reason="Eclipse Zenoh is not there")
pytestmark = pytest.mark.skipif(lab_unavailable() is not None, reason=f"no multicast lab: {lab_unavailable()}")

HERE = "tcp/127.0.0.1:7447"


def start_bridge(made: Stage, *words: str) -> None:
    """Start a bridge beside the listener."""
    command = [*MCAST, "bridge", ENDPOINT, *words]
    made.talker.popen(command, stdout=subprocess.DEVNULL)


def bridge_finding(made: Stage, *, privileged: bool = True) -> dict[str, Any]:
    """What the check of bridges finds."""
    said = doctor(made.listener, [ENDPOINT], 1, privileged=privileged)
    return next(each for each in said.report["findings"] if each["check"] == "site-bridge")


@pytest.mark.slow
def test_what_the_bridges_of_a_network_say() -> None:
    """Nothing arrives: a bridge that reaches no other site may be why; one that does is not, and none is not either."""
    with stage() as made:
        made.switch()
        assert (found := bridge_finding(made))["verdict"] == "ok", found
        assert found["evidence"] == {}
        start_bridge(made, "--listen", HERE)
        wait_until(lambda: bridge_finding(made)["evidence"], "it greets", 20)
        for privileged in (True, False):
            found = bridge_finding(made, privileged=privileged)
            assert found["verdict"] == "suspect"
            assert "reaches no other site" in found["summary"]
            assert list(found["evidence"].values()) == ["reaches no other site"]
        # Another site, which is none of this network: its bridge has the loopback interface only.
        start_bridge(made, "--connect", HERE, "-i", "lo")
        wait_until(lambda: "connected" in bridge_finding(made)["evidence"].values(), "they are connected", 20)
        assert bridge_finding(made)["verdict"] == "ok"
