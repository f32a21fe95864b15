"""An exported model says of an image what the trained model said of it in the study, from the original file on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from finished_studies import TINY, finished
from lrstudy.data.open_source import open_source
from lrstudy.errors import InputError
from lrstudy.export.files import export, load
from lrstudy.export.onnx_file import Session
from lrstudy.export.winner import find
from report_studies import edit_lock

pytestmark = pytest.mark.slow

ONE = TINY.replace("[constant, step]", "[constant]").replace("trials: 2", "trials: 1").replace("seeds: 2", "seeds: 1")
DIGITS = "{data: digits, subset: 200, split: {test: 60, validation: 40}, model: small_cnn}"
ISIC = "{data: 'folder:SHARED/isic_uda1', image: {size: 48, resize: squash}, subset: 200, model: small_cnn}"
SIGNS = "{data: 'parquet:SHARED/sign_digits', image: {size: 30, resize: crop, channels: grey}, subset: 200, model: small_cnn}"
CHESTS = (
    "{data: {source: 'parquet:SHARED/nih_cxr14_1k', label: labels}, image: {size: 50, resize: pad, channels: grey}, "
    "subset: 200, model: lenet}"
)
OWN = """
import torch

def build(num_classes, channels, size):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * size * size, num_classes))
"""
TOLERANCE = 2e-5
"""In logits: float32 sums in another order. A grey level in one pixel would already move them by 1e-3."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """A study of the digits, and one of its arms exported."""
    folder = tmp_path_factory.mktemp("digits")
    study = finished(folder, ONE)
    export(find(f"{study}/constant"), folder / "out")
    return study


def exported(study: Path) -> Path:
    return study.parents[1] / "out"


def card_of(folder: Path) -> dict:
    return json.loads((folder / "card.json").read_text())


@pytest.mark.parametrize(
    ("workload", "num_test"), [(ISIC, 139), (SIGNS, 393), (CHESTS, 203)], ids=["isic", "signs", "chests"]
)
def test_onnxruntime_gives_the_outputs_of_the_trained_model_on_the_original_test_images(
    workload, num_test, tmp_path, shared_data
):
    metric = "metric: auroc\n" if workload == CHESTS else ""
    study = finished(tmp_path, ONE.replace(DIGITS, workload.replace("SHARED", str(shared_data))) + metric)
    done = export(find(f"{study}/constant"), tmp_path / "out")
    compared = card_of(tmp_path / "out")["onnx"]
    assert (compared["num_images"], compared["num_test"], compared["num_changed"]) == (num_test, num_test, 0)
    assert 0 < compared["largest_logit"] < TOLERANCE
    assert compared["largest_probability"] < TOLERANCE
    assert f"{compared['largest_logit']:.1e} in logits" in done.notes[0]


def test_the_comparison_notices_an_image_that_is_resized_otherwise(tmp_path, shared_data):
    """The source of the claim lost accuracy because its app resized differently."""
    study = finished(tmp_path, ONE.replace(DIGITS, ISIC.replace("SHARED", str(shared_data))))
    text = (study / "study.yaml").read_text()
    (study / "study.yaml").write_text(text.replace("resize: squash", "resize: pad"))
    export(find(f"{study}/constant"), tmp_path / "out")
    assert card_of(tmp_path / "out")["onnx"]["largest_logit"] > 1e-2


def test_a_batch_of_any_number_and_size_goes_through_the_graph(digits):
    session = Session(exported(digits) / "model.onnx")
    for number, height, width in ((1, 8, 8), (5, 31, 17), (2, 200, 3)):
        images = np.random.default_rng(0).integers(0, 256, (number, height, width, 3), dtype=np.uint8)
        logits, probabilities = session.run(images)
        assert logits.shape == probabilities.shape == (number, 10)
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
        expected = load(exported(digits))(torch.from_numpy(images))
        np.testing.assert_allclose(logits, expected[0].detach().numpy(), atol=TOLERANCE)


def test_the_loaded_model_gives_the_predictions_of_the_study(digits):
    model = load(exported(digits))
    assert not model.training
    winner = find(f"{digits}/constant")
    rows = winner.predictions()
    images = dict(enumerate(pixels for _, pixels in open_source(winner.study.workload.data_spec(digits)).images()))
    for row in rows:
        rgb = np.repeat(np.asarray(images[row["example"]])[..., None], 3, axis=2)
        with torch.no_grad():
            logits, probabilities = model(torch.from_numpy(rgb)[None])
        np.testing.assert_allclose(logits[0].numpy(), row["scores"], atol=TOLERANCE)
        np.testing.assert_allclose(probabilities[0].numpy(), row["probabilities"], atol=TOLERANCE)


def test_the_card_says_what_the_model_is_and_where_it_comes_from(digits):
    card, winner = card_of(exported(digits)), find(f"{digits}/constant")
    assert card["classes"] == [str(digit) for digit in range(10)]
    assert (card["preprocessing"]["size"], card["preprocessing"]["channels"]) == ([8, 8], 1)
    assert card["training"]["lineage"] == winner.trial["selected_lineage"]
    assert card["training"]["configuration"]["batch_size"] == 20
    assert card["metrics"]["test"] == winner.trial["test_metric"] == card["metrics"]["all_test"]["accuracy"]
    assert card["source"] is None
    assert str(digits.parents[1]) not in (exported(digits) / "card.json").read_text(), "it may be passed on"
    weights = load_file(exported(digits) / "model.safetensors")
    assert weights.keys() == load(exported(digits)).network.state_dict().keys()


def test_the_card_has_the_interval_of_the_report(digits):
    import lrstudy_reports

    lrstudy_reports.build(digits)
    (digits / "arms.parquet").stat()
    export(find(f"{digits}/constant"), exported(digits), with_onnx=False)
    arm = card_of(exported(digits))["metrics"]["arm"]
    assert arm["mean"] == pytest.approx(find(f"{digits}/constant").trial["test_metric"])
    assert arm["low"] is None, "one seed has no interval"


def test_statistics_of_batchnorm_are_recomputed_where_the_study_tested_with_such(tmp_path):
    study = finished(tmp_path, ONE, "workload.batchnorm=precise")
    winner = find(f"{study}/constant")
    export(winner, tmp_path / "out")
    compared = card_of(tmp_path / "out")["onnx"]
    assert compared["num_images"] == 60
    assert compared["largest_logit"] < TOLERANCE


def test_a_model_of_ones_own_is_exported_and_its_file_is_named(tmp_path):
    workload = DIGITS.replace("small_cnn", "./mine.py:build")
    study = finished(tmp_path, ONE.replace(DIGITS, workload), files={"mine.py": OWN})
    export(find(f"{study}/constant"), tmp_path / "out")
    card = card_of(tmp_path / "out")
    assert card["source"]["model"] == "./mine.py:build"
    assert card["onnx"]["largest_logit"] < TOLERANCE
    with pytest.raises(InputError, match=r"its model is one of your own: pass load\(\) the function of mine.py:build"):
        load(tmp_path / "out")
    namespace: dict = {}
    exec(OWN, namespace)
    assert load(tmp_path / "out", namespace["build"])(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))[0].shape == (1, 10)
    identity = json.loads((study / "study.lock.json").read_text())["identity"]
    edit_lock(study, identity={**identity, "source": {"model": "0" * 32}})
    with pytest.raises(InputError, match=r"the source of .*mine.py:build has changed"):
        export(find(f"{study}/constant"), tmp_path / "again")


def test_data_that_is_gone_is_said_and_the_model_is_exported(tmp_path):
    images = tmp_path / "images"
    for k in range(40):
        path = images / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 6 * k, np.uint8)).save(path)
    workload = "{data: 'folder:images', split: {test: 8, validation: 8}, model: small_cnn}"
    study = finished(tmp_path, ONE.replace(DIGITS, workload))
    images.rename(tmp_path / "elsewhere")
    done = export(find(f"{study}/constant"), tmp_path / "out")
    assert done.notes[0].startswith("Not compared with the study on its test images: ")
    assert card_of(tmp_path / "out")["onnx"]["num_images"] == 0
    assert load(tmp_path / "out") is not None


def test_what_is_no_export_is_not_overwritten(digits, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="exists and is no exported model"):
        export(find(f"{digits}/constant"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_missing_packages_are_named_with_the_way_to_them(digits, tmp_path):
    with (
        mock.patch("importlib.util.find_spec", lambda name: None if name == "onnxscript" else name),
        pytest.raises(
            InputError, match=r"ONNX needs onnxscript, which is not installed. pip install 'lrstudy\[export\]'"
        ),
    ):
        export(find(f"{digits}/constant"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote_and_how_far_onnx_differs(digits, tmp_path):
    command = [sys.executable, "-P", "-c", "from lrstudy.cli import main; main()", "export"]
    done = subprocess.run([*command, f"{digits}/constant"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "Wrote small-constant: model.safetensors, card.json, model.onnx.\nTrial constant-confirm-1-1000, epoch 2: accuracy "
    )
    assert "onnxruntime on all 60 original test images" in done.stdout
    assert sorted(path.name for path in (tmp_path / "small-constant").iterdir()) == [
        "card.json",
        "model.onnx",
        "model.safetensors",
    ]
    done = subprocess.run([*command, f"{digits}/clr"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no arm 'clr'. Valid: constant." in done.stderr
