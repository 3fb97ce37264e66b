"""What a bridge shows: lines, JSON and metrics, for a status that is made up; and how Zenoh is set up."""

from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from multicast_expert.bridge.bridge import Bridge
from multicast_expert.bridge.interest import Group, Wish
from multicast_expert.bridge.ledger import Ledger
from multicast_expert.bridge.network import Connection, ZenohNetwork, read_locator
from multicast_expert.bridge.status import GroupStatus, SiteStatus, Status
from multicast_expert.cli import terminal
from multicast_expert.cli.bridge import _View
from multicast_expert.cli.render.bridge import (
    Rates,
    bridge_families,
    drops_of,
    rates_between,
    status_lines,
    status_object,
)
from multicast_expert.core.errors import MulticastExpertError

VIDEO, VOICE = Group(ip_address("239.1.2.3"), 5000), Group(ip_address("ff15::1234"), 6000)
LEDGER = Ledger(
    taken=1100, published=1000, arrived=50, delivered=40, lost=7, kernel_drops=3,
    taking_drops=Counter({"hop limit": 100}), sending_drops=Counter({"duplicate": 10}),
)  # fmt: skip
STATUS = Status(
    "00" * 8,
    True,
    True,
    ["tcp/192.0.2.1:7447"],
    [
        SiteStatus("11" * 8, "plant", False, True, 0.0123, [Wish(VIDEO), Wish(VOICE, ip_address("fd00::7"))]),
        SiteStatus("22" * 8, "office\x1b", True, False, None, []),
    ],
    [GroupStatus(VIDEO, True, ["plant"], False, LEDGER), GroupStatus(VOICE, False, list("abcd"), True, Ledger())],
    2,
    ["239.1.2.3:5000: no memory"],
)


def test_the_lines() -> None:
    """Sites with delays and wishes, groups with rates, drops by cause, and what is wrong; no control characters."""
    lines = [each.plain for each in status_lines("here", STATUS, {str(VIDEO): Rates(1000.0, 40.0)})]
    assert lines == [
        "here speaks, 2 other sites",
        "  plant        12.3 ms  wants 239.1.2.3:5000, fd00::7@[ff15::1234]:6000",
        "  office\\x1b            wants nothing, on this network",
        "GROUP                       OUT/s     IN/s  WANTED BY",
        "239.1.2.3:5000                1 k       40  this site, plant",
        "  dropped: 100 hop limit, 10 duplicate, 7 lost on the way, 3 kernel",
        "  hop limit: send with a higher TTL, or give --ttl",
        "[ff15::1234]:6000               0        0  a, b, c and 1 more  stopped: another relay brings it back",
        "2 wanted groups not carried: not allowed, or no room",
        "239.1.2.3:5000: no memory",
    ]
    alone = STATUS._replace(speaking=False, sites=[], groups=[], refused_groups=0, problems=[])
    assert [each.plain for each in status_lines("x", alone, {})] == [
        "x stands by for another bridge on this network, no other site"
    ]
    early = alone._replace(is_settled=False)
    assert [each.plain for each in status_lines("x", early, {})] == [
        "x listens for other bridges on this network, no other site"
    ]


def test_a_narrow_terminal_is_redrawn_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cursor goes up by as many rows as were written."""
    monkeypatch.setattr(terminal, "can_redraw", lambda _: True)
    monkeypatch.setattr(terminal, "size", lambda _: (40, 24))
    view = _View(cast("Bridge", SimpleNamespace(status=lambda: STATUS)), "here", False, None)
    view.show()
    rows = capsys.readouterr().out.splitlines()
    view.show()
    assert max(map(len, rows)) <= 40
    assert capsys.readouterr().out.startswith(f"\x1b[{len(rows)}F\x1b[J")


def test_rates_are_of_the_time_between() -> None:
    """Of a group that is new, too."""
    before = STATUS._replace(groups=[GroupStatus(VIDEO, True, [], False, Ledger(published=800, delivered=40))])
    assert rates_between(before, STATUS, 2.0) == {str(VIDEO): Rates(100.0, 0.0), str(VOICE): Rates(0.0, 0.0)}
    assert drops_of(Ledger()) == {}


def test_the_object() -> None:
    """All counts have their names."""
    told = status_object(1.5, "here", STATUS, {})
    assert told["sites"][0]["wants"] == ["239.1.2.3:5000", "fd00::7@[ff15::1234]:6000"]
    group = told["groups"][0]
    assert (group["taken"], group["taking_drops"], group["kernel_drops"]) == (1100, {"hop limit": 100}, 3)


def test_the_metrics() -> None:
    """A count for each group and cause, sites and delays."""
    found: dict[str, Any] = {each.name: dict(each.samples) for each in bridge_families(STATUS)()}
    video = ("239.1.2.3", "5000")
    assert found["mcast_bridge_published_datagrams_total"][video] == 1000
    assert found["mcast_bridge_dropped_datagrams_total"] == {
        (*video, "out", "hop limit"): 100,
        (*video, "in", "duplicate"): 10,
    }
    assert found["mcast_bridge_stopped"] == {video: 0, ("ff15::1234", "6000"): 1}
    assert found["mcast_bridge_site_delay_seconds"] == {("plant", "11" * 8): 0.0123}
    assert found["mcast_bridge_sites"] == {(): 2}


def settings_of(connection: Connection) -> Any:
    """Zenoh's settings for a connection, without opening anything."""
    zenoh = pytest.importorskip("zenoh", reason="eclipse-zenoh is not installed")
    network = object.__new__(ZenohNetwork)
    network._zenoh = zenoh
    return network._configured(connection)


