"""Which datagrams the kernel of Linux dropped, why, and in which of its functions."""
