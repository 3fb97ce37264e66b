"""`mcast recv` and `mcast send --stamp` between real hosts: sources, pipes, and what is told of loss."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import ENVIRONMENT, PATIENCE, Done, Program, Run, on_terminal
from multicast_expert import DatagramBuffer, McastRxSocket
from multicast_expert.cli.arrivals import BATCH, PAUSE, batches, buffers
from multicast_expert.core.datagram import Datagram
from multicast_expert.stamp import Stamp, stamped
from multicast_expert.testing import Host, Lab, wait_until
from programs import MCAST

Ended = Callable[..., Done]
Pair = tuple[Host, Host]

NOTHING_LOST = "0 dropped by the kernel, 0 truncated, 0 filtered"


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Pair:
    """Two hosts on a cable; the second one has two addresses of each IP version."""
    desk, far = lab.host("near"), lab.host("far")
    lab.link(desk, far, ipv4=("10.9.0.1/24", "10.9.0.2/24"), ipv6=("fd09::1/64", "fd09::2/64"))
    far.ip("addr add 10.9.0.3/24 dev eth0", "addr add fd09::3/64 dev eth0 nodad")
    for host in (desk, far):
        host.ip("link add name spare type veth peer name wall", "link set spare up", "link set wall up")
        host.ip("addr add 10.8.0.1/24 dev spare")
    return desk, far


def payloads(output: str) -> list[str]:
    """The payloads in the lines of `mcast recv`."""
    return [re.split(r"\d bytes?: ", line, maxsplit=1)[1] for line in output.splitlines()]


def send_all(host: Host, address: tuple[str, int], datagrams: Sequence[bytes]) -> None:
    """Send from a plain socket of the host, which has one interface for it."""
    with host.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.9.0.2"))
            for datagram in datagrams:
                sender.sendto(datagram, address)


# From whom


@pytest.mark.parametrize(
    ("group", "other", "wanted", "unwanted"),
    [
        ("232.1.2.3:5000", "232.1.2.4:5000", "10.9.0.3", "10.9.0.2"),
        ("[ff35::1]:5000", "[ff35::2]:5000", "fd09::3", "fd09::2"),
    ],
    ids=["IPv4", "IPv6"],
)
def test_source_is_for_all_endpoints(
    pair: Pair, mcast: Run, listening: Program, ended: Ended, group: str, other: str, wanted: str, unwanted: str
) -> None:
    """--source lets one of two senders through, to every endpoint; an endpoint may name one more."""
    desk, far = pair
    receiver = listening(
        f"{group}%eth0", f"{unwanted}@{other}%eth0", "--source", wanted, "-c", "3", "-W", "20", on=desk
    )
    for endpoint in (group, other):
        for source in (unwanted, wanted):
            assert mcast("send", endpoint, f"{source} to {endpoint}", "-i", source, on=far).returncode == 0
    assert payloads(ended(receiver).stdout) == [
        f"{wanted} to {group}",
        f"{unwanted} to {other}",
        f"{wanted} to {other}",
    ]


@pytest.mark.parametrize(
    ("group", "wanted", "unwanted"),
    [("239.1.2.3:5001", "10.9.0.3", "10.9.0.2"), ("[ff15::1]:5001", "fd09::3", "fd09::2")],
    ids=["IPv4", "IPv6"],
)
def test_exclude(
    pair: Pair, mcast: Run, listening: Program, ended: Ended, group: str, wanted: str, unwanted: str
) -> None:
    """--exclude keeps one of two senders out and nobody else; the kernel knows of it."""
    desk, far = pair
    receiver = listening(f"{group}%eth0", "--exclude", unwanted, "--exclude", unwanted, "-c", "2", "-W", "20", on=desk)
    document = json.loads(mcast("groups", "--json", on=desk).stdout)
    [joined] = [each for each in document["groups"] if each["group"] == group.rpartition(":")[0].strip("[]")]
    assert [each["source"] for each in joined["excluded"]] == [unwanted]
    for text in ("one", "two"):
        for source in (unwanted, wanted):
            assert mcast("send", group, f"{text} from {source}", "-i", source, on=far).returncode == 0
    assert payloads(ended(receiver).stdout) == [f"one from {wanted}", f"two from {wanted}"]


def test_sources_of_both_versions(pair: Pair, mcast: Run, listening: Program, ended: Ended) -> None:
    """Endpoints of both IP versions take sources and exclusions of their own version."""
    desk, far = pair
    endpoints = ("232.1.2.3:5002%eth0", "[ff15::1]:5002%eth0")
    hosts = ("--source", "10.9.0.3", "--exclude", "fd09::2")
    receiver = listening(*endpoints, *hosts, "-c", "2", "-W", "20", on=desk)
    for source in ("10.9.0.2", "10.9.0.3", "fd09::2", "fd09::3"):
        endpoint = "[ff15::1]:5002" if ":" in source else "232.1.2.3:5002"
        mcast("send", endpoint, f"from {source}", "-i", source, on=far)
    assert payloads(ended(receiver).stdout) == ["from 10.9.0.3", "from fd09::3"]


# A terminal


def test_a_payload_on_a_terminal(pair: Pair) -> None:
    """A long payload ends with a row of the terminal, in colours, unless --full is given; a pipe gets no colour."""
    desk, far = pair
    host, text = "239.1.2.3:5025%eth0", bytes(1300)
    with far.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    over = threading.Event()
    with sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.9.0.2"))
        thread = threading.Thread(
            target=lambda: [sender.sendto(text, ("239.1.2.3", 5025)) for _ in iter(lambda: over.wait(0.02), True)]
        )
        thread.start()
        try:
            cut = on_terminal(desk, "recv", host, "-c", "1", "-W", "20")
            whole = on_terminal(desk, "recv", host, "-c", "1", "-W", "20", "--full", NO_COLOR="1")
        finally:
            over.set()
            thread.join()
    line = next(each for each in cut.splitlines() if "1,300 bytes" in each and "… +" in each)
    assert line.startswith("\x1b[2m")
    assert "\x1b[1m239.1.2.3:5025%eth0\x1b[0m" in line
    plain = re.sub(r"\x1b\[\d*m", "", line)
    assert 150 <= len(plain) <= 160
    assert re.search(r"1,300 bytes: (\\x00)+… \+1,2\d\d bytes$", plain)
    assert (whole.count("\\x00"), whole.count("\x1b")) == (1300, 0)


# Pipes


def start_raw(host: Host, *arguments: str, **pipes: int) -> "subprocess.Popen[bytes]":
    """Start `mcast recv --raw` and return once it listens."""
    process = host.popen(
        [*MCAST, "recv", "--raw", *arguments], stderr=subprocess.PIPE, env=ENVIRONMENT, **({"stdout": -1} | pipes)
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"listening to ")
    return process


def test_raw_is_every_byte_and_no_more(pair: Pair, mcast: Run) -> None:
    """--raw writes what was sent, whatever the bytes, stamp included; messages stay on standard error."""
    desk, far = pair
    process = start_raw(desk, "239.1.2.3:5003%eth0", "-c", "4", "-W", "20")
    every = bytes(range(256)) * 5
    assert mcast("send", "239.1.2.3:5003", "--file", "-", "-i", "10.9.0.2", on=far, stdin=every).returncode == 0
    foreign = stamped(Stamp(1, 2, 3), b"\r\n\x00\xff", 60)
    send_all(far, ("239.1.2.3", 5003), [b"", foreign, b"end"])
    output, messages = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (0, every + foreign + b"end")
    assert messages.startswith(b"4 datagrams, 1,343 bytes in ")


def test_raw_comes_at_once(pair: Pair) -> None:
    """A pipe gets each payload when it comes, not when a buffer is full."""
    desk, far = pair
    process = start_raw(desk, "239.1.2.3:5004%eth0", "-W", "20")
    try:
        assert process.stdout is not None
        for payload in (b"one", b"two"):
            send_all(far, ("239.1.2.3", 5004), [payload])
            assert select.select([process.stdout], [], [], PATIENCE)[0]
            assert os.read(process.stdout.fileno(), 100) == payload
    finally:
        desk.end_process(process)


def test_raw_into_a_closed_pipe(pair: Pair) -> None:
    """When who reads has gone, the command ends quietly."""
    desk, far = pair
    process = start_raw(desk, "239.1.2.3:5005%eth0", "-W", "20")
    assert process.stdout is not None
    process.stdout.close()
    send_all(far, ("239.1.2.3", 5005), [b"x"])
    assert process.wait(PATIENCE) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""
    desk.end_process(process)


# What is told of stamped streams


def test_stamped_datagrams_are_recognised(pair: Pair, mcast: Run, listening: Program, ended: Ended) -> None:
    """`send --stamp` numbers and pads, `recv` shows number, latency and the payload, and says that nothing was lost."""
    desk, _ = pair
    receiver = listening("239.1.2.3:5010%eth0", "-c", "3", "-W", "20", on=desk)
    arguments = ("--stamp", "-s", "200", "-c", "3", "--interval", "0")
    sent = mcast("send", "239.1.2.3:5010%eth0", "hello", *arguments, on=desk)
    assert sent.stderr == "3 datagrams, 600 bytes to 239.1.2.3:5010 out of eth0\n"
    done = ended(receiver)
    numbers = re.findall(r"ttl 1, 200 bytes, #(\d), \d+\.\d{3} ms: hello$", done.stdout, re.MULTILINE)
    assert numbers == ["1", "2", "3"]
    total, rate, lost, stream, accounts, jitter, latency = done.stderr.splitlines()
    assert total.startswith("3 datagrams, 600 bytes in ")
    assert rate.endswith("bit/s from the first to the last one")
    assert lost == NOTHING_LOST
    assert re.fullmatch(r"239\.1\.2\.3:5010%eth0 from 10\.9\.0\.1, stream [0-9a-f]{16}:", stream)
    assert accounts == "  3 received, 0 lost, 0 duplicates, 0 reordered"
    assert re.fullmatch(r"  jitter \d+\.\d{3} ms, longest gap \d+\.\d{3} ms", jitter)
    assert re.fullmatch(r"  latency \d+\.\d+ min, \d+\.\d+ p50, \d+\.\d+ p99, \d+\.\d+ max ms", latency)


def test_two_streams_are_accounted_apart(pair: Pair, listening: Program, ended: Ended) -> None:
    """Of two senders at once, loss, duplicates and disorder are told exactly, with hostile bytes between them."""
    desk, far = pair
    hostile = [b"\x8bmcast\r\n", stamped(Stamp(7, 8, 9), b"payload")[:-1], b"\x8bmcast\r\n" + b"\xff" * 40]
    one = [1, 2, 3, 7, 6, 3, 3, 9, 12]
    two = [1000, 999, 1001, 1001, 1500]
    now = time.time_ns()
    datagrams = list(hostile)
    for turn, number in enumerate(one):
        datagrams.append(stamped(Stamp(1, number, now), b""))
        datagrams += [stamped(Stamp(2, other, now), b"payload") for other in two[turn : turn + 1]]
    datagrams += hostile
    receiver = listening("239.1.2.3:5011%eth0", "--json", "-c", str(len(datagrams)), "-W", "20", on=desk)
    send_all(far, ("239.1.2.3", 5011), datagrams)
    done = ended(receiver)
    stamps = [json.loads(line)["stamp"] for line in done.stdout.splitlines()]
    for stream, numbers in (1, one), (2, two):
        assert [each["number"] for each in stamps if each is not None and int(each["stream"], 16) == stream] == numbers
    assert stamps.count(None) == 2 * len(hostile)
    assert done.stderr.splitlines()[2] == NOTHING_LOST
    assert [re.sub(r"-?[\d,]+\.\d{3}", "_", line) for line in done.stderr.splitlines()[3:]] == [
        "239.1.2.3:5011%eth0 from 10.9.0.2, stream 0000000000000001:",
        "  9 received, 5 lost (41.7 %), 2 duplicates, 1 reordered",
        "  jitter _ ms, longest gap _ ms",
        "  latency _ min, _ p50, _ p99, _ max ms, two hosts' clocks",
        "239.1.2.3:5011%eth0 from 10.9.0.2, stream 0000000000000002:",
        "  5 received, 498 lost (99.2 %), 1 duplicate, 1 reordered",
        "  jitter _ ms, longest gap _ ms",
        "  latency _ min, _ p50, _ p99, _ max ms, two hosts' clocks",
    ]


def test_a_line_that_loses_every_third(pair: Pair, mcast: Run, listening: Program, ended: Ended) -> None:
    """What the network loses of a stream of `mcast send --stamp` is what `mcast recv` says, to the datagram."""
    desk, far = pair
    receiver = listening("[ff15::1]:5012%eth0", "-W", "20", on=desk)
    assert receiver.stdout is not None
    with desk.lose_datagrams(every=3, traffic="udp dport 5012") as rule:
        arguments = ("--stamp", "-c", "31", "--interval", "0")
        assert mcast("send", "[ff15::1]:5012", "x", "-i", "fd09::2", *arguments, on=far).returncode == 0
        assert any("#31," in line for line in receiver.stdout)
        assert rule.dropped() == 11  # and one of three end marks
    done = ended(receiver, interrupt=True)
    accounts = [line for line in done.stderr.splitlines() if "received," in line]
    assert accounts == ["  21 received, 10 lost (32.3 %), 0 duplicates, 0 reordered"]


def waiting_bytes(port: int) -> int:
    """How much the sockets on a port hold for their program, as the kernel counts it."""
    lines = Path("/proc/thread-self/net/udp").read_text().splitlines()
    return sum(int(line.split()[4].partition(":")[2], 16) for line in lines if f":{port:04X} 00000000:0000" in line)


def state(process: "subprocess.Popen[str]") -> str:
    """Whether it runs (R, S) or is stopped (T)."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_kernel_drops_are_sent_minus_received(pair: Pair, listening: Program, ended: Ended) -> None:
    """A program that sleeps loses what its buffer cannot hold: the summary counts it, and the stream confirms it."""
    desk, far = pair
    sent = 500
    receiver = listening("239.1.2.3:5013%eth0", "--receive-buffer", "8192", "-W", "60", on=desk)
    receiver.send_signal(signal.SIGSTOP)
    wait_until(lambda: state(receiver) == "T", "the receiver has stopped")
    send_all(far, ("239.1.2.3", 5013), [stamped(Stamp(1, number, 0), bytes(100)) for number in range(1, sent)])
    wait_until(lambda: desk.run(waiting_bytes, 5013) > 8192, "the buffer is full")
    receiver.send_signal(signal.SIGCONT)
    wait_until(lambda: desk.run(waiting_bytes, 5013) == 0, "the receiver has read its buffer")
    send_all(far, ("239.1.2.3", 5013), [stamped(Stamp(1, sent, 0), b"end")])
    assert receiver.stdout is not None
    shown = 1
    while not receiver.stdout.readline().endswith(": end\n"):
        shown += 1
    done = ended(receiver, interrupt=True)
    assert 1 < shown < sent
    total, _, lost, _, accounts, _, _ = done.stderr.splitlines()
    assert total.startswith(f"{shown} datagrams, {(shown - 1) * 140 + 43:,} bytes in ")
    assert lost == f"{sent - shown} dropped by the kernel, 0 truncated, 0 filtered"
    assert accounts.startswith(f"  {shown} received, {sent - shown} lost (")


