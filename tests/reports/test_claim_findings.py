"""Claims against the tables of studies: the numbers are those of the verdict table, and what a reader is told."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lrstudy_reports import build
from lrstudy_reports.claim_findings import Finding, findings
from lrstudy_reports.claim_schema import CLAIMS
from lrstudy_reports.comparison import compare
from lrstudy_reports.tables import load
from prescribed import Training, run_study
from report_studies import SMALL, by_arm, confirmed, edit_lock, edit_table

DIFFERENCE = {"measure": "difference", "arm": "sgdr_dlr", "against": "constant", "metric": "accuracy", "side": 1}
VALUE = {"measure": "value", "arm": "step", "metric": "accuracy", "expected": 0.95}
RATIO = {"measure": "cost_ratio", "arm": "batch_increase", "against": "constant", "side": 1, "expected": 1.86}
EQUAL = {"measure": "equal", "arm": "clr", "against": "constant", "metric": "accuracy", "margin": 0.01}


def found(folder: Path, *claims: dict[str, Any]) -> list[Finding]:
    """What the study finds of claims that are put into its lock."""
    edit_lock(folder, claims=[{"text": "so it is", "source": "somebody", **claim} for claim in claims])
    study = load(folder)
    return findings(study, compare(study))


def section(folder: Path) -> str:
    """The section on claims of the report as text."""
    build(folder)
    text = (folder / "report" / "report.md").read_text().replace("\\", "")
    return text.split("\n## Claims")[1].split("\n## ")[0]


def test_a_difference_is_that_of_the_verdict_table_and_its_size_is_judged_apart(make) -> None:
    folder = make()
    row = by_arm(folder)["sgdr_dlr"]
    claims = [DIFFERENCE | {"expected": size} for size in (0.0648, 0.02)] + [DIFFERENCE | {"side": -1}]
    large, right, opposite = found(folder, *claims)
    assert (large.measured.mean, large.measured.low) == (row["difference"], row["difference_low"])
    assert (large.verdict, large.size) == ("supported", False)
    assert (right.verdict, right.size) == ("supported", True)
    assert (opposite.verdict, opposite.size) == ("contradicted", None)


def test_the_arms_of_a_difference_are_any_two_and_their_order_is_its_sign(make) -> None:
    folder = make()
    values = confirmed(folder)
    reference = stats.ttest_rel(values["step"], values["sgdr_dlr"])
    (finding,) = found(folder, DIFFERENCE | {"arm": "step", "against": "sgdr_dlr"})
    assert finding.measured.mean == pytest.approx((values["step"] - values["sgdr_dlr"]).mean())
    assert finding.measured.high == pytest.approx(reference.confidence_interval().high)
    assert finding.verdict == "contradicted"


def test_a_value_is_the_mean_over_seeds_with_its_interval(make) -> None:
    folder = make()
    row = by_arm(folder)["step"]
    inside, outside = found(folder, VALUE | {"expected": row["test_low"] + 1e-6}, VALUE | {"expected": 0.99})
    assert (inside.measured.mean, inside.measured.low, inside.measured.n) == (row["test_metric"], row["test_low"], 5)
    assert (inside.verdict, outside.verdict) == ("supported", "contradicted")


def test_the_cost_of_trainings_that_never_differ_is_a_ratio_without_an_interval(make) -> None:
    """Its direction is known all the same: every seed trains as many updates at the same price."""
    folder = make()
    rows = by_arm(folder)
    ratio = rows["constant"]["training_device_s"] / rows["batch_increase"]["training_device_s"]
    cheaper, dearer, same = found(folder, RATIO, RATIO | {"side": -1}, RATIO | {"arm": "step"})
    assert cheaper.measured.mean == pytest.approx(ratio)
    assert (cheaper.verdict, cheaper.size, cheaper.measured.n) == ("supported", None, 5)
    assert dearer.verdict == "contradicted"
    assert (same.measured.mean, same.verdict) == (1.0, "contradicted")


def test_costs_that_differ_between_seeds_have_the_interval_of_their_logarithms(make) -> None:
    folder = make()

    def shorter(epochs: pd.DataFrame) -> pd.DataFrame:
        """Confirm trials of sgdr_dlr that end after 2, 3 or 4 epochs, as trainings until a target do."""
        seed = epochs["trial_id"].str.extract(r"^sgdr_dlr-confirm-1-100(\d)$", expand=False)
        length = seed.map({"0": 2, "1": 3, "2": 3, "3": 3, "4": 4})
        return epochs[length.isna() | (epochs["epoch"] < length)]

    edit_table(folder / "epochs.parquet", shorter)
    (finding,) = found(folder, RATIO | {"arm": "sgdr_dlr"})
    logs = np.log([6 / 2, 6 / 3, 6 / 3, 6 / 3, 6 / 4])  # every epoch costs the same
    low, high = stats.t.interval(0.95, 4, logs.mean(), stats.sem(logs))
    assert finding.measured.mean == pytest.approx(math.exp(logs.mean()))
    assert (finding.measured.low, finding.measured.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert (finding.verdict, finding.size) == ("supported", True)


def test_an_undecided_claim_says_what_would_decide_it_and_what_that_costs(make) -> None:
    folder = make()
    rows = by_arm(folder)
    (finding,) = found(folder, EQUAL | {"margin": 0.005})
    row = rows["clr"]
    distance = (0.005 - abs(row["difference"])) / row["difference_sd"]
    assert finding.verdict == "undecided"
    assert finding.needed is not None
    each = rows["clr"]["training_device_s"] + rows["constant"]["training_device_s"]
    assert finding.more_device_s == pytest.approx((finding.needed - 5) * each)
    normal = ((1.96 + 0.8416) / distance) ** 2  # the sample size of the normal distribution, a little below that of t
    assert normal < finding.needed < normal + 4
    assert f"about {finding.needed} seeds per arm ({finding.needed - 5} more, up to" in section(folder)


def test_a_metric_besides_the_studys_is_taken_from_its_column(make) -> None:
    folder = make()
    trials = pd.read_parquet(folder / "trials.parquet")
    mine = trials[(trials["phase"] == "confirm") & (trials["arm"] == "step")]
    (finding,) = found(folder, VALUE | {"metric": "balanced_accuracy"})
    assert finding.measured.mean == pytest.approx(mine["test_balanced_accuracy"].mean())
    assert finding.measured.mean != pytest.approx(mine["test_metric"].mean())


def test_what_the_tables_do_not_have_was_not_measured(make) -> None:
    folder = make()
    of_none = [VALUE | {"metric": name} for name in ("train_accuracy", "exact_match")]
    of_none.append(VALUE | {"metric": "recall", "label": "no such class"})
    for finding in found(folder, *of_none):
        assert (finding.verdict, finding.note, finding.measured.n) == ("undecided", "not measured", 0)
    assert section(folder).count("| not measured | undecided | – |") == 3


def test_training_accuracy_is_taken_where_it_was_measured(make) -> None:
    folder = make()
    trials = pd.read_parquet(folder / "trials.parquet")
    trials["train_accuracy"] = trials["test_metric"] + 0.02
    trials.to_parquet(folder / "trials.parquet")
    (finding,) = found(folder, VALUE | {"metric": "train_accuracy"})
    assert finding.measured.mean == pytest.approx(by_arm(folder)["step"]["test_metric"] + 0.02)


def test_a_claim_on_a_class_is_read_from_the_predictions_of_the_confirm_trials(make) -> None:
    folder = make()
    predictions = pd.read_parquet(folder / "predictions.parquet")
    recalls = []
    for seed in range(1000, 1005):
        mine = predictions[predictions["trial_id"] == f"step-confirm-1-{seed}"]
        nines = mine[mine["label"] == 9]
        recalls.append(np.mean([np.argmax(scores) == 9 for scores in nines["scores"]]))
    (finding,) = found(folder, VALUE | {"metric": "recall", "label": "9", "expected": 0.5})
    assert finding.measured.mean == pytest.approx(np.mean(recalls))
    assert "recall of 9, step, 5 seeds" in section(folder)


def test_before_all_confirm_trials_have_ended_nothing_is_decided(make) -> None:
    folder = make("interim")
    for finding in found(folder, DIFFERENCE, VALUE, RATIO, EQUAL):
        assert (finding.verdict, finding.note) == ("undecided", "interim: confirm trials are still to come")
        assert finding.needed is None
    assert "the study's end" in section(folder)


def test_lost_seeds_withhold_what_they_could_speak_against(make) -> None:
    """As with verdicts: an arm that lost seeds may be shown to be worse, but neither better nor of some value."""

    def lose(trials: pd.DataFrame) -> pd.DataFrame:
        lost = trials["trial_id"] == "sgdr_dlr-confirm-1-1001"
        return trials.assign(
            status=trials["status"].mask(lost, "diverged"), test_metric=trials["test_metric"].mask(lost)
        )

    folder = make(edit_trials=lose)
    better, worse, value, against = found(
        folder,
        DIFFERENCE,
        DIFFERENCE | {"side": -1},
        VALUE | {"arm": "sgdr_dlr"},
        DIFFERENCE | {"arm": "constant", "against": "sgdr_dlr", "side": -1},
    )
    told = "sgdr_dlr: 1 of 5 seeds diverged; '{}' withheld: the seeds left may not speak for all"
    assert (better.verdict, better.note) == ("undecided", told.format("supported"))
    assert (worse.verdict, worse.note) == ("undecided", told.format("contradicted"))
    assert (value.verdict, value.note) == ("undecided", told.format("contradicted"))
    assert (against.verdict, against.note) == ("undecided", told.format("supported"))
    assert better.needed is None
    low = make(name="low", edit_trials=lambda trials: lose(trials.assign(
        test_metric=trials["test_metric"].where(trials["arm"] != "sgdr_dlr", trials["test_metric"] - 0.1)
    )))  # fmt: skip
    (shown,) = found(low, DIFFERENCE)
    assert (shown.verdict, shown.note) == ("contradicted", "sgdr_dlr: 1 of 5 seeds diverged")


def test_two_seeds_give_no_interval_and_a_third_is_what_is_missing(tmp_path: Path) -> None:
    folder = run_study(tmp_path, SMALL, "confirm.seeds=2", training=Training({"step": 0.05}))
    pair = {"arm": "step", "against": "constant"}
    for finding in found(folder, DIFFERENCE | pair, VALUE, EQUAL | pair, RATIO | pair):
        assert (finding.verdict, finding.needed) == ("undecided", 3)
    assert "at least 3 seeds per arm (1 more, up to" in section(folder)


def test_the_very_same_training_is_equal_and_no_gain(make) -> None:
    def as_constant(trials: pd.DataFrame) -> pd.DataFrame:
        control = trials[trials["arm"] == "constant"].set_index(["phase", "seed", "index"])
        mine = trials["arm"].eq("clr") & trials["phase"].eq("confirm")
        for name in ("lineage", "test_metric"):
            of_control = control[control.index.get_level_values("phase") == "confirm"][name].droplevel(
                ["phase", "index"]
            )
            trials.loc[mine, name] = trials.loc[mine, "seed"].map(of_control)
        return trials

    folder = make(edit_trials=as_constant)
    gain, equal = found(folder, DIFFERENCE | {"arm": "clr"}, EQUAL)
    assert (gain.verdict, equal.verdict) == ("contradicted", "supported")
    assert gain.note == equal.note == "the very same training"


def test_several_searches_are_what_an_interval_counts(tmp_path: Path) -> None:
    brief = ("search.repeats=3", "search.cohort=0", "confirm.seeds=2")
    folder = run_study(tmp_path, SMALL, *brief, training=Training({"step": 0.01}))
    row = by_arm(folder)["step"]
    pair = {"arm": "step", "against": "constant"}
    difference, value = found(folder, DIFFERENCE | pair, VALUE)
    assert (difference.measured.mean, difference.measured.low) == (row["difference"], row["difference_low"])
    assert (value.measured.low, value.measured.n) == (row["test_low"], 3)
    assert difference.counted == value.counted == "search"
    assert "3 searches" in section(folder)
    assert difference.verdict == "undecided"
    assert difference.needed > 3
    rows = by_arm(folder)
    each = sum(rows[arm]["tuning_device_s"] + 2 * rows[arm]["training_device_s"] for arm in pair.values())
    assert difference.more_device_s == pytest.approx((difference.needed - 3) * each)


def test_from_the_study_file_to_the_page_and_the_table(tmp_path: Path) -> None:
    """Also that claims change freely between runs: the second run trains nothing, and its report has another one."""
    claims = """
