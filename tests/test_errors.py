"""What can go wrong is said in words: which step, why, and what to do."""

import copy
import errno
import pickle
import socket
from string import Formatter

import pytest

from multicast_expert import (
    IfaceInfo,
    McastRxSocket,
    McastTxSocket,
    MulticastExpertError,
    MulticastOSError,
    NotJoinedError,
    NotOpenError,
    UnknownInterfaceError,
)
from multicast_expert.core.errors import CASES, DUPLICATE, Case, explain
from multicast_expert.platforms import PLATFORMS

WORDS = {"group": "ff15::1234", "source": "10.0.0.7", "interface": "eth0", "port": 5000, "count": 10}
STEPS = (
    "socket", "set option", "set interface", "bind to device", "bind", "join", "join source", "leave", "leave source",
    "block source", "unblock source", "send", "receive", "watch", "scan", "route", "list groups", "list sockets", "run",
    "capture",
)  # fmt: skip
ROWS = [pytest.param(case, id=f"{case.error}-{'-'.join(case.steps)}-{'-'.join(case.platforms)}") for case in CASES]


@pytest.mark.parametrize(
    ("system", "number", "step", "cause", "cure"),
    [
        ("linux", 19, "join", "interface eth0 is gone", "mcast interfaces"),
        ("linux", 19, "send", "interface eth0 is gone", "open the socket again"),
        ("linux", 19, "bind to device", "interface eth0 is gone", "mcast interfaces"),
        ("linux", 22, "join", "does not take ff15::1234", "disable_ipv6"),
        ("linux", 22, "join source", "is joined in another mode", "leave the group"),
        ("linux", 22, "send", "does not fit the interface eth0", "scope"),
        ("linux", 98, "bind", "another program holds port 5000 without SO_REUSEADDR", "ss -ulpn 'sport = :5000'"),
        ("linux", 98, "join", "has joined ff15::1234 on eth0 already", "leave the group first"),
        ("linux", 99, "bind", "not one of this host's", "choose an interface that has an address"),
        ("linux", 99, "send", "two seconds", ""),
        ("linux", 99, "join source", "from 10.0.0.7 on eth0 already", "leave that source first"),
        ("linux", 99, "leave", "is not joined that way", "join it first"),
        ("linux", 101, "send", "no route for ff15::1234 on eth0", "ip -6 route add local ff00::/8 dev lo table local"),
        ("linux", 105, "join", "as many groups as the kernel allows", "sysctl -w net.ipv4.igmp_max_memberships"),
        ("linux", 105, "join source", "list of sources of this membership is full", "sysctl -w net.ipv4.igmp_max_msf"),
        ("linux", 105, "send", "queue of eth0 is full", "send more slowly"),
        ("linux", 12, "join", "memory that one socket may use", "sysctl -w net.core.optmem_max"),
        ("linux", 1, "send", "firewall rule", "nft list ruleset"),
        ("macos", 12, "join", "ran out of memory for membership reports", "try again"),
        ("macos", 48, "bind", "another program holds port 5000", "lsof -nP -iUDP:5000"),
        ("macos", 49, "join", "interface eth0 does not exist or cannot do multicast", "mcast interfaces"),
        ("macos", 65, "send", "local network", "Privacy & Security, Local Network"),
        ("macos", 65, "join", "local network", "Privacy & Security, Local Network"),
        ("freebsd", 65, "send", "is marked unreachable", ""),
        ("linux", 113, "send", "is marked unreachable", "ip route get"),
        ("freebsd", 55, "join source", "list of sources of this membership is full", "maxsocksrc"),
        ("windows", 10013, "bind", "another program holds port 5000 exclusively", "netstat -ano -p udp"),
        ("windows", 10013, "bind", "exclusively", "netsh interface ipv4 show excludedportrange udp"),
        ("linux", 13, "bind", "SELinux", "journalctl"),
        ("linux", 11, "watch", "limit of threads or processes is reached", "ulimit -u N"),
        ("linux", 24, "scan", "limit of open descriptors", "ulimit -n N"),
        ("windows", 10013, "send", "firewall or security product", "Windows Defender Firewall"),
        ("windows", 10022, "join", "bound to another adapter than eth0", "iface="),
        ("windows", 10048, "bind", "holds port 5000 exclusively", "netstat -ano -p udp"),
        ("windows", 10049, "join", "adapter eth0 is disconnected, or has no usable address", "plug it in"),
        ("windows", 10049, "bind", "not one of this host's", "choose an interface"),
        ("windows", 10051, "send", "no route for ff15::1234", "a receiver has to be open first"),
    ],
)
def test_cause_and_cure(system: str, number: int, step: str, cause: str, cure: str) -> None:
    """Each of the errors that users see names its cause and its cure, by the number of that OS."""
    reason, remedy = explain(system, PLATFORMS[system].errors[number], step, **WORDS)
    assert cause in reason
    assert cure in remedy


ELSEWHERE = [
    pytest.param(system, case.error, step, id=f"{system}-{case.error}-{step}")
    for system in ("macos", "freebsd", "windows")
    for case in CASES
    for step in case.steps or STEPS
    if case.error in PLATFORMS[system].errors.values() and system in (case.platforms or (system,))
]


