"""Programs written for multicast_expert 1.4 run unchanged: every call that they make, in every spelling.

Everything happens on the loopback interface and on `eth0` of the network that the documentation speaks of: 10.9.0.1 and
fd09::1, with default routes.
"""

import gc
import inspect
import socket
import threading
import warnings
from collections.abc import Callable, Collection, Iterator
from ipaddress import IPv6Address, ip_address
from time import monotonic
from typing import Any

import pytest

import multicast_expert
from multicast_expert import (
    LOCALHOST_IPV4,
    LOCALHOST_IPV6,
    IfaceInfo,
    McastRxSocket,
    McastTxSocket,
    MulticastExpertError,
    MulticastOSError,
    find_interfaces,
    get_default_gateway_iface,
    get_default_gateway_iface_ip,
    get_default_gateway_iface_ip_v4,
    get_default_gateway_iface_ip_v6,
    get_interface_ips,
    scan_interfaces,
    validate_mcast_ip,
)
from multicast_expert.system import kernel

pytestmark = pytest.mark.usefixtures("documentation_network")

V4, V6 = socket.AF_INET, socket.AF_INET6
GROUP = {V4: "239.1.2.3", V6: "ff15::1234"}
OTHER = {V4: "239.9.9.9", V6: "ff15::9999"}
LOOPBACK = {V4: LOCALHOST_IPV4, V6: LOCALHOST_IPV6}
ETHERNET = {V4: "10.9.0.1", V6: "fd09::1"}
NOBODY = {V4: "10.9.0.77", V6: "fd09::77"}
PORT = 12345
FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
# How long a test waits for what has to come; nothing ever takes that long.
PATIENCE = 10


def given(function: Callable[..., object]) -> dict[str, tuple[Any, bool]]:
    """Return the parameters of a call: name to (default, whether it can be given by position)."""
    return {
        name: (parameter.default, parameter.kind is parameter.POSITIONAL_OR_KEYWORD)
        for name, parameter in inspect.signature(function).parameters.items()
    }


REQUIRED = inspect.Parameter.empty


class TestNames:
    """The names, the order of parameters and their defaults."""

    @pytest.mark.parametrize(
        "name",
        [
            "LOCALHOST_IPV4", "LOCALHOST_IPV6", "IPv4Or6Address", "IfaceInfo", "IfaceSpecifier", "McastRxSocket",
            "McastTxSocket", "MulticastAddress", "MulticastExpertError", "find_interfaces", "get_default_gateway_iface",
            "get_default_gateway_iface_ip", "get_default_gateway_iface_ip_v4", "get_default_gateway_iface_ip_v6",
            "get_interface_ips", "scan_interfaces", "validate_mcast_ip",
        ],
    )  # fmt: skip
    def test_exported(self, name: str) -> None:
        """Each is to be had from the package itself."""
        assert hasattr(multicast_expert, name)
        assert name in multicast_expert.__all__

    @pytest.mark.parametrize(
        ("function", "expected"),
        [
            (get_interface_ips, {"include_ipv4": True, "include_ipv6": True}),
            (get_default_gateway_iface_ip, {"addr_family": REQUIRED}),
            (get_default_gateway_iface, {"addr_family": REQUIRED}),
            (find_interfaces, {"specifiers": REQUIRED}),
            (validate_mcast_ip, {"mcast_ip": REQUIRED, "addr_family": REQUIRED}),
            (
                McastTxSocket,
                {
                    "addr_family": REQUIRED,
                    "mcast_ips": ...,
                    "iface": None,
                    "ttl": 1,
                    "enable_external_loopback": False,
                    "iface_ip": None,
                },
            ),
            (
                McastRxSocket,
                {
                    "addr_family": REQUIRED,
                    "mcast_ips": REQUIRED,
                    "port": REQUIRED,
                    "iface": None,
                    "ifaces": None,
                    "source_ips": None,
                    "timeout": None,
                    "blocking": None,
                    "enable_external_loopback": False,
                    "iface_ip": None,
                    "iface_ips": None,
                },
            ),
            (McastRxSocket.recvfrom, {"self": REQUIRED, "bufsize": ..., "flags": 0}),
            (McastRxSocket.recv, {"self": REQUIRED, "bufsize": ..., "flags": 0}),
            (McastRxSocket.settimeout, {"self": REQUIRED, "timeout": REQUIRED}),
            (McastTxSocket.sendto, {"self": REQUIRED, "data": REQUIRED, "address": REQUIRED}),
        ],
    )
    def test_positional_parameters(self, function: Callable[..., object], expected: dict[str, Any]) -> None:
        """By name, order and default (...: any); what came later can be given by keyword only."""
        parameters = given(function)
        positional = {name: default for name, (default, by_position) in parameters.items() if by_position}
        assert list(positional) == list(expected)
        for name, default in expected.items():
            assert default is ... or positional[name] == default
        assert all(default is not REQUIRED for default, by_position in parameters.values() if not by_position)

    @pytest.mark.parametrize(
        "function",
        [
            get_default_gateway_iface_ip_v4, get_default_gateway_iface_ip_v6, get_default_gateway_iface_ip,
            get_default_gateway_iface, find_interfaces,
        ],
    )  # fmt: skip
    def test_ifaces_by_keyword(self, function: Callable[..., object]) -> None:
        """Each takes `*, ifaces=None`."""
        assert given(function)["ifaces"] == (None, False)

    def test_constants_and_kinds(self) -> None:
        """The loopback addresses are text; the error is a RuntimeError."""
        assert (LOCALHOST_IPV4, LOCALHOST_IPV6) == ("127.0.0.1", "::1")
        assert issubclass(MulticastExpertError, RuntimeError)
        assert issubclass(MulticastOSError, MulticastExpertError)


