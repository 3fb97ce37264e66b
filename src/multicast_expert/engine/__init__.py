"""Carries plans out: the only code that opens, binds, joins, sends and receives."""

from multicast_expert.engine.opening import error_name, os_error
from multicast_expert.engine.receive_sockets import ReceiveEngine
from multicast_expert.engine.send import SendEngine

__all__ = ["ReceiveEngine", "SendEngine", "error_name", "os_error"]
