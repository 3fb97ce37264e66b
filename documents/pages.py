"""Judges the pages of a built site, as a reader's browser would load them: `python -m documents.pages DIRECTORY`."""

import gzip
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

HEAVY = 1_000_000
"""Bytes on the wire, compressed as every host of pages does; moving pictures do not count."""
MOVING = {"demo.svg", "top.svg"}


class Page(HTMLParser):
    """What one page loads, and what it lacks."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: set[str] = set()
        self.faults: list[str] = []
        self._headings = 0
        self.feed(text)
        if self._headings != 1:
            self.faults.append(f"{self._headings} first headings, not one")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        has = dict(attrs)
        self._headings += tag == "h1"
        if tag == "html" and not has.get("lang"):
            self.faults.append("no language")
        if tag == "img" and not has.get("alt"):
            self.faults.append(f"no alternative text: {has.get('src')}")
        # The Escape key does what the theme's button "Clear" does.
        if tag in {"a", "button"} and has.get("type") != "reset" and (has.get("tabindex") or "0").startswith("-"):
            self.faults.append(f"the keyboard does not reach <{tag}> {has.get('href') or has.get('class')}")
        styles = tag == "link" and has.get("rel") in {"stylesheet", "icon", "preload"}
        if (where := has.get("href" if styles else "src")) and (styles or tag in {"img", "script", "iframe", "source"}):
            self.loads.add(where)


@cache
def weight(file: Path) -> int:
    """Return how many bytes of it a browser receives."""
    return len(gzip.compress(file.read_bytes(), 6))


def judge(site: Path, file: Path) -> list[str]:
    """Return the faults of one page."""
    page = Page(file.read_text(encoding="utf-8"))
    address = f"https://site/{file.relative_to(site).as_posix()}"
    total, faults = weight(file), page.faults
    for load in page.loads:
        target = urlsplit(urldefrag(urljoin(address, load)).url)
        local = site / target.path.lstrip("/")
        if target.netloc != "site":
            faults.append(f"a request to another host: {load}")
        elif not local.is_file():
            faults.append(f"not there: {load}")
        elif local.name not in MOVING:
            total += weight(local)
    if any("bundle" in load for load in page.loads):
        total += weight(site / "search" / "search_index.json")
    if total > HEAVY:
        faults.append(f"{total} bytes, more than {HEAVY}")
    return faults


def main(site: Path) -> int:
    """Print each fault, and return how many pages have any; a site without pages is at fault, too."""
    # 404.html names everything by its path on the host, below the name of the site
    files = sorted(set(site.rglob("*.html")) - {site / "404.html"})
    found = [(file, faults) for file in files if (faults := judge(site, file))]
    for file, faults in found:
        print(f"{file.relative_to(site)}: {'; '.join(faults)}")
    print(f"{len(files)} pages, {len(found)} with faults")
    return len(found) if files else 1


if __name__ == "__main__":
    sys.exit(min(main(Path(sys.argv[1])), 1))
