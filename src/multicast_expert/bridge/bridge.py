"""Bridge: one site's part in a network of bridges. Knows which sites want what, and has a Carrier for each group."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from time import monotonic, monotonic_ns
from types import TracebackType
from typing import Self

from multicast_expert.bridge.carrier import Carrier, Station
from multicast_expert.bridge.election import Election
from multicast_expert.bridge.frames import ID_BYTES, MalformedFrameError, parse_frame
from multicast_expert.bridge.greeter import Greeter
from multicast_expert.bridge.guards import Allowance
from multicast_expert.bridge.interest import Group, Interest, Keys, Policy, Wish, first_groups, parse_wish
from multicast_expert.bridge.network import USUAL_PLACE, Connection, Subscriber, ZenohNetwork
from multicast_expert.bridge.pulse import EVERY, Pulses, sender_of
from multicast_expert.bridge.status import GroupStatus, SiteStatus, Status
from multicast_expert.bridge.surroundings import ANY_PORT, Found, Surroundings
from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError

MOST_GROUPS = 256
"""How many groups a bridge carries, unless it is told otherwise."""
MOST_BYTES = 125_000_000
"""How many bytes a second it takes from other sites, unless it is told otherwise: a gigabit."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a bridge is told."""

    connection: Connection = field(default_factory=Connection)
    network: str = "default"
    """The name of the network of bridges: bridges with another one hear nothing of it."""
    name: str = ""
    """The name of this site; empty: that of the host."""
    wishes: Sequence[Wish] = ()
    """What this site wants at any time."""
    policy: Policy = field(default_factory=Policy)
    ifaces: Sequence[str] | None = None
    ttl: int | None = None
    most_groups: int = MOST_GROUPS
    most_bytes: int = MOST_BYTES
    keep_source: bool = False
    follows: bool = False
    """Whether this site wants what its hosts have joined, on any port; needs root."""


