"""Whole studies with a user's own code, reactive policies and several labels, in this process, with the real trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from lrstudy import user_code
from lrstudy.errors import InputError
from lrstudy.planning import study_lock
from lrstudy.running.tables import TableWriter
from serial import Serial, study

HEAD = """
lrstudy: 1
name: small
workload: {data: digits, subset: 120, split: {test: 0.5, validation: 40}, model: small_cnn}
budget: {epochs: 5}
common: {lr: {log: [1e-2, 1], steps: 7}, batch_size: 20}
search: {method: random, trials: 3, cohort: 2}
confirm: {top: 1, seeds: 2}
"""

MINE = """
import torch
from torch import nn
from lrstudy.policies import Duration
from helpers import half

def knee(p: float, E: float, *, lr: float, hold: Duration = "50%") -> float:
    return lr if p < hold else half(lr) * (E - p) / (E - hold)

def shaky(p: float, E: float, *, lr: float) -> float:
    return lr if p < 3 else float("nan")

def build(num_classes, channels, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, 16), nn.ReLU(), nn.Linear(16, num_classes))

def normed(num_classes, channels, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, 16), nn.BatchNorm1d(16), nn.Linear(16, num_classes))

def narrow(num_classes, channels, size):
    return nn.Linear(3, 2)

def augment(image, generator):
    noise = torch.randint(-5, 6, image.shape, generator=generator)
    return (image + noise).clamp(0, 255).to(torch.uint8)

def careless(image, generator):
    return image.flip(-1) if torch.rand(()) < 0.5 else image

