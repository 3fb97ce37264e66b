"""The facts about each kernel: one table per OS. Pure: touches no OS, and every table imports on every OS."""

from collections.abc import Mapping

from multicast_expert.platforms.freebsd import FREEBSD
from multicast_expert.platforms.linux import LINUX
from multicast_expert.platforms.macos import MACOS
from multicast_expert.platforms.table import Option, Platform
from multicast_expert.platforms.windows import WINDOWS

PLATFORMS: Mapping[str, Platform] = {table.name: table for table in (LINUX, MACOS, WINDOWS, FREEBSD)}

__all__ = ["FREEBSD", "LINUX", "MACOS", "PLATFORMS", "WINDOWS", "Option", "Platform"]
