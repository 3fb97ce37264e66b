"""Which rules refuse a packet: rules that nft and iptables wrote, and the kernel's own verdict as the judge."""

import json
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.stage import GROUP, GROUP6, PORT, TALKER, TALKER6, Stage, stage
from linux.plain_sockets import join, sender_on, udp_socket
from multicast_expert.doctor.facts import Rule
from multicast_expert.doctor.firewall import Packet, parse_iptables, parse_nftables, refusals
from multicast_expert.doctor.firewall.chains import (
    ICMPV6,
    IGMP,
    UDP,
    Chain,
    ChainRule,
    Step,
    Test,
    Truth,
    Verdict,
    both,
    either,
    opposite,
)
from multicast_expert.testing import lab_unavailable

RECORDED = Path(__file__).parent / "recorded"

DATAGRAM = Packet(ip_address(GROUP), "net0", UDP, None, PORT)
DATAGRAM6 = Packet(ip_address(GROUP6), "net0", UDP, None, PORT)
IGMP_QUERY = Packet(ip_address("224.0.0.1"), "net0", IGMP)
MLD_QUERY = Packet(ip_address("ff02::1"), "net0", ICMPV6)
IGMP_REPORT = Packet(ip_address("224.0.0.22"), "net0", IGMP, outgoing=True)
TRUTHS: list[Truth] = [True, None, False]


def nftables(wanted: Packet, query: Packet, document: str | None = None, listing: str | None = None) -> dict[str, Rule]:
    """The refusing rules of what nft 1.0.6 wrote, by their text."""
    document = document or (RECORDED / "nftables.json").read_text()
    listing = listing or (RECORDED / "nftables.txt").read_text()
    return {rule.text: rule for rule in refusals("nftables", parse_nftables(document, listing), [wanted], [query])}


def test_recorded_rules_of_nftables() -> None:
    """Sets, maps, prefixes, concatenations and jumps are followed; what comes after a certain end refuses nothing."""
    found = nftables(DATAGRAM, IGMP_QUERY)
    assert {text: rule.matches for text, rule in found.items() if rule.matches is not False} == {
        "ip saddr @bad counter drop": None,  # the sender is not known
        "fib saddr . iif oif missing drop": None,  # the routes are not asked
        "ip daddr 224.0.0.0/4 counter drop": True,
    }
    rule = found["ip daddr 224.0.0.0/4 counter drop"]
    assert (rule.chain, rule.hook, rule.packets, rule.handle) == ("inet filter input", "input", 7, 32)
    assert rule.matches_queries is False  # IGMP was accepted before


@pytest.mark.parametrize("verdict", ["queue", "unclear"])
def test_what_a_program_decides_may_go_on(verdict: Verdict) -> None:
    """Behind a rule whose outcome the rules do not tell, a rule that drops everything may drop the packet, or not."""
    rules = [ChainRule(verdict, (Step(lambda _: True, verdict),)), ChainRule("all", (Step(lambda _: True, "drop"),))]
    found = refusals("nftables", {"in": Chain("in", rules, "input")}, [DATAGRAM])
    assert found[-1].text == "all"
    assert {rule.matches for rule in found} == {None}


def test_a_known_sender_decides_more() -> None:
    """With the sender known, a rule on source addresses refuses, or does not."""
    for sender, verdict in (("10.9.1.1", True), ("10.8.1.1", False)):
        found = nftables(DATAGRAM._replace(source=ip_address(sender)), IGMP_QUERY)
        assert found["ip saddr @bad counter drop"].matches is verdict


def test_ipv6_goes_another_way_through_the_same_rules() -> None:
    """Rules on IPv4 headers leave IPv6 alone."""
    found = nftables(DATAGRAM6, MLD_QUERY)
    assert found["meta pkttype multicast drop"].matches is True
    assert found["ip daddr 224.0.0.0/4 counter drop"].matches is False
    assert all(rule.matches_queries is not True for rule in found.values())  # MLD queries were accepted


