"""What a report says of chosen configurations: edges of ranges, changed arms, and what became of the tuned value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lrstudy_reports import build
from lrstudy_reports.configurations import edges
from prescribed import Training, run_study
from report_studies import SMALL, by_arm


@pytest.mark.parametrize(
    ("spec", "value", "found"),
    [
        ({"log": [0.001, 1.0], "steps": 10}, 1.0, ["lr (highest)"]),
        ({"log": [0.001, 1.0], "steps": 10}, 0.001, ["lr (lowest)"]),
        ({"log": [0.001, 1.0]}, 0.5, []),
        ({"uniform": [0, 0.9]}, 0, []),
        ({"int": [1, 9]}, 9, ["lr (highest)"]),
        ({"ordered": [0.1, 0.2, 0.5]}, 0.1, ["lr (lowest)"]),
        ({"ordered": ["10%", "50%"]}, "50%", ["lr (last)"]),
        ({"choice": [0.1, 0.5]}, 0.5, []),
        (0.5, 0.5, []),
    ],
)
def test_a_value_at_the_edge_of_its_range_is_known(spec: object, value: object, found: list[str]) -> None:
    assert list(edges({"lr": value}, {"policy": "constant", "lr": spec})) == found


def test_a_best_value_at_the_edge_of_its_range_is_flagged(tmp_path: Path) -> None:
    """The best rate is 0.05, and the study searches up to 0.02 only."""
    all_three = ("common.lr={ordered: [0.005, 0.01, 0.02]}", "common.weight_decay=0", "search.method=grid")
    folder = run_study(tmp_path, SMALL, *all_three, "confirm.seeds=3")
    assert by_arm(folder)["constant"]["configuration"].count('"lr": 0.02')
    text = build(folder).with_name("report.md").read_text()
    assert "(at the edge of its range: lr (highest))" in text
    assert "a wider range would show" in text


def test_inside_of_its_range_nothing_is_flagged(reported: Path) -> None:
    assert "at the edge" not in (reported / "report" / "report.md").read_text()


def test_a_changed_arm_is_shown_with_what_differs(tmp_path: Path) -> None:
    folder = run_study(tmp_path, SMALL, "confirm.seeds=3")
    run_study(tmp_path, SMALL, "confirm.seeds=3", "arms.step={milestones: [1], gamma: 0.5}")
    page = Path(build(folder)).read_text()
    assert "step@2 is step as it was changed after an earlier run: milestones [2] before, [1] now; gamma" in page
    assert "of an earlier run; not in the study file any more, not tested" in page


def test_tuned_confirmed_and_test_values_stand_side_by_side(study: Path) -> None:
    trials, rows = pd.read_parquet(study / "trials.parquet"), by_arm(study)
    for arm, row in rows.items():
        mine = trials[trials["arm"] == arm]
        tuned = mine[(mine["phase"] != "confirm") & (mine["searcher"] == "random")]["final_val_metric"].max()
        assert row["tuned_val_metric"] == pytest.approx(tuned)
        confirmed = mine[mine["phase"] == "confirm"]["final_val_metric"].mean()
        assert row["confirmed_val_metric"] == pytest.approx(confirmed)


def test_the_page_has_the_three_values_and_the_drop(reported: Path) -> None:
    row = next(row for arm, row in by_arm(reported).items() if arm == "constant")
    text = (reported / "report" / "report.md").read_text()
    line = next(line for line in text.split("## From tuning to test")[1].splitlines() if line.startswith("| constant"))
    assert f"{row['tuned_val_metric']:.3f}" in line
    drop = row["confirmed_val_metric"] - row["tuned_val_metric"]
    assert f"{row['confirmed_val_metric']:.3f} ({drop:+.3f} to tuned)".replace("-", "−") in line


@pytest.mark.parametrize(("shift", "is_said"), [(0.0, False), (0.35, True)])
def test_a_test_part_that_is_unlike_the_validation_part_is_said(
    make: Callable[..., Path], shift: float, is_said: bool
) -> None:
    folder = make("small", edit_trials=lambda trials: trials.assign(test_metric=trials["test_metric"] - shift))
    page = Path(build(folder)).read_text()
    assert ("which is more than chance explains: the parts differ" in page) == is_said


def test_without_repeats_the_page_says_what_the_intervals_leave_out(reported: Path) -> None:
    assert "They do not include the spread over searches" in (reported / "report" / "index.html").read_text()


def test_a_gap_that_small_parts_explain_is_not_said(tmp_path: Path) -> None:
    """Thirty test images: a share of 0.75 varies by 0.1 in them, so that a gap of 0.15 means nothing."""
    training = Training({"constant": -0.2, "step": -0.2})
    folder = run_study(tmp_path, SMALL, "workload.split={test: 30, validation: 100}", training=training)
    trials = pd.read_parquet(folder / "trials.parquet")
    trials.assign(test_metric=trials["test_metric"] - 0.15).to_parquet(folder / "trials.parquet")
    assert "the parts differ" not in Path(build(folder)).read_text()