def train_step(model, images, labels, loss):
    return loss(model(images), labels) + 0.1 * model(images).square().mean()
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overrides name files from the current folder, which is that of the study here."""
    monkeypatch.chdir(tmp_path)


def mine(folder: Path) -> None:
    (folder / "mine.py").write_text(MINE)
    (folder / "helpers.py").write_text("def half(x):\n    return x / 2\n")


def run(tmp_path: Path, text: str, *overrides: str) -> Serial:
    made = study(tmp_path, text, *overrides)
    plan, _ = made.plan()
    serial = Serial(plan, tmp_path / "runs", slots=2, order=lambda n: n - 1)
    serial.run()
    return serial


def test_a_reactive_policy_shares_the_control_until_it_is_triggered(tmp_path: Path) -> None:
    arms = "arms: {constant: , plateau: {patience: 1, factor: 0.1, threshold: 0.5}}\n"
    serial = run(tmp_path, HEAD + arms)
    trials = serial.admission.trials
    assert {trial.status for trial in trials.values()} == {"completed"}
    control, reacting = (trials[f"{arm}-random-0-0"] for arm in ("constant", "plateau"))
    assert control.configuration["lr"] == reacting.configuration["lr"]
    same = [a.lineage == b.lineage for a, b in zip(control.records, reacting.records, strict=True)]
    assert same[:2] == [True, True]
    assert not same[-1], "a gain of half the loss in each epoch is too much to ask for"
    assert len(serial.trained) == len(set(serial.trained)), "no state is trained twice"
    for trial in trials.values():
        assert trial.chain == [record.lineage for record in trial.records], "the chain is what was walked"
        assert trial.spec.chain([], [record.metrics for record in trial.records]) == trial.chain


def test_a_triggered_trial_is_the_same_when_it_is_run_again(tmp_path: Path) -> None:
    arms = "arms: {constant: , batch_plateau: {patience: 1, factor: 2, threshold: 0.5}}\n"
    first = run(tmp_path, HEAD + arms)
    again = run(tmp_path, HEAD + arms)
    assert again.trained == []
    assert {t: [r.lineage for r in trial.records] for t, trial in first.admission.trials.items()} == {
        t: [r.lineage for r in trial.records] for t, trial in again.admission.trials.items()
    }
    grown = [r.batch_size for r in first.admission.trials["batch_plateau-random-0-0"].records]
    assert grown[0] == 20
    assert max(grown) > 20


def test_a_users_policy_model_augmentation_and_train_step_make_a_study(tmp_path: Path) -> None:
    mine(tmp_path)
    arms = "arms: {constant: , mine: {policy: './mine.py:knee', hold: {choice: [40%, 60%]}}}\n"
    own = [
        "workload.model=./mine.py:build",
        "workload.augment=./mine.py:augment",
        "workload.train_step=./mine.py:train_step",
    ]
    serial = run(tmp_path, HEAD + arms, *own)
    trials = serial.admission.trials
    assert {trial.status for trial in trials.values()} == {"completed"}
    assert {t.configuration["hold"] for t in trials.values() if t.arm == "mine"} == {"40%", "60%"}
    shared = [trials[f"{arm}-random-0-0"].records[0].lineage for arm in ("constant", "mine")]
    assert shared[0] == shared[1], "they are the same until the knee"
    tables = TableWriter(serial.admission, tmp_path)
    tables.write(0.0)
    assert set(pq.read_table(tmp_path / "trials.parquet")["policy"].to_pylist()) == {"constant", "./mine.py:knee"}


def test_changed_source_is_another_name_or_another_arm(tmp_path: Path) -> None:
    mine(tmp_path)
    arms = "arms: {mine: {policy: './mine.py:knee'}}\n"
    before, _ = study(tmp_path, HEAD + arms, "workload.model=./mine.py:build").plan()
    (tmp_path / "helpers.py").write_text("def half(x):\n    return x / 2.0\n")
    after, _ = study(tmp_path, HEAD + arms, "workload.model=./mine.py:build").plan()
    assert before.root(0).name() != after.root(0).name()
    assert before.arms["mine"].definition["source"] != after.arms["mine"].definition["source"]
    assert before.root(0).model == after.root(0).model


def test_a_changed_model_or_train_step_is_another_study(tmp_path: Path) -> None:
    mine(tmp_path)
    own = ["workload.model=./mine.py:build", "workload.train_step=./mine.py:train_step"]
    before, _ = study(tmp_path, HEAD + "arms: {constant: }\n", *own).plan()
    folder = tmp_path / "runs" / "small"
    folder.mkdir(parents=True)
    (folder / "study.lock.json").write_text(study_lock.render(before, (), True, {}))
    (tmp_path / "mine.py").write_text(MINE.replace("0.1 * model", "0.2 * model"))
    with pytest.raises(InputError) as caught:
        study(tmp_path, HEAD + "arms: {constant: }\n", *own).plan()
    told = "with other source (the code behind workload.model has changed; the code behind workload.train_step has changed)"
    assert told in str(caught.value)


def test_a_copy_of_the_source_that_a_kill_cut_short_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file whose presence says that the copy is complete was itself half there, and stood for the old arm from then on."""
    mine(tmp_path)
    reference = user_code.resolve("./mine.py:knee", tmp_path)

    def killed(source: Path, target: Path) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:20])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfile", killed)
        with pytest.raises(KeyboardInterrupt):
            user_code.keep(reference, tmp_path / "kept")
    user_code.keep(reference, tmp_path / "kept")
    assert user_code.digest(
        user_code.kept(reference, user_code.digest(reference), tmp_path / "kept")
    ) == user_code.digest(reference)


WEIGHTS = """
from pathlib import Path
import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

def plain():
    return torch.load(Path(__file__).with_name("weights.pt"))

def array():
    return torch.from_numpy(np.load(Path(__file__).with_name("weights.npy")))

def safe():
    return load_file(Path(__file__).with_name("weights.safetensors"))["weight"]

READ_AT_IMPORT

def build(num_classes, channels, size):
    linear = nn.Linear(channels * size * size, num_classes)
    with torch.no_grad():
        linear.weight.copy_(WEIGHTS)
    return nn.Sequential(nn.Flatten(), linear)
"""


def write_weights(folder: Path, value: float) -> None:
    weight = torch.full((10, 64), value)
    torch.save(weight, folder / "weights.pt")
    np.save(folder / "weights.npy", weight.numpy())
    save_file({"weight": weight}, folder / "weights.safetensors")


