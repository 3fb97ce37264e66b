"""The path of the target's packets through this host, station by station. Pure: touches no OS."""
