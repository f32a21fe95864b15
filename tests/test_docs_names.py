"""The names of the code that the maintainers' pages use exist: modules, classes, their members, files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from lrstudy.config import StudyFile
from test_layers import OURS, REPORTS, ROOT

PAGES = ("docs/architecture.md", "docs/debugging.md", "docs/decisions.md", "CONTRIBUTING.md")
ELSEWHERE = {"None", "TuneController", "TrialScheduler", "Tuner", "ray", "torch"}
"""Names of others, and what begins with them."""
CODE = {**OURS, **REPORTS, **{path.stem: path for path in (ROOT / "tests").rglob("*.py")}}


@pytest.mark.parametrize("page", PAGES)
def test_every_name_of_the_code_exists(page: str) -> None:
    missing = [name for name in _spans(page) if not _exists(name)]
    assert not missing, f"{page} names what the code does not have"


def _spans(page: str) -> Iterator[str]:
    """What stands between backticks, code blocks aside."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    yield from dict.fromkeys(re.findall(r"`([^`\n]+)`", text))


def _exists(name: str) -> bool:
    """Whether a span is there, if it looks like a file of ours, a class, or a member of a class or module."""
    if re.fullmatch(r"\w+(/\w+)+\.py", name) and not name.startswith("tune/"):
        return any((ROOT / folder / name).exists() for folder in ("", "study/lrstudy"))
    if re.search(r"\.(py|yaml|lock|json|parquet|md|toml|txt|csv)$", name):
        return True
    if name.startswith("test_"):
        return any(name in defined for defined in _members().values())
    if not re.fullmatch(r"[A-Z][a-z]\w+|\w+(\.\w+)+", name) or name.split(".")[0] in ELSEWHERE:
        return True
    *above, last = name.split(".")
    owner = above[-1] if above else ""
    return last in _members().get(owner, ()) or owner in StudyFile.model_fields


@cache
def _members() -> dict[str, set[str]]:
    """By class and by module (its last name): what they define. Under "": all classes."""
    found: dict[str, set[str]] = {"": set()}
    for module, path in CODE.items():
        above, _, stem = module.rpartition(".")
        found.setdefault(above.rpartition(".")[2], set()).add(stem)
        tree = ast.parse(path.read_text())
        found.setdefault(stem, set()).update(_defined(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[""].add(node.name)
                found.setdefault(node.name, set()).update(_defined(node))
    return found


def _defined(node: ast.Module | ast.ClassDef) -> Iterator[str]:
    for child in node.body:
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            yield child.name
        elif isinstance(child, (ast.Assign, ast.AnnAssign)):
            targets = child.targets if isinstance(child, ast.Assign) else [child.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        elif isinstance(child, ast.ImportFrom):
            yield from (alias.name for alias in child.names)