def test_zenoh_looks_for_nobody_unless_it_is_asked(tmp_path: Path) -> None:
    """No scouting by multicast, and it listens nowhere, unless a file or an option says so."""
    usual = settings_of(Connection(connect=["tcp/192.0.2.1:7447"]))
    assert usual.get_json("scouting/multicast/enabled") == "false"
    assert usual.get_json("scouting/gossip/enabled") == "false"
    assert usual.get_json("listen/endpoints") == "[]"
    file = tmp_path / "zenoh.json5"
    file.write_text('{mode: "peer", listen: {endpoints: ["tcp/127.0.0.1:1"]}, /* why */ }')
    told = settings_of(Connection(config=str(file)))
    assert told.get_json("mode") == '"peer"'
    assert told.get_json("listen/endpoints") == '["tcp/127.0.0.1:1"]'
    assert told.get_json("scouting/multicast/enabled") == "false"
    file.write_text("{scouting: {multicast: {enabled: true}}}")
    told = settings_of(Connection(config=str(file)))
    assert told.get_json("scouting/multicast/enabled") == "true"
    assert told.get_json("listen/endpoints") == "[]"


@pytest.mark.parametrize(
    "text",
    [
        "tcp/192.0.2.1:7447",
        "tls/[fd00::1]:7447",
        "udp/host.example:7447?rel=0#iface=eth0",
        "unixsock-stream//run/zenoh.sock",
        "vsock/-1:1234",
        "serial//dev/ttyS0#baudrate=115200",
    ],
)
def test_locators(text: str) -> None:
    """Every form that Zenoh knows is one."""
    assert read_locator(text) == text


@pytest.mark.parametrize("text", ["192.0.2.1:7447", "tcp/192.0.2.1", "tls/[fd00::1]", "tcp/", "tcp/a:1 b", "TCP/a:1"])
def test_no_locators(text: str) -> None:
    """Nor what lacks its protocol, or its port."""
    with pytest.raises(ValueError, match=r"is no locator such as tcp/192\.0\.2\.1:7447"):
        read_locator(text)


BOUND = "Zenoh cannot start: Can not create a new TCP listener bound to"


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        (Connection(config="/nowhere.json5"), "There is no file /nowhere.json5."),
        (Connection(connect=["tls/a:1"], trust="/nowhere.pem"), "There is no file /nowhere.pem."),
        (Connection(listen=["nonsense"]), "'nonsense' is no locator such as tcp/192.0.2.1:7447."),
        (
            Connection(listen=["tcp/192.0.2.99:7447"]),
            f"{BOUND} tcp/192.0.2.99:7447: 192.0.2.99:7447: Cannot assign requested address.",
        ),
        (
            Connection(listen=["tcp/[fd99::99]:7447"]),
            f"{BOUND} tcp/[fd99::99]:7447: [fd99::99]:7447: Cannot assign requested address.",
        ),
    ],
)
def test_what_zenoh_cannot_do_is_an_error_of_this_library(connection: Connection, message: str) -> None:
    """A file that is not there, a locator that is none, an address of another host."""
    pytest.importorskip("zenoh", reason="eclipse-zenoh is not installed")
    with pytest.raises(MulticastExpertError) as caught:
        ZenohNetwork(connection)
    assert str(caught.value) == message
