"""The command line: exit codes, one paragraph per fault, answers for people and for programs."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from rich.console import Console

import lrstudy_reports
from lrstudy import __version__
from lrstudy.cli import _LATER, _main, interrupted
from lrstudy.cli.concluding import _print_verdicts
from lrstudy.cli.options import console_for_tables
from prescribed import Training, run_study
from report_studies import SMALL as SMALL_STUDY


def test_the_version_is_printed(capsys):
    assert _main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("command", _LATER)
def test_a_command_of_a_later_version_is_refused_with_not_yet(capsys, command):
    assert _main([command]) == 2
    said = capsys.readouterr().err
    assert (
        f"the command '{command}' is not available yet. Available: doctor, export, init, launch, lr-find, plan, prepare, report, run, score, status, trace, train, validate."
        in said
    )


def test_an_unknown_command_or_option_exits_2_with_one_line(capsys):
    assert _main(["rum"]) == 2
    assert _main(["run", "--nope"]) == 2
    said = capsys.readouterr().err
    assert "rum" in said
    assert "--nope" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", ["status", "report"])
def test_a_folder_that_is_no_study_exits_2(capsys, tmp_path, command):
    assert _main([command, str(tmp_path)]) == 2
    assert "expected the folder of a study (with study.lock.json in it)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status", "study.yaml"], "there is none here. A study's folder has its name, below storage.path: runs/NAME."),
        (["validate", "./mine.py"], "study file: mine.py is Python; what is in it is named as mine.py:NAME."),
        (["init"], "--data: expected what to look at, as in `lrstudy init --data DIR`; got nothing."),
    ],
)
def test_a_likely_slip_is_told_what_was_meant(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text("")
    (tmp_path / "mine.py").write_text("")
    assert _main(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_missing_study_file_exits_2_and_says_which(capsys):
    assert _main(["run", "nowhere.yaml"]) == 2
    assert "cannot read nowhere.yaml: No such file or directory" in capsys.readouterr().err


def test_a_fault_of_ours_is_one_paragraph_with_the_way_to_more(capsys, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("boom")

    monkeypatch.setattr("lrstudy.study.Study.each", fail)
    assert _main(["validate"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("lrstudy: RuntimeError: boom")
    assert "--debug" in said
    assert "Traceback" not in said


def test_validate_of_the_quickstart_says_what_will_be_run(capsys, tmp_path):
    assert _main(["validate", f"storage.path={tmp_path}", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["trials"] == 7 * (2 * 8 + 5)
    assert facts["examples"] == {"train": 200, "validation": 100, "test": 898}
    assert list(facts["arms"]) == ["constant", "step", "cosine", "batch_increase", "clr", "sgdr", "sgdr_dlr"]


def test_help_is_fast_because_nothing_heavy_is_imported():
    code = "import sys, lrstudy.cli as c; c._main(['--help']); sys.exit(bool({'pyarrow', 'torch', 'ray'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("columns", [80, 120])
def test_the_verdicts_are_whole_on_a_narrow_terminal_and_in_a_file(tmp_path, monkeypatch, columns):
    """With intervals of seven arms, 80 columns showed ellipses; so did a file, which has no width."""
    folder = run_study(tmp_path, SMALL_STUDY, "arms={constant: , batch_increase: {milestones: [2]}}")
    lrstudy_reports.build(folder)
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    console = console_for_tables() if columns == 120 else Console(file=out, width=columns)
    assert console.width == columns
    _print_verdicts(console, folder)
    assert "batch_increase" in out.getvalue()
    assert "…" not in out.getvalue()


def test_the_terminal_shows_p_notes_and_the_answer(tmp_path):
    """Two seeds give no interval, and the reader of the terminal learns that as the reader of the page does."""
    folder = run_study(tmp_path, SMALL_STUDY, "confirm.seeds=2", training=Training({"step": -0.00002}))
    lrstudy_reports.build(folder)
    out = io.StringIO()
    _print_verdicts(Console(file=out, width=160), folder)
    said = out.getvalue()
    assert "p (Holm)" in said
    assert "step: 2 pairs of seeds give no interval" in said
    assert lrstudy_reports.answer(folder) in said
    assert "-0.000" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_the_import_machinery_is_raised_after_it(number):
    """In a callback of importlib the exception was printed and dropped, and the lock that it held stayed held."""
    within = compile("os.kill(os.getpid(), number)\nis_whole = True", "<frozen importlib._bootstrap>", "exec")
    names = {"os": os, "number": number}

    def import_and_wait() -> None:
        exec(within, names)
        time.sleep(60)

    before = signal.signal(number, interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            import_and_wait()
        assert names["is_whole"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)


def runs_and_targets(folder):
    columns = {"submission": ["fast", "slow"], "workload": "a", "study": 0, "trial": 0, "metric_name": "accuracy"}
    frame = pd.DataFrame({**columns, "metric": 1.0, "submission_time_s": [1.0, 2.5]})
    frame.to_parquet(folder / "runs.parquet")
    targets = {"a": {"target_metric_name": "accuracy", "validation_target_value": 0.9}}
    (folder / "targets.json").write_text(json.dumps({"workloads": targets, "base_workloads": ["a"]}))
    return [str(folder / "runs.parquet"), "--targets", str(folder / "targets.json")]


def test_score_prints_scores_for_people_and_for_programs(tmp_path, capsys):
    arguments = runs_and_targets(tmp_path)
    assert _main(["score", *arguments]) == 0
    said = capsys.readouterr().out
    assert "1.0000" in said
    assert "2.50" in said
    assert _main(["score", *arguments, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["scores"][0] == {"submission": "fast", "score": 1.0, "solved": 1}
    assert facts["costs"]["slow"] == {"a": 2.5}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--by", "epochs"], "--by: expected time or steps; got epochs"),
        (["--goal", "accuracy"], "--goal: expected METRIC=min or METRIC=max; got accuracy"),
        (["--by", "steps"], "has no column global_step"),
        (["--relax", "1"], "expected a part in [0, 1)"),
        (["--max-ratio", "1"], "expected a largest ratio above 1"),
    ],
)
def test_score_refuses_what_does_not_fit(tmp_path, capsys, more, said):
    assert _main(["score", *runs_and_targets(tmp_path), *more]) == 2
    assert said in capsys.readouterr().err
