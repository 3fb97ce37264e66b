"""A spectrometer: averages the power spectrum of a stream of samples, with numpy and without an object per datagram.

    python spectrometer.py 239.2.2.2 5000 1000             from the network, 1000 datagrams
    python spectrometer.py 239.2.2.2 5000 1000 sky.pcapng  from a recording of it

A datagram is a number of 8 bytes and CHANNELS complex samples, two int16 each, all in network byte order.
"""

import socket
import sys
from typing import Any, NamedTuple

import numpy

from multicast_expert import DatagramBuffer, McastRxSocket
from multicast_expert.recording import RecordedReceiver

CHANNELS = 256
FRAME = numpy.dtype([("number", ">u8"), ("samples", ">i2", (CHANNELS, 2))])
BLOCK = 512
"""Datagrams that are transformed together."""


class Spectrum(NamedTuple):
    """The average of some frames."""

    power: Any
    """An array of CHANNELS values, the lowest frequency first."""
    frames: int
    missing: int


def spectrum(receiver: McastRxSocket | RecordedReceiver, frames: int) -> Spectrum:
    """Return the average spectrum of so many frames, or of those that come before the receiver's timeout."""
    buffer = DatagramBuffer(BLOCK, max(65535, BLOCK * FRAME.itemsize))
    power, taken, numbers = numpy.zeros(CHANNELS), 0, []
    while taken < frames:
        try:
            while not buffer.is_full and len(buffer) < frames - taken:
                receiver.receive_into(buffer)
        except TimeoutError:
            frames = min(frames, taken + len(buffer))
        if len(buffer):
            block = numpy.asarray(buffer.rows(FRAME.itemsize)).view(FRAME)[: frames - taken, 0]
            samples = block["samples"].astype(numpy.float32).view(numpy.complex64)[..., 0]
            power += (numpy.abs(numpy.fft.fft(samples, axis=1)) ** 2).sum(axis=0)
            numbers.append(block["number"].astype(numpy.int64))
            taken += len(block)
            buffer.clear()
    order = numpy.concatenate(numbers) if numbers else numpy.zeros(0, numpy.int64)
    missing = int(order.max() - order.min()) + 1 - len(numpy.unique(order)) if taken else 0
    return Spectrum(numpy.fft.fftshift(power) / max(1, taken), taken, missing)


if __name__ == "__main__":
    group, port, count, *file = sys.argv[1:]
    with (
        RecordedReceiver(file[0], [group], int(port))
        if file
        else McastRxSocket(socket.AF_INET, [group], int(port), timeout=5, receive_buffer="largest")
    ) as receiver:
        found = spectrum(receiver, int(count))
    print(f"{found.frames} frames, {found.missing} missing; the strongest channel is {int(found.power.argmax())}")
