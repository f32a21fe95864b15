"""lrstudy plan: what it forecasts is what a run then asks for, trains and pays."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lrstudy.cli import _main
from lrstudy.memo.memo import Memo
from lrstudy.planning import study_lock
from lrstudy.planning.plan import Plan
from lrstudy.policies.spaces import search_spaces
from lrstudy.running import forecast_cost
from lrstudy.running.forecast import Forecast, forecast
from lrstudy.running.forecast_cost import Timing
from lrstudy.running.tables import TableWriter
from lrstudy.search import INDEPENDENT, stream
from lrstudy.study_folder.journal import Journal
from lrstudy.trial.spec import TrialSpec
from serial import SMALL, Serial, study
from study_files import NUMERICS, plan_of
from study_files import SMALL as PLAIN

REACTIVE = SMALL.replace(
    "[constant, step, clr]", "{constant: , plateau: {metric: val_accuracy, patience: 0, factor: 0.5}}"
)


def made(tmp_path: Path, *overrides: str, text: str = SMALL) -> Plan:
    return study(tmp_path, text, *overrides).plan()[0]


def foreseen(plan: Plan, folder: Path) -> Forecast:
    return forecast(plan, Journal(folder / "small" / "journal"), Memo(folder / "memo"))


@pytest.mark.parametrize("text", [SMALL, REACTIVE], ids=["step and clr", "plateau"])
@pytest.mark.parametrize("method", ["random", "grid"])
def test_a_run_asks_for_and_trains_what_was_foreseen(tmp_path: Path, text: str, method: str) -> None:
    plan = made(tmp_path, f"search.method={method}", text=text)
    before = foreseen(plan, tmp_path / "runs")
    serial = Serial(plan, tmp_path / "runs", slots=2, order=lambda n: n - 1)
    admission = serial.run()
    tuned = [t for t in admission.trials.values() if t.phase != "confirm"]
    lineages = {record.lineage for trial in tuned for record in trial.records}
    assert before.total.known_trials == len(tuned)
    assert before.total.known_asked == sum(len(trial.records) for trial in tuned)
    assert before.total.trials == len(admission.trials)
    if text == SMALL:
        assert before.known_distinct == len(lineages)
        assert before.total.distinct >= len(set(serial.trained))
    after = foreseen(plan, tmp_path / "runs")
    assert after.total.to_train == 0, "everything is known and recorded now, triggered chains too"
    assert after.total.recorded == after.total.distinct == len(set(serial.trained))
    assert sum(after.work.values()) == 0
    assert {r.lineage for r in after.records} == set(serial.trained)


QUICKSTART = (search_spaces() / "studies" / "quickstart.yaml").read_text()
FORESEEN = {
    "quickstart": (QUICKSTART, [], (105, 40, 1260, 972, 192)),
    "quickstart at random": (QUICKSTART, ["search.method=random"], (65, 40, 780, 694, 394)),
    "seeds": (PLAIN, ["search.seeds=[0, 1, 2]", "confirm={top: 2, seeds: 2}"], (48, 36, 192, 171, 123)),
    "a grid that ends": (PLAIN, ["search={method: grid, trials: 20}"], (65, 50, 260, 183, 123)),
    "searchers that agree": (
        PLAIN, ["search={method: [random, grid], trials: 7}", "confirm={top: 2, seeds: 3}"], (60, 42, 240, 159, 87)
    ),
    "a model beside them": (
        PLAIN, ["search={method: [hyperopt, random, grid], trials: 6, seeds: [0, 1]}"], (123, 90, 492, 292, 160)
    ),
    "more asked for than there is": (
        PLAIN,
        ["common.lr={choice: [0.1, 0.2]}", "search={method: [hyperopt, random], trials: 30}"],
        (165, 120, 660, 280, 100),
    ),
}  # fmt: skip
"""What is foreseen of studies that have not begun: trials, known ones, epochs asked, distinct ones, those of known trials.

