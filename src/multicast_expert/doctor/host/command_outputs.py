"""Parses the output of commands of macOS, FreeBSD and Windows. Pure: touches no OS.

A line of unknown form is skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from multicast_expert.doctor.facts import Rule

# The names of counters in netstat(1) -s of macOS and FreeBSD, and in `Trial.counters`.
_COUNTERS = {
    ("ip", "total packets received"): "Ip.InReceives",
    ("ip", "packets for this host"): "Ip.InDelivers",
    ("ip", "fragments received"): "Ip.ReasmReqds",
    ("ip", "packets reassembled ok"): "Ip.ReasmOKs",
    ("ip", "bad header checksums"): "IpExt.InCsumErrors",
    ("ip6", "total packets received"): "Ip6.InReceives",
    ("ip6", "packets for this host"): "Ip6.InDelivers",
    ("udp", "with bad checksum"): "Udp.InCsumErrors",
    ("udp", "dropped due to full socket buffers"): "Udp.RcvbufErrors",
}
_COUNTER = re.compile(r"\s+(\d{1,20}) (.+?)(?: \(.*\))?\s*")


def parse_statistics(text: str) -> dict[str, int]:
    """Return the counters of `netstat -s` (macOS, FreeBSD) that have a name in `Trial.counters`."""
    found: dict[str, int] = {}
    protocol = ""
    for line in text.splitlines():
        if line[:1].isalpha():
            protocol = line.rstrip(":")
        elif match := _COUNTER.fullmatch(line):
            # netstat prints the singular for 1: "1 packet for this host".
            for words in (match[2], re.sub(r"\b(packet|fragment|checksum)\b", r"\1s", match[2])):
                name = _COUNTERS.get((protocol, words))
                if name is not None:
                    found[name] = int(match[1])
    return found


def parse_gateway(text: str) -> str | None:
    """Return the router in the output of `route -n get` (macOS, FreeBSD); None: the destination is on the link."""
    match = re.search(r"^[ \t]*gateway:[ \t]*([0-9A-Fa-f.:]+)", text, re.MULTILINE)
    return match and match[1]


def parse_hardware_ports(text: str) -> frozenset[str]:
    """Return the wireless interfaces in the output of `networksetup -listallhardwareports` (macOS)."""
    return frozenset(re.findall(r"^Hardware Port: (?:Wi-Fi|AirPort)\s*\nDevice: (\S+)", text, re.MULTILINE))


def parse_wireless_groups(text: str) -> frozenset[str]:
    """Return the wireless interfaces in the output of `ifconfig -g wlan` (FreeBSD)."""
    return frozenset(text.split())


# The wording differs by release: "block all state set to enabled", "is blocking all non-essential connections".
_ALL_BLOCKED = re.compile(r"^(?!.*(?:disabled|not set)).*block(?:ing)? all")


def parse_application_firewall(text: str) -> Iterator[Rule]:
    """Yield what the firewall of macOS drops, from `socketfilterfw --getglobalstate --getblockall`.

    If it is on, the user decides for each program, so it may or may not drop the target's datagrams.
    """
    lines = text.lower().splitlines()
    if any(_ALL_BLOCKED.search(line) for line in lines):
        yield Rule("application firewall", "application firewall", "input", "block all incoming connections", True)
    elif any("firewall is enabled" in line for line in lines):
        yield Rule("application firewall", "application firewall", "input", "on: refuses programs that are not allowed")


def parse_pf(text: str) -> Iterator[Rule]:
    """Yield the rules of `pfctl -s rules` that block incoming packets; a later rule may still pass them."""
    for line in text.splitlines():
        if line.startswith("block") and " out " not in f"{line} ":
            yield Rule("pf", "pf", "input", line.strip())


def parse_windows_network(text: str) -> tuple[dict[str, str], list[Rule]]:
    """Return settings and firewall profiles from the JSON of the PowerShell script. Raises ValueError.

    Enumerations are numbers (MSFT_NetFirewallProfile, MSFT_NetIPv4Protocol and MSFT_NetConnectionProfile in the Windows
    SDK). An active profile blocks by default what none of its rules allows.
    """
    answer = json.loads(text)
    if not isinstance(answer, dict):
        raise ValueError("expected an object")
    settings = {}
    for protocol in _objects(answer, "protocols"):
        version = protocol.get("version")
        settings[f"{version}.MulticastLevel"] = _LEVELS.get(protocol.get("level"), "unknown")
        settings[f"{version}.MulticastVersion"] = str(protocol.get("protocol"))
    used = {_CATEGORIES.get(network.get("category")) for network in _objects(answer, "networks")}
    rules = [
        Rule(
            "windows",
            f"profile {profile.get('name')}",
            "input",
            "block all inbound connections" if profile.get("rules") == 0 else "block what no rule allows",
            True if profile.get("rules") == 0 else None,
        )
        for profile in _objects(answer, "profiles")
        if profile.get("enabled") == 1 and profile.get("inbound") in (0, 4) and profile.get("name") in used
    ]
    return settings, rules


_LEVELS: dict[Any, str] = {0: "none", 1: "send only", 2: "all"}
_CATEGORIES: dict[Any, str] = {0: "Public", 1: "Private", 2: "Domain"}


def _objects(answer: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    found = answer.get(name)
    # PowerShell writes a list of one as its element.
    for each in found if isinstance(found, list) else [found]:
        if isinstance(each, dict):
            yield each
