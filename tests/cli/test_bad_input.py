"""Wrong input through the command line: exit code 2, a clear paragraph for each fault, nothing recorded is lost."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lrstudy import cli

STUDY = """
lrstudy: 1
name: small
workload: {data: DATA, split: {test: 0.25, validation: 0.25}}
budget: {epochs: 2}
common: {lr: 0.1, batch_size: 4}
arms: [constant, clr]
search: {method: random, trials: 2}
storage: {path: STORAGE}
"""


def image(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), shade).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One storage for all, with something recorded in it; measuring numerics takes seconds, once."""
    path = tmp_path_factory.mktemp("storage")
    for name in ("memo/records/ab/abcd", "memo/states/ef", "thesis/chapter/1.tex"):
        (path / name).parent.mkdir(parents=True)
        (path / name).write_text(name)
    return path


@pytest.fixture
def complaints(tmp_path, storage, capsys) -> Callable[..., list[str]]:
    """Run a command on a study file; returns what was said on stderr, a fault to an item."""

    def complaints(text: str = STUDY, *overrides: str, data: str = "digits", command: str = "validate") -> list[str]:
        path = tmp_path / "study.yaml"
        path.write_text(text.replace("DATA", data).replace("STORAGE", str(storage)))
        before = recorded(storage)
        code = cli._main([command, str(path), *overrides])
        out, err = capsys.readouterr()
        assert code == 2, err
        assert out == ""
        assert err.startswith("lrstudy: ")
        assert "Traceback" not in err
        assert recorded(storage) == before
        return err.removeprefix("lrstudy: ").splitlines()

    return complaints


