"""Messages with some bytes changed, for what must take any bytes."""

from collections.abc import Sequence
from random import Random

TELLING = (0, 1, 2, 4, 0x2F, 0x7F, 0xFF)
"""Bytes that often mean something: lengths, versions, ends of ranges."""


def mutated(random: Random, forms: Sequence[bytes]) -> bytes:
    """Return one of the forms with some bytes changed, cut out or put in, or with another one behind it."""
    data = bytearray(random.choice(forms))
    for _ in range(random.randrange(4)):
        at = random.randrange(len(data) + 1)
        what = random.randrange(5)
        if what == 0 and at < len(data):
            data[at] = random.choice((*TELLING, random.randrange(256)))
        elif what == 1:
            del data[at : at + random.randrange(9)]
        elif what == 2:
            data[at:at] = random.randbytes(random.randrange(9))
        elif what == 3 and at < len(data):
            data[at] ^= 1 << random.randrange(8)
        elif what == 4:
            data += random.choice(forms)[1:]
    return bytes(data)
