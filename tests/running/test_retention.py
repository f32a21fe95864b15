"""Which states the end of a run deletes, and which never: those that a study of the same storage may go on from."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lrstudy.memo.memo import Memo
from lrstudy.running.admission import Admission
from lrstudy.running.retention import clear, needed_states
from lrstudy.running.tables import TableWriter
from lrstudy.study_folder.driver_lock import DriverLock
from lrstudy.study_folder.journal import Journal
from serial import SMALL, Serial, study


@pytest.mark.slow
def test_the_ends_of_a_neighbours_confirmed_trials_stay_and_all_of_its_unfinished_ones(tmp_path):
    """A study with a small keep_gb deleted the states that another one was about to go on from."""
    plan = study(tmp_path, SMALL, "arms=[constant]", "search.trials=1", "search.cohort=1").plan()[0]
    ran = Serial(plan, tmp_path / "runs")
    admission, folder = ran.run(), tmp_path / "runs" / "small"
    TableWriter(admission, folder).write(0.0)
    lock = folder / "study.lock.json"
    lock.write_text('{"complete": true}')
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

    everything = {digest for digests in by_trial.values() for digest in digests}
    lock.write_text('{"complete": false}')
    assert needed_states(idle, tmp_path / "runs" / "other") == everything, "trials to come may share any prefix"
    admission.is_done = False
    assert needed_states(admission, folder) == everything
    lock.write_text('{"complete": true}')

    trials = pq.read_table(folder / "trials.parquet")
    pq.write_table(trials.drop_columns(["selected_lineage"]), folder / "trials.parquet")
    assert needed_states(idle, tmp_path / "runs" / "other") == ends, (
        "tables of earlier versions have no selected states"
    )
    stopped = pc.if_else(pc.equal(trials["phase"], "confirm"), trials["status"], "interrupted")
    place = trials.schema.get_field_index("status")
    pq.write_table(trials.set_column(place, "status", pa.chunked_array(stopped)), folder / "trials.parquet")
    assert needed_states(idle, tmp_path / "runs" / "other") >= everything - {
        digest for name in confirmed for digest in by_trial[name][:-1]
    }


@pytest.fixture
def crowded(tmp_path):
    """A complete study; `cleared` gives what `clear` says with a limit in bytes."""
    plan = study(tmp_path, SMALL, "arms=[constant]", "search.trials=1", "search.cohort=1").plan()[0]
    ran = Serial(plan, tmp_path / "runs")
    ran.run()
    folder = tmp_path / "runs" / "small"
    sizes = ran.memo.state_sizes()

    def cleared(keep_bytes: float | str) -> tuple[str, ...]:
        keep = keep_bytes if keep_bytes == "all" else keep_bytes / 1e9
        storage = plan.study.storage.model_copy(update={"keep_gb": keep})
        ran.admission.plan = replace(plan, study=plan.study.model_copy(update={"storage": storage}))
        return clear(ran.admission, folder)

    needed = needed_states(ran.admission, folder)
    return SimpleNamespace(memo=ran.memo, cleared=cleared, sizes=sizes, needed=needed, storage=tmp_path / "runs")


@pytest.mark.slow
def test_the_end_of_a_run_deletes_what_nobody_needs_above_the_limit(crowded):
    """States of 86 MB after every epoch of a ResNet stayed for ever."""
    total = sum(crowded.sizes.values())
    assert crowded.cleared("all") == ()
    assert crowded.cleared(total) == ()
    assert crowded.memo.state_sizes() == crowded.sizes
    (note,) = crowded.cleared(total - 1)
    assert "states that no study of this storage needs were deleted" in note
    assert len(crowded.memo.state_sizes()) == len(crowded.sizes) - 1, "no more than must be"
    crowded.cleared(0)
    assert crowded.memo.state_sizes().keys() == crowded.needed
    assert crowded.cleared(0) == (), "what is needed stays above the limit"


@pytest.mark.slow
def test_nothing_is_deleted_while_another_driver_may_go_on_from_it(crowded):
    """Its tables are seconds old, and it may share any prefix with trials that it has yet to make."""
    lock = DriverLock(crowded.storage / "other")
    lock.acquire(run=0)
    assert crowded.cleared(0) == ()
    assert crowded.memo.state_sizes() == crowded.sizes
    lock.release()
    assert crowded.cleared(0)


@pytest.mark.slow
def test_nothing_is_deleted_while_it_is_not_known_what_a_study_needs(crowded):
    """A study without tables was taken to need nothing: one that was killed before it wrote any lost its states."""
    other = crowded.storage / "other"
    other.mkdir()
    (other / "study.lock.json").write_text('{"complete": false}')
    (note,) = crowded.cleared(0)
    assert note == (
        "No states were deleted, because what other needs cannot be read: run it again, or delete its folder."
    )
    assert crowded.memo.state_sizes() == crowded.sizes


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
    (folder / "study.lock.json").write_text('{"complete": true}')
    (tmp_path / "runs" / "other").mkdir()
    idle = Admission(ran.plan, Memo(tmp_path / "runs" / "memo"), Journal(tmp_path / "runs" / "other" / "journal"))
    assert needed_states(idle, tmp_path / "runs" / "other") == tested | ends
