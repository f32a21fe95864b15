"""The tables of epochs and settings that grow with a run are those that are made at its end."""

from __future__ import annotations

from benchmarks.simulation import simulate

from lrstudy.running import epoch_tables
from lrstudy.running.admission import Admission
from lrstudy.running.epoch_tables import EpochTables
from study_files import plan_of


def test_tables_that_were_asked_for_after_every_trial_are_those_made_at_the_end(tmp_path, monkeypatch):
    """Slots end out of order and workers die, so that blocks of trials have waiting, running and ended ones in between."""
    monkeypatch.setattr(epoch_tables, "_BLOCK", 3)
    plan = plan_of("search.trials=9", "search.outstanding=5", slots=4)
    growing, last = EpochTables(plan), {}

    class Watched(Admission):
        def ended(self, *arguments, **more):
            super().ended(*arguments, **more)
            last["trials"] = list(self.trials.values())
            last["rows"] = growing.epochs(self.trials.values()).num_rows
            assert last["rows"] == sum(len(t.records) for t in last["trials"] if t.status != "waiting")

    monkeypatch.setattr("benchmarks.simulation.Admission", Watched)
    simulate(plan, tmp_path, 4, lambda settings: 1.0 + settings.num_updates / 10, deaths=0.1)
    whole = EpochTables(plan)
    assert growing.epochs(last["trials"]).equals(whole.epochs(last["trials"]))
    assert growing.settings().equals(whole.settings())
    assert len(growing._of_blocks) == len(last["trials"]) // 3 > 5
    assert len(growing._of_trials) < 3, "trials that have ended keep tables of their own"
