"""Run one program: `python -m interruptions.programs FILE FUNCTION ARGUMENTS`, the arguments as JSON.

SIGABRT makes it print the stacks of all threads. A timer of faulthandler would do so too, but a child of a fork waits
for the timer's thread when it ends, and that thread exists in the parent only.
"""

import faulthandler
import importlib
import json
import sys

_, file, function, arguments = sys.argv
faulthandler.enable()
program = getattr(importlib.import_module(f"interruptions.programs.{file}"), function)
program(**json.loads(arguments))
