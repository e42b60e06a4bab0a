"""The check of the documentation in a browser sees what is amiss: on a page with one mistake of each kind."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).resolve().parent.parent / "docs" / "check_browser.py"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WRONG = """<!doctype html><html><body><article>
<div style="width: 900px">wide</div>
<div class="math">x^2</div>
<div class="math"><mjx-container><mjx-merror data-mjx-error="Undefined control sequence">x</mjx-merror></mjx-container></div>
<img src="missing.png"><a href="#nowhere">link</a>
<script>throw new Error("a mistake");</script><script src="https://example.org/script.js"></script>
</article></body></html>"""
LONG = """<!doctype html><html><body style="margin: 0"><div class="content" style="overflow-x: auto"><article><p>With
<span class="math"><mjx-container style="display: inline-block; width: 700px">x</mjx-container></span></p></article></div>
</body></html>"""
RIGHT = '<!doctype html><html><body><article><p id="here">Text.</p><a href="#here">link</a></article></body></html>'


def check(folder):
    return subprocess.run([sys.executable, str(CHECK), str(folder)], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_kind_of_mistake_is_reported(tmp_path):
    pytest.importorskip("playwright")
    if not any(map(shutil.which, BROWSERS)):
        pytest.skip("there is no Chromium")
    (tmp_path / "right.html").write_text(RIGHT, encoding="utf-8")
    clean = check(tmp_path)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    (tmp_path / "wrong.html").write_text(WRONG, encoding="utf-8")
    (tmp_path / "long.html").write_text(LONG, encoding="utf-8")
    found = check(tmp_path)
    assert found.returncode == 1
    for complaint in (
        "wrong.html, 390 pixels: is 9",
        "long.html, 390 pixels: formula cut off",
        "long.html, 390 pixels: has a text 7",
        "formula that is not set",
        "Undefined control sequence",
        "missing.png",
        "#nowhere",
        "script: a mistake",
        "asks the network for https://example.org/script.js",
    ):
        assert complaint in found.stdout, found.stdout
    assert "right.html" not in found.stdout
    assert "1280 pixels: is" not in found.stdout
    assert "long.html, 1280" not in found.stdout
