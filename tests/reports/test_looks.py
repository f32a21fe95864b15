"""Looks at the test part: planned ones, unplanned ones and what they leave in lock, journal and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lrstudy.study_folder.journal import Journal
from lrstudy_reports import answer, build, is_decided
from prescribed import Training, run_study
from report_studies import SMALL, by_arm, confirmed

CLEAR, CLOSE = Training({"step": 0.05}), Training({"step": 0.0005})
READ_ONCE = "The test part was read once"


def lock_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "study.lock.json").read_text()))


def num_confirmed(folder: Path) -> int:
    return int((pd.read_parquet(folder / "trials.parquet")["phase"] == "confirm").sum())


def test_more_seeds_after_a_look_are_a_deviation_and_stay_one(tmp_path: Path) -> None:
    """3 -> 6 -> 3: the six stay, as does what happened, and nothing calls the verdict more than exploratory."""
    folder = run_study(tmp_path, SMALL, "confirm.seeds=3", training=CLOSE)
    assert lock_of(folder)["deviations"] == []
    assert READ_ONCE in Path(build(folder)).read_text()
    for seeds in (6, 3):
        assert run_study(tmp_path, SMALL, f"confirm.seeds={seeds}", training=CLOSE) == folder
        lock, page = lock_of(folder), Path(build(folder)).read_text()
        told = "run 2: confirm.seeds went from 3 to 6, after 6 confirm trials had read the test part"
        assert lock["deviations"] == [told]
        assert lock["confirm"] == {"top": 1, "seeds": 6, "looks": [6]}
        assert num_confirmed(folder) == 12
        assert all(row["exploratory"] for row in by_arm(folder).values())
        assert answer(folder).startswith("Exploratory, as the plan was changed after the test part had been read: ")
        assert f"Deviation: {told}" in page
        assert "Verdict (exploratory)" in page
        assert READ_ONCE not in page


def test_fewer_trials_are_treated_as_fewer_seeds_are(tmp_path: Path) -> None:
    """What was suggested stays, for all arms; the report counts what was used."""
    folder = run_study(tmp_path, SMALL, "search.trials=4")
    before = pd.read_parquet(folder / "trials.parquet").set_index("trial_id")["lineage"]
    run_study(tmp_path, SMALL, "search.trials=3", "confirm.seeds=4")
    after = pd.read_parquet(folder / "trials.parquet").set_index("trial_id")["lineage"]
    assert after.to_dict() == before.to_dict()
    assert (lock_of(folder)["trials_per_arm"], lock_of(folder)["deviations"]) == (4, [])
    assert "Tuned on validation: 4 configurations per arm" in Path(build(folder)).read_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("compare.margin=0.05", "compare.margin went from none to 0.05"),
        ("compare.control=step", "compare.control went from constant to step"),
        ("arms.clr={step_size: 1}", "clr came in"),
        ("arms={constant: }", "step went out"),
        ("arms.step.gamma=0.5", "step@2 came in; step went out"),
    ],
)
def test_whatever_verdicts_depend_on_leaves_its_trace(tmp_path: Path, change: str, told: str) -> None:
    folder = run_study(tmp_path, SMALL, "confirm.seeds=3")
    run_study(tmp_path, SMALL, "confirm.seeds=3", change)
    assert lock_of(folder)["deviations"] == [f"run 2: {told}, after 6 confirm trials had read the test part"]


def test_what_is_changed_before_the_test_part_is_read_is_no_deviation(tmp_path: Path) -> None:
    folder = run_study(tmp_path, SMALL, "confirm.top=0")
    run_study(tmp_path, SMALL, "confirm.seeds=3", "compare.margin=0.01")
    assert lock_of(folder)["deviations"] == []


def test_a_look_that_decides_all_comparisons_is_the_last(tmp_path: Path) -> None:
    folder = run_study(tmp_path, SMALL, "confirm.seeds=[3, 6]", training=CLEAR, is_decided=is_decided)
    lock = lock_of(folder)
    assert num_confirmed(folder) == 6
    assert lock["complete"]
    assert lock["confirm"] == {"top": 1, "seeds": 3, "looks": [3, 6]}
    assert by_arm(folder)["step"]["verdict"] == "better"
    assert "complete, 12 trials" in Path(build(folder)).read_text()

    run_study(tmp_path, SMALL, "confirm.seeds=[3, 6]", training=CLEAR, is_decided=lambda _: pytest.fail("asked again"))
    assert num_confirmed(folder) == 6


def test_an_undecided_look_is_followed_by_the_next_at_its_share_of_alpha(tmp_path: Path) -> None:
    folder = run_study(tmp_path, SMALL, "confirm.seeds=[3, 6]", training=CLOSE, is_decided=is_decided)
    assert num_confirmed(folder) == 12
    assert lock_of(folder)["confirm"]["seeds"] == 6
    assert lock_of(folder)["deviations"] == []
    row, values = by_arm(folder)["step"], confirmed(folder)
    interval = stats.ttest_rel(values["step"], values["constant"]).confidence_interval(0.975)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((interval.low, interval.high))
    page = Path(build(folder)).read_text()
    assert "Planned looks after 3 and 6 seeds" in page
    assert READ_ONCE not in page
    assert "Verdict at each planned look, each at 0.025" in page
    assert "97.5% intervals in brackets" in page
    looks = [(line["seeds"], line["decided"]) for line in Journal(folder / "journal").of_kind("look")]
    assert looks == [(3, False)]


def test_a_verdict_needs_the_share_of_its_look(make: Any) -> None:
    """A p-value of 0.033 is enough for one look, and not for one of two."""
    values = confirmed(make("small", name="plain"))
    p = stats.ttest_rel(values["step"], values["constant"]).pvalue
    several = {"top": 1, "seeds": 5, "looks": [5, *range(6, 6 + int(0.05 / p))]}  # a share below p
    assert by_arm(make("small", name="one"))["step"]["verdict"] == "better"
    assert by_arm(make("small", name="many", lock={"confirm": several}))["step"]["verdict"] == "undecided"


def test_planned_looks_keep_the_error_at_five_percent() -> None:
    """Two arms that are equal, looks after 5 and 10 seeds: by chance 1 study in 20 sees a difference at either.

    Two looks at 0.05 would see one in 8% of the studies. The tolerance is three standard errors.
    """
    rng, studies = np.random.default_rng(2), 4000
    differences = rng.normal(size=(studies, 10))
    p_values = [stats.ttest_1samp(differences[:, :seeds], 0, axis=1).pvalue for seeds in (5, 10)]
    assert ((p_values[0] < 0.025) | (p_values[1] < 0.025)).mean() < 0.05 + 0.0105
    assert ((p_values[0] < 0.05) | (p_values[1] < 0.05)).mean() > 0.07


def test_an_interrupted_extension_keeps_the_last_complete_answer(tmp_path: Path) -> None:
    folder = run_study(tmp_path / "runs", SMALL, "confirm.seeds=3", training=CLEAR)
    build(folder)
    complete = answer(folder)
    assert complete.startswith("step reached")
    between = tmp_path / "between"
    moments = {between: lambda admission: sum(t.test is not None for t in admission.trials.values()) == 8}
    run_study(tmp_path / "runs", SMALL, "confirm.seeds=6", training=CLEAR, moments=moments)
    page = Path(build(between)).read_text().replace("\u00a0", " ")
    for text in (answer(between), page):
        assert complete in text
        assert (
            "The answer of 2025-10-09, from 3 seeds of each of 2 arms. The study has gone on since: running, 14 of 18"
            in text
        )
    assert {row["verdict"] for row in by_arm(between).values()} == {"control", "undecided"}
    build(folder)
    assert answer(folder).startswith("Exploratory")
    assert json.loads((folder / "report" / "answer.json").read_text())["seeds"] == 6


def test_a_count_of_trials_knows_small_spaces_and_leaves_out_retired_arms(tmp_path: Path) -> None:
    """Every arm has two configurations, though three are asked for; clr has gone out."""
    lr = "common={lr: {choice: [0.02, 0.05]}, weight_decay: 0, batch_size: 32}"
    small = (lr, "arms.step.gamma=0.5", "confirm.seeds=3")
    clr = "arms.clr={mode: triangular, step_size: 1, base_ratio: 0.1}"
    folder = run_study(tmp_path, SMALL, *small, clr)
    assert lock_of(folder)["planned_trials"] == 3 * (2 + 3)
    run_study(tmp_path, SMALL, *small)
    assert lock_of(folder)["planned_trials"] == 2 * (2 + 3)
    page = Path(build(folder)).read_text()
    assert "complete, 10 trials" in page
    assert "Tuned on validation: 2 configurations per arm" in page
