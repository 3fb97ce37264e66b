"""A switch of the lab: a Linux bridge with IGMP and MLD snooping. Configures it with `ip` and `bridge`."""

from __future__ import annotations

import ipaddress
import json
import time
from dataclasses import dataclass

from multicast_expert.testing import firewall
from multicast_expert.testing.firewall import DropRule
from multicast_expert.testing.interface import Interface
from multicast_expert.testing.namespaces import LabError
from multicast_expert.testing.node import PATIENCE, Node, wait_until
from multicast_expert.testing.traffic import send_queries

BRIDGE = "br0"


@dataclass(eq=False)
class Port(Interface):
    """A port of a switch. `flood_unknown`: whether groups without a known member leave through it."""

    flood_unknown: bool = True

    def bring_up(self) -> None:
        """Make it a port of the bridge."""
        self.node.ip(
            f"link set {self.name} master {BRIDGE}",
            f"link set {self.name} {self.flood_setting()}",
            f"link set {self.name} up",
        )

    def flood_setting(self) -> str:
        """Return the words for `ip link set` about groups without a known member."""
        return f"type bridge_slave mcast_flood {'on' if self.flood_unknown else 'off'}"

    def wait_until_ready(self) -> None:
        """Return as soon as the port forwards."""
        wait_until(self._forwards, f"{self.node.name} {self.name} forwards")

    def _forwards(self) -> bool:
        (state,) = json.loads(self.node.command("bridge", "-j", "link", "show", "dev", self.name))
        return bool(state["state"] == "forwarding")


class Switch(Node):
    """A switch that hosts are plugged into.

    With `snooping` and a querier it forwards a group only to the ports that asked for it. Without a querier a Linux
    bridge floods everything, like a switch without snooping; `flood_unknown=False` imitates one that drops
    groups without a known member.
    """

    def __init__(self, name: str, *, snooping: bool = True, querier: bool = False, flood_unknown: bool = True) -> None:
        super().__init__(name)
        self.ports: list[Port] = []
        self.flood_unknown = flood_unknown
        # IGMPv3 and MLDv2: the bridge's own default, version 2 and 1 queries, would silence the hosts' source filters
        self.ip(
            f"link add {BRIDGE} type bridge mcast_snooping {int(snooping)} mcast_querier 0 mcast_startup_query_count 0 "
            "mcast_igmp_version 3 mcast_mld_version 2",
            f"link set {BRIDGE} up",
        )
        if querier:
            self.start_querier()

    def new_port(self) -> Port:
        """Return a new port with no host plugged in."""
        port = Port(self, f"p{len(self.ports) + 1}", flood_unknown=self.flood_unknown)
        self.ports.append(port)
        return port

    def start_querier(
        self,
        *,
        interval: float = 1.0,
        response: float = 0.2,
        membership: float = 3.0,
        igmp_version: int = 3,
        mld_version: int = 2,
        source: str | None = None,
    ) -> None:
        """Send general queries every `interval` seconds, and filter by the reports once this returns.

        Hosts have `response` seconds to answer; `membership` seconds after its last report a host is forgotten. Linux
        bridges ask at most once a second: a shorter `interval` is refused. IGMP queries come from 0.0.0.0, or from
        `source`; where a host has no route to that, its rp_filter drops them.
        """
        if interval < 1:
            raise LabError("A Linux bridge asks at most once a second: give an interval of at least 1")
        self._set_bridge(f"mcast_igmp_version {igmp_version} mcast_mld_version {mld_version}")
        self._set_times(interval=interval, response=response, membership=membership, querier=membership)
        self._set_bridge("mcast_startup_query_count 2")
        if source is not None:
            self.ip(f"addr replace {source}/32 dev {BRIDGE}")
            self._set_bridge("mcast_query_use_ifaddr 1")
        if any(port._forwards() for port in self.ports):
            # Without an IPv6 address the bridge cannot ask by MLD, and floods IPv6 groups
            Interface(self, BRIDGE).wait_until_ready()
        # Last, by itself: the time until it filters is taken from the response interval at this moment
        self._set_bridge("mcast_querier 1")
        # The bridge floods until then, does not signal its end, and counts in timer ticks (br_multicast_set_querier)
        time.sleep(response + 0.02)

    def stop_querier(self) -> None:
        """Send no more queries. The known members expire; then the switch, which knows no querier, floods."""
        self._set_bridge("mcast_querier 0")

    def one_query(
        self,
        *,
        source: str = "0.0.0.0",
        source6: str = "fe80::1",
        response: float = 0.1,
        membership: float = 1.0,
        silence: float = 60.0,
    ) -> None:
        """Imitate a dying querier: one IGMPv3 and one MLDv2 general query on all ports, and then silence.

        Hosts answer within `response` seconds. No query follows, so the switch forgets them `membership` seconds
        later, and their groups go dead without a sign; only after `silence` seconds does it give the querier up and
        flood again. Call it while no querier is on. A `source` that a host has no route to makes its rp_filter drop
        the query. A host that has just joined says so twice within a second, and counts from the second time.
        """
        self._set_times(interval=membership, response=response, membership=membership, querier=silence)
        send_queries(self, BRIDGE, source, source6, response)

    def ignore_old_reports(self) -> DropRule:
        """Ignore reports of IGMPv1, IGMPv2 and MLDv1.

        So must a network treat source-specific groups (RFC 4604, 2.2.1 and 2.2.2).
        """
        return firewall.ignore_old_reports(self)

    def set_flood_unknown(self, port: Interface, flood: bool) -> None:
        """Set whether groups without a known member leave through this port; a host's interface stands for its port."""
        end = port if port.node is self else port.peer
        if not isinstance(end, Port) or end.node is not self:
            raise LabError(f"{port.node.name} {port.name} is not plugged into {self.name}")
        end.flood_unknown = flood
        self.ip(f"link set {end.name} {end.flood_setting()}")

    def members(self, group: str) -> list[Interface]:
        """Return the host interfaces that the snooping of the switch knows as members of this group."""
        wanted = ipaddress.ip_address(group)
        (listing,) = json.loads(self.command("bridge", "-j", "mdb", "show", "dev", BRIDGE)) or [{"mdb": []}]
        names = {row["port"] for row in listing["mdb"] if ipaddress.ip_address(row["grp"]) == wanted}
        return [port.peer for port in self.ports if port.name in names]

    def wait_for_member(self, group: str, interface: Interface, timeout: float = PATIENCE) -> None:
        """Return as soon as the switch knows this host interface as a member of the group.

        The LabError of a wait that takes longer than `timeout` says which programs of that host have ended, and why.
        """
        try:
            wait_until(
                lambda: interface in self.members(group),
                f"{self.name} knows {interface.node.name} as a member of {group}",
                timeout,
            )
        except LabError as error:
            if ended := interface.node.programs_that_ended():
                raise LabError(f"{error}. On {interface.node.name} {ended}") from None
            raise

    def _set_bridge(self, settings: str) -> None:
        self.ip(f"link set {BRIDGE} type bridge {settings}")

    def _set_times(self, *, interval: float, response: float, membership: float, querier: float) -> None:
        seconds = {
            "mcast_query_interval": interval,
            "mcast_query_response_interval": response,
            "mcast_membership_interval": membership,
            "mcast_querier_interval": querier,
            "mcast_startup_query_interval": interval,
            "mcast_last_member_interval": response,
        }
        self._set_bridge(" ".join(f"{name} {max(1, round(value * 100))}" for name, value in seconds.items()))
