"""The programs that the tests interrupt. Each runs in a process of its own; none imports pytest."""
