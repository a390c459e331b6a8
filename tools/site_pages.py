"""A hook of mkdocs: what the site needs beside `docs/`, so that the pages read well in the repository, too.

* `CONTRIBUTING.md` and `CHANGELOG.md` become pages.
* A file or folder of the repository that a page links to is a page under `source/`, where the link leads.
* What the tests read of a fenced block (`sh serve`, `python file=jobs.py`) becomes its language and title.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}
MADE = ("contributing.md", "changelog.md")
LANGUAGES = {
    ".py": "python",
    ".sh": "sh",
    ".go": "go",
    ".mjs": "javascript",
    ".js": "javascript",
    ".md": "markdown",
}

_LINK = re.compile(r"\]\((?P<path>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
_FENCE = re.compile(r"^(?P<ticks>```)(?P<language>\w+)(?P<words>[^\n`]*)$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages that are made from files outside `docs/`."""
    for name, page in PAGES.items():
        if page in MADE:
            files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    places: set[str] = set()
    for file in list(files.documentation_pages()):
        home = _home(file.src_uri)
        for path in _links(file.content_string):
            target = posixpath.normpath(posixpath.join(home, path))
            if _is_source(target):
                places |= _with_contents(target)
    for place in sorted(places):
        files.append(File.generated(config, _page_of(place), content=_source_page(place)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Let links to files of the repository lead to their pages, and fences say what the highlighter knows."""
    uri = page.file.src_uri
    if uri.startswith("source/"):
        return markdown
    home = _home(uri)

    def leading(found: re.Match[str]) -> str:
        path, anchor = found["path"], found["anchor"] or ""
        if "://" in path or path.startswith("mailto:"):
            return found[0]
        target = posixpath.normpath(posixpath.join(home, path))
        if target in PAGES:
            place = PAGES[target]
        elif _is_source(target):
            place = _page_of(target)
        elif target.startswith("docs/"):
            place = target.removeprefix("docs/")
        else:
            return found[0]
        return f"]({posixpath.relpath(place, posixpath.dirname(uri) or '.')}{anchor})"

    return _outside_fences(_LINK, leading, _FENCE.sub(_fence, markdown))


def _home(uri: str) -> str:
    """Return the folder in the repository from which a page's links are read."""
    return "" if uri in MADE else posixpath.join("docs", posixpath.dirname(uri))


def _links(markdown: str) -> list[str]:
    text = _FENCED.sub("", markdown)
    return [found["path"] for found in _LINK.finditer(text) if "://" not in found["path"]]


def _is_source(target: str) -> bool:
    inside = not target.startswith(("..", "docs/")) and target not in PAGES and target != "."
    return inside and (ROOT / target).exists()


def _with_contents(place: str) -> set[str]:
    path = ROOT / place
    return {place} if path.is_file() else {place} | {f"{place}/{name}" for name in _files(path)}


def _files(folder: Path) -> list[str]:
    """Return the files in a folder and below, those of its own first."""
    found = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    names = [path.relative_to(folder).as_posix() for path in found]
    return sorted(names, key=lambda name: (name.count("/"), name))


def _page_of(place: str) -> str:
    return f"source/{place}/index.md" if (ROOT / place).is_dir() else f"source/{place}.md"


def _source_page(place: str) -> str:
    path = ROOT / place
    if path.is_dir():
        rows = [f"* [{name}]({name}.md){_purpose(path / name)}" for name in _files(path)]
        return f"# {place}/\n\n" + "\n".join(rows) + "\n"
    fence = "`" * 8
    return f"# {place}\n\n{fence}{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}{fence}\n"


def _purpose(path: Path) -> str:
    """Return the first sentence of a file's docstring or comment, for a list."""
    found = re.match(r'(?:#!.*\n)?(?:"""|# |// )(?P<said>[^\n]+)', path.read_text())
    if found is None:
        return ""
    return f": {re.split(r'(?<=[^0-9])[.:;](?= |$)', found['said'].removesuffix(chr(34) * 3))[0]}"


def _fence(found: re.Match[str]) -> str:
    file = re.search(r"\bfile=(\S+)", found["words"])
    title = f' title="{file[1]}"' if file else ""
    language = "console" if found["language"] == "session" else found["language"]
    return f"{found['ticks']}{language}{title}"


def _outside_fences(pattern: re.Pattern[str], change: Any, markdown: str) -> str:
    parts: list[str] = []
    at = 0
    for fenced in _FENCED.finditer(markdown):
        parts += [pattern.sub(change, markdown[at : fenced.start()]), fenced[0]]
        at = fenced.end()
    return "".join([*parts, pattern.sub(change, markdown[at:])])
