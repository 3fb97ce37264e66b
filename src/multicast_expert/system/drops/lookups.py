"""LookupWatch: counts how often programs look up the route to a group to send there, and what the kernel answers.

Where the routing tables refuse a group, the sender gets an error before there is a packet, so that no counter, no
capture and no drop shows it. The kernel has tracepoints for these lookups. Touches Linux only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from struct import Struct
from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress
from multicast_expert.system.drops.assembler import FRAME, R1, R2, R6, R7, R9, Register
from multicast_expert.system.drops.counting import COMMAND_SIZE, CountingProgram
from multicast_expert.system.drops.counting_watch import CountingWatch

_KEY = Struct(f"<{COMMAND_SIZE}sIIi4x")
_AT_INTERFACE, _AT_TABLE, _AT_ANSWER = (place - _KEY.size for place in (16, 20, 24))
_LOOPBACK_INDEX = 1
"""What stands for the incoming interface of packets that this host sends."""
_REFUSING = (6, 7, 8, 9)
"""The types of IPv6 routes that lead nowhere; where nothing is found, it is 7, too."""


class RouteLookups(NamedTuple):
    """What one program asked for."""

    program: str
    """The name of its thread, at most 15 characters."""
    interface: int
    """The index of the interface that it named; 0: none."""
    asked: int
    """How often it asked: once or, over IPv6, twice for each datagram."""
    refused: int
    """How often no routing table had an answer, or one of them refused."""


class LookupWatch(CountingWatch[RouteLookups]):
    """Counts the lookups of the way to a group."""

    def __init__(self, group: IPAddress) -> None:
        self._version = group.version
        tracepoint = "fib_table_lookup" if self._version == 4 else "fib6_table_lookup"
        program = partial(lookup_program, group)
        super().__init__("the lookups of routes", tracepoint, _KEY, lambda layout: layout.lookups, program)

    def found(self) -> list[RouteLookups]:
        """Return what was looked up so far. Raises OSError."""
        return summed(
            (program, interface, table, self._is_refusal(answer, interface), count)
            for program, interface, table, answer, count in self._counted()
        )

    def _is_refusal(self, answer: int, interface: int) -> bool:
        # An IPv4 sender that names its interface needs no route: the kernel then takes the group to be on the link.
        return (answer < 0 and not interface) if self._version == 4 else answer in _REFUSING


def summed(answers: Iterable[tuple[str, int, int, bool, int]]) -> list[RouteLookups]:
    """Return the lookups of each program; a lookup asks one table after the other until there is an answer.

    answers: program, interface, table, whether it refused, and how often.
    """
    asked: dict[tuple[str, int], Counter[int]] = {}
    found: Counter[tuple[str, int]] = Counter()
    for program, interface, table, is_refusal, count in answers:
        asked.setdefault((program, interface), Counter())[table] += count
        found[program, interface] += 0 if is_refusal else count
    return [
        RouteLookups(*kind, most := max(tables.values()), max(0, most - found[kind])) for kind, tables in asked.items()
    ]


def lookup_program(group: IPAddress, offsets: Mapping[str, int], namespace: int, counts: int) -> bytes:
    """Return the program for the tracepoint of the group's IP version. `counts`: the descriptor of its map."""
    flow = f"flowi{group.version}"
    code = CountingProgram(_KEY.size, counts)

    def member(target: Register, size: int, base: Register, name: str, more: int = 0) -> None:
        code.member(target, size, base, offsets[name] + more)

    code.compute(R6, "=", R1)
    code.clear_key()
    # IPv4 gives the table, the flow, the next hop and an error; IPv6 the namespace, the result, the table, the flow.
    code.load(R7, R6, 8 if group.version == 4 else 24, 8)
    step = 4 if group.version == 4 else 8
    for place in range(0, len(group.packed), step):
        member(R1, step, R7, f"{flow}.daddr", place)
        code.number(R2, int.from_bytes(group.packed[place : place + step], "little"))
        code.jump_if(R1, "!=", R2, "end")
    member(R1, 4, R7, f"{flow}.__fl_common.flowic_iif")
    code.jump_if(R1, "!=", _LOOPBACK_INDEX, "end")
    member(R1, 4, R7, f"{flow}.__fl_common.flowic_oif")
    code.store(FRAME, _AT_INTERFACE, R1, 4)
    if group.version == 4:
        # The kernel does not tell the namespace here; nearly every program is in that of its sockets.
        code.current_task(R7)
        member(R7, 8, R7, "task_struct.nsproxy")
        member(R7, 8, R7, "nsproxy.net_ns")
    else:
        code.load(R7, R6, 0, 8)
    member(R1, 4, R7, "net.ns.inum")
    code.jump_if(R1, "!=", namespace, "end", bits=32)
    if group.version == 4:
        code.load(R1, R6, 0, 4)
        code.load(R2, R6, 24, 4)
    else:
        code.load(R7, R6, 8, 8)
        member(R7, 1, R7, "fib6_result.fib6_type")
        code.store(FRAME, _AT_ANSWER, R7, 4)
        code.load(R7, R6, 16, 8)
        member(R1, 4, R7, "fib6_table.tb6_id")
        code.load(R2, FRAME, _AT_ANSWER, 4)
    code.store(FRAME, _AT_TABLE, R1, 4)
    code.store(FRAME, _AT_ANSWER, R2, 4)
    code.current_command(code.at_key)
    code.compute(R9, "=", 1)
    code.add_and_end()
    return code.assemble()
