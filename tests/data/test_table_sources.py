"""Sources that are tables or arrays, several labels, groups, columns, and what data looks like before training."""

from __future__ import annotations

import csv
import io
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lrstudy.data import decoding
from lrstudy.data.cache import DataSet, prepare
from lrstudy.data.cells import POOL, TEST, VALIDATION
from lrstudy.data.labels import encode, strata
from lrstudy.data.open_source import open_source
from lrstudy.data.spec import ByColumn, DataSpec, ImageSpec, SplitSpec
from lrstudy.data.splits import split
from lrstudy.data.statistics import Statistics
from lrstudy.errors import InputError


def table(folder: Path, rows: list[dict[str, str]], name: str = "index.csv") -> DataSpec:
    """A CSV file and the images that it names."""
    folder.mkdir(exist_ok=True)
    for number, row in enumerate(rows):
        if row["image"]:
            Image.fromarray(np.full((8, 8), 5 * number, np.uint8)).save(folder / row["image"])
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return DataSpec(f"csv:{folder / name}")


def rows(count: int, **columns: object) -> list[dict[str, str]]:
    """`count` rows; a column's value is given for each row by calling it with the row's number."""
    return [{"image": f"{n}.png"} | {name: str(value(n)) for name, value in columns.items()} for n in range(count)]  # type: ignore[operator]


def fault(spec: DataSpec, store: Path) -> str:
    with pytest.raises(InputError) as caught:
        prepare(spec, store)
    return str(caught.value)


def divided(data: DataSet, spec: SplitSpec) -> tuple[np.ndarray, ...]:
    made = split(data.labels, data.part, spec, None, data.classes, data.group, data.groups)
    return made.train, made.validation, made.test


# --- CSV --------------------------------------------------------------------------------------------