def test_an_ingress_chain_belongs_to_its_device() -> None:
    """What a chain at the ingress of eth0 drops is lost on eth0 only."""
    for interface, verdict in (("eth0", True), ("eth1", False)):
        found = nftables(DATAGRAM._replace(interface=interface), IGMP_QUERY)
        assert found["ip daddr 239.0.0.0/8 drop"].matches is verdict


@pytest.mark.parametrize(
    ("field", "value", "truth"),
    [("dport", 5002, True), ("dport", PORT, False), ("dport", {"range": [1, 2]}, None), ("sport", 5002, None)],
)
def test_a_rule_that_writes_another_destination_translates(field: str, value: object, truth: Truth) -> None:
    """`udp dport set 5002` sends datagrams elsewhere, unless it writes the port that they go to anyway."""
    changes = {"mangle": {"key": {"payload": {"protocol": "udp", "field": field}}, "value": value}}
    named = {"family": "ip", "table": "f"}
    items = [
        {"chain": {**named, "name": "c", "type": "filter", "hook": "prerouting", "prio": -150, "policy": "accept"}},
        {"rule": {**named, "chain": "c", "handle": 2, "expr": [changes]}},
    ]
    found = list(nftables(DATAGRAM, IGMP_QUERY, json.dumps({"nftables": items}), "\n").values())
    if field == "dport":
        assert not refusals("nftables", parse_nftables(json.dumps({"nftables": items}), "\n"), [IGMP_QUERY])[0].matches
        assert [(each.action, each.hook, each.matches) for each in found] == [("translate", "prerouting", truth)]
    else:
        assert found == []


IPTABLES = """\
# Generated by iptables-save v1.8.9 on Sun Nov 22 18:46:57 2026
*filter
:INPUT DROP [12:3456]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:mine - [0:0]
[0:0] -A INPUT -i lo -j ACCEPT
[0:0] -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
[3:84] -A INPUT -p igmp -j ACCEPT
[9:252] -A INPUT -m pkttype --pkt-type multicast -j mine
[0:0] -A INPUT ! -i eth+ -m limit --limit 5/sec -j ACCEPT
[0:0] -A INPUT -i eth+ -j REJECT --reject-with icmp-port-unreachable
[0:0] -A OUTPUT -o net0 -p igmp -j DROP
[0:0] -A mine -p udp -m multiport --dports 53,6000:6010 -j ACCEPT
[9:252] -A mine -p udp -m udp --dport 5000 -m comment --comment "no thank you" -j DROP
COMMIT
"""  # recorded, and then joined from two machines


def iptables(*packets: Packet) -> dict[str, Rule]:
    """The refusing rules of what iptables wrote, by their text."""
    chains = parse_iptables(IPTABLES, 4)
    return {rule.text: rule for rule in refusals("iptables", chains, packets, [IGMP_QUERY], [IGMP_REPORT])}


def test_recorded_rules_of_iptables() -> None:
    """A rule in a chain of its own refuses; the policy then sees nothing more of these packets."""
    found = iptables(DATAGRAM)
    rule = found['-A mine -p udp -m udp --dport 5000 -m comment --comment "no thank you" -j DROP']
    assert (rule.matches, rule.chain, rule.hook, rule.packets, rule.handle) == (True, "filter mine", "input", 9, 2)
    assert (found["policy drop"].matches, found["policy drop"].packets) == (False, 12)
    assert all(each.matches_queries is False for each in found.values())


def test_what_iptables_lets_through_may_still_meet_a_limit() -> None:
    """A match that cannot be decided leaves what follows undecided."""
    found = iptables(DATAGRAM._replace(port=7000))
    assert found["policy drop"].matches is None
    assert iptables(DATAGRAM._replace(port=7000, interface="eth3"))["policy drop"].matches is False
    assert all(rule.matches is False for rule in iptables(DATAGRAM._replace(port=6005)).values())


