"""Which way to count is chosen, and what is said of those that a kernel or a sandbox refuses."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from doctor.stage import GROUP, PORT, Stage
from drops.faults import NUMBER, join, send_datagrams
from drops.kernels import SANDBOXED, mounts, names, refuse
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.doctor import collect, facts_from_text, facts_to_text, judge
from multicast_expert.doctor.facts import Unread
from multicast_expert.doctor.path import endings
from multicast_expert.system.drops import kernel_watch, tracepoint_watch, watch
from multicast_expert.system.drops.refusals import ONLY_ROOT
from multicast_expert.system.drops.running_kernel import system_call
from multicast_expert.system.drops.tracepoint_watch import TracepointWatch
from multicast_expert.system.drops.watch import BpfWatch, open_watch
from multicast_expert.testing import wait_until


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