@pytest.mark.parametrize("is_at_import", [False, True])
@pytest.mark.parametrize(
    ("reader", "file"), [("plain", "weights.pt"), ("array", "weights.npy"), ("safe", "weights.safetensors")]
)
def test_a_changed_file_of_weights_is_another_training(
    tmp_path: Path, reader: str, file: str, is_at_import: bool
) -> None:
    """A model loaded weights from a file beside it; the file was changed, and all training was recalled as if it were the same."""
    write_weights(tmp_path, 0.0)
    source = WEIGHTS.replace("READ_AT_IMPORT", f"READ = {reader}()" if is_at_import else "")
    (tmp_path / "mine.py").write_text(source.replace("WEIGHTS)", "READ)" if is_at_import else f"{reader}())"))
    text = HEAD + "arms: {constant: }\n"
    with pytest.raises(InputError) as caught:
        study(tmp_path, text, "workload.model=./mine.py:build").plan()
    assert f"workload.files: your code reads {file}, which is not named" in str(caught.value)
    assert f"Name it under workload, as in files: [{file}]." in str(caught.value)

    named = ["workload.model=./mine.py:build", f"workload.files=[{file}]"]
    first = run(tmp_path, text, *named)
    assert {trial.status for trial in first.admission.trials.values()} == {"completed"}
    before = first.admission.plan
    write_weights(tmp_path, 0.1)
    after, _ = study(tmp_path, text, *named).plan()
    assert before.root(0).name() != after.root(0).name()
    folder = study(tmp_path, text, *named).folder
    folder.joinpath("study.lock.json").write_text(study_lock.render(before, (), True, {}))
    with pytest.raises(InputError, match=r"what is in workload\.files has changed"):
        study(tmp_path, text, *named).plan()


def test_a_folder_names_all_files_in_it_and_what_is_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    write_weights(tmp_path / "weights", 0.0)
    body = WEIGHTS.replace("READ_AT_IMPORT", "").replace("WEIGHTS)", "plain())")
    (tmp_path / "mine.py").write_text(body.replace('with_name("weights.pt")', 'with_name("weights") / "weights.pt"'))
    text = HEAD + "arms: {constant: }\n"
    plan, _ = study(tmp_path, text, "workload.model=./mine.py:build", "workload.files=[weights]").plan()
    assert sorted(plan.workload.user_files) == [f"weights/weights.{kind}" for kind in ("npy", "pt", "safetensors")]
    with pytest.raises(InputError, match=r"workload\.files: there is no file or folder .*wheights \(from wheights\)"):
        study(tmp_path, text, "workload.model=./mine.py:build", "workload.files=[wheights]")
    with pytest.raises(InputError, match=r"workload\.files: expected it only beside code of yours that reads them"):
        study(tmp_path, text, "workload.files=[weights]")


def test_code_that_is_edited_while_its_study_runs_is_noticed(tmp_path: Path) -> None:
    """A worker imported the edited file, and trained the new network under the name of the old one."""
    mine(tmp_path)
    plan, _ = study(tmp_path, HEAD + "arms: {constant: }\n", "workload.model=./mine.py:build").plan()
    (tmp_path / "helpers.py").write_text("def half(x):\n    return x / 4\n")
    edited = replace(plan.workload, source_digests={"model": "0" * 32})
    assert callable(plan.workload.user_function("model")), "what this process has loaded stays"
    with pytest.raises(InputError, match="has changed since it was loaded first"):
        edited.user_function("model")


