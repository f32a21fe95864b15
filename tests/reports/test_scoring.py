"""Scores over workloads: published ones reproduced, the rules worked by hand, wrong files refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from lrstudy_reports.scoring import ProfileRules, score

PUBLISHED_FOLDER = Path(__file__).parents[3] / "shared" / "algoperf"
PUBLISHED = {
    "shampoo_submission": 0.7784,
    "schedule_free_adamw": 0.7077,
    "generalized_adam": 0.6383,
    "cyclic_lr": 0.6301,
    "nadamp": 0.5909,
    "baseline": 0.5707,
    "amos": 0.4918,
    "caspr_adaptive": 0.4722,
    "lawa_queue": 0.3699,
    "lawa_ema": 0.3384,
    "schedule_free_prodigy": 0.0,
}
"""Scores of the external tuning ruleset of AlgoPerf v0.5, as MLCommons published them."""


@pytest.mark.skipif(not PUBLISHED_FOLDER.is_dir(), reason="needs ../shared/algoperf")
def test_published_scores_are_reproduced_to_four_digits():
    result = score(PUBLISHED_FOLDER / "v05_external_tuning.parquet", PUBLISHED_FOLDER / "workload_targets_v05.json")
    assert {row["submission"]: round(row["score"], 4) for row in result.rows()} == PUBLISHED
    assert [row["submission"] for row in result.rows()] == list(PUBLISHED)


def run(submission, workload, values, *, study=0, trial=0, seconds=10.0, metric="accuracy"):
    """A trial's evaluations, `seconds` and 100 steps apart."""
    return [
        {
            "submission": submission,
            "workload": workload,
            "study": study,
            "trial": trial,
            "metric_name": metric,
            "metric": value,
            "submission_time_s": seconds * (k + 1),
            "global_step": 100 * (k + 1),
        }
        for k, value in enumerate(values)
    ]


def scored(tmp_path, rows, workloads=None, base=("a",), held_out=(), **options):
    targets = workloads or {name: target() for name in (*base, *held_out)}
    file = tmp_path / "targets.json"
    file.write_text(json.dumps({"workloads": targets, "base_workloads": base, "held_out_workloads": held_out}))
    pd.DataFrame([row for each in rows for row in each]).to_parquet(tmp_path / "runs.parquet")
    return score(tmp_path / "runs.parquet", file, **options)


def target(value=0.9, metric="accuracy", **more):
    return {"target_metric_name": metric, "validation_target_value": value, **more}


def scores(result):
    return {row["submission"]: row["score"] for row in result.rows()}


def test_the_cost_is_that_of_the_first_evaluation_that_reaches_the_target(tmp_path):
    result = scored(tmp_path, [run("x", "a", [0.5, 0.9, 0.8]), run("y", "a", [0.5, 0.6, 0.89])])
    assert result.costs["a"].to_dict() == {"x": 20.0, "y": math.inf}
    assert scores(result) == {"x": 1.0, "y": 0.0}


def test_of_several_trials_the_one_counts_that_needs_the_fewest_evaluations(tmp_path):
    """It is chosen by evaluations and not by seconds, as AlgoPerf's scoring code does."""
    slow_but_early = run("x", "a", [0.95], trial=0, seconds=50.0)
    fast_but_late = run("x", "a", [0.1, 0.95], trial=1, seconds=10.0)
    result = scored(tmp_path, [slow_but_early, fast_but_late])
    assert result.costs.loc["x", "a"] == 50.0


@pytest.mark.parametrize(
    ("reached", "expected"), [([10, 30, 20], 20.0), ([10, None, 30], 30.0), ([10, None, None], math.inf)]
)
def test_a_workloads_cost_is_the_median_over_studies(tmp_path, reached, expected):
    rows = [
        run("x", "a", [0.0 if cost is None else 1.0], study=k, seconds=cost or 10.0) for k, cost in enumerate(reached)
    ]
    assert scored(tmp_path, rows).costs.loc["x", "a"] == expected


def test_the_score_is_the_area_under_the_profile(tmp_path):
    """y takes twice as long on `a` and as long on `b`: its profile is 1/2 up to 2 and 1 from there on."""
    rows = [run("x", "a", [1.0]), run("y", "a", [1.0], seconds=20.0), run("x", "b", [1.0]), run("y", "b", [1.0])]
    result = scored(tmp_path, rows, base=("a", "b"), rules=ProfileRules(max_ratio=4.0, num_points=3001))
    assert scores(result)["x"] == 1.0
    assert scores(result)["y"] == pytest.approx((0.5 * 1 + 1.0 * 2) / 3, abs=1e-3)


