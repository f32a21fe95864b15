"""The page: sections of text, tables and figures, which two templates render as HTML and Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lrstudy_reports.style import inline

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Cell:
    """A table cell: text, a second line in small type, a colour swatch, and a `kind` (a verdict) for its style.

    `href` is where its text leads, relative to the page.
    """

    text: str
    sub: str = ""
    colour: str = ""
    kind: str = ""
    href: str = ""


@dataclass(frozen=True)
class Table:
    """A table. The columns in `numeric` are right-aligned, those in `prose` have room for lines of text.

    The first column has the row headings. A `folded` table shows its caption alone until a reader opens it.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: frozenset[int] = frozenset()
    prose: frozenset[int] = frozenset()
    folded: bool = False


@dataclass(frozen=True)
class Drawing:
    """A figure. `name` is the stem of its file, `aid` a line on how to read it."""

    name: str
    title: str
    aid: str
    svg: str

    @property
    def markup(self) -> str:
        """The SVG as markup for an HTML page."""
        return inline(self.svg, self.name, f"{self.title}. {self.aid}")


@dataclass(frozen=True)
class PageSection:
    """A section of the page: text, bullets, tables, then notes in small type, then figures."""

    id: str
    title: str
    text: Sequence[str] = ()
    bullets: Sequence[str] = ()
    drawings: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    answer: str
    status: str
    complete: bool
    facts: Sequence[tuple[str, str]] = ()
    sections: Sequence[PageSection] = field(default_factory=tuple)


def render(page: Page) -> Mapping[str, str]:
    """The text of index.html and report.md, by file name."""
    return {name: _environment(name).get_template(f"{name}.j2").render(page=page) for name in _NAMES}


_NAMES = ("index.html", "report.md")


def _environment(name: str) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = _markdown
    environment.filters["tied"] = _tied
    environment.filters["aside"] = _aside
    return environment


def _tied(text: str) -> str:
    """`text` with non-breaking spaces inside intervals and around ±."""
    text = re.sub(r"(\S) ± (\S)", "\\1\u00a0±\u00a0\\2", text)
    return re.sub(r"\[(\S+), (\S+)\]", "[\\1,\u00a0\\2]", text)


def _aside(cell: Cell) -> str:
    """The second line of `cell`, to be appended to the first where cells have one line."""
    if not cell.sub:
        return ""
    return f" {cell.sub}" if cell.sub.startswith("[") else f" ({cell.sub})"


def _markdown(text: str) -> str:
    """`text` as one line of Markdown, with all special characters escaped."""
    for character in "\\`*_<>|[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.splitlines())
