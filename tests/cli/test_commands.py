"""`mcast send`, `recv`, `interfaces` and the command line itself, run as programs on a host of their own."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import sleep

import pytest

import multicast_expert
from cli.conftest import PATIENCE, Done, Program, Run, on_terminal
from multicast_expert.cli import COMMANDS
from multicast_expert.testing import Host, Lab

Ended = Callable[..., Done]

TIME = r"\d\d:\d\d:\d\d\.\d{6}"


# Sending and receiving


def test_a_line_for_every_datagram(mcast: Run, listening: Program, ended: Ended) -> None:
    """Groups of both IP versions on different ports are received at once; each datagram shows its facts."""
    receiver = listening("239.1.2.3:5000%eth0", "[ff15::1234]:5001%eth0", "239.1.2.4:5000%eth0", "-c", "3", "-W", "20")
    assert mcast("send", "239.1.2.3:5000", "to [bold]three").stderr == (
        "1 datagram, 14 bytes to 239.1.2.3:5000 out of eth0\n"
    )
    assert mcast("send", "239.1.2.4:5000", "to four", "-t", "9").returncode == 0
    assert mcast("send", "[ff15::1234]:5001", "-i", "fd09::1").returncode == 0
    status, output, messages = ended(receiver)
    patterns = [
        TIME + r" 239\.1\.2\.3:5000%eth0 from 10\.9\.0\.1:\d+, ttl 1, 14 bytes: to \[bold\]three",
        TIME + r" 239\.1\.2\.4:5000%eth0 from 10\.9\.0\.1:\d+, ttl 9, 7 bytes: to four",
        TIME + r" \[ff15::1234\]:5001%eth0 from \[fd09::1\]:\d+, ttl 1, 16 bytes: hello from mcast",
    ]
    lines = output.splitlines()
    assert len(lines) == 3, messages
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line)
    assert status == 0
    assert re.fullmatch(
        r"3 datagrams, 37 bytes in \d+\.\d s\n"
        r"[\d.,]+ datagrams/s, [\d.]+ [kM]?bit/s from the first to the last one\n"
        r"0 dropped by the kernel, 0 truncated, 0 filtered\n",
        messages,
    )


def test_json_is_one_object_a_line(mcast: Run, listening: Program, ended: Ended) -> None:
    """--json writes each datagram as soon as it came, on a line that any program can read, hostile bytes included."""
    receiver = listening("239.1.2.5:5000%lo", "--json", "-W", "20")
    assert receiver.stdout is not None
    mcast("send", "239.1.2.5:5000%lo", "one\x7f\x1b[2J\u202e")
    line = receiver.stdout.readline()
    assert line.strip().isprintable()
    first = json.loads(line)
    assert (first["text"], bytes.fromhex(first["data"])) == ("one\x7f\x1b[2J\u202e", "one\x7f\x1b[2J\u202e".encode())
    mcast("send", "239.1.2.5:5000%lo", "")
    second = json.loads(receiver.stdout.readline())
    assert {name: second[name] for name in ("group", "port", "interface", "sender", "hop_limit", "length", "text")} == {
        "group": "239.1.2.5",
        "port": 5000,
        "interface": "lo",
        "sender": "127.0.0.1",
        "hop_limit": 1,
        "length": 0,
        "text": "",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", second["time"])
    status, output, messages = ended(receiver, interrupt=True)
    assert (status, output) == (130, "")
    assert messages.startswith("2 datagrams, 11 bytes in ")


def test_hexadecimal_and_files(mcast: Run, listening: Program, ended: Ended) -> None:
    """A payload comes from standard input byte for byte, several times if asked, and --hex shows its bytes."""
    receiver = listening("[ff15::66]:5000%lo", "--hex", "-c", "2", "-W", "20")
    sent = mcast("send", "[ff15::66]:5000%lo", "--file", "-", "-c", "2", "--interval", "0", stdin="a\nü".encode())
    assert sent.stderr == "2 datagrams, 8 bytes to [ff15::66]:5000 out of lo\n"
    status, output, _ = ended(receiver)
    lines = output.splitlines()
    assert status == 0
    assert [line[line.index(" ttl") :] for line in lines[::2]] == [" ttl 1, 4 bytes"] * 2
    assert lines[1::2] == ["  0000  61 0a c3 bc                                      a..."] * 2


def test_a_source_is_selected(mcast: Run, listening: Program, ended: Ended) -> None:
    """source@group receives from that source only."""
    endpoints = ("10.9.0.9@232.1.2.3:5000%eth0", "10.9.0.1@232.1.2.4:5000%eth0")
    assert mcast("recv", *endpoints, "-W", "0").stderr.partition(" (receive buffer ")[0] == (
        "listening to 232.1.2.3 port 5000 on eth0, from 10.9.0.9 only; 232.1.2.4 port 5000 on eth0, from 10.9.0.1 only"
    )
    receiver = listening(*endpoints, "-c", "1", "-W", "20")
    mcast("send", "232.1.2.3:5000%eth0", "from the wrong one")
    mcast("send", "232.1.2.4:5000%eth0", "from the right one")
    status, output, _ = ended(receiver)
    assert (status, len(output.splitlines())) == (0, 1)
    assert "from the right one" in output


def test_several_interfaces(mcast: Run, listening: Program, ended: Ended) -> None:
    """-i may be repeated, and each datagram shows where it came in."""
    receiver = listening("239.1.2.6:5000", "-i", "lo", "-i", "eth0", "-c", "2", "-W", "20")
    mcast("send", "239.1.2.6:5000%lo")
    mcast("send", "239.1.2.6:5000", "-i", "10.9.0.1")
    status, output, _ = ended(receiver)
    assert status == 0
    assert re.findall(r"239\.1\.2\.6:5000%(\w+)", output) == ["lo", "eth0"]


def test_no_loopback(mcast: Run, listening: Program, ended: Ended) -> None:
    """--no-loopback keeps a datagram from receivers on the same host."""
    receiver = listening("239.1.2.7:5000%eth0", "-c", "1", "-W", "20")
    mcast("send", "239.1.2.7:5000%eth0", "unheard", "--no-loopback")
    mcast("send", "239.1.2.7:5000%eth0", "heard")
    assert re.findall("unheard|heard", ended(receiver).stdout) == ["heard"]


def test_a_receiver_heals(multicast_lab: Lab, mcast: Run, listening: Program, ended: Ended) -> None:
    """An interface that is deleted and comes back is heard again, and both are told."""
    host = multicast_lab.host("healing")
    host.add_interface("eth0", ipv4="10.9.0.1/24")
    receiver = listening("239.1.2.3:5000%eth0", "-c", "1", "-W", "20", on=host)
    assert receiver.stderr is not None
    host.remove_interface("eth0")
    assert receiver.stderr.readline() == "mcast: 1 group lost with eth0\n"
    host.recreate_interface("eth0")
    assert receiver.stderr.readline() == "mcast: 1 group joined on eth0\n"
    mcast("send", "239.1.2.3:5000%eth0", "again", on=host)
    done = ended(receiver)
    assert (done.returncode, done.stdout.partition("bytes: ")[2]) == (0, "again\n"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("record /dev/null 239.1.2.3:5000%eth0", "mcast: 1 group lost with eth0\n0 datagrams, 80 bytes in /dev/null\n"),
        ("pong -i eth0", "0 queries answered, 0 too fast, 0 unreadable\n"),
    ],
)
def test_the_log_is_not_between_the_lines(
    multicast_lab: Lab, program: Program, ended: Ended, arguments: str, told: str
) -> None:
    """What a command tells of a lost interface it tells once, in its own words."""
    host = multicast_lab.host(f"logging {arguments.split(maxsplit=1)[0]}")
    host.add_interface("eth0", ipv4="10.9.2.1/24")
    process = program(*arguments.split(), on=host)
    assert process.stderr is not None
    assert process.stderr.readline().startswith(("recording", "answering"))
    host.remove_interface("eth0")
    first = process.stderr.readline() if "lost" in told else ""
    sleep(0.2)  # for what should not come
    assert first + ended(process, interrupt=True).stderr == told


def test_what_was_sent_before_the_interface_went(multicast_lab: Lab, program: Program, ended: Ended) -> None:
    """The summary names the interface, although it is not there any more."""
    host = multicast_lab.host("leaving")
    host.add_interface("eth0", ipv4="10.9.1.1/24")
    with host.join_and_never_read("239.1.2.3", 5000, interface="eth0") as member:
        member.settimeout(PATIENCE)
        sender = program("send", "239.1.2.3:5000%eth0", "-c", "0", "--interval", "0.1", on=host)
        member.recv(1500)
    host.remove_interface("eth0")
    done = ended(sender)
    assert done.returncode == 1
    assert re.match(r"\d+ datagrams?, \d+ bytes to 239\.1\.2\.3:5000 out of eth0\n", done.stderr)


# Exit statuses


def test_nothing_came(mcast: Run) -> None:
    """Exit status 1 when nothing came in time, like ping."""
    done = mcast("recv", "239.1.2.8:5000%lo", "-W", "0.1")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"listening to 239\.1\.2\.8 port 5000 on lo \(receive buffer [\d,]+ [KM]iB\)\n"
        r"0 datagrams, 0 bytes in \d+\.\d s\n"
        r"0 dropped by the kernel, 0 truncated, 0 filtered\n"
        r"nothing came for: 239\.1\.2\.8:5000%lo\n"
        r"hint: mcast doctor 239\.1\.2\.8:5000%lo looks for the cause on this host\n",
        done.stderr,
    )


def test_fewer_came_than_were_asked_for(mcast: Run, listening: Program, ended: Ended) -> None:
    """Exit status 1 when the time passes before -c datagrams came."""
    for wait in ("1", "5", "25"):  # longer where the machine is too busy to send in time
        receiver = listening("239.1.2.9:5000%lo", "-c", "2", "-W", wait)
        mcast("send", "239.1.2.9:5000%lo")
        status, output, _ = ended(receiver)
        if output:
            break
    assert (status, len(output.splitlines())) == (1, 1)


def test_ctrl_c_before_all_came(mcast: Run, listening: Program, ended: Ended) -> None:
    """Ctrl-C ends it with its summary, and the status says so."""
    receiver = listening("239.1.2.12:5000%lo", "-c", "2")
    mcast("send", "239.1.2.12:5000%lo")
    assert receiver.stdout is not None
    assert receiver.stdout.readline()
    status, _, messages = ended(receiver, interrupt=True)
    assert (status, messages.partition(",")[0]) == (130, "1 datagram")


def test_ctrl_c_before_anything_came(listening: Program, ended: Ended) -> None:
    """Ctrl-C ends with a summary and without a traceback."""
    status, output, messages = ended(listening("239.1.2.10:5000%lo"), interrupt=True)
    assert (status, output) == (130, "")
    assert re.match(r"0 datagrams, 0 bytes in \d+\.\d s\n0 dropped by the kernel, .*\nnothing came for: ", messages)


@pytest.mark.parametrize("count", ["0", "500"])
def test_ctrl_c_while_sending(program: Program, listening: Program, ended: Ended, count: str) -> None:
    """Ctrl-C is the way to end an endless `send`, and cuts off any other."""
    group = f"239.1.3.{len(count)}:5000%lo"
    receiver = listening(group, "-c", "1", "-W", "20")
    sender = program("send", group, "-c", count)
    assert ended(receiver).returncode == 0
    ending, output, messages = ended(sender, interrupt=True)
    assert (ending, output) == (130, "")
    assert re.fullmatch(r"\d+ datagrams?, \d+ bytes to 239\.1\.3\.\d:5000 out of lo\n", messages)


def test_the_reader_has_gone(mcast: Run, listening: Program, ended: Ended) -> None:
    """When the program that reads the output ends, as `head -1` does, the command ends quietly."""
    receiver = listening("239.1.2.11:5000%lo", "-W", "20")
    assert receiver.stdout is not None
    receiver.stdout.close()
    mcast("send", "239.1.2.11:5000%lo")
    assert (receiver.wait(20), receiver.stderr and receiver.stderr.read()) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["send"], "Missing argument 'ENDPOINT'."),
        (["send", "239.1.2.3"], "endpoint '239.1.2.3' names no port; write 239.1.2.3:5000 for port 5000."),
        (["send", "ff15::1"], "endpoint 'ff15::1' names no port; write [ff15::1]:5000 for port 5000."),
        (["recv", "10.0.0.1:5000"], "mcast_ip 10.0.0.1 is not a multicast address!"),
        (["send", "10.0.0.7@232.1.2.3:5000"], "10.0.0.7@232.1.2.3:5000 asks for the source 10.0.0.7"),
        (["send", "239.1.2.3:5000%lo", "-i", "eth0"], "239.1.2.3:5000%lo names the interface lo, and -i names eth0"),
        (["recv", "239.1.2.3:5000%lo", "-i", "eth0"], "239.1.2.3:5000%lo names the interface lo, and -i names eth0"),
        (["plan", "239.1.2.3:5000%lo", "-i", "eth0"], "239.1.2.3:5000%lo names the interface lo, and -i names eth0"),
        (["send", "239.1.2.3:5000", "text", "--file", "x"], "TEXT and --file exclude each other."),
        (["recv", "239.1.2.3:5000", "--json", "--hex"], "--json and --hex exclude each other."),
        (["recv", "239.1.2.3:5000", "--raw", "--hex"], "--hex and --raw exclude each other."),
        (["recv", "239.1.2.3:5000", "--source", "host"], "source 'host' is not an IP address."),
        (["recv", "239.1.2.3:5000", "--exclude", "239.1.1.1"], "source 239.1.1.1 is a multicast address;"),
        (
            ["recv", "239.1.2.3:5000", "--source", "10.0.0.7", "--exclude", "10.0.0.8"],
            "--exclude applies to groups from all",
        ),
        (
            ["recv", "10.0.0.7@232.1.2.3:5000", "--exclude", "10.0.0.8"],
            "--exclude applies to groups from all hosts, and ",
        ),
        (["recv", "[ff15::1]:5000", "--source", "10.0.0.7"], "[ff15::1]:5000 is IPv6, and no --source is;"),
        (["recv", "239.1.2.3:5000", "--exclude", "fd00::7"], "--exclude fd00::7 is IPv6, and no endpoint is."),
        (["recv", "239.1.2.3:5000", "--receive-buffer", "0"], "Invalid value for '--receive-buffer'"),
        (["send", "239.1.2.3:5000", "--dscp", "64"], "DSCP '64' is neither a number from 0 to 63 nor one of cs0, cs1,"),
        (["send", "239.1.2.3:5000", "--dscp", "gold"], "DSCP 'gold' is neither a number from 0 to 63 nor one of cs0"),
        (["send", "239.1.2.3:5000", "hello", "--size", "4"], "5 bytes do not fit into --size 4."),
        (
            ["send", "239.1.2.3:5000", "hello", "--stamp", "-s", "44"],
            "45 bytes with the stamp do not fit into --size 44.",
        ),
        (["send", "239.1.2.3:5000", "-t", "256"], "Invalid value for '-t' / '--ttl'"),
        (["plan", "239.1.2.3:5000", "--os", "plan9"], "Invalid value for '--os'"),
        (["dance"], "No such command 'dance'."),
    ],
)
def test_a_wrong_command_line(mcast: Run, arguments: list[str], message: str) -> None:
    """Exit status 2, one line that says what is wrong and one that says which help to read."""
    done = mcast(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    refusal, hint = done.stderr.splitlines()
    assert refusal.startswith(f"mcast: {message}")
    assert re.fullmatch(r"hint: mcast( (send|recv|plan))? --help", hint)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["send", "239.1.2.3:5000%eth9"], "mcast: 'eth9' does not appear to be a valid interface name or IP address."),
        (["send", "239.1.2.3:5000", "--file", "no.bin"], "mcast: no.bin: No such file or directory"),
    ],
)
def test_what_cannot_be_done(mcast: Run, arguments: list[str], message: str) -> None:
    """Exit status 1 and one line without a traceback."""
    done = mcast(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


def test_an_error_of_the_os_has_a_hint(bare: Host, mcast: Run) -> None:
    """What the OS refuses is explained, and the remedy stands on a line of its own."""
    done = mcast("send", "[ff15::1]:5000%lo", on=bare)
    assert done.returncode == 1
    failure, hint = done.stderr.splitlines()
    assert "(ENETUNREACH 101): there is no route for ff15::1 on lo" in failure
    assert hint.endswith("ip -6 route add local ff00::/8 dev lo table local")


def test_no_interface_to_choose(bare: Host, mcast: Run) -> None:
    """Where no interface stands to reason, the error speaks of -i, not of the library's parameters."""
    for command in ("send", "recv", "plan"):
        done = mcast(command, "239.1.2.3:5000", on=bare)
        assert (done.returncode, "iface=" in done.stderr, " -i " in done.stderr) == (1, False, True)


