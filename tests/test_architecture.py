"""The shape of the package, read from its syntax trees: pure files stay pure, and imports run one way."""

import ast
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

import multicast_expert

# The rooms of the house, floor by floor, the ground first. A file imports from lower floors and from its own room only.
FLOORS = [
    [{"_fast"}],
    [{"extension"}],
    [{"platforms", "core"}],
    [{"stamp"}, {"system"}],
    [{"wire"}],
    [{"engine"}],
    [{"doctor"}, {"observe"}],
    [{"sockets"}],
    [{"ping"}, {"bridge"}, {"recording"}],
    [{"__init__"}],
    [{"cli"}, {"testing"}],
    [{"__main__"}],
]

# Files and folders that speak for no machine, and what they may use of the standard library.
PURE = {
    "core",
    "platforms",
    "stamp",
    "wire.bridge_greeting",
    "wire.capture_file",
    "wire.captured",
    "wire.frame",
    "wire.frames",
    "wire.group_messages",
    "wire.packet_filter",
    "wire.pcapng",
    "wire.recognise",
    "wire.tallies",
    "wire.transport_stream",
    "wire.udp_place",
    "system.listings",
    "system.netlink",
    "system.drops.assembler",
    "system.drops.btf",
    "system.drops.counting",
    "system.drops.drop_monitor",
    "system.drops.dropped",
    "system.drops.program",
    "system.drops.symbols",
    "system.drops.tracepoint",
} | {
    "doctor.facts",
    "doctor.host.command_outputs",
    "doctor.host.drops",
    "doctor.host.linux_counters",
    "doctor.firewall",
    "doctor.checks",
    "doctor.evidence",
    "doctor.judgement",
    "doctor.path",
    "doctor.phrases",
    "doctor.report",
    "doctor.saved",
    "doctor.unread",
    "observe.found",
    "observe.members",
    "observe.columns",
    "observe.latency",
    "observe.links",
    "observe.loss",
    "observe.measured_stream",
    "observe.meter",
    "observe.sequence",
    "observe.streams",
    "observe.querier",
    "ping.conversation",
    "ping.limits",
    "ping.measuring",
    "ping.messages",
    "ping.queries",
    "ping.server",
    "ping.tally",
    "ping.verdict",
    "ping.window",
    "bridge.election",
    "bridge.frames",
    "bridge.guards",
    "bridge.interest",
    "bridge.ledger",
    "bridge.pulse",
    "bridge.status",
    "bridge.streams",
    "ping.wish",
    "cli.parameters",
    "cli.render",
}
# What they may import too: it only says in which form things run.
CHOICE = {"extension"}
PURE_LIBRARY = {
    "__future__", "abc", "array", "bisect", "collections", "dataclasses", "difflib", "enum", "errno", "functools",
    "hashlib", "heapq", "inspect", "ipaddress", "itertools", "json", "math", "operator", "re", "shlex", "statistics",
    "string", "struct", "textwrap", "types", "typing", "unicodedata", "warnings",
}  # fmt: skip
PURE_PARTS = {"urllib.parse.unquote"}  # of modules that are not pure as a whole

# Who may use what comes from outside the standard library.
THIRD_PARTY = {
    "psutil": {"system.bsd"},
    "prometheus_client": {"cli.exporter"},
    "textual": {"cli.top_screen"},
    "zenoh": {"bridge.network"},
    "pytest": {"testing"},
}

# Who may ask which operating system is running.
ASKS_FOR_THE_SYSTEM = {"system.base", "system.kernel", "system.winsock", "testing"}


