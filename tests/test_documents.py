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

import pytest

from documents_text import BLOCKS, DOCUMENTS, ROOT, SITE, Block, expected_lines, fenced_blocks, missing_line
from multicast_expert.testing import Lab
from programs import need

GROUP = re.compile(r"\b(?:2(?:2[4-9]|3\d)\.\d+\.\d+\.\d+|ff[0-9a-f]{2}:[0-9a-f:]+)")
PORT = re.compile(r"\b\d{4,5}\b")

# A test in a document needs no plugin but ours, and loading takes long.
QUICK = ["-p", "no:cacheprovider", "-p", "multicast_expert.testing.pytest_plugin", "--disable-plugin-autoload"]

# Where a block runs, by the title of its tab. Without one, on a machine that has a loopback interface only.
PLACES = {"": "alone", "This machine only": "alone", "IPv6 on this machine": "alone with IPv6", "Over eth0": "host"}

PYTHON = [pytest.param(block, id=block.place) for block in BLOCKS if block.info.split()[:1] == ["python"]]
COMMANDS = [
    pytest.param(line.removeprefix("$ "), id=f"{block.place} {line}")
    for block in BLOCKS
    if block.mark == "run"
    for line in block.text.splitlines()
    if line.startswith("$ ")
]


@pytest.fixture(scope="module")
def places(documentation_network: Lab) -> Lab:
    """The network that the documents speak of, with machines that have a loopback interface only."""
    documentation_network.host("alone")
    documentation_network.host("alone with IPv6").allow_ipv6_loopback()
    return documentation_network


@contextmanager
def hello(lab: Lab, place: str, groups: set[str], ports: set[str]) -> Iterator[None]:
    """Inside the block, somebody keeps saying hello to every group on every port, where a machine hears it.

    The machine with eth0 hears the router; one that is alone hears itself.
    """
    addresses = [(group, int(port)) for group in groups for port in ports if int(port) < 1 << 16]
    speaker, interface = ("router", b"eth0") if place == "host" else (place, b"lo")
    over = Event()

    def say() -> None:
        while not over.wait(0.05):
            for address in addresses:
                sockets[":" in address[0]].sendto(b"hello", address)

    with ExitStack() as stack:
        stack.enter_context(lab.nodes[speaker].entered())
        sockets = [
            stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            for family in (socket.AF_INET, socket.AF_INET6)
        ]
        for sender in sockets:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface)
        if interface == b"lo":
            sockets[0].setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        thread = Thread(target=say)
        thread.start()
        stack.callback(thread.join)
        stack.callback(over.set)
        yield


def run_in(lab: Lab, place: str, command: Sequence[str | Path], directory: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command on a machine of the lab, to its end."""
    return lab.nodes[place].run(
        subprocess.run, command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90
    )


@pytest.mark.parametrize("block", PYTHON)
def test_python_in_the_documents_runs(places: Lab, block: Block, tmp_path: Path) -> None:
    """Every Python block is a whole program that prints what it promises, warns of nothing and closes what it opens.

    It runs where the title of its tab says. A block with a title in its fence is a test, and passes.
    """
    name = re.search(r'title="(test_\w+\.py)"', block.info)
    program = tmp_path / (name[1] if name else "block.py")
    program.write_text(block.text, encoding="utf-8")
    if name:
        for needed in re.findall(r'shutil\.which\("([\w-]+)"\)', block.text):
            need(needed)
        command = [sys.executable, "-m", "pytest", "-q", *QUICK, program]
        done = run_in(places, "host", command, tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert "skipped" not in done.stdout
        return
    # A block that only receives needs somebody who sends; one that sends as well hears itself and nobody else.
    listens_only = "RxSocket" in block.text and "TxSocket" not in block.text
    groups = set(GROUP.findall(block.text)) if listens_only else set[str]()
    place = PLACES[block.tab]
    with hello(places, place, groups, set(PORT.findall(block.text))):
        done = run_in(places, place, [sys.executable, "-W", "error", program], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout, "it prints nothing"
    assert missing_line(expected_lines(block.text), done.stdout.splitlines()) is None, done.stdout


def test_a_promise_that_is_broken_is_noticed() -> None:
    """The comments behind `print` are compared, in their order; one that begins with an ellipsis only describes."""
    expected = expected_lines("print(a)  # 1\nprint(b)  # for example: port 7\nprint(c)  # … an error\nprint(d)\n")
    assert expected == ["1", "for example: port 7"]
    assert missing_line(expected, ["1", "port 51234", "anything"]) is None
    assert missing_line(expected, ["2", "port 7"]) == "1"
    assert missing_line(expected, ["port 7", "1"]) == "for example: port 7"
    assert missing_line(expected, ["1", "gate 7"]) == "for example: port 7"


@pytest.mark.parametrize("info", sorted({block.info for block in BLOCKS}))
def test_a_fence_is_one_that_the_site_knows(info: str) -> None:
    """Anything but a language and a title makes the site show the fence and what follows as text."""
    assert re.fullmatch(r'(\w+( title="[^"]+")?)?', info)


@pytest.mark.parametrize("block", [each for each in PYTHON if each.values[0].tab != "Over eth0"])
def test_python_without_a_network_runs_on_every_system(block: Block) -> None:
    """A block that is not about eth0 names the loopback interface by its address: only Linux has one called lo."""
    assert not re.search(r"""["']lo0?["']""", block.text)


def test_the_tab_of_a_block_is_found() -> None:
    """A block inside of a tab knows its title, and prose at the margin ends the tabs."""
    text = '=== "Over eth0"\n\n    ```python\n    a = 1\n    ```\n\nProse.\n\n```python\nb = 2\n```\n'
    assert [(block.tab, block.text) for block in fenced_blocks(text, "page")] == [
        ("Over eth0", "a = 1\n"),
        ("", "b = 2\n"),
    ]


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
            assert run_in(documentation_network, "host", [sys.executable, programs[1]], tmp_path).returncode == 0
        assert receiving.stdout is not None
        assert receiving.stdout.read().startswith("(b'hello', (")
        assert receiving.wait() == 0


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_in_the_documents_work(documentation_network: Lab, line: str, tmp_path: Path) -> None:
    """Every command of a block that is marked `run` succeeds."""
    program, *arguments = shlex.split(line, comments=True)
    script = Path(sys.executable).with_name(program)
    with hello(documentation_network, "host", set(GROUP.findall(line)), set(PORT.findall(line))):
        done = run_in(documentation_network, "host", [script, *arguments], tmp_path)
    assert done.returncode == 0, done.stderr


def anchors(text: str) -> set[str]:
    """The fragment names that GitHub makes for a document's headings."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = (heading.strip() for heading in re.findall(r"^#+ +(.+)$", prose, flags=re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def page_of(address: str) -> Path:
    """The file of a page of the site."""
    place = ROOT / "docs" / address.removeprefix(SITE)
    return place / "index.md" if place.is_dir() else place.with_suffix(".md")


def broken_links(path: Path) -> list[str]:
    """Links from this document to a file or heading that is not there."""
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        name, _, fragment = link.partition("#")
        if link.startswith(SITE):
            target = page_of(name)
        elif re.match(r"[a-z]+:", link):
            continue  # another site
        else:
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
    page.write_text(
        "# A title, with `code`\n[a](none.md) [b](#no) [c](#a-title-with-code) [d](https://x) `[e](f)` "
        f"[g]({SITE}tutorial/#install) [h]({SITE}tutorial/#nothing) [i]({SITE}nowhere/)\n"
    )
    assert broken_links(page) == ["none.md", "#no", f"{SITE}tutorial/#nothing", f"{SITE}nowhere/"]
