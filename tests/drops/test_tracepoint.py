"""The tracepoint by perf, which tells where the kernel allows no BPF program."""

import contextlib
import errno
import struct
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.stage import GROUP, GROUP6, Stage
from drops.faults import FAULTS, send_datagrams
from drops.kernels import mounts, names, refuse
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.system.drops import tracepoint_watch
from multicast_expert.system.drops.tracepoint import parse_format, records
from multicast_expert.system.drops.tracepoint_watch import TracepointWatch
from multicast_expert.testing import wait_until

FORMAT = """name: kfree_skb
ID: 2310
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:void * location;\toffset:16;\tsize:8;\tsigned:0;
\tfield:unsigned short protocol;\toffset:24;\tsize:2;\tsigned:0;
\tfield:enum skb_drop_reason reason;\toffset:28;\tsize:4;\tsigned:0;

print fmt: "reason: %s", REC->location, __print_symbolic(REC->reason, { 2, "NOT_SPECIFIED" }, { 16, "XDP" })
"""
OLDER = FORMAT.partition("\tfield:enum")[0] + '\nprint fmt: "location=%p", REC->location\n'
RECORD = struct.pack("=HxxiQQH2xI", 2310, 77, 1, 0xFFFFFFFF81000001, 0x0800, 16)


def ring_record(kind: int, body: bytes) -> bytes:
    """A record as the kernel puts it into the ring."""
    return struct.pack("=IHH", kind, 0, 8 + len(body)) + body


# The tracepoint, from text and bytes


def test_the_format_of_the_tracepoint() -> None:
    """The fields are found by their names, the reasons in the text that prints them; older kernels have none."""
    found = parse_format(FORMAT)
    assert found.reasons == {2: "NOT_SPECIFIED", 16: "XDP"}
    assert found.sample(RECORD) == (0xFFFFFFFF81000001, 16)
    older = parse_format(OLDER)
    assert (older.reasons, older.sample(RECORD)) == ({}, (0xFFFFFFFF81000001, None))
    for text in ("", "nonsense", FORMAT.replace("location", "place"), FORMAT[:200]):
        with pytest.raises(MulticastExpertError, match="unknown way"):
            parse_format(text)


def test_records_of_a_ring() -> None:
    """Samples are found between other records; a cut one ends the search, at any byte."""
    sample = ring_record(9, struct.pack("=I", len(RECORD)) + RECORD + bytes(4))
    data = ring_record(2, bytes(16)) + sample + sample
    assert list(records(data)) == [RECORD, RECORD]
    for length in range(len(data)):
        assert len(list(records(data[:length]))) == (length >= 24 + len(sample))
    assert [parse_format(FORMAT).sample(RECORD[:length]) for length in range(24)] == [None] * 24


@given(st.binary(max_size=300), st.text(max_size=300))
def test_any_bytes_of_a_ring_and_any_text_of_a_format(data: bytes, text: str) -> None:
    """They yield whatever they yield, in no more records than fit, or our own error."""
    assert sum(len(each) + 12 for each in records(data)) <= len(data)
    with pytest.raises(MulticastExpertError):
        parse_format(text.replace("location", ""))


# The tracepoint, on this kernel


@pytest.mark.parametrize(
    ("name", "version"), [("small buffer", 4), ("small buffer", 6), ("reverse path", 4), ("checksum of UDP", 6)]
)
def test_the_tracepoint_tells_reason_function_and_number(cabled: Stage, name: str, version: int) -> None:
    """All that is dropped for this reason is counted, but not whose packets they were, and the limits say so."""
    fault = FAULTS[name]
    found = TracepointWatch([ip_address(GROUP if version == 4 else GROUP6)])
    with contextlib.closing(found):
        fault.build(cabled, version)
        fault.send(cabled, version)

        def counted() -> int:
            return sum(
                each.number
                for each in found.drops()
                if (each.reason, each.function) == (fault.reason, fault.function_of(version))
            )

        wait_until(lambda: counted() >= fault.number, "the drops")
        assert all(each.group is each.interface is each.port is None for each in found.drops())
        assert "without their groups" in found.limits
        found.restart()
        assert counted() == 0
        assert not found.is_exact


def test_more_than_the_ring_holds(cabled: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What found no room is counted and said; the ring is read on, also across its end."""
    monkeypatch.setattr(tracepoint_watch, "PAGES", 1)
    with contextlib.closing(TracepointWatch()) as found:
        send_datagrams(cabled, 4, number=300)
        wait_until(lambda: bool(found.drops()) and "too fast to be told apart" in found.limits, "the loss")
        before = sum(each.number for each in found.drops())
        for _ in range(10):
            send_datagrams(cabled, 4, number=30)
            found.drops()
        assert sum(each.number for each in found.drops()) >= before + 300
        found.restart()
        found.drops()
        assert "too fast" not in found.limits


def test_the_tracepoint_leaves_nothing(cabled: Stage) -> None:
    """Neither a descriptor nor a mount is left, nor an instance of tracefs, also when it fails halfway."""
    before = mounts(), len(list(Path("/proc/self/fd").iterdir()))
    with tracepoint_watch._tracefs() as directory:
        instances = names(directory)
    for _ in range(2):
        found = TracepointWatch()
        assert mounts() == before[0]
        found.close()
        found.close()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tracepoint_watch.mmap, "mmap", refuse(errno.EPERM))
        with pytest.raises(PermissionError):
            TracepointWatch()
    assert (mounts(), len(list(Path("/proc/self/fd").iterdir()))) == before
    with tracepoint_watch._tracefs() as directory:
        assert names(directory) == instances
