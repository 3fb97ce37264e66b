"""`--metrics`: what Prometheus gets from `mcast recv`, `top` and `watch`, and what stops it from being served."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli.conftest import PATIENCE, Done, Program, Run
from multicast_expert.cli.exporter import Exporter
from multicast_expert.cli.metrics import WITHOUT_CLIENT, read_place
from multicast_expert.cli.render.metrics import EVENTS, Family, Heard, recv_families, top_families, watch_families
from multicast_expert.cli.render.streams import Place, Surroundings
from multicast_expert.cli.render.top import Snapshot
from multicast_expert.core.datagram import Datagram, ReceiveStats
from multicast_expert.observe.members import LIMIT, Event, Link
from multicast_expert.observe.meter import MAX_STREAMS, Meter
from multicast_expert.observe.streams import Streams
from multicast_expert.stamp import Stamp, end_mark, stamped
from multicast_expert.testing import Host, Lab, wait_until
from multicast_expert.wire.frames import udp_packet
from multicast_expert.wire.group_messages import GroupMessage, GroupRecord, GroupReport, RecordKind

GROUP, PORT = "239.1.2.3", 5000
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
NAME = re.compile(r"mcast_[a-z_]+")


@pytest.fixture
def pair() -> Iterator[tuple[Host, Host]]:
    """Two hosts on a cable."""
    with Lab() as lab:
        one, two = lab.host("one"), lab.host("two")
        lab.link(one, two, ipv4=("10.0.0.1/24", "10.0.0.2/24"), ipv6=("fd00::1/64", "fd00::2/64"))
        two.ip("route add 224.0.0.0/4 dev eth0")
        yield one, two


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    """An exporter of this process, on loopback."""
    with closing(Exporter("127.0.0.1", 0)) as opened:
        yield opened


def scraped(url: str) -> Samples:
    """What is served, as Prometheus reads it; its names keep the conventions, and no sample comes twice."""
    with urlopen(url, timeout=PATIENCE) as answer:
        text = answer.read().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert NAME.fullmatch(family.name)
        assert family.documentation.endswith(".")
        for name, labels, value, *_ in family.samples:
            assert name.endswith("_total") == (family.type == "counter")
            key = name, frozenset(labels.items())
            assert key not in found
            found[key] = value
    return found


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """The value of the metric with these labels among others."""
    values = [each for (found, has), each in samples.items() if found == f"mcast_{name}" and has >= labels.items()]
    assert len(values) <= 1, (name, labels, values)
    return values[0] if values else None


def started(program: Program, host: Host, *arguments: str, address: str = ":0") -> tuple["subprocess.Popen[str]", str]:
    """Start a command with --metrics, and return it with the place where the metrics are, when it is ready."""
    process = program(*arguments, "--metrics", address, on=host)
    assert process.stderr is not None
    url = process.stderr.readline().removeprefix("metrics at ").strip()
    if arguments[0] != "top":
        assert re.match("(listening to|watching) ", process.stderr.readline())
    return process, url


def wait_for(host: Host, url: str, expected: Callable[[Samples], bool]) -> Samples:
    """Scrape on the host until it is as expected."""
    found: Samples = {}

    def has_come() -> bool:
        found.clear()
        found.update(host.run(scraped, url))
        return expected(found)

    wait_until(has_come, "metrics as expected", PATIENCE)
    return found


def datagram(payload: bytes, source: str, group: str = GROUP, port: int = 9) -> Datagram:
    """A datagram as a receiver hands it over."""
    return Datagram(payload, (source, port), group, 2, "eth0", 1, 10**18, False)


def counts(families: "Iterator[Family] | tuple[Family, ...]", name: str) -> list[float]:
    """The values of a metric."""
    return [number for family in families if family.name == f"mcast_{name}" for _, number in family.samples]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (":9464", ("127.0.0.1", 9464)),
        ("", ("127.0.0.1", 9464)),
        (":80", ("127.0.0.1", 80)),
        ("9464", ("127.0.0.1", 9464)),
        ("10.0.0.1", ("10.0.0.1", 9464)),
        ("0.0.0.0:9999", ("0.0.0.0", 9999)),
        ("[::1]:9464", ("::1", 9464)),
        ("[fe80::1%eth0]", ("fe80::1%eth0", 9464)),
        ("fd00::1", ("fd00::1", 9464)),
    ],
)
def test_places(text: str, place: tuple[str, int]) -> None:
    """Address and port may each be left out."""
    assert read_place(text) == place


@pytest.mark.parametrize("text", ["host:1", "[::1", "10.0.0.1:65536", ":x", "[]:1", "::1:z"])
def test_places_that_make_no_sense(text: str, mcast: Run) -> None:
    """The error says what is meant, and that is a mistake of usage."""
    done = mcast("recv", f"{GROUP}:5000", "--metrics", text)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mcast: Invalid value for '--metrics': {text!r} is not an address and a port, such")


def test_recv(pair: tuple[Host, Host], program: Program) -> None:
    """Datagrams, bytes, loss, duplicates and order are those that were sent; an end mark adds the loss at the end."""
    one, two = pair
    process, url = started(program, one, "recv", "-q", f"{GROUP}:{PORT}%eth0")
    numbers = [1, 2, 4, 3, 3, 6]
    with two.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in numbers:
            sender.sendto(stamped(Stamp(7, number, time.time_ns()), b"x" * 60), (GROUP, PORT))
        labels = {
            "group": GROUP,
            "port": str(PORT),
            "source": "10.0.0.2",
            "interface": "eth0",
            "protocol": "mcast stamp",
        }
        found = wait_for(one, url, lambda each: value(each, "stream_datagrams_total", **labels) == 6)
        sender.sendto(end_mark(Stamp(7, 9, time.time_ns()), time.time_ns()), (GROUP, PORT))
        ended = wait_for(one, url, lambda each: value(each, "stream_lost_datagrams_total", **labels) == 4)
    size = len(stamped(Stamp(7, 1, 0), b"x" * 60))
    assert value(found, "stream_payload_bytes_total", **labels) == 6 * size
    assert value(found, "stream_lost_datagrams_total", **labels) == 1
    assert value(found, "stream_expected_datagrams_total", **labels) == 6
    assert value(found, "stream_duplicate_datagrams_total", **labels) == 1
    assert value(found, "stream_reordered_datagrams_total", **labels) == 1
    assert 0 <= (value(found, "stream_jitter_seconds", **labels) or 0) < 1
    assert abs((value(found, "stream_last_datagram_timestamp_seconds", **labels) or 0) - time.time()) < PATIENCE
    assert (value(found, "datagrams_total"), value(found, "kernel_drops_total")) == (6, 0)
    assert (value(found, "receive_buffer_bytes") or 0) > 10_000
    assert value(ended, "stream_expected_datagrams_total", **labels) == 9
    assert process.poll() is None


def test_head(exporter: Exporter) -> None:
    """HEAD gets the head of GET without a body, as monitors of web servers ask."""
    host, port = exporter.url.split("/")[2].split(":")
    with closing(HTTPConnection(host, int(port), timeout=PATIENCE)) as connection:
        answers = []
        for method in ("GET", "HEAD"):
            connection.request(method, "/metrics")
            answer = connection.getresponse()
            answers.append((answer.status, answer.headers["Content-Type"]))
            answer.read()
    assert answers[0] == answers[1]
    with socket.create_connection((host, int(port)), PATIENCE) as client:
        client.sendall(b"HEAD /metrics HTTP/1.0\r\n\r\n")
        received = b"".join(iter(lambda: client.recv(4096), b""))
    assert received.startswith(b"HTTP/1.0 200 OK\r\n")
    assert received.endswith(b"\r\n\r\n")
    assert received.count(b"\r\n\r\n") == 1


def test_watch(pair: tuple[Host, Host], program: Program) -> None:
    """Queriers, members and events are counted on each link, and a link without a querier says 0."""
    one, two = pair
    _, url = started(program, one, "watch", "-i", "eth0")
    link = {"interface": "eth0", "protocol": "IGMP"}
    found = wait_for(one, url, lambda each: value(each, "queriers", **link) == 0)
    assert value(found, "memberships", **link) == 0
    two.send_queries("eth0", source="10.0.0.2", source6="fe80::2")
    with two.join_and_never_read(GROUP, PORT, interface="eth0"):
        found = wait_for(one, url, lambda each: value(each, "group_members", group=GROUP, **link) == 1)
    assert value(found, "queriers", **link) == 1
    assert value(found, "querier_info", querier="10.0.0.2", version="3", **link) == 1
    assert value(found, "queriers", interface="eth0", protocol="MLD") == 1
    assert value(found, "memberships", **link) == 1
    assert value(found, "group_events_total", event="query", **link) == 1
    assert value(found, "group_events_total", event="join", **link) == 1
    found = wait_for(one, url, lambda each: value(each, "group_events_total", event="leave", **link) == 1)
    assert value(found, "group_members", group=GROUP, **link) is None


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_top(pair: tuple[Host, Host], program: Program, as_json: tuple[str, ...]) -> None:
    """A stream on the wire has its labels, with direction, and what this host does about it."""
    one, two = pair
    _, url = started(program, one, "top", "-i", "eth0", *as_json)
    labels = {"group": GROUP, "port": str(PORT), "source": "10.0.0.2", "interface": "eth0", "direction": "in"}
    with two.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        wait_for(one, url, lambda each: value(each, "streams") == 0)
        for number in (1, 2, 4):
            sender.sendto(stamped(Stamp(7, number, time.time_ns()), b""), (GROUP, PORT))
        found = wait_for(one, url, lambda each: value(each, "stream_datagrams_total", **labels) == 3)
    labels["protocol"] = "mcast stamp"
    assert value(found, "stream_lost_datagrams_total", **labels) == 1
    assert value(found, "stream_hop_limit", **labels) == 1
    assert value(found, "stream_stalled", **labels) == 0
    assert (value(found, "streams"), value(found, "lost_frames_total")) == (1, 0)


def test_loopback_of_ipv6(pair: tuple[Host, Host], program: Program) -> None:
    """[::1] is served, and nothing else: neither IPv4 nor the address of the network."""
    one, _ = pair
    _, url = started(program, one, "recv", f"{GROUP}:{PORT}", address="[::1]:9464")
    assert url == "http://[::1]:9464/metrics"
    assert value(wait_for(one, url, bool), "datagrams_total") == 0
    for other in ("127.0.0.1", "10.0.0.1"):
        with pytest.raises(URLError):
            one.run(scraped, f"http://{other}:9464/metrics")


@pytest.mark.parametrize("command", ["recv", "top", "watch"])
def test_a_place_that_cannot_be_had(command: str, pair: tuple[Host, Host], mcast: Run) -> None:
    """A port in use and an address of another host are one line and status 1, as other errors of the OS."""
    one, _ = pair
    endpoint = [f"{GROUP}:{PORT}"] if command == "recv" else []
    with one.entered(), socket.create_server(("127.0.0.1", 9464)):
        done = mcast(command, *endpoint, "--metrics", ":9464", on=one)
    assert done == Done(1, "", "mcast: --metrics 127.0.0.1:9464: Address already in use\n")
    done = mcast(command, *endpoint, "--metrics", "10.0.0.9", on=one)
    assert done == Done(1, "", "mcast: --metrics 10.0.0.9:9464: Cannot assign requested address\n")
    done = mcast(command, *endpoint, "--metrics", "[fe80::1%nowhere]:1", on=one)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("mcast: --metrics [fe80::1%nowhere]:1: ")


def test_without_the_client_library(mcast: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names what to install; without the option nothing loads it."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "multicast_expert.cli.exporter", raising=False)
    assert mcast("recv", f"{GROUP}:{PORT}", "--metrics", ":0") == Done(1, "", f"mcast: {WITHOUT_CLIENT}\n")
    done = mcast("recv", f"{GROUP}:{PORT}", "-W", "0.1")
    assert (done.returncode, "prometheus" in done.stderr) == (1, False)


def test_no_count_goes_down(exporter: Exporter) -> None:
    """A loss that a late datagram takes back stays counted; a stream that comes back begins anew."""

    def shows(lost: dict[str, float]) -> dict[str, float | None]:
        exporter.families = lambda: [
            Family("mcast_lost_total", "Lost.", ("source",), [((key,), each) for key, each in lost.items()], True)
        ]
        found = scraped(exporter.url)
        return {source: value(found, "lost_total", source=source) for source in ("a", "b")}

    assert shows({"a": 5, "b": 1}) == {"a": 5, "b": 1}
    assert shows({"a": 4, "b": 2}) == {"a": 5, "b": 2}
    assert shows({"b": 3}) == {"a": None, "b": 3}
    assert shows({"a": 1, "b": 3}) == {"a": 1, "b": 3}


def test_clients_that_stay_silent(exporter: Exporter) -> None:
    """Few are waited for, so that they take no memory; when they are gone, others are answered."""
    exporter.families = lambda: [Family("mcast_streams", "Streams.", (), [((), 3)])]
    host, port = exporter.url.removeprefix("http://").removesuffix("/metrics").split(":")
    with ExitStack() as opened:
        for _ in range(8):
            opened.enter_context(socket.create_connection((host, int(port))))
        with pytest.raises((URLError, HTTPException, ConnectionError)):
            scraped(exporter.url)

    def is_answered() -> bool:
        try:
            return value(scraped(exporter.url), "streams") == 3
        except (URLError, HTTPException, ConnectionError):
            return False

    wait_until(is_answered, "an answer", PATIENCE)


def test_each_client_that_is_answered_makes_room(exporter: Exporter) -> None:
    """Any number are answered, one after the other."""
    exporter.families = lambda: [Family("mcast_streams", "Streams.", (), [((), 3)])]
    for _ in range(20):
        assert value(scraped(exporter.url), "streams") == 3


def test_runs_of_a_sender_are_one_stream() -> None:
    """Runs of a sender share labels, so that they are added up, with the jitter of the latest."""
    meter = Meter(0)
    for run, numbers in ((1, (1, 3)), (2, (1, 2, 5))):
        meter.take([datagram(stamped(Stamp(run, each, 10**18), b""), "10.0.0.2") for each in numbers], PORT, 0)
    families = tuple(recv_families(meter, [ReceiveStats(5, 100, 0, None, 0)], 4096)())
    assert counts(families, "stream_datagrams_total") == [5]
    assert counts(families, "stream_expected_datagrams_total") == [8]
    assert counts(families, "stream_lost_datagrams_total") == [3]
    assert counts(families, "stream_jitter_seconds") == [0]
    assert counts(families, "kernel_drops_total") == []
    assert counts(families, "receive_buffer_bytes") == [4096]


def test_the_jitter_is_that_of_the_run_that_came_last() -> None:
    """Also where another run began later, and ended before."""
    meter = Meter(0)
    for run, number, seconds in ((1, 1, 0), (2, 1, 5), (1, 2, 16)):
        arrived = Datagram(
            stamped(Stamp(run, number, 1), b""), ("10.0.0.2", 9), GROUP, timestamp_ns=seconds * 10**9 + 1
        )
        meter.take([arrived], PORT, 0)
    families = tuple(recv_families(meter, [ReceiveStats(3, 100, 0, 0, 0)], 4096)())
    assert counts(families, "stream_jitter_seconds") == [1.0]
    assert counts(families, "stream_last_datagram_timestamp_seconds") == [pytest.approx(16)]


def test_spoofed_sources_are_bounded() -> None:
    """However many sources, groups and VLANs there are, the sets of labels are as many as observe/ follows."""
    meter = Meter(0)
    meter.take([datagram(b"x", f"10.0.{each >> 8}.{each & 255}") for each in range(3 * MAX_STREAMS)], PORT, 10**18)
    families = tuple(recv_families(meter, [], 0)())
    assert len(counts(families, "stream_datagrams_total")) == MAX_STREAMS
    assert counts(families, "unfollowed_datagrams_total") == [2 * MAX_STREAMS]
    streams = Streams(limit=50)
    for each in range(200):
        streams.take_packet("eth0", False, udp_packet((f"10.1.0.{each}", 9), (GROUP, PORT), b"x"), 10.0)
    snapshot = Snapshot(
        10.0, ("eth0",), list(streams.streams(10.0)), Surroundings({Place(GROUP, "eth0"): ()}, {}), 0, 150
    )
    assert len(counts(top_families(snapshot), "stream_joined")) == 50
    heard, links = Heard(), {("eth0", 4): Link(), ("eth1", 4): Link()}
    for vlan in range(2 * EVENTS):
        heard.note(f"eth0 VLAN {vlan}", 4, Event(0, "query", "10.0.0.1"))
    for number, link in enumerate(links.values()):
        for each in range(LIMIT):
            record = GroupRecord(RecordKind.IS_EXCLUDE, f"239.{number}.{each >> 8}.{each & 255}", ())
            link.take(0, GroupMessage("10.0.0.1", GroupReport(3, (record,))))
    shown = tuple(watch_families(links, ["eth0"], heard)())
    assert len(counts(shown, "group_members")) == LIMIT
    assert counts(shown, "memberships") == [LIMIT, LIMIT, 0]
    events = counts(shown, "group_events_total")
    assert (len(events), sum(events)) == (EVENTS + 1, 2 * EVENTS)


def test_the_document_names_every_metric() -> None:
    """The page on metrics has each name that the commands serve, and no other."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "metrics.md").read_text(encoding="utf-8")
    served = [
        *recv_families(Meter(0), [], 0)(),
        *top_families(Snapshot(0.0, (), [], Surroundings())),
        *watch_families({}, [], Heard())(),
    ]
    assert set(NAME.findall(page)) == {each.name for each in served}