def test_rules_on_the_way_out_concern_reports() -> None:
    """A rule of the output chain keeps reports from leaving, and refuses nothing that comes in."""
    rule = iptables(DATAGRAM)["-A OUTPUT -o net0 -p igmp -j DROP"]
    assert (rule.hook, rule.matches, rule.matches_queries, rule.matches_reports) == ("output", False, False, True)


@pytest.mark.parametrize("first", TRUTHS)
@pytest.mark.parametrize("second", TRUTHS)
def test_three_values(first: Truth, second: Truth) -> None:
    """What cannot be told stays so, unless the other value decides alone."""
    assert opposite(both(first, second)) == either(opposite(first), opposite(second))
    assert both(first, second) is both(second, first)
    assert both(first, True) is first
    assert both(first, False) is False


OPTIONS = st.sampled_from(
    ["-p", "udp", "!", "-m", "multiport", "--dports", "--dport", "5000:", "\u00b2", "9" * 5000, "-d", "239.1.2.3/99",
     "-j", "DROP", "mine", "-g", "TARPIT", "LOG", "-s", "", "\x00", "\udcff", "'", "--pkt-type", "--ctstate", "-i", "+"]
)  # fmt: skip


@given(st.lists(OPTIONS | st.text(max_size=4), max_size=12).map(" ".join))
def test_any_text_of_iptables_is_read(text: str) -> None:
    """Whatever the options are, and whatever the line is, no error comes of it."""
    head = "*filter\n:INPUT DROP [0:0]\n:mine - [0:0]\n"
    document = f"{head}[{'9' * 5000}:0] -A INPUT {text}\n-A INPUT {text}\n{text}\n"
    refusals("iptables", parse_iptables(document, 4), [DATAGRAM], [IGMP_QUERY], [IGMP_REPORT])


def test_an_unknown_target_of_iptables_may_drop() -> None:
    """A target of an extension that is not known here cannot be decided; one that is known to go on drops nothing."""
    for target, matches in (("TARPIT", [None]), ("LOG --log-prefix x", []), ("DROP", [True])):
        text = f"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p udp -j {target}\n"
        assert [each.matches for each in refusals("iptables", parse_iptables(text, 4), [DATAGRAM])] == matches


