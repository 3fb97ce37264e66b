"""Builds the optional extension; everything else about the package is in pyproject.toml.

With MULTICAST_EXPERT_PURE set, a wheel has no extension and fits every system.
"""

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel

# The limited API does not exist for interpreters without the global lock.
WANTED = not sysconfig.get_config_var("Py_GIL_DISABLED") and not os.environ.get("MULTICAST_EXPERT_PURE")


class Wheel(bdist_wheel):
    """A wheel whose name says what it holds: the extension for this system, or Python alone where none compiled."""

    def run_command(self, command: str) -> None:
        """Look for the extension once it should be there."""
        super().run_command(command)
        if command == "build" and WANTED:
            built = self.get_finalized_command("build_ext").get_outputs()
            if not any(Path(file).exists() for file in built):
                self.warn("the extension did not compile: this wheel is pure Python, works everywhere, and is slower")
                self.root_is_pure, self.py_limited_api, self.distribution.ext_modules = True, False, []


links = []
if sys.platform == "win32":
    # The other files make system calls of Unix.
    sources = ["native/blocks.c", "native/datagram.c", "native/handout.c", "native/module.c", "native/rows.c"]
    flags = []
else:
    sources = sorted(map(str, Path("native").glob("*.c")))
    flags = ["-std=c11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"]
    if sys.platform != "darwin":
        links = ["-Wl,--strip-all"]  # debug symbols are three quarters of the file

setup(
    ext_modules=[
        Extension(
            "multicast_expert._fast",
            sources,
            depends=sorted(map(str, Path("native").glob("*.h"))),
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=flags,
            extra_link_args=links,
            py_limited_api=True,
            optional=True,
        )
    ]
    if WANTED
    else [],
    cmdclass={"bdist_wheel": Wheel},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if WANTED else {},
)
