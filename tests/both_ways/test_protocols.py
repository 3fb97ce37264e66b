"""Protocols as they are spoken: CoAP's requests to a group, and KNX routers with a search, over IPv4 and IPv6."""

import contextlib
from struct import Struct
from typing import Any

import pytest

from both_ways.kinds import Kind, everything
from both_ways.networks import TwoLinks, two_links
from linux.plain_sockets import FAMILY, own_address
from multicast_expert.testing import Interface, Lab

COAP, KNX = 5683, 3671
ALL_COAP_NODES = {4: "224.0.1.187", 6: "ff05::fd"}
"""RFC 7252, section 12.8."""
KNX_ROUTERS = {4: "224.0.23.12", 6: "ff05::17:c"}
"""KNX standard 3.8.5 for IPv4; there is none for IPv6."""
MESSAGE = Struct("!BBH4s")
"""Version, type and token length; code; message id; token (RFC 7252, section 3)."""
GET, CONTENT = 1, 69
PATIENCE = 10.0


@pytest.fixture(scope="module")
def network(lab: Lab) -> TwoLinks:
    """A host with two links; two other hosts on the first, three on the second."""
    return two_links(lab, (2, 3))


def opened_in(interface: Interface, kind: Kind, version: int, *args: Any, **options: Any) -> Any:
    """An open socket in the host of the interface."""
    with interface.node.entered():
        return kind.socket(FAMILY[version], *args, timeout=PATIENCE, **options).open()


async def test_coap(kind: Kind, network: TwoLinks, version: int) -> None:
    """All servers on both links are asked at once; each answers from its own address and CoAP's port, once."""
    group = ALL_COAP_NODES[version]
    with contextlib.ExitStack() as opened:
        servers = {
            own_address(far, version): opened.enter_context(
                contextlib.closing(opened_in(far, kind, version, [group], COAP, iface="eth0"))
            )
            for link in network.far
            for far in link
        }
        client = opened_in(network.near[0], kind, version, ifaces=["eth0", "eth1"], ttl=4)
        opened.enter_context(contextlib.closing(client))
        await client.sendto(MESSAGE.pack(0x54, GET, 7, b"\x01\x02\x03\x04"), (group, COAP))
        for server in servers.values():
            request = await server.receive()
            kind_of, code, number, token = MESSAGE.unpack(request.data)
            assert (kind_of, code, request.destination, request.hop_limit) == (0x54, GET, group, 4)
            await server.reply(request, MESSAGE.pack(0x54, CONTENT, number, token) + b"\xff22.5 C")
        answers = [await client.receive() for _ in servers]
        assert {(each.sender[0], each.sender[1]) for each in answers} == {(name, COAP) for name in servers}
        assert {each.data[MESSAGE.size :] for each in answers} == {b"\xff22.5 C"}
        links = [each.interface_name for each in answers]
        assert (links.count("eth0"), links.count("eth1")) == (2, 3)
        assert await everything(client) == []


async def test_knx(kind: Kind, network: TwoLinks, version: int) -> None:
    """Routers share a port: each hears the other, also in its own process, and not itself; a search is answered."""
    group = KNX_ROUTERS[version]
    near, far = network.near[0], network.far[0][0]
    with contextlib.ExitStack() as opened:
        first, second, distant = (
            opened.enter_context(
                contextlib.closing(opened_in(at, kind, version, [group], KNX, iface="eth0", unicast=False, ttl=16))
            )
            for at in (near, near, far)
        )
        await first.sendto(b"\x06\x10\x05\x30 a telegram", (group, KNX))
        for router in (second, distant):
            telegram = await router.receive()
            assert (telegram.data[4:], telegram.sender[0]) == (b" a telegram", own_address(near, version))
            assert telegram.sender[1] == KNX
        assert await everything(first) == []
        searching = opened_in(far, kind, version, iface="eth0")
        opened.enter_context(contextlib.closing(searching))
        await searching.sendto(b"\x06\x10\x02\x01 search", (group, KNX))
        for router in (first, second):
            search = await router.receive()
            await router.reply(search, b"\x06\x10\x02\x02 here")
        found = [await searching.receive() for _ in (first, second)]
        assert {(each.data[4:], each.sender[0], each.sender[1]) for each in found} == {
            (b" here", own_address(near, version), KNX)
        }