def test_a_csv_file_gives_labels_parts_and_columns(tmp_path: Path) -> None:
    spec = table(tmp_path / "d", rows(6, label=lambda n: "ab"[n % 2], split=lambda n: ["train", "val", "test"][n // 2]))
    data = prepare(spec, tmp_path / "cache")
    assert data.classes == ("a", "b")
    assert data.labels.tolist() == [0, 1] * 3
    assert data.part.tolist() == [POOL] * 2 + [VALIDATION] * 2 + [TEST] * 2
    assert data.images[3].max() == 15
    assert open_source(spec).column("split")[-1] == "test"


def test_cells_with_bars_are_several_labels_and_empty_ones_none(tmp_path: Path) -> None:
    cells = ["Mass|Edema", "", "No Finding", "Edema"]
    data = prepare(table(tmp_path / "d", rows(4, labels=lambda n: cells[n])), tmp_path / "cache")
    assert data.classes == ("Edema", "Mass")
    assert data.labels.dtype == np.uint8
    assert data.labels.tolist() == [[1, 1], [0, 0], [0, 0], [1, 0]]


def test_one_label_of_several_makes_two_classes(tmp_path: Path) -> None:
    spec = table(tmp_path / "d", rows(4, labels=lambda n: ["Mass|Edema", "", "Edema", "Mass"][n]))
    data = prepare(DataSpec(spec.source, label="Mass"), tmp_path / "cache")
    assert (data.classes, data.labels.tolist()) == (("not Mass", "Mass"), [1, 0, 0, 1])
    assert "task.label: there is no label 'Mas'. Did you mean 'Mass'?" in fault(
        DataSpec(spec.source, label="Mas"), tmp_path
    )


def test_faults_of_csv_files_are_named(tmp_path: Path) -> None:
    spec = table(tmp_path / "d", rows(3, label=lambda n: n))
    (tmp_path / "d" / "1.png").unlink()
    assert "index.csv names" in fault(spec, tmp_path)
    spec = table(tmp_path / "d", [{"image": "a.png", "label": "x"}, {"image": "a.png", "label": "y"}])
    assert fault(spec, tmp_path) == "data: index.csv lists 1 images more than once (a.png)."
    spec = table(tmp_path / "d", rows(3, label=lambda n: "" if n == 1 else "x"))
    assert fault(spec, tmp_path) == "data: index.csv has no label in row 3."
    spec = table(tmp_path / "d", rows(3, diagnosis=lambda n: n))
    assert fault(spec, tmp_path).startswith("data: index.csv: there is no column 'label'. ")
    (tmp_path / "d" / "index.csv").write_text("image,label\na.png\n")
    assert fault(spec, tmp_path) == "data: index.csv has 2 columns, but line 2 has 1."
    assert "cannot be read as CSV" in fault(DataSpec(f"csv:{tmp_path}/none.csv"), tmp_path)


def test_the_paths_of_a_csv_file_may_start_elsewhere(tmp_path: Path) -> None:
    spec = table(tmp_path / "d", rows(2, label=lambda n: n))
    (tmp_path / "d" / "index.csv").rename(tmp_path / "index.csv")
    source = f"csv:{tmp_path / 'index.csv'}"
    assert len(prepare(DataSpec(source, root=str(tmp_path / "d")), tmp_path / "cache").labels) == 2
    assert spec.source != source


# --- arrays and a user's function -------------------------------------------------------------------


def medmnist(path: Path, **changed: np.ndarray) -> DataSpec:
    rng = np.random.default_rng(0)
    arrays = {f"{part}_images": rng.integers(0, 256, (6, 8, 8), dtype=np.uint8) for part in ("train", "val", "test")}
    arrays |= {f"{part}_labels": (np.arange(6) % 2)[:, None] for part in ("train", "val", "test")}
    np.savez(path, **(arrays | changed))
    return DataSpec(f"npz:{path}")


def test_npz_files_in_medmnists_form_are_read_with_their_parts(tmp_path: Path) -> None:
    data = prepare(medmnist(tmp_path / "a.npz"), tmp_path / "cache")
    assert data.images.shape == (18, 1, 8, 8)
    assert data.part.tolist() == [POOL] * 6 + [VALIDATION] * 6 + [TEST] * 6
    assert data.labels.tolist() == [0, 1] * 9
    several = {f"{part}_labels": np.eye(6, dtype=int) for part in ("train", "val", "test")}
    assert prepare(medmnist(tmp_path / "b.npz", **several), tmp_path / "cache").labels.shape == (18, 6)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"train_labels": np.full((6, 1), -1)}, "train_labels of a.npz: expected class numbers of at least 0; got -1."),
        ({"train_labels": np.full(6, 0.5)}, "expected class numbers (N,) or (N, 1), or 0 and 1 of shape (N, K)"),
        (
            {"train_images": np.zeros((5, 8, 8), np.uint8)},
            "expected 6 images, uint8 of shape (N, H, W) or (N, H, W, 3)",
        ),
        ({"test_images": np.zeros((6, 8, 8))}, "data: test_images of a.npz: expected 6 images"),
    ],
)
def test_faults_of_npz_files_are_named(tmp_path: Path, changed: dict[str, np.ndarray], expected: str) -> None:
    assert expected in fault(medmnist(tmp_path / "a.npz", **changed), tmp_path)


