"""Facts in a file: they come back as they were; a damaged or hostile file is refused with a clear message."""

import json
from dataclasses import is_dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doctor.hand_made import ETH0, healthy
from multicast_expert import MulticastExpertError
from multicast_expert.cli.render.doctor import report_lines
from multicast_expert.doctor import judge
from multicast_expert.doctor.facts import Facts, InterfaceFacts, Machine, Target, Trial, Unread
from multicast_expert.doctor.saved import LONGEST, facts_from_text, facts_to_text
from multicast_expert.system.listings import JoinedGroup, Process, SourceUse, UdpSocket
from multicast_expert.wire.tallies import Queries, Reporter

SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=8),
    bool: st.booleans(),
    int: st.integers(-(1 << 63), (1 << 64) - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    NoneType: st.none(),
    IPv4Address: st.ip_addresses(v=4),
    IPv6Address: st.ip_addresses(v=6),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of the type of a field."""
    if kind in SIMPLE:
        return SIMPLE[kind]
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return st.one_of([values(each) for each in parts])
    if origin is dict:
        return st.dictionaries(values(parts[0]), values(parts[1]), max_size=2)
    if origin is tuple and parts[-1] is Ellipsis:
        return st.lists(values(parts[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, parts))
    assert is_dataclass(kind) or hasattr(kind, "_fields"), f"no values of {kind} are made here yet"
    return st.builds(kind, **{name: st.deferred(lambda each=each: values(each)) for name, each in _hints(kind)})


def _hints(kind: Any) -> list[tuple[str, Any]]:
    return list(get_type_hints(kind).items())


SOCKET = UdpSocket(ip_address("239.1.2.3"), 5000, 1000, 77, 3, (Process(4711, "vlc"),))
FACTS = Facts(
    "2.0",
    1.5,
    Target("239.1.2.3", 5000, "10.0.0.7", "eth0", 4),
    Machine("linux", "6.18", 1000, False, container=Unread("Not told.")),
    interfaces=tuple(
        InterfaceFacts(name, index, True, True, False, True, 1500, (f"10.{index}.0.1/24",))
        for index, name in enumerate(("lo", "eth0", "eth1"))
    ),
    memberships=(
        JoinedGroup(
            ip_address("ff15::1"), "eth0", 2, None, 1, None, (SourceUse(ip_address("fd00::7"), 1),), (), (SOCKET,)
        ),
    ),
    settings={"net.ipv4.conf.eth0.rp_filter": "1", "secret": Unread("Shown to root only.", "sudo sysctl secret")},
    firewall=Unread("The rules are shown to root only.", "sudo nft list ruleset"),
    trial=Trial(5.0, True, counters={"Ip.InReceives": 3}, queries=(Queries("eth0", 3, "10.0.0.254", 2, None),)),
)


def document() -> dict[str, Any]:
    """What a file of these facts holds."""
    saved = json.loads(facts_to_text(FACTS))
    assert isinstance(saved, dict)
    return saved


def test_facts_come_back() -> None:
    """What was saved is what is read, as text and as the bytes that a shell may have made of it."""
    text = facts_to_text(FACTS)
    assert facts_from_text(text) == FACTS
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert facts_from_text(text.encode(encoding)) == FACTS


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=60)
@given(values(Facts))
def test_any_facts_come_back(facts: Facts) -> None:
    """Whatever the fields hold, also those that are added one day; and the text can be shown on any terminal."""
    text = facts_to_text(facts)
    assert facts_from_text(text) == facts
    assert text.isascii()
    assert all(line.isprintable() for line in text.splitlines())


def test_the_shape_of_the_file() -> None:
    """Objects by the names of fields, lists, addresses as text; and what could not be read with its reason."""
    saved = document()
    facts = saved["facts"]
    assert saved["mcast_facts"] == 1
    assert facts["firewall"] == {"unread": "The rules are shown to root only.", "remedy": "sudo nft list ruleset"}
    assert facts["machine"]["container"] == {"unread": "Not told.", "remedy": ""}
    assert facts["interfaces"][2]["addresses"] == ["10.2.0.1/24"]
    [joined] = facts["memberships"]
    assert (joined["group"], joined["included"]) == ("ff15::1", [{"source": "fd00::7", "sockets": 1}])
    assert joined["sockets"][0]["processes"] == [{"pid": 4711, "name": "vlc"}]


def test_other_versions_of_the_program() -> None:
    """Fields that a newer version has added are passed over; those that an older one lacks get their defaults."""
    saved = document()
    saved["comment"] = saved["facts"]["weather"] = saved["facts"]["target"]["colour"] = {"deep": [1, 2]}
    assert facts_from_text(json.dumps(saved)) == FACTS
    del saved["facts"]["trial"], saved["facts"]["machine"]["container"]
    older = facts_from_text(json.dumps(saved))
    assert older == replace(FACTS, trial=Unread("There was no trial."), machine=Machine("linux", "6.18", 1000, False))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("interfaces", 2, "mtu"), "big", "interfaces[2].mtu: expected a whole number."),
        (("interfaces", 2, "mtu"), True, "interfaces[2].mtu: expected a whole number."),
        (("interfaces", 2, "mtu"), 1.5, "interfaces[2].mtu: expected a whole number."),
        (("interfaces", 2, "mtu"), 1 << 64, "interfaces[2].mtu: expected a whole number."),
        (("interfaces", 1), [], "interfaces[1]: expected an object."),
        (("interfaces",), "eth0", "interfaces: expected a list."),
        (("interfaces", 0, "addresses", 0), None, "interfaces[0].addresses[0]: expected text."),
        (("memberships", 0, "group"), "239.1.2", "memberships[0].group: expected an IP address."),
        (("memberships", 0, "group"), 17, "memberships[0].group: expected an IP address."),
        (("memberships", 0, "any_source"), 0, "memberships[0].any_source: expected true or false."),
        (("time",), "noon", "time: expected a number."),
        (("time",), float("nan"), "time: expected a number."),
        (("time",), 10**400, "time: expected a number."),
        (("trial",), None, "trial: expected an object."),
        (("trial", "counters"), {"a\x1b[2J": "x"}, 'trial.counters["a\\u001b[2J"]: expected a whole number.'),
        (("trial", "counters"), {"unread": "No."}, 'trial.counters["unread"]: expected a whole number.'),
        (("firewall",), {"unread": None}, "firewall.unread: expected text."),
        (("firewall", "remedy"), 3, "firewall.remedy: expected text."),
        (("settings", "secret"), 3, 'settings["secret"]: expected text.'),
    ],
)
def test_a_wrong_value_is_named(path: tuple[str | int, ...], value: Any, message: str) -> None:
    """The message says where in the file it is, and what should stand there; it holds no control character."""
    saved = document()
    place: Any = saved["facts"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(MulticastExpertError) as caught:
        facts_from_text(json.dumps(saved))
    assert str(caught.value) == message


def test_a_missing_field_is_named() -> None:
    """A field that has no default has to be there."""
    saved = document()
    del saved["facts"]["interfaces"][1]["name"]
    with pytest.raises(MulticastExpertError, match=r"^interfaces\[1\]\.name: is missing\.$"):
        facts_from_text(json.dumps(saved))


def test_a_list_that_has_to_have_two_elements() -> None:
    """Pairs are pairs."""
    saved = document()
    bridge = {"name": "br0", "ports": [], "snooping": True, "querier": False, "members": [["239.1.2.3"]]}
    saved["facts"]["bridges"] = [bridge]
    with pytest.raises(MulticastExpertError, match=r"^bridges\[0\]\.members\[0\]: expected a list of 2\.$"):
        facts_from_text(json.dumps(saved))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged: Expecting value"),
        ("hello", "damaged: Expecting value"),
        (b"\xff\xfe\x00\x81\xff", "damaged: "),
        (b"\x00\x01\x02\x03", "damaged: "),
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        ("9" * 5_000, "damaged: Exceeds the limit"),
        ("[]", '"mcast_facts" is missing'),
        ('{"verdict": "ok"}', '"mcast_facts" is missing'),
        ('{"mcast_facts": true, "facts": {}}', "expected the number of a format"),
        ('{"mcast_facts": "1", "facts": {}}', "expected the number of a format"),
        ('{"mcast_facts": 2, "facts": {}}', "by a newer version of this program"),
        ('{"mcast_facts": 1}', "facts: expected an object"),
        ('{"mcast_facts": 1, "facts": {}}', "program: is missing"),
        (b" " * (LONGEST + 1), "longer than"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_what_is_no_file_of_facts(text: str | bytes, message: str) -> None:
    """Anything else is refused for what it is."""
    with pytest.raises(MulticastExpertError, match=message):
        facts_from_text(text)


def test_a_file_that_was_cut_off() -> None:
    """Wherever the file ends too early, that is noticed."""
    text = facts_to_text(FACTS).rstrip()
    for length in range(0, len(text), 7):
        with pytest.raises(MulticastExpertError, match="damaged"):
            facts_from_text(text[:length])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just("unread"), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=200)
@given(st.data())
def test_damage_never_crashes(data: st.DataObject) -> None:
    """With any value in any place, the file is either read or refused."""
    saved = document()
    place: Any = saved["facts"]
    key: Any = data.draw(st.sampled_from(sorted(place)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    place[key] = data.draw(JSON)
    message = ""
    try:
        facts = facts_from_text(json.dumps(saved))
    except MulticastExpertError as error:
        message = str(error)
    assert message.isprintable()
    assert message or facts_from_text(facts_to_text(facts)) == facts


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=40)
@given(values(Facts))
def test_any_facts_can_be_judged_and_shown(facts: Facts) -> None:
    """Whatever a file holds, there is a report, as JSON and as lines that no terminal takes for a command."""
    report = judge(facts)
    assert json.loads(json.dumps(report.as_dict()))["target"]["group"] == facts.target.group
    assert all(line.plain.isprintable() for line in report_lines(report, facts, "now", 80))


def test_an_address_that_is_none() -> None:
    """The addresses of an interface may be any text in a file: those that are none are no address of this host."""
    interfaces = (replace(ETH0, addresses=("", "none", "10.1.0.1/24")),)
    facts = healthy(interfaces=interfaces, reporters=(Reporter("eth0", "10.1.0.1", 3), Reporter("eth0", "10.1.0.9", 3)))
    seen = judge(facts).seen
    assert seen is not None
    assert [each.address for each in seen.members or ()] == ["10.1.0.9"]