def test_an_old_arm_is_rebuilt_from_the_source_that_was_kept(tmp_path: Path) -> None:
    from lrstudy import run as run_module

    mine(tmp_path)
    arms = "arms: {mine: {policy: './mine.py:knee'}}\n"
    before, _ = study(tmp_path, HEAD + arms).plan()
    folder = tmp_path / "runs" / "small"
    run_module._keep_sources(before, folder)
    folder.joinpath("study.lock.json").write_text(study_lock.render(before, (), True, {}))
    (tmp_path / "helpers.py").write_text("def half(x):\n    return x / 3\n")
    after, notes = study(tmp_path, HEAD + arms).plan()
    assert list(after.arms) == ["mine@2", "mine"]
    assert after.retired == {"mine"}
    assert user_code.digest(after.arms["mine"].policy) == before.arms["mine"].definition["source"]
    assert any("it runs as mine@2" in note for note in notes)


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("arms.mine={policy: './mine.py:shaky'}", "nan"),
        ("arms.mine={policy: './mine.py:kneee'}", "Did you mean 'knee'?"),
        ("arms.mine={policy: 'torch:StepLRR'}", "Did you mean 'torch:StepLR'"),
        ("workload.model=./mine.py:bild", "Did you mean 'build'?"),
        ("workload.augment=./mine.py:missing", "mine.py"),
        (
            "workload.augment=[{RandomCrop: 100}]",
            "workload: a first update with your augment fails: ValueError: Required crop size",
        ),
        (
            "workload.augment=[{Resize: 10}]",
            "workload.augment: expected the list of transforms to give an image like the one it got",
        ),
        ("workload.train_step=./mine.py:knee", "workload: a first update with your train_step fails: TypeError"),
        ("workload.train_step=fast", "train_step: expected a reference such as ./mine.py:train_step; got 'fast'."),
        ("workload.augment=crop", "augment: there is no augmentation 'crop'. Did you mean"),
        ("metric=exact_match", "metric: expected a metric of a multiclass task; got exact_match."),
        ("workload.task.kind=multilabel", "expected multiclass, as the examples have 10 classes; got multilabel."),
        ("workload.model=./mine.py:narrow", "mine.py:narrow cannot take images of shape (2, 1, 8, 8)"),
        (
            "workload.task.kind=binary",
            "workload.task.kind: expected multiclass, as the examples have 10 classes; got binary.",
        ),
        ("workload.task.class_weights={'11': 2.0}", "workload.task.class_weights: there is no class '11'."),
        (
            "common.batch_size=1",
            "common.batch_size: expected at least 2 with small_cnn, whose BatchNorm needs more than one",
        ),
        (
            "common.alpha=0.9",
            "common.alpha: expected it only with an optimizer that has it (rmsprop, rmsprop_keras); got optimizer sgd.",
        ),
        (
            "arms.constant={micro_batch: 0}",
            "arms.constant.micro_batch: expected a whole number of examples, or null; got 0.",
        ),
        ("arms.constant={tail: drop, batch_size: 90}", "arms.constant.batch_size: expected at most the 80 examples"),
    ],
)
def test_faults_of_own_code_and_tasks_are_told_before_anything_is_trained(
    tmp_path: Path, override: str, fault: str
) -> None:
    mine(tmp_path)
    with pytest.raises(InputError) as caught:
        study(tmp_path, HEAD + "arms: {constant: }\n", override).plan()
    assert fault in str(caught.value)