def test_an_npz_file_needs_a_training_part(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    spec = DataSpec(f"npz:{tmp_path / 'a.npz'}")
    assert "a.npz needs train_images and train_labels (and may have val_ and test_ ones); it holds x." in fault(
        spec, tmp_path
    )
    (tmp_path / "a.npz").write_bytes(b"PK")
    assert "is not a readable .npz file" in fault(spec, tmp_path)


OWN = """
import numpy as np

def load():
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (8, 6, 6, 3), dtype=np.uint8),
        "labels": ["cat", "dog"] * 4,
        "part": ["train"] * 6 + ["test"] * 2,
        "patient": [f"p{n // 2}" for n in range(8)],
    }

def bad():
    return {"images": np.zeros((2, 6, 6)), "labels": [0, 1]}

def worse():
    raise RuntimeError("disk on fire")
"""


def test_a_users_function_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    data = prepare(DataSpec(f"{tmp_path}/mine.py:load", group_column="patient"), tmp_path / "cache")
    assert data.images.shape == (8, 3, 6, 6)
    assert data.classes == ("cat", "dog")
    assert data.part.tolist() == [POOL] * 6 + [TEST] * 2
    assert data.groups == ("p0", "p1", "p2", "p3")
    assert "expected 2 images, uint8" in fault(DataSpec(f"{tmp_path}/mine.py:bad"), tmp_path)
    assert "failed (RuntimeError: disk on fire)" in fault(DataSpec(f"{tmp_path}/mine.py:worse"), tmp_path)


# --- torchvision --------------------------------------------------------------------------------------


def test_torchvisions_files_are_read_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10's layout with four images a batch; its own checksums are left out, as these are not its images."""
    from torchvision import datasets

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]:
        entry = {"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [0, 1, 1, 0]}
        (folder / name).write_bytes(pickle.dumps(entry))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["plane", "car"]}))
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *arguments: True)
    data = prepare(DataSpec("cifar10", root=str(tmp_path)), tmp_path / "cache")
    assert data.images.shape == (24, 3, 32, 32)
    assert data.classes == ("car", "plane")
    assert data.part.tolist() == [POOL] * 20 + [TEST] * 4


def test_a_torchvision_set_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    told = fault(DataSpec("mnist", root=str(tmp_path)), tmp_path)
    assert told.startswith(f"data: mnist cannot be read from {tmp_path} (Dataset not found.")
    assert "Write data: {source: mnist, download: true} to have it downloaded." in told


def test_a_download_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody listens there
    told = fault(DataSpec("mnist", root=str(tmp_path), download=True), tmp_path)
    assert "The download failed: is there a network?" in told


# --- groups and columns -------------------------------------------------------------------------------


def test_groups_are_never_divided(tmp_path: Path) -> None:
    spec = table(tmp_path / "d", rows(40, label=lambda n: n % 2, patient=lambda n: f"p{n // 4}"))
    data = prepare(DataSpec(spec.source, group_column="patient"), tmp_path / "cache")
    assert data.group is not None
    for seed in range(5):
        train, validation, test = divided(data, SplitSpec(0.25, 0.2, "group", seed))
        of = [set(data.group[index].tolist()) for index in (train, validation, test)]
        assert not (of[0] & of[1])
        assert not (of[0] & of[2])
        assert not (of[1] & of[2])
        assert len(train) + len(validation) + len(test) == 40
        assert 8 <= len(test) <= 12, "the nearest to a quarter that whole groups of four allow"


def test_a_group_in_two_parts_is_a_leak(tmp_path: Path) -> None:
    spec = table(tmp_path / "d", rows(40, label=lambda n: n % 2, patient=lambda n: f"p{n // 4}"))
    data = prepare(DataSpec(spec.source, group_column="patient"), tmp_path / "cache")
    with pytest.raises(InputError, match=r"split: \d+ groups lie in both train and \w+ \('p") as caught:
        divided(data, SplitSpec(0.25, 0.2, "stratified"))
    assert "Write split.by: group" in str(caught.value)
    with pytest.raises(InputError, match=r"split\.by: group needs a column of groups"):
        split(data.labels, data.part, SplitSpec(0.25, 0.2, "group"))


