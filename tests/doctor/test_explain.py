"""A receiver that is open and deaf explains itself; and `diagnose`, which programs call."""

import asyncio
import socket
from collections.abc import Iterator
from threading import Event, Thread

import pytest

from doctor.stage import ENDPOINT, GROUP, GROUP6, PORT, TALKER, Stage, stage
from multicast_expert import AsyncMcastRxSocket, McastRxSocket, MulticastExpertError, parse_endpoint
from multicast_expert.doctor import Report, Unread, diagnose
from multicast_expert.doctor.host.linux import LinuxHost
from multicast_expert.testing import lab_unavailable, wait_until

pytestmark = pytest.mark.skipif(lab_unavailable() is not None, reason=f"no multicast lab: {lab_unavailable()}")

LISTEN = 0.6
OTHER = "239.1.2.4"


@pytest.fixture
def cabled() -> Iterator[Stage]:
    """A listener that is joined by a cable to a talker; the test runs on the listener."""
    with stage() as made:
        made.cable()
        with made.listener.entered():
            yield made


def explained(receiver: McastRxSocket, group: str | None = None) -> Report:
    """The report on a receiver, made in a thread that /proc and /sys belong to."""
    return receiver.explain(group, listen=LISTEN)


def test_a_receiver_that_gets_its_datagrams(cabled: Stage) -> None:
    """All is well then, and no datagram was taken from it."""
    with McastRxSocket(socket.AF_INET, [GROUP], PORT, iface="eth0", timeout=5) as receiver:
        with cabled.talker.send_datagrams(GROUP, PORT, interface="eth0") as traffic:
            report = explained(receiver)
        assert (report.verdict, report.cause) == ("ok", None)
        assert report.received > 3
        assert (report.target.group, report.target.port, report.target.interface) == (GROUP, PORT, "eth0")
        assert len(receiver.receive_many(10_000)) == traffic.sent


def test_a_receiver_behind_a_filter(cabled: Stage) -> None:
    """The cause is that of the doctor."""
    cabled.listener.set_reverse_path_filter("eth0", 1)
    source = cabled.talker.add_unroutable_address("eth0")
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0", source=source)
    with McastRxSocket(socket.AF_INET, [GROUP], PORT) as receiver:
        report = explained(receiver)
    assert report.cause is not None
    assert report.cause.check == "reverse-path-filter"
    assert report.target.interface is None


