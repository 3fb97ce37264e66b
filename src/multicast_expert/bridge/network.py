"""The network of bridges: one session of Eclipse Zenoh. The one file that imports it, when a session is opened."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

from multicast_expert.bridge.frames import LARGEST_FRAME
from multicast_expert.core.errors import MulticastExpertError

USUAL_PLACE = "tcp/127.0.0.1:7447"
"""Where a bridge listens that is told neither to listen nor to connect."""
QUEUE = 1024
"""Frames of one group that wait to be sent here, at most; then the oldest is dropped, and its datagrams are lost."""
LEASE = 1500
"""Milliseconds of silence after which another site counts as unreachable."""
PATIENCE = 10.0
"""Seconds that a program waits for the place that it connects to."""
_LOCATOR = re.compile(r"(?!(?:tcp|udp|tls|quic|ws)/)[a-z][a-z0-9_+-]*/\S+|[a-z]+/\S+:\d+(?:[?#]\S*)?")
"""Those of IP need a port."""
_EVENTS = 1024
_WITHOUT_ZENOH = "The bridge needs Eclipse Zenoh: python -m pip install 'multicast-expert[bridge]'"
_USUAL: dict[str, Any] = {
    "mode": "router",
    "scouting/multicast/enabled": False,
    "scouting/gossip/enabled": False,
    # Try for ever, and do not wait for it; a client, which Zenoh never lets go on without a connection, tries once.
    "connect/timeout_ms": {"router": -1, "peer": -1, "client": 0},
    "connect/exit_on_failure": False,
    "connect/retry": {"period_init_ms": 200, "period_max_ms": 1000, "period_increase_factor": 1.5},
}
"""What Zenoh is told unless a file of its own says otherwise."""
_ALWAYS: dict[str, Any] = {
    "transport/link/tx/lease": LEASE,
    "transport/link/rx/max_message_size": LARGEST_FRAME,
    "transport/link/tx/queue/size/data": 16,
    # A site that does not keep up may hold up the others for so many microseconds a frame.
    "transport/link/tx/queue/congestion_control/drop/wait_before_drop": 2000,
    # Sites are different machines: memory for those on one would be held for nothing.
    "transport/shared_memory/enabled": False,
}


class Connection(NamedTuple):
    """How a site reaches others: locators of Zenoh such as `tcp/192.0.2.1:7447`, and its certificates."""

    listen: Sequence[str] = ()
    connect: Sequence[str] = ()
    config: str | None = None
    """A file of Zenoh's own settings (JSON5)."""
    trust: str | None = None
    """A file with the certificates (PEM) that sign those of other sites; for tls/ and quic/."""
    identity: str | None = None
    """A file with the own certificate and key (PEM). With `trust`, other sites have to show theirs."""
    mode: str = "router"
    """Or `client`: takes part through the site that it connects to, and passes nothing on."""


class Publisher:
    """Sends frames with one key to all that want them."""

    def __init__(self, publisher: Any, failures: tuple[type[Exception], ...]) -> None:
        self._publisher = publisher
        self._failures = failures

    def put(self, frame: bytes) -> None:
        """Send a frame. Never waits for long: what a site cannot take is dropped."""
        with suppress(*self._failures):  # the session is closed
            self._publisher.put(frame)

    def is_wanted(self) -> bool:
        """Return whether anything receives them."""
        with suppress(*self._failures):
            return bool(self._publisher.matching_status.matching)
        return False

    def close(self) -> None:
        """Send nothing more."""
        with suppress(*self._failures):
            self._publisher.undeclare()


class Subscriber:
    """Receives frames with one key."""

    def __init__(self, subscriber: Any, failures: tuple[type[Exception], ...]) -> None:
        self._subscriber, self._handler = subscriber, subscriber.handler
        self._failures = failures

    def receive(self) -> bytes | None:
        """Wait for a frame and return it; None after `close`."""
        with suppress(*self._failures):
            data: bytes = self._handler.recv().payload.to_bytes()
            return data
        return None

    def close(self) -> None:
        """Receive nothing more."""
        with suppress(*self._failures):
            self._subscriber.undeclare()


