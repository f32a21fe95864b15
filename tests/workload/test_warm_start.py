"""A warm start: the final state of a finished study, and what it has seen of our data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from finished_studies import finished
from image_files import image
from lrstudy.errors import InputError
from lrstudy.memo.memo import Memo
from lrstudy.models.weight_files import from_bytes
from lrstudy.training.trainer import Trainer
from serial import SMALL, study

pytestmark = pytest.mark.slow

SHORT = SMALL.replace("epochs: 4", "epochs: 2").replace("arms: [constant, step, clr]", "arms: [constant]")
SHORT += "storage: {path: runs}\n"
NEXT = SHORT.replace("name: small", "name: next")


def warm(text: str = "run:small/constant") -> str:
    return f"workload.weights={text}"


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    (told,) = caught.value.sentences
    return told


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The folder of a study file whose study `small` has finished."""
    folder = tmp_path_factory.mktemp("warm")
    finished(folder, SHORT)
    return folder


def test_the_study_of_one_workload_of_a_map_is_found_by_both_names(tmp_path):
    finished(tmp_path, SHORT)
    (tmp_path / "runs" / "of_all").mkdir()
    (tmp_path / "runs" / "small").rename(tmp_path / "runs" / "of_all" / "small")
    plan, notes = study(tmp_path, NEXT, warm("run:of_all/small/constant")).plan()
    assert plan.workload.weights.run["arm"] == "constant"
    assert notes[0].startswith("Training begins with the weights of of_all/small/constant")
    assert "no study in" in refusal(lambda: study(tmp_path, NEXT, warm("run:of_all/smal/constant")).plan())


def trials(folder: Path) -> list[dict[str, object]]:
    rows = pq.read_table(folder / "runs" / "small" / "trials.parquet").to_pylist()
    return [row for row in rows if row["phase"] == "confirm"]


def test_training_goes_on_from_the_state_of_the_best_confirm_trial(source):
    plan, notes = study(source, NEXT, warm()).plan()
    best = max(trials(source), key=lambda trial: (trial["selected_val_metric"], -trial["seed"]))
    assert plan.workload.weights.run["seed"] == best["seed"]
    assert plan.workload.weights.run["lineage"] == best["selected_lineage"]
    assert notes[0] == f"Training begins with the weights of small/constant, seed {best['seed']}, head included."
    assert notes[1].startswith("The training that they come from cost ")
    assert len(notes) == 2, "the same data and split is no deviation"
    trainer = Trainer(plan.workload)
    trainer.start(0)
    memo = Memo(source / "runs" / "memo")
    state = from_bytes(memo.state_of(memo.find(best["selected_lineage"])))
    assert all(torch.equal(tensor, state[f"model.{name}"]) for name, tensor in trainer.state.model.state_dict().items())
    assert plan.root(0).preprocessing["normalize"] == "weights"
    assert plan.workload.constants == study(source, NEXT).plan()[0].workload.constants


def test_a_seed_chooses_the_trial_and_a_folder_the_study(source):
    for seed in (1000, 1001):
        plan, _ = study(source, NEXT, warm(f"run:{source}/runs/small/constant/{seed}")).plan()
        assert plan.workload.weights.run["seed"] == seed
    assert study(source, NEXT, warm("run:runs/small/constant/1001")).plan()[0].root(0) == plan.root(0)
    other, _ = study(source, NEXT, warm(f"run:{source}/runs/small/constant"), f"storage.path={source}/elsewhere").plan()
    assert other.workload.weights.run["study"] == "small"


def test_names_that_do_not_exist_are_told_with_the_nearest(source):
    assert "there is no study in " in (told := refusal(study(source, NEXT, warm("run:smal/constant")).plan))
    assert "'smal'. Did you mean 'small'?" in told
    assert "no arm in the study small: 'constan'. Did you mean 'constant'?" in refusal(
        study(source, NEXT, warm("run:small/constan")).plan
    )
    assert "expected a seed that small/constant was confirmed with; got 7. Valid: 1000, 1001." in refusal(
        study(source, NEXT, warm("run:small/constant/7")).plan
    )


def test_a_study_that_has_not_finished_gives_no_weights(tmp_path):
    finished(tmp_path, SHORT, is_complete=False)
    assert refusal(study(tmp_path, NEXT, warm()).plan) == (
        "workload.weights: the study small has not finished. Run it to its end first: until then its winner may be another one."
    )


def test_a_study_without_confirm_trials_gives_no_weights(tmp_path):
    finished(tmp_path, SHORT, "confirm.top=0")
    assert "small/constant has no confirm trial that completed." in refusal(study(tmp_path, NEXT, warm()).plan)


def test_a_state_that_is_gone_is_told(tmp_path):
    finished(tmp_path, SHORT)
    for state in (tmp_path / "runs" / "memo" / "states").iterdir():
        state.unlink()
    assert "is no longer stored. Run that study again with storage.keep_gb: all" in refusal(
        study(tmp_path, NEXT, warm()).plan
    )


def test_another_model_is_refused(source):
    told = refusal(study(source, NEXT, warm(), "workload.model=lenet", "workload.image={size: 16}").plan)
    assert told.startswith("workload.weights: expected the state of a lenet; got small/constant, seed 10")


def test_another_split_of_the_same_data_is_refused_as_it_has_seen_our_test_part(source):
    told = refusal(study(source, NEXT, warm(), "workload.split.seed=1").plan)
    assert "was trained on the same data with another split: " in told
    assert "Give both studies the same split and seed" in told