Counted by a forecast that enumerated suggestions and walked chains by itself, before it was the protocol's to say.
"""


@pytest.mark.parametrize("name", FORESEEN)
def test_what_is_foreseen_stays_the_same(tmp_path: Path, name: str) -> None:
    text, overrides, expected = FORESEEN[name]
    ahead = forecast(plan_of(*overrides, text=text), Journal(tmp_path / "journal"), Memo(tmp_path / "memo"))
    total = ahead.total
    assert (total.trials, total.known_trials, total.asked, total.distinct, ahead.known_distinct) == expected
    assert sum(ahead.work.values()) == total.to_train
    assert sum(ahead.asked_work.values()) == total.asked


@pytest.mark.parametrize("text", [SMALL, REACTIVE], ids=["step and clr", "plateau"])
@pytest.mark.parametrize("method", ["[random, hyperopt]", "[grid, smac]"])
def test_what_is_foreseen_of_half_a_run_is_what_the_next_one_knows(tmp_path: Path, text: str, method: str) -> None:
    """The trials that exist when a run is taken up again, on the chains that what is recorded has put them on."""
    plan = made(tmp_path, f"search.method={method}", "search.seeds=[0, 1]", text=text)
    folder = tmp_path / "runs"
    half = Serial(plan, folder, slots=2, order=lambda n: n - 1)
    half.run(stop_after=40)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    ahead = foreseen(plan, folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before, (
        "a forecast writes nothing"
    )
    again = Serial(plan, folder)
    again.admission.next()
    suggested = {
        (line["arm"], line["method"], line["index"])
        for line in Journal(folder / "small" / "journal").of_kind("suggest")
        if line["run"] == 1
    }
    known = [
        trial
        for trial in again.admission.trials.values()
        if trial.method in INDEPENDENT or (trial.arm, trial.method, trial.index) in suggested
    ]
    assert ahead.total.known_trials == len(known)
    assert ahead.total.known_asked == sum(len(trial.chain) for trial in known)
    assert ahead.known_distinct == len({name for trial in known for name in trial.chain})
    assert {record.lineage for record in ahead.records} == set(half.trained)


def test_no_searcher_that_learns_is_asked_and_settings_are_computed_once_for_all_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = made(tmp_path, "search.method=[hyperopt, smac, random]", "search.seeds=[0, 1, 2]")
    asked, computed = [], []
    make, untriggered = stream.make, TrialSpec.untriggered
    monkeypatch.setattr(stream, "make", lambda method, *rest: asked.append(method) or make(method, *rest))
    monkeypatch.setattr(TrialSpec, "untriggered", lambda spec: computed.append(spec.trial_id) or untriggered(spec))
    ahead = foreseen(plan, tmp_path / "runs")
    assert asked == ["random"] * 3
    assert ahead.total.known_trials == 3 * (2 + 2 + 4) * 3
    assert len(computed) == 3 * 4, "searchers share the cohort's two points, and seeds share all"


def test_a_complete_study_of_which_less_is_asked_now_is_complete(tmp_path: Path) -> None:
    """Suggestions of earlier runs hold, though there are fewer of them to make now than the cohort had points."""
    folder = tmp_path / "runs"
    plan = made(tmp_path, "search={method: grid, trials: 6, cohort: 4}")
    Serial(plan, folder).run()
    fewer = study(tmp_path, SMALL, "search={method: grid, trials: 2, cohort: 2}").file
    ahead = foreseen(replace(plan, study=fewer), folder)
    assert ahead.total.known_trials == ahead.total.trials == 3 * 6 + 3 * 2
    assert ahead.total.to_train == 0


def test_trials_of_a_model_are_unknown_until_it_has_suggested_them(tmp_path: Path) -> None:
    plan = made(tmp_path, "search.method=hyperopt")
    before = foreseen(plan, tmp_path / "runs")
    assert (before.total.known_trials, before.total.trials) == (3 * 2, 3 * 4 + 3 * 2)
    assert before.total.asked == before.total.trials * 4
    assert before.sharing < before.known_sharing
    Serial(plan, tmp_path / "runs").run()
    after = foreseen(plan, tmp_path / "runs")
    assert after.total.known_trials == after.total.trials == 18


def test_the_tree_says_who_shares_what(tmp_path: Path) -> None:
    plan = plan_of(
        "arms={constant: , step: {milestones: [2]}, twin: {policy: step, milestones: [2]}}", "search.trials=1"
    )
    found = forecast(plan, Journal(tmp_path / "journal"), Memo(tmp_path / "memo"))
    (branch,) = found.tree
    assert (branch.start, branch.end, branch.members) == (0, 2, ("constant 0", "step 0", "twin 0"))
    (below,) = branch.below
    assert (below.start, below.end, below.members) == (2, 4, ("step 0", "twin 0"))
    assert branch.saved == 2 * 2 + 2 == found.total.known_asked - found.known_distinct


def test_continuous_ranges_and_what_cannot_be_shared_are_warned_of(tmp_path: Path) -> None:
    plan = plan_of("common.lr={log: [0.01, 1]}", "arms.clr.weight_decay={uniform: [0, 0.01]}", "search.trials=2")
    warnings = forecast(plan, Journal(tmp_path / "journal"), Memo(tmp_path / "memo")).warnings
    assert warnings[0].startswith(
        "common.lr is a continuous range: no two trials draw the same value, so of constant, step, clr"
    )
    assert "Give it `steps`" in warnings[0]
    assert any(warning.startswith("arms.clr.weight_decay is a continuous range") for warning in warnings)


def test_seconds_follow_from_updates_batches_and_evaluations() -> None:
    timing = Timing({16: 0.010, 64: 0.030}, 0.5, "measured", 2, epoch_s=0.1)
    assert timing.update_s(8) == 0.010, "smaller batches are not faster"
    assert timing.update_s(40) == pytest.approx(0.020)
    assert timing.update_s(128) == pytest.approx(0.060), "larger ones grow with their examples"
    assert timing.seconds(Counter({(16, 100): 2, (64, 25): 1})) == pytest.approx(2 * 1.6 + 0.75 + 0.6)


def test_costs_and_noise_are_those_of_the_records(tmp_path: Path) -> None:
    plan = made(tmp_path)
    assert forecast_cost.recorded_timing(plan, tmp_path / "runs", ()) is None
    assumed = forecast_cost.noise(plan, tmp_path / "runs")
    assert assumed.pairs == 0
    assert "nothing is recorded to measure the noise with" in assumed.assumption
    folder = tmp_path / "runs" / "small"
    serial = Serial(plan, tmp_path / "runs")
    serial.run()
    TableWriter(serial.admission, folder).write(0.0)
    (folder / "study.lock.json").write_text(study_lock.render(plan, (), is_complete=True, versions={}))
    epochs = pq.read_table(folder / "epochs.parquet").to_pylist()
    distinct = {row["lineage"]: row for row in epochs}.values()
    timing = forecast_cost.recorded_timing(plan, tmp_path / "runs", ())
    assert timing is not None
    assert (timing.source, timing.count) == ("recorded", len(distinct))
    assert timing.per_update_s[20] == pytest.approx(np.median([r["train_s"] / r["updates"] for r in distinct]))
    assert timing.evaluation_s == pytest.approx(np.median([r["eval_s"] for r in distinct]))
    trials = [t for t in serial.admission.trials.values() if t.phase == "confirm"]
    test = {(t.arm, t.seed): (t.test or {})["accuracy"] for t in trials}
    gaps = [np.array([test[arm, seed] - test["constant", seed] for seed in (1000, 1001)]) for arm in ("step", "clr")]
    found = forecast_cost.noise(plan, tmp_path / "runs")
    assert found.low == found.high == pytest.approx(np.sqrt(np.mean([gap.var(ddof=1) for gap in gaps])))
    table = pq.read_table(folder / "trials.parquet")
    pq.write_table(table.drop_columns(["rank"]), folder / "trials.parquet")
    assert forecast_cost.noise(plan, tmp_path / "runs") == found, "tables of earlier versions have ranks in ids alone"
    other = made(tmp_path, "workload.split.seed=3", "name=other")
    assert forecast_cost.recorded_timing(other, tmp_path / "runs", ()) is None, "another workload"


def test_a_probe_times_the_batches_that_will_be_trained(tmp_path: Path) -> None:
    plan = made(tmp_path)
    timing = forecast_cost.probe(plan, Counter({(20, 4): 10, (40, 2): 5}))
    assert set(timing.per_update_s) == {20, 40}
    assert all(0 < seconds < 10 for seconds in (*timing.per_update_s.values(), timing.evaluation_s))
    assert timing.source == "measured"


def test_the_command_tells_people_and_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lrstudy.workload.numerics.probe", lambda *_: NUMERICS)
    path = tmp_path / "s.yaml"
    path.write_text(SMALL + "storage: {path: runs}\ncompare: {margin: 0.001}\nprice: {cpu_core_hour: 36}\n")
    timing = Timing({20: 0.5}, 0.0, "measured", 1)
    monkeypatch.setattr(forecast_cost, "probe", lambda plan, work: timing)
    assert _main(["plan", str(path), "--probe", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["total"]["trials"] == 3 * 4 + 3 * 2
    hours = found["total"]["to_train"] * 4 * 0.5 / 3600  # four updates an epoch
    assert found["cost"]["device_hours"] == pytest.approx(hours)
    assert found["cost"]["money"] == pytest.approx(36 * hours)
    assert found["cost"]["device_hours_without_sharing"] == pytest.approx(found["total"]["asked"] * 4 * 0.5 / 3600)
    assert found["detectable"]["low"] < found["detectable"]["high"]
    assert _main(["plan", str(path)]) == 0
    said = capsys.readouterr().out
    assert "small: 18 trials of 4 epochs" in said
    assert "Cost: unknown; use --probe." in said
    assert "Smallest detectable difference" in said
    assert "compare.margin (0.1 points)" in said
    assert not (tmp_path / "runs" / "small").exists(), "planning begins no study"
