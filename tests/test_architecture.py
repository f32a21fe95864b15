"""docs/architecture.md is true: its pictures and tables are computed from the code here, and compared."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields

import pytest

from lrstudy.lineage import Root
from lrstudy.settings import Recipe, Settings
from test_layers import LAYERS, OURS, ROOT, imported

PAGE = (ROOT / "docs" / "architecture.md").read_text()


def section(heading: str) -> str:
    """What stands below a heading, up to the next one."""
    (text,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    return text


def block(language: str) -> list[str]:
    (text,) = re.findall(rf"```{language}\n(.*?)```", section("The rooms"), flags=re.DOTALL)
    return text.splitlines()


def rooms() -> dict[str, set[str]]:
    """Every room, and the other rooms that its modules import."""
    found: dict[str, set[str]] = {}
    for module in OURS.keys() - {"lrstudy"}:
        room = module.split(".")[1]
        loaded = {name.split(".")[1] for name in imported(module, OURS) - {"lrstudy"}}
        found.setdefault(room, set()).update(loaded - {room})
    return found


def reached(room: str, known: dict[str, set[str]]) -> set[str]:
    return known[room].union(*(reached(below, known) for below in known[room]))


def test_the_layers_are_those_that_imports_are_held_to():
    layers = [{name.split(".")[1] for name in names if "." in name} for names in reversed(LAYERS)]
    assert [set(line.split()) for line in block("text")] == layers


def test_the_arrows_are_the_imports_between_rooms_without_those_that_follow_from_others():
    known = rooms()
    expected = set()
    for room, below in known.items():
        near = below - set().union(*(reached(one, known) for one in below))
        if near:
            expected.add(f"    {room} --> {' & '.join(sorted(near))}")
    assert set(block("mermaid")[1:]) == expected


def test_the_table_says_what_each_room_imports():
    rows = re.findall(r"^\| `(\w+)` \| .* \| ?([\w, ]*) ?\|$", section("The rooms"), flags=re.MULTILINE)
    shown = {room: loaded.strip() for room, loaded in rows}
    assert shown == {room: ", ".join(sorted(below)) for room, below in rooms().items()}


def test_every_kind_of_journal_line_is_listed_with_its_writer():
    rows = re.findall(r"^\| `(\w+)` \| `([\w.]+)` \|", section("The journal"), flags=re.MULTILINE)
    written = {line for module, path in OURS.items() for line in _lines_written(module, path.read_text())}
    assert set(rows) == written


@pytest.mark.parametrize("named", [Root, Settings, Recipe], ids=lambda named: named.__name__)
def test_every_field_that_a_name_covers_is_listed(named):
    listed = set(re.findall(r"`(\w+)`", section("What a name covers")))
    assert {field.name for field in fields(named)} - {"recipe"} <= listed


def _lines_written(module: str, text: str) -> Iterator[tuple[str, str]]:
    """Kind and writer of the journal lines that a module writes: `journal.write("kind", ...)`."""
    for scope, node in _scoped(ast.parse(text), module.rpartition(".")[2]):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "write":
            kind = node.args[0]
            if isinstance(kind, ast.Constant) and isinstance(kind.value, str):
                yield kind.value, scope


def _scoped(node: ast.AST, scope: str) -> Iterator[tuple[str, ast.AST]]:
    """All nodes below, each with the function that it stands in, as `module.function` or `Class.method`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _scoped(child, child.name)
        elif isinstance(child, ast.FunctionDef) and "." not in scope:
            yield from _scoped(child, f"{scope}.{child.name}")
        else:
            yield scope, child
            yield from _scoped(child, scope)
