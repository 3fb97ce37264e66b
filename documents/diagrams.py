"""The diagrams of the pages, drawn from text.

A diagram is a text with a line for each thing on it:

    box NAME X Y KIND words        a box around words, `|` between lines; X and Y are its middle
    line FROM TO [words]           a cable between two boxes
    arrow FROM TO KIND [words]     what goes from one box to another
    note X Y words                 words alone

Its first line is what a reader hears who does not see it. Kinds are classes of the style sheet of the site: `plain`,
`wants` (a member), `stream` (datagrams of the group), `signal` (reports and queries), `stops` (where packets end).
"""

from html import escape
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
CHARACTER, LINE, MARGIN = 7.6, 18, 12
"""Of text, in the units of the picture: width of a character, height of a line, room around."""


class Box(NamedTuple):
    """Where a box is: its middle, and half of its width and height."""

    x: float
    y: float
    half_width: float
    half_height: float

    def edge(self, x: float, y: float) -> tuple[float, float]:
        """Return the point of its border that lies towards another point."""
        across, down = x - self.x, y - self.y
        reach = min(
            self.half_width / abs(across) if across else float("inf"),
            self.half_height / abs(down) if down else float("inf"),
        )
        return self.x + across * reach, self.y + down * reach


def svg(text: str) -> str:
    """Return the picture of a diagram."""
    title, *lines = text.strip().splitlines()
    boxes: dict[str, Box] = {}
    above, below = list[str](), list[str]()
    extent = [0.0, 0.0]
    for line in lines:
        verb, *words = line.split()
        if verb == "box":
            name, x, y, kind, *label = words
            rows = " ".join(label).split("|")
            boxes[name] = box = Box(
                float(x), float(y), max(map(len, rows)) * CHARACTER / 2 + MARGIN, len(rows) * LINE / 2 + 8
            )
            above += _box(box, kind, rows)
            extent = [max(extent[0], box.x + box.half_width), max(extent[1], box.y + box.half_height)]
        elif verb == "note":
            above.append(_words(float(words[0]), float(words[1]), words[2:], "note"))
            extent = [max(extent[0], float(words[0]) + len(" ".join(words[2:])) * CHARACTER / 2), extent[1]]
            extent[1] = max(extent[1], float(words[1]) + 8)
        else:
            kind = words.pop(2) if verb == "arrow" else "cable"
            below += _path(boxes[words[0]], boxes[words[1]], verb, kind, words[2:])
    width, height = (round(each + MARGIN) for each in extent)
    body = "\n".join(below + above)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="diagram" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n{body}\n</svg>\n'
    )


def _box(box: Box, kind: str, rows: list[str]) -> list[str]:
    left, top = box.x - box.half_width, box.y - box.half_height
    frame = (
        f'<rect class="{kind}" x="{left:.0f}" y="{top:.0f}" width="{2 * box.half_width:.0f}"'
        f' height="{2 * box.half_height:.0f}" rx="6"/>'
    )
    first = box.y - (len(rows) - 1) * LINE / 2
    return [frame, *(_words(box.x, first + turn * LINE, [row.strip()], kind) for turn, row in enumerate(rows))]


def _path(start: Box, end: Box, verb: str, kind: str, words: list[str]) -> list[str]:
    (x1, y1), (x2, y2) = start.edge(end.x, end.y), end.edge(start.x, start.y)
    line = f'<line class="{kind}" x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}"/>'
    drawn = [line]
    if verb == "arrow":
        length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
        along, down = (x2 - x1) / length, (y2 - y1) / length
        corners = [(x2, y2)] + [(x2 - 10 * along + side * down, y2 - 10 * down - side * along) for side in (5, -5)]
        drawn.append(f'<polygon class="{kind}" points="{" ".join(f"{x:.0f},{y:.0f}" for x, y in corners)}"/>')
    if words:
        drawn.append(_words((x1 + x2) / 2, (y1 + y2) / 2 - 12, words, "note"))
    return drawn


def _words(x: float, y: float, words: list[str], kind: str) -> str:
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}">{escape(" ".join(words))}</text>'


