"""Pages of the site that lie outside docs/, and what links to files that are no pages become."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("zoo/cards/BigNASCifar.md", "CHANGELOG.md", "CONTRIBUTING.md")
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages outside docs/ under their path in the repository."""
    for path in OUTSIDE:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Makes links in the repository links of the site.

    A link to a file that is no page becomes the file's path in the repository.

    Raises:
        FileNotFoundError: for a link to a file that is not there.
    """
    source = page.file.src_uri
    folder = (ROOT / source if source in OUTSIDE else ROOT / "docs" / source).parent
    here = Path(source).parent

    def rewritten(found: re.Match[str]) -> str:
        text, target = found.groups()
        path, mark, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return found[0]
        linked = (folder / path).resolve()
        if not linked.exists():
            raise FileNotFoundError(f"{source} links to {target}, which is not there")
        inside = linked.relative_to(ROOT).as_posix()
        page_path = inside.removeprefix("docs/")
        if inside not in OUTSIDE and files.get_file_from_path(page_path) is None:
            return f"{text} (`{inside}`)"
        up = "../" * len(here.parts)
        return f"[{text}]({up}{page_path}{mark}{anchor})"

    return _LINK.sub(rewritten, markdown)
