"""The documents are true: their Python runs, their commands work, their links lead somewhere."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]

# The host that the documents run on: a loopback interface that carries IPv6 multicast, and eth0 with a router at its
# other end, in the namespace of the process $ROUTER. The fixed link-local address and the multicast route are what the
# kernel would add by itself, up to two seconds later.
HOST = """
set -e
ip link set lo up
ip -6 route add local ff00::/8 dev lo table local
ip link add eth0 type veth peer name uplink netns "$ROUTER"
ip link set eth0 addrgenmode none
ip addr add 10.9.0.1/24 dev eth0
ip addr add fd09::1/64 dev eth0 nodad
ip addr add fe80::1/64 dev eth0 nodad
nsenter --target "$ROUTER" --net sh -c '
    ip addr add 10.9.0.254/24 dev uplink
    ip addr add fd09::ffff/64 dev uplink nodad
    ip link set uplink up'
ip link set eth0 up
ip -6 route replace multicast ff00::/8 dev eth0 table local metric 256
ip route add default via 10.9.0.254
ip -6 route add default via fd09::ffff
exec "$@"
"""

# Says hello to every group on every port, again and again, until its standard input closes.
ROUTER = """
import ipaddress, itertools, select, socket, sys

print("there", flush=True)
groups, ports = sys.argv[1].split(), sys.argv[2].split()
while not select.select([sys.stdin], [], [], 0.05)[0]:
    for group, port in itertools.product(groups, ports):
        family = socket.AF_INET if ipaddress.ip_address(group).version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            try:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"uplink")
                sender.sendto(b"hello", (group, int(port)))
            except (OSError, OverflowError):
                pass  # the cable is not plugged in yet, or the number is no port
"""

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

needs_namespaces = pytest.mark.skipif(sys.platform != "linux", reason="their host is a Linux network namespace")


def run_on_host(
    command: Sequence[str], directory: Path, groups: set[str], ports: set[str]
) -> "subprocess.CompletedProcess[str]":
    """Run a command on a host of its own, whose router keeps saying hello to the groups."""
    router = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", ROUTER, " ".join(groups), " ".join(ports)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with router:  # leaving closes its standard input, which ends it
        assert router.stdout is not None
        assert router.stdout.readline() == "there\n"
        return subprocess.run(
            ["unshare", "--net", "env", f"ROUTER={router.pid}", "sh", "-c", HOST, "sh", *command],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@needs_namespaces
@pytest.mark.parametrize("code", PYTHON)
def test_python_in_the_documents_runs(code: str, tmp_path: Path) -> None:
    """Every Python block is a whole program that succeeds, warns of nothing and closes what it opens."""
    # A block that only receives needs somebody who sends; one that sends as well hears itself and nobody else.
    listens_only = "RxSocket" in code and "TxSocket" not in code
    groups, ports = (set(GROUP.findall(code)), set(PORT.findall(code))) if listens_only else (set[str](), set[str]())
    program = tmp_path / "block.py"
    program.write_text(code, encoding="utf-8")
    done = run_on_host([sys.executable, "-W", "error", str(program)], tmp_path, groups, ports)
    assert (done.returncode, done.stderr) == (0, "")


@needs_namespaces
@pytest.mark.parametrize("line", COMMANDS)
def test_commands_in_the_documents_work(line: str, tmp_path: Path) -> None:
    """Every command of a block marked "console run" succeeds."""
    program, *arguments = shlex.split(line, comments=True)
    script = Path(sys.executable).with_name(program)
    done = run_on_host([str(script), *arguments], tmp_path, set(GROUP.findall(line)), set(PORT.findall(line)))
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
