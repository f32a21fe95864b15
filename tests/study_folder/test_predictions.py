"""Predictions: probabilities beside logits, and what a reader needs to know of each example."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.special import expit, softmax

from lrstudy.study_folder import predictions
from lrstudy.study_folder.schemas import PREDICTIONS

LOGITS = np.array([[-3.0, 0.5, 2.0], [1000.0, 0.0, -1000.0]], dtype=np.float32)


def written(folder, labels, **further):
    predictions.write(folder, "t", "a", np.array([7, 3]), labels, LOGITS, **further)
    return pq.read_table(folder / "predictions" / "t.parquet")


def test_probabilities_of_classes_sum_to_one_however_large_the_logits(tmp_path):
    table = written(tmp_path, np.array([2, 0]), classes=("cat", "dog", "owl"), sources=("a/1.png", "a/2.png"))
    assert table.schema.remove_metadata() == PREDICTIONS
    found = np.array(table.column("probabilities").to_pylist())
    assert found == pytest.approx(softmax(LOGITS.astype(float), axis=1), abs=1e-7)  # float32
    assert table.column("label_name").to_pylist() == ["owl", "cat"]
    assert table.column("source").to_pylist() == ["a/1.png", "a/2.png"]
    assert table.column("scores").to_pylist() == LOGITS.tolist()


def test_of_several_labels_each_has_a_probability_of_its_own(tmp_path):
    table = written(tmp_path, np.array([[1, 0, 1], [0, 0, 0]], np.uint8), classes=("x", "y", "z"))
    found = np.array(table.column("probabilities").to_pylist())
    assert found == pytest.approx(expit(LOGITS.astype(float)), abs=1e-7)
    assert table.column("label_name").to_pylist() == ["x|z", ""]
    assert table.column("labels").to_pylist() == [[1, 0, 1], [0, 0, 0]]
    assert table.column("source").to_pylist() == [None, None], "an entry of the cache that does not know"
    assert json.dumps(table.column("label").to_pylist()) == "[null, null]"
