"""The commands that the doctor prints are applied, for the checks that have no cured row in the proof."""

import ast
import inspect
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from doctor.command import arriving, doctor, run
from doctor.faults import FAULTS
from doctor.stage import ENDPOINT, ENDPOINT6, GROUP, GROUP6, PORT, Arguments, Stage, stage
from drops.conftest import verdict_unavailable
from drops.faults import nftables
from multicast_expert.doctor import checks
from multicast_expert.system import netlink
from multicast_expert.system.drops.assembler import R0, Assembler
from multicast_expert.system.drops.bpf import Bpf
from multicast_expert.system.linux import ask
from multicast_expert.testing import Host, lab_unavailable

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(lab_unavailable() is not None, reason=f"no multicast lab: {lab_unavailable()}"),
]

SENT = 40
"""How many datagrams a sender of the lab sends in a second."""


def talking(made: Stage, group: str = GROUP, **settings: object) -> Arguments:
    """The talker sends to the group; the arguments ask for it."""
    made.talker.send_datagrams(group, PORT, interface="eth0", **settings)  # type: ignore[arg-type]
    return [ENDPOINT if group == GROUP else ENDPOINT6]


def xdp_program(made: Stage) -> Arguments:
    """A program that another one loaded drops all packets, and stays on the interface."""
    if reason := verdict_unavailable():
        pytest.skip(f"no program of BPF: {reason}")
    made.cable()
    bpf = Bpf()
    code = Assembler()
    code.compute(R0, "=", 1)  # XDP_DROP
    code.exit()
    program = bpf.load(6, code.assemble(), 37)
    with made.listener.entered():
        index = socket.if_nametoindex("eth0")
        # IFLA_XDP with its descriptor and XDP_FLAGS_SKB_MODE, as `ip link set dev eth0 xdpgeneric` does it.
        inside = netlink.attribute(1, struct.pack("=I", program)) + netlink.attribute(3, struct.pack("=I", 2))
        head = struct.pack("=BxHiII", 0, 0, index, 0, 0)
        ask(netlink.request(netlink.RTM_NEWLINK, 4, head + netlink.attribute(43, inside)))
    bpf.close()
    return talking(made)


def traffic_control(made: Stage) -> Arguments:
    """A filter at the ingress drops all packets."""
    made.cable()
    made.listener.command("tc", "qdisc", "add", "dev", "eth0", "clsact")
    # One instruction: return 2, which is TC_ACT_SHOT.
    words = ["filter", "add", "dev", "eth0", "ingress", "protocol", "ip", "prio", "1", "bpf", "da", "bytecode"]
    made.listener.command("tc", *words, "1,6 0 0 2")
    return talking(made)


def translated(made: Stage) -> Arguments:
    """A rule sends all UDP elsewhere."""
    made.cable()
    rule = "type nat hook prerouting priority -100; udp dport 5000 dnat to 10.1.0.1:6000"
    made.listener.command("nft", "-f", "-", stdin=f"table ip nat {{\nchain prerouting {{\n{rule}\n}}\n}}\n")
    return talking(made)


def ipsec(made: Stage) -> Arguments:
    """A policy blocks the group."""
    made.cable()
    made.listener.ip(f"xfrm policy add dir in src 0.0.0.0/0 dst {GROUP}/32 action block")
    return talking(made)


def fragments(made: Stage) -> Arguments:
    """There is no memory for fragments."""
    made.cable()
    for limit in ("low", "high"):
        made.listener.set_sysctl(f"net/ipv4/ipfrag_{limit}_thresh", 1)
    return talking(made, size=3000)


def group_route_missing(made: Stage) -> Arguments:
    """The route for groups is missing."""
    made.cable()
    made.listener.command("ip", "-6", *["route", "del", "multicast", "ff00::/8", "dev", "eth0", "table", "local"])
    return talking(made, GROUP6)


def group_route_rejected(made: Stage) -> Arguments:
    """A rule before all others rejects the group."""
    made.cable()
    for rule in ("add pref 5 lookup local", "del pref 0", f"add pref 1 to {GROUP6} prohibit"):
        made.listener.command("ip", "-6", "rule", *rule.split())
    return talking(made, GROUP6)


def bridge_port(made: Stage) -> Arguments:
    """The port of a bridge is closed."""
    made.cable()
    made.listener.put_into_bridge("eth0", snooping=False)
    made.listener.command("bridge", "link", "set", "dev", "eth0", "state", "0")
    return talking(made)


