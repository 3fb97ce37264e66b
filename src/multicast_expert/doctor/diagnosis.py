"""Diagnoses why a group does not arrive on this host, or why an open receiver gets nothing. Touches the OS."""

from __future__ import annotations

from collections.abc import Sequence

from multicast_expert.core.endpoints import Endpoint, parse_endpoint
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceSpecifier
from multicast_expert.core.plan import Join, ReceiveSettings
from multicast_expert.doctor.collector import LISTEN, collect, collect_facts
from multicast_expert.doctor.facts import ReceiverFacts, Target
from multicast_expert.doctor.judgement import judge
from multicast_expert.doctor.report import Report
from multicast_expert.doctor.trial.receiver import Progress


def diagnose(
    endpoint: str | Endpoint, *, iface: IfaceSpecifier | None = None, source: str | None = None, listen: float = LISTEN
) -> Report:
    """Return the report on the datagrams of an endpoint on this host: whether they arrive, and if not, why.

    endpoint: `[source@]group[:port][%iface]` as for `parse_endpoint`, or its result. As text, its address may also be
        another one than a group: the report says so.
    iface, source: if the endpoint does not name them.
    listen: seconds to listen; the call takes up to two seconds more.

    It joins and listens, sends datagrams that never leave the host, and changes nothing. Only root can see many causes;
    the findings say where. It works in the thread that calls it, in that thread's network namespace. In async programs
    call it in a thread: `await asyncio.to_thread(diagnose, "239.1.2.3:5000")`.

    Raises MulticastExpertError for an invalid endpoint; an interface that does not exist becomes a finding.
    """
    named = parse_endpoint(endpoint, any_address=True) if isinstance(endpoint, str) else endpoint
    endpoint_source = None if named.source is None else str(named.source)
    if iface is not None and named.iface is not None and str(iface) != named.iface:
        raise MulticastExpertError(f"{endpoint} names the interface {named.iface}, and iface= names {iface}.")
    if source is not None and endpoint_source is not None and source != endpoint_source:
        raise MulticastExpertError(f"{endpoint} names the source {endpoint_source}, and source= names {source}.")
    return judge(collect(str(named.group), named.port, source or endpoint_source, iface or named.iface, listen))


def explain_receiver(
    settings: ReceiveSettings,
    joins: Sequence[Join],
    receiver: ReceiverFacts,
    listen: float,
    progress: Progress | None = None,
) -> Report:
    """Return the report on an open receiver and a group.

    joins: its memberships of that group; an interface that is gone has the index 0.
    """
    group = joins[0].group
    sources = {join.source for join in joins}
    names = {join.interface.iface.display_name for join in joins if join.interface.required}
    source = None if len(sources) > 1 else sources.pop()
    name = names.pop() if len(names) == 1 else None
    target = Target(str(group), settings.port, None if source is None else str(source), name, group.version)
    facts = collect_facts(
        target, joins, listen, receive_buffer=settings.receive_buffer, receiver=receiver, progress=progress
    )
    return judge(facts)
