"""The path of the target's packets: what is known of each station, and how it is shown."""

from dataclasses import replace
from typing import Any

import pytest

from doctor.hand_made import ETH0, LO, OWN, arrivals, deaf, frames, healthy, socket
from doctor.stage import GROUP, PORT, TALKER
from multicast_expert.cli.render.path import path_lines
from multicast_expert.doctor.facts import Drop, Unread
from multicast_expert.doctor.judgement import judge
from multicast_expert.doctor.path.endings import by_check
from multicast_expert.doctor.path.sending import left
from multicast_expert.doctor.path.stations import RECEIVING, SENDING, place_of
from multicast_expert.doctor.path.trace import Step, trace
from multicast_expert.doctor.saved import facts_from_text, facts_to_text


def drop(reason: str = "IP_RPFILTER", function: str = "ip_rcv_finish_core", count: int = 100, **changes: Any) -> Drop:
    """What the kernel dropped of the target."""
    return replace(Drop(reason, function, "eth0", GROUP, PORT, TALKER, False, count), **changes)


def came(path: tuple[Step, ...]) -> dict[str, int | None]:
    """How many packets came to the stations."""
    return {step.station: step.came for step in path}


def test_packets_that_end() -> None:
    """What ended at a station is missing behind it, and the station is marked."""
    path = trace(deaf(frames=(frames(100),), drops=(drop(count=70), drop("UDP_CSUM", "__udp4_lib_rcv", 30))))
    assert [step.station for step in path] == [each for each in RECEIVING if each != "elsewhere"]
    found = came(path)
    assert (found["wire"], found["IP"], found["input"], found["UDP"], found["socket"], found["program"]) == (
        100, 100, 30, 30, 0, 0,
    )  # fmt: skip
    (end,) = [step for step in path if step.is_end]
    assert (end.station, end.ended, end.known_by) == ("IP", 70, "kernel verdict")
    assert end.reasons == ("reverse path: 70 IP_RPFILTER in ip_rcv_finish_core on eth0",)


def test_only_the_targets_packets() -> None:
    """Drops of another group, port, source or interface, and those of an unknown group, are not the target's."""
    others = (
        drop(group="239.9.9.9"), drop(port=PORT + 1), drop(interface="eth7"), drop(source="10.1.0.9"),
    )  # fmt: skip
    path = trace(healthy(source=TALKER, drops=others))
    assert not any(step.ended for step in path)
    unknown = trace(healthy(drops=(drop(group=None, port=None, source=None, interface=None),)))
    assert {step.known_by for step in unknown if step.station == "IP"} == {"not known"}


def test_the_socket_of_another_program() -> None:
    """What a program's socket loses is named with the program, and is not missing in our own copy."""
    path = trace(healthy(drops=(drop("SOCKET_RCVBUFF", "udp_queue_rcv_one_skb", 60, socket=77),), sockets=(socket(),)))
    (end,) = [step for step in path if step.is_end]
    assert (end.station, end.ended) == ("socket", 60)
    found = came(path)
    assert (found["wire"], found["UDP"], found["socket"], found["program"]) == (100, 100, 100, 100)
    assert end.reasons[0].endswith("socket of player (4711)")


def test_losses_of_other_programs_are_not_the_targets() -> None:
    """A full buffer is the target's own where no program is known to hold the socket."""
    dropped = (drop("SOCKET_RCVBUFF", "udp_queue_rcv_one_skb", 60, socket=77),)
    assert by_check(healthy(drops=dropped, sockets=(socket(),))) == {}
    assert by_check(healthy(drops=dropped, sockets=())) == {"receive-buffer": 60}


def test_what_leaves_a_vlan_has_left_below() -> None:
    """Frames without a tag on the VLAN's own interface have not left yet; those with it, on the one below, have."""
    vlan = replace(ETH0, name="eth0.5", kind="vlan", parent="eth0")
    sent = replace(frames(10, interface="eth0.5"), sender=OWN, outgoing=True)
    facts = healthy(
        interfaces=(LO, replace(ETH0, addresses=(), chosen=False), vlan),
        frames=(sent, replace(sent, interface="eth0", vlan=5, count=7)),
    )
    assert left(facts) == 7


def test_without_the_verdict() -> None:
    """Then frames and the program tell the two ends, and what is between is not known."""
    path = trace(healthy(drops=Unread("Only root can.")))
    assert (came(path)["wire"], came(path)["program"]) == (100, 100)
    assert {step.known_by for step in path[1:-1]} == {"not known"}
    assert {step.came for step in path[1:-1]} == {None}
    blind = trace(healthy(drops=Unread("Only root can."), frames=Unread("Only root can.")))
    assert (came(blind)["wire"], came(blind)["program"]) == (None, 100)
    assert trace(replace(healthy(), trial=Unread("no"))) == ()


def test_what_this_host_sends() -> None:
    """A sender's path begins at the program and ends on the wire."""
    sent = drop("NETFILTER_DROP", "nft_do_chain", 40, outgoing=True, hook="output")
    path = trace(healthy(arrivals=(), frames=(frames(10, outgoing=True),), drops=(sent,)))
    out = tuple(step for step in path if step.outgoing)
    assert [step.station for step in out] == [each for each in SENDING if each != "elsewhere"]
    assert (came(out)["program"], came(out)["output"], came(out)["postrouting"], came(out)["wire"]) == (50, 50, 10, 10)
    assert [step.station for step in path if step.is_end] == ["output"]


def test_an_unknown_function() -> None:
    """A function and a reason that no table has are somewhere in the kernel, by their names."""
    assert place_of(drop("NOT_SPECIFIED", "brand_new")) == ("elsewhere", "brand_new")
    assert place_of(drop("0x70005", "br_new_function")).station == "bridge"
    path = trace(deaf(drops=(drop("NOT_SPECIFIED", "brand_new"),)))
    assert [step.station for step in path if step.is_end] == ["elsewhere"]


@pytest.mark.parametrize("width", [40, 80])
def test_the_picture(width: int) -> None:
    """No line is wider than the terminal; the end is marked; a way without a loss is one line."""
    report = judge(deaf(frames=(frames(100),), drops=(drop(),)))
    lines = [line.plain for line in path_lines(report.path, width)]
    assert max(map(len, lines)) <= width
    assert [line for line in lines if line.startswith(">")] == [f"> {'IP':<17}{100:>8}"]
    assert lines[-1] == f"  {'program':<17}{0:>8}"
    fine = [line.plain for line in path_lines(judge(healthy(drops=())).path, width)]
    assert " ".join(" ".join(fine).split()) == "Into this host: wire 100 > program 100, nothing dropped"


def test_saved_and_as_json() -> None:
    """The verdict is among the saved facts, and the path in the JSON form."""
    facts = deaf(frames=(frames(100),), drops=(drop(hook="input", socket=7),), arrivals=())
    assert facts_from_text(facts_to_text(facts)) == facts
    (end,) = [each for each in judge(facts).as_dict()["path"] if each["is_end"]]
    assert (end["station"], end["direction"], end["came"], end["ended"]) == ("input", "in", 100, 100)
    assert arrivals().count == came(trace(healthy(drops=())))["program"]
