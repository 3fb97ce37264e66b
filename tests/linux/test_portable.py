"""The extension on other systems: with the C library of Alpine, and without the calls of Linux as macOS and FreeBSD."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from memory.test_extension import SOURCES, build

TESTS = Path(__file__).parents[1]

# The package meets this build, and waits as those systems do: not with epoll.
PROGRAM = """
import importlib.util, selectors, sys

specification = importlib.util.spec_from_file_location("multicast_expert._fast", sys.argv[1])
module = importlib.util.module_from_spec(specification)
specification.loader.exec_module(module)
assert not hasattr(module.Intake, "sweep")
sys.modules["multicast_expert._fast"] = module
selectors.DefaultSelector = selectors.SelectSelector

import pytest

sys.exit(pytest.main(sys.argv[2:]))
"""


@pytest.mark.skipif(shutil.which("musl-gcc") is None, reason="no musl-gcc")
@pytest.mark.parametrize("flags", [(), ("-DPORTABLE",)])
def test_the_c_library_of_alpine(flags: tuple[str, ...]) -> None:
    """All files compile against musl, whose structures have members that glibc's do not have."""
    headers = sysconfig.get_path("include")
    command = ["musl-gcc", "-std=c11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-DPy_LIMITED_API=0x030B0000"]
    # Debian's pyconfig.h includes one by its place below /usr/include.
    search = [f"-I{headers}", "-idirafter", "/usr/include"]
    subprocess.run([*command, *search, *flags, *SOURCES], check=True, timeout=60)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_the_same_without_the_calls_of_linux(tmp_path: Path) -> None:
    """It passes the tests of the extension, but for those of sweeping, for which it has no call."""
    extension = build(tmp_path, "-O2", "-DPORTABLE")
    files = [
        TESTS / "linux" / "test_intake.py",
        TESTS / "linux" / "test_interrupted_intakes.py",
        TESTS / "linux" / "test_receiving_batches.py",
        TESTS / "test_datagram.py",
    ]
    wanted = "not epoll and not recvmmsg and not python"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, extension, "-q", "-rs", "-p", "no:cacheprovider", "-k", wanted, *files],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    # Without a laboratory, others are.
    assert "the extension is not there" not in done.stdout, "a test of the extension was skipped"
    assert int(done.stdout.rpartition("\n")[0].rsplit("\n", 1)[-1].split(" passed")[0]) > 100
