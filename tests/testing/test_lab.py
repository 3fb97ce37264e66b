"""Hosts, cables and interfaces of the lab, and what becomes of them at its end."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from linux.plain_sockets import all_closed, open_descriptors
from multicast_expert.testing import CommandError, Host, Interface, Lab, LabError, wait_until
from multicast_expert.testing.node import Node
from network.watching import end_watches
from programs import need
from testing.networks import Pair, Star
from testing.plain_sockets import member_of, received, send, surely_arrives

GROUPS = ["239.1.2.3", "ff02::1:2:3", "ff05::1:2:3", "ff15::1:2:3"]


def network() -> str:
    """The network that the calling thread is in."""
    return str(Path("/proc/thread-self/ns/net").readlink())


@pytest.mark.parametrize("group", [GROUPS[0], GROUPS[3]])
def test_hosts_on_a_switch_hear_each_other(star: Star, group: str) -> None:
    """Multicast of one host reaches the other hosts of the switch, from the address that the lab gave it."""
    with member_of(group, star.two) as two, member_of(group, star.three) as three:
        send(b"to all", group, star.one)
        sender = star.one.ipv6 if ":" in group else star.one.ipv4
        assert received(two, 5) == (b"to all", sender)
        assert received(three, 5) == (b"to all", sender)


@pytest.mark.parametrize("group", GROUPS)
def test_a_cable_works_at_once_in_both_directions(pair: Pair, group: str) -> None:
    """Right after link(), IPv4 and every IPv6 scope pass both ways: no address waits for duplicate detection."""
    with member_of(group, pair.near) as near, member_of(group, pair.far) as far:
        assert surely_arrives(group, pair.near, far)
        assert surely_arrives(group, pair.far, near)


def test_a_link_local_address_is_usable_at_once(pair: Pair) -> None:
    """A socket can be bound to the interface's link-local address right after link()."""
    with pair.first.entered(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as bound:
        bound.bind((pair.near.link_local, 0, 0, pair.near.index()))
        assert bound.getsockname()[0].partition("%")[0] == pair.near.link_local


def solicitations(host: Host) -> int:
    """How many neighbours the host has asked for, which is how it detects duplicate addresses."""
    lines = host.command("cat", "/proc/thread-self/net/snmp6").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Icmp6OutNeighborSolicits")))


@pytest.mark.slow
def test_duplicate_address_detection_can_be_kept(multicast_lab: Lab) -> None:
    """With dad=True each address is announced before it is used, with dad=False none is."""
    quick, careful = multicast_lab.host("quick"), multicast_lab.host("careful", dad=True)
    quick.add_interface("eth0", ipv6="fd01::1/64")
    careful.add_interface("eth0", ipv6="fd01::2/64")
    assert (solicitations(quick), solicitations(careful)) == (0, 2)


@pytest.mark.alone
def test_bring_up_is_fast(multicast_lab: Lab) -> None:
    """Three hosts on a switch take no longer than the making of 40 bare networks: nothing waits for a timer."""
    started = time.monotonic()
    switch = multicast_lab.switch("switch")
    for number in (1, 2, 3):
        host = multicast_lab.host(f"h{number}")
        multicast_lab.plug(host, switch, ipv4=f"10.1.0.{number}/24", ipv6=f"fd01::{number}/64")
    took = time.monotonic() - started
    started = time.monotonic()
    for number in range(40):
        multicast_lab.host(f"bare{number}").ip("link show")
    assert took < time.monotonic() - started


def test_an_interface_tells_what_it_has(pair: Pair) -> None:
    """Name, addresses, index and the other end, as the kernel sees them; what was not given is an error."""
    listed = pair.first.command("ip", "-o", "addr", "show", "dev", "eth0")
    assert f"{pair.near.index()}: eth0" in listed
    assert f"inet {pair.near.ipv4}/24" in listed
    assert f"inet6 {pair.near.ipv6}/64" in listed
    assert f"inet6 {pair.near.link_local}/64" in listed
    assert (pair.near.name, pair.near.peer) == ("eth0", pair.far)
    bare = pair.first.add_interface("eth1")
    with pytest.raises(LabError, match="first eth1 was given no IPv4 address"):
        assert bare.ipv4


def test_indexes_differ_throughout_a_lab(star: Star) -> None:
    """No two interfaces of a lab have the same index, so code that mixes hosts up cannot work by accident."""
    interfaces = [end for host in (star.one, star.two, star.three) for end in (host, host.peer)]
    assert len({interface.index() for interface in interfaces}) == len(interfaces)


def test_mtu_is_that_of_the_whole_cable(multicast_lab: Lab) -> None:
    """plug(mtu=9000) lets a datagram of 8000 bytes through in one piece."""
    switch = multicast_lab.switch("switch")
    one, two = (
        multicast_lab.plug(multicast_lab.host(f"h{n}"), switch, ipv4=f"10.1.0.{n}/24", mtu=9000) for n in (1, 2)
    )
    with member_of("239.1.2.3", two) as member:
        send(b"x" * 8000, "239.1.2.3", one)
        assert received(member, 5) == (b"x" * 8000, "10.1.0.1")
        snmp = two.node.run(Path("/proc/net/snmp").read_text).splitlines()
    names, values = (line.split() for line in snmp[:2])
    assert values[names.index("ReasmReqds")] == "0"


def test_entered_moves_the_thread_there_and_back(pair: Pair) -> None:
    """Inside the block the thread is in the host's network, and afterwards, an exception or not, where it was."""
    before = network()
    with pair.first.entered():
        assert network() != before
        assert [name for _, name in socket.if_nameindex()] == ["lo", "eth0"]
        with pair.second.entered():
            assert network() not in (before, "")
    with contextlib.suppress(ZeroDivisionError), pair.first.entered():
        _ = 1 / 0
    assert network() == before


def test_run_calls_in_the_host(pair: Pair) -> None:
    """run() passes arguments, returns the result or raises the exception, and leaves the caller where it is."""
    before = network()

    def look(number: int, *, text: str) -> tuple[int, str, bool]:
        return number, text, network() != before

    assert pair.first.run(look, 1, text="two") == (1, "two", True)
    with pytest.raises(ZeroDivisionError):
        pair.first.run(lambda: 1 / 0)
    assert network() == before


def test_run_sees_the_host_in_the_file_system(pair: Pair) -> None:
    """/proc/net and /sys/class/net inside run() are the host's, whatever thread calls it."""
    pair.second.add_interface("only-here")

    def look() -> tuple[bool, bool]:
        return "only-here" in Path("/proc/net/dev").read_text(), Path("/sys/class/net/only-here").exists()

    assert pair.first.run(look) == (False, False)
    assert pair.second.run(look) == (True, True)
    assert look() == (False, False)


def test_processes_run_in_the_host(pair: Pair) -> None:
    """command() returns what the program prints; both it and popen() run in the host's network."""
    listing = pair.first.command("ls", "/sys/class/net")
    assert listing.split() == ["eth0", "lo"]
    code = "import socket; print([name for _, name in socket.if_nameindex()])"
    process = pair.second.popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.communicate(timeout=30)[0] == "['lo', 'eth0']\n"


def test_programs_take_their_words_alike(pair: Pair) -> None:
    """popen() and command() take the words of a program one by one or as a list."""
    for words in (("echo", "two words"), (["echo", "two words"],)):
        assert pair.first.command(*words) == "two words\n"
        assert pair.first.popen(*words, stdout=subprocess.PIPE, text=True).communicate(timeout=30)[0] == "two words\n"


COMPLAINS = ["sh", "-c", "echo no such group >&2; exit 3"]


@pytest.mark.parametrize("stderr", [{}, {"stderr": subprocess.PIPE}], ids=["by itself", "pipe"])
def test_a_wait_for_a_program_that_ended(pair: Pair, stderr: dict[str, int]) -> None:
    """The error has its status and its standard error, and does not wait any longer."""
    program = pair.first.popen(COMPLAINS, **stderr)
    began = time.monotonic()
    with pytest.raises(LabError, match=r"In vain: it joins; `sh -c .*` ended with 3: no such group$"):
        wait_until(lambda: False, "it joins", 60, program=program)
    assert time.monotonic() - began < 30


def test_a_wait_for_a_member_whose_program_ended(star: Star, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the programs of the host that have ended; what they wrote appears when the lab ends them."""
    interface = star.one
    program = interface.node.popen(COMPLAINS)
    program.wait(30)
    with pytest.raises(LabError, match=r"as a member of 239.1.2.3. On .* ended with 3: no such group$"):
        star.switch.wait_for_member("239.1.2.3", interface, timeout=0.1)
    interface.node.end_process(program)
    assert capsys.readouterr().err == "no such group\n"


def test_a_default_route(multicast_lab: Lab) -> None:
    """With it, what names no interface leaves there, over IPv4 and IPv6, with the address of the interface."""
    host, switch = multicast_lab.host("host"), multicast_lab.switch("switch")
    multicast_lab.plug(host, switch, ipv4="10.1.0.1/24")
    multicast_lab.plug(host, switch, ipv4="10.2.0.1/24", ipv6="fd02::1/64", interface="eth1", default=True)
    assert "dev eth1 src 10.2.0.1" in host.command("ip", "route", "get", "239.1.2.3")
    assert "dev eth1" in host.command("ip", "-6", "route", "get", "2001:db8::1")


def test_a_failed_command_says_why(pair: Pair) -> None:
    """The error names the host and the command, and carries what it printed; so does one for a missing program."""
    with pytest.raises(CommandError, match=r"first: `ip link set nothing up` ended with 1: .*nothing") as caught:
        pair.first.command("ip", "link", "set", "nothing", "up")
    assert caught.value.returncode == 1
    assert "nothing" in caught.value.stderr
    with pytest.raises(LabError, match="`no-such-program` is not installed or may not be run"):
        pair.first.command("no-such-program")


def test_a_status_may_be_a_result(pair: Pair) -> None:
    """A status that the test names is no failure, and the output comes back; any other status still is one."""
    report = ["sh", "-c", "echo found; exit 3"]
    assert pair.first.command(report, statuses=(0, 3)) == "found\n"
    with pytest.raises(CommandError, match="ended with 3: found"):
        pair.first.command(report, statuses=(0, 1))
    with pytest.raises(CommandError, match="ended with 0"):
        pair.first.command("true", statuses=(1,))


def test_names_are_given_once(multicast_lab: Lab) -> None:
    """A second host of the same name, or a second interface of the same name in a host, is refused."""
    host = multicast_lab.host("h")
    host.add_interface("eth0")
    with pytest.raises(LabError, match="already"):
        multicast_lab.switch("h")
    with pytest.raises(LabError, match="already"):
        host.add_interface("eth0")
    with pytest.raises(LabError, match="no interface eth7"):
        host.set_link("eth7", up=False)


def test_labs_at_once_do_not_meet() -> None:
    """Four labs with the same names and addresses, in four threads, carry only their own traffic."""
    need("ip")
    ready = threading.Barrier(4, timeout=30)

    def one_lab(number: int) -> tuple[bytes, str] | None:
        with Lab() as lab:
            switch = lab.switch("switch")
            one = lab.plug(lab.host("one"), switch, ipv4="10.1.0.1/24")
            two = lab.plug(lab.host("two"), switch, ipv4="10.1.0.2/24")
            with member_of("239.1.2.3", two) as member:
                ready.wait()
                send(f"lab {number}".encode(), "239.1.2.3", one)
                first = received(member, 5)
                ready.wait()
                assert received(member, 0.01) is None
                return first

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(one_lab, range(4))) == [(f"lab {n}".encode(), "10.1.0.1") for n in range(4)]


@pytest.mark.usefixtures("multicast_lab")
@pytest.mark.parametrize("fails", [False, True], ids=["after the block", "after an exception"])
def test_nothing_is_left(fails: bool) -> None:
    """Networks, processes, descriptors, threads and files of a lab are gone after it."""
    # What lingers of earlier tests may end meanwhile.
    end_watches()
    witness = Node("witness")
    try:
        descriptors = open_descriptors()
        threads = threading.active_count()
        with contextlib.suppress(ZeroDivisionError), Lab() as lab:
            switch = lab.switch("switch")
            host, router = lab.host("host"), lab.router("router")
            lab.plug(host, switch, ipv4="10.1.0.1/24")
            lab.plug(router, switch, ipv4="10.1.0.2/24", interface="lan")
            host.add_interface("eth1")
            router.route_multicast("239.1.2.3", "lan", ["lan"])
            process = host.popen(["sleep", "1000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            directory = Path(router._directory.name)
            assert directory.exists()
            # Its network's end takes the other end of this cable along
            probe = Interface(witness, "probe")
            host._cables.connect(Interface(host, "probe"), probe)
            assert probe.exists()
            assert process.poll() is None
            if fails:
                _ = 1 / 0
        assert process.returncode is not None
        assert not directory.exists()
        all_closed(descriptors)
        assert threading.active_count() <= threads
        wait_until(lambda: not probe.exists(), "the kernel has removed the network")
    finally:
        witness.close()


@pytest.mark.slow
def test_a_stubborn_process_is_killed() -> None:
    """A process that ignores SIGTERM is gone after the lab all the same."""
    with Lab() as lab:
        process = lab.host("h").popen(["sh", "-c", "trap '' TERM; echo; read line"], stdin=-1, stdout=-1)
        assert process.stdout is not None
        process.stdout.readline()
    assert process.returncode == -9


def test_a_closed_lab_is_closed() -> None:
    """After its block a host can no longer be entered; closing the lab again is fine."""
    with Lab() as lab:
        host = lab.host("h")
    lab.close()
    with pytest.raises(LabError, match="closed"), host.entered():
        pass
    with pytest.raises(LabError, match="closed"):
        host.run(network)