# Interfaces and the terminal


def test_interfaces(mcast: Run) -> None:
    """Every interface is listed with its state, its addresses and whether it is the default."""
    done = mcast("interfaces")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        " #  interface  state    mtu  multicast  default",
        " 1  lo         up     65536  local",
        "    127.0.0.1/8",
        "    ::1/128",
    ]
    assert re.fullmatch(r" *\d+  eth0       up      1500  yes        IPv4, IPv6", lines[4])
    assert lines[5:7] == ["    10.9.0.1/24", "    fd09::1/64"]


def test_one_interface(mcast: Run) -> None:
    """-i shows which interfaces it means; the error about one that is not there lists all that are."""
    assert [each["name"] for each in json.loads(mcast("interfaces", "-i", "10.9.0.0/16", "--json").stdout)] == ["eth0"]
    done = mcast("interfaces", "-i", "eth9")
    assert (done.returncode, done.stdout) == (1, "")
    assert "lo, eth0" in done.stderr


def test_interfaces_as_json(mcast: Run) -> None:
    """The same as JSON."""
    loopback, ethernet = json.loads(mcast("interfaces", "--json").stdout)
    assert (loopback["name"], loopback["loopback"], loopback["default_for"]) == ("lo", True, [])
    assert (ethernet["name"], ethernet["up"], ethernet["mtu"]) == ("eth0", True, 1500)
    assert ethernet["ipv4"] == ["10.9.0.1/24"]
    assert ethernet["default_for"] == ["IPv4", "IPv6"]