WORDS = st.sampled_from(
    ["match", "left", "right", "op", "==", "in", "<", "&", "payload", "protocol", "udp", "ip", "field", "daddr",
     "dport", "meta", "key", "iifname", "ct", "state", "fib", "result", "type", "flags", "concat", "set", "elem", "val",
     "range", "prefix", "addr", "len", "vmap", "data", "jump", "goto", "target", "drop", "accept", "counter", "packets",
     "limit", "xt", "@s", "c", "239.1.2.3", "*"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=20,
)
MATCH = st.fixed_dictionaries({"op": WORDS, "left": JSON, "right": JSON})
STATEMENT = st.sampled_from(["vmap", "jump", "counter", "match"])
# Expressions that are nearly right get further than random ones.
NEARLY = st.fixed_dictionaries({"match": MATCH}) | STATEMENT.flatmap(lambda name: st.fixed_dictionaries({name: JSON}))
HOOKED = {"family": "ip", "table": "t", "name": "c", "type": "filter", "hook": "input", "policy": "accept"}


def judged(expressions: object, **others: object) -> list[Truth]:
    """Whether the only rule of a chain drops a datagram; empty if it certainly drops nothing at all."""
    rule = {"family": "ip", "table": "t", "chain": "c", "handle": 1, "expr": expressions}
    document = json.dumps(
        {"nftables": [{"chain": HOOKED}, {"rule": rule}, *({key: value} for key, value in others.items())]}
    )
    return [each.matches for each in refusals("nftables", parse_nftables(document, ""), [DATAGRAM], [IGMP_QUERY])]


@settings(max_examples=300)
@given(st.lists(NEARLY | JSON, max_size=4) | JSON, JSON, JSON)
def test_any_json_of_nftables_is_read(expressions: object, elements: object, item: object) -> None:
    """Whatever nft prints for a rule, a set or an item, no error comes of it."""
    judged(
        expressions, set={"family": "ip", "table": "t", "name": "s", "elem": elements}, chain=item, rule=item, map=item
    )


@given(JSON)
def test_a_document_of_another_form_is_refused(document: object) -> None:
    """What is no list of rules is a ValueError, and nothing else."""
    with pytest.raises(ValueError, match=r"\S"):
        parse_nftables(json.dumps(document), "")


@pytest.mark.parametrize(
    "expressions",
    [
        [{"news": {}}, {"drop": None}],
        [{"xt": {"type": "target", "name": "TARPIT"}}],
        [{"match": {"op": "in", "left": [1], "right": {}}}, {"drop": None}],
        [{"match": {"op": "==", "left": {"&": [1]}, "right": 1}}, {"drop": None}],
        [{"match": {"op": "==", "left": {"payload": {"protocol": [], "field": "dport"}}, "right": 1}}, {"drop": None}],
        [{"jump": {"target": 7}}],
        [{"vmap": {"key": {"meta": {}}, "data": {"set": [[1, {"drop": None}]]}}}],
        [{"vmap": 3}],
        [{"drop": None, "accept": None}],
        "drop",
    ],
)
def test_unknown_forms_cannot_be_decided(expressions: object) -> None:
    """A statement that is not known may or may not drop the packet."""
    assert None in judged(expressions)
    assert True not in judged(expressions)


def decided(passes: bool) -> Test:
    """A test that holds for every packet, or for none."""
    return lambda packet: passes


VERDICTS: list[Verdict] = ["drop", "accept", "return", "jump", "goto"]
STEPS = st.tuples(st.booleans(), st.sampled_from(VERDICTS), st.integers(1, 3))
RULE_SETS = st.lists(st.lists(st.lists(STEPS, min_size=1, max_size=2), max_size=5), min_size=5, max_size=5)


def followed(chains: dict[str, Chain], name: str) -> tuple[str, tuple[str, int] | None]:
    """Follow a packet as the kernel does: how it ends (`leaves`: at the chain's end), and the rule that drops it."""
    for number, rule in enumerate(chains[name].rules):
        for step in rule.steps:
            if not step.test(DATAGRAM):
                continue
            if step.verdict == "drop":
                return "drop", (name, number)
            if step.verdict in ("accept", "return"):
                return ("accept" if step.verdict == "accept" else "leaves"), None
            end, place = followed(chains, step.chain)
            if end != "leaves" or step.verdict == "goto":
                return end, place
    return "leaves", None


@settings(max_examples=300)
@given(RULE_SETS, st.booleans())
def test_chains_are_followed_as_by_the_kernel(
    rule_sets: list[list[list[tuple[bool, Verdict, int]]]], drops: bool
) -> None:
    """Where all tests can be decided, exactly the rule is found at which a packet ends."""
    chains = {}
    for place, rules in enumerate(rule_sets):
        made = [
            tuple(
                # Jumps lead on to one of the next chains, so that there is no circle.
                Step(decided(passes), verdict, str(place + ahead))
                if verdict in ("jump", "goto") and place + ahead < len(rule_sets)
                else Step(decided(passes), "accept" if verdict in ("jump", "goto") else verdict)
                for passes, verdict, ahead in rule
            )
            for rule in rules
        ]
        texts = [ChainRule(f"{place} {number}", steps) for number, steps in enumerate(made)]
        chains[str(place)] = Chain(str(place), texts, "input" if place == 0 else None, drops and place == 0)
    end, dropped_by = followed(chains, "0")
    expected = {chains[dropped_by[0]].rules[dropped_by[1]].text} if dropped_by else set()
    expected |= {"policy drop"} if end == "leaves" and drops else set()
    found = refusals("nftables", chains, [DATAGRAM])
    assert {each.text for each in found if each.matches} == expected
    assert all(each.matches is not None for each in found)


@pytest.mark.parametrize("order", [("perhaps", "certainly"), ("certainly", "perhaps")])
def test_a_chain_that_is_entered_twice(order: tuple[str, str]) -> None:
    """The most certain way into a chain counts, in whatever order the ways are found."""
    tests: dict[str, Test] = {"perhaps": lambda packet: None, "certainly": lambda packet: True}
    chains = {"sub": Chain("sub", [ChainRule("drop", (Step(tests["certainly"], "drop"),))])}
    for name in order:
        chains[name] = Chain(name, [ChainRule(name, (Step(tests[name], "jump", "sub"),))], "input")
    assert [each.matches for each in refusals("nftables", chains, [DATAGRAM])] == [True]


def big(chains: int, rules: int) -> str:
    """Rules of iptables in chains that each jump to several others; the last one drops."""
    lines = ["*filter", ":INPUT ACCEPT [0:0]", *(f":c{number} - [0:0]" for number in range(chains)), "-A INPUT -j c0"]
    for number in range(rules):
        here = number * chains // rules
        ahead = min(here + 1 + number % 7, chains - 1)
        lines.append(f"-A c{here} -p udp -m limit --limit 5/sec -j {f'c{ahead}' if ahead > here else 'DROP'}")
    return "\n".join([*lines, ""])


def test_many_jumps_take_no_time() -> None:
    """2,000 rules in 200 chains that jump to each other are followed in less than a second of computing."""
    chains = parse_iptables(big(200, 2000), 4)
    began = process_time()
    found = refusals("iptables", chains, [DATAGRAM], [IGMP_QUERY])
    assert process_time() - began < 1
    assert {(each.chain, each.matches, each.matches_queries) for each in found} == {("filter c199", None, False)}


@pytest.mark.parametrize("depth", [17, 5000])
def test_deep_jumps(depth: int) -> None:
    """However deep the chains lead, a drop at their end is found."""
    lines = ["*filter", ":INPUT ACCEPT [0:0]", *(f":c{number} - [0:0]" for number in range(depth)), "-A INPUT -j c0"]
    lines += [*(f"-A c{number} -j c{number + 1}" for number in range(depth - 1)), f"-A c{depth - 1} -j DROP"]
    found = refusals("iptables", parse_iptables("\n".join(lines), 4), [DATAGRAM])
    assert [each.matches for each in found] == [True]


def test_chains_in_a_circle() -> None:
    """The kernel accepts no circle; here it has an end, and what lies behind it cannot be decided."""
    text = "*filter\n:INPUT DROP [0:0]\n:a - [0:0]\n:b - [0:0]\n-A INPUT -j a\n-A a -j b\n-A b -j a\n"
    assert [each.matches for each in refusals("iptables", parse_iptables(text, 4), [DATAGRAM])] == [None]


# The kernel as the judge: rules are loaded, evaluated, and then tried with a datagram.

RULES = [
    "drop",
    "udp dport 5000 drop",
    "udp dport 5001 drop",
    "udp dport 5000-5010 drop",
    "udp dport { 53, 4990-5020 } drop",
    "udp dport != 5000 drop",
    "udp dport < 5000 drop",
    "udp dport >= 5000 drop",
    "tcp dport 5000 drop",
    "th dport 5000 drop",
    "udp sport 1-65535 drop",
    "meta l4proto udp drop",
    "meta l4proto { tcp, igmp } drop",
    "meta l4proto != udp drop",
    "ip protocol udp drop",
    "ip6 nexthdr udp drop",
    "meta pkttype multicast drop",
    "meta pkttype { host, broadcast } drop",
    "fib daddr type multicast drop",
    "fib daddr type local drop",
    "ip daddr 224.0.0.0/4 reject",
    "ip daddr 239.1.2.0-239.1.2.9 drop",
    "ip daddr & 255.0.0.0 == 239.0.0.0 drop",
    "ip daddr != 239.1.2.3 drop",
    "ip6 daddr ff00::/8 drop",
    "ip saddr 10.1.0.0/24 drop",
    "ip saddr != 10.1.0.0/24 drop",
    "ip saddr . udp dport { 10.1.0.2 . 5000 } drop",
    "ip6 saddr fd01::2 drop",
    "ct state new drop",
    "ct state established,related drop",
    "ct state vmap { new : drop, established : accept }",
    "ct state invalid drop",
    'iifname "eth0" drop',
    'iifname "eth*" drop',
    'iifname != "eth0" drop',
    'iifname { "eth0", "eth1" } udp dport 5000 drop',
    'iif "lo" drop',
    'oifname "eth0" drop',
    "meta nfproto ipv4 drop",
    "ether daddr 01:00:5e:01:02:03 drop",
    "ether type ip6 drop",
    "meta mark 0 drop",
    "udp length > 9 drop",
    "ip ttl > 100 drop",
]
# What ends, or does not end, a packet's way through a chain.
ENDING = [
    "udp dport vmap { 5000 : jump sub, 5001 : drop }",
    "udp dport 5000 jump sub",
    "udp dport 5000 goto sub",
    "udp dport 5000 accept; drop",
    "udp dport 5001 accept; drop",
    "udp dport 5000 return; drop",
    'iifname "eth0" accept',
    'iifname != "eth0" accept',
    "ct state established accept",
    "ct state new accept",
    "ip saddr 10.1.0.2 accept",
    "limit rate 1000/second accept; drop",
]
RULES += ENDING
UNDECIDED = {rule for rule in RULES if any(word in rule for word in ("sport", "mark", "length", "ttl", "limit"))}
"""Rules on what is not known beforehand of a packet."""


@pytest.fixture(scope="module")
def cabled() -> Iterator[Stage]:
    """A listener that is joined by a cable to a talker."""
    with stage() as made:
        made.cable()
        yield made


@pytest.mark.skipif(lab_unavailable() is not None, reason=f"no multicast lab: {lab_unavailable()}")
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("rule", "policy"),
    [(rule, "accept") for rule in RULES] + [pytest.param(rule, "drop", marks=pytest.mark.slow) for rule in ENDING],
)
def test_the_kernel_agrees(cabled: Stage, rule: str, policy: str, version: int) -> None:
    """What is said to be refused does not arrive, and what is said not to be does."""
    group, source = (GROUP, TALKER) if version == 4 else (GROUP6, TALKER6)
    host = cabled.listener
    jumped = "chain sub { meta l4proto igmp drop; udp dport 4000-6000 drop; }"
    rules = f"chain judge {{ type filter hook input priority 0; policy {policy}; {rule}; }}"
    host.command("nft", "-f", "-", stdin=f"table inet tried {{\n{jumped}\n{rules}\n}}\n")
    try:
        written, listed = host.command("nft", "-j", "list", "ruleset"), host.command("nft", "-a", "list", "ruleset")
        packet = Packet(ip_address(group), "eth0", UDP, ip_address(source), PORT)
        verdicts = [each.matches for each in refusals("nftables", parse_nftables(written, listed), [packet])]
        arrives = arrived(cabled, version, group, 5.0 if all(each is False for each in verdicts) else 0.05)
    finally:
        host.command("nft", "delete", "table", "inet", "tried")
    if True in verdicts:
        assert not arrives, verdicts
    elif None not in verdicts:
        assert arrives, verdicts
    assert None not in verdicts or rule in UNDECIDED


def arrived(cabled: Stage, version: int, group: str, patience: float) -> bool:
    """Send a datagram and return whether the listener gets it."""
    host, talker = cabled.listener, cabled.talker.interface("eth0")
    with udp_socket(host, version, (group, PORT)) as receiver, sender_on(talker, version) as sender:
        join(receiver, group, host.interface("eth0").index())
        sender.sendto(b"judge", (group, PORT))
        receiver.settimeout(patience)
        try:
            return receiver.recv(100) == b"judge"
        except TimeoutError:
            return False
