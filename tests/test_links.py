"""Links in the repository's own pages; `make docs` checks those of the site."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    page.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "docs/reference/*.md", "zoo/**/*.md", "notebooks/*.ipynb")
    for page in sorted(ROOT.glob(pattern))
]
CODE = re.compile(r"^ *```.*?^ *```$|``.+?``|`[^`\n]+`", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"\[[^][]*\]\(([^()\s]+)\)")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")


def text_of(page):
    """A page, or the Markdown of a notebook."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    return "\n\n".join("".join(cell["source"]) for cell in cells)


def anchors(page):
    """Names that GitHub and the site give to headings."""
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    found, times = set(), {}
    for heading in re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", re.sub(INLINE, "", heading).lower()).replace(" ", "-")
        found.add(f"{name}-{times[name]}" if name in times else name)
        times[name] = times.get(name, 0) + 1
    return found


def broken(page):
    """Targets of a page's relative links that are not there."""
    for target in INLINE.findall(CODE.sub("", text_of(page))):
        if ELSEWHERE.match(target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path) if path else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            yield target


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_of_a_page_leads_to_a_file_and_its_heading(page):
    assert list(broken(ROOT / page)) == []


def test_links_to_what_is_not_there_are_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text(
        "# One: `a` (b)\n```\n[no link](x)\n# no heading\n```\n`[none](y)` [ok](#one-a-b) "
        "[ok](a.md) [web](https://a.b/c) ![p](p.png) [c](c.md#x) [h](#no-heading) "
        "[here](a.md#two)\n"
    )
    assert list(broken(page)) == ["p.png", "c.md#x", "#no-heading", "a.md#two"]