def test_the_order_of_arrival(pair: Pair, listening: Program, ended: Ended) -> None:
    """What waits at several receivers is shown in the order in which the kernel got it."""
    desk, far = pair
    receiver = listening("239.1.2.3:5021%eth0", "239.1.2.3:5022%eth0", "-c", "4", "-W", "60", on=desk)
    receiver.send_signal(signal.SIGSTOP)
    wait_until(lambda: state(receiver) == "T", "the receiver has stopped")
    for port, payload in (5021, b"1"), (5022, b"2"), (5021, b"3"), (5022, b"4"):
        send_all(far, ("239.1.2.3", port), [payload])
    wait_until(lambda: min(desk.run(waiting_bytes, port) for port in (5021, 5022)) > 0, "all have arrived")
    receiver.send_signal(signal.SIGCONT)
    assert payloads(ended(receiver).stdout) == ["1", "2", "3", "4"]


def test_a_buffer_that_is_not_granted(pair: Pair, mcast: Run) -> None:
    """A receive buffer beyond the limit of the system is received with as far as it goes, and said."""
    done = mcast("recv", "239.1.2.3:5014%eth0", "--receive-buffer", "1000000000", "-W", "0", on=pair[0])
    assert done.stderr.startswith("mcast: warning: The receive buffer is ")
    assert "net.core.rmem_max" in done.stderr.splitlines()[0]


