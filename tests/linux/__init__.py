"""The library on the real Linux kernel: hosts made of network namespaces, joined by virtual cables."""
