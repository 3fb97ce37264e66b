"""Lists the facts that could not be read, in the words of people. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from multicast_expert.doctor.facts import Facts, Unread

_NAMES: Mapping[str, str] = {
    "interfaces": "the interfaces", "routes": "the routes", "memberships": "the memberships", "sockets": "the sockets",
    "firewall": "the firewall", "bridges": "the bridges", "rules": "the policy rules", "ipsec": "IPsec",
    "trial": "the trial", "frames": "frames", "queries": "queries", "reporters": "reports of other hosts",
    "queues": "the queues of the interfaces", "drops": "the drops of the kernel",
    "filters": "the filters of traffic control", "lookups": "the programs that send",
    "failed_sends": "sends that fail",
}  # fmt: skip


def unread_facts(facts: Facts) -> Iterator[tuple[str, Unread]]:
    """Yield the names of the facts that could not be read, each with why and with the command that reads it."""
    trial = facts.trial
    for holder in (facts, trial):
        for name in holder.__slots__:
            value = getattr(holder, name)
            if name in _NAMES and isinstance(value, Unread):
                yield _NAMES[name], value
    for name, setting in facts.settings.items():
        if isinstance(setting, Unread) and setting.remedy:
            yield name, setting
    if isinstance(facts.machine.container, Unread):
        yield "the container", facts.machine.container
    if not isinstance(trial, Unread) and trial.drops_limits:
        yield "all drops of the kernel", Unread(trial.drops_limits)
