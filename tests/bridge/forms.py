"""Frames, and what hypothesis makes them of."""

from array import array

from hypothesis import strategies as st

from multicast_expert.bridge.frames import Frame, Origin, build_frame

ID, OTHER = bytes(range(8)), bytes(range(8, 16))


def frame(
    payloads: list[bytes],
    *,
    group: str = "239.1.2.3",
    first: int = 0,
    sender: bytes = ID,
    hops: list[bytes] | None = None,
    origins: list[Origin] | None = None,
    places: list[int] | None = None,
) -> Frame:
    """A frame of these payloads."""
    origins = origins or [Origin("10.0.0.7" if ":" not in group else "fd00::7", 4000, 7)]
    lengths = b"".join(len(each).to_bytes(4, "little") for each in payloads)
    places = places or [0] * len(payloads)
    sources = b"".join(each.to_bytes(4, "little") for each in places)
    times = b"".join((10**18 + place).to_bytes(8, "little") for place in range(len(payloads)))
    return Frame(sender, first, group, 5000, hops or [sender], origins, lengths, sources, times, b"".join(payloads))


def data(*payloads: bytes, **more: object) -> bytes:
    """The bytes of a frame."""
    return build_frame(frame(list(payloads), **more))  # type: ignore[arg-type]


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Any frame."""
    version = draw(st.sampled_from([4, 6]))
    addresses = st.ip_addresses(v=version)
    hosts = addresses.filter(lambda each: not each.is_multicast).map(str)
    group = draw(st.ip_addresses(network="224.0.0.0/4" if version == 4 else "ff00::/8"))
    origins = draw(
        st.lists(
            st.builds(Origin, hosts, st.integers(0, 65535), st.integers(0, 255), st.none() | st.integers(0, 63)),
            min_size=1,
            max_size=4,
        )
    )
    payloads = draw(st.lists(st.binary(max_size=40), min_size=1, max_size=12))
    places = draw(st.lists(st.integers(0, len(origins) - 1), min_size=len(payloads), max_size=len(payloads)))
    made = frame(
        payloads,
        group=str(group),
        origins=origins,
        places=places,
        hops=draw(st.lists(st.binary(min_size=8, max_size=8), max_size=5)),
    )
    return made._replace(
        sender=draw(st.binary(min_size=8, max_size=8)),
        first=draw(st.integers(0, 2**64 - 1)),
        port=draw(st.integers(1, 65535)),
    )


FORMS = [
    data(b"hello"),
    data(b"a" * 100, b"b" * 100, b"c"),
    data(b"", b"x", group="ff15::1234", first=7),
    data(
        b"q" * 30,
        b"r",
        origins=[Origin("10.0.0.7", 1, 1), Origin("10.0.0.8", 2, 2, 46)],
        places=[1, 0],
        hops=[ID, OTHER],
    ),
]
"""What mutations begin with."""
assert array("i").itemsize == 4