def test_a_column_can_say_who_tests(tmp_path: Path) -> None:
    spec = table(tmp_path / "d", rows(12, label=lambda n: n % 2, site=lambda n: "BCA"[n % 3]))
    chosen = SplitSpec(ByColumn("site", "A"), ByColumn("site", "B"))
    data = prepare(DataSpec(spec.source, split=chosen), tmp_path / "cache")
    train, validation, test = divided(data, chosen)
    assert (test % 3 == 2).all()
    assert (validation % 3 == 0).all()
    assert len(train) == len(validation) == len(test) == 4
    unknown = DataSpec(spec.source, split=SplitSpec(ByColumn("site", "D"), 0.2))
    assert fault(unknown, tmp_path).startswith("split.test: there is no value of site 'D'. ")
    assert "there is no column 'group'" in fault(DataSpec("digits", group_column="group"), tmp_path)


def test_parquet_has_columns_and_lists_of_labels(tmp_path: Path) -> None:
    import io

    buffer = io.BytesIO()
    Image.new("L", (8, 8), 3).save(buffer, "PNG")
    file = tmp_path / "d.parquet"
    for labels in (["a|b", "", "b"], [["a", "b"], [], ["b"]], [[1, 1], [0, 0], [0, 1]]):
        pq.write_table(pa.table({"image": [buffer.getvalue()] * 3, "label": labels, "patient": [1, 1, 2]}), file)
        data = prepare(DataSpec(f"parquet:{file}", group_column="patient"), tmp_path / "cache")
        assert data.labels.tolist() == [[1, 1], [0, 0], [0, 1]]
        assert data.groups == ("1", "2")


def test_several_labels_are_stratified_by_the_rarest() -> None:
    labels, names = encode([("a",), ("a", "rare"), (), ("a", "b"), ("a",)], None)
    assert names == ("a", "b", "rare")
    assert strata(labels).tolist() == [0, 2, 3, 1, 0]


# --- what stands in the way of decoding ---------------------------------------------------------------


def test_an_image_of_gigabytes_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = table(tmp_path / "d", rows(3, label=lambda n: n % 2))
    Image.new("L", (40, 30)).save(tmp_path / "d" / "1.png")
    monkeypatch.setattr(decoding, "MOST_PIXELS", 1000)
    told = fault(DataSpec(spec.source, image=ImageSpec(size=8)), tmp_path)
    assert "1 of 3 images cannot be decoded: 1.png (40 x 30 pixels; at most 0.001 million are decoded)." in told


# --- what looks alike and is not -----------------------------------------------------------------------


def test_a_patient_is_one_whatever_type_a_files_column_has(tmp_path: Path) -> None:
    """pandas makes an integer column with a missing value a float one: 1 and 1.0 must not be two patients."""
    image = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(image, "png")
    for name, patients in (("train", pa.array(range(8), pa.int64())), ("test", pa.array(np.arange(8.0), pa.float64()))):
        columns = {"image": [image.getvalue()] * 8, "label": [0, 1] * 4, "patient": patients}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    data = prepare(DataSpec(f"parquet:{tmp_path}", group_column="patient"), tmp_path / "cache")
    assert data.groups == tuple("01234567")
    with pytest.raises(InputError, match="groups lie in both train and test"):
        divided(data, SplitSpec("given", 0.25, "group"))


def test_rows_without_a_group_are_refused(tmp_path: Path) -> None:
    made = rows(8, label=lambda n: "ab"[n % 2], patient=lambda n: "" if n == 3 else f"p{n}")
    spec = replace(table(tmp_path / "d", made), group_column="patient")
    with pytest.raises(InputError, match=r"data: 1 of 8 rows have no patient \(the first is row 3\)"):
        prepare(spec, tmp_path / "cache")


def test_a_large_group_does_not_swallow_the_share() -> None:
    labels, group = np.tile([0, 1], 30), np.array([0] * 45 + list(range(1, 16)))
    for seed in range(12):
        made = split(
            labels,
            np.zeros(60, np.uint8),
            SplitSpec(0.2, 3, "group", seed),
            None,
            (),
            group,
            [str(k) for k in range(16)],
        )
        assert len(made.test) == 12, seed


