"""Who receives what, with unicast and without, on a host where another socket has joined every group everywhere."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from both_ways.kinds import KINDS, Kind, everything
from linux.plain_sockets import FAMILY, any_address, nothing_for, own_address, udp_socket, until
from linux.three_legs import CASES, GROUPS, INTERFACES, PORT, Network, Wish, three_legs
from multicast_expert import MulticastWarning
from multicast_expert.testing import Lab

ONE_ASYNC = [kind for kind in KINDS if kind.name in ("blocking", "asyncio")]
TAKEN = r"Another socket of this host has port 5000 and receives the unicast that is sent to it"
PATIENCE = 10.0


@pytest.fixture(scope="module")
def network(lab: Lab) -> Iterator[Network]:
    """The three-legged host, for this file."""
    with three_legs(lab) as made:
        yield made


def socket_for(kind: Kind, network: Network, version: int, wish: Wish, unicast: object, own: bool = False) -> Any:
    """The socket of what was asked for, open."""
    groups = [GROUPS[version][letter] for letter in wish.groups]
    sources = network.sources(version, wish)
    with network.host.entered():
        made = kind.socket(
            FAMILY[version], groups, PORT, ifaces=network.names(wish), source_ips=sources, unicast=unicast, own=own
        )
        return made.open()


def addresses_of(network: Network, version: int, wish: Wish) -> set[str]:
    """The addresses of the interfaces that were asked for."""
    return {own_address(network.interfaces[number], version) for number in wish.interfaces or INTERFACES} | {
        f"{network.interfaces[number].link_local}%{network.interfaces[number].peer.index()}"
        for number in wish.interfaces or INTERFACES
        if version == 6
    }


async def took(sock: Any, count: int) -> list[str]:
    """Receive so many datagrams, and then whatever is left."""
    received = [(await sock.receive(timeout=PATIENCE)).data.decode() for _ in range(count)]
    return sorted(received + [datagram.data.decode() for datagram in await everything(sock)])


@pytest.mark.parametrize("kind", ONE_ASYNC, ids=lambda kind: kind.name)
@pytest.mark.parametrize("unicast", [False, True], ids=["no unicast", "unicast that another program had first"])
@pytest.mark.parametrize("wishes", CASES.values(), ids=CASES)
async def test_groups_only_and_nothing_stolen(
    kind: Kind, network: Network, version: int, wishes: list[Wish], unicast: bool
) -> None:
    """A plain socket that had the port first loses nothing, unicast included, and each socket gets its groups only."""
    with contextlib.ExitStack() as opened:
        eavesdropper = opened.enter_context(network.eavesdropper(version))
        sockets = []
        for wish in wishes:
            with pytest.warns(MulticastWarning, match=TAKEN) if unicast else contextlib.nullcontext():
                sockets.append(socket_for(kind, network, version, wish, unicast))
            opened.callback(sockets[-1].close)

        sent = network.send_to_groups(version) + network.send_to_the_host(version)
        heard = [data.decode() for _, data in until([eavesdropper], len(sent))]
        network.send_to_groups(version, "!")
        until([eavesdropper], len(network.senders) // 2 * len(GROUPS[version]))

        expected = [wish.datagrams() | {f"{name}!" for name in wish.datagrams()} for wish in wishes]
        received = [await took(sock, len(names)) for sock, names in zip(sockets, expected, strict=True)]
    assert sorted(heard) == sorted(sent)
    assert received == [sorted(names) for names in expected]


@pytest.mark.parametrize("kind", ONE_ASYNC, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "wish", [Wish("a", "0"), Wish("abc", "12"), Wish("a", None), Wish("a", "0", "x"), Wish("", "1"), Wish("", None)]
)
async def test_unicast_to_the_own_interfaces(kind: Kind, network: Network, version: int, wish: Wish) -> None:
    """With unicast, what is sent to the chosen interfaces comes too, whatever way it took; a later plain socket gets
    all that is sent to the host's other addresses, and the broadcasts.
    """
    with contextlib.ExitStack() as opened:
        sock = socket_for(kind, network, version, wish, True)
        opened.callback(sock.close)
        eavesdropper = opened.enter_context(network.eavesdropper(version))
        strangers = network.send_to_the_host(version)
        groups = network.send_to_groups(version)
        own = addresses_of(network, version, wish)
        mine = {text for text in strangers if text.partition(" to ")[2] in own}
        heard = [data.decode() for _, data in until([eavesdropper], len(strangers) - len(mine) + len(groups))]
        received = await took(sock, len(mine) + len(wish.datagrams()))
        assert nothing_for(eavesdropper)
    assert mine
    assert received == sorted(mine | wish.datagrams())
    assert sorted(heard) == sorted({*strangers, *groups} - mine)


@pytest.mark.parametrize("own", [False, True], ids=["", "own"])
async def test_any_unicast_and_no_broadcast(kind: Kind, network: Network, version: int, own: bool) -> None:
    """With "any", unicast to each address of the host comes, and neither a broadcast nor a group that is not joined."""
    with contextlib.ExitStack() as opened:
        sock = socket_for(kind, network, version, Wish("a", "0"), "any", own=own)
        opened.callback(sock.close)
        judge = opened.enter_context(network.eavesdropper(version))
        judge.close()
        strangers = network.send_to_the_host(version)
        network.send_to_groups(version)
        mine = {text for text in strangers if not text.endswith(".255")}
        received = await took(sock, len(mine) + 2)
    assert received == sorted(mine | Wish("a", "0").datagrams())


async def test_named_addresses_are_taken(kind: Kind, network: Network, version: int) -> None:
    """A named address is received on although another socket had the port first; all else stays with that one."""
    address = own_address(network.interfaces["1"], version)
    with contextlib.ExitStack() as opened:
        first = opened.enter_context(udp_socket(network.host, version, (any_address(version), PORT)))
        sock = socket_for(kind, network, version, Wish("a", "0"), [address])
        opened.callback(sock.close)
        strangers = network.send_to_the_host(version)
        mine = {text for text in strangers if text.endswith(f" to {address}")}
        assert await took(sock, len(mine)) == sorted(mine)
        heard = {data.decode() for _, data in until([first], len(strangers) - len(mine))}
    assert heard == {*strangers} - mine


async def test_the_first_of_two_has_the_unicast(kind: Kind, network: Network, version: int) -> None:
    """Two sockets that ask for unicast on one port: the second gets groups only, and a warning says so."""
    address = own_address(network.interfaces["0"], version)
    with contextlib.ExitStack() as opened:
        first = socket_for(kind, network, version, Wish("a", "0"), True)
        opened.callback(first.close)
        with pytest.warns(MulticastWarning, match=TAKEN):
            second = socket_for(kind, network, version, Wish("a", "0"), True)
        opened.callback(second.close)
        program = opened.enter_context(udp_socket(network.host, version))
        program.sendto(b"unicast", (address, PORT))
        network.send_to_groups(version)
        assert await took(first, 3) == sorted({"unicast", *Wish("a", "0").datagrams()})
        assert await took(second, 2) == sorted(Wish("a", "0").datagrams())


async def test_the_port_is_shared_with_all_that_share(kind: Kind, network: Network, version: int) -> None:
    """Programs that set SO_REUSEADDR only, and those that set SO_REUSEPORT only, open before and after ours."""
    import socket as plain

    wish = Wish("a", "0")
    for option in (plain.SO_REUSEADDR, plain.SO_REUSEPORT):
        with contextlib.ExitStack() as opened:
            before, after = (opened.enter_context(udp_socket(network.host, version, reuse=False)) for _ in range(2))
            for each in (before, after):
                each.setsockopt(plain.SOL_SOCKET, option, 1)
            before.bind((any_address(version), PORT))
            sock = socket_for(kind, network, version, wish, False)
            opened.callback(sock.close)
            after.bind((any_address(version), PORT))
            network.send_to_groups(version)
            assert await took(sock, 2) == sorted(wish.datagrams())