def test_colour_only_where_it_is_wanted(host: Host, mcast: Run) -> None:
    """A terminal gets colours, unless NO_COLOR is set; a pipe gets none."""
    green = "\x1b[32m"
    assert green in on_terminal(host, "interfaces")
    assert green not in on_terminal(host, "interfaces", NO_COLOR="1")
    assert "\x1b" not in mcast("interfaces").stdout


# The command itself


def test_version_and_help(mcast: Run) -> None:
    """--version and --help answer on standard output, and every command has a help text with an example."""
    assert mcast("--version").stdout == f"mcast {version('multicast-expert')}\n"
    overview = mcast("--help").stdout
    assert "[source@]group[:port][%interface]" in overview
    names = re.findall(r"^  (\w+) {2,}\S", overview.partition("Commands:")[2], re.MULTILINE)
    assert names == list(COMMANDS)
    assert "..." not in overview.partition("Commands:")[2]
    for name in names:
        assert re.search(rf"^Examples:\n  # .*\n  .*mcast {name}\b", mcast(name, "--help").stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, {"in use", "not installed"}),
        ({"MULTICAST_EXPERT_PURE": "1"}, {"not in use, because MULTICAST_EXPERT_PURE is set"}),
    ],
)
def test_what_it_runs_on(environment: dict[str, str], said: set[str]) -> None:
    """--version -v says whether the extension is in use, and names kernel and Python."""
    program = [sys.executable, "-m", "multicast_expert", "--version", "-v"]
    done = subprocess.run(program, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    first, extension, system, python = done.stdout.splitlines()
    assert first == f"mcast {version('multicast-expert')}"
    assert extension.removeprefix("extension in C: ") in said
    assert (system, python.split()[1]) == (f"system: Linux, {os.uname().release}", sys.version.split()[0])


@pytest.mark.parametrize(
    "arguments", [["doctor", "--explain", "querier"], ["recv", "--help"], ["interfaces"], ["demo"]]
)
def test_without_docstrings(host: Host, arguments: list[str]) -> None:
    """With -OO, which drops docstrings and assertions, every text is still there."""
    outputs = [
        host.run(subprocess.run, [sys.executable, *option, "-m", "multicast_expert", *arguments], capture_output=True)
        for option in ([], ["-OO"])
    ]
    assert [(each.returncode, each.stderr) for each in outputs] == [(0, b"")] * 2
    assert [len(each.stdout.splitlines()) for each in outputs] == [len(outputs[0].stdout.splitlines())] * 2


def test_no_command(mcast: Run) -> None:
    """Alone, it shows its help as a message, and exit status 2 says that nothing was done."""
    done = mcast()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: mcast ")


def test_the_command_needs_nothing_but_the_library() -> None:
    """It runs where neither an extra nor anything else is installed."""
    source = Path(multicast_expert.__file__ or "").parent.parent
    program = f"import sys; sys.path.insert(0, {str(source)!r}); from multicast_expert.__main__ import main; main()"
    for arguments in (["interfaces"], ["recv", "--help"], ["completion", "bash"]):
        done = subprocess.run([sys.executable, "-I", "-S", "-c", program, *arguments], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


SCARCE = """
import os, resource, sys
from multicast_expert.__main__ import main
for spare in (0, 1, 2, 4):
    print(spare, file=sys.stderr, flush=True)
    if not os.fork():
        resource.setrlimit(resource.RLIMIT_NOFILE, (3 + spare, 3 + spare))
        main()
    print("status", os.waitstatus_to_exitcode(os.wait()[1]), file=sys.stderr, flush=True)
    import multicast_expert.cli  # once for all runs but the first
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["interfaces"],
        ["groups"],
        ["recv", "239.1.2.3:5000%lo", "-W", "0"],
        ["send", "239.1.2.3:5000%lo"],
        ["demo"],
        ["plan", "239.1.2.3:5000%lo"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_without_descriptors(host: Host, arguments: list[str]) -> None:
    """With few descriptors to open, or none at all, a command does its work or says in a line why it cannot."""
    program = [sys.executable, "-c", SCARCE, *arguments]
    done = host.run(subprocess.run, program, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0
    runs = re.findall(r"^\d\n(.*?)^status (\d+)\n", done.stderr, re.MULTILINE | re.DOTALL)
    assert len(runs) == 4
    first, status = runs[0]
    assert (first.count("\n"), status) == (1, "1")
    assert re.fullmatch(r"mcast: .*Too many open files.*\n", first)
    assert {status for _, status in runs} <= {"0", "1"}
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_it_is_loaded(tmp_path: Path) -> None:
    """It ends the command with 130 and without a word, as it does later."""
    (tmp_path / "ipaddress.py").write_text("import time; print('loading', flush=True); time.sleep(60)")
    searched = os.pathsep.join([str(tmp_path), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-m", "multicast_expert", "groups"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": searched},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(host: Host, closed: str) -> None:
    """A command whose standard output or error is closed does its work without a word about that."""
    command = f"exec {sys.executable} -m multicast_expert groups {closed}"
    done = host.run(subprocess.run, ["sh", "-c", command], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
