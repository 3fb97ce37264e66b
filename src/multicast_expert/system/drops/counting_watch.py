"""CountingWatch: counts what programs do, by a BPF program of its own at a tracepoint. Touches Linux only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from struct import Struct
from typing import Any, Generic, TypeVar

from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.system.drops.bpf import Bpf
from multicast_expert.system.drops.kernel_watch import read_kernel_layout
from multicast_expert.system.drops.program import Layout
from multicast_expert.system.drops.refusals import refusal
from multicast_expert.system.kernel import network_namespace

Found = TypeVar("Found")
KINDS = 512
"""How many kinds are counted separately; further ones are not counted."""


class CountingWatch(Generic[Found]):
    """Counts in the network namespace of the calling thread, from its creation on.

    subject: what is counted, for messages. tracepoint: a raw one. key: begins with the name of a thread, in
    COMMAND_SIZE bytes. members: returns where the members of structs lie that the program reads; nothing if this kernel
    lacks one. program: makes the code of these places, the namespace's number and the map's descriptor.

    Raises MulticastExpertError if this kernel does not allow it or does not report it.
    """

    def __init__(
        self,
        subject: str,
        tracepoint: str,
        key: Struct,
        members: Callable[[Layout], Mapping[str, int]],
        program: Callable[[Mapping[str, int], int, int], bytes],
    ) -> None:
        self.subject: str = subject
        self._key, self._bpf = key, Bpf()
        try:
            self._counts = self._bpf.open_counts(key.size, KINDS)
            # What takes long comes after what the kernel allows to few.
            offsets = members(read_kernel_layout())
            if not offsets:
                raise MulticastExpertError(f"This kernel does not report {subject}.")
            self._bpf.attach(tracepoint.encode(), program(offsets, network_namespace(), self._counts))
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise MulticastExpertError(refusal(error, "bpf(2)")) from error
            raise

    def found(self) -> list[Found]:
        """Return what was counted so far. Raises OSError."""
        raise NotImplementedError

    def _counted(self) -> Iterator[tuple[Any, ...]]:
        """Yield the name of a thread, the other members of the key, and the count. Raises OSError."""
        for key, count in self._bpf.counts(self._counts, self._key.size, KINDS):
            name, *others = self._key.unpack(key)
            yield name.partition(b"\0")[0].decode("utf-8", "replace"), *others, count

    def close(self) -> None:
        """Detach the program."""
        self._bpf.close()