# Ends


def test_terminated(pair: Pair, mcast: Run, listening: Program, ended: Ended) -> None:
    """SIGTERM, as `timeout` sends it, ends it with a summary like Ctrl-C."""
    desk, far = pair
    receiver = listening("239.1.2.3:5015%eth0", on=desk)
    assert receiver.stdout is not None
    mcast("send", "239.1.2.3:5015", "x", "-i", "10.9.0.2", on=far)
    assert receiver.stdout.readline().endswith(": x\n")
    receiver.terminate()
    done = ended(receiver)
    assert done.returncode == 130
    assert done.stderr.splitlines()[1:] == [NOTHING_LOST]


def test_an_ignored_interrupt_stays_ignored(pair: Pair, mcast: Run, program: Program, ended: Ended) -> None:
    """A shell script that ignores Ctrl-C, as nohup and `&` do, has programs that go on."""
    desk, far = pair
    ignoring = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
    receiver = program("recv", "239.1.2.3:5023%eth0", "-c", "1", "-W", "60", on=desk, prefix=ignoring)
    assert receiver.stderr is not None
    assert receiver.stderr.readline().startswith("listening to ")
    receiver.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert receiver.poll() is None
    mcast("send", "239.1.2.3:5023", "x", "-i", "10.9.0.2", on=far)
    assert ended(receiver).returncode == 0


