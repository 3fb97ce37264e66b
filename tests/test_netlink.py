"""The messages of netlink: against the kernel itself, which `ip` asks too, and against hostile bytes."""

import json
import socket
from contextlib import suppress
from ipaddress import ip_address
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.system import netlink
from multicast_expert.system.linux import Channel, ask
from multicast_expert.testing import Lab, lab_unavailable

pytestmark = pytest.mark.skipif(lab_unavailable() is not None, reason=f"no multicast lab: {lab_unavailable()}")


def test_links() -> None:
    """Names, states, kinds and bridges are those that `ip -d link` shows."""
    with Lab() as lab:
        host = lab.host("host")
        host.ip(
            "link add br0 type bridge mcast_snooping 1 mcast_querier 1",
            "link add br1 type bridge mcast_snooping 0",
            "link add port type veth peer name far",
            "link set port master br0",
            "link set port type bridge_slave mcast_flood off",
            "link set br0 up",
            "link set port up",
            "link set far mtu 1400",
        )
        found = host.run(ask, netlink.link_request())
        shown = json.loads(host.command("ip", "-j", "-d", "link", "show"))
    links = {link.name: link for body in found if (link := netlink.parse_link(body))}
    assert set(links) == {each["ifname"] for each in shown}
    for each in shown:
        link = links[each["ifname"]]
        assert link.number == each["ifindex"]
        assert link.mtu == each["mtu"]
        assert link.kind == each.get("linkinfo", {}).get("info_kind")
        assert (link.is_up, link.has_carrier) == ("UP" in each["flags"], "LOWER_UP" in each["flags"])
        assert link.is_loopback == ("LOOPBACK" in each["flags"])
        assert link.supports_multicast == ("MULTICAST" in each["flags"])
        if not link.is_loopback:
            assert link.hardware_address.hex(":") == each["address"]
    bridge, plain = links["br0"].bridge, links["br1"].bridge
    assert bridge is not None
    assert plain is not None
    assert (bridge.snooping, bridge.querier) == (True, True)
    assert (plain.snooping, plain.querier) == (False, False)
    assert links["port"].master == links["br0"].number
    assert ([links[name].port and links[name].port.floods for name in ("port", "far")]) == [False, None]


def test_names() -> None:
    """A link has all its alternative names, also long ones, and is found by each; an address has its label."""
    names = ["uplink", "n" * 127, "caf\xe9"]
    with Lab() as lab:
        host = lab.host("host")
        host.ip(
            "link add eth0 type veth peer name far",
            f"link property add dev eth0 altname {' altname '.join(names)}",
            "addr add 10.1.0.1/24 dev eth0",
            "addr add 10.1.0.2/24 dev eth0 label eth0:backup",
        )
        links = [host.run(ask, netlink.link_request(name=name)) for name in ["eth0", *names]]
        addresses = [netlink.parse_address(body) for body in host.run(ask, netlink.address_request())]
        index = host.run(socket.if_nametoindex, "eth0")
    for (body,) in links:
        link = netlink.parse_link(body)
        assert link is not None
        assert (link.name, link.number, link.alternative_names) == ("eth0", index, tuple(names))
    labels = {ip_address(address.packed): address.label for address in addresses if address and address.number == index}
    assert labels == {ip_address("10.1.0.1"): "eth0", ip_address("10.1.0.2"): "eth0:backup"}


def test_the_own_address_of_a_point_to_point_link() -> None:
    """Of the two addresses of such a link, the peer's is not this host's."""
    with Lab() as lab:
        host = lab.host("host")
        host.ip(
            "link add here type veth peer name there",
            "addr add 10.9.0.1 peer 10.9.0.2/32 dev here",
            "addr add fd09::1 peer fd09::2/128 dev here nodad",
        )
        bodies = host.run(ask, netlink.address_request())
    found = {str(ip_address(address.packed)) for body in bodies if (address := netlink.parse_address(body))}
    assert {"10.9.0.1", "fd09::1"} <= found
    assert not {"10.9.0.2", "fd09::2"} & found


