"""What the documentation shows is true: every study file in it validates, every command exists, every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from lrstudy.cli import app
from lrstudy.config.common import documentation
from lrstudy.policies import registry
from lrstudy.study import Study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


STUDIES = [(page, number, text) for page in PAGES for number, text in enumerate(blocks(page, "yaml"))]


@pytest.mark.parametrize(("page", "number", "text"), STUDIES, ids=lambda value: getattr(value, "name", ""))
def test_every_study_file_in_the_documentation_is_valid(tmp_path, page, number, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    (tmp_path / "mine.py").write_text("\n".join(blocks(page, "python")) if "./mine.py:" in text else "")
    assert all(study.file.arms for study in Study.each(path))


def test_the_table_of_common_parameters_is_the_one_that_everything_derives_from():
    assert documentation() in (ROOT / "docs" / "study-file.md").read_text(), f"expected:\n{documentation()}"


def test_there_are_study_files_in_the_documentation():
    assert len(STUDIES) >= 2


def test_every_command_in_the_documentation_exists():
    commands = set(get_command(app).commands)
    for page in PAGES:
        shown = re.findall(r"(?:^|`|\n)(?:\.venv/bin/)?lrstudy (?:--debug )?([a-z-]+)", page.read_text())
        assert set(shown) <= commands, page


def test_every_make_target_in_the_documentation_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", page.read_text())) <= {(t, "") for t in targets} | {
            ("", t) for t in targets
        }, page


def test_every_link_and_picture_in_the_documentation_exists():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_decisions_are_numbered_and_the_newest_comes_last():
    text = (ROOT / "docs" / "decisions.md").read_text()
    found = re.findall(r"^## (\d+)\. .+\n(\d{4}-\d\d-\d\d)\. ", text, flags=re.MULTILINE)
    assert [int(number) for number, _ in found] == list(range(1, text.count("\n## ") + 1))
    assert sorted(date for _, date in found) == [date for _, date in found]


def test_the_table_of_policies_is_complete():
    text = (ROOT / "docs" / "policies.md").read_text()
    assert set(re.findall(r"^\| `([a-z_]+)` \|", text, flags=re.MULTILINE)) >= set(registry())


def test_the_python_of_the_documentation_runs(tmp_path, monkeypatch):
    page = ROOT / "docs" / "how-it-works.md"
    (code,) = blocks(page, "python")
    folder = tmp_path / "runs" / "quickstart"
    folder.mkdir(parents=True)
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"arm": ["a", "a"], "test_metric": [0.5, 1.0]}), folder / "trials.parquet")
    (folder / "study.lock.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {})
