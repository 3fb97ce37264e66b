"""What tells of drops where the kernel allows no BPF program: the tracepoint by perf, the drop monitor, or nobody."""

import contextlib
import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.stage import GROUP, GROUP6, PORT, Stage
from drops.faults import FAULTS, NUMBER, join, send_datagrams
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.doctor import collect, facts_from_text, facts_to_text, judge
from multicast_expert.doctor.facts import Unread
from multicast_expert.doctor.path import endings
from multicast_expert.system import netlink
from multicast_expert.system.drops import drop_monitor, kernel_watch, monitor_watch, tracepoint_watch, watch
from multicast_expert.system.drops.dropped import Dropped
from multicast_expert.system.drops.monitor_watch import Guard, MonitorWatch
from multicast_expert.system.drops.refusals import ONLY_ROOT
from multicast_expert.system.drops.running_kernel import system_call
from multicast_expert.system.drops.tracepoint import parse_format, records
from multicast_expert.system.drops.tracepoint_watch import TracepointWatch
from multicast_expert.system.drops.watch import BpfWatch, open_watch
from multicast_expert.testing import wait_until
from multicast_expert.wire.frames import udp_packet

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


def mounts(process: int | str = "self") -> int:
    """How often tracefs is mounted in the mount namespace of a process."""
    return Path(f"/proc/{process}/mountinfo").read_text().count(" - tracefs ")


def names(directory: int) -> set[str]:
    """The instances of tracefs."""
    return {each.name for each in Path(f"/proc/self/fd/{directory}/instances").iterdir()}


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


# The drop monitor, from bytes


FAMILY = drop_monitor.Family(0x1C, 5)


def family_body(name: bytes = b"NET_DM", group: bytes = b"events") -> bytes:
    """The answer of the kernel about a family of generic netlink."""
    described = netlink.attribute(1, group + b"\0") + netlink.attribute(2, struct.pack("=I", FAMILY.group))
    body = struct.pack("=BBxx", 1, 2) + netlink.attribute(2, name + b"\0")
    body += netlink.attribute(1, struct.pack("=H", FAMILY.number))
    return body + netlink.attribute(7, netlink.attribute(1, described))


def alert(frame: bytes, reason: bytes | None = b"NETFILTER_DROP", origin: int = 0) -> bytes:
    """What the monitor tells of one packet."""
    body = struct.pack("=BBxx", 5, 2) + netlink.attribute(14, struct.pack("=H", origin))
    body += netlink.attribute(2, struct.pack("=Q", 0xFFFFFFFF81000001))
    body += netlink.attribute(3, b"nft_do_chain.isra.0+0x3c/0x510 [nf_tables]\0")
    body += netlink.attribute(4, netlink.attribute(0, struct.pack("=I", 3)) + netlink.attribute(1, b"eth0\0"))
    body += netlink.attribute(6, struct.pack("=H", 0x0800)) + netlink.attribute(7, frame)
    return body if reason is None else body + netlink.attribute(23, reason + b"\0")


PACKET = udp_packet(("10.1.0.2", 4000), (GROUP, PORT), bytes(100))
PACKET6 = udp_packet(("fd01::2", 4000), (GROUP6, PORT), bytes(100))
ETHERNET = bytes(12) + b"\x08\x00"
EXPECTED = Dropped(
    "NETFILTER_DROP", "nft_do_chain", 3, ip_address(GROUP), PORT, ip_address("10.1.0.2"), False, "", None, 1
)
OPTIONS = PACKET6[:6] + b"\x00" + PACKET6[7:40] + b"\x11\x00" + bytes(6) + PACKET6[40:]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (ETHERNET + PACKET, EXPECTED),
        (PACKET, EXPECTED),
        (bytes(12) + b"\x81\x00\x00\x05\x08\x00" + PACKET, EXPECTED),
        (PACKET[:6] + b"\x20\x00" + PACKET[8:], EXPECTED._replace(port=None)),
        (bytes(12) + b"\x86\xdd" + PACKET6,
         EXPECTED._replace(group=ip_address(GROUP6), source=ip_address("fd01::2"))),
        (OPTIONS, EXPECTED._replace(group=ip_address(GROUP6), source=ip_address("fd01::2"))),
        (PACKET[:9] + b"\x06" + PACKET[10:], None),
        (udp_packet(("10.1.0.2", 4000), ("10.1.0.1", PORT), b""), None),
        (b"", None),
    ],
    ids=["Ethernet", "bare", "VLAN", "fragment", "IPv6", "IPv6 with options", "TCP", "unicast", "nothing"],
)  # fmt: skip
def test_alerts(frame: bytes, expected: Dropped | None) -> None:
    """The monitor tells group, port, source, interface, function and reason; what is no datagram of a group is left."""
    assert drop_monitor.parse_alert(alert(frame)) == expected


