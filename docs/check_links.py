"""Check that every link within the built documentation leads somewhere; nothing is fetched from a network.

Run after the build::

    python docs/check_links.py docs/_build/html
"""

from __future__ import annotations

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The targets and the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if not value:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif name in ("href", "src"):
                self.links.append(value)


@cache
def page(path: Path) -> _Page:
    parsed = _Page()
    parsed.feed(path.read_text(encoding="utf-8"))
    return parsed


def broken(root: Path) -> list[str]:
    """The links of all pages below `root` that lead to no file, or to no place in one."""
    found = []
    for path in sorted(root.rglob("*.html")):
        for link in page(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target.suffix == ".html" and anchor not in page(target).anchors):
                found.append(f"{path.relative_to(root)}: {link}")
    return found


def main() -> int:
    """Print the broken links; the exit status."""
    root = Path(sys.argv[1]).resolve()
    links = broken(root)
    print("\n".join(links) or f"every link of {sum(1 for _ in root.rglob('*.html'))} pages leads somewhere")
    return 1 if links else 0


if __name__ == "__main__":
    raise SystemExit(main())
