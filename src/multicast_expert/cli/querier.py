"""`mcast querier`: asks the hosts of a network for their groups, where no router or switch does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from ipaddress import ip_address
from time import monotonic
from typing import Annotated

from multicast_expert.cli import terminal
from multicast_expert.cli.interruption import end_with_reader
from multicast_expert.cli.parameters import (
    InterfacesOption,
    JsonOption,
    Parameter,
    UsageError,
    command,
    one_of,
    seconds,
    some_seconds,
    whole,
)
from multicast_expert.cli.watch import show_happening, tell_more
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.observe.querier import QuerierSettings
from multicast_expert.observe.querying import Querying
from multicast_expert.observe.source import FrameSource
from multicast_expert.system.interfaces import scan_interfaces

_DEFAULT = QuerierSettings(3)


@command(
    """
    A switch with IGMP snooping forgets the receivers, about 260 seconds after a stream began, unless a querier asks for
    them. This one asks as RFC 3376 and RFC 3810 demand: it stays silent while a querier with a lower address is there,
    and takes over when that one is lost. Keep it running on one host, or on two for safety. It shows what happens, and
    needs root or CAP_NET_RAW. Its queries come from the interface's own addresses; without an IPv4 address from
    0.0.0.0, and then any other querier wins. The network card passes all groups while it runs, as in a router.
    """,
    ("mcast querier -i eth0", "Ask by IGMPv3 and MLDv2 until Ctrl-C"),
    ("mcast querier -i eth0 -4 --version 2", "For old devices that speak IGMPv2 only"),
    ("mcast querier -i eth0 --query-interval 30", "Ask more often, for switches that forget sooner"),
    excludes=("-4 -6", "-4 --mld-version", "-6 --version"),
)
def run(
    ifaces: InterfacesOption = (),
    only4: Annotated[bool, Parameter("-4, --ipv4", "IGMP only.")] = False,
    only6: Annotated[bool, Parameter("-6, --ipv6", "MLD only.")] = False,
    version: Annotated[str, Parameter("--version N", "2 or 3 of IGMP (default 3).", one_of("23"), "23")] = "3",
    mld_version: Annotated[str, Parameter("--mld-version N", "1 or 2 of MLD (default 2).", one_of("12"), "12")] = "2",
    interval: Annotated[
        float, Parameter("--query-interval SECONDS", "Between two general queries (default 125).", seconds)
    ] = _DEFAULT.interval,
    response: Annotated[
        float, Parameter("--response-time SECONDS", "For hosts to answer in (default 10).", seconds)
    ] = _DEFAULT.response_time,
    robustness: Annotated[
        int,
        Parameter("--robustness N", "How many queries in a row may get lost (default 2).", whole(1, 7)),
    ] = _DEFAULT.robustness,
    last_member: Annotated[
        float,
        Parameter("--last-member-interval SECONDS", "For members to answer in after a leave (default 1).", seconds),
    ] = _DEFAULT.last_member_interval,
    sources: Annotated[
        Sequence[str], Parameter("--source ADDRESS...", "Ask from it; one of IPv4, one of IPv6 (link-local).")
    ] = (),
    duration: Annotated[float | None, Parameter("--for SECONDS", "Stop after so long.", some_seconds)] = None,
    as_json: JsonOption = False,
) -> int:
    """Return 0 when the time is over."""
    wanted = {4: int(version), 6: int(mld_version)}
    versions = [number for number, only in ((4, only4), (6, only6)) if only] or list(wanted)
    try:
        settings = {
            each: QuerierSettings(wanted[each], interval, response, robustness, last_member) for each in versions
        }
    except ValueError as error:
        raise UsageError(f"{error}.") from None
    addresses = _addresses(sources, versions)
    chosen = list(ifaces) or [_only_interface().machine_name]
    with closing(FrameSource(chosen, all_groups=True)) as source:
        with closing(Querying(source, settings, addresses)) as querying:
            end_with_reader()
            _ask(source, querying, duration, as_json)
    return 0


def _addresses(texts: Sequence[str], versions: Sequence[int]) -> dict[int, str]:
    """Return the addresses to ask from, by version of IP."""
    found: dict[int, str] = {}
    for text in texts:
        try:
            address = ip_address(text)
        except ValueError:
            raise UsageError(f"--source {text}: this is no address.") from None
        if address.is_multicast or (address.version == 6 and not address.is_link_local):
            raise UsageError(f"--source {text}: queries come from a host's address, in IPv6 from a link-local one.")
        if address.version not in versions or address.version in found:
            raise UsageError(f"--source {text}: give one address for each version of IP that is asked.")
        found[address.version] = str(address)
    return found


def _only_interface() -> IfaceInfo:
    """Return the interface that is meant without -i: the only one to a network."""
    usable = [each for each in scan_interfaces() if each.is_up and each.supports_multicast and not each.is_localhost()]
    if len(usable) != 1:
        names = ", ".join(each.machine_name for each in usable)
        raise UsageError(f"Name the interface with -i: this host has {names or 'none that is up'}.")
    return usable[0]


def _ask(source: FrameSource, querying: Querying, duration: float | None, as_json: bool) -> None:
    deadline = None if duration is None else monotonic() + duration
    told: dict[str, int] = {}
    while deadline is None or monotonic() < deadline:
        happened = querying.step(None if deadline is None else max(0.0, deadline - monotonic()))
        own = {querier.address for _, querier in querying.queriers}
        for each in happened:
            if each.event.kind != "report":
                show_happening(each, own, as_json=as_json)
        terminal.flush()
        for failure in querying.failures:
            terminal.complain(failure)
        querying.failures.clear()
        tell_more(told, source.lost(), "frame", "came faster than they were read")
        neglected = sum(querier.neglected for _, querier in querying.queriers)
        tell_more(told, neglected, "leave", "followed by no query: too many groups were left at once")