def test_the_same_images_at_another_size_are_compared_by_their_names(tmp_path):
    """Their pixels differ, so the digest of the data does; small images first, large ones next is good practice."""
    for k in range(40):
        image(tmp_path / "d" / "ab"[k % 2] / f"{k:02}.png", np.full((16, 16), 6 * k, np.uint8))
    text = SHORT.replace(
        "data: digits, subset: 120, split: {test: 0.5, validation: 40}",
        "data: 'folder:d', split: {test: 10, validation: 8}, image: {size: 8}",
    )
    text = text.replace("batch_size: 20", "batch_size: 4").replace(
        "search: {method: random, trials: 4", "search: {method: random, trials: 2"
    )
    finished(tmp_path, text)
    larger = text.replace("name: small", "name: next").replace("size: 8", "size: 16")
    _, notes = study(tmp_path, larger, warm()).plan()
    assert not [note for note in notes if note.startswith("Deviation")]
    told = refusal(study(tmp_path, larger, warm(), "workload.split.seed=5").plan)
    assert (
        "of our 10 test examples, or others of their groups, are among those that it was trained on or chosen by"
        in told
    )


def test_only_validation_examples_that_it_has_seen_are_a_deviation(tmp_path):
    """The test part is that of the source in both studies; what is validation now was trained on then."""
    for part, first, count in (("train", 0, 30), ("test", 30, 10)):
        for k in range(first, first + count):
            image(tmp_path / "d" / part / "ab"[k % 2] / f"{k:02}.png", np.full((8, 8), 6 * k, np.uint8))
    text = SHORT.replace(
        "data: digits, subset: 120, split: {test: 0.5, validation: 40}",
        "data: 'folder:d', split: {test: given, validation: 8}",
    )
    text = text.replace("batch_size: 20", "batch_size: 4").replace(
        "search: {method: random, trials: 4", "search: {method: random, trials: 2"
    )
    finished(tmp_path, text)
    plan, notes = study(tmp_path, text.replace("name: small", "name: next"), warm(), "workload.split.seed=5").plan()
    (deviation,) = plan.workload.weights.deviations
    assert (
        "our 8 validation examples, so choices by these favour what it knows by heart; it has not seen our test part"
        in deviation
    )
    assert notes[-1] == f"Deviation: {deviation}."


def test_other_data_is_a_deviation_with_the_number_of_copies(tmp_path):
    """Of the target's ten test images four are pixel by pixel among the source's training images."""
    rng = np.random.default_rng(0)
    shared = rng.integers(0, 256, (4, 8, 8), np.uint8)
    for k in range(30):
        pixels = shared[k] if k < 4 else rng.integers(0, 256, (8, 8), np.uint8)
        image(tmp_path / "one" / "train" / "ab"[k % 2] / f"{k}.png", pixels)
        image(tmp_path / "two" / "train" / "ab"[k % 2] / f"{k}.png", rng.integers(0, 256, (8, 8), np.uint8))
    for k in range(10):
        image(tmp_path / "one" / "test" / "ab"[k % 2] / f"{k}.png", rng.integers(0, 256, (8, 8), np.uint8))
        image(
            tmp_path / "two" / "test" / "ab"[k % 2] / f"{k}.png",
            shared[k] if k < 4 else rng.integers(0, 256, (8, 8), np.uint8),
        )
    text = SHORT.replace(
        "data: digits, subset: 120, split: {test: 0.5, validation: 40}", "data: 'folder:one', split: {validation: 8}"
    )
    text = text.replace("batch_size: 20", "batch_size: 4").replace(
        "search: {method: random, trials: 4", "search: {method: random, trials: 2"
    )
    finished(tmp_path, text)
    next_one = text.replace("name: small", "name: next").replace("folder:one", "folder:two")
    for _ in range(2):  # counted, then remembered
        plan, _ = study(tmp_path, next_one, warm()).plan()
        (deviation,) = plan.workload.weights.deviations
        assert (
            f"which was trained on other data (folder:{tmp_path}/one); 4 of our 10 test examples have exactly the pixels"
            in deviation
        )
    larger = study(tmp_path, next_one, warm(), "workload.image={size: 16}").plan()[0].workload.weights.deviations
    assert "is not known, as its images are not here or have another size" in larger[0]


def test_a_kept_head_of_other_classes_is_told(tmp_path):
    for k in range(40):
        image(tmp_path / "one" / "ab"[k % 2] / f"{k}.png", np.full((8, 8), 6 * k, np.uint8))
        image(tmp_path / "two" / "xy"[k % 2] / f"{k}.png", np.full((8, 8), 6 * k + 1, np.uint8))
    text = SHORT.replace(
        "data: digits, subset: 120, split: {test: 0.5, validation: 40}",
        "data: 'folder:one', split: {test: 10, validation: 8}",
    )
    text = text.replace("batch_size: 20", "batch_size: 4").replace(
        "search: {method: random, trials: 4", "search: {method: random, trials: 2"
    )
    finished(tmp_path, text)
    _, notes = study(
        tmp_path, text.replace("name: small", "name: next").replace("folder:one", "folder:two"), warm()
    ).plan()
    assert "Of these weights the head is kept, which was trained for other classes (a, b)." in notes


def test_a_lock_that_others_have_written_is_no_traceback(tmp_path):
    finished(tmp_path, SHORT)
    lock = tmp_path / "runs" / "small" / "study.lock.json"
    for text in ("nonsense", "[]", json.dumps({"complete": True})):
        lock.write_text(text)
        assert "the lock of small cannot be read" in refusal(study(tmp_path, NEXT, warm()).plan)