def test_several_labels_are_trained_and_ranked(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "nih_cxr14_1k"
    if not folder.exists():
        pytest.skip("the data set nih_cxr14_1k is not on this machine")
    text = (
        HEAD.replace("epochs: 5", "epochs: 2").replace("trials: 3, cohort: 2", "trials: 1, cohort: 1")
        + "arms: [constant]\n"
    )
    source = f"{{source: 'csv:{folder}/index.csv', root: '{folder}/images', group: patient}}"
    serial = run(
        tmp_path, text, f"workload.data={source}", "workload.split={test: given, validation: 0.2, by: group}", "workload.subset=",
        "workload.image={size: 32, channels: grey}", "metric=auroc", "workload.task.class_weights=balanced",
    )  # fmt: skip
    (confirmed, *_) = [t for t in serial.admission.trials.values() if t.phase == "confirm"]
    assert confirmed.test is not None
    assert set(confirmed.test) >= {"auroc", "average_precision", "exact_match", "f1"}
    assert 0.3 < confirmed.test["auroc"] < 0.8
    assert serial.plan.workload.statistics.counts["test"][:2] == (22, 3)


def test_adam_and_weights_of_classes_reach_the_settings(tmp_path: Path) -> None:
    text = HEAD + "arms: {constant: {optimizer: {choice: [sgd, adamw]}, lr: 0.01}}\n"
    serial = run(tmp_path, text, "workload.task.class_weights={'3': 2.0}", "workload.augment=[{RandomRotation: 5}]")
    recipes = {trial.spec.run.recipe.optimizer: trial.spec.run.recipe for trial in serial.admission.trials.values()}
    assert set(recipes) == {"sgd", "adamw"}
    assert recipes["adamw"].beta2 == 0.999
    assert recipes["sgd"].class_weights == (1.0, 1.0, 1.0, 2.0, *[1.0] * 6)
    assert recipes["sgd"].augment == '[["RandomRotation",{"":5}]]'


@pytest.mark.parametrize(("model", "norm_batch"), [("build", None), ("normed", 20)])
def test_ghost_batches_mean_nothing_to_a_model_of_ones_own_without_batchnorm(tmp_path: Path, model, norm_batch) -> None:
    mine(tmp_path)
    arms = "arms: {constant: , batch_increase: {milestones: [1]}}\n"
    plan = study(tmp_path, HEAD + arms, f"workload.model=./mine.py:{model}", "common.batch_size=20").plan()[0]
    arm = plan.arms["batch_increase"]
    (*_, last) = plan.spec("t", arm, arm.space.default(), 0, False, {}).untriggered()
    assert (last.batch_size, last.recipe.norm_batch) == (40, norm_batch)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ("batch_size: 1", "batch_size: expected at least 2 with your model, whose BatchNorm needs more than one example; got 1."),
        ("micro_batch: 8", "micro_batch: expected a multiple of norm_batch with your model, whose BatchNorm else sees other pieces than "
                           "those of the whole batch; got 8 without norm_batch."),
    ],
)  # fmt: skip
def test_a_model_of_ones_own_is_built_to_see_whether_it_normalises(tmp_path: Path, values: str, fault: str) -> None:
    """Such a study ran, and failed in its first update or trained something else than it said."""
    mine(tmp_path)
    arms = f"arms: {{constant: , other: {{policy: constant, {values}}}}}\n"
    with pytest.raises(InputError) as caught:
        study(tmp_path, HEAD + arms, "workload.model=./mine.py:normed").plan()
    assert caught.value.sentences == (f"arms.other.{fault}",)
    assert study(tmp_path, HEAD + arms, "workload.model=./mine.py:build").plan()


def test_an_augmentation_that_draws_from_a_global_generator_is_refused(tmp_path: Path) -> None:
    mine(tmp_path)
    with pytest.raises(InputError, match=r"^workload\.augment: your function draws from a global generator; expected"):
        study(tmp_path, HEAD + "arms: [constant]\n", "workload.augment=./mine.py:careless").plan()


def test_a_metric_that_is_undefined_on_the_test_part_is_refused_before_training(tmp_path: Path) -> None:
    """The study trained to its end and then had no answer."""
    images, labels = np.arange(40 * 64, dtype=np.uint8).reshape(40, 8, 8), np.arange(40) % 2
    parts = {"train": (images, labels), "val": (images[:20], labels[:20]), "test": (images[20:], np.zeros(20, int))}
    arrays = {
        f"{name}_{key}": value
        for name, pair in parts.items()
        for key, value in zip(("images", "labels"), pair, strict=True)
    }
    np.savez(tmp_path / "x.npz", **arrays)
    data = ["workload.data=npz:x.npz", "workload.subset=null", "workload.split={test: given, validation: given}"]
    made = study(tmp_path, HEAD + "arms: [constant]\n", *data, "metric=auroc")
    with pytest.raises(InputError) as caught:
        made.plan()
    assert caught.value.sentences == (
        "metric: auroc is undefined: no class of the test part has positives and negatives.",
    )
    assert study(tmp_path, HEAD + "arms: [constant]\n", *data, "metric=auroc", "confirm.top=0").plan(), "never read"
