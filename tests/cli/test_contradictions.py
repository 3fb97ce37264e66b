"""Options that contradict each other, or make no sense without another one, are an error and never ignored."""

from itertools import combinations
from typing import Any

import pytest

from cli.conftest import Run
from multicast_expert.cli import COMMANDS, load
from multicast_expert.cli.parameters import UsageError

GROUP = "239.1.2.3:5000"


def given(name: str, *words: str) -> dict[str, Any]:
    """The values of a command's parameters that these words of its tables stand for."""
    found = {}
    for word in words:
        (slot,) = (each for each in load(name).slots if word in (*each.parameter.words(True), each.parameter.negation))
        found[slot.name] = word != slot.parameter.negation
    return found


EXCLUDED = [
    (name, pair) for name in COMMANDS for words in load(name).excludes for pair in combinations(words.split(), 2)
]
NEEDED = [(name, words.split()) for name in COMMANDS for words in load(name).needs]


@pytest.mark.parametrize(("name", "pair"), EXCLUDED)
def test_each_pair_of_the_tables(name: str, pair: tuple[str, str]) -> None:
    """Both words are parameters of the command; one alone passes, and both together do not."""
    for word in pair:
        load(name).check({**given(name, word), **given(name, *{need[1] for _, need in NEEDED if need[0] == word})})
    with pytest.raises(UsageError, match=r"^(.*) and (.*) exclude each other\.$"):
        load(name).check(given(name, *pair))


@pytest.mark.parametrize(("name", "words"), NEEDED)
def test_each_need_of_the_tables(name: str, words: list[str]) -> None:
    """Each of those that are named is enough."""
    with pytest.raises(UsageError, match=f"^{words[0]} needs .*{words[-1]}.$"):
        load(name).check(given(name, words[0]))
    for other in words[1:]:
        load(name).check(given(name, words[0], other))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pong -4 -6", "-4 and -6 exclude each other."),
        ("pong --ipv4 --ipv6", "-4 and -6 exclude each other."),
        ("pong -4 --groups ff15::/16", "--groups ff15::/16 is IPv6, and -4 excludes it."),
        ("querier -4 -6", "-4 and -6 exclude each other."),
        ("querier -4 --mld-version 2", "-4 and --mld-version exclude each other."),
        ("querier -6 --version 3", "-6 and --version exclude each other."),
        ("ping 10.0.0.2 -4 -6", "-4 and -6 exclude each other."),
        ("ping 10.0.0.2 --ssm --asm", "--ssm and --asm exclude each other."),
        ("ping 10.0.0.2 --sweep -q", "--sweep and -q exclude each other."),
        ("ping 10.0.0.2 --sweep --no-doctor", "--sweep and --no-doctor exclude each other."),
        ("ping 10.0.0.2 10.0.0.3 --sweep", "--sweep takes one host."),
        ("scan --port 5000", "--port needs --groups."),
        (f"send {GROUP} --interval 0.1", "--interval needs -c, --for or --lines."),
        (f"send {GROUP} --burst 5", "--burst needs -c, --for, --lines or --rate."),
        (f"send {GROUP} text --file x --lines", "TEXT, --file and --lines exclude each other."),
        (f"record x.pcapng {GROUP} --wire --wait", "--wire and --wait exclude each other."),
        (f"record x.pcapng {GROUP} --wire --receive-buffer 9", "--wire and --receive-buffer exclude each other."),
        (f"doctor {GROUP} --explain socket", "--explain and ENDPOINT exclude each other."),
        ("doctor --explain socket --json", "--explain and --json exclude each other."),
        (f"bridge {GROUP} --trust x.pem", "--trust and --identity need a locator that begins with tls/ or quic/"),
        (f"bridge {GROUP} --identity x --connect tcp/10.0.0.2:7447", "--trust and --identity need a locator that"),
    ],
)
def test_a_command_line_that_contradicts_itself(mcast: Run, line: str, message: str) -> None:
    """Nothing is opened, and the exit status is 2."""
    done = mcast(*line.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mcast: {message}"), done.stderr


def test_both_sides_of_a_switch_are_told_apart() -> None:
    """`--doctor` is what a sweep does not contradict; an argument has its name in the help."""
    load("ping").check({"texts": ["10.0.0.2"], "sweeps": True, "doctor": True})
    with pytest.raises(UsageError, match=r"^--sweep and --no-doctor exclude each other\.$"):
        load("ping").check({"texts": ["10.0.0.2"], "sweeps": True, "doctor": False})
