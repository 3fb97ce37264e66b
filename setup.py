"""Builds the optional extension; everything else about the package is in pyproject.toml.

With MULTICAST_EXPERT_PURE set, a wheel has no extension and fits every system.
"""

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

# The kernel calls that it makes exist on Linux. The limited API has no form for interpreters without the global lock.
WANTED = (
    sys.platform == "linux"
    and not sysconfig.get_config_var("Py_GIL_DISABLED")
    and not os.environ.get("MULTICAST_EXPERT_PURE")
)

setup(
    ext_modules=[
        Extension(
            "multicast_expert._fast",
            sorted(map(str, Path("native").glob("*.c"))),
            depends=["native/fast.h"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"],
            py_limited_api=True,
            optional=True,
        )
    ]
    if WANTED
    else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if WANTED else {},
)
