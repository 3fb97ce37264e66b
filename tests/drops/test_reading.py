"""What is read for the verdict: the kernel's types, the names of its functions, keys, and why it refuses."""

import errno
import struct
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.system.drops import kernel_watch
from multicast_expert.system.drops.assembler import FRAME, R0, R1, R2, Assembler
from multicast_expert.system.drops.btf import LONGEST, Btf
from multicast_expert.system.drops.program import KEY_SIZE, MEMBERS, REST, Layout, drop_program, parse_key, read_layout
from multicast_expert.system.drops.refusals import ONLY_ROOT, explain_refusal
from multicast_expert.system.drops.symbols import Symbols

STRUCT, UNION, ENUM, TYPEDEF, POINTER, CONST, PROTOTYPE = 4, 5, 6, 8, 2, 10, 13


class Types:
    """A BTF in the making, in the layout of Documentation/bpf/btf.rst."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.types = b""
        self.number = 0

    def name(self, text: str) -> int:
        """The offset of a name, which is there once."""
        if (known := self.strings.find(b"\0" + text.encode() + b"\0")) >= 0:
            return known + 1
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(
        self, kind: int, name: str = "", target: int = 0, members: bytes = b"", count: int = 0, flag: int = 0
    ) -> int:
        """The number of a new type."""
        info = flag << 31 | kind << 24 | count
        self.types += struct.pack("<III", self.name(name) if name else 0, info, target) + members
        self.number += 1
        return self.number

    def members(self, *members: tuple[str, int, int]) -> bytes:
        """Members by name, type and offset in bits."""
        return b"".join(struct.pack("<III", self.name(name) if name else 0, kind, bits) for name, kind, bits in members)

    def data(self) -> bytes:
        """The BTF."""
        lengths = 0, len(self.types), len(self.types), len(self.strings)
        return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, *lengths) + self.types + self.strings


def small() -> bytes:
    """A kernel of few types: a struct with a nested one, a union without a name, an enumeration and a function."""
    types = Types()
    number = types.add(1, "int", 4, struct.pack("<I", 32))
    inner = types.add(STRUCT, "inner", 8, types.members(("first", number, 0), ("second", number, 32)), 2)
    union = types.add(UNION, "", 8, types.members(("left", inner, 0), ("right", number, 0)), 2)
    constant = types.add(CONST, "", inner)
    flagged = 3 << 24 | 200  # a bit field of three bits
    outer = types.members(("", union, 64), ("kept", constant, 128), ("bits", number, flagged))
    types.add(STRUCT, "outer", 32, outer, 3, 1)
    values = b"".join(struct.pack("<Ii", types.name(name), value) for name, value in (("NONE", 0), ("LAST", -1)))
    types.add(ENUM, "reasons", 4, values, 2)
    function = types.add(PROTOTYPE, "", 0, bytes(8 * 5), 5)
    types.add(TYPEDEF, "btf_trace", types.add(POINTER, "", function))
    return types.data()


SMALL = small()


def test_offsets_and_names() -> None:
    """Members are found in structs, in those without a name, and behind modifiers; bit fields keep their byte."""
    btf = Btf(SMALL)
    paths = ("left", "right", "left.second", "kept.second", "bits")
    assert [btf.offset("outer", path) for path in paths] == [8, 8, 12, 20, 25]
    assert btf.enumeration("reasons") == {0: "NONE", -1: "LAST"}
    assert btf.parameters("btf_trace") == 5
    with pytest.raises(MulticastExpertError, match=r"The kernel's struct outer has no member left\.third\."):
        btf.offset("outer", "left.third")
    with pytest.raises(MulticastExpertError, match="has no nowhere"):
        btf.offset("nowhere", "left")


def ask_everything(data: bytes) -> None:
    """Ask all that the small BTF answers."""
    btf = Btf(data)
    btf.offset("outer", "left.second")
    btf.offset("outer", "kept.second")
    btf.enumeration("reasons")
    btf.parameters("btf_trace")


@given(st.integers(0, len(SMALL) - 1))
def test_a_cut_one(length: int) -> None:
    """A BTF that ends too early is an error that says so."""
    with pytest.raises(MulticastExpertError, match="The BTF of this kernel"):
        ask_everything(SMALL[:length])


@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_one(changes: list[tuple[int, int]]) -> None:
    """Whatever bytes are changed, the answer is an answer or an error of ours."""
    data = bytearray(SMALL)
    for place, value in changes:
        data[place] = value
    try:
        ask_everything(bytes(data))
    except MulticastExpertError as error:
        assert str(error)  # noqa: PT017 - either outcome is right, and nothing else


@given(st.binary(max_size=200))
@example(b"")
def test_no_btf_at_all(data: bytes) -> None:
    """Any other bytes are an error."""
    with pytest.raises(MulticastExpertError):
        read_layout(data)


def test_types_that_lead_nowhere() -> None:
    """Structs in a circle, nested without end, or wide and deep, end the search soon."""
    circle = Types()
    circle.add(STRUCT, "outer", 8, circle.members(("", 1, 0), ("", 1, 0)), 2)
    with pytest.raises(MulticastExpertError, match="no member"):
        Btf(circle.data()).offset("outer", "left")
    modifiers = Types()
    modifiers.add(STRUCT, "outer", 8, modifiers.members(("left", 2, 0)), 1)
    modifiers.add(CONST, "", 2)
    modifiers.name("right")
    with pytest.raises(MulticastExpertError, match="no member"):
        Btf(modifiers.data()).offset("outer", "left.right")
    deep = Types()
    deep.name("left")
    for number in range(1, 5000):
        deep.add(STRUCT, "outer" if number == 1 else "", 8, deep.members(("", number + 1, 0), ("", number + 1, 0)), 2)
    with pytest.raises(MulticastExpertError, match="nested too deeply"):
        Btf(deep.data()).offset("outer", "left")
    with pytest.raises(MulticastExpertError, match="longer than"):
        Btf(bytes(LONGEST + 1))


def test_an_older_kernel() -> None:
    """The tracepoint of a kernel before 5.17 tells neither reason nor socket, which is no damage."""
    for parameters, has_reasons, has_socket in ((3, False, False), (4, True, False), (5, True, True)):
        types = Types()
        number = types.add(1, "int", 4, struct.pack("<I", 32))
        for name in {each.partition(".")[0] for each in MEMBERS}:
            paths = [each.partition(".")[2] for each in MEMBERS if each.partition(".")[0] == name]
            parts = []
            for path in paths:
                first, _, second = path.partition(".")
                inner = types.add(STRUCT, "", 8, types.members((second, number, 0)), 1) if second else number
                parts.append((first, inner, 0))
            types.add(STRUCT, name, 8, types.members(*parts), len(parts))
        types.add(ENUM, "skb_drop_reason", 4, struct.pack("<Ii", types.name("SKB_DROP_REASON_XDP"), 72), 1)
        function = types.add(PROTOTYPE, "", 0, bytes(8 * parameters), parameters)
        types.add(TYPEDEF, "btf_trace_kfree_skb", types.add(POINTER, "", function))
        layout = read_layout(types.data())
        assert (bool(layout.reasons), layout.has_socket) == (has_reasons, has_socket)


def test_a_kernel_without_btf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error that names the missing option, and one of a cut file says so."""
    monkeypatch.setattr(kernel_watch, "BTF", tmp_path / "vmlinux")
    with pytest.raises(MulticastExpertError, match="CONFIG_DEBUG_INFO_BTF"):
        kernel_watch.read_kernel_layout.__wrapped__()
    (tmp_path / "vmlinux").write_bytes(SMALL[:40])
    with pytest.raises(MulticastExpertError, match="it is shorter than its header says"):
        kernel_watch.read_kernel_layout.__wrapped__()


