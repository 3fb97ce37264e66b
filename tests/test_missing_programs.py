"""A test that meets a missing program is skipped, also if a process that it has started meets it."""

import subprocess
import sys

import pytest

import programs
from programs import missing_program

MISSING = "no-such-program"
SENTENCE = f"the program `{MISSING}` is not installed (Debian package none)"


@pytest.fixture(autouse=True)
def one_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests know a program that this machine does not have, and look where everybody may look."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setitem(programs.PACKAGES, MISSING, "none")


def test_it_is_missing_here() -> None:
    """The error of subprocess names it, and an error that it has led to is as good."""
    with pytest.raises(FileNotFoundError) as caught:
        subprocess.run([MISSING], check=True)
    assert missing_program(caught.value) == SENTENCE
    caused = RuntimeError("no interface")
    caused.__cause__ = caught.value
    assert missing_program(caused) == SENTENCE


def test_it_is_missing_to_a_process() -> None:
    """The traceback that a process wrote, in the message of a failed assertion, names it."""
    program = f"import subprocess; subprocess.run([{MISSING!r}])"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    with pytest.raises(AssertionError) as caught:
        assert finished.returncode == 0, finished.stderr
    assert missing_program(caught.value) == SENTENCE


def test_it_is_missing_to_a_shell() -> None:
    """What a shell says about it is enough, too: that of this machine, dash and bash."""
    finished = subprocess.run(["sh", "-c", MISSING], capture_output=True, text=True, check=False)
    for said in (finished.stderr, f"sh: 1: {MISSING}: not found", f"bash: line 1: {MISSING}: command not found"):
        assert missing_program(AssertionError(f"{MISSING} -w a=1: {said}")) == SENTENCE


@pytest.mark.parametrize("name", ["python3", "/etc/no-such-file", "unknown-program"])
def test_other_errors_remain(name: str) -> None:
    """A file that is missing, a program that no list names, and one that is there, are failures."""
    said = f"FileNotFoundError: [Errno 2] No such file or directory: '{name}'"
    assert missing_program(AssertionError(said)) is None
    assert missing_program(FileNotFoundError(2, "No such file or directory", name)) is None