def recorded(storage: Path) -> dict[Path, str]:
    """What lies in the storage; prepared data, measured numerics and counted copies are caches and may appear."""
    caches = [storage / "memo" / name for name in ("data", "numerics", "copies")]
    files = (path for path in storage.rglob("*") if not any(path.is_relative_to(cache) for cache in caches))
    return {path: path.read_text() for path in files if path.is_file()}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of eight images each."""
    for name, shade in (("dark", 0), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(8):
            (tmp_path / "images" / name / f"{index}.png").write_bytes(image(shade + index))
    return tmp_path / "images"


# --- the file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("mertic=accuracy", "mertic: unknown key. Did you mean 'metric'?"),
        (
            "metric=acuracy",
            "metric: expected accuracy, balanced_accuracy, f1, auroc, average_precision or exact_match; got 'acuracy'. Did",
        ),
        ("arms=[constant, crl]", "arms.crl: there is no policy 'crl'. Did you mean 'clr'?"),
        ("common.momentum=1", "common.momentum: expected a number in [0, 1); got 1."),
        ("arms.clr.stepsize=3", "arms.clr.stepsize: unknown key. Did you mean 'step_size'?"),
        ("budget.epoch=3", "budget.epoch: unknown key. Did you mean 'epochs'?"),
        ("search.method=hyperop", "search.method: there is no searcher 'hyperop'. Did you mean 'hyperopt'?"),
        (
            "workload.weights=imagnet",
            "workload.weights: there is no kind of weights 'imagnet'. Did you mean 'imagenet'?",
        ),
        ("arms.mine={policy: './mine.py:knee'}", "arms.mine.policy: there is no file "),
        ("budget", "command line: expected key.key=VALUE; got 'budget'."),
    ],
)
def test_a_misspelt_name_is_told_with_the_nearest_ones(complaints, command, override, told):
    (fault,) = complaints(STUDY, override, command=command)
    assert fault.startswith(told)


def test_every_fault_of_a_file_is_a_line_of_its_own(complaints):
    found = complaints(STUDY, "mertic=a", "search.trials=0", "workload.split.tst=1", "compare.control=b")
    assert [fault.partition(":")[0] for fault in found] == [
        "workload.split.tst", "search.trials", "mertic", "compare.control",
    ]  # fmt: skip


@pytest.mark.slow  # asks torch
def test_a_study_of_gpus_on_a_machine_without_one_is_told_before_anything_is_spent(complaints, tmp_path):
    """`run`, `plan` and `validate` ended with 1 and "This is not your input's fault"."""
    if list(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has a GPU")
    (fault,) = complaints(STUDY, "resources.gpu=1", f"storage.path={tmp_path / 'runs'}")
    assert fault.startswith("resources.gpu: torch cannot use device 'cuda'")
    assert fault.endswith("resources.gpu: 0 trains on CPU cores; --address names a Ray cluster that has GPUs.")


@pytest.mark.slow  # looks the name up in torchvision
def test_a_misspelt_model_is_told_with_the_nearest_ones(complaints):
    (fault,) = complaints(STUDY, "workload.model=resnet81")
    assert "model: there is no model 'resnet81'. Did you mean 'resnet18'" in fault


def test_a_study_file_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9t\xe9")
    for name, told in (
        ("absent.yaml", "No such file or directory."),
        ("", "Is a directory."),
        ("latin.yaml", "it is not text in UTF-8."),
    ):
        assert cli._main(["validate", str(tmp_path / name)]) == 2
        assert capsys.readouterr().err == f"lrstudy: study file: cannot read {tmp_path / name}: {told}\n"


def test_a_study_file_that_is_no_yaml(complaints):
    (fault,) = complaints("lrstudy: 1\nname: [")
    assert fault.startswith("study file, line 2: not valid YAML: ")


def test_the_process_ends_with_2_and_one_paragraph(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY.replace("DATA", "digits").replace("STORAGE", "runs") + "mertic: a\n")
    command = [sys.executable, "-m", "lrstudy.cli", "validate", "study.yaml"]
    if "__main__" not in Path(cli.__file__).read_text():
        command = [sys.executable, "-c", "from lrstudy.cli import main; main()", "validate", "study.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lrstudy: mertic: unknown key. Did you mean 'metric'?")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"], "nothing was created"


# --- the data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("folder:absent", "data: there is no folder {base}/absent."),
        ("parquet:absent.parquet", "data: there is no file or folder {base}/absent.parquet."),
        ("folder:study.yaml", "data: {base}/study.yaml is a file; expected a folder."),
        ("foldr:images", "data: there is no source 'foldr:"),
        ("cifar10", "data: cifar10 cannot be read from "),
    ],
)
def test_data_that_are_not_there(complaints, tmp_path, data, told):
    (fault,) = complaints(data=data)
    assert told.format(base=tmp_path) in fault


def test_an_image_that_does_not_decode_is_named(complaints, folder):
    whole = (folder / "light" / "3.png").read_bytes()
    (folder / "light" / "3.png").write_bytes(whole[: len(whole) // 2])
    (fault,) = complaints(data=f"folder:{folder}")
    assert "data: " in fault
    assert "light/3.png" in fault


def test_an_image_that_is_no_image_is_named(complaints, folder):
    (folder / "dark" / "0.png").write_text("not an image")
    (fault,) = complaints(data=f"folder:{folder}")
    assert "dark/0.png" in fault


def test_one_class_only(complaints, folder):
    for path in (folder / "dark").iterdir():
        path.unlink()
    (folder / "dark").rmdir()
    (fault,) = complaints(data=f"folder:{folder}")
    assert "class" in fault


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("workload.split.test=given", "the data gives no test part"),
        ("workload.split.test=16", "split.test: 16 asks for 16 of 16 examples; expected 1 to 15."),
        ("workload.subset=17", "subset: 17 asks for 17 of 12 examples; expected 1 to 12."),
    ],
)
def test_a_split_that_the_data_do_not_give(complaints, folder, override, told):
    (fault,) = complaints(STUDY, override, data=f"folder:{folder}")
    assert told in fault


# --- both -------------------------------------------------------------------------------------------


@pytest.mark.slow  # the first use of a storage measures the numerics of this machine
def test_a_batch_larger_than_the_training_set(complaints, folder):
    assert complaints(STUDY, "common.batch_size=10", data=f"folder:{folder}") == [
        "common.batch_size: expected at most the 9 examples of the training part; got 10."
    ]


@pytest.mark.slow
def test_a_model_that_does_not_take_the_images(complaints, folder):
    (fault,) = complaints(STUDY, "workload.model=alexnet", data=f"folder:{folder}")
    assert "model: alexnet needs images of at least 63 pixels; got 8." in fault


def test_the_folder_of_something_else_and_of_a_torn_study(complaints, storage):
    (fault,) = complaints(STUDY, "name=thesis")
    assert fault.startswith(f"storage.path: {storage / 'thesis'} ")
    (storage / "torn").mkdir(exist_ok=True)
    (storage / "torn" / "study.lock.json").write_text('{"lock_format": 1')
    (fault,) = complaints(STUDY, "name=torn", command="run")
    assert fault.startswith(f"storage.path: {storage / 'torn' / 'study.lock.json'} cannot be read")
    assert "--as NAME" in fault


@pytest.mark.slow
def test_the_output_of_a_different_study_is_refused_and_kept(tmp_path, storage, folder, complaints, capsys):
    text = STUDY.replace("DATA", f"folder:{folder}").replace("STORAGE", str(storage)).replace("small", "mine")
    path = tmp_path / "first.yaml"
    path.write_text(text)
    assert cli._main(["validate", str(path)]) == 0
    leave_a_lock(path)
    capsys.readouterr()
    (fault,) = complaints(
        STUDY.replace("small", "mine"), "metric=balanced_accuracy", data=f"folder:{folder}", command="run"
    )
    assert fault.startswith(
        f"storage.path: {storage / 'mine'} holds a study with other metric (metric: accuracy before, balanced_"
    )
    assert "--as NAME" in fault


def leave_a_lock(path: Path) -> None:
    """What a run of the study file leaves behind, without running it."""
    from lrstudy.planning.study_lock import render
    from lrstudy.study import Study

    study = Study.from_yaml(path)
    plan, _ = study.plan()
    study.folder.mkdir()
    (study.folder / "study.lock.json").write_text(render(plan, (), is_complete=True, versions={}))