DIAGRAMS = {
    "group-on-a-switch": """
A camera sends one copy to a switch. The switch sends it to the two hosts that joined the group, and not to the third.
box camera 90 150 plain camera|10.1.0.1
box switch 360 150 plain switch
box viewer 640 50 wants viewer|joined 239.1.2.3
box logger 640 150 wants logger|joined 239.1.2.3
box printer 640 250 plain printer|joined nothing
arrow camera switch stream one copy
arrow switch viewer stream
arrow switch logger stream
line switch printer
note 360 280 The sender sends once, however many receive.
""",
    "join": """
A program joins: the kernel opens the card for the group and sends a report; switch and router note where it came from.
box program 110 60 wants program|join 239.1.2.3
box kernel 110 190 plain kernel of the host
box switch 420 190 plain switch|notes the port
box router 690 190 plain router|notes the network
box card 110 300 plain network card|01:00:5e:01:02:03
arrow program kernel signal
arrow kernel card signal
arrow kernel switch signal IGMPv3 report
arrow switch router signal report
note 440 60 1. The kernel notes interface and group, and opens the card.
note 440 84 2. It reports the group on that interface, twice.
note 440 108 3. Switches and routers send the group towards the report.
""",
    "querier": """
A querier asks every 125 seconds; hosts answer with reports. A switch forgets a port that is silent for 260 seconds.
box querier 100 150 plain querier|10.1.0.254
box switch 380 150 plain switch|forgets after 260 s
box viewer 680 70 wants viewer
box logger 680 230 wants logger
arrow querier switch signal every 125 s: members?
arrow switch viewer signal query
arrow switch logger signal query
note 380 30 Each answers within 10 s: I want 239.1.2.3
note 380 290 No querier, no answers: the stream stops after about four minutes.
""",
    "snooping": """
Without snooping a switch floods a group to every port. With snooping, to those with a member or router only.
box sender1 80 100 plain camera
box plain 280 100 plain plain switch
box a1 480 30 wants member
box b1 480 100 plain no member
box c1 480 170 plain no member
arrow sender1 plain stream
arrow plain a1 stream
arrow plain b1 stream
arrow plain c1 stream
box sender2 80 330 plain camera
box snooping 280 330 plain snooping switch
box a2 480 260 wants member
box b2 480 330 plain no member
box c2 480 400 plain router
arrow sender2 snooping stream
arrow snooping a2 stream
line snooping b2
arrow snooping c2 stream
note 650 100 floods: like broadcast
note 650 330 learns from reports
""",
    "tree": """
A tree across routers: each router sends one copy to every branch that has members, and takes one off the hop limit.
box camera 90 60 plain camera|hop limit 4
box r1 90 180 plain router A
box r2 330 120 plain router B
box r3 330 260 plain router C
box v1 590 60 wants viewer|3 - 1 = 2 left
box v2 590 150 wants logger|2 left
box v3 590 260 plain no member
arrow camera r1 stream
arrow r1 r2 stream 3 left
arrow r2 v1 stream
arrow r2 v2 stream
line r1 r3
line r3 v3
note 215 200 PIM joined
note 400 320 No member behind router C: it gets nothing.
""",
    "bridge": """
A bridge at each site takes a group from its network and sends it to the sites that want it, over TCP or TLS.
box camera 90 60 plain camera|239.1.2.3, TTL 8
box one 330 60 plain mcast bridge|site A
box wan 560 150 plain routed unicast|no multicast
box two 790 60 plain mcast bridge|site B
box three 790 240 plain mcast bridge|site C
box viewer 1040 60 wants viewer|joined 239.1.2.3
box none 1040 240 plain no member
arrow camera one stream
arrow one wan stream
arrow wan two stream
line wan three
arrow two viewer stream TTL 7
line three none
note 560 60 to site B only
note 330 150 B wants 239.1.2.3
note 560 310 Each bridge says which groups its site wants. Nothing else crosses.
""",
    "host": """
The way of a packet into a program, and what each station counts: card, driver, filters, IP, firewall, socket.
box card 110 50 plain network card|takes 01:00:5e:...
box driver 360 50 plain driver, XDP, tc|rx_dropped
box ip 620 50 plain IP: membership, route|IpInReceives
box rpf 620 170 stops reverse path filter|TcpExtIPReversePathFilter
box input 360 170 stops firewall, input|IpInDelivers
box udp 110 170 stops UDP: port, checksum|UdpIgnoredMulti, UdpInCsumErrors
box socket 110 300 stops socket: filter, buffer|UdpRcvbufErrors
box program 400 300 wants program
arrow card driver stream
arrow driver ip stream
arrow ip rpf stream
arrow rpf input stream
arrow input udp stream
arrow udp socket stream
arrow socket program stream
note 400 370 tcpdump reads at the driver: what it shows may end at any later station.
""",
}


def write() -> None:
    """Write the diagrams into the folder of the pictures."""
    for name, text in DIAGRAMS.items():
        (FOLDER / f"{name}.svg").write_text(svg(text), encoding="utf-8")
