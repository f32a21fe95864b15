"""Launches: profile, templates, files, and the way to a submitted run; on the target that every machine has."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import psutil
import pytest

from lrstudy.errors import InputError
from lrstudy_cluster import catalogue, launching, profile, templates

STUDY = """
lrstudy: 1
name: tiny
workload: {data: digits, subset: 300}
budget: {epochs: 1}
arms: [constant]
search: {method: random, trials: 1, cohort: 1}
confirm: {top: 0}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "my study.yaml"
    path.write_text(STUDY)
    return path


@pytest.mark.parametrize("name", catalogue.names())
def test_every_target_has_templates_a_summary_and_described_options(name):
    target = catalogue.target(name)
    assert target.name == name
    assert target.summary
    assert list((templates.folder() / name).iterdir())
    for line in profile.described(target):
        name, _, words = line.partition(": ")
        assert words.partition(" (")[0] not in ("", "a text", "a whole number", "a number", "true or false"), name


def test_a_target_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(InputError, match=r"there is no target 'locla'\. Did you mean 'local'\? Valid: local"):
        catalogue.target("locla")


def test_options_of_the_command_line_come_before_the_profile_and_that_before_defaults(tmp_path):
    file = tmp_path / "site.yaml"
    file.write_text("mps: true\nsetup: [module load cuda]\n")
    local = catalogue.target("local")
    assert profile.read(local).model_dump() == {"mps": False, "setup": []}
    read = profile.read(local, str(file), ["mps=false"])
    assert read.model_dump() == {"mps": False, "setup": ["module load cuda"]}


def test_all_faults_of_a_profile_are_reported_at_once(tmp_path):
    with pytest.raises(InputError) as caught:
        profile.read(catalogue.target("local"), None, ["mp=true", "setup=4"])
    assert len(caught.value.faults) == 2
    assert "profile.mp: unknown key. Did you mean 'mps'?" in str(caught.value)


def test_a_profile_is_found_in_the_users_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "lrstudy").mkdir()
    (tmp_path / "lrstudy" / "local.yaml").write_text("mps: true\n")
    assert profile.read(catalogue.target("local")).model_dump()["mps"] is True


def test_a_script_names_study_and_overrides_whatever_is_in_them(study, tmp_path):
    prepared = launching.prepare("local", study, ["name=x"], ["setup=['echo $HOME']"])
    (script,) = launching.write(prepared, tmp_path / "out")
    text = script.read_text()
    assert "\necho $HOME\n" in text
    assert text.rstrip().endswith(f"run '{study}' name=x")
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert script.stat().st_mode & 0o111


def test_relative_paths_in_overrides_are_those_of_where_the_launch_was_asked_for(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepared = launching.prepare("local", study, ["storage.path=here"])
    assert str(tmp_path / "here") in prepared.files["run.sh"]


def test_nothing_is_written_when_the_study_is_at_fault(study, tmp_path):
    with pytest.raises(InputError, match="budget\\.epochs"):
        launching.prepare("local", study, ["budget.epochs=none"])
    assert [path.name for path in tmp_path.iterdir()] == [study.name]


@pytest.mark.slow
def test_a_local_launch_runs_the_study_and_says_how_to_stop_it(study, tmp_path):
    prepared = launching.prepare("local", study, [f"storage.path={tmp_path / 'runs'}"])
    folder = tmp_path / "out"
    launching.write(prepared, folder)
    submission = launching.submit(prepared, folder)
    process = psutil.Process(int(submission.identity.split()[1]))
    try:
        assert submission.stop == f"kill -TERM -- -{process.pid}"
        deadline = time.monotonic() + 120
        while not (tmp_path / "runs" / "tiny" / "report" / "index.html").exists():
            assert time.monotonic() < deadline, (folder / "run.log").read_text()
            time.sleep(0.2)
    finally:
        subprocess.run(["bash", "-c", submission.stop], check=False, capture_output=True)
        process.wait(60)