class ZenohNetwork:
    """An open session. Raises MulticastExpertError if Zenoh is not installed, or cannot listen or read its settings."""

    def __init__(self, connection: Connection) -> None:
        try:
            import zenoh  # noqa: PLC0415 - large, and only the bridge needs it
        except ModuleNotFoundError as error:
            if error.name != "zenoh":
                raise
            raise MulticastExpertError(_WITHOUT_ZENOH) from None
        for place in (*listed(connection.listen, "listen"), *listed(connection.connect, "connect")):
            try:
                read_locator(place)
            except ValueError as error:
                raise MulticastExpertError(str(error)) from None
        self._zenoh: Any = zenoh
        self._failures: tuple[type[Exception], ...] = (zenoh.ZError,)
        self._session: Any = self._opened(connection)
        self._threads: list[threading.Thread] = []
        self._tokens: dict[Any, None] = {}

    def _opened(self, connection: Connection) -> Any:
        """Return a session. One that only takes part waits some seconds for a place that is just starting to listen."""
        deadline = monotonic() + (PATIENCE if connection.mode == "client" else 0)
        while True:
            try:
                return self._zenoh.open(self._configured(connection))
            except self._zenoh.ZError as error:
                reason = _first_sentence(error)
                if "Unable to connect" not in reason:
                    raise MulticastExpertError(f"Zenoh cannot start: {reason}") from None
            if monotonic() >= deadline:
                # They may be those of a file. Zenoh does not say what went wrong there.
                places = re.findall(r"\((\S+)\)", reason)
                refused = ", or the certificates do not fit" if re.search(r"\((?:tls|quic)/", reason) else ""
                raise MulticastExpertError(f"Cannot connect to {', '.join(places)}: nothing answers there{refused}.")
            sleep(0.2)

    def _configured(self, connection: Connection) -> Any:
        certificates = _tls(connection)
        config = self._zenoh.Config()
        if connection.config is not None:
            config = self._zenoh.Config.from_file(connection.config)
        for key, value in (_USUAL | {"mode": connection.mode}).items():
            if connection.config is None or config.get_json(key) in ("null", None):
                config.insert_json5(key, json.dumps(value))
        for key, value in _ALWAYS.items():
            config.insert_json5(key, json.dumps(value))
        # Left alone, Zenoh listens on all interfaces.
        places = "listen/endpoints"
        if connection.listen or config.get_json(places) == self._zenoh.Config().get_json(places):
            config.insert_json5(places, json.dumps(list(connection.listen)))
        if connection.connect:
            config.insert_json5("connect/endpoints", json.dumps(list(connection.connect)))
        for key, value in certificates.items():
            config.insert_json5(f"transport/link/tls/{key}", json.dumps(value))
        return config

    def announce(self, key: str) -> Callable[[], None]:
        """Declare a token that others see while this session lives; return what withdraws it."""
        token = self._session.liveliness().declare_token(key)
        # Zenoh withdraws a token that nothing refers to.
        self._tokens[token] = None
        return partial(self._withdraw, token)

    def _withdraw(self, token: Any) -> None:
        self._tokens.pop(token, None)
        with suppress(*self._failures):
            token.undeclare()

    def follow(self, keys: str, changed: Callable[[str, bool], None]) -> None:
        """Call a function, in a thread of its own, for each token that is there, appears (True) or goes (False)."""
        subscriber = self._session.liveliness().declare_subscriber(
            keys, self._zenoh.handlers.FifoChannel(_EVENTS), history=True
        )
        put = self._zenoh.SampleKind.PUT
        self._serve(subscriber, lambda sample: changed(str(sample.key_expr), sample.kind == put))

    def hear(self, keys: str, came: Callable[[str, bytes], None]) -> None:
        """Call a function, in a thread of its own, for each message with these keys."""
        subscriber = self._session.declare_subscriber(keys, self._zenoh.handlers.RingChannel(QUEUE))
        self._serve(subscriber, lambda sample: came(str(sample.key_expr), sample.payload.to_bytes()))

    def _serve(self, subscriber: Any, take: Callable[[Any], None]) -> None:
        handler = subscriber.handler

        def run() -> None:
            # Zenoh ends the wait when the session closes; until then the thread keeps the subscriber.
            with suppress(*self._failures):
                while subscriber is not None:
                    take(handler.recv())

        thread = threading.Thread(target=run, name="mcast-bridge-events", daemon=True)
        self._threads.append(thread)
        thread.start()

    def put(self, key: str, data: bytes) -> None:
        """Send one message."""
        with suppress(*self._failures):
            self._session.put(key, data, allowed_destination=self._zenoh.Locality.REMOTE)

    def publisher(self, key: str) -> Publisher:
        """Return what sends frames with this key."""
        zenoh = self._zenoh
        made = self._session.declare_publisher(
            key,
            congestion_control=zenoh.CongestionControl.DROP,
            allowed_destination=zenoh.Locality.REMOTE,
        )
        return Publisher(made, self._failures)

    def subscriber(self, key: str, queue: int = QUEUE) -> Subscriber:
        """Return what receives frames with this key, of which so many may wait."""
        made = self._session.declare_subscriber(key, self._zenoh.handlers.RingChannel(queue))
        return Subscriber(made, self._failures)

    def links(self) -> list[str]:
        """Return where the connections of this moment lead."""
        with suppress(*self._failures):
            return sorted(str(link.dst) for link in self._session.info.links())
        return []

    def close(self) -> None:
        """End the session; whatever waits for it ends, too."""
        # Its tokens first: a neighbour with Zenoh 1.5 to 1.7 can panic if it finds them and the link gone at once.
        for token in list(self._tokens):
            self._withdraw(token)
        with suppress(*self._failures):
            self._session.close()
        for thread in self._threads:
            thread.join(5.0)


def read_locator(text: str) -> str:
    """Return the text if it has the form of a locator. Raises ValueError."""
    if not _LOCATOR.fullmatch(text):
        raise ValueError(f"{text!r} is no locator such as tcp/192.0.2.1:7447.")
    return text


def listed(places: Sequence[str], name: str) -> Sequence[str]:
    """Return the places. Raises for a single text, because its characters would be taken for places."""
    if isinstance(places, str):
        raise MulticastExpertError(f"{name} is a list of locators; {places!r} alone goes into brackets.")
    return places


def _tls(connection: Connection) -> dict[str, Any]:
    """Return Zenoh's settings for the certificates. Raises MulticastExpertError for a file that is not there."""
    for path in (connection.trust, connection.identity, connection.config):
        if path is not None and not Path(path).is_file():
            raise MulticastExpertError(f"There is no file {path}.")
    settings: dict[str, Any] = {}
    if connection.trust is not None:
        settings["root_ca_certificate"] = connection.trust
    if connection.identity is not None:
        for side in ("listen", "connect"):
            settings |= {f"{side}_certificate": connection.identity, f"{side}_private_key": connection.identity}
    if connection.trust is not None and connection.identity is not None:
        settings["enable_mtls"] = True
    return settings


def _first_sentence(error: Exception) -> str:
    """Return what Zenoh says without the places in its source."""
    text = re.sub(r" \(os error \d+\)", "", str(error).partition(" at /")[0]).replace(": [", ": ")
    return f"{text.strip('[]. !')}."
