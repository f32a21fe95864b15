"""What keep_gb must not delete: also what other studies of the same storage may go on from."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lrstudy.memo.memo import Memo
from lrstudy.running.admission import Admission
from lrstudy.running.retention import needed_states
from lrstudy.running.tables import TableWriter
from lrstudy.study_folder.journal import Journal
from serial import SMALL, Serial, study


@pytest.mark.slow
def test_the_ends_of_a_neighbours_confirmed_trials_stay_and_all_of_its_unfinished_ones(tmp_path):
    """A study with a small keep_gb deleted the states that another one was about to go on from."""
    plan = study(tmp_path, SMALL, "arms=[constant]", "search.trials=1", "search.cohort=1").plan()[0]
    ran = Serial(plan, tmp_path / "runs")
    admission, folder = ran.run(), tmp_path / "runs" / "small"
    TableWriter(admission, folder).write(0.0)
    (folder / "study.lock.json").write_text("{}")
    by_trial = {
        trial.trial_id: [digest for record in trial.records for digest in ran.memo.digests_of(record)]
        for trial in admission.trials.values()
    }
    confirmed = [trial.trial_id for trial in admission.trials.values() if trial.phase == "confirm"]
    ends = {by_trial[name][-1] for name in confirmed}
    assert needed_states(admission, folder) == ends

    idle = Admission(plan, Memo(tmp_path / "runs" / "memo"), Journal(tmp_path / "runs" / "other" / "journal"))
    (tmp_path / "runs" / "other").mkdir(exist_ok=True)
    assert needed_states(idle, tmp_path / "runs" / "other") == ends

    trials = pq.read_table(folder / "trials.parquet")
    pq.write_table(trials.drop_columns(["selected_lineage"]), folder / "trials.parquet")
    assert needed_states(idle, tmp_path / "runs" / "other") == ends, (
        "tables of earlier versions have no selected states"
    )
    stopped = pc.if_else(pc.equal(trials["phase"], "confirm"), trials["status"], "interrupted")
    place = trials.schema.get_field_index("status")
    pq.write_table(trials.set_column(place, "status", pa.chunked_array(stopped)), folder / "trials.parquet")
    everything = {digest for digests in by_trial.values() for digest in digests}
    assert needed_states(idle, tmp_path / "runs" / "other") >= everything - {
        digest for name in confirmed for digest in by_trial[name][:-1]
    }


@pytest.mark.slow
def test_the_states_that_were_tested_stay_too(tmp_path):
    overrides = ("select=best", "arms=[constant]", "search.trials=1", "search.cohort=1", "common.lr=1.0")
    ran = Serial(study(tmp_path, SMALL, *overrides).plan()[0], tmp_path / "runs")
    admission, folder = ran.run(), tmp_path / "runs" / "small"
    confirmed = [trial for trial in admission.trials.values() if trial.phase == "confirm"]
    tested = {trial.records[trial.selected].state for trial in confirmed}
    ends = {trial.records[-1].state for trial in confirmed}
    assert tested - ends, "not the study that this test needs"
    assert needed_states(admission, folder) == tested | ends
    TableWriter(admission, folder).write(0.0)
    (folder / "study.lock.json").write_text("{}")
    (tmp_path / "runs" / "other").mkdir()
    idle = Admission(ran.plan, Memo(tmp_path / "runs" / "memo"), Journal(tmp_path / "runs" / "other" / "journal"))
    assert needed_states(idle, tmp_path / "runs" / "other") == tested | ends
