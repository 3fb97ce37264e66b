"""The operating system that runs this program: its interfaces, routes, groups and changes."""
