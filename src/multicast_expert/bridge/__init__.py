"""Carries groups between networks that have no multicast between them, over Eclipse Zenoh; and takes part in them.

Python loads each name on its first use: the core needs no Zenoh.
"""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multicast_expert.bridge.network import Connection
    from multicast_expert.bridge.remote import RemoteReceiver, RemoteSender, receiver, sender

__all__ = ["Connection", "RemoteReceiver", "RemoteSender", "receiver", "sender"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Return a public name, and keep it: Python calls this only for names that the module lacks."""
        if name in __all__:
            globals()[name] = getattr(import_module(f"{__name__}.remote"), name)
            return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
