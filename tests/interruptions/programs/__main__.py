"""Run one program: `python -m interruptions.programs FILE FUNCTION DEADLINE ARGUMENTS`, the arguments as JSON.

A program that does not end within DEADLINE seconds prints the stacks of all threads and exits with status 1.
"""

import faulthandler
import importlib
import json
import sys

_, file, function, deadline, arguments = sys.argv
faulthandler.enable()
faulthandler.dump_traceback_later(float(deadline), exit=True)
program = getattr(importlib.import_module(f"interruptions.programs.{file}"), function)
program(**json.loads(arguments))
