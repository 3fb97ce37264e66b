"""What each OS reports about this host: interfaces, routes, settings, sockets, firewall rules, counters."""
