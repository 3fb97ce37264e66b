"""Run one program, or fork for many.

    python -m interruptions.programs FILE FUNCTION ARGUMENTS     the arguments as JSON
    python -m interruptions.programs DESCRIPTOR                  of a socket that the programs are requested by

SIGABRT makes a program print the stacks of all threads. A timer of faulthandler would do so too, but a child of a fork
waits for the timer's thread when it ends, and that thread exists in the parent only.
"""

import faulthandler
import gc
import importlib
import json
import sys

from interruptions.programs.nursery import serve
from watched import end_with_any_thread

faulthandler.enable()
end_with_any_thread()
file, function, arguments = sys.argv[1:] if len(sys.argv) > 2 else serve(int(sys.argv[1]))
program = getattr(importlib.import_module(f"interruptions.programs.{file}"), function)
# The programs collect garbage before they count; what is there already need not be looked at each time.
gc.freeze()
program(**json.loads(arguments))
