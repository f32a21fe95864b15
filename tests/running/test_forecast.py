"""lrstudy plan: what it forecasts is what a run then asks for, trains and pays."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from benchmarks.simulation import simulate

from lrstudy.cli import _main
from lrstudy.memo.memo import Memo
from lrstudy.planning import study_lock
from lrstudy.planning.plan import Plan
from lrstudy.policies.spaces import search_spaces
from lrstudy.running import forecast_cost, probe_cost
from lrstudy.running.forecast import EpochKind, Forecast, Work, forecast
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
    "quickstart": (QUICKSTART, [], (147, 56, 1764, 1380, 288)),
    "quickstart at random": (QUICKSTART, ["search.method=random"], (91, 56, 1092, 1005, 585)),
    "seeds": (PLAIN, ["search.seeds=[0, 1, 2]", "confirm={top: 2, seeds: 2}"], (48, 36, 192, 171, 123)),
    "a grid that ends": (PLAIN, ["search={method: grid, trials: 20}"], (65, 50, 260, 183, 123)),
    "searchers that agree": (
        PLAIN, ["search={method: [random, grid], trials: 7}", "confirm={top: 2, seeds: 3}"], (60, 42, 240, 159, 87)
    ),
    "a model beside them": (
        PLAIN, ["search={method: [hyperopt, random, grid], trials: 6, seeds: [0, 1]}"], (123, 90, 492, 292, 160)
    ),
    "three searches per arm": (
        PLAIN, ["search={method: [hyperopt, random], trials: 6, repeats: 3}", "confirm={top: 2, seeds: 2}"],
        (144, 81, 576, 350, 98),
    ),
    "more asked for than there is": (
        PLAIN,
        ["common.lr={choice: [0.1, 0.2]}", "search={method: [hyperopt, random], trials: 30}"],
        (165, 120, 660, 280, 100),
    ),
}  # fmt: skip
"""What is foreseen of studies that have not begun: trials, known ones, epochs asked, distinct ones, those of known trials.

Counted by a forecast that enumerated suggestions and walked chains by itself, before it was the protocol's to say; the
quickstart's known ones by the lineages of its cohort in a run.
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


def test_a_cohort_that_two_searchers_repeat_is_not_shared(tmp_path: Path) -> None:
    """`plan` promised twice what policies share, because each searcher asks for the same cohort."""
    alone = foreseen(made(tmp_path, "search.method=hyperopt"), tmp_path / "runs")
    both = foreseen(made(tmp_path, "search.method=[hyperopt, smac]", "search.repeats=2"), tmp_path / "runs")
    assert both.one_search == alone.one_search
    assert alone.one_search.asked == alone.total.known_asked
    assert alone.one_search.distinct == alone.known_distinct == both.known_distinct
    assert alone.one_search.unknown == alone.total.asked - alone.total.known_asked
    assert both.total.known_asked == 4 * alone.total.known_asked


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
    assert before.one_search.sharing < before.one_search.known_sharing
    Serial(plan, tmp_path / "runs").run()
    after = foreseen(plan, tmp_path / "runs")
    assert after.total.known_trials == after.total.trials == 18


@pytest.mark.parametrize(
    ("search", "by_model", "warned"),
    [
        ("{method: hyperopt, trials: 7}", 3 * 3, ""),
        ("{method: hyperopt, trials: 6, cohort: 6}", 0, "hyperopt learns from results, but none of its suggestions for constant"),
        ("{method: [smac, random, optuna], trials: 5, cohort: 2, repeats: 2}", 3 * 2 * 2 * 3, ""),
        ("{method: optuna, trials: 7, cohort: 0}", 3 * 2, ""),
        ("{method: optuna, trials: 6, cohort: 1}", 3 * 1, ""),
        ("{method: optuna, trials: 5, cohort: 0}", 0, "of 5 trials (search.trials) the cohort has 0 (search.cohort)"),
        ("{method: [random, grid], trials: 5}", 0, ""),
    ],
)  # fmt: skip
def test_a_forecast_says_how_many_suggestions_a_model_makes_as_a_run_then_has_it(
    tmp_path: Path, search: str, by_model: int, warned: str
) -> None:
    plan = plan_of(f"search={search}")
    ahead = forecast(plan, Journal(tmp_path / "none"), Memo(tmp_path / "none"))
    assert ahead.total.by_model == sum(counts.by_model for counts in ahead.arms.values()) == by_model
    assert ahead.to_json()["arms"]["step"]["by_model"] == by_model // 3
    assert warned in " ".join(ahead.warnings)
    assert any("learns from results" in warning for warning in ahead.warnings) == bool(warned)
    simulate(plan, tmp_path, 2, lambda settings: 1.0)
    after = forecast(plan, Journal(tmp_path / "journal"), Memo(tmp_path / "memo"))
    lines = Journal(tmp_path / "journal").of_kind("suggest")
    assert after.total.by_model == sum(line["proposed_by"] == "model" for line in lines)
    assert after.total.by_model >= by_model - 2 * len(plan.repeats), (
        "a model of a small space may know only known points"
    )


