"""The table of all recognisers, and the question that it answers. Pure: touches no OS."""

from __future__ import annotations

from typing import NamedTuple

from multicast_expert.wire.recognise.control import CONTROL
from multicast_expert.wire.recognise.discovery import DISCOVERY
from multicast_expert.wire.recognise.measuring import MEASURING
from multicast_expert.wire.recognise.media import MEDIA
from multicast_expert.wire.recognise.recogniser import Recogniser

# Of several that fit, the first one is right: content that is certain comes before content that needs a port.
RECOGNISERS: tuple[Recogniser, ...] = tuple(
    sorted((*MEASURING, *MEDIA, *CONTROL, *DISCOVERY), key=lambda each: not each.is_certain)
)


class Protocol(NamedTuple):
    """What a stream carries."""

    name: str
    detail: str = ""
    """What is in it; from the payload, so that it may hold any characters."""


def recognise(
    payload: bytes, port: int | None = None, group: str | None = None, earlier: bytes | None = None
) -> Protocol | None:
    """Return the protocol of a payload; None if it shows none.

    `port` and `group`: where the datagram went. `earlier`: the payload before it in the same stream.
    """
    for each in RECOGNISERS:
        detail = each.detail(payload)
        if detail is not None and (each.is_certain or _is_confirmed(each, payload, port, group, earlier)):
            return Protocol(each.name, detail)
    return None


def _is_confirmed(each: Recogniser, payload: bytes, port: int | None, group: str | None, earlier: bytes | None) -> bool:
    if port in each.ports or group in each.groups:
        return True
    return each.follows is not None and earlier is not None and each.follows(earlier, payload)