class Bridge:
    """Carries groups between this network and other sites while it is open: `with Bridge(settings) as bridge`.

    Raises MulticastExpertError when it is opened and cannot listen, or Zenoh is not installed.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        try:
            self._keys = Keys(settings.network)
        except ValueError as error:
            raise MulticastExpertError(f"{error}.") from None
        self._own = os.urandom(ID_BYTES)
        allowance = Allowance(settings.most_bytes)
        self._station = Station(self._own, settings.ifaces, settings.ttl, allowance)
        self._interest, self._pulses = Interest(), Pulses(self._own)
        self._wishes: set[Wish] = set(settings.wishes)
        self._carriers: dict[Group, Carrier] = {}
        self._tokens: dict[Wish, Callable[[], None]] = {}
        self._refused = self._unnoted = self._malformed = 0
        self._problems: dict[str, None] = {}
        self._surroundings: Surroundings | None = None
        self._found: dict[Group, None] = {}
        self._feeds: dict[IPAddress, Subscriber] = {}
        self._fed: dict[Group, None] = {}
        """Ports of groups that are wanted on any: seen on this network, and in frames of other sites."""
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._due = threading.Event()

    def __enter__(self) -> Self:
        settings = self.settings
        connection = settings.connection
        if not connection.listen and not connection.connect and connection.config is None:
            connection = connection._replace(listen=[USUAL_PLACE])
        if settings.keep_source:
            from multicast_expert.bridge.spoof import RawSpoof  # noqa: PLC0415 - seldom asked for

            self._station.spoof = RawSpoof(settings.ifaces)
        self._network = ZenohNetwork(connection)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def _begin(self) -> None:
        keys, network, own = self._keys, self._network, self._own
        network.follow(f"{keys.root}/here/**", self._note_site)
        network.follow(f"{keys.root}/want/**", self._note_wish)
        network.hear(f"{keys.root}/pulse/*", self._note_pulse)
        network.announce(keys.here(own, self.settings.name or socket.gethostname()))
        self._election = Election(own, monotonic())
        self._greeter = Greeter(
            self._election, self.settings.network, self.settings.ifaces, self._is_connected, self._due.set
        )
        if self.settings.follows:
            self._surroundings = Surroundings(self.settings.ifaces, self.want, self._take_found, self._bridges)
        self._worker = threading.Thread(target=self._work, name="mcast-bridge", daemon=True)
        self._worker.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop carrying and leave the network of bridges. A second call does nothing."""
        self._closed.set()
        self._due.set()
        if hasattr(self, "_worker"):
            self._worker.join(5.0)
        if hasattr(self, "_greeter"):
            self._greeter.close()
        if self._surroundings is not None:
            self._surroundings.close()
        for carrier in self._carriers.values():
            carrier.close()
        self._network.close()
        if self._station.spoof is not None:
            self._station.spoof.close()

    def want(self, wishes: Iterable[Wish]) -> None:
        """Want these groups here from now on, beside those of the settings, and no others."""
        with self._lock:
            self._wishes = {*self.settings.wishes, *wishes}
        self._due.set()

    # What other sites say; called by threads of the network

    def _note_site(self, key: str, is_there: bool) -> None:
        parts = self._keys.parts(key)
        sender = sender_of(parts)
        if sender is None or len(parts) != 2:
            return
        with self._lock:
            if is_there:
                self._unnoted += not (self._pulses.add(sender, parts[1]) or sender == self._own)
            else:
                self._pulses.remove(sender)
        self._due.set()

    def _note_wish(self, key: str, is_there: bool) -> None:
        found = parse_wish(self._keys.parts(key))
        if found is None or found[0] == self._own:
            return
        with self._lock:
            if is_there:
                self._unnoted += not self._interest.add(*found)
            else:
                self._interest.remove(*found)
        self._due.set()

    def _note_pulse(self, key: str, data: bytes) -> None:
        sender = sender_of(self._keys.parts(key))
        if sender is not None:
            with self._lock:
                self._pulses.take(sender, data, monotonic_ns())

    def _is_connected(self) -> bool:
        """Return whether there is another site that is not on this network."""
        return any(each not in self._station.neighbours for each in list(self._pulses.sites))

    # What follows from it

    def _work(self) -> None:
        next_pulse = monotonic()
        while not self._closed.is_set():
            self._due.wait(max(0.0, next_pulse - monotonic()))
            self._due.clear()
            if monotonic() >= next_pulse:
                next_pulse = monotonic() + EVERY
                self._pulse()
            with self._lock:
                if self._election.is_settled:
                    self._reconcile()

    def _pulse(self) -> None:
        with self._lock:
            data = self._pulses.build(self._station.speaking, monotonic_ns())
            for carrier in self._carriers.values():
                carrier.count_kernel_drops()
        self._network.put(f"{self._keys.root}/pulse/{self._own.hex()}", data)

    def _reconcile(self) -> None:
        """Carry what is wanted, and nothing else."""
        station, policy, settings = self._station, self.settings.policy, self.settings
        station.neighbours = self._election.neighbours
        station.speaking = self._election.speaking
        remote = self._interest.wanted({self._own, *station.neighbours})
        here = {wish.group for wish in self._wishes if policy.allows(wish.group)}
        refused = [each for each in {*remote} if each.port != ANY_PORT and not policy.allows(each)]
        anywhere = {each.group: remote.pop(each) for each in list(remote) if each.port == ANY_PORT}
        self._follow(anywhere, {each.group for each in here if each.port == ANY_PORT})
        for group in [*policy.groups, *self._found]:
            if group.group in anywhere:
                remote[group] = remote.get(group, set()) | anywhere[group.group]
        allowed = {each for each in {*remote, *here, *self._fed} if each.port != ANY_PORT and policy.allows(each)}
        carried = list(first_groups(allowed, settings.most_groups))
        self._refused = len(refused) + len(allowed) - len(carried)
        for group in [each for each in self._carriers if each not in carried]:
            self._carriers[group].update((), False)
            if len(self._carriers) > 4 * settings.most_groups:
                self._carriers.pop(group).close()
        for group in carried:
            try:
                self._carrier(group).update(remote.get(group, ()), group in here, group in self._fed)
            except MulticastExpertError as error:
                self._note_problem(f"{group}: {error}")
        self._announce({wish for wish in self._wishes if wish.group in here})

    def _carrier(self, group: Group) -> Carrier:
        if group not in self._carriers:
            self._carriers[group] = Carrier(group, self._keys.data(group), self._network, self._station)
        return self._carriers[group]

    # Groups that are wanted on any port

    def _bridges(self) -> Collection[str]:
        return frozenset[str]().union(*self._station.neighbours.values())

    def _follow(self, anywhere: Collection[IPAddress], here: Collection[IPAddress]) -> None:
        """Look here for ports of the groups that other sites want, and listen to all ports of those wanted here."""
        allowed = [each for each in anywhere if self.settings.policy.allows(Group(each, ANY_PORT))]
        self._found = {each: None for each in self._found if each.group in allowed}
        self._fed = {each: None for each in self._fed if each.group in here}
        if self._surroundings is not None:
            try:
                self._surroundings.seek(allowed[: self.settings.most_groups], self._found)
            except MulticastExpertError as error:
                self._note_problem(str(error))
        for group in [each for each in self._feeds if each not in here]:
            self._feeds.pop(group).close()
        for group in here:
            if group not in self._feeds and len(self._feeds) < self.settings.most_groups:
                subscriber = self._network.subscriber(self._keys.data(Group(group, ANY_PORT)))
                self._feeds[group] = subscriber
                threading.Thread(target=self._feed, args=(group, subscriber), daemon=True).start()

    def _feed(self, group: IPAddress, subscriber: Subscriber) -> None:
        while (data := subscriber.receive()) is not None:
            try:
                frame = parse_frame(data)
            except MalformedFrameError:
                self._malformed += 1
                continue
            to = Group(ip_address(frame.group), frame.port)
            carrier = None
            with self._lock:
                if to.group == group and self._feeds.get(group) is subscriber and to not in self._fed:
                    self._add(self._fed, to)
                if to in self._fed:
                    carrier = self._carriers.get(to)
            if carrier is not None:
                carrier.feed(frame, len(data))

    def _add(self, ports: dict[Group, None], group: Group) -> None:
        """Carry another port of a group, at once, if there is room for it; to be called with the lock."""
        if len(ports) < self.settings.most_groups:
            ports[group] = None
            self._reconcile()

    def _take_found(self, seen: Sequence[Found]) -> None:
        """Publish the first datagrams at ports of groups that other sites want, then receive those ports."""
        with self._lock:
            fresh = {each.group: None for each in seen if self.settings.policy.allows(each.group)}
            for each in seen:
                if each.group in fresh and each.payload and each.group not in self._found:
                    self._carrier(each.group).take_found(each.origin, each.timestamp_ns or 0, each.payload)
            for group in fresh:
                if group not in self._found:
                    self._add(self._found, group)

    def _announce(self, wishes: Collection[Wish]) -> None:
        for wish in [each for each in self._tokens if each not in wishes]:
            self._tokens.pop(wish)()
        for wish in wishes:
            if wish not in self._tokens:
                self._tokens[wish] = self._network.announce(self._keys.want(self._own, wish))

    def _note_problem(self, text: str) -> None:
        self._problems[text] = None
        while len(self._problems) > 16:
            del self._problems[next(iter(self._problems))]

    def status(self) -> Status:
        """Return what it knows at this moment."""
        with self._lock:
            neighbours, sites = self._station.neighbours, self._pulses.sites
            names = {key: site.name for key, site in sites.items()}
            seen = [
                SiteStatus(key.hex(), site.name, key in neighbours, site.speaking, site.delay, self._interest.of(key))
                for key, site in sites.items()
            ]
            by_group: dict[Group, list[str]] = {}
            for each in seen:
                for wish in each.wants:
                    by_group.setdefault(wish.group, []).append(names[bytes.fromhex(each.id)])
            groups = [
                GroupStatus(
                    group, carrier.gives, sorted(by_group.get(group, ())), carrier.is_stopped, carrier.ledger.copy()
                )
                for group, carrier in self._carriers.items()
            ]
            return Status(
                self._own.hex(),
                # One that neither speaks nor knows who does has not decided, or not acted on it.
                self._election.is_settled and (self._station.speaking or bool(neighbours)),
                self._station.speaking,
                self._network.links(),
                sorted(seen, key=lambda each: (each.name, each.id)),
                sorted(groups, key=lambda each: str(each.group)),
                self._refused + self._unnoted,
                [*(f"{name} is missing" for name in self._greeter.missing_interfaces), *self._problems],
            )