def test_routes() -> None:
    """Interface, source and gateway of a route; None where there is none, or it is a dead end."""
    with Lab() as lab:
        host, router = lab.host("host"), lab.router("router")
        lab.link(host, router, ipv4=("10.1.0.1/24", "10.1.0.254/24"), ipv6=("fd01::1/64", "fd01::ffff/64"))
        host.ip("route add 10.2.0.0/16 via 10.1.0.254", "route add fd02::/16 via fd01::ffff")
        host.ip("route add blackhole 10.3.0.0/16", "route add unreachable fd03::/64")
        index = host.interface("eth0").index()
        family = {4: socket.AF_INET, 6: socket.AF_INET6}
        found = {}
        for text in ("10.1.0.9", "10.2.0.9", "10.3.0.9", "10.9.0.9", "fd02::9", "fd01::9", "fd03::9"):
            address = ip_address(text)
            found[text] = []
            with suppress(OSError):
                bodies = host.run(ask, netlink.route_request(address, family[address.version]))
                found[text] = [netlink.parse_route(body) for body in bodies]
    own, own6 = ip_address("10.1.0.1"), ip_address("fd01::1")
    assert found == {
        "10.1.0.9": [netlink.RouteAnswer(index, own)],
        "10.2.0.9": [netlink.RouteAnswer(index, own, ip_address("10.1.0.254"))],
        "10.3.0.9": [],
        "10.9.0.9": [],
        "fd02::9": [netlink.RouteAnswer(index, own6, ip_address("fd01::ffff"))],
        "fd01::9": [netlink.RouteAnswer(index, own6, is_automatic=True)],
        "fd03::9": found["fd03::9"],
    }
    assert found["fd03::9"] in ([], [None])


def read_everything(data: bytes) -> None:
    """Parse the bytes as messages of every kind, and as the body of each."""
    for message in (*netlink.messages(data), netlink.Message(16, data), netlink.Message(17, data)):
        assert message.error == 0 or len(message.body) >= 4
        netlink.parse_link(message.body)
        netlink.parse_route(message.body)
        address = netlink.parse_address(message.body)
        assert address is None or address.prefix_length <= len(address.packed) * 8
        assert address is None or address.number == netlink.address_index(message.body)
        assert all(member.group.version in (4, 6) for member in netlink.parse_members(message.body))


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_no_bytes_break_anything(body: bytes, head: bytes) -> None:
    """Cut and senseless messages are passed over."""
    read_everything(head + body)


@st.composite
def crafted(draw: st.DrawFn) -> bytes:
    """Messages with sensible heads, and attributes whose lengths may lie, nested in each other."""

    def attributes(depth: int) -> bytes:
        found = b""
        for _ in range(draw(st.integers(0, 3))):
            value = attributes(depth - 1) if depth and draw(st.booleans()) else draw(st.binary(max_size=28))
            length = draw(st.sampled_from([len(value) + 4] * 4 + [0, 3, 4, 0xFFFF]))
            found += pack("=HH", length, draw(st.integers(0, 48) | st.just(0x8012))) + value + bytes(-len(value) % 4)
        return found

    data = b""
    for _ in range(draw(st.integers(1, 3))):
        body = draw(st.sampled_from([bytes(16), bytes(8), bytes(12), b"\x02\x21" + bytes(6)])) + attributes(3)
        length = draw(st.sampled_from([len(body) + 16] * 4 + [0, 15, 16, 0xFFFFFFFF]))
        data += pack("=IHHII", length, draw(st.integers(2, 90)), draw(st.integers(0, 0xFFFF)), 1, 0) + body
    return data[: draw(st.integers(0, len(data)) | st.just(len(data)))]


@given(crafted())
def test_no_message_breaks_anything(data: bytes) -> None:
    """Nor do those that look real, with lengths that lie and ends that are missing."""
    read_everything(data)


