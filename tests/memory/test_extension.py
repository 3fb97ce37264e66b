"""The extension under tools that watch its memory, while many datagrams go through it."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

HAMMER = Path(__file__).with_name("hammer.py")
SOURCES = sorted((Path(__file__).parents[2] / "native").glob("*.c"))
MILLION = 1_000_000
"""Enough for what grows by little to become visible."""
SOME = 60_000
"""Two rounds of the hammer, for tools that report the first wrong access and each lost block."""
KEPT = {"execute", "gc_alloc"}
"""Functions of the interpreter that make what valgrind cannot see is kept: a module at its import, a container."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="the extension is for Linux"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler"),
]


def build(directory: Path, *flags: str) -> Path:
    """Compile the extension with these flags, beside the one that is installed."""
    extension = directory / "_fast.abi3.so"
    headers = sysconfig.get_path("include")
    command = ["gcc", "-std=c11", "-shared", "-fPIC", "-g", "-DPy_LIMITED_API=0x030B0000", f"-I{headers}", *flags]
    subprocess.run([*command, *SOURCES, "-o", extension], check=True, timeout=120)
    return extension


def hammer(
    extension: Path, count: int, prefix: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> None:
    """Let so many datagrams through; whatever the tool or the hammer complains about fails the test."""
    done = subprocess.run(
        [*prefix, sys.executable, HAMMER, extension, str(count)],
        env={**os.environ, "PYTHONMALLOC": "malloc", **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-8000:]
    assert " datagrams; memory in use grew by " in done.stdout


def test_memory_does_not_grow(tmp_path: Path) -> None:
    """The second half of a million datagrams leaves no more memory in use than the first."""
    hammer(build(tmp_path, "-O2"), MILLION)


def test_address_sanitizer_finds_nothing(tmp_path: Path) -> None:
    """No access out of bounds or after free, and no undefined behaviour."""
    runtime = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()
    if not Path(runtime).is_absolute():
        pytest.skip("gcc has no AddressSanitizer")
    sanitize = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1")
    # What the interpreter itself keeps at its end is no leak of ours; the hammer compares the memory in use.
    environment = {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1"}
    hammer(build(tmp_path, *sanitize), SOME, environment=environment)


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind")
def test_valgrind_finds_nothing(tmp_path: Path) -> None:
    """No use of uninitialised memory, and no block lost, with the extension in the call stack.

    Where valgrind calls a block possibly lost, two kinds are left out, to which the interpreter keeps pointers into
    their middle only: the names of the types' attributes, which the import makes, and containers, because the
    interpreter hands a freed dict to its next owner with the call stack of the first. One that is really lost has no
    pointer at all, and counts.
    """
    extension = build(tmp_path, "-O1")
    report = tmp_path / "report.xml"
    options = ["--leak-check=full", "--show-leak-kinds=definite,possible", "--xml=yes", f"--xml-file={report}"]
    hammer(extension, SOME, ["valgrind", "--quiet", "--num-callers=30", *options])
    errors = ElementTree.parse(report).getroot().findall("error")
    ours = [
        ElementTree.tostring(error, encoding="unicode")
        for error in errors
        if any(frame.text == str(extension) for frame in error.iter("obj"))
        and not (error.findtext("kind") == "Leak_PossiblyLost" and any(of.text in KEPT for of in error.iter("fn")))
    ]
    assert not ours, "\n".join(ours)
