"""Sockets that receive and send on one port."""
