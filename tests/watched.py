"""Programs that tests start: an exception that ends one of their threads ends the program, so that it is noticed.

python tests/watched.py MODULE ARGUMENTS      as python -m MODULE ARGUMENTS
"""

import os
import runpy
import signal
import sys
import threading
import traceback

STATUS = 70
"""The exit status of a program that a thread has ended."""


def end_with_any_thread() -> None:
    """End this program as soon as an exception ends one of its threads, with the tracebacks of all threads."""
    tell = threading.excepthook

    def end(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_type is SystemExit:
            return  # which ends a thread, and is no failure
        tell(failed)
        # An exception on its way through the main thread may be why; Python 3.11 has it in a tuple.
        for raised in sys._current_exceptions().values():
            error = raised[1] if isinstance(raised, tuple) else raised
            if error is not None and error is not failed.exc_value:
                traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(STATUS)

    threading.excepthook = end


if __name__ == "__main__":
    # What is imported is what the module would import, not the modules of the tests.
    del sys.path[0], sys.argv[0]
    if hasattr(signal, "SIGHUP"):
        # nohup has the suite ignore it, and so its programs.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    end_with_any_thread()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