@pytest.mark.parametrize(("system", "error", "step"), ELSEWHERE)
def test_no_linux_command_elsewhere(system: str, error: str, step: str) -> None:
    """What is explained to users of the other OSes mentions neither sysctl -w, ip, ss nor nft."""
    remedy = explain(system, error, step, **WORDS).remedy
    linux = [command for command in ("sysctl -w", "ip link", "ip route", "ip -6", "ss -", "nft ") if command in remedy]
    assert linux == []


@pytest.mark.parametrize("system", PLATFORMS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("group", ["239.1.2.3", "ff15::1234"])
def test_no_hint_of_the_other_ip_version(system: str, step: str, group: str) -> None:
    """A failure with an IPv4 group is not explained by IPv6."""
    for error in PLATFORMS[system].errors.values():
        reason, remedy = explain(system, error, step, **{**WORDS, "group": group})
        if error in ("ENETUNREACH", "EADDRNOTAVAIL") and step == "send" and group == "239.1.2.3":
            assert "IPv6" not in reason + remedy
            assert "ip -6" not in remedy


@pytest.mark.parametrize(("port", "words"), [(80, "ports below 1024"), (1023, "ports below 1024"), (5353, "sandbox")])
@pytest.mark.parametrize("system", ["linux", "macos", "freebsd"])
def test_why_a_port_may_not_be_bound(system: str, port: int, words: str) -> None:
    """Only a port below 1024 needs a privilege; another one is forbidden by a policy."""
    assert words in explain(system, "EACCES", "bind", **{**WORDS, "port": port}).reason


@pytest.mark.parametrize("step", ["send", "bind"])
def test_a_duplicate_address(step: str) -> None:
    """To wait does not help an address that another host has."""
    found = explain("linux", "EADDRNOTAVAIL", step, duplicate=True, **WORDS)
    assert "duplicate" in found.reason
    assert "dadfailed" in found.remedy
    assert "wait" not in found.reason + found.remedy


def test_an_unknown_error_has_no_explanation() -> None:
    """Nothing is made up."""
    assert explain("linux", "EIO", "join", **WORDS) == ("", "")


@pytest.mark.parametrize("case", ROWS)
def test_every_row_can_be_filled(case: Case) -> None:
    """The placeholders are those that the engine knows, and no sentence is empty."""
    for text in (case.reason, case.remedy):
        assert {field for _, field, _, _ in Formatter().parse(text) if field is not None} <= set(WORDS)
        assert text.format(**WORDS).strip()
    assert set(case.steps) <= set(STEPS)
    assert set(case.platforms) <= set(PLATFORMS)


@pytest.mark.parametrize("case", ROWS)
def test_every_row_is_reachable(case: Case) -> None:
    """For some step and OS of a row no earlier row answers, and that OS has a number for the error."""
    words = {**WORDS, "port": 80} if case.fact == "low port" else WORDS
    words = words if case.fact == "IPv6" else {**words, "group": "239.1.2.3"}
    expected = (case.reason.format(**words), case.remedy.format(**words))
    systems = [name for name in case.platforms or PLATFORMS if case.error in PLATFORMS[name].errors.values()]
    assert any(
        explain(system, case.error, step, duplicate=case.fact == DUPLICATE, **words) == expected
        for system in systems
        for step in case.steps or STEPS
    )


@pytest.mark.parametrize("case", ROWS)
def test_names_keep_their_spelling(case: Case) -> None:
    """Sentences begin with a capital letter, but eth0 and ff15::1234 stay as they are: users copy them."""
    reason, remedy = case.reason.format(**WORDS), case.remedy.format(**WORDS)
    text = str(MulticastOSError(19, "join", "cannot join", reason, remedy))
    assert "Eth0" not in text
    assert "Ff15::1234" not in text


ERROR = MulticastOSError(19, "join", "cannot join 239.1.2.3 on eth0: No such device (ENODEV 19)", "it is gone.", "look")


def test_an_os_error_is_both() -> None:
    """`except MulticastExpertError`, `except OSError` and `except RuntimeError` all catch it, and errno is kept."""
    assert isinstance(ERROR, MulticastExpertError)
    assert isinstance(ERROR, OSError)
    assert isinstance(ERROR, RuntimeError)
    assert ERROR.errno == errno.ENODEV
    assert (ERROR.step, ERROR.reason, ERROR.remedy) == ("join", "it is gone.", "look")


def test_its_text() -> None:
    """Summary, cause and cure, each a sentence with one full stop."""
    assert str(ERROR) == "Cannot join 239.1.2.3 on eth0: No such device (ENODEV 19). It is gone. Look."
    assert str(MulticastOSError(5, "send", "Cannot send", "", "")) == "Cannot send."
    assert str(MulticastOSError(5, "send", "cannot send.", "why?", "look!")) == "Cannot send. Why? Look!"


@pytest.mark.parametrize("case", ROWS)
def test_no_sentence_ends_twice(case: Case) -> None:
    """Neither "?." nor ".." stands in the text of an error."""
    text = str(MulticastOSError(19, "join", "cannot join", case.reason.format(**WORDS), case.remedy.format(**WORDS)))
    assert text.endswith((".", "?", "!"))
    assert not {"?.", "!.", ".."} & {text[start : start + 2] for start in range(len(text))}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_travels(protocol: int) -> None:
    """Pickling (a process pool does it) and copying keep everything."""
    for twin in (pickle.loads(pickle.dumps(ERROR, protocol)), copy.copy(ERROR)):
        assert type(twin) is MulticastOSError
        assert str(twin) == str(ERROR)
        assert (twin.errno, twin.step, twin.reason, twin.remedy) == (19, "join", "it is gone.", "look")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_number_of_windows_travels_too(protocol: int) -> None:
    """On Windows `winerror` tells more than `errno`."""
    error = MulticastOSError(13, "bind", "cannot bind", "", "", 10013)
    twin = pickle.loads(pickle.dumps(error, protocol))
    assert (twin.errno, twin.winerror) == (13, 10013)
    assert getattr(pickle.loads(pickle.dumps(ERROR, protocol)), "winerror", None) is None


NUMBERED = [
    (UnknownInterfaceError, errno.ENODEV),
    (NotJoinedError, errno.EADDRNOTAVAIL),
    (NotOpenError, errno.EBADF),
]


@pytest.mark.parametrize(("kind", "number"), NUMBERED)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_with_a_number(kind: type[MulticastExpertError], number: int, protocol: int) -> None:
    """They are OSErrors with that errno, read as the text alone, and pickling and copying keep both."""
    error = kind("239.1.2.3 on eth0 is not there.")
    for each in (error, pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
        assert type(each) is kind
        assert isinstance(each, OSError)
        assert not isinstance(each, MulticastOSError)
        assert (each.errno, each.strerror, str(each)) == (number, str(error), "239.1.2.3 on eth0 is not there.")
        assert each.args == ("239.1.2.3 on eth0 is not there.",)


GONE = IfaceInfo("gone0", 4095, None, (), ())


@pytest.mark.parametrize(("family", "group"), [(socket.AF_INET, "239.1.2.3"), (socket.AF_INET6, "ff15::1234")])
def test_an_interface_that_is_gone(family: int, group: str) -> None:
    """To receive on an interface that vanished fails with its name, why, and where to look."""
    with pytest.raises(MulticastOSError, match="gone0") as caught:
        McastRxSocket(family, [group], 5000, iface=GONE).open()
    assert caught.value.errno == errno.ENODEV
    assert "is gone" in caught.value.reason
    assert "mcast interfaces" in caught.value.remedy


@pytest.mark.parametrize(
    ("family", "group", "address"),
    [(socket.AF_INET, "239.1.2.3", "127.0.0.1"), (socket.AF_INET6, "ff15::1234", "::1")],
)
def test_sending_from_an_interface_that_is_gone(family: int, group: str, address: str) -> None:
    """Nor can it be sent from, and the text says so: the error number differs by family."""
    from ipaddress import ip_interface

    own = (ip_interface(address),)
    gone = IfaceInfo("gone0", 4095, None, *((own, ()) if family == socket.AF_INET else ((), own)))
    with pytest.raises(MulticastOSError, match="gone0") as caught:
        McastTxSocket(family, [group], iface=gone).open()
    assert caught.value.errno in (errno.ENODEV, errno.EADDRNOTAVAIL)
    assert "is gone" in caught.value.reason
    assert "mcast interfaces" in caught.value.remedy


def test_too_many_sources() -> None:
    """The kernel's limit of sources (10) is told from its limit of groups by the call, and no number is left blank."""
    sources = [f"10.0.0.{number}" for number in range(1, 13)]
    with pytest.raises(MulticastOSError, match="igmp_max_msf") as caught:
        McastRxSocket(socket.AF_INET, ["232.1.2.3"], 5000, iface="lo", source_ips=sources).open()
    assert caught.value.errno == errno.ENOBUFS
    assert "( held" not in str(caught.value)
    assert "igmp_max_memberships" not in str(caught.value)


def test_a_port_that_another_program_holds() -> None:
    """A socket without SO_REUSEADDR on the port is found out and the command that shows it is named."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", 0))
        port = other.getsockname()[1]
        with pytest.raises(MulticastOSError, match=rf"ss -ulpn 'sport = :{port}'") as caught:
            McastRxSocket(socket.AF_INET, ["239.1.2.3"], port, iface="lo").open()
    assert caught.value.errno == errno.EADDRINUSE
    assert caught.value.step == "bind"


def test_a_datagram_that_is_too_long() -> None:
    """65,508 bytes are one too many for UDP over IPv4."""
    with McastTxSocket(socket.AF_INET, ["239.1.2.3"], iface="lo") as sender:
        with pytest.raises(MulticastOSError, match="65,507") as caught:
            sender.sendto(bytes(65508), ("239.1.2.3", 5000))
    assert caught.value.errno == errno.EMSGSIZE