def test_alerts_of_older_kernels_and_of_hardware() -> None:
    """Before Linux 5.18 there is no reason; what a switch chip dropped is not ours."""
    assert drop_monitor.parse_alert(alert(PACKET, None)) == EXPECTED._replace(reason="NOT_SPECIFIED")
    assert drop_monitor.parse_alert(alert(PACKET, origin=1)) is None


def test_families() -> None:
    """The monitor is found among all families by its name, with the group of its events."""
    assert drop_monitor.parse_family(family_body()) == FAMILY
    assert drop_monitor.parse_family(family_body(b"ethtool")) is None
    assert drop_monitor.parse_family(family_body(group=b"others")) is None
    requests = [drop_monitor.configuration(FAMILY), drop_monitor.start(FAMILY), drop_monitor.stop(FAMILY)]
    assert [each.hex(" ", 4) for each in requests] == [
        "2c000000 1c000500 01000000 00000000 02020000 05000100 01000000 08000900 80000000 08000b00 e8030000",
        "14000000 1c000500 01000000 00000000 03020000",
        "14000000 1c000500 01000000 00000000 04020000",
    ]


@given(st.data())
def test_messages_that_are_cut_or_damaged(data: st.DataObject) -> None:
    """An answer or none, and never an exception."""
    for read, body in (
        (drop_monitor.parse_family, family_body()),
        (drop_monitor.parse_alert, alert(ETHERNET + PACKET)),
        (drop_monitor.parse_alert, alert(OPTIONS)),
    ):
        damaged = bytearray(body[: data.draw(st.integers(0, len(body)))])
        for place in data.draw(st.lists(st.integers(0, len(body)), max_size=4)):
            damaged[place : place + 1] = data.draw(st.binary(min_size=1, max_size=1)) if place < len(damaged) else b""
        found: Any = read(bytes(damaged))
        assert found is None or isinstance(found, drop_monitor.Family | Dropped)


class Monitor:
    """A kernel that has the drop monitor, as its documentation describes it: stands in for the netlink channel."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.busy = False
        self.bodies = [family_body(b"nlctrl"), family_body()]
        self.alerts, self.told = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __call__(self, protocol: int) -> "Monitor":
        """Open a channel."""
        assert protocol == 16
        return self

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, request: bytes) -> list[bytes]:
        """Answer as the kernel."""
        (message,) = netlink.messages(request)
        if message.kind == 16:
            return self.bodies
        assert message.kind == FAMILY.number
        command = {2: "configure", 3: "start", 4: "stop"}[message.body[0]]
        if self.busy and command == "configure":
            raise OSError(errno.EBUSY, "busy")
        self.asked.append(command)
        return []


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitor]:
    """The watch speaks with a stand-in of the kernel, and the guard's message goes there too."""
    made = Monitor()

    class Alerts:
        """The socket of the alerts."""

        def __init__(self, *_: object) -> None:
            self.close = made.told.close
            self.recv = made.told.recv
            self.setblocking = made.told.setblocking
            self.options: list[object] = []

        def __enter__(self) -> "Alerts":
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def setsockopt(self, *option: object) -> None:
            if option[0] == 270:
                assert option[1:] == (1, FAMILY.group)

    class Guarding:
        """A guard that asks at once."""

        def __init__(self, protocol: int, message: bytes) -> None:
            assert protocol == 16
            self.close = lambda: made.ask(message)

    monkeypatch.setattr(monitor_watch, "Channel", made)
    monkeypatch.setattr(monitor_watch, "Guard", Guarding)
    monkeypatch.setattr(monitor_watch.socket, "socket", Alerts)
    yield made
    made.alerts.close()
    made.told.close()


def test_the_monitor_is_started_read_and_stopped(monitor: Monitor) -> None:
    """It is configured and guarded before it starts; alerts are counted by kind, and those of other groups left out."""
    found = MonitorWatch([ip_address(GROUP)])
    assert monitor.asked == ["configure", "start"]
    other = udp_packet(("10.1.0.2", 4000), ("239.9.9.9", PORT), b"")
    for frame in (PACKET, PACKET, other, b"nonsense"):
        monitor.alerts.send(netlink.request(FAMILY.number, 0, alert(frame)))
    monitor.alerts.send(b"\x05")
    assert found.drops() == found.drops() == [EXPECTED._replace(number=2)]
    assert "all network namespaces" in found.limits
    found.close()
    found.close()
    assert monitor.asked == ["configure", "start", "stop"]


def test_a_monitor_that_is_in_use_or_missing(monitor: Monitor) -> None:
    """It belongs to another program then, and is left as it is."""
    monitor.busy = True
    with pytest.raises(MulticastExpertError, match="Another program"):
        MonitorWatch()
    monitor.bodies = []
    with pytest.raises(MulticastExpertError, match="modprobe drop_monitor"):
        MonitorWatch()
    assert monitor.asked == []