def test_no_model_is_missed_where_the_cohort_is_the_whole_space(tmp_path: Path) -> None:
    plan = plan_of("arms={constant: }", "common.lr={choice: [0.1, 0.2]}", "search={method: hyperopt, trials: 6}")
    assert forecast(plan, Journal(tmp_path / "journal"), Memo(tmp_path / "memo")).warnings == ()


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
    assert timing.seconds(Counter({EpochKind(16, 100): 2, EpochKind(64, 25): 1})) == pytest.approx(2 * 1.6 + 0.75 + 0.6)
    partly = Timing({16: 0.010}, 0.5, "measured", 2, partial_s={"features": {16: 0.001}})
    work = Counter({EpochKind(16, 100, "features"): 3, EpochKind(16, 100, "some"): 1})
    assert partly.seconds(work, 7.0) == pytest.approx(3 * 0.1 + 1.0 + 0.5 + 7.0), (
        "what was not timed costs as the whole"
    )


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


def test_the_command_tells_people_and_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lrstudy.workload.numerics.probe", lambda *_: NUMERICS)
    path = tmp_path / "s.yaml"
    path.write_text(
        SMALL.replace("seeds: 2", "seeds: 3")
        + "storage: {path: runs}\ncompare: {margin: 0.001}\nprice: {cpu_core_hour: 36}\n"
    )
    timing = Timing({20: 0.5}, 0.0, "measured", 1, state_bytes=2_000_000)
    monkeypatch.setattr(probe_cost, "probe", lambda plan, work, tell: timing)
    assert _main(["plan", str(path), "--probe", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["total"]["trials"] == 3 * 4 + 3 * 3
    hours = found["total"]["to_train"] * 4 * 0.5 / 3600  # four updates an epoch
    assert found["cost"]["device_hours"] == pytest.approx(hours)
    assert found["cost"]["money"] == pytest.approx(36 * hours)
    assert found["cost"]["device_hours_without_sharing"] == pytest.approx(found["total"]["asked"] * 4 * 0.5 / 3600)
    trained = found["total"]["to_train"]
    assert found["states"] == {
        "bytes_per_state": 2_000_000, "most": trained, "most_bytes": 2_000_000 * trained,
        "needed": 3 * 3, "needed_bytes": 18_000_000, "keep_gb": 1.0,
    }  # fmt: skip
    assert found["detectable"]["low"] < found["detectable"]["high"]
    assert _main(["plan", str(path)]) == 0
    said = capsys.readouterr().out
    assert "small: 21 trials of 4 epochs" in said
    assert "by a model" in said
    assert "Cost: unknown; use --probe." in said
    assert "Smallest detectable difference: about 0." in said
    assert "in accuracy, with 3 paired seeds, 2 comparisons with the control (Holm)" in said
    assert "States:" not in said, "their size is not known"
    assert "compare.margin (0.001)" in said
    assert not (tmp_path / "runs" / "small").exists(), "planning begins no study"


def test_a_probe_shows_what_it_does_what_states_take_and_that_it_was_not_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lrstudy.workload.numerics.probe", lambda *_: NUMERICS)
    path = tmp_path / "s.yaml"
    path.write_text(SMALL + "storage: {path: runs}\n")

    def probe(plan: Plan, work: Work, tell: Callable[[str], None]) -> Timing:
        tell("timing updates of 20 examples (1 of 1)")
        return Timing({20: 0.5}, 0.0, "measured", 1, running=0.48, has_neighbours=True, state_bytes=86_000_000)

    monkeypatch.setattr(probe_cost, "probe", probe)
    assert _main(["plan", str(path), "--probe"]) == 0
    said = capsys.readouterr()
    assert said.err == "probe: timing updates of 20 examples (1 of 1) ...\n"
    assert "warning: the probe was not alone: it waited 52% of its time for other programs or the disk." in said.out
    assert "warning: the probe was not alone: another program has memory of the GPU" in said.out
    assert "States: 86 MB each, at most " in said.out
    assert "afterwards 516 MB stay for 6 confirmed trials, and others up to 1 GB in all (storage.keep_gb)." in said.out
    assert _main(["plan", str(path), "--probe", "storage.keep_gb=all"]) == 0
    assert "all of them stay (storage.keep_gb: all)." in capsys.readouterr().out