def test_a_column_of_hospitals_does_not_care_about_parts_that_the_split_does_not_take(tmp_path: Path) -> None:
    made = rows(
        12,
        label=lambda n: "ab"[n % 2],
        split=lambda n: "val" if n % 3 == 0 else "train",
        hospital=lambda n: "B" if n < 4 else "A",
    )
    spec = replace(table(tmp_path / "d", made), split=SplitSpec(ByColumn("hospital", "B"), 0.25))
    data = prepare(spec, tmp_path / "cache")
    assert sorted(np.flatnonzero(data.part == TEST)) == [0, 1, 2, 3]
    assert VALIDATION not in data.part
    clashing = replace(spec, split=SplitSpec(ByColumn("hospital", "B"), ByColumn("split", "val")))
    with pytest.raises(
        InputError, match=r"split.validation: 2 of the 4 examples whose split is val are in the test part as well"
    ):
        prepare(clashing, tmp_path / "cache")


def test_files_that_look_alike_in_two_places_are_two_data_sets(tmp_path: Path) -> None:
    digests = set()
    for name, value in (("A", 10), ("B", 200)):
        file = tmp_path / name / "fold.npz"
        file.parent.mkdir()
        images = np.full((8, 8, 8), value, np.uint8)
        np.savez(file, train_images=images, train_labels=np.arange(8) % 2)
        os.utime(file, ns=(10**18, 10**18))
        digests.add(prepare(DataSpec(f"npz:{file}"), tmp_path / "cache").digest)
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("returned", "fault"),
    [
        ("'patient': ['p'] * 5", "data: patient of mine.py:load: expected one for each of 6 images; got 5 values."),
        ("'patient': 5", "data: patient of mine.py:load: expected one for each of 6 images; got 5."),
        ("'part': None", "data: part of mine.py:load: expected one for each of 6 images; got None."),
        (
            "'part': ['train'] * 5 + ['hold']",
            "data: part of mine.py:load: expected train, val or test in every row; got 'hold'",
        ),
        ("'images': (i for i in [])", "data: images of mine.py:load: expected a list or an array; got generator."),
        ("'labels': [0, 1, None, 0, 1, 0]", "data: labels of mine.py:load, row 2: expected a label"),
        ("'labels': [[0, 1]] * 5 + [[1]]", "data: labels of mine.py:load, row 5: expected 2 values of 0 or 1"),
    ],
)
def test_what_a_users_function_gives_is_checked(tmp_path: Path, returned: str, fault: str) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef load():\n"
        f"    return {{'images': np.zeros((6, 8, 8), np.uint8), 'labels': [0, 1] * 3, {returned}}}\n"
    )
    spec = DataSpec(f"{tmp_path}/mine.py:load", group_column="patient" if "patient" in returned else None)
    with pytest.raises(InputError) as caught:
        prepare(spec, tmp_path / "cache")
    assert fault in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn"])
def test_an_npz_file_that_is_none_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match="is not a readable"):
        prepare(DataSpec(f"npz:{tmp_path}/a.npz"), tmp_path / "cache")


def test_a_strip_of_pixels_is_cropped_before_it_is_scaled(tmp_path: Path) -> None:
    """60000 x 1 pixels, scaled to 96 on the short side first, would be 553 million."""
    from lrstudy.data.decoding import decode

    strip = np.full((1, 60_000), 200, np.uint8)
    assert (decode(strip, 1, 96, "crop") == 200).all()


READER = """
import csv, pathlib
from PIL import Image
import numpy as np
here = pathlib.Path(__file__).parent
LABELS = dict(csv.reader((here / "labels.csv").open()))

def load():
    names = sorted(LABELS)
    images = IMAGES
    return {"images": images, "labels": [LABELS[name] for name in names]}
"""