GUARDED = """
import sys, time
from multicast_expert.system.drops.monitor_watch import Guard
guard = Guard(0, bytes.fromhex(sys.argv[1]))
print(flush=True)
sys.stdin.read()
guard.close()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_the_guard_sends_its_message_however_the_process_ends(cabled: Stage, end: signal.Signals | None) -> None:
    """Here the message switches an interface off, as this kernel has no drop monitor."""
    cabled.listener.ip("link set lo up")
    with cabled.listener.entered():
        index = socket.if_nametoindex("lo")
    message = netlink.request(netlink.RTM_NEWLINK, 4, struct.pack("=BxHiII", 0, 0, index, 0, 1))
    process = cabled.listener.popen(
        [sys.executable, "-c", GUARDED, message.hex()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.readline()
    assert "<LOOPBACK,UP" in cabled.listener.command("ip", "link", "show", "lo")
    if end is None:
        process.stdin.close()
    else:
        process.send_signal(end)
    process.wait(20)
    wait_until(lambda: "UP" not in cabled.listener.command("ip", "link", "show", "lo"), "the message")
    cabled.listener.end_process(process)


def test_a_guard_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a guard the monitor is not started."""
    monkeypatch.setattr(monitor_watch, "_GUARD", "raise SystemExit(1)")
    with pytest.raises(OSError, match="no process could be started"):
        Guard(0, b"")


# The choice


def refuse(number: int) -> Callable[..., Any]:
    """A function that the kernel refuses."""

    def refused(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return refused


def test_what_is_tried_and_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways are tried in their order; if none is allowed, each reason is said once, or only that root may."""
    tried = []

    def way(name: str, error: Exception) -> Callable[..., Any]:
        def opened(_groups: object, because: str) -> Any:
            tried.append((name, because))
            raise error

        return opened

    def choose(*errors: Exception) -> str:
        monkeypatch.setattr(watch, "_WAYS", {name: way(name, error) for name, error in zip("abc", errors, strict=True)})
        with pytest.raises(MulticastExpertError) as raised:
            open_watch()
        return str(raised.value)

    first, second = MulticastExpertError("No BTF."), MulticastExpertError("No tracefs.")
    assert choose(first, second, first) == "No BTF. No tracefs."
    assert tried == [("a", ""), ("b", "No BTF."), ("c", "No BTF. No tracefs.")]
    assert choose(first, MulticastExpertError(ONLY_ROOT), second) == ONLY_ROOT
    with pytest.raises(OSError, match="Too many open files"):
        choose(OSError(errno.EMFILE, os.strerror(errno.EMFILE)), second, second)


@pytest.mark.parametrize("machine", ["aarch64", "x86_64", "riscv64", "ppc64le"])
def test_the_numbers_of_system_calls(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    """Each processor has its own; an unknown one is an error that names it."""
    called = []

    class Library:
        @staticmethod
        def syscall(number: Any, *_: object) -> int:
            called.append(number.value)
            return 0

    monkeypatch.setattr("multicast_expert.system.drops.running_kernel._c_library", Library)
    monkeypatch.setattr("multicast_expert.system.drops.running_kernel.SYSTEM.machine", lambda: machine, raising=False)
    if machine == "ppc64le":
        with pytest.raises(MulticastExpertError, match="this processor is ppc64le"):
            system_call("bpf", 0)
        return
    for name in ("bpf", "perf_event_open", "ioctl", "fsmount"):
        system_call(name, 0)
    assert called == ([321, 298, 16, 432] if machine == "x86_64" else [280, 241, 29, 432])


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_kernel_whose_types_are_missing_or_cut(
    cabled: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Then the tracepoint tells, and the limits say why not more."""
    monkeypatch.setattr(kernel_watch, "BTF", tmp_path / "vmlinux")
    kernel_watch.read_kernel_layout.cache_clear()
    if damage == "cut":
        (tmp_path / "vmlinux").write_bytes(Path("/sys/kernel/btf/vmlinux").read_bytes()[:-1])
    with cabled.listener.entered(), contextlib.closing(open_watch()) as found:
        assert isinstance(found, TracepointWatch)
        send_datagrams(cabled, 4)
        wait_until(lambda: sum(each.number for each in found.drops()) >= NUMBER, "the drops")
        assert ("CONFIG_DEBUG_INFO_BTF" if damage == "missing" else "is damaged") in found.limits
    kernel_watch.read_kernel_layout.cache_clear()


def test_a_kernel_without_reasons(cabled: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 5.17 the function tells, group by group; the limits say so."""
    layout = kernel_watch.read_kernel_layout()._replace(reasons={}, has_socket=False)
    monkeypatch.setattr(kernel_watch, "read_kernel_layout", lambda: layout)
    with cabled.listener.entered():
        found = open_watch([ip_address(GROUP)])
    with contextlib.closing(found):
        assert isinstance(found, BpfWatch)
        join(cabled, 4, buffer=2048)
        send_datagrams(cabled, 4, size=1000)
        wait_until(lambda: bool(found.drops()), "the verdict")
        (one,) = found.drops()
        assert (one.reason, one.function, str(one.group), one.number) == (
            "NOT_SPECIFIED", "udp_queue_rcv_one_skb", GROUP, NUMBER - 1,
        )  # fmt: skip
        assert "Linux before 5.17" in found.limits


# In a sandbox, as a command


SANDBOXED = """
import ctypes, os, platform, struct, sys
numbers = {"x86_64": (321, 298), "aarch64": (280, 241)}[platform.machine()][: int(sys.argv[1])]
# linux/filter.h: load the number of the call, answer EPERM if it is one of them, else allow.
code = [(0x20, 0, 0, 0)]
for number in numbers:
    code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x50001)]
