"""Names a stream by the content of its datagrams. Pure: touches no OS."""