class TestQueries:
    """What a program asks about interfaces."""

    def test_interface_ips(self) -> None:
        """Text, positional and keyword, of one family or both."""
        assert {"127.0.0.1", "::1", "10.9.0.1", "fd09::1"} <= set(get_interface_ips())
        assert "10.9.0.1" not in get_interface_ips(False)
        assert "fd09::1" not in get_interface_ips(True, False)
        assert all(isinstance(text, str) for text in get_interface_ips(include_ipv4=True, include_ipv6=True))

    @FAMILIES
    def test_default_gateway(self, family: int) -> None:
        """The address and the interface that reach the internet."""
        assert get_default_gateway_iface_ip(family) == ETHERNET[family]
        by_family = get_default_gateway_iface_ip_v4 if family == socket.AF_INET else get_default_gateway_iface_ip_v6
        assert by_family() == by_family(ifaces=scan_interfaces()) == ETHERNET[family]
        iface = get_default_gateway_iface(addr_family=family)
        assert iface is not None
        assert iface.machine_name == "eth0"

    def test_scan(self) -> None:
        """A list of IfaceInfo with name, index, link address and addresses of both families."""
        loopback, ethernet = find_interfaces(["lo", "eth0"])
        assert isinstance(scan_interfaces(), list)
        assert loopback in scan_interfaces()
        assert isinstance(ethernet, IfaceInfo)
        assert ethernet.index == socket.if_nametoindex("eth0")
        assert ethernet.link_layer_address is not None
        assert [str(own) for own in ethernet.ip_addrs(socket.AF_INET)] == ["10.9.0.1/24"]
        assert "fd09::1/64" in [str(own) for own in ethernet.ip_addrs(socket.AF_INET6)]
        assert (loopback.is_localhost(), ethernet.is_localhost()) == (True, False)

    def test_find_interfaces(self) -> None:
        """By address, object, name or IfaceInfo; each once, in the order asked for."""
        ethernet, loopback = find_interfaces(["10.9.0.1", "lo", ip_address("fd09::1"), "eth0", "127.0.0.1"])
        assert (ethernet.machine_name, loopback.machine_name) == ("eth0", "lo")
        assert find_interfaces([loopback, ethernet, loopback]) == [loopback, ethernet]
        assert find_interfaces(iter(["lo"]), ifaces=[loopback]) == [loopback]
        assert find_interfaces([]) == []

    def test_validate(self) -> None:
        """Nothing for a group of the family, text or object; else the error that programs look for."""
        assert validate_mcast_ip("239.1.2.3", socket.AF_INET) is None
        assert validate_mcast_ip(IPv6Address("ff15::1"), socket.AF_INET6) is None
        for address, family in (("10.0.0.1", V4), ("fd00::1", V6), ("240.0.0.1", V4)):
            with pytest.raises(MulticastExpertError, match="not a multicast address"):
                validate_mcast_ip(address, family)
        for address, family in (("239.1.2.3", V6), ("ff15::1", V4), ("nonsense", V4)):
            with pytest.raises(MulticastExpertError):
                validate_mcast_ip(mcast_ip=address, addr_family=family)