code.append((0x06, 0, 0, 0x7FFF0000))
packed = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in code))
program = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(packed)))
library = ctypes.CDLL(None, use_errno=True)
assert library.prctl(38, 1, 0, 0, 0) == 0
assert library.prctl(22, 2, program) == 0, ctypes.get_errno()
os.execv(sys.executable, [sys.executable, "-m", "multicast_expert", *sys.argv[2:]])
"""


def sandboxed(stage: Stage, refused: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command on the listener that may not make the first calls: bpf(2), perf_event_open(2)."""
    command = [sys.executable, "-c", SANDBOXED, str(refused), *arguments]
    return stage.listener.run(subprocess.run, command, capture_output=True, text=True, timeout=60)


def test_drops_in_a_sandbox(cabled: Stage) -> None:
    """The command counts by the tracepoint, says that it does not know whose packets they were, and ends with 3."""
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0", interval=0.005)
    done = sandboxed(cabled, 1, "drops", f"{GROUP}:{PORT}", "--for", "0.5")
    assert done.returncode == 3, done
    assert "dropped at IP, route or membership (NOT_SPECIFIED in ip_rcv_finish_core)" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("Whose they were is not known.")
    assert "A sandbox (seccomp), such as that of a container, refuses bpf(2)" in done.stderr
    document = json.loads(sandboxed(cabled, 1, "drops", "--for", "0.2", "--json").stdout)
    assert {each["group"] for each in document["drops"]} == {None}
    assert {each["lost"] for each in document["drops"]} == {False}


def test_drops_in_a_tighter_sandbox(cabled: Stage) -> None:
    """Each way that is refused is said; nothing is left to count with here."""
    done = sandboxed(cabled, 2, "drops", "--for", "0.2")
    assert (done.returncode, done.stdout) == (3, "")
    for needed in ("bpf(2)", "perf_event_open(2)", "modprobe drop_monitor"):
        assert needed in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_without_a_verdict(cabled: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tracepoint tells is shown beside the path, blames nobody, and is kept in a file of facts."""
    monkeypatch.setattr(watch, "_WAYS", {"bpf(2)": refuse(errno.ENOSYS), "perf": TracepointWatch})
    cabled.listener.set_reverse_path_filter("eth0", 1)
    source = cabled.talker.add_unroutable_address("eth0")
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0", source=source, interval=0.01)
    facts = cabled.listener.run(collect, GROUP, PORT, listen=0.6)
    assert not isinstance(facts.trial, Unread)
    assert isinstance(facts.trial.drops, Unread)
    assert "without bpf(2)" in facts.trial.drops.reason
    assert endings.drops(facts) is None
    assert facts_from_text(facts_to_text(facts)) == facts
    report = judge(facts)
    assert report.cause is not None
    assert report.cause.check == "reverse-path-filter"
    (step,) = [each for each in report.path if each.station == "IP"]
    assert step.ended is None
    assert any("IP_RPFILTER in ip_rcv_finish_core, of any packets of this machine" in each for each in step.reasons)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_stays_attached_however_the_command_ends(cabled: Stage, end: signal.Signals) -> None:
    """The events go with the process; nothing is mounted, and tracefs has no new instance."""
    before = mounts()
    command = [sys.executable, "-c", SANDBOXED, "1", "drops"]
    process = cabled.listener.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def events() -> int:
        links = (str(each.readlink()) for each in Path(f"/proc/{process.pid}/fd").iterdir())
        return sum("perf_event" in each for each in links)

    def attached() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return events() > 0
        return False

    wait_until(attached, "the events")
    assert mounts(process.pid) == before
    process.send_signal(end)
    process.wait(20)
    assert mounts() == before
    with tracepoint_watch._tracefs() as directory:
        assert not [each for each in names(directory) if "mcast" in each]
