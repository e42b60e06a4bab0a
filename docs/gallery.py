"""The gallery: examples that are run, and a thumbnail for every picture of the documentation that leads to its explanation.

`build` is called by ``conf.py``. From each file of ``examples/gallery/`` it makes a page below ``gallery/``: the title and
the text of the docstring, the picture, what the code prints, and the code. The picture and its thumbnail lie beside the
page, for the chapter that the docstring names. Thumbnails of the notebooks come from their stored outputs, those of the
published figures from ``images/thumbnails/``.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import re
import runpy
import shutil
from pathlib import Path

from matplotlib import rc_context
from PIL import Image

from balancedfact import plots

WIDTH = 440  # pixels of a thumbnail: twice what is shown, for fine screens
Item = tuple[str, str, str]  # thumbnail, page, caption


def build(docs: Path) -> None:
    """Write the pages of the examples, all thumbnails, and the lists that ``gallery.md`` includes."""
    out = docs / "gallery"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    examples = [example(path, out) for path in sorted((docs / "examples" / "gallery").glob("*.py"))]
    notebooks = [item for path in sorted((docs.parent / "notebooks").glob("*.ipynb")) for item in figures(path, out)]
    for name, items in (("examples", examples), ("notebooks", notebooks), ("published", published(docs))):
        (out / f"{name}.inc").write_text(grid(items), encoding="utf-8")


def example(path: Path, out: Path) -> Item:
    """Run one example and write its page."""
    code = path.read_text(encoding="utf-8")
    title, _, text = (ast.get_docstring(ast.parse(code)) or "").partition("\n\n")
    text, _, chapter = text.partition("Chapter: ")
    with contextlib.redirect_stdout(io.StringIO()) as printed, plots.style(), rc_context({"svg.hashsalt": path.stem}):
        figure = runpy.run_path(str(path))["figure"]
        about = {"Title": title, "Source": f"docs/examples/gallery/{path.name}", "Date": None}
        figure.savefig(out / f"{path.stem}.svg", metadata=about)
        figure.savefig(out / f"{path.stem}.png", dpi=160)
    shrink(out / f"{path.stem}.png")
    said = f"```text\n{printed.getvalue().rstrip()}\n```\n\n" if printed.getvalue() else ""
    body = code[code.index('"""\n', 3) + 4 :].strip()
    (out / f"{path.stem}.md").write_text(
        f"# {title}\n\n{text.strip()}\n\n![{title}]({path.stem}.svg)\n\nThe theory is in {{doc}}`/{chapter.strip()}`.\n\n"
        f"```python\n{body}\n```\n\n{said}"
        'The code leaves the picture in `figure`; `figure.savefig("picture.png")` stores it.\n',
        encoding="utf-8",
    )
    return f"gallery/{path.stem}.png", f"gallery/{path.stem}.md", title


def figures(path: Path, out: Path) -> list[Item]:
    """The figures among the outputs of a notebook, each under the heading that it follows."""
    items: list[Item] = []
    heading = title = ""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            heading = ([heading, *re.findall(r"^#+ (.*)", "".join(cell["source"]), flags=re.MULTILINE)])[-1]
            title = title or heading
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                name = f"{path.stem}-{len(items) + 1}.png"
                (out / name).write_bytes(base64.b64decode(picture if isinstance(picture, str) else "".join(picture)))
                shrink(out / name)
                items.append(
                    (f"gallery/{name}", f"notebooks/{path.stem}.ipynb", heading if heading == title else f"{title}: {heading}")
                )
    return items


def published(docs: Path) -> list[Item]:
    """The figures that commands draw, with the page that shows each and the words it is shown with."""
    items = []
    pages = {page: page.read_text(encoding="utf-8") for page in sorted(docs.rglob("*.md"))}
    for thumbnail in sorted((docs / "images" / "thumbnails").glob("*.png")):
        image = re.compile(rf"!\[([^]]*)\]\([./]*images/{thumbnail.stem}\.(?:svg|png)\)")
        found = [(page, shown[1]) for page, text in pages.items() if (shown := image.search(text))]
        if not found:
            raise ValueError(f"no page shows {thumbnail.stem}")
        page, caption = found[0]
        name = page.relative_to(docs).as_posix()
        items.append((f"images/thumbnails/{thumbnail.name}", name, " ".join(caption.split())))
    return items


def grid(items: list[Item]) -> str:
    """Thumbnails beside one another, each with a caption that is a link."""
    form = "::::{{container}} thumbnail\n[![{1}]({0})]({2})\n\n[{1}]({2})\n::::"
    cells = [form.format(picture, text, page) for picture, page, text in items]
    return ":::::{container} thumbnails\n\n" + "\n\n".join(cells) + "\n\n:::::\n"


def shrink(path: Path) -> None:
    """Make a picture a thumbnail: small, on white, in few colours, none far from its own however few pixels have it."""
    with Image.open(path) as picture:
        rgba = picture.convert("RGBA")
    flat = Image.new("RGB", rgba.size, "white")
    flat.paste(rgba, mask=rgba.getchannel("A"))
    flat.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    flat.quantize(256, method=Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
