"""A trial walks its lineage: sharing, recall, resume and repair give the same numbers, bit for bit on a CPU."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import serial
from lrstudy.errors import StorageError
from lrstudy.memo import state_writer
from lrstudy.memo.memo import Memo
from lrstudy.training.trainer import Trainer
from lrstudy.trial import walk as walk_module
from lrstudy.trial.selection import Selection
from lrstudy.trial.spec import TrialSpec
from lrstudy.trial.walk import RecomputedDifferentlyError, Walk

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return serial.study(tmp_path_factory.mktemp("trial")).plan()[0]


@pytest.fixture(scope="module")
def trainer(plan):
    return Trainer(plan.workload)


def spec(plan, arm: str, seed: int = 0, epochs: int = 4, **parameters) -> TrialSpec:
    found = plan.arms[arm]
    made = plan.spec(f"{arm}-{seed}", found, {**found.space.default(), **parameters}, seed, False, {})
    return replace(made, run=replace(made.run, num_epochs=epochs))


def walk(spec: TrialSpec, memo: Memo, trainer):
    """All steps of a walk, with a memo object of its own, as another process would have."""
    return list(Walk(spec, Memo(memo.location), lambda: trainer))


def numbers(steps):
    return [(s.record.lineage, s.record.metrics, s.record.state) for s in steps]


@pytest.fixture
def memo(tmp_path) -> Memo:
    return Memo(tmp_path / "memo")


def test_sharing_on_and_off_give_the_same_numbers_bit_for_bit(plan, trainer, memo, tmp_path):
    arms = ["constant", "step", "clr"]
    alone = [numbers(walk(spec(plan, arm), Memo(tmp_path / arm), trainer)) for arm in arms]
    shared = [walk(spec(plan, arm), memo, trainer) for arm in arms]
    assert [numbers(steps) for steps in shared] == alone
    recalled = [[step.recalled for step in steps] for steps in shared]
    assert recalled == [[False] * 4, [True, True, False, False], [False] * 4]


def test_the_second_walk_recalls_everything_and_asks_for_no_trainer(plan, trainer, memo):
    first = walk(spec(plan, "constant"), memo, trainer)

    def refuse():
        raise AssertionError("a trainer was asked for")

    again = list(Walk(spec(plan, "constant"), Memo(memo.location), refuse))
    assert all(step.recalled for step in again)
    assert numbers(again) == numbers(first)


def test_a_recalled_epoch_keeps_its_original_cost(plan, trainer, memo):
    first = walk(spec(plan, "constant"), memo, trainer)
    again = walk(spec(plan, "constant"), memo, trainer)
    assert [s.record.device_s for s in again] == [s.record.device_s for s in first]
    assert all(s.record.device_s > 0 for s in first)
    assert {span.category for s in again for span in s.spans} == {"between"}, "it was looked up"


def test_a_walk_that_stopped_goes_on_to_the_same_end(plan, trainer, memo, tmp_path):
    straight = walk(spec(plan, "clr"), Memo(tmp_path / "straight"), trainer)
    for _, step in zip(range(2), Walk(spec(plan, "clr"), memo, lambda: trainer), strict=False):
        assert not step.recalled
    resumed = walk(spec(plan, "clr"), memo, trainer)
    assert [step.recalled for step in resumed] == [True, True, False, False]
    assert numbers(resumed) == numbers(straight)


def test_more_epochs_extend_a_policy_that_does_not_look_at_its_horizon(plan, trainer, memo):
    walk(spec(plan, "constant", epochs=2), memo, trainer)
    longer = walk(spec(plan, "constant", epochs=4), memo, trainer)
    assert [step.recalled for step in longer] == [True, True, False, False]


def test_another_seed_is_another_training(plan, trainer, memo):
    one, two = walk(spec(plan, "constant", 0), memo, trainer), walk(spec(plan, "constant", 1), memo, trainer)
    assert not any(step.recalled for step in two)
    assert {s.record.lineage for s in one}.isdisjoint(s.record.lineage for s in two)
    assert one[0].record.metrics["train_loss"] != two[0].record.metrics["train_loss"]


@pytest.mark.parametrize("damage", ["torn", "flipped", "missing"])
def test_a_damaged_state_is_noticed_and_retrained(plan, trainer, memo, tmp_path, damage):
    straight = walk(spec(plan, "constant", epochs=4), Memo(tmp_path / "straight"), trainer)
    first = walk(spec(plan, "constant", epochs=2), memo, trainer)
    path = Path(memo.location) / "states" / first[-1].record.state
    data = bytearray(path.read_bytes())
    if damage == "torn":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()
    longer = walk(spec(plan, "constant", epochs=4), memo, trainer)
    assert numbers(longer) == numbers(straight)
    assert "recompute" in {span.category for span in longer[2].spans}
    assert Memo(memo.location).state_of(first[-1].record) == bytes(_original(tmp_path, first[-1]))


def _original(tmp_path, step) -> bytes:
    return (tmp_path / "straight" / "states" / step.record.state).read_bytes()


def test_a_damaged_record_is_retrained_and_its_name_taken_again(plan, trainer, memo):
    first = walk(spec(plan, "constant"), memo, trainer)
    name = first[2].record.lineage
    path = Path(memo.location) / "records" / name[:2] / name
    path.write_bytes(path.read_bytes()[:-40])
    again = walk(spec(plan, "constant"), memo, trainer)
    assert [step.recalled for step in again] == [True, True, False, True]
    assert numbers(again) == numbers(first)


def test_an_epoch_recomputed_with_another_loss_is_a_fault_of_naming(plan, trainer, memo):
    first = walk(spec(plan, "constant", epochs=1), memo, trainer)
    record = first[0].record
    (Path(memo.location) / "states" / record.state).unlink()
    path = Path(memo.location) / "records" / record.lineage[:2] / record.lineage
    path.write_bytes(replace(record, metrics={**record.metrics, "train_loss": 0.5}).to_bytes())
    with pytest.raises(RecomputedDifferentlyError, match="missing from its name"):
        walk(spec(plan, "constant", epochs=2), memo, trainer)


def test_large_states_are_stored_at_the_end_and_where_others_wait(plan, trainer, memo, monkeypatch):
    monkeypatch.setattr(state_writer, "SMALL_STATE_BYTES", 0)
    monkeypatch.setattr(state_writer, "STATE_EVERY", 1e9)
    steps = walk(replace(spec(plan, "constant", epochs=6), store_at=frozenset({3})), memo, trainer)
    # The first epoch is stored to learn what storing costs.
    assert [step.record.state is not None for step in steps] == [True, False, True, False, False, True]
    branch = walk(spec(plan, "step", epochs=6, milestones=[5]), memo, trainer)
    assert [step.recalled for step in branch] == [True] * 5 + [False]
    recomputed = sum(span.category == "recompute" for span in branch[5].spans)
    assert recomputed == 2  # from the state after 3 epochs to that after 5
    other = walk(spec(plan, "step", epochs=6, milestones=[5], gamma=0.5), memo, trainer)
    assert not any(span.category == "recompute" for step in other for span in step.spans), "the branch was anchored"


@pytest.fixture
def behind(monkeypatch):
    """Every state is large, and stored."""
    monkeypatch.setattr(state_writer, "SMALL_STATE_BYTES", 0)
    monkeypatch.setattr(state_writer, "STATE_EVERY", 0.0)


def test_a_large_state_is_written_while_the_next_epoch_trains(plan, trainer, memo, behind, monkeypatch):
    """The second epoch's state reaches the disk only once the third has begun: written in turn, this would wait for ever."""
    begun = threading.Event()
    real = Memo.anchor

    def slow(self, lineage, state):
        assert begun.wait(60), "nothing was trained meanwhile"
        real(self, lineage, state)

    class Noting:
        def __getattr__(self, name):
            return getattr(trainer, name)

        def train(self, settings, seed, epoch):
            if epoch == 2:
                begun.set()
            return trainer.train(settings, seed, epoch)

    monkeypatch.setattr(Memo, "anchor", slow)
    steps = walk(spec(plan, "constant"), memo, Noting())
    assert [step.record.state is not None for step in steps] == [True, False, False, True]
    assert [step.record.origin.get("state") for step in steps] == [None, "follows", "follows", None]
    assert all(memo.state_of(step.record) for step in steps), "all are there when the walk has ended"


