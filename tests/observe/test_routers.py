"""Networks with routers that others wrote, smcroute and FRR's pimd: streams and queriers behind them, and members."""

from collections.abc import Callable, Iterator
from contextlib import closing
from time import monotonic

import pytest

from multicast_expert.observe.messages import Watch
from multicast_expert.observe.scan import scan
from multicast_expert.observe.source import FrameSource
from multicast_expert.testing import Host, Lab, Router
from multicast_expert.testing.private_network import find_tool
from observe.bridges import Program
from observe.routers import PATIENCE, Frr, frr, frr_missing
from testing.plain_sockets import member_of

GROUP, OTHER = "239.1.2.3", "239.1.2.4"
SOURCE, ROUTER, LISTENER, LOWER = "10.1.0.1", "10.2.0.254", "10.2.0.2", "10.2.0.1"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Network:
    """A source, a router, and two hosts behind it on a cable of their own."""

    def __init__(self, lab: Lab) -> None:
        self.router: Router = lab.router("router")
        source, switch = lab.host("source"), lab.switch("switch", snooping=False)
        self.looker: Host
        self.listener: Host
        self.looker, self.listener = lab.host("looker"), lab.host("listener")
        lab.link(source, self.router, ipv4=(f"{SOURCE}/24", "10.1.0.254/24"), second_interface="eth0")
        lab.plug(self.router, switch, interface="eth1", ipv4=f"{ROUTER}/24")
        lab.plug(self.looker, switch, ipv4=f"{LOWER}/24")
        self.card = lab.plug(self.listener, switch, ipv4=f"{LISTENER}/24")
        for host in (self.looker, self.listener):
            host.ip(f"route add default via {ROUTER}")
        source.send_datagrams(GROUP, 5000, interface="eth0", hop_limit=9)


@pytest.fixture
def network() -> Iterator[Network]:
    """A network of its own."""
    with Lab() as lab:
        yield Network(lab)


@pytest.mark.skipif(find_tool("smcrouted") is None, reason="the program smcrouted is not installed (smcroute)")
def test_a_stream_behind_smcroute(network: Network) -> None:
    """Behind the router it has its source and a hop less; the router itself sees it come and go, and joins nothing."""
    network.router.route_multicast(GROUP, "eth0", ["eth1"])
    with network.looker.entered():
        behind = scan(["eth0"], 0.7)
    with network.router.entered():
        inside = scan(["eth0", "eth1"], 0.7)
    assert [(each.group, each.source, each.hop_limit) for each in behind.streams] == [(GROUP, SOURCE, 8)]
    rows = {(each.interface, each.outgoing, each.hop_limit) for each in inside.streams}
    assert rows == {("eth0", False, 9), ("eth1", True, 8)}


class RouterView:
    """What `observe` makes of the frames on eth1 of the router, and what FRR makes of them."""

    def __init__(self, router: Host, frr: Frr) -> None:
        self._frr, self._router = frr, router
        with router.entered():
            self._source = FrameSource(["eth1"])
        self._watch = Watch(self._source)

    def groups(self) -> set[str]:
        """Return the groups with members, but not those of routers and of the link."""
        known = self._watch.links.known.get(("eth1", 4))
        return {group for group, _ in known.members if not group.startswith("224.0.0.")} if known else set()

    def querier(self) -> str | None:
        """Return the elected querier."""
        known = self._watch.links.known.get(("eth1", 4))
        return known.querier.address if known and known.querier else None

    def agree(self, what: Callable[[], bool]) -> None:
        """Return as soon as both views are equal and as expected."""
        deadline = monotonic() + PATIENCE
        while True:
            with self._router.entered():
                while self._watch.step(0.05):
                    pass
            theirs = {group for group in self._frr.groups("eth1") if not group.startswith("224.0.0.")}
            if what() and (self.groups(), self.querier()) == (theirs, self._frr.querier("eth1")):
                return
            assert monotonic() < deadline, (self.groups(), self.querier(), theirs, self._frr.querier("eth1"))

    def close(self) -> None:
        """Close the source of frames."""
        self._source.close()


@pytest.mark.skipif(frr_missing() is not None, reason=frr_missing() or "it can run")
def test_a_network_with_frr(network: Network) -> None:
    """Its querier and the stream that it routes are named; members and elections are what FRR itself knows."""
    looking = Program(network.looker, "watch", "-i", "eth0")
    with frr(network.router, "10.1.0.254") as routing, closing(RouterView(network.router, routing)) as view:
        looking.wait_for(event="querier", host=ROUTER, version=3)
        with member_of(OTHER, network.card):
            with member_of(GROUP, network.card):
                view.agree(lambda: view.groups() == {GROUP, OTHER} and view.querier() in (ROUTER, None))
                with network.looker.entered():
                    found = scan(["eth0"], 1)
                assert [(each.group, each.source, each.hop_limit) for each in found.streams] == [(GROUP, SOURCE, 8)]
            view.agree(lambda: view.groups() == {OTHER})
            # Ours has the lower address: FRR falls silent.
            words = ("querier", "-i", "eth0", "-4", "--query-interval", "1", "--response-time", "0.4")
            ours = Program(network.looker, *words)
            ours.wait_for(event="querier", host=LOWER)
            view.agree(lambda: view.groups() == {OTHER} and view.querier() == LOWER)
            assert not routing.ask("show ip igmp interface")["eth1"].get("querier")
        view.agree(lambda: view.groups() == set())