# The program


def test_instructions() -> None:
    """Instructions are the bytes of RFC 9669; jumps count from the next instruction."""
    code = Assembler()
    code.label("start")
    code.compute(R1, "=", FRAME)
    code.compute(R1, "+", -8)
    code.number(R2, 0x1122334455667788)
    code.map(R1, 7)
    code.load(R2, R1, 16, 2)
    code.store_number(FRAME, -8, 1, 8)
    code.store(FRAME, -16, R2, 4)
    code.add_atomically(R0, 0, R1)
    code.jump_if(R1, "!=", R2, "start")
    code.jump_if(R1, "==", 0xFFFFFFFF, "end", bits=32)
    code.jump("end")
    code.label("end")
    code.call(113)
    code.exit()
    assert code.assemble().hex(" ", 8).split() == [
        "bfa1000000000000", "07010000f8ffffff", "1802000088776655", "0000000044332211", "1811000007000000",
        "0000000000000000", "6912100000000000", "7a0af8ff01000000", "632af0ff00000000", "db10000000000000",
        "5d21f5ff00000000", "16010100ffffffff", "0500000000000000", "8500000071000000", "9500000000000000",
    ]  # fmt: skip


def test_labels_that_are_wrong() -> None:
    """A label that is missing, or there twice, is an error."""
    code = Assembler()
    code.jump("nowhere")
    with pytest.raises(MulticastExpertError, match="nowhere"):
        code.assemble()
    code.label("nowhere")
    with pytest.raises(MulticastExpertError, match="twice"):
        code.label("nowhere")


LAYOUT = Layout({2: "SKB_DROP_REASON_NOT_SPECIFIED"}, True, dict.fromkeys(MEMBERS, 8))