def named(module: str, names: Collection[str]) -> bool:
    """Whether the module, or a folder that it lies in, is among the names."""
    parts = module.split(".")
    return any(".".join(parts[:length]) in names for length in range(1, len(parts) + 1))


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def system_questions(tree: ast.AST) -> Iterator[str]:
    """Expressions that ask which operating system is running."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"sys.platform", "os.name", "os.uname"}:
            yield ast.unparse(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (name for name in imports(node) if name.split(".")[0] == "platform")
            yield from (name for name in imports(node) if name in {"sys.platform", "os.name", "os.uname"})


def breaches(module: str, tree: ast.AST) -> Iterator[str]:
    """What a file does against the rules; its name is relative to the package, such as platforms.linux."""
    place = {name: (floor, room) for floor, rooms in enumerate(FLOORS) for room in rooms for name in room}
    own = module.partition(".")[0]
    if own not in place:
        yield f"{module} has no place on a floor"
        return
    floor, room = place[own]
    for name in imports(tree):
        origin, *inside = name.split(".")
        if not origin:
            yield f"{module} imports {name} by a relative name"
        elif origin == multicast_expert.__name__:
            target = inside[0] if inside and inside[0] in place else "__init__"
            target_floor, target_room = place[target]
            if target_floor >= floor and target_room is not room:
                yield f"{module} imports {name}, which is not below it"
            if named(module, PURE) and not named(".".join(inside), PURE | CHOICE):
                yield f"{module} is pure and imports {name}, which is not"
        elif origin not in sys.stdlib_module_names:
            if not named(module, THIRD_PARTY.get(origin, ())):
                yield f"{module} uses {origin}"
        elif named(module, PURE) and origin not in PURE_LIBRARY and name not in PURE_PARTS:
            yield f"{module} is pure and uses {origin}"
    if not named(module, ASKS_FOR_THE_SYSTEM):
        yield from (f"{module} asks for {question}" for question in system_questions(tree))


def modules() -> Iterator[tuple[str, Path]]:
    """Every file of the package, under its name relative to the package."""
    assert multicast_expert.__file__ is not None
    package = Path(multicast_expert.__file__).parent
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        yield ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def tree_of(module: str) -> ast.Module:
    """The syntax tree of a file. None is kept: all together take 100 MB in each process that collects tests."""
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", MODULES)
def test_every_file_keeps_to_the_rules(module: str) -> None:
    """Imports run one way, pure files import pure things, and few files know which system is running."""
    assert list(breaches(module, tree_of(module))) == []


@pytest.mark.parametrize("package", ["__init__", "testing"])
def test_a_package_only_passes_names_on(package: str) -> None:
    """The file of a package holds imports, names and the two functions that load a name on its first use."""
    statements = list(tree_of(package).body)
    for branch in [each for each in statements if isinstance(each, ast.If)]:
        statements += branch.body
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr, ast.If)
    logic = [each for each in statements if not isinstance(each, allowed)]
    assert [each.name for each in logic if isinstance(each, ast.FunctionDef)] == ["__getattr__", "__dir__"]
    assert len(logic) == 2


@pytest.mark.parametrize(
    ("module", "code", "breach"),
    [
        ("core.plan", "import socket", "core.plan is pure and uses socket"),
        ("platforms.linux", "from os import path", "platforms.linux is pure and uses os"),
        (
            "core.plan",
            "from multicast_expert.engine import x",
            "core.plan imports multicast_expert.engine.x, which is not below it",
        ),
        ("core.plan", "from .engine import x", "core.plan imports .engine.x by a relative name"),
        (
            "engine",
            "def f():\n  from multicast_expert.doctor import report",
            "engine imports multicast_expert.doctor.report, which is not below it",
        ),
        (
            "engine",
            "from multicast_expert import McastRxSocket",
            "engine imports multicast_expert.McastRxSocket, which is not below it",
        ),
        (
            "doctor.checks",
            "import multicast_expert.engine",
            "doctor.checks is pure and imports multicast_expert.engine, which is not",
        ),
        ("sockets.receiver", "import sys\nsys.platform", "sockets.receiver asks for sys.platform"),
        ("sockets.receiver", "from sys import platform", "sockets.receiver asks for sys.platform"),
        ("sockets.receiver", "import platform", "sockets.receiver asks for platform"),
        ("engine", "import psutil", "engine uses psutil"),
        ("core.plan", "import numpy", "core.plan uses numpy"),
        ("helpers", "", "helpers has no place on a floor"),
    ],
)
def test_a_breach_is_noticed(module: str, code: str, breach: str) -> None:
    """The rules above catch what they are for."""
    assert breach in list(breaches(module, ast.parse(code)))


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("platforms.linux", "import struct\nfrom multicast_expert.platforms.layouts import group_req"),
        ("engine", "import socket\nfrom multicast_expert.core.plan import plan"),
        ("sockets.aio", "import asyncio\nfrom multicast_expert.sockets.receiver import McastRxSocket"),
        ("system.kernel", "import sys\nsys.platform"),
        ("cli.send", "import argparse\nfrom multicast_expert import McastTxSocket"),
    ],
)
def test_good_files_pass(module: str, code: str) -> None:
    """The rules above let through what they are to let through."""
    assert list(breaches(module, ast.parse(code))) == []


def edges() -> dict[str, set[str]]:
    """The modules that each module imports, wherever in the file, also lazily and for type checkers only."""
    names = MODULES.keys()
    found: dict[str, set[str]] = {}
    for module in MODULES:
        inside = [name.partition(".")[2] for name in imports(tree_of(module)) if name.startswith("multicast_expert.")]
        inside = [name for name in inside if name.partition(".")[0] != "_fast"]  # it is not Python
        # `from package import name` means the module of that name, or a name in the package.
        targets = {name if name in names else name.rpartition(".")[0] or "__init__" for name in inside}
        found[module] = targets & names - {module}
    return found


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        pending = [start]
        while pending:
            new = graph[pending.pop()] - seen
            seen |= new
            pending += new
        return seen

    reach = {node: reached(node) for node in graph}
    groups = {frozenset(other for other in reach[node] if node in reach[other]) for node in graph}
    return sorted(sorted(group) for group in groups if group)


def room_of(module: str) -> str:
    """The innermost folder that a module lies in; a file beside folders stands for itself."""
    names = MODULES.keys()
    folder = module if any(name.startswith(f"{module}.") for name in names) else module.rpartition(".")[0]
    has_folders = any(name.startswith(f"{folder}.") and "." in name.removeprefix(f"{folder}.") for name in names)
    return module if has_folders or not folder or folder == module else folder


@pytest.mark.slow
def test_no_imports_go_in_a_circle() -> None:
    """No module needs itself, however many others are in between; and so it is with rooms."""
    graph = edges()
    assert cycles(graph) == []
    rooms: dict[str, set[str]] = {}
    for module, targets in graph.items():
        rooms.setdefault(room_of(module), set()).update(room_of(each) for each in targets)
    assert cycles({room: targets - {room} for room, targets in rooms.items()}) == []


def test_a_circle_is_noticed() -> None:
    """The search finds a circle of any length, and only what is in it."""
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