def test_states_written_behind_are_those_written_at_once(plan, trainer, memo, behind, tmp_path, monkeypatch):
    steps = walk(spec(plan, "constant"), memo, trainer)
    straight = Memo(tmp_path / "straight")
    monkeypatch.setattr(state_writer, "SMALL_STATE_BYTES", 2**40)
    expected = walk(spec(plan, "constant"), straight, trainer)
    assert [memo.state_of(s.record) for s in steps] == [straight.state_of(s.record) for s in expected]
    branch = walk(spec(plan, "step", milestones=[3]), memo, trainer)
    assert [step.recalled for step in branch] == [True] * 3 + [False]
    assert not any(span.category == "recompute" for step in branch for span in step.spans)


def test_who_needs_a_state_that_is_being_written_waits_for_it_and_not_for_ever(
    plan, trainer, memo, behind, monkeypatch
):
    steps = walk(spec(plan, "constant"), memo, trainer)
    third = steps[2].record
    anchor = Path(memo.location) / "anchors" / third.lineage
    content = anchor.read_bytes()
    anchor.unlink()
    threading.Timer(0.5, anchor.write_bytes, (content,)).start()
    branch = walk(spec(plan, "step", milestones=[3]), memo, trainer)
    assert not any(span.category == "recompute" for step in branch for span in step.spans), "it came"
    anchor.unlink()
    monkeypatch.setattr(walk_module, "PATIENCE_S", 0.0)
    other = walk(spec(plan, "step", milestones=[3], gamma=0.5), memo, trainer)
    assert any(span.category == "recompute" for step in other for span in step.spans), "whoever wrote it is gone"


