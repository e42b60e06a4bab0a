"""Open every page of the built documentation in a browser, wide and narrow, and report what does not fit or does not show.

Run after the build, with Chromium at hand::

    python docs/check_browser.py docs/_build/html [PAGE ...]

On each page, 1280 and 390 pixels wide, the check looks for: a page that is wider than its window; formulas that MathJax
rejects, leaves unset, or that are cut off without a bar to scroll; pictures that do not load; links to places that are not
there; errors of scripts. Listings of code are left out, unless they are named. Nothing is fetched from a network: requests to
other hosts are refused, and reported.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

WIDTHS = (1280, 390)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
NEEDED = "needs Chromium and Playwright: apt-get install -y chromium && python -m pip install playwright"

PROBE = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")


def look(page: Any, path: Path) -> list[str]:
    """The complaints about one page: it is opened once, and then made narrower."""
    found: list[str] = []
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    page.goto(path.as_uri(), wait_until="load")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        found += [f"{width} pixels: {complaint}" for complaint in sorted(set(page.evaluate(PROBE)))]
    return found


def main() -> int:
    """Print the complaints about all pages, or those that are named; the exit status."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        executable = None
    if executable is None:
        print(f"{sys.argv[0]} {NEEDED}", file=sys.stderr)
        return 2
    root = Path(sys.argv[1]).resolve()
    paths = [root / name for name in sys.argv[2:]] or sorted(
        path for path in root.rglob("*.html") if "_static" not in path.parts
    )
    complaints = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        heard: list[str] = []

        def refuse(route: Any) -> None:
            heard.append(f"asks the network for {route.request.url}")
            route.abort()

        page.route(lambda url: not url.startswith("file:"), refuse)
        page.on("pageerror", lambda error: heard.append(f"script: {error}"))
        for path in paths:
            found = look(page, path)
            for complaint in found + heard:
                print(f"{path.relative_to(root)}, {complaint}", flush=True)
            complaints += len(found + heard)
            heard.clear()
        browser.close()
    print(f"{len(paths)} pages at {' and '.join(map(str, WIDTHS))} pixels: {complaints} complaints")
    return 1 if complaints else 0


if __name__ == "__main__":
    raise SystemExit(main())
