"""Open every page of the built documentation in a browser, wide and narrow, and report what does not fit or does not show.

Run after the build, with Chromium at hand::

    python docs/check_browser.py docs/_build/html [PAGE ...]

On each page, 1280 and 390 pixels wide, the check looks for: a page that is wider than its window; formulas that MathJax
rejects, leaves unset, or that are cut off without a bar to scroll; pictures that do not load; links to places that are not
there; errors of scripts. Listings of code are left out, unless they are named. Nothing is fetched from a network: requests
to other hosts are refused, and reported. Of a whole site the search is tried too: what is searched for often has to come
first where it is explained, and a statement that is given by its number has to lead in two clicks to its proof, its code
and its command.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

WIDTHS = (1280, 390)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
NEEDED = "needs Chromium and Playwright: apt-get install -y chromium && python -m pip install playwright"

# What is searched for, and where the first result leads.
SEARCHES = {
    "install": "start/install.html",
    "pandas": "start/faq.html",
    "recommender": "notebooks/recommender_from_a_ratings_file.html",
    "warm start": "start/faq.html",
    "Theorem 7": "theorems.html",
}
# Statements as a reader would name them, with their headings on the page of theorems.
STATEMENTS = (
    "Theorem 7 (GLCRMJ)",
    "Equation 8, near balance (CS282)",
    "Construction (Blog)",
    "Flat value of a matrix (DDF)",
    "Theorem 1 (MC)",
)

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


def searched(page: Any, root: Path) -> list[str]:
    """The complaints about the search: what comes first, for each of `SEARCHES`."""
    found = []
    for words, wanted in SEARCHES.items():
        page.goto(f"{(root / 'search.html').as_uri()}?q={words.replace(' ', '+')}", wait_until="load")
        page.wait_for_function("/finished|match/.test(document.querySelector('p.search-summary')?.textContent ?? '')")
        first = page.locator("#search-results ul.search li > a").first.get_attribute("href") or ""
        if not first.startswith(wanted):
            found.append(f"search.html, {words!r} is answered by {first}, not by {wanted}")
    return found


def clicked(page: Any, root: Path) -> list[str]:
    """The complaints about the ways from the front page to statements, and on to their proof, code and command."""
    found = []
    for name in STATEMENTS:
        page.goto((root / "index.html").as_uri(), wait_until="load")
        page.locator("article a[href='theorems.html']").first.click()
        page.locator(".toc-drawer a", has_text=name).first.evaluate("link => link.click()")
        section = page.locator("section", has=page.locator("h3", has_text=name)).last
        if not section.locator("code", has_text="balancedfact verify").count():
            found.append(f"theorems.html, {name}: no command")
        for kind, links in (("proof", "a[href^='theory/']"), ("code", "a[href^='_modules/']")):
            place = section.locator(links).first
            target = place.get_attribute("href") if place.count() else None
            if target is None:
                found.append(f"theorems.html, {name}: no link to its {kind}")
                continue
            with page.expect_navigation(wait_until="load"):
                place.evaluate("link => link.click()")
            anchor = target.partition("#")[2]
            if not page.evaluate("name => document.getElementById(name) !== null", anchor):
                found.append(f"theorems.html, {name}: its {kind} is not at {target}")
            page.go_back(wait_until="load")
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
        if not sys.argv[2:] and (root / "theorems.html").is_file():
            page.set_viewport_size({"width": WIDTHS[0], "height": 900})
            ways = searched(page, root) + clicked(page, root)
            print("\n".join([*ways, f"{len(SEARCHES)} searches and the ways to {len(STATEMENTS)} statements tried"]))
            complaints += len(ways)
        browser.close()
    print(f"{len(paths)} pages at {' and '.join(map(str, WIDTHS))} pixels: {complaints} complaints")
    return 1 if complaints else 0


if __name__ == "__main__":
    raise SystemExit(main())