def test_a_storage_that_fails_behind_training_is_heard_of(plan, trainer, memo, behind, monkeypatch):
    def full(self, lineage, state):
        raise StorageError("storage.path: no room")

    monkeypatch.setattr(Memo, "anchor", full)
    with pytest.raises(StorageError, match="no room"):
        walk(spec(plan, "constant"), memo, trainer)


# The selected state


class Peaking:
    """Trains as the real one, and says that the second of four epochs is the best one."""

    def __init__(self, trainer) -> None:
        self.trainer, self.captured = trainer, []

    def __getattr__(self, name):
        return getattr(self.trainer, name)

    def train(self, settings, seed, epoch):
        trained = self.trainer.train(settings, seed, epoch)
        self.captured.append(self.trainer.capture())
        accuracy = {"accuracy": (0.2, 0.9, 0.3, 0.9)[epoch]}
        return replace(trained, validation=replace(trained.validation, metrics=accuracy))


@pytest.fixture
def few_states(monkeypatch):
    """States are large, and none is due between the first and the last."""
    monkeypatch.setattr(state_writer, "SMALL_STATE_BYTES", 0)
    monkeypatch.setattr(state_writer, "STATE_EVERY", 1e9)


def judged(plan, select: str, arm: str = "constant", **parameters) -> TrialSpec:
    return replace(spec(plan, arm, **parameters), read_test=True, selection=Selection(select, "accuracy"))


def categories(spans) -> set[str]:
    return {span.category for span in spans}


def test_the_best_epochs_state_is_kept_in_memory_and_stored_once_it_is_selected(plan, trainer, memo, few_states):
    """`select: best` tuned on the best epoch and tested the last state."""
    peaking = Peaking(trainer)
    walked = Walk(judged(plan, "best"), memo, lambda: peaking)
    steps = list(walked)
    assert [step.record.state is not None for step in steps] == [True, False, False, True]
    holder, record, spans = walked.bring_to_selected()
    assert record == steps[1].record
    assert holder.capture() == peaking.captured[1] != peaking.captured[3]
    assert categories(spans) == {"state"}, "nothing is trained again"
    assert memo.state_of(record) == peaking.captured[1]


def test_whoever_recalls_a_trial_finds_the_selected_state_or_trains_it_again(plan, trainer, memo, few_states):
    peaking = Peaking(trainer)
    list(Walk(judged(plan, "best"), memo, lambda: peaking))  # killed before it was tested: the copy is gone
    walked = Walk(judged(plan, "best"), Memo(memo.location), lambda: trainer)
    assert all(step.recalled for step in walked)
    holder, _, spans = walked.bring_to_selected()
    assert holder.capture() == peaking.captured[1]
    assert "recompute" in categories(spans)
    again = Walk(judged(plan, "best"), Memo(memo.location), lambda: trainer)
    list(again)
    holder, _, spans = again.bring_to_selected()
    assert holder.capture() == peaking.captured[1]
    assert "recompute" not in categories(spans)


def test_the_state_at_the_end_of_the_last_cycle_is_the_one_held(plan, trainer, memo, few_states):
    peaking = Peaking(trainer)
    walked = Walk(judged(plan, "last_cycle", "clr", step_size=1.5), memo, lambda: peaking)
    steps = list(walked)
    holder, record, spans = walked.bring_to_selected()
    assert record == steps[2].record
    assert (holder.capture(), categories(spans)) == (peaking.captured[2], {"state"})