def spellings(family: int, address: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every way to name an interface to a sender."""
    (info,) = find_interfaces([name])
    for keyword in ("iface", "iface_ip"):
        for specifier in (address, ip_address(address), name, info):
            yield f"{keyword}={specifier!r}", {keyword: specifier}


def several_spellings(family: int, address: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every way to name it to a receiver."""
    yield from spellings(family, address, name)
    (info,) = find_interfaces([name])
    for keyword in ("ifaces", "iface_ips"):
        yield f"{keyword} of several", {keyword: [address, name, ip_address(address), info]}
        yield f"{keyword} from a generator", {keyword: (specifier for specifier in [address])}


@FAMILIES
@pytest.mark.parametrize(("name", "address"), [("lo", LOOPBACK), ("eth0", ETHERNET)], ids=["lo", "eth0"])
class TestHearing:
    """A datagram goes from a sender to a receiver, however the two were made."""

    def test_receivers_spellings(self, family: int, name: str, address: dict[int, str]) -> None:
        """Each spelling of the receiver's interface."""
        group = GROUP[family]
        with McastTxSocket(family, [group], name, enable_external_loopback=True) as sender:
            for title, naming in several_spellings(family, address[family], name):
                with McastRxSocket(family, [group], PORT, timeout=PATIENCE, **naming) as receiver:
                    sender.sendto(title.encode(), (group, PORT))
                    assert receiver.recv() == title.encode()
                    assert [iface.machine_name for iface in receiver.network_interfaces] == [name]

    def test_senders_spellings(self, family: int, name: str, address: dict[int, str]) -> None:
        """Each spelling of the sender's interface; what arrives comes from its address."""
        group = GROUP[family]
        with McastRxSocket(family, [group], PORT, name, timeout=PATIENCE) as receiver:
            for title, naming in spellings(family, address[family], name):
                with McastTxSocket(family, [group], enable_external_loopback=True, **naming) as sender:
                    sender.sendto(title.encode(), (group, PORT))
                    received = receiver.recvfrom()
                    assert received is not None
                    assert received[0] == title.encode()
                    assert received[1][1] == sender.getsockname()[1]
                    assert received[1][0] == address[family]
                    assert sender.network_interface.machine_name == name

    def test_all_by_position(self, family: int, name: str, address: dict[int, str]) -> None:
        """Every parameter by its place."""
        group, own = GROUP[family], address[family]
        with McastRxSocket(family, [group], PORT, own, None, [own], PATIENCE, None, True, None, None) as receiver:
            with McastTxSocket(family, [group], own, 1, True, None) as sender:
                sender.sendto(b"position", (group, PORT))
                assert receiver.recvfrom(2048, 0) == (b"position", sender_address(family, own, sender))

    def test_all_by_keyword(self, family: int, name: str, address: dict[int, str]) -> None:
        """Every parameter by its name."""
        group, own = GROUP[family], address[family]
        with McastRxSocket(
            addr_family=family,
            mcast_ips=[group],
            port=PORT,
            source_ips=[own],
            timeout=PATIENCE,
            blocking=None,
            enable_external_loopback=True,
            iface_ips=[own],
        ) as receiver:
            with McastTxSocket(
                addr_family=family, mcast_ips=[group], ttl=1, enable_external_loopback=True, iface_ip=own
            ) as sender:
                sender.sendto(data=b"keyword", address=(group, PORT))
                assert receiver.recvfrom(bufsize=2048, flags=0) == (b"keyword", sender_address(family, own, sender))

    def test_objects_and_duplicates(self, family: int, name: str, address: dict[int, str]) -> None:
        """Groups and sources are text or objects; each given twice counts once."""
        group, own = GROUP[family], address[family]
        groups = [group, ip_address(group), group, OTHER[family]]
        sources = [own, ip_address(own), own]
        with McastRxSocket(family, groups, PORT, ifaces=[name, own], source_ips=sources, timeout=PATIENCE) as receiver:
            with McastTxSocket(family, groups, name, enable_external_loopback=True) as sender:
                assert len(sender.mcast_ips) == len(receiver.mcast_ips) == 2
                sender.sendto(b"one", (group, PORT))
                sender.sendto(b"two", (OTHER[family], PORT))
                assert {receiver.recv(), receiver.recv()} == {b"one", b"two"}
                receiver.settimeout(0)
                assert receiver.recv() is None

    def test_own_groups_on_own_interface_only(self, family: int, name: str, address: dict[int, str]) -> None:
        """Two receivers on one port each get their group, and unicast to the port reaches neither."""
        with (
            McastRxSocket(family, [GROUP[family]], PORT, name, timeout=PATIENCE) as one,
            McastRxSocket(family, [OTHER[family]], PORT, name, timeout=PATIENCE) as other,
            McastTxSocket(family, [GROUP[family], OTHER[family]], name, enable_external_loopback=True) as sender,
            socket.socket(family, socket.SOCK_DGRAM) as stranger,
        ):
            stranger.sendto(b"unicast", (address[family], PORT))
            sender.sendto(b"one", (GROUP[family], PORT))
            sender.sendto(b"other", (OTHER[family], PORT))
            assert (one.recv(), other.recv()) == (b"one", b"other")
            one.settimeout(0)
            other.settimeout(0)
            assert (one.recv(), other.recv()) == (None, None)

    def test_only_from_the_source(self, family: int, name: str, address: dict[int, str]) -> None:
        """source_ips lets one host through and no other."""
        group, own, nobody = GROUP[family], address[family], NOBODY[family]
        with (
            McastRxSocket(family, [group], PORT, name, source_ips=[nobody], timeout=0) as deaf,
            McastRxSocket(family, [group], PORT, name, source_ips=[own, nobody], timeout=PATIENCE) as receiver,
            McastTxSocket(family, [group], name, enable_external_loopback=True) as sender,
        ):
            sender.sendto(b"heard", (group, PORT))
            assert receiver.recv() == b"heard"
            assert deaf.recv() is None


def sender_address(family: int, own: str, sender: McastTxSocket) -> tuple[Any, ...]:
    """Return the socket address that recvfrom gives for this sender."""
    port = sender.getsockname()[1]
    return (own, port) if family == socket.AF_INET else (own, port, 0, 0)


@FAMILIES
class TestReceiver:
    """How a receiver behaves, whatever it is made for."""

    def test_nothing_within_the_timeout(self, family: int) -> None:
        """None, after the timeout and not before; at once when it is 0."""
        with McastRxSocket(family, [GROUP[family]], PORT, "lo", timeout=0.1) as receiver:
            before = monotonic()
            assert receiver.recvfrom() is None
            assert receiver.recv() is None
            assert monotonic() - before >= 0.19
            receiver.settimeout(0)
            before = monotonic()
            assert receiver.recvfrom() is None
            assert monotonic() - before < PATIENCE / 2

    @pytest.mark.parametrize(
        ("given_as", "timeout"),
        [({}, None), ({"blocking": True}, None), ({"blocking": False}, 0), ({"timeout": 2.5}, 2.5)],
    )
    def test_blocking_is_the_older_form(self, family: int, given_as: dict[str, Any], timeout: float | None) -> None:
        """blocking=True waits for ever, False not at all, and wins over timeout."""
        assert McastRxSocket(family, [GROUP[family]], PORT, "lo", **given_as).timeout == timeout
        if "blocking" in given_as:
            assert McastRxSocket(family, [GROUP[family]], PORT, "lo", timeout=7, **given_as).timeout == timeout

    def test_waiting_for_ever(self, family: int) -> None:
        """Without a timeout it waits until something comes, here from another thread."""
        group = GROUP[family]
        with (
            McastRxSocket(family, [group], PORT, "lo", blocking=True) as receiver,
            McastTxSocket(family, [group], "lo") as sender,
        ):
            timer = threading.Timer(0.05, sender.sendto, (b"at last", (group, PORT)))
            timer.start()
            assert receiver.recv() == b"at last"
            timer.join()

    def test_sizes_and_flags(self, family: int) -> None:
        """Nothing is cut by default; bufsize cuts; MSG_PEEK leaves it there."""
        group = GROUP[family]
        with (
            McastRxSocket(family, [group], PORT, "lo", timeout=PATIENCE) as receiver,
            McastTxSocket(family, [group], "lo") as sender,
        ):
            for payload in (bytes(60000), b"0123456789", b"", b"last"):
                sender.sendto(payload, (group, PORT))
            assert receiver.recv() == bytes(60000)
            assert receiver.recv(4, socket.MSG_PEEK) == b"0123"
            received = receiver.recvfrom(8)
            assert received is not None
            assert received[0] == b"01234567"
            assert receiver.recv() == b""
            assert receiver.recv(bufsize=100, flags=0) == b"last"

    def test_descriptors(self, family: int) -> None:
        """filenos() are open descriptors for a selector of one's own."""
        groups = [GROUP[family], OTHER[family]]
        with McastRxSocket(family, groups, PORT, ifaces=["lo", "eth0"]) as receiver:
            filenos = receiver.filenos()
            assert filenos
            assert all(isinstance(fileno, int) and fileno > 2 for fileno in filenos)
            assert len(set(filenos)) == len(filenos)

    def test_every_interface_but_loopback(self, family: int) -> None:
        """Named none, it listens on each that has an address of the family, except loopback."""
        group = GROUP[family]
        with McastRxSocket(family, [group], PORT, timeout=PATIENCE) as receiver:
            names = [iface.machine_name for iface in receiver.network_interfaces]
            assert "eth0" in names
            assert "lo" not in names
            with McastTxSocket(family, [group], "lo") as on_loopback:
                on_loopback.sendto(b"loopback", (group, PORT))
            with McastTxSocket(family, [group], enable_external_loopback=True) as by_default_route:
                assert by_default_route.network_interface.machine_name == "eth0"
                by_default_route.sendto(b"ethernet", (group, PORT))
            assert receiver.recv() == b"ethernet"

    def test_external_loopback_is_off_at_first(self, family: int) -> None:
        """What this host sends on eth0 its own receivers hear only when the sender wants it."""
        group = GROUP[family]
        with McastRxSocket(family, [group], PORT, "eth0", timeout=PATIENCE, enable_external_loopback=True) as receiver:
            with McastTxSocket(family, [group], "eth0") as silent:
                silent.sendto(b"not here", (group, PORT))
            with McastTxSocket(family, [group], "eth0", enable_external_loopback=True) as loud:
                loud.sendto(b"here", (group, PORT))
            assert receiver.recv() == b"here"


@FAMILIES
class TestSender:
    """How a sender behaves, whatever it is made for."""

    def test_socket_facts(self, family: int) -> None:
        """Descriptor, own address and interface."""
        with McastTxSocket(family, [GROUP[family]], LOOPBACK[family]) as sender:
            assert sender.fileno() > 2
            assert sender.getsockname()[0] == LOOPBACK[family]
            assert sender.getsockname()[1] > 0
            assert sender.network_interface.is_localhost()

    def test_compares_addresses_not_text(self, family: int) -> None:
        """Another spelling of a group of its own is sent to; the forms of the address are the socket module's."""
        group = GROUP[family]
        forms: list[Any] = [(group, PORT)]
        if family == socket.AF_INET6:
            forms += [("FF15::1234", PORT), ("ff15:0:0:0::1234", PORT, 0, 0)]
            forms += [(group, PORT, 0, socket.if_nametoindex("lo"))]
        with (
            McastRxSocket(family, [group], PORT, "lo", timeout=PATIENCE) as receiver,
            McastTxSocket(family, [group], "lo") as sender,
        ):
            for address in forms:
                sender.sendto(b"x", address)
                assert receiver.recv() == b"x"

    def test_address_objects(self, family: int) -> None:
        """A destination may be an object of ipaddress, as groups may everywhere else."""
        group = GROUP[family]
        with (
            McastRxSocket(family, [group], PORT, "lo", timeout=PATIENCE) as receiver,
            McastTxSocket(family, [group], "lo") as sender,
        ):
            destination: Any = (ip_address(group), PORT)
            sender.sendto(b"object", destination)
            assert receiver.recv() == b"object"


BUILDERS: dict[str, Callable[[int], Any]] = {
    "receiver": lambda family: McastRxSocket(family, [GROUP[family]], PORT, "lo", timeout=0),
    "sender": lambda family: McastTxSocket(family, [GROUP[family]], "lo"),
}


@FAMILIES
@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
class TestLifecycle:
    """Opened once, closed once, by `with` or by hand."""

    def test_by_hand(self, family: int, build: Callable[[int], Any]) -> None:
        """open() and close() for a socket that lives in an attribute; and it can be opened again."""
        opened = build(family)
        for _ in range(2):
            assert opened.open() is opened
            assert opened.is_opened
            opened.close()
            assert not opened.is_opened

    def test_by_with(self, family: int, build: Callable[[int], Any]) -> None:
        """Entering gives the socket itself, leaving closes it, also after an exception."""
        socket_object = build(family)
        with socket_object as opened:
            assert opened is socket_object
            assert opened.is_opened
        assert not socket_object.is_opened

        def fail() -> None:
            with socket_object:
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert not socket_object.is_opened

    def test_twice(self, family: int, build: Callable[[int], Any]) -> None:
        """Opening an open socket and closing a closed one are errors, and harm neither."""
        with build(family) as opened:
            with pytest.raises(MulticastExpertError, match="open already"):
                opened.open()
            with pytest.raises(MulticastExpertError, match="open already"):
                opened.__enter__()
            assert opened.is_opened
        with pytest.raises(MulticastExpertError, match="not open"):
            opened.close()

    def test_use_while_closed(self, family: int, build: Callable[[int], Any]) -> None:
        """Every use of a closed socket is the same clear error."""
        closed = build(family)
        uses: dict[str, tuple[Any, ...]] = {"close": ()}
        if isinstance(closed, McastRxSocket):
            uses |= {"recv": (), "recvfrom": (), "filenos": ()}
        else:
            uses |= {"sendto": (b"x", (GROUP[family], PORT)), "fileno": (), "getsockname": ()}
        for name, arguments in uses.items():
            with pytest.raises(MulticastExpertError, match="not open"):
                getattr(closed, name)(*arguments)
        assert closed.mcast_ips == [GROUP[family]]

    def test_a_forgotten_close(self, family: int, build: Callable[[int], Any]) -> None:
        """Is a ResourceWarning that names the socket, and its descriptors are closed."""
        holder = [build(family).open()]
        name = type(holder[0]).__name__
        filenos = holder[0].filenos()

        def forget() -> None:
            holder.clear()
            gc.collect()

        with pytest.warns(ResourceWarning, match=f"unclosed <{name} {GROUP[family]}"):
            forget()
        for fileno in filenos:
            with pytest.raises(OSError, match="Bad file descriptor"):
                socket.socket(fileno=fileno).detach()

    def test_never_opened(self, family: int, build: Callable[[int], Any]) -> None:
        """What was never opened holds nothing and is forgotten without a word."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            never = build(family)
            del never
            gc.collect()


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with every question for the interfaces of the host that this thread asks."""
    made = []
    original = kernel.SYSTEM.interfaces

    def count(meant: Collection[str] | None = None) -> Any:
        if threading.current_thread() is threading.main_thread():
            made.append("scan")
        return original(meant)

    monkeypatch.setattr(kernel.SYSTEM, "interfaces", count)
    return made


@FAMILIES
@pytest.mark.parametrize("naming", [{}, {"iface": "eth0"}, {"iface_ip": ETHERNET}], ids=["default", "name", "address"])
def test_one_scan_per_socket(family: int, naming: dict[str, Any], scans: list[str]) -> None:
    """Making, opening, using and closing a socket asks for the interfaces once at most."""
    naming = {keyword: value[family] if isinstance(value, dict) else value for keyword, value in naming.items()}
    with McastRxSocket(family, [GROUP[family]], PORT, timeout=0, **naming) as receiver:
        receiver.recv()
    assert len(scans) == 1
    scans.clear()
    with McastTxSocket(family, [GROUP[family]], **naming) as sender:
        sender.sendto(b"x", (GROUP[family], PORT))
    assert len(scans) <= 1


@FAMILIES
def test_no_scan_for_interface_objects(family: int, scans: list[str]) -> None:
    """Given IfaceInfo objects, the OS is asked nothing about interfaces."""
    loopback, ethernet = find_interfaces(["lo", "eth0"])
    scans.clear()
    with McastRxSocket(family, [GROUP[family]], PORT, ifaces=[loopback, ethernet], timeout=0) as receiver:
        receiver.recv()
    with McastTxSocket(family, [GROUP[family]], ethernet) as sender:
        sender.sendto(b"x", (GROUP[family], PORT))
    assert find_interfaces([ethernet]) == [ethernet]
    assert scans == []


@FAMILIES
@pytest.mark.parametrize("nothing", [None, [], (), iter(())], ids=["None", "list", "tuple", "iterator"])
def test_no_sources_mean_all(family: int, nothing: Any) -> None:
    """A source list without an entry is none: datagrams of every host are received."""
    with (
        McastRxSocket(family, [GROUP[family]], PORT, "lo", source_ips=nothing, timeout=5) as receiver,
        McastTxSocket(family, [GROUP[family]], "lo") as sender,
    ):
        sender.sendto(b"from anyone", (GROUP[family], PORT))
        assert receiver.recv() == b"from anyone"
