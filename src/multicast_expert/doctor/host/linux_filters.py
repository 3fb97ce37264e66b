"""Reads the filters of traffic control from netlink messages, with the packets that their actions got. Pure.

The numbers are those of the kernel's linux/pkt_cls.h, rtnetlink.h, gen_stats.h, tc_act/tc_mirred.h and tc_gact.h.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from struct import Struct

from multicast_expert.doctor.facts import FilterFacts, QueueFacts
from multicast_expert.system.netlink import attributes, number_of, request

_DUMP, _GET_FILTERS = 0x300, 46
_TRAFFIC = Struct("=BxxxiIII")
_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
# Where each kind of filter has its list of actions.
_ACTIONS = {
    "u32": 7, "flower": 3, "bpf": 1, "matchall": 2, "basic": 3, "fw": 4, "cgroup": 1, "flow": 9, "route": 6,
}  # fmt: skip
_BPF_FLAGS, _DIRECT = 8, 1
# struct tc_mirred and tc_gact begin with five numbers, of which the third is the verdict.
_GENERIC = Struct("=IIiii")
_MIRRED = Struct("=iI")
_MIRRED_WAYS = {1: "egress redirect", 2: "egress mirror", 3: "ingress redirect", 4: "ingress mirror"}
_VERDICTS = {2: "drop", 4: "stolen", 5: "queued", 7: "redirect", 8: "trap"}
_COUNT = Struct("=QI")
_REWRITING = ("pedit", "nat", "vlan", "tunnel_key", "mpls", "skbmod", "ct")


def filters_requests(queues: tuple[QueueFacts, ...], indexes: Mapping[str, int]) -> Iterator[tuple[bytes, str]]:
    """Yield the requests for the filters of these queues, and the hook that each is about."""
    for queue in queues:
        places = [(queue.handle << 16, "queue")]
        if queue.is_ingress:
            places = [(_INGRESS, "ingress")] + [(_EGRESS, "egress")] * (queue.kind == "clsact")
        for parent, hook in places:
            if queue.interface in indexes:
                yield request(_GET_FILTERS, _DUMP, _TRAFFIC.pack(0, indexes[queue.interface], 0, parent, 0)), hook


def parse_filter(body: bytes, hook: str, names: Mapping[int, str]) -> Iterator[FilterFacts]:
    """Yield the actions of the filter in an RTM_NEWTFILTER message, and itself if it is a program; none if cut."""
    if len(body) < _TRAFFIC.size:
        return
    _, index, handle, _, info = _TRAFFIC.unpack_from(body)
    found = attributes(body, _TRAFFIC.size)
    kind = _text(found.get(1, b""))
    options = attributes(found.get(2, b""))
    place = names.get(index, str(index)), hook, kind, info >> 16
    if kind == "bpf" and (number_of(options.get(_BPF_FLAGS)) or 0) & _DIRECT:
        yield FilterFacts(*place, "bpf", None, None, handle)
    for action in attributes(options.get(_ACTIONS.get(kind, 0), b"")).values():
        parts = attributes(action)
        text, diverts = _action(_text(parts.get(1, b"")), attributes(parts.get(2, b"")), names)
        counts = attributes(parts.get(4, b"")).get(1, b"")
        packets = _COUNT.unpack_from(counts)[1] if len(counts) >= _COUNT.size else None
        yield FilterFacts(*place, text, diverts, packets, handle)


def _action(kind: str, options: Mapping[int, bytes], names: Mapping[int, str]) -> tuple[str, bool | None]:
    """Return an action as tc(8) writes it, and whether packets go no further."""
    values = options.get(2, b"")
    if kind == "mirred" and len(values) >= _GENERIC.size + _MIRRED.size:
        way, index = _MIRRED.unpack_from(values, _GENERIC.size)
        text = _MIRRED_WAYS.get(way, str(way))
        return f"mirred {text} dev {names.get(index, index)}", "redirect" in text
    if kind == "bpf":
        return "bpf", None
    if kind == "gact" and len(values) >= _GENERIC.size:
        verdict = _GENERIC.unpack_from(values)[2]
        return f"gact {_VERDICTS.get(verdict, verdict)}", verdict in _VERDICTS
    return kind, None if kind in _REWRITING else False


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("ascii", "replace")