@pytest.mark.parametrize(
    "images", ["names", "np.stack([np.array(Image.open(here / name)) for name in names])"], ids=["paths", "pixels"]
)
@pytest.mark.parametrize("changed", ["labels.csv", "3.png"])
def test_what_a_users_function_reads_is_noticed_when_it_changes(tmp_path: Path, images: str, changed: str) -> None:
    """The data was recalled as it had been, whatever had become of the files that the function read."""
    for k in range(6):
        Image.fromarray(np.full((8, 8), 40 * k, np.uint8)).save(tmp_path / f"{k}.png")
    table_ = "".join(f"{k}.png,{'ab'[k % 2]}\n" for k in range(6))
    (tmp_path / "labels.csv").write_text(table_)
    (tmp_path / "mine.py").write_text(READER.replace("IMAGES", images))
    spec = DataSpec(f"{tmp_path}/mine.py:load")
    before = prepare(spec, tmp_path / "cache")
    decoded: list[int] = []
    assert prepare(spec, tmp_path / "cache", before_decoding=lambda: decoded.append(1)).digest == before.digest
    assert not decoded
    if changed == "3.png":
        Image.fromarray(np.full((8, 8), 7, np.uint8)).save(tmp_path / changed)
    else:
        (tmp_path / changed).write_text(table_.replace("3.png,b", "3.png,a"))
    for name in [name for name in sys.modules if name.startswith("lrstudy_own_")]:
        del sys.modules[name]  # as in another process
    after = prepare(spec, tmp_path / "cache", before_decoding=lambda: decoded.append(1))
    assert decoded
    assert after.digest != before.digest


# --- statistics ---------------------------------------------------------------------------------------


def test_statistics_count_classes_groups_and_copies(tmp_path: Path) -> None:
    labels = lambda n: "a" if n < 10 else "b" if n < 12 else "c"  # noqa: E731
    spec = table(tmp_path / "d", rows(16, label=labels, split=lambda n: "test" if n in (1, 3, 15) else "train"))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "d" / "1.png")  # the pixels of 0.png, which trains
    data = prepare(spec, tmp_path / "cache")
    chosen = SplitSpec("given", 3, "stratified")
    made = split(data.labels, data.part, chosen, None, data.classes)
    assert Statistics.of(data, made).num_copies is None, "nobody has looked at the pixels"
    found = Statistics.of(data, made).with_copies(data, made)
    assert found.summary == "10 training, 3 validation, 3 test examples; 3 classes with 2 to 6 training examples each"
    assert found.num_examples == {"train": 10, "validation": 3, "test": 3}
    assert found.counts["test"] == (2, 0, 1)
    assert found.num_copies == 1
    assert found.undefined("test") == ["b"]
    notes = list(found.notes())
    assert any("In the test part b cannot be ranked" in note for note in notes)
    assert any("1 of the 3 test examples has exactly the pixels" in note for note in notes)
    assert found.to_json()["test"] == {"examples": 3, "counts": [2, 0, 1]}
    lines = found.describe()
    assert lines[0].split() == ["train", "validation", "test"]
    assert any(line.split()[:2] == ["b", str(found.counts["train"][1])] for line in lines)


# --- real data ----------------------------------------------------------------------------------------


def test_chest_x_rays_are_read_as_their_description_says(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "nih_cxr14_1k"
    if not folder.exists():
        pytest.skip("the data set nih_cxr14_1k is not on this machine")
    spec = DataSpec(
        f"csv:{folder / 'index.csv'}", root=str(folder / "images"), group_column="patient", image=ImageSpec(size=32, channels="grey")
    )  # fmt: skip
    data = prepare(spec, tmp_path)
    train, validation, test = divided(data, SplitSpec("given", 0.15, "group"))
    assert (len(train) + len(validation), len(test)) == (797, 203)
    assert len(data.classes) == 14
    found = Statistics.of(
        data, split(data.labels, data.part, SplitSpec("given", 0.15, "group"), None, (), data.group, data.groups)
    )
    assert found.undefined("test") == ["Fibrosis", "Hernia"]
    assert found.num_groups == 682