claims:
  - {claim: c014, measure: difference, arm: step, against: constant}
  - {claim: c060, not_testable: there are no X-ray images here}
  - {text: "step | decay saves time", source: "<b>a blog</b>", measure: cost_ratio, expected: above, arm: step, against: constant}
"""
    folder = run_study(tmp_path, SMALL + claims, training=Training({"step": 0.05}))
    text = section(folder)
    assert "Of 3 claims: 1 supported, 1 contradicted, 1 not testable." in text
    assert "workload (digits, small_cnn)" in text
    assert "c014" in text
    assert "+0.0648 (printed: 6.48 pp)" in text
    assert "supported (claimed size" in text
    assert "not testable here (there are no X-ray images here)" in text
    assert "Mishra, Yamasaki, Imaizumi 2019" in text
    page = (folder / "report" / "index.html").read_text()
    assert '<span class="pill supported">supported</span>' in page
    assert "&lt;b&gt;a blog&lt;/b&gt;" in page
    table = pd.read_parquet(folder / "claims.parquet")
    assert list(table.columns) == CLAIMS.names
    assert table["verdict"].tolist() == ["supported", "not testable", "contradicted"]
    assert table["expected"].tolist()[0] == 0.0648
    assert pd.read_csv(folder / "report" / "tables" / "claims.csv")["text"].tolist() == table["text"].tolist()
    again = (
        SMALL + "claims: [{text: it is equal, source: me, measure: equal, margin: 0.1, arm: step, against: constant}]\n"
    )
    assert run_study(tmp_path, again, training=Training({"step": 0.05})) == folder
    assert json.loads((folder / "study.lock.json").read_text())["deviations"] == []
    assert "Of 1 claim: 1 supported." in section(folder)


def test_a_study_without_claims_has_no_section_and_an_empty_table(reported: Path) -> None:
    assert 'id="claims"' not in (reported / "report" / "index.html").read_text()
    assert len(pd.read_parquet(reported / "claims.parquet")) == 0


def test_claims_that_no_run_has_written_are_refused_in_one_sentence(make) -> None:
    folder = make("small", lock={"claims": [{"text": "so", "measure": "value", "arm": "step", "expected": "all"}]})
    with pytest.raises(ValueError, match=r"study\.lock\.json has a claim that no run has written"):
        build(folder)
    edit_lock(folder, claims=[{"text": "so", "measure": "value", "arm": "gone", "metric": "accuracy", "expected": 0.5}])
    assert "gone is no arm of the study" in section(folder)
