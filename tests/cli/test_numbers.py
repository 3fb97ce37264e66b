"""Numbers and groups on the command line that make no sense are an error that says so; none does nothing silently."""

import shlex

import pytest

from cli.conftest import Run
from multicast_expert.cli import load
from multicast_expert.cli.completion import candidates
from multicast_expert.cli.parsing import parse

GROUP = "239.1.2.3:5000"
MANY = "9" * 5000
SECONDS = "is not a number of seconds."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            f"watch {GROUP}",
            f"{GROUP} names more than a group: IGMP and MLD know no ports, and interfaces come with -i.",
        ),
        ("watch 10.0.0.7@232.1.2.3", "10.0.0.7@232.1.2.3 names more than a group"),
        ("watch 239.1.2.3%eth0", "239.1.2.3%eth0 names more than a group"),
        (
            f"scan -g {GROUP}",
            f"{GROUP} names more than a group: ports come with --port, and interfaces with -i. Write 239",
        ),
        ("watch --on-join /nowhere/program", "--on-join, --on-leave: there is no program /nowhere/program."),
        ("watch --on-join true --on-leave 'nowhere x'", "--on-join, --on-leave: there is no program nowhere."),
        (f"watch --on-join {__file__}", f"--on-join, --on-leave: there is no program {__file__}."),
        ("watch --for 0", "Invalid value for '--for': '0' is no time: it takes more than 0 seconds."),
        ("top --for 0", "Invalid value for '--for': '0' is no time"),
        ("querier --for 0", "Invalid value for '--for': '0' is no time"),
        (f"send {GROUP} --for 0", "Invalid value for '--for': '0' is no time"),
        ("ping 10.0.0.2 -W 0", "Invalid value for '-W': '0' is no time"),
        ("ping 10.0.0.2 -i -1", f"Invalid value for '-i' / '--interval': '-1' {SECONDS}"),
        ("ping 10.0.0.2 -i -.5", f"Invalid value for '-i' / '--interval': '-.5' {SECONDS}"),
        ("ping 10.0.0.2 -W -inf", f"Invalid value for '-W': '-inf' {SECONDS}"),
        ("ping 10.0.0.2 --interval -nan", f"Invalid value for '-i' / '--interval': '-nan' {SECONDS}"),
        ("ping 10.0.0.2 -c -4", "Argument -c/--count: expected one argument."),
        ("pong --ttl -1", "Invalid value for '--ttl': '-1' is not a whole number from 1 to 255."),
        (
            f"send {GROUP} -c 2 --interval 1e300",
            "Invalid value for '--interval': '1e300' is more than 1,000,000,000 sec",
        ),
        (
            f"send {GROUP} -c {'9' * 25}",
            f"Invalid value for '-c' / '--count': {'9' * 25} is more than 1,000,000,000,00",
        ),
        (f"recv {GROUP} -c {MANY}", f"Invalid value for '-c' / '--count': {MANY} is more than 1,000,000,000,000,000."),
        ("replay x --from 1e300", "Invalid value for '--from': '1e300' is more than 1,000,000,000 seconds"),
        ("replay x --to inf", "Invalid value for '--to': 'inf' is not a number of seconds"),
        (
            "replay x --speed 1e-320",
            "Invalid value for '--speed': '1e-320' is no speed: a number from 0.000001 on, or max.",
        ),
        (
            f"record x {GROUP} --size {MANY}",
            f"Invalid value for '--size': '{MANY}' is not a size such as 100MB or 2GiB.",
        ),
        (f"record x {GROUP} --spare {MANY}", f"Invalid value for '--spare': '{MANY}' is not a size such as 100MB"),
    ],
)
def test_what_makes_no_sense(mcast: Run, line: str, message: str) -> None:
    """The error names the option, the value and what is possible; nothing is opened."""
    done = mcast(*shlex.split(line))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mcast: {message}"), done.stderr


def test_a_pause_of_ages_is_a_pause(mcast: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several long intervals come together, it sleeps for as long as Python can; it does not fail."""
    slept = []

    def note(seconds: float) -> None:
        slept.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr("multicast_expert.cli.sending.sleep", note)
    done = mcast("send", GROUP, "-i", "lo", "-c", "99", "--burst", "20", "--interval", "1e9")
    assert (done.returncode, slept) == (130, [1e9])
    assert done.stderr.startswith("20 datagrams, ")


def test_a_negative_number_is_the_value_of_an_option_only() -> None:
    """An option that looks like a number stays one, and so does all behind `--`."""
    slots = load("ping").slots
    assert parse(slots, ["h", "-4", "-W", "3"]) == {"texts": ["h"], "only4": True, "patience": 3.0}
    assert parse(slots, ["-i", "1", "--", "-i", "-1"]) == {"texts": ["-i", "-1"], "interval": 1.0}


def test_watch_is_completed_by_groups_without_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both IP versions, as it takes them, each once."""
    joined = [("239.1.2.3:5000", "a"), ("239.1.2.3:6000", "a"), ("[ff15::1]:", "b")]
    monkeypatch.setattr("multicast_expert.cli.completion._endpoints", lambda _: iter(joined))
    assert list(candidates(["watch", ""])) == [("239.1.2.3", "a"), ("ff15::1", "b")]
    assert list(candidates(["watch", "ff"])) == [("ff15::1", "b")]