def edge_of_netfilter(made: Stage) -> Arguments:
    """A rule at the ingress of the interface drops UDP."""
    made.cable()
    nftables(made.listener, "netdev", "ingress", "device eth0")
    return talking(made)


def ipv6_disabled(made: Stage) -> Arguments:
    """IPv6 is switched off."""
    made.cable()
    made.talker.send_datagrams(GROUP6, PORT, interface="eth0")
    made.listener.disable_ipv6("eth0")
    return [ENDPOINT6, "-i", "eth0"]


CURES: dict[str, list[Callable[[Stage], Arguments]]] = {
    "xdp": [xdp_program],
    "traffic-control": [traffic_control],
    "nat": [translated],
    "ipsec": [ipsec],
    "fragments": [fragments],
    "group-route": [group_route_missing, group_route_rejected],
    "bridge-port": [bridge_port],
    "firewall": [edge_of_netfilter],
    "interface-address": [ipv6_disabled],
}
NOT_APPLIED = {
    "receive-buffer": "the setting is one of the whole machine, and the report says that the program must ask for more",
    "wrong-interface": "not every kernel of a lab has VLAN interfaces",
}
"""Checks that print a command which no test applies, and why."""
CASES = [
    pytest.param(check, build, id=f"{check}: {build.__name__}") for check, builds in CURES.items() for build in builds
]


def apply(host: Host, commands: list[str]) -> None:
    """Run the commands in a shell, as a user pastes them."""
    for command in commands:
        done = run(host, ["sh", "-c", command])
        assert done.returncode == 0, f"{command}: {done.stderr}"


@pytest.mark.parametrize(("check", "build"), CASES)
def test_the_commands_work(check: str, build: Callable[[Stage], Arguments]) -> None:
    """After the commands the datagrams arrive, and the doctor finds nothing wrong any more."""
    with stage() as made:
        arguments = build(made)
        said = doctor(made.listener, arguments, made.seconds)
        assert said.cause == check, said.weighty
        commands = [line for line in said.finding["remedy"] if not line.endswith(".")]
        assert commands, said.weighty
        apply(made.listener, commands)
        if any("forget the running translation" in line for line in said.finding["remedy"]):
            # As is said beforehand: a running stream stays translated. A new one does not.
            made.talker.programs.close()
            made.talker.send_datagrams(GROUP, PORT, interface="eth0")
        wanted = round(made.seconds * SENT)
        assert arriving(made.listener, arguments, wanted, made.seconds + 5) == wanted, commands
        healthy = doctor(made.listener, arguments, made.seconds)
        assert (healthy.status, healthy.report["verdict"]) == (0, "ok"), healthy.weighty


def test_a_privileged_port() -> None:
    """The command that lowers the limit lets a program without privileges receive."""
    with stage() as made:
        made.cable()
        made.talker.send_datagrams(GROUP, 500, interface="eth0")
        arguments = [f"{GROUP}:500"]
        said = doctor(made.listener, arguments, made.seconds, privileged=False)
        assert said.cause == "privileged-port", said.weighty
        apply(made.listener, [line for line in said.finding["remedy"] if not line.endswith(".")])
        healthy = doctor(made.listener, arguments, made.seconds, privileged=False)
        assert (healthy.status, healthy.report["verdict"]) == (0, "ok"), healthy.weighty


def _calls(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id
        elif isinstance(each, ast.Attribute):
            yield each.attr


_WORDS = ("ip ", "tc ", "bridge ", "nft ", "iptables", "sysctl ", "sudo sysctl", "ethtool ")


def prints_a_command(check: Callable[..., object]) -> bool:
    """Whether a check, or a function of its file that it uses, makes a command: by its words, or by `set_command`."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(check)))  # type: ignore[arg-type]
    functions = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    pending, seen = [check.__name__], set[str]()
    while pending:
        name = pending.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        body = functions[name].body
        documented = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
        for statement in body[1:] if documented else body:
            used = set(_calls(statement))
            texts = [each.value for each in ast.walk(statement) if isinstance(each, ast.Constant)]
            if "set_command" in used or any(isinstance(text, str) and text.startswith(_WORDS) for text in texts):
                return True
            pending += used
    return False


def test_every_check_that_prints_a_command_has_a_set_up() -> None:
    """No check gets a command whose effect no test shows."""
    printing = {check.__name__.replace("_", "-") for check in checks.CHECKS if prints_a_command(check)}
    shown = {fault.causes[0] for fault in FAULTS if fault.cured} | set(CURES) | {"privileged-port"}
    assert printing - shown == set(NOT_APPLIED)
    assert set(CURES) - {"nat", "firewall"} <= printing
