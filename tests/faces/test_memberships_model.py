"""The declared set of memberships against a model that a child could read: random changes, the same answers."""

from ipaddress import ip_address
from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from multicast_expert import IfaceInfo, MulticastExpertError
from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.interfaces import InterfaceChoice
from multicast_expert.core.memberships import Attachment, Memberships, Revision
from multicast_expert.core.plan import Join

GROUPS = [ip_address(text) for text in ("239.1.2.3", "239.1.2.4")]
SOURCES = [ip_address(text) for text in ("10.0.0.7", "10.0.0.8", "10.0.0.9")]

groups = st.sampled_from(GROUPS)
sources = st.sampled_from(SOURCES)
numbers = st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)


def attachment(number: int) -> Attachment:
    """An interface that is there."""
    return Attachment(InterfaceChoice(IfaceInfo(f"eth{number}", number + 2, None, (), ())))


class MembershipsMachine(RuleBasedStateMachine):
    """Where a group is wanted, the model holds either "only" and the sources, or "but" and the blocked ones."""

    def __init__(self) -> None:
        super().__init__()
        self.memberships = Memberships()
        self.attachments = [attachment(number) for number in range(3)]
        self.only: dict[tuple[IPAddress, Attachment], set[IPAddress]] = {}
        self.but: dict[tuple[IPAddress, Attachment], set[IPAddress]] = {}

    def places(self, group: IPAddress, chosen: list[int]) -> list[tuple[IPAddress, Attachment]]:
        """The keys of the model."""
        return [(group, self.attachments[number]) for number in chosen]

    def revise(self, revision: Revision) -> None:
        """Undo what was never done, which changes nothing; then do it, twice."""
        before = list(self.memberships)
        self.memberships.put(revision.group, revision.before)
        assert set(self.memberships) == set(before)
        for _ in range(2):
            self.memberships.put(revision.group, revision.after)

    @initialize(absent=numbers)
    def some_are_absent(self, absent: list[int]) -> None:
        """All interfaces but some are there."""
        for number in absent[1:]:
            self.attachments[number].present = False

    @rule(number=st.integers(0, 2))
    def comes_or_goes(self, number: int) -> None:
        """An interface comes or goes: what is wanted stays as it is."""
        self.attachments[number].present = not self.attachments[number].present

    @rule(group=groups, chosen=numbers)
    def join_all_sources(self, group: IPAddress, chosen: list[int]) -> None:
        """The whole group can be joined where nothing of it is."""
        places = self.places(group, chosen)
        attachments = [held for _, held in places]
        if any(place in self.only or place in self.but for place in places):
            with pytest.raises(MulticastExpertError, match="joined"):
                self.memberships.join(group, None, attachments)
            return
        self.revise(self.memberships.join(group, None, attachments))
        self.but |= {place: set() for place in places}

    @rule(group=groups, source=sources, chosen=numbers)
    def join_source(self, group: IPAddress, source: IPAddress, chosen: list[int]) -> None:
        """A source can be joined once, where the group is not joined from all."""
        places = self.places(group, chosen)
        attachments = [held for _, held in places]
        if any(place in self.but or source in self.only.get(place, ()) for place in places):
            with pytest.raises(MulticastExpertError, match="joined"):
                self.memberships.join(group, source, attachments)
            return
        self.revise(self.memberships.join(group, source, attachments))
        for place in places:
            self.only.setdefault(place, set()).add(source)

    @rule(group=groups, chosen=numbers)
    def leave_group(self, group: IPAddress, chosen: list[int]) -> None:
        """Leaving the group leaves all its sources, on interfaces that are there."""
        places = self.places(group, chosen)
        attachments = [held for _, held in places]
        if not all(place in self.only or place in self.but for place in places):
            with pytest.raises(MulticastExpertError, match="not joined"):
                self.memberships.leave(group, None, attachments)
            return
        expected = {
            Join(group, source, held.choice)
            for place, held in zip(places, attachments, strict=True)
            for source in self.only.get(place, {None})
            if held.present
        }
        revision, left = self.memberships.leave(group, None, attachments)
        self.revise(revision)
        assert set(left) == expected
        assert len(left) == len(expected)
        for place in places:
            self.only.pop(place, None)
            self.but.pop(place, None)

    @rule(group=groups, source=sources, chosen=numbers)
    def leave_source(self, group: IPAddress, source: IPAddress, chosen: list[int]) -> None:
        """A source can be left where it was joined; with the last one goes the group."""
        places = self.places(group, chosen)
        attachments = [held for _, held in places]
        if not all(source in self.only.get(place, ()) for place in places):
            with pytest.raises(MulticastExpertError, match="not joined"):
                self.memberships.leave(group, source, attachments)
            return
        revision, left = self.memberships.leave(group, source, attachments)
        self.revise(revision)
        assert left == [Join(group, source, held.choice) for held in attachments if held.present]
        for place in places:
            self.only[place].remove(source)
            if not self.only[place]:
                del self.only[place]

    @rule(group=groups, source=sources, chosen=numbers, blocked=st.booleans())
    def block(self, group: IPAddress, source: IPAddress, chosen: list[int], blocked: bool) -> None:
        """A source can be blocked where the group is joined from all, and unblocked where it is blocked."""
        places = self.places(group, chosen)
        attachments = [held for _, held in places]
        if not all(place in self.but and (source in self.but[place]) != blocked for place in places):
            with pytest.raises(MulticastExpertError, match=r"joined|blocked"):
                self.memberships.block(group, source, attachments, blocked)
            return
        expected = [
            (Join(group, source, held.choice), len(self.but[group, held])) for held in attachments if held.present
        ]
        revision, changes = self.memberships.block(group, source, attachments, blocked)
        assert changes == expected
        self.revise(revision)
        for place in places:
            (self.but[place].add if blocked else self.but[place].remove)(source)

    @rule(number=st.integers(0, 2))
    def another_interface(self, number: int) -> None:
        """A new interface wants what an old one wants, and from then on they go their own ways."""
        old, fresh = self.attachments[number], attachment(len(self.attachments))
        self.memberships.extend(old, fresh)
        for modes in (self.only, self.but):
            modes |= {(group, fresh): set(held) for (group, holder), held in modes.items() if holder is old}
        self.attachments.append(self.attachments[number])
        self.attachments[number] = fresh

    @invariant()
    def the_same(self) -> None:
        """Whatever is asked, model and memberships agree."""
        wanted = {(group, source, held) for (group, held), chosen in self.only.items() for source in chosen}
        wanted |= {(group, None, held) for group, held in self.but}
        listed = list(self.memberships)
        assert set(listed) == wanted
        assert len(listed) == len(wanted)
        assert set(self.memberships.groups()) == {group for group, _, _ in wanted}
        assert set(self.memberships.joins()) == {
            Join(group, source, held.choice) for group, source, held in wanted if held.present
        }
        for group, held in product(GROUPS, self.attachments):
            holds = (group, held) in self.only or (group, held) in self.but
            assert (held in self.memberships.attachments(group)) == holds
        for held in self.attachments:
            of = {Join(group, source, held.choice) for group, source, holder in wanted if holder is held}
            assert set(self.memberships.of(held)) == of
            blocked = self.memberships.blocked(held)
            assert {(join.group, join.source) for join, _ in blocked} == {
                (group, source) for (group, holder), chosen in self.but.items() if holder is held for source in chosen
            }
            for group in GROUPS:
                counts = [count for join, count in blocked if join.group == group]
                assert counts == list(range(len(counts)))


TestMemberships = MembershipsMachine.TestCase
TestMemberships.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_one_interface_for_two() -> None:
    """Where two are on one interface, as a bridge and its port, the kernel is told once, and the last time counts."""
    first, second = attachment(1), attachment(1)
    group, source = ip_address("239.1.2.3"), ip_address("10.0.0.7")
    memberships = Memberships()
    memberships.put(group, memberships.join(group, None, [first, second]).after)
    change = (Join(group, source, first.choice), 0)

    def block(which: list[Attachment], blocked: bool) -> list[tuple[Join, int]]:
        revision, changes = memberships.block(group, source, which, blocked)
        memberships.put(group, revision.after)
        return changes

    assert block([first, second], True) == [change]
    assert memberships.blocked() == [change]
    assert memberships.blocked(second) == []
    assert block([first], False) == []
    assert block([second], False) == [(change[0], 1)]
    assert block([second], True) == [change]
    assert block([first], True) == []
    _, left = memberships.leave(group, None, [first, second])
    assert left == [Join(group, None, first.choice)]
