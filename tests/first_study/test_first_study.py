"""lrstudy init: a look at somebody's data, and a study file that says why it is as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lrstudy.cli import _main
from lrstudy.errors import InputError
from lrstudy.first_study.look import find_sources, look
from lrstudy.first_study.write import first_study
from lrstudy.planning import plan
from lrstudy.study import Study


def picture(path: Path, size: tuple[int, int] = (20, 16), colour: bool = True, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if colour else (size[1], size[0])
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


def folder_of(root: Path, counts: dict[str, int], **options: object) -> Path:
    for name, count in counts.items():
        for k in range(count):
            picture(root / name / f"{k}.png", seed=k, **options)  # type: ignore[arg-type]
    return root


def table_of(root: Path, header: str, *rows: str) -> Path:
    for row in rows:
        picture(root / row.split(",")[0], colour=False)
    (root / "index.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def text_of(data: str | Path, out: Path, has_gpu: bool = False) -> str:
    return first_study(str(data), out, has_gpu=has_gpu)


def test_an_uneven_folder_gets_a_metric_that_is_fair_to_small_classes(tmp_path: Path) -> None:
    folder_of(tmp_path / "skin", {"benign": 40, "malignant": 12})
    text = text_of(tmp_path / "skin", tmp_path / "s.yaml")
    study = plan.read(text, base=tmp_path)
    assert study.metric == "balanced_accuracy"
    assert study.workload.task.kind == "binary"
    assert study.workload.task.class_weights == "balanced"
    assert study.workload.source.source == "folder:./skin", "relative to the study file"
    assert study.name == "skin"
    assert "# malignant" in text


@pytest.mark.parametrize("has_gpu", [False, True])
def test_the_file_is_valid_as_it_stands_and_plans(tmp_path: Path, has_gpu: bool) -> None:
    folder_of(tmp_path / "faces", {"a": 30, "b": 30, "c": 30})
    path = tmp_path / "s.yaml"
    path.write_text(text_of(tmp_path / "faces", path, has_gpu))
    made, _ = Study.from_yaml(path, [f"storage.path={tmp_path / 'runs'}", "resources={gpu: 0}"]).plan()
    assert made.study.metric == "accuracy"
    assert made.num_trials > 0
    assert (made.study.workload.model == "resnet18") == (has_gpu and made.workload.size >= 32)


def test_several_labels_patients_and_a_given_test_part_are_found(tmp_path: Path) -> None:
    rows = [f"{k}.png,{'A|B' if k % 3 else 'B'},p{k // 2},{'test' if k >= 40 else 'train'}" for k in range(60)]
    table_of(tmp_path / "xray", "file,findings,patient,split".replace("findings", "labels"), *rows)
    text = text_of(tmp_path / "xray", tmp_path / "s.yaml")
    study = plan.read(text, base=tmp_path)
    source = study.workload.source
    assert (source.image, source.label, source.group) == ("file", "labels", "patient")
    assert (study.workload.split.test, study.workload.split.by) == ("given", "group")
    assert (study.workload.task.kind, study.metric) == ("multilabel", "auroc")
    assert study.workload.image.channels == "grey"
    assert "a patient is never in two parts" in text


def test_of_several_tables_the_one_with_patients_is_taken_and_the_others_are_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = table_of(tmp_path / "d", "image,label,patient", *(f"{k}.png,{'ab'[k % 2]},p{k}" for k in range(4)))
    pq.write_table(pa.table({"image": [b""], "label": ["a"]}), root / "train.parquet")
    assert find_sources(str(root)) == [f"csv:{root / 'index.csv'}", f"parquet:{root}"]
    pq.write_table(pa.table({"image": [b""], "label": ["a"]}), root / "val.parquet")  # a part, and no table of its own
    (root / "index.csv").write_text("image,label\n0.png,a\n")
    assert find_sources(str(root)) == [f"parquet:{root}", f"csv:{root / 'index.csv'}"]


def test_images_of_a_table_may_lie_in_a_folder_beside_it(tmp_path: Path) -> None:
    rows = [f"{k}.png,{'ab'[k % 2]}" for k in range(40)]
    table_of(tmp_path / "images", "image,label", *rows)
    (tmp_path / "images" / "index.csv").rename(tmp_path / "index.csv")
    summary = look(f"csv:{tmp_path / 'index.csv'}")
    assert summary.root == str(tmp_path / "images")
    assert f"root: {tmp_path}/images" in text_of(tmp_path / "index.csv", Path("/elsewhere/s.yaml"))


def test_an_npz_file_and_a_function_are_looked_at_too(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 12, 12, 3), dtype=np.uint8)
    labels = np.arange(60) % 3
    np.savez(
        tmp_path / "m.npz", train_images=images, train_labels=labels, test_images=images[:9], test_labels=labels[:9]
    )
    study = plan.read(text_of(tmp_path / "m.npz", tmp_path / "s.yaml"), base=tmp_path)
    assert (study.workload.split.test, study.workload.split.validation) == ("given", 0.15)
    assert study.workload.image.size is None, "all images are small squares of one size"
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef load():\n    rng = np.random.default_rng(0)\n"
        "    return {'images': rng.integers(0, 256, (60, 12, 12), dtype=np.uint8), 'labels': ['x', 'y'] * 30}\n"
    )
    text = text_of(f"{tmp_path}/mine.py:load", tmp_path / "s.yaml")
    assert plan.read(text, base=tmp_path).workload.source.source == "./mine.py:load"


@pytest.mark.parametrize("name", ["isic_uda1", "nih_cxr14_1k", "sign_digits", "cifar10"])
def test_real_data_sets_get_a_valid_study(shared_data: Path, tmp_path: Path, name: str) -> None:
    if not (shared_data / name).exists():
        pytest.skip(f"the data set {name} is not on this machine")
    text = text_of(shared_data / name, tmp_path / "s.yaml")
    study = plan.read(text, base=tmp_path)
    expected = {
        "isic_uda1": "balanced_accuracy",
        "nih_cxr14_1k": "auroc",
        "sign_digits": "accuracy",
        "cifar10": "accuracy",
    }
    assert study.metric == expected[name]
    if name == "nih_cxr14_1k":
        assert "No example in the test part: Fibrosis, Hernia" in text
        assert study.workload.split.by == "group"


def test_a_patient_groups_before_a_lesion_and_a_leaking_test_part_is_drawn_anew(tmp_path: Path) -> None:
    rows = [f"{k}.png,{'ab'[k % 2]},l{k // 2},p{k // 6},{'test' if k % 6 == 0 else 'train'}" for k in range(60)]
    table_of(tmp_path / "d", "image,label,lesion_id,patient_id,split", *rows)
    text = text_of(tmp_path / "d", tmp_path / "s.yaml")
    study = plan.read(text, base=tmp_path)
    assert study.workload.source.group == "patient_id"
    assert (study.workload.split.test, study.workload.split.by) == (0.2, "group")
    assert "the parts that the data gives have groups in common" in text


def test_grey_is_concluded_from_all_classes_and_a_torn_image_is_passed_over(tmp_path: Path) -> None:
    folder_of(tmp_path / "d", {"a_xray": 60}, colour=False)
    folder_of(tmp_path / "d", {"b_photo": 60})
    first = tmp_path / "d" / "a_xray" / "0.png"
    first.write_bytes(first.read_bytes()[:-200])
    assert plan.read(text_of(tmp_path / "d", tmp_path / "s.yaml"), base=tmp_path).workload.image.channels == "rgb"


def test_a_study_within_its_data_keeps_its_runs_outside(tmp_path: Path) -> None:
    folder_of(tmp_path / "d", {"a": 30, "b": 30})
    path = tmp_path / "d" / "study.yaml"
    path.write_text(text_of(tmp_path / "d", path))
    study = Study.from_yaml(path)
    assert study.storage.location == str((tmp_path / "d-runs").resolve())
    study.plan()
    study.plan()  # what the first one left is no class


def test_one_image_of_another_size_among_many_is_no_reason_to_fail(tmp_path: Path) -> None:
    folder_of(tmp_path / "d", {"a": 250, "b": 250}, size=(16, 16))
    picture(tmp_path / "d" / "b" / "7.png", (20, 16))
    path = tmp_path / "s.yaml"
    path.write_text(text_of(tmp_path / "d", path))
    Study.from_yaml(path, [f"storage.path={tmp_path / 'runs'}"]).plan()


def test_images_in_two_folders_beside_a_table_are_told(tmp_path: Path) -> None:
    for k in range(20):
        picture(tmp_path / f"part{k // 10}" / f"{k}.png")
    (tmp_path / "index.csv").write_text("image,label\n" + "".join(f"{k}.png,{'ab'[k % 2]}\n" for k in range(20)))
    with pytest.raises(InputError, match=r"names 20 images, of which 10 are in .*part0; 10.png is not"):
        text_of(tmp_path / "index.csv", tmp_path / "s.yaml")


@pytest.mark.parametrize("name", ["null", "x" * 120, "yes"])
def test_a_folder_with_an_unusual_name_gives_a_study_all_the_same(tmp_path: Path, name: str) -> None:
    folder_of(tmp_path / name, {"a": 20, "b": 20})
    assert plan.read(text_of(tmp_path / name, tmp_path / "s.yaml"), base=tmp_path).name == name[:100]


def test_names_and_paths_that_yaml_would_misread_are_quoted(tmp_path: Path) -> None:
    folder_of(tmp_path / "a, b: #1", {"yes": 20, "no: 'maybe'": 20})
    study = plan.read(text_of(tmp_path / "a, b: #1", tmp_path / "s.yaml"), base=tmp_path)
    assert study.workload.source.source == "folder:./a, b: #1"


@pytest.mark.parametrize(
    ("prepared", "fault"),
    [
        ("nowhere", "there is no file or folder"),
        ("empty", "has neither images nor tables"),
        ("flat", "has 2 images and no class folders"),
        ("note.txt", "expected a .parquet, .csv or .npz file or a folder; got the file"),
        ("two", "holds 2 .csv files (a.csv, b.csv); name one of them"),
        ("columns.csv", "expected a column of labels, called one of label_name, class_name, label"),
        ("lost.csv", "names the image 9.png, which is neither in"),
        ("broken", "none of the first images can be decoded"),
        ("cifra10", "is no folder, file or known data set"),
    ],
)
def test_what_cannot_be_used_is_told_with_what_was_expected(tmp_path: Path, prepared: str, fault: str) -> None:
    (tmp_path / "empty").mkdir()
    for k in range(2):
        picture(tmp_path / "flat" / f"{k}.png")
    for file in (tmp_path / "broken" / name / f"{k}.png" for name in ("a", "b") for k in range(12)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"no image")
    (tmp_path / "two").mkdir()
    for name in ("note.txt", "two/a.csv", "two/b.csv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "columns.csv").write_text("image,colour\n1.png,red\n")
    (tmp_path / "lost.csv").write_text("image,label\n9.png,a\n")
    data = prepared if prepared == "cifra10" else str(tmp_path / prepared)
    with pytest.raises(InputError) as caught:
        text_of(data, tmp_path / "s.yaml")
    assert fault in str(caught.value)


def test_the_command_writes_a_file_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of(tmp_path / "d", {"a": 12, "b": 12})
    arguments = ["init", "--data", str(tmp_path / "d"), "--out", str(tmp_path / "new" / "s.yaml")]
    assert _main(arguments) == 0
    assert "lrstudy validate" in capsys.readouterr().out
    assert _main(arguments) == 2
    assert "exists already; --force overwrites it" in capsys.readouterr().err
    assert _main([*arguments, "--force"]) == 0