@pytest.mark.parametrize("may_capture", [True, False])
def test_a_receiver_that_blocks_its_sender(cabled: Stage, may_capture: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source that it blocked is named, also where no frames are seen: a wider trial receives it."""
    if not may_capture:
        monkeypatch.setattr(LinuxHost, "open_capture", lambda _: Unread("Only root."))
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0")
    with McastRxSocket(socket.AF_INET, [GROUP], PORT, iface="eth0") as receiver:
        receiver.block_source(GROUP, TALKER)
        report = explained(receiver)
    assert report.cause is not None
    assert (report.cause.check, TALKER in report.cause.summary) == ("source-filter", True)


def test_the_first_deaf_group_is_explained(cabled: Stage) -> None:
    """Of several groups, the one that does not arrive; or the one that is named."""
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0")
    # Nobody reads it meanwhile, and a buffer that overflows would be a finding.
    with McastRxSocket(socket.AF_INET, [GROUP, OTHER], PORT, receive_buffer="largest") as receiver:
        report = explained(receiver)
        assert (report.target.group, report.received) == (OTHER, 0)
        assert explained(receiver, GROUP).verdict == "ok"
        with pytest.raises(MulticastExpertError, match=r"239\.1\.2\.5 is not joined"):
            explained(receiver, "239.1.2.5")
    with pytest.raises(MulticastExpertError, match="is not open"):
        explained(receiver)


def test_a_source_specific_receiver(cabled: Stage) -> None:
    """Its sources are those of the trial."""
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0")
    with McastRxSocket(socket.AF_INET, [GROUP], PORT, source_ips=["10.1.0.99"]) as receiver:
        report = explained(receiver)
    assert report.target.source == "10.1.0.99"
    assert report.received == 0
    assert report.cause is not None
    assert report.cause.check == "source-filter"
    assert TALKER in str(report.cause.evidence)


def test_a_receiver_that_blocks_the_sender(cabled: Stage) -> None:
    """What it refuses itself is the cause."""
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0")
    with McastRxSocket(socket.AF_INET, [GROUP], PORT) as receiver:
        receiver.block_source(GROUP, TALKER)
        report = explained(receiver)
    assert report.received == 0
    assert report.cause is not None
    assert report.cause.check == "source-filter"


def test_a_receiver_whose_interface_is_gone(cabled: Stage) -> None:
    """The report says that there is no such interface now; nothing else is joined in its stead."""
    with McastRxSocket(socket.AF_INET, [GROUP], PORT, iface="eth0") as receiver:
        cabled.listener.remove_interface("eth0")
        wait_until(lambda: not receiver.filenos(), "the receiver has noticed")
        report = explained(receiver)
    assert report.verdict == "problem"
    assert report.received == 0
    assert report.target.interface == "eth0"


def test_a_receiver_with_a_small_buffer(cabled: Stage) -> None:
    """The trial asks for the same buffer, so that its drops are those of the receiver."""
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0", size=1400, interval=0.002)
    with McastRxSocket(socket.AF_INET, [GROUP], PORT, receive_buffer=4096) as receiver:
        report = explained(receiver)
    assert report.cause is not None
    assert report.cause.check == "receive-buffer"


def test_the_async_receiver_explains_itself(cabled: Stage) -> None:
    """In a thread, so that other tasks go on; cancelling it ends it."""
    cabled.talker.send_datagrams(GROUP6, PORT, interface="eth0")

    async def main() -> tuple[Report, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.05)
                ticks += 1

        async with AsyncMcastRxSocket(socket.AF_INET6, [GROUP6], PORT, iface="eth0") as receiver:
            ticking = asyncio.create_task(tick())
            report = await receiver.explain(listen=LISTEN)
            ticking.cancel()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receiver.explain(listen=60), 0.3)
            return report, ticks

    report, ticks = asyncio.run(main())
    assert report.verdict == "ok"
    assert ticks >= 3


def test_diagnose(cabled: Stage) -> None:
    """An endpoint as text or in parts, with a source and an interface, or with those named apart."""
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0")
    for report in (
        diagnose(f"{TALKER}@{ENDPOINT}%eth0", listen=LISTEN),
        diagnose(parse_endpoint(ENDPOINT), iface="eth0", source=TALKER, listen=LISTEN),
    ):
        assert report.verdict == "ok"
        assert report.received > 3
        assert (report.target.source, report.target.interface) == (TALKER, "eth0")


def test_diagnose_says_what_is_no_group(cabled: Stage) -> None:
    """An address that is no group is a finding, not an error; what is no endpoint is one."""
    report = diagnose(f"{TALKER}:{PORT}", listen=LISTEN)
    assert report.cause is not None
    assert report.cause.check == "group-address"
    with pytest.raises(MulticastExpertError, match="endpoint"):
        diagnose("[::", listen=LISTEN)
    for contradiction in ({"iface": "eth1"}, {"source": "10.1.0.3"}):
        with pytest.raises(MulticastExpertError, match="names"):
            diagnose(f"{TALKER}@{ENDPOINT}%eth0", listen=LISTEN, **contradiction)


def test_several_diagnoses_at_once(cabled: Stage) -> None:
    """Threads do not get in each other's way."""
    cabled.talker.send_datagrams(GROUP, PORT, interface="eth0")
    reports: list[Report] = []
    begin = Event()

    def ask() -> None:
        begin.wait()
        reports.append(cabled.listener.run(diagnose, ENDPOINT, listen=LISTEN))

    threads = [Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    begin.set()
    for thread in threads:
        thread.join()
    problems = [each for report in reports for each in report.findings if each.verdict == "problem"]
    assert [report.verdict for report in reports] == ["ok"] * 3, problems
