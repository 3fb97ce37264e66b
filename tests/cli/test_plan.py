"""`mcast plan` as golden text for four operating systems, the same on every host."""

import json
import sys
from pathlib import Path

import pytest

from multicast_expert.cli import run
from multicast_expert.platforms import PLATFORMS

PLANS = Path(__file__).parent / "plans"
ENDPOINTS = {"ipv4": "239.1.2.3:5000", "source": "10.0.0.7@232.1.2.3:5000", "ipv6": "[ff15::1234]:5000"}

CASES = [(system, kind) for system in PLATFORMS for kind in ENDPOINTS]


def output(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Exit status, output and messages of `mcast plan` in this process."""
    monkeypatch.setattr(sys, "argv", ["mcast", "plan", *arguments])
    status = run()
    written = capsys.readouterr()
    return status, written.out, written.err


@pytest.mark.parametrize(("system", "kind"), CASES)
def test_the_plan_as_text(
    system: str, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every call is shown, with its numbers and bytes, in lines that fit 80 columns."""
    status, text, messages = output([ENDPOINTS[kind], "--os", system, "--example"], monkeypatch, capsys)
    assert (status, messages) == (0, "")
    assert text == (PLANS / f"{system}-{kind}.txt").read_text(encoding="utf-8")
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize("kind", ["ipv4", "ipv6"])
@pytest.mark.parametrize("system", PLATFORMS)
def test_the_plan_of_both_ways(
    system: str, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--both-ways shows all sockets of a McastSocket; the JSON has as many."""
    arguments = [ENDPOINTS[kind], "--os", system, "--example", "--both-ways"]
    status, text, messages = output(arguments, monkeypatch, capsys)
    assert (status, messages) == (0, "")
    assert text == (PLANS / f"{system}-both-ways-{kind}.txt").read_text(encoding="utf-8")
    assert max(len(line) for line in text.splitlines()) <= 80
    _, written, _ = output([*arguments, "--json"], monkeypatch, capsys)
    sockets = json.loads(written)["both_ways"]
    assert len(sockets) == text.count("  open  ")
    after_bind = [each["option"] for socket in sockets for each in socket["options_after_bind"]]
    assert after_bind == (["SO_REUSEADDR", "SO_REUSEPORT"] if system == "linux" else [])


@pytest.mark.parametrize(("system", "kind"), CASES)
def test_the_plan_as_json(
    system: str, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The JSON says the same as the text: every option's name, number and bytes are in both."""
    text = (PLANS / f"{system}-{kind}.txt").read_text(encoding="utf-8")
    _, written, _ = output([ENDPOINTS[kind], "--os", system, "--example", "--json"], monkeypatch, capsys)
    plan = json.loads(written)
    assert (plan["endpoint"], plan["os"], plan["why_no_send"]) == (ENDPOINTS[kind], system, None)
    options = [
        option
        for socket in (*plan["receive"], *plan["send"])
        for option in (*socket["options"], *(way for join in socket["memberships"] for way in join["first_that_works"]))
    ]
    shown = [line.split() for line in text.splitlines() if line.split()[:1] in (["set"], ["by"], ["or"])]
    assert [(words[1], int(words[3], 0)) for words in shown] == [(each["option"], each["number"]) for each in options]
    assert all(each["option"] in text and each["bytes"] for each in options)
    assert [socket["bind"][1] for socket in plan["receive"]] == [5000]
    (membership,) = plan["receive"][0]["memberships"]
    assert membership["interface"] == "eth0"
    assert membership["source"] == ("10.0.0.7" if kind == "source" else None)


def test_every_system_can_be_named() -> None:
    """--os takes exactly the systems that there are tables for."""


def test_an_interface_of_another_host(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that this host does not have is taken for an example's when the plan is for another OS."""
    _, text, _ = output(["239.1.2.3:5000%Ethernet 7", "--os", "windows"], monkeypatch, capsys)
    assert "join  239.1.2.3 on Ethernet 7" in text


def test_an_address_of_another_host(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An address tells no index, so one that this host does not have is an error."""
    status, _, messages = output(["239.1.2.3:5000", "-i", "192.0.2.77", "--os", "windows"], monkeypatch, capsys)
    assert (status, messages.split(".")[0]) == (1, "mcast: No matches found for interface IP address 192")


def test_no_loopback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """--no-loopback and --ttl show in the plan."""
    arguments = ["239.1.2.3:5000", "--os", "linux", "--example", "--no-loopback", "-t", "32", "--json"]
    _, written, _ = output(arguments, monkeypatch, capsys)
    (sending,) = json.loads(written)["send"]
    values = {option["option"]: option["value"] for option in sending["options"]}
    assert values == {"IP_MULTICAST_IF": "eth0 (index 5)", "IP_MULTICAST_TTL": "32", "IP_MULTICAST_LOOP": "0"}