@pytest.mark.parametrize("select", ["final", "best"])
def test_copies_are_made_only_where_another_state_than_the_last_may_be_tested(plan, trainer, memo, few_states, select):
    class NoCopies(Peaking):
        def snapshot(self):
            raise AssertionError("a copy was made")

    tuning = replace(judged(plan, select), read_test=select == "final")
    assert len(list(Walk(tuning, memo, lambda: NoCopies(trainer)))) == 4


def test_a_diverged_epoch_is_a_record_without_a_state_and_ends_the_trial(plan, trainer, memo):
    steps = walk(spec(plan, "constant", lr=1e20), memo, trainer)
    assert len(steps) == 1
    assert steps[0].record.diverged
    assert steps[0].record.state is None
    again = walk(spec(plan, "constant", lr=1e20), memo, trainer)
    assert [step.recalled for step in again] == [True]


def test_an_exception_in_training_is_never_memoised(plan, trainer, memo):
    class Failing:
        def __getattr__(self, name):
            return getattr(trainer, name)

        def train(self, settings, seed, epoch):
            if epoch == 2:
                raise MemoryError("out of memory")
            return trainer.train(settings, seed, epoch)

    with pytest.raises(MemoryError):
        walk(spec(plan, "constant"), memo, Failing())
    steps = walk(spec(plan, "constant"), memo, trainer)
    assert [step.recalled for step in steps] == [True, True, False, False]


def test_the_loser_of_a_race_goes_on_from_the_winners_state(plan, trainer, memo, tmp_path):
    mine = spec(plan, "constant")

    class Overtaken:
        """While it trains its second epoch, another process commits the whole trial."""

        def __getattr__(self, name):
            return getattr(trainer, name)

        def train(self, settings, seed, epoch):
            if epoch == 1 and not done:
                done.append(True)
                state = trainer.capture()
                walk(mine, memo, trainer)
                trainer.restore(state)
            return trainer.train(settings, seed, epoch)

    done: list[bool] = []
    steps = walk(mine, memo, Overtaken())
    assert [step.recalled for step in steps] == [False, False, True, True]
    assert numbers(steps) == numbers(walk(mine, Memo(tmp_path / "straight"), trainer))


def test_spans_say_where_the_time_of_an_epoch_went(plan, trainer, memo):
    steps = walk(spec(plan, "constant"), memo, trainer)
    categories = [span.category for step in steps[1:] for span in step.spans]
    assert set(categories) == {"between", "train", "evaluate", "state"}
    for step in steps:
        trained = sum(s.duration_s for s in step.spans if s.category == "train")
        assert trained == step.record.train_s


def test_the_time_of_an_epoch_that_failed_is_measured(plan, trainer, memo):
    """It was in no span, so that the ledger called it waiting."""

    class Failing:
        def __getattr__(self, name):
            return getattr(trainer, name)

        def train(self, settings, seed, epoch):
            time.sleep(0.02)
            raise ValueError("no")

    failed = Walk(spec(plan, "constant"), memo, Failing)
    with pytest.raises(ValueError, match="no"):
        list(failed)
    (trained,) = [span for span in failed.take_spans() if span.category == "train"]
    assert trained.duration_s >= 0.02


def test_thread_count_and_split_and_data_change_the_name(plan, tmp_path):
    name = plan.root(0).name()
    others = ["resources.cpu=2", "workload.split.seed=1", "workload.subset=119", "workload.image.normalize=none"]
    for override in others:
        other = serial.study(tmp_path, serial.SMALL, override).plan()[0]
        assert other.root(0).name() != name, override
    same = serial.study(tmp_path, serial.SMALL, "budget.epochs=9", "name=other", "metric=balanced_accuracy").plan()[0]
    assert same.root(0).name() == name


def test_a_worker_that_computes_otherwise_refuses(plan):
    wrong = replace(plan.workload, numerics={**plan.workload.numerics, "threads": 7})
    with pytest.raises(RuntimeError, match="threads: expected 7, here 1"):
        Trainer(wrong)


def test_another_process_gives_the_same_numbers(plan, trainer, memo, tmp_path):
    steps = walk(spec(plan, "clr"), memo, trainer)
    code = f"""
        import sys; sys.path[:0] = [{str(Path(__file__).parents[1])!r}, {str(Path(__file__).parent)!r}]
        from pathlib import Path
        import serial, test_walk
        from lrstudy.memo.memo import Memo
        from lrstudy.training.trainer import Trainer
        plan = serial.study(Path({str(tmp_path)!r})).plan()[0]
        steps = test_walk.walk(test_walk.spec(plan, "clr"), Memo({str(tmp_path / "other")!r}), Trainer(plan.workload))
        print(*[step.record.state for step in steps])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [step.record.state for step in steps]
