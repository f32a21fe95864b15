"""Sources: what is read, in which order, and what a person is told when it cannot be."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lrstudy.data.cells import POOL, TEST, VALIDATION
from lrstudy.data.labels import encode
from lrstudy.data.open_source import open_source
from lrstudy.data.spec import DataSpec
from lrstudy.errors import InputError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def png(value=0, shape=(4, 4)):
    buffer = io.BytesIO()
    Image.fromarray(np.full(shape, value, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def write(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def fault(source, **columns):
    """The message of the error that reading everything in a source gives."""

    def read():
        opened = open_source(DataSpec(source, **columns))
        opened.fingerprint()
        opened.labels()
        list(opened.images())

    with pytest.raises(InputError) as caught:
        read()
    return str(caught.value)


def shared(name):
    if not (SHARED / name).exists():
        pytest.skip(f"the data set {name} is not on this machine")
    return SHARED / name


def test_digits_scales_sixteen_to_255_and_rounds():
    from sklearn.datasets import load_digits

    source = open_source(DataSpec("digits"))
    labels, parts = source.labels()
    images = [image for _, image in source.images()]
    assert len(images) == len(labels) == 1797
    assert set(labels) == set(range(10))
    assert set(parts) == {POOL}
    stored = load_digits().images[0]
    assert images[0].dtype == np.uint8
    # worked by hand: 5 * 255 / 16 = 79.69, 13 * 255 / 16 = 207.19, 16 -> 255
    assert stored[0, 2:4].tolist() == [5, 13]
    assert images[0][0, 2:4].tolist() == [80, 207]
    assert max(image.max() for image in images) == 255


def test_a_folder_of_classes_is_read_sorted_and_all_in_the_pool(tmp_path):
    for file in ("b/2.png", "b/1.PNG", "a/z.jpg", "a/.hidden.png", "a/notes.txt"):
        write(tmp_path / file)
    write(tmp_path / "readme.md")
    source = open_source(DataSpec(f"folder:{tmp_path}"))
    assert source.labels() == (["a", "b", "b"], [POOL] * 3)
    assert [name for name, _ in source.images()] == ["a/z.jpg", "b/1.PNG", "b/2.png"]


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_part_folders_say_who_validates_and_tests(tmp_path, validation):
    for file in ("train/a/1.png", "train/b/1.png", f"{validation}/a/2.png", "test/b/3.png", "other/c/1.png"):
        write(tmp_path / file)
    labels, parts = open_source(DataSpec(f"folder:{tmp_path}")).labels()
    assert list(zip(labels, parts, strict=True)) == [
        ("a", POOL),
        ("b", POOL),
        ("a", VALIDATION),
        ("b", TEST),
    ]


def test_the_fingerprint_of_a_folder_sees_a_changed_file(tmp_path):
    for file in ("a/1.png", "b/1.png"):
        write(tmp_path / file)
    source = open_source(DataSpec(f"folder:{tmp_path}"))
    before = source.fingerprint()
    assert before == source.fingerprint()
    write(tmp_path / "a/1.png", b"longer")
    assert source.fingerprint() != before


def test_isic_is_read_alike_from_its_folder_and_its_parquet_files():
    path = shared("isic_uda1")
    folder, parquet = open_source(DataSpec(f"folder:{path}")), open_source(DataSpec(f"parquet:{path}"))
    labels, parts = folder.labels()
    numbers, parquet_parts = parquet.labels()
    assert parts == parquet_parts == [POOL] * 416 + [TEST] * 139
    assert {n: labels.count(n) for n in set(labels)} == {"benign": 397, "malignant": 158}
    assert sorted(labels) == sorted(["benign", "malignant"][number] for number in numbers)
    files = sorted(path.read_bytes() for _, path in folder.images())
    assert files == sorted(encoded for _, encoded in parquet.images())


def test_parquet_takes_structs_strings_dictionaries_and_one_file(tmp_path):
    file = tmp_path / "data.parquet"
    images = pa.array([{"bytes": png(1), "path": "a.png"}, {"bytes": None, "path": "b.png"}])
    kinds = pa.array(["cat", "dog"]).dictionary_encode()
    pq.write_table(pa.table({"picture": images, "kind": kinds}), file)
    source = open_source(DataSpec(f"parquet:{file}", image_column="picture", label_column="kind"))
    assert source.labels() == (["cat", "dog"], [POOL, POOL])
    assert list(source.images()) == [("data.parquet row 0", png(1)), ("data.parquet row 1", b"")]


def test_parquet_streams_more_rows_than_it_holds_at_once_in_order(tmp_path):
    values = [str(i).encode() for i in range(1000)]
    table = pa.table({"image": pa.array(values, pa.binary()), "label": [i % 2 for i in range(1000)]})
    for name in ("train", "validation", "test"):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=300)
    source = open_source(DataSpec(f"parquet:{tmp_path}"))
    assert [encoded for _, encoded in source.images()] == values * 3
    assert source.labels()[1] == [POOL] * 1000 + [VALIDATION] * 1000 + [TEST] * 1000


def test_an_unknown_source_names_the_nearest_ones():
    assert fault("digitz").startswith(
        "data: there is no source 'digitz'. Did you mean 'digits'? Valid: digits, folder:PATH, parquet:PATH, csv:PATH,"
    )
    assert "Did you mean 'cifar10'" in fault("cifar")


def test_faults_of_folders_are_named(tmp_path):
    assert fault(f"folder:{tmp_path}/none") == f"data: there is no folder {tmp_path}/none."
    assert f"{tmp_path} has no class folders; expected one folder of images" in fault(f"folder:{tmp_path}")
    write(tmp_path / "file")
    assert fault(f"folder:{tmp_path}/file") == f"data: {tmp_path}/file is a file; expected a folder."
    write(tmp_path / "a/1.png")
    (tmp_path / "b").mkdir()
    assert f"the class folder {tmp_path}/b has no images (files ending in" in fault(f"folder:{tmp_path}")
    write(tmp_path / "b/deep/1.png")
    assert "b holds the folder 'deep'; expected image files" in fault(f"folder:{tmp_path}")


@pytest.mark.parametrize("name", ["valid", "dev", "Val"])
def test_a_validation_part_has_many_names(tmp_path, name):
    for file in ("train/a/1.png", f"{name}/a/2.png", "test/a/3.png"):
        write(tmp_path / "folder" / file)
    assert open_source(DataSpec(f"folder:{tmp_path / 'folder'}")).labels()[1] == [POOL, VALIDATION, TEST]
    for stem in ("train", name, "test"):
        pq.write_table(pa.table({"image": [b"x"], "label": [1]}), tmp_path / f"{stem}.parquet")
    assert open_source(DataSpec(f"parquet:{tmp_path}")).labels()[1] == [POOL, VALIDATION, TEST]


def test_one_parquet_file_may_name_parts_in_a_column(tmp_path):
    columns = {"image": [b"x"] * 3, "label": [1, 0, 1], "split": ["train", "val", "test"]}
    pq.write_table(pa.table(columns), tmp_path / "d.parquet")
    assert open_source(DataSpec(f"parquet:{tmp_path / 'd.parquet'}")).labels()[1] == [POOL, VALIDATION, TEST]


def test_labels_of_all_files_are_read_as_one(tmp_path):
    for name, labels in (("train", ["a|b", "b"]), ("test", ["a", "No Finding"])):
        pq.write_table(pa.table({"image": [b"x"] * 2, "label": labels}), tmp_path / f"{name}.parquet")
    assert open_source(DataSpec(f"parquet:{tmp_path}")).labels()[0] == [("a", "b"), ("b",), ("a",), ()]


def test_two_validation_folders_are_refused(tmp_path):
    for file in ("train/a/1.png", "val/a/2.png", "validation/b/3.png"):
        write(tmp_path / file)
    assert "has both val/ and validation/" in fault(f"folder:{tmp_path}")


def test_a_folder_that_may_not_be_listed_says_so(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("lrstudy.data.sources.files.os.scandir", forbidden)
    assert fault(f"folder:{tmp_path}") == f"data: the folder {tmp_path} cannot be read (Permission denied)."


def test_faults_of_parquet_files_are_named(tmp_path):
    assert fault(f"parquet:{tmp_path}/x") == f"data: there is no file or folder {tmp_path}/x."
    assert "has no train.parquet" in fault(f"parquet:{tmp_path}")
    file = tmp_path / "train.parquet"
    write(file, b"not parquet at all")
    assert f"{file} is not a readable Parquet file" in fault(f"parquet:{file}")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"img": [b"x"], "label": [0]}, "there is no column 'image'. Did you mean 'img'? Valid: img, label."),
        ({"image": [b"x"], "labels": [0]}, "there is no column 'label'. Did you mean 'labels'? Valid:"),
        (
            {"image": ["a.png"], "label": [0]},
            "the column 'image' of d.parquet holds string; expected the bytes",
        ),
        (
            {"image": [b"x"], "label": [0.5]},
            "the column 'label' of d.parquet holds double; expected integers",
        ),
        ({"image": [b"x"], "label": [1.5]}, "holds double; expected integers or strings"),
        ({"image": [b"x", b"y"], "label": [1, None]}, "the column 'label': there is no label in row 1 (1 such rows)."),
    ],
)
def test_faults_of_columns_are_named(tmp_path, columns, expected):
    file = tmp_path / "d.parquet"
    pq.write_table(pa.table(columns), file)
    assert expected in fault(f"parquet:{file}")


def test_numbers_below_zero_are_no_classes_unless_there_are_minus_one_and_one(tmp_path):
    def encoded(labels):
        pq.write_table(pa.table({"image": [b"x"] * len(labels), "label": labels}), tmp_path / "d.parquet")
        return encode(open_source(DataSpec(f"parquet:{tmp_path / 'd.parquet'}")).labels()[0], None)

    assert encoded([1, -1, 1])[1] == ("-1", "1")
    with pytest.raises(InputError) as caught:
        encoded([0, 1, -1, 2, -1])
    assert str(caught.value) == (
        "data: labels: expected numbers from 0 on (or -1 and 1 for two classes); got -1 in row 2 and negative ones in 2 of 5 rows. "
        "Leave out rows without a label."
    )


def test_labels_of_two_kinds_in_two_files_are_refused(tmp_path):
    pq.write_table(pa.table({"image": [b"x"], "label": [1]}), tmp_path / "train.parquet")
    pq.write_table(pa.table({"image": [b"x"], "label": ["cat"]}), tmp_path / "test.parquet")
    assert "holds integers in train.parquet, strings in test.parquet; expected one kind" in fault(f"parquet:{tmp_path}")


def test_every_example_is_named_by_its_file_or_row(tmp_path):
    for file in ("a/1.png", "b/2.png"):
        write(tmp_path / "images" / file, png())
    pixels = np.zeros((2, 4, 4), np.uint8)
    np.savez(tmp_path / "d.npz", train_images=pixels, train_labels=[0, 1], test_images=pixels, test_labels=[0, 1])
    pq.write_table(pa.table({"image": [png(), png()], "label": [0, 1]}), tmp_path / "d.parquet")
    (tmp_path / "d.csv").write_text("image,label\nimages/a/1.png,x\nimages/b/2.png,y\n")
    code = "def load():\n    return {'images': ['images/b/2.png', 'images/a/1.png'], 'labels': [0, 1]}\n"
    (tmp_path / "mine.py").write_text(code)
    expected = {
        f"folder:{tmp_path}/images": ["a/1.png", "b/2.png"],
        f"npz:{tmp_path}/d.npz": [f"{part}_images row {row}" for part in ("train", "test") for row in range(2)],
        f"parquet:{tmp_path}/d.parquet": ["d.parquet row 0", "d.parquet row 1"],
        f"csv:{tmp_path}/d.csv": ["images/a/1.png", "images/b/2.png"],
        f"{tmp_path}/mine.py:load": ["images/b/2.png", "images/a/1.png"],
    }
    for text, names in expected.items():
        source = open_source(DataSpec(text))
        assert source.names() == names, text
        assert len(source.labels()[0]) == len(names)
        if text.startswith(("folder", "npz", "parquet")):
            assert [name for name, _ in source.images()] == names, "messages name them so, too"
    digits = open_source(DataSpec("digits"))
    assert digits.names() == [name for name, _ in digits.images()]
