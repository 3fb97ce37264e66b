"""The documents are true: their Python runs, their commands work, their links lead somewhere."""

import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import NamedTuple

import pytest

from multicast_expert.testing import Lab

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]

GROUP = re.compile(r"\b(?:2(?:2[4-9]|3\d)\.\d+\.\d+\.\d+|ff[0-9a-f]{2}:[0-9a-f:]+)")
PORT = re.compile(r"\b\d{4,5}\b")


class Block(NamedTuple):
    """A fenced code block: where it is, what its fence says about it, and its text."""

    place: str
    info: str
    text: str


def fenced_blocks(text: str, name: str) -> Iterator[Block]:
    """Every fenced block of a Markdown text."""
    info, start, lines = None, 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.lstrip().startswith("```"):
            lines.append(line)
        elif info is None:
            info, start, lines = line.strip().strip("`"), number, []
        else:
            yield Block(f"{name}:{start}", info, "\n".join(lines) + "\n")
            info = None


BLOCKS = [
    block
    for path in DOCUMENTS
    for block in fenced_blocks(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
]
PYTHON = [pytest.param(block.text, id=block.place) for block in BLOCKS if block.info.split()[:1] == ["python"]]
COMMANDS = [
    pytest.param(line.removeprefix("$ "), id=f"{block.place} {line}")
    for block in BLOCKS
    if block.info == "console run"
    for line in block.text.splitlines()
    if line.startswith("$ ")
]


@contextmanager
def hello(lab: Lab, groups: set[str], ports: set[str]) -> Iterator[None]:
    """Inside the block, the router keeps saying hello to every group on every port."""
    addresses = [(group, int(port)) for group in groups for port in ports if int(port) < 1 << 16]
    over = Event()

    def say() -> None:
        while not over.wait(0.05):
            for address in addresses:
                sockets[":" in address[0]].sendto(b"hello", address)

    with ExitStack() as stack:
        stack.enter_context(lab.nodes["router"].entered())
        sockets = [
            stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            for family in (socket.AF_INET, socket.AF_INET6)
        ]
        for sender in sockets:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        speaker = Thread(target=say)
        speaker.start()
        stack.callback(speaker.join)
        stack.callback(over.set)
        yield


def run_on_host(lab: Lab, command: Sequence[str | Path], directory: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command on the host of the documents, to its end."""
    return lab.nodes["host"].run(
        subprocess.run, command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize("code", PYTHON)
def test_python_in_the_documents_runs(documentation_network: Lab, code: str, tmp_path: Path) -> None:
    """Every Python block is a whole program that succeeds, warns of nothing and closes what it opens."""
    # A block that only receives needs somebody who sends; one that sends as well hears itself and nobody else.
    listens_only = "RxSocket" in code and "TxSocket" not in code
    groups = set(GROUP.findall(code)) if listens_only else set[str]()
    program = tmp_path / "block.py"
    program.write_text(code, encoding="utf-8")
    with hello(documentation_network, groups, set(PORT.findall(code))):
        done = run_on_host(documentation_network, [sys.executable, "-W", "error", program], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_first_two_blocks_talk_to_each_other(documentation_network: Lab, tmp_path: Path) -> None:
    """What the README's first block receives is what its second one sends, on one machine."""
    programs = []
    for number, block in enumerate(each for each in BLOCKS if each.place.startswith("README.md:")):
        if number == 2:
            break
        programs.append(tmp_path / f"block{number}.py")
        programs[-1].write_text(block.text, encoding="utf-8")
    host = documentation_network.nodes["host"]
    with host.run(subprocess.Popen, [sys.executable, programs[0]], stdout=subprocess.PIPE, text=True) as receiving:
        deadline = monotonic() + 20
        while receiving.poll() is None and monotonic() < deadline:
            assert run_on_host(documentation_network, [sys.executable, programs[1]], tmp_path).returncode == 0
        assert receiving.stdout is not None
        assert receiving.stdout.read().startswith("(b'hello', (")
        assert receiving.wait() == 0


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_in_the_documents_work(documentation_network: Lab, line: str, tmp_path: Path) -> None:
    """Every command of a block marked "console run" succeeds."""
    program, *arguments = shlex.split(line, comments=True)
    script = Path(sys.executable).with_name(program)
    with hello(documentation_network, set(GROUP.findall(line)), set(PORT.findall(line))):
        done = run_on_host(documentation_network, [script, *arguments], tmp_path)
    assert done.returncode == 0, done.stderr


def anchors(text: str) -> set[str]:
    """The fragment names that GitHub makes for a document's headings."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = (heading.strip() for heading in re.findall(r"^#+ +(.+)$", prose, flags=re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> list[str]:
    """Links from this document to a file or heading that is not there."""
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", link):
            continue  # another site
        name, _, fragment = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (fragment and fragment not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    """Every relative link names a file that exists and, after a #, one of its headings."""
    assert broken_links(path) == []


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    """The check of the links sees a missing file and a missing heading, and lets good links and code be."""
    page = tmp_path / "page.md"
    page.write_text("# A title, with `code`\n[a](none.md) [b](#no) [c](#a-title-with-code) [d](https://x) `[e](f)`\n")
    assert broken_links(page) == ["none.md", "#no"]