def test_what_is_slower_than_the_largest_ratio_is_not_solved(tmp_path):
    rows = [run("x", "a", [1.0]), run("y", "a", [1.0], seconds=41.0)]
    assert scores(scored(tmp_path, rows)) == {"x": 1.0, "y": 0.0}
    assert scores(scored(tmp_path, rows, rules=ProfileRules(max_ratio=5.0)))["y"] > 0


def test_a_base_workload_counts_only_with_its_held_out_variant(tmp_path):
    rows = [
        run("x", "a", [1.0]), run("x", "a_deep", [1.0], seconds=30.0),
        run("y", "a", [1.0], seconds=20.0),  # no run of the variant
        run("z", "a", [0.0]), run("z", "a_deep", [1.0], seconds=1.0),  # the variant does not count, and is not the fastest
    ]  # fmt: skip
    result = scored(tmp_path, rows, held_out=("a_deep",))
    assert scores(result) == {"x": 1.0, "y": 0.0, "z": 0.0}


def test_goals_are_explicit_and_those_of_unknown_metrics_are_asked_for(tmp_path):
    rows = [run("x", "a", [3.0, 1.0], metric="regret")]
    unknown = {"a": target(2.0, "regret")}
    with pytest.raises(ValueError, match="is regret to be minimised or maximised"):
        scored(tmp_path, rows, unknown)
    assert scored(tmp_path, rows, {"a": target(2.0, "regret", goal="min")}).costs.loc["x", "a"] == 20.0
    assert scored(tmp_path, rows, unknown, goals={"regret": "max"}).costs.loc["x", "a"] == 10.0


def test_steps_budgets_and_relaxed_targets(tmp_path):
    rows = [run("x", "a", [0.80, 0.86, 0.91])]
    with_hint = {"a": target(step_hint=200)}
    assert scored(tmp_path, rows, with_hint, by="steps").costs.loc["x", "a"] == 300
    assert scored(tmp_path, rows, with_hint, by="steps", budget=1.0).costs.loc["x", "a"] == math.inf
    assert scored(tmp_path, rows, with_hint, by="steps", budget=1.0, relax=0.05).costs.loc["x", "a"] == 200
    assert scored(tmp_path, rows, {"a": target(max_time_s=25)}).costs.loc["x", "a"] == math.inf
    with pytest.raises(ValueError, match="goes with --by steps"):
        scored(tmp_path, rows, with_hint, budget=1.0)


def test_a_minimised_target_is_relaxed_upwards(tmp_path):
    rows = [run("x", "a", [2.2, 2.05, 1.9], metric="loss")]
    assert scored(tmp_path, rows, {"a": target(2.0, "loss")}).costs.loc["x", "a"] == 30.0
    assert scored(tmp_path, rows, {"a": target(2.0, "loss")}, relax=0.05).costs.loc["x", "a"] == 20.0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda frame: frame.drop(columns="metric"), "has no column metric: expected one row per evaluation"),
        (lambda frame: frame.head(0), "has no evaluations"),
        (lambda frame: frame.assign(metric="high"), "expected numbers in metric; got 'high'"),
        (lambda frame: frame.assign(workload="c"), r"no run is of a workload that counts \(a\); got c"),
        (lambda frame: frame.assign(metric_name="bleu"), "no run of a measured accuracy, its target's metric; they have bleu"),
        (lambda frame: frame.assign(study=None), "rows without study"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_refused_in_one_paragraph(tmp_path, spoil, message):
    spoil(pd.DataFrame(run("x", "a", [1.0]))).to_parquet(tmp_path / "runs.parquet")
    (tmp_path / "targets.json").write_text(json.dumps({"workloads": {"a": target()}, "base_workloads": ["a"]}))
    with pytest.raises(ValueError, match=message):
        score(tmp_path / "runs.parquet", tmp_path / "targets.json")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected `workloads`, a map, and `base_workloads`"),
        ('{"workloads": {}, "base_workloads": ["a"]}', "no target of a"),
        ('{"workloads": {"a": {"target_metric_name": "loss"}}, "base_workloads": ["a"]}', "validation_target_value, a number"),
        (
            '{"workloads": {"a": {"target_metric_name": "loss", "validation_target_value": 1, "max_steps": -1}}, "base_workloads": ["a"]}',
            "max_steps: expected a number above 0",
        ),
    ],
)  # fmt: skip
def test_targets_that_do_not_fit_are_refused(tmp_path, raw, message):
    pd.DataFrame(run("x", "a", [1.0])).to_parquet(tmp_path / "runs.parquet")
    (tmp_path / "targets.json").write_text(raw)
    with pytest.raises(ValueError, match=message):
        score(tmp_path / "runs.parquet", tmp_path / "targets.json")


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "runs.parquet").write_text("no table")
    (tmp_path / "targets.json").write_text(json.dumps({"workloads": {"a": target()}, "base_workloads": ["a"]}))
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        score(tmp_path / "runs.parquet", tmp_path / "targets.json")