@pytest.mark.parametrize("groups", [[], ["239.1.2.3"], ["ff15::1"], ["239.1.2.3", "ff15::1", "239.1.2.4"]])
def test_every_instruction_can_be_reached(groups: list[str]) -> None:
    """The kernel accepts no instruction that no way leads to, for any choice of groups and either tracepoint."""
    for layout in (LAYOUT, LAYOUT._replace(has_socket=False), LAYOUT._replace(has_socket=False, reasons={})):
        code = drop_program(layout, [ip_address(each) for each in groups], 4026531840, 3)
        instructions = [struct.unpack_from("<BBhi", code, place) for place in range(0, len(code), 8)]
        pending, reached = [0], set[int]()
        while pending:
            place = pending.pop()
            if place in reached:
                continue
            reached.add(place)
            operation, _, offset, _ = instructions[place]
            kind, jump = operation & 0x07, operation & 0xF0
            if operation == 0x18:
                reached.add(place + 1)
                pending.append(place + 2)
            elif kind in (5, 6) and jump == 0x90:
                continue
            elif kind in (5, 6) and jump != 0x80:
                pending += [place + 1 + offset] if operation == 0x05 else [place + 1, place + 1 + offset]
            else:
                pending.append(place + 1)
        assert reached == set(range(len(instructions)))


def test_keys() -> None:
    """A key tells the group, the port and the rest; that of what found no room tells nothing."""
    four = struct.pack(
        "<QII16s16s2sBBI", 0xFFFF, 12, 3, bytes([239, 1, 2, 3]), bytes([10, 0, 0, 1]), b"\x13\x88", 4, 1 | 8, 99
    )
    kind = parse_key(four)
    assert len(four) == KEY_SIZE
    assert (str(kind.group), str(kind.source), kind.port, kind.outgoing, kind.hook, kind.socket, kind.interface) == (
        "239.1.2.3", "10.0.0.1", 5000, True, "postrouting", 99, 3,
    )  # fmt: skip
    assert parse_key(REST).group is None


# Names


KALLSYMS = b"""0000000000000010 D some_data
ffffffff81000000 T first
ffffffff81000100 t second.isra.0
ffffffff81000200 W third.cold
ffffffff81000150 d data_between
ffffffffc0000000 t in_a_module\t[module]
"""


@pytest.mark.parametrize(
    ("address", "name"),
    [(0xFFFFFFFF81000001, "first"), (0xFFFFFFFF81000100, "first"), (0xFFFFFFFF81000160, "second"),
     (0xFFFFFFFF81000FFF, "third"), (0xFFFFFFFFC0000010, "in_a_module"), (0xFFFFFFFF80000000, ""), (0, "")],
)  # fmt: skip
def test_functions(address: int, name: str) -> None:
    """The function that a call returns into, without what a compiler adds; a call may be the last in its function."""
    assert Symbols(KALLSYMS).function(address) == name


def test_hidden_addresses() -> None:
    """With kernel.kptr_restrict all addresses are 0, and then no function has a name."""
    hidden = Symbols(b"0000000000000000 T first\n0000000000000000 t second\n")
    assert (bool(hidden), hidden.function(0xFFFFFFFF81000001)) == (False, "")


# Refusals


CAPABLE = "CapEff:\t000001ffffffffff\nSeccomp:\t0\n"


@pytest.mark.parametrize(
    ("number", "status", "lockdown", "first", "said"),
    [
        (errno.EPERM, "CapEff:\t0000000000000000\n", "", True, "Only root"),
        (errno.EPERM, f"CapEff:\t{1 << 38:016x}\n", "", True, "Only root"),
        (errno.EPERM, f"CapEff:\t{1 << 38 | 1 << 39:016x}\nSeccomp:\t2\n", "", True, "seccomp"),
        (errno.EPERM, CAPABLE, "", False, "user namespace"),
        (errno.EPERM, CAPABLE, "none integrity [confidentiality]\n", True, "locked down"),
        (errno.EINVAL, CAPABLE, "none integrity [confidentiality]\n", True, "locked down"),
        (errno.ENOSYS, CAPABLE.replace("Seccomp:\t0", "Seccomp:\t2"), "", True, "seccomp"),
        (errno.ENOSYS, CAPABLE, "[none] integrity confidentiality\n", True, "without bpf(2)"),
        (errno.EINVAL, CAPABLE, "", True, "EINVAL"),
        (errno.EPERM, "", "", True, "Only root"),
    ],
)
def test_why_the_kernel_refuses(number: int, status: str, lockdown: str, first: bool, said: str) -> None:
    """Each way to be refused has its own sentence."""
    assert said in explain_refusal(number, "bpf(2)", status, lockdown, first)
    assert ("Only root" in said) == (explain_refusal(number, "bpf(2)", status, lockdown, first) == ONLY_ROOT)
