"""The page: sections of text, tables and figures, rendered by two templates into HTML and Markdown."""

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
    """One cell: its text, a smaller second line, a colour swatch, a kind (a verdict) for its style."""

    text: str
    sub: str = ""
    colour: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table. `numeric` columns are right-aligned; the first column heads its row."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Drawing:
    """A figure: `name` is its file's stem, `aid` one line on how to read it."""

    name: str
    title: str
    aid: str
    svg: str

    @property
    def markup(self) -> str:
        """The SVG for embedding."""
        return inline(self.svg, self.name, f"{self.title}. {self.aid}")


@dataclass(frozen=True)
class PageSection:
    """A part of the page. `bullets` come before `notes`, which stand under the tables in small type."""

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
    """File name -> text: `index.html` and `report.md`."""
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
    """`text` whose intervals and half widths do not break across lines."""
    text = re.sub(r"(\S) ± (\S)", "\\1\u00a0±\u00a0\\2", text)
    return re.sub(r"\[(\S+), (\S+)\]", "[\\1,\u00a0\\2]", text)


def _aside(cell: Cell) -> str:
    """The second line of `cell` for a format that has only one."""
    if not cell.sub:
        return ""
    return f" {cell.sub}" if cell.sub.startswith("[") else f" ({cell.sub})"


def _markdown(text: str) -> str:
    """`text` as one line of Markdown, without anything that Markdown would interpret."""
    for character in "\\`*_<>|[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.splitlines())
