"""What a reply costs, beside a plain send to the same host."""

import socket
from time import perf_counter

import pytest

from both_ways.networks import TwoLinks, two_links
from linux.plain_sockets import FAMILY, own_address, udp_socket
from multicast_expert import McastSocket, extension
from multicast_expert.testing import Lab

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
ROUNDS, EACH = 60, 100
AT_MOST = 1.2


@pytest.fixture(scope="module")
def network(lab: Lab) -> TwoLinks:
    """A host with two links."""
    return two_links(lab)


@pytest.mark.alone
@pytest.mark.parametrize("asked", ["group", "host"])
def test_a_reply_costs_little_more_than_a_plain_send(network: TwoLinks, version: int, asked: str) -> None:
    """With the extension, the best of many short rounds by turns: at most a fifth more than `sendto` of a socket."""
    if extension.native is None:
        pytest.skip("the extension is not there")
    near, far = network.near[0], network.far[0][0]
    payload = bytes(100)
    with (
        network.host.entered(),
        McastSocket(FAMILY[version], [GROUP[version]], PORT, iface="eth0", timeout=10) as sock,
        udp_socket(network.host, version, (own_address(near, version), 0)) as plain,
        udp_socket(far.node, version, (own_address(far, version), 0)) as asker,
    ):
        asker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        if version == 6:
            asker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, far.index())
        asker.sendto(b"question", (GROUP[version] if asked == "group" else own_address(near, version), PORT))
        question = sock.receive()
        sock.reply(question, payload)
        target = question.sender
        best = [float("inf"), float("inf")]
        for _ in range(ROUNDS):
            start = perf_counter()
            for _ in range(EACH):
                sock.reply(question, payload)
            middle = perf_counter()
            for _ in range(EACH):
                plain.sendto(payload, target)
            best = [min(best[0], middle - start), min(best[1], perf_counter() - middle)]
    print(f"reply {best[0] / best[1]:.2f} times a plain send")
    assert best[0] <= AT_MOST * best[1]