def test_what_waits_at_the_end_is_received(pair: Pair) -> None:
    """The time is over, and more is there than one batch has: all that came before is yielded."""
    desk, far = pair
    make = lambda: McastRxSocket(socket.AF_INET, ["239.1.2.3"], 5024, "eth0", timestamps=True, gro=False)  # noqa: E731
    with desk.entered(), make() as receiver:
        send_all(far, ("239.1.2.3", 5024), [b"%d" % number for number in range(3 * BATCH)])
        wait_until(lambda: waiting_bytes(5024) > 0, "they arrive")
        time.sleep(0.2)
        found = list(batches([receiver], time.monotonic() - 1, lambda: 1.0))
    numbers = [int(each.data) for batch in found for _, datagrams in batch for each in datagrams]
    assert numbers == list(range(3 * BATCH))


@pytest.mark.parametrize(("timestamp_ns", "longest"), [(1, True), (None, False)], ids=["time", "no time"])
def test_what_is_only_counted_gathers(timestamp_ns: int | None, longest: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as the receive buffer allows, but only where the system says when each datagram arrived."""
    came = [Datagram(b"x", ("10.9.0.2", 4000), timestamp_ns=timestamp_ns)]
    pauses: list[float] = []

    class Receiver:
        receive_buffer = 64 << 20

        def receive_into(self, buffer: DatagramBuffer, *, timeout: float) -> int:
            if not came:
                raise TimeoutError
            buffer._rows.take(came)
            return len(buffer)

    counted: list[int] = []
    receiver: Any = Receiver()
    monkeypatch.setattr(time, "sleep", pauses.append)
    list(buffers([receiver], time.monotonic() - 1, lambda: 1.0, lambda _, buffer: counted.append(len(buffer))))
    assert counted == [1]
    assert [each > PAUSE for each in pauses] == [longest]


def test_more_groups_than_descriptors(pair: Pair, mcast: Run, program: Program, ended: Ended) -> None:
    """Where many groups need more descriptors than usual, the command takes what the administrator allows."""
    desk, far = pair
    endpoints = [f"239.7.0.{number}:5016%eth0" for number in range(1, 101)]
    limited = ("sh", "-c", 'ulimit -Sn 64; ulimit -Hn 4096; exec "$@"', "sh")
    receiver = program("recv", *endpoints, "-c", "1", "-W", "20", on=desk, prefix=limited)
    assert receiver.stderr is not None
    beginning = receiver.stderr.readline()
    assert beginning.startswith("listening to 239.7.0.1, ")
    # An ordinary user gets no more than net.core.rmem_max.
    assert re.search(r", 239\.7\.0\.8 and 92 more port 5016 on eth0 \(receive buffer \d+ [KM]iB\)$", beginning)
    mcast("send", "239.7.0.100:5016", "the last", "-i", "10.9.0.2", on=far)
    assert payloads(ended(receiver).stdout) == ["the last"]


def test_more_groups_than_descriptors_ever(pair: Pair, program: Program, ended: Ended) -> None:
    """Where the administrator does not allow it, one line says what is missing."""
    endpoints = [f"239.7.0.{number}:5017%eth0" for number in range(1, 101)]
    done = ended(program("recv", *endpoints, on=pair[0], prefix=("sh", "-c", 'ulimit -n 64; exec "$@"', "sh")))
    assert (done.returncode, done.stdout) == (1, "")
    assert "EMFILE" in done.stderr
    assert len(done.stderr.splitlines()) == 2


# Sending


@pytest.mark.parametrize(("name", "number"), [("46", 46), ("ef", 46), ("AF41", 34), ("cs1", 8), ("0", 0)])
@pytest.mark.parametrize(("group", "own"), [("239.1.2.3", "10.9.0.1"), ("ff15::1", "fd09::1")], ids=["IPv4", "IPv6"])
def test_dscp(pair: Pair, mcast: Run, group: str, own: str, name: str, number: int) -> None:
    """--dscp marks the datagram, by number or name."""
    desk, far = pair
    family, level, wanted, option = (
        (socket.AF_INET, socket.IPPROTO_IP, 13, 1) if "." in group else (socket.AF_INET6, socket.IPPROTO_IPV6, 66, 67)
    )
    with far.entered():
        member = socket.socket(family, socket.SOCK_DGRAM)
        index = socket.if_nametoindex("eth0")
    with member:
        member.settimeout(PATIENCE)
        member.setsockopt(level, wanted, 1)
        member.bind((group, 5018))
        if family == socket.AF_INET:
            member.setsockopt(level, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton("10.9.0.2"))
        else:
            packed = socket.inet_pton(family, group)
            member.setsockopt(level, socket.IPV6_JOIN_GROUP, packed + index.to_bytes(4, "little"))
        endpoint = f"[{group}]:5018" if ":" in group else f"{group}:5018"
        assert mcast("send", endpoint, "x", "-i", own, "--dscp", name, on=desk).returncode == 0
        _, ancillary, _, _ = member.recvmsg(10, 100)
    assert [(kind, data[0] >> 2) for _, kind, data in ancillary] == [(option, number)]


def test_several_interfaces_to_send_from(pair: Pair, mcast: Run, listening: Program, ended: Ended) -> None:
    """-i may be repeated: each datagram leaves from each interface, and each way is accounted by itself."""
    desk, _ = pair
    receiver = listening("239.1.2.3:5019", "-i", "eth0", "-i", "spare", "-c", "4", "-W", "20", on=desk)
    sent = mcast(
        "send", "239.1.2.3:5019", "-i", "spare", "-i", "10.9.0.1", "--stamp", "-c", "2", "--interval", "0", on=desk
    )
    assert sent.stderr == "2 datagrams, 112 bytes to 239.1.2.3:5019 out of spare and eth0\n"
    done = ended(receiver)
    assert sorted(re.findall(r"%(\w+) from ([\d.]+),", done.stderr)) == [("eth0", "10.9.0.1"), ("spare", "10.8.0.1")]
    assert done.stderr.count("  2 received, 0 lost, 0 duplicates, 0 reordered") == 2


def test_padding(pair: Pair, mcast: Run) -> None:
    """-s pads with zeros, with and without a stamp; the largest datagram goes, and what is larger is refused."""
    desk, far = pair
    process = start_raw(desk, "239.1.2.3:5020%eth0", "-c", "2", "-W", "20")
    mcast("send", "239.1.2.3:5020", "abc", "-s", "10", "-i", "10.9.0.2", on=far)
    mcast("send", "239.1.2.3:5020", "abc", "-s", "65507", "--stamp", "-i", "10.9.0.2", on=far)
    output, _ = process.communicate(timeout=PATIENCE)
    assert output[:10] == b"abc" + bytes(7)
    assert (len(output), output[50:60]) == (65517, b"abc" + bytes(7))
    refused = mcast("send", "239.1.2.3:5020", "-s", "65508", "-i", "10.9.0.2", on=far)
    assert (refused.returncode, "at most 65,507 bytes" in refused.stderr) == (2, True)
    refused = mcast("send", "239.1.2.3:5020", "--file", "-", "--stamp", on=far, stdin=bytes(65500))
    assert refused.returncode == 2
    assert "65,540 bytes with the stamp do not fit into a datagram of IPv4, at most 65,507." in refused.stderr


def test_a_file_without_end(mcast: Run, tmp_path: Path) -> None:
    """Of a file that is longer than a datagram, no more is read than tells so."""
    file = tmp_path / "long"
    file.touch()
    os.truncate(file, 1 << 40)
    done = mcast("send", "239.1.2.3:5020%lo", "--file", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mcast: {file} has more than the 65,507 bytes that fit.\n")
