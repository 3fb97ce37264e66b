"""The stress run: see `python -m tests.interruptions --help`, or `__main__.py` one folder up."""
