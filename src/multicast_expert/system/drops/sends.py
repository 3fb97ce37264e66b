"""SendWatch: counts the sends of programs that the kernel refuses with an error, by socket.

A send that fails leaves no packet: no capture, no drop, and for most errors no counter shows it. Since Linux 6.4 the
kernel has a tracepoint for the results of sends. Touches Linux only.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from ipaddress import ip_address
from struct import Struct
from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress
from multicast_expert.system.drops.assembler import FRAME, R1, R2, R6, R7, R9
from multicast_expert.system.drops.counting import COMMAND_SIZE, CountingProgram
from multicast_expert.system.drops.counting_watch import CountingWatch

_KEY = Struct(f"<{COMMAND_SIZE}si2sBx16s16sI4x")
_AT_RESULT, _AT_PEER_PORT, _AT_HOPS, _AT_OWN, _AT_PEER, _AT_INTERFACE = (
    place - _KEY.size for place in (16, 20, 22, 24, 40, 56)
)
_UDP = 17
_FAMILIES = {4: 2, 6: 10}
_OWN = {4: "sock.__sk_common.skc_rcv_saddr", 6: "sock.__sk_common.skc_v6_rcv_saddr"}
_PEER = {4: "sock.__sk_common.skc_daddr", 6: "sock.__sk_common.skc_v6_daddr"}
_LEAST_ERROR = 0xFFFFF000
"""Results above it are errors, as numbers of 32 bits without a sign."""


class FailedSend(NamedTuple):
    """What one program could not send from a socket, for one reason."""

    program: str
    """The name of its thread, at most 15 characters."""
    own: IPAddress
    """What the socket is bound to; 0.0.0.0 and :: stand for any address."""
    peer: IPAddress
    """What it is connected to; 0.0.0.0 and :: stand for nothing."""
    peer_port: int
    is_for_groups: bool
    """Whether an option of IPv4 that is about sending to groups is set on it: their interface or hop limit."""
    number: int
    """The errno."""
    times: int


class SendWatch(CountingWatch[FailedSend]):
    """Counts the failed sends of UDP over the IP version of a group."""

    def __init__(self, group: IPAddress) -> None:
        self._version = group.version
        program = partial(send_program, group.version)
        super().__init__("the results of sends", "sock_send_length", _KEY, lambda layout: layout.sends, program)

    def found(self) -> list[FailedSend]:
        """Return what failed so far. Raises OSError."""
        size = 4 if self._version == 4 else 16
        found = []
        for program, result, port, hops, own, peer, interface, count in self._counted():
            addresses = ip_address(own[:size]), ip_address(peer[:size])
            for_groups = self._version == 4 and bool(interface or hops != 1)
            found.append(FailedSend(program, *addresses, int.from_bytes(port, "big"), for_groups, -result, count))
        return found


def send_program(version: int, offsets: Mapping[str, int], namespace: int, counts: int) -> bytes:
    """Return the program for the tracepoint. `counts`: the descriptor of its map."""
    code = CountingProgram(_KEY.size, counts)
    code.compute(R6, "=", R1)
    code.clear_key()
    # The tracepoint gives the socket, the result and flags.
    code.load(R2, R6, 8, 8)
    code.store(FRAME, _AT_RESULT, R2, 4)
    code.jump_if(R2, ">", _LEAST_ERROR, "failed", bits=32)
    code.jump("end")
    code.label("failed")
    code.load(R7, R6, 0, 8)
    for name, size, wanted in (("sk_protocol", 2, _UDP), ("__sk_common.skc_family", 2, _FAMILIES[version])):
        code.member(R1, size, R7, offsets[f"sock.{name}"])
        code.jump_if(R1, "!=", wanted, "end")
    code.member(R1, 8, R7, offsets["sock.__sk_common.skc_net"])
    code.member(R1, 4, R1, offsets["net.ns.inum"])
    code.jump_if(R1, "!=", namespace, "end", bits=32)
    size = 4 if version == 4 else 16
    code.read(_AT_OWN, size, R7, offsets[_OWN[version]])
    code.read(_AT_PEER, size, R7, offsets[_PEER[version]])
    code.read(_AT_PEER_PORT, 2, R7, offsets["sock.__sk_common.skc_dport"])
    code.read(_AT_HOPS, 1, R7, offsets["inet_sock.mc_ttl"])
    code.read(_AT_INTERFACE, 4, R7, offsets["inet_sock.mc_index"])
    code.current_command(code.at_key)
    code.compute(R9, "=", 1)
    code.add_and_end()
    return code.assemble()
