"""Builds the optional extension; everything else about the package is in pyproject.toml.

With MULTICAST_EXPERT_PURE set, a wheel has no extension and fits every system.
"""

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

# The limited API does not exist for interpreters without the global lock.
WANTED = not sysconfig.get_config_var("Py_GIL_DISABLED") and not os.environ.get("MULTICAST_EXPERT_PURE")

if sys.platform == "win32":
    # The other files make system calls of Unix.
    sources = ["native/blocks.c", "native/datagram.c", "native/handout.c", "native/module.c", "native/rows.c"]
    flags = []
else:
    sources = sorted(map(str, Path("native").glob("*.c")))
    flags = ["-std=c11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"]

setup(
    ext_modules=[
        Extension(
            "multicast_expert._fast",
            sources,
            depends=sorted(map(str, Path("native").glob("*.h"))),
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=flags,
            py_limited_api=True,
            optional=True,
        )
    ]
    if WANTED
    else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if WANTED else {},
)
