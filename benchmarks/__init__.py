"""What this library costs, measured side by side with C, plain sockets, event loops and the incumbent.

`python -m benchmarks --help` tells how. Nothing is imported here: workers also run in the incumbent's interpreter.
"""
