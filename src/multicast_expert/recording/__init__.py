"""Recordings of datagrams: files in pcapng, which Wireshark reads, too, and which programs read as they read a socket.

`mcast record` writes such files and `mcast replay` sends them; `Recording` also reads those of tcpdump and Wireshark.
"""

from multicast_expert.recording.recorded_receiver import RecordedReceiver
from multicast_expert.recording.recording import Recording, write_recording

__all__ = ["RecordedReceiver", "Recording", "write_recording"]