class Answers:
    """In place of a netlink socket: it answers with these pieces, and then nothing more comes."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.asked = 0

    def send(self, request: bytes) -> None:
        """Count it."""
        self.asked += 1

    def recv(self, size: int) -> bytes:
        """Return the next piece."""
        if not self.pieces:
            raise TimeoutError("timed out")
        return self.pieces.pop(0)

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.slow
@given(st.lists(crafted(), max_size=5))
def test_hostile_answers_end(pieces: list[bytes]) -> None:
    """Whatever is answered, a request ends with an answer or an OSError, and asks a bounded number of times."""
    answers = Answers(pieces)
    with Channel() as channel:
        channel._socket.close()
        channel._socket = answers  # type: ignore[assignment]  # it does what a socket does
        with suppress(OSError):
            assert all(isinstance(body, bytes) for body in channel.ask(netlink.link_request()))
    assert answers.asked <= 11


DONE = pack("=IHHIIi", 20, 3, 2, 1, 0, 0)


def link_named(name: bytes, flags: int = 2) -> bytes:
    """Return a message about one link."""
    body = bytes(16) + pack("=HH", len(name) + 4, 3) + name + bytes(-len(name) % 4)
    return pack("=IHHII", len(body) + 16, 16, flags, 1, 0) + body


def ask_answers(*pieces: bytes) -> tuple[list[str], int]:
    """Return the names in the answer to a request for all links, and how often it was asked."""
    answers = Answers(list(pieces))
    with Channel() as channel:
        channel._socket.close()
        channel._socket = answers  # type: ignore[assignment]  # it does what a socket does
        links = map(netlink.parse_link, channel.ask(netlink.link_request()))
    return [link.name for link in links if link is not None], answers.asked


def test_a_list_that_changed_meanwhile_is_asked_for_again() -> None:
    """The kernel marks a list that changed while it was written (NLM_F_DUMP_INTR): it may miss something."""
    assert ask_answers(link_named(b"a\0"), link_named(b"b\0") + DONE) == (["a", "b"], 1)
    interrupted = link_named(b"a\0", 0x12) + DONE
    assert ask_answers(interrupted, link_named(b"a\0") + link_named(b"new\0"), DONE) == (["a", "new"], 2)
    assert ask_answers(*[interrupted] * 20) == (["a"], 11)


def test_an_error_at_the_end_of_a_list() -> None:
    """It is raised: the list is not whole."""
    with pytest.raises(OSError, match="Cannot allocate memory") as caught:
        ask_answers(link_named(b"a\0"), pack("=IHHIIi", 20, 3, 2, 1, 0, -12))
    assert caught.value.errno == 12


def told(kind: bytes, details: bytes = b"", more: bytes = b"") -> netlink.Link:
    """A link of a kind with its details, as the kernel reports it."""
    attribute = netlink.attribute
    info = attribute(18, attribute(1, kind + b"\0") + attribute(2, details))
    link = netlink.parse_link(pack("=BxHiII", 0, 1, 7, 0x1, 0) + attribute(3, b"t0\0") + info + more)
    assert link is not None
    return link


@pytest.mark.parametrize(
    ("kind", "number", "address", "remote"),
    [
        # IFLA_GRE_REMOTE, IFLA_IPTUN_REMOTE, IFLA_VTI_REMOTE, IFLA_GENEVE_REMOTE and _REMOTE6, IFLA_VXLAN_GROUP.
        (b"gre", 7, "0a090002", "10.9.0.2"),
        (b"gretap", 7, "ef090909", "239.9.9.9"),
        (b"ip6gre", 7, "fd09" + 13 * "00" + "02", "fd09::2"),
        (b"ipip", 3, "0a090002", "10.9.0.2"),
        (b"sit", 3, "00000000", None),
        (b"vti", 5, "0a090002", "10.9.0.2"),
        (b"geneve", 7, "fd09" + 13 * "00" + "02", "fd09::2"),
        (b"vxlan", 2, "0a090002", "10.9.0.2"),
        (b"veth", 7, "0a090002", None),
        (b"gre", 7, "0a09", None),
    ],
)
def test_the_far_end_of_a_tunnel(kind: bytes, number: int, address: str, remote: str | None) -> None:
    """Each kind has its own attribute for it; an unspecified address means that there is none."""
    found = told(kind, netlink.attribute(number, bytes.fromhex(address))).remote
    assert (None if found is None else str(found)) == remote


def test_macvlan_and_ipvlan() -> None:
    """Their modes, the stations of a macvlan in mode source, and that the parent may be in another namespace."""
    station = bytes.fromhex("020000000007")
    stations = netlink.attribute(5, netlink.attribute(4, station))
    made = told(b"macvlan", netlink.attribute(1, pack("=I", 16)) + stations, netlink.attribute(5, pack("=I", 3)))
    assert (made.mode, made.stations, made.parent) == ("source", (station,), 3)
    inside = netlink.attribute(5, pack("=I", 3)) + netlink.attribute(37, pack("=i", 0))
    assert told(b"macvlan", netlink.attribute(1, pack("=I", 4)), inside).parent is None
    assert told(b"ipvlan", netlink.attribute(1, pack("=H", 1))).mode == "l3"
    assert told(b"ipvlan").mode == ""


def test_where_a_vxlan_floods() -> None:
    """Only the entry of the station 00:00:00:00:00:00 counts, and only with an address."""
    message = pack("=B3xiHBB", 7, 5, 0, 0, 0)
    address = netlink.attribute(1, bytes.fromhex("0a090002"))
    everybody = netlink.attribute(2, bytes(6))
    assert netlink.parse_flooding(message + everybody + address) == (5, ip_address("10.9.0.2"))
    assert netlink.parse_flooding(message + netlink.attribute(2, b"\2" + bytes(5)) + address) is None
    assert netlink.parse_flooding(message + everybody) is None
    assert netlink.parse_flooding(message[:-1]) is None
