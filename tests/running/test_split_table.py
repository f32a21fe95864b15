"""split.parquet: every example that a study uses, once, in its part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from image_files import image
from lrstudy.running.split_table import split_table
from lrstudy.study_folder.schemas import SPLIT
from lrstudy.workload.workload import opened_data
from study_files import plan_of


def test_every_example_has_one_part_its_label_and_its_row():
    workload = plan_of().workload
    table = split_table(workload)
    assert table.schema == SPLIT
    data, parts = opened_data(workload)
    found = table.to_pandas()
    assert found["example"].is_monotonic_increasing
    assert found["example"].is_unique
    for part in ("train", "validation", "test"):
        index = getattr(parts, part)
        mine = found[found["part"] == part]
        assert mine["example"].tolist() == index.tolist()
        assert mine["label"].tolist() == data.labels[index].tolist()
    assert len(found) == sum(workload.counts), "what `subset` left out is not there"
    assert found["source"].tolist() == [f"digit {k}" for k in found["example"]]
    assert found["label_name"].tolist() == [str(k) for k in found["label"]]


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """A CSV file of 24 images of six patients, four of each, with up to two labels."""
    lines = ["image,label,patient"]
    for k in range(24):
        image(tmp_path / "images" / f"{k}.png", np.full((8, 8), 10 * k, np.uint8))
        lines.append(f"images/{k}.png,{('a', 'b', 'a|b')[k % 3]},p{k // 4}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    return tmp_path / "list.csv"


def test_files_groups_and_several_labels_are_those_of_the_source(patients):
    split = "workload.split={test: 8, validation: 8, by: group}"
    plan = plan_of(
        f"workload.data={{source: 'csv:{patients}', group: patient}}",
        split,
        "workload.subset=null",
        "common.batch_size=4",
    )
    rows = split_table(plan.workload).to_pylist()
    lines = [line.split(",") for line in patients.read_text().splitlines()[1:]]
    assert len(rows) == 24
    for row, (file, labels, patient) in zip(rows, lines, strict=True):
        assert (row["source"], row["label_name"], row["group"]) == (file, labels, patient)
        assert row["labels"] == [int("a" in labels), int("b" in labels)]
        assert row["label"] is None
