"""`lrstudy lr-find`: a chart, JSON or a drawing; recalled the second time; every mistake is one paragraph."""

from __future__ import annotations

import json

import pytest

from lrstudy.cli import _main
from lrstudy.cli.range_svg import draw
from lrstudy.tracing.range_chart import chart
from lrstudy.training.range_curve import Curve

STUDY = """
lrstudy: 1
name: small
workload: {data: digits, subset: 120, split: {test: 0.5, validation: 40}, model: small_cnn}
budget: {epochs: 2}
common: {lr: {found: steep, updates: 30}, batch_size: 20}
arms: {constant: , adam: {policy: constant, optimizer: adam, lr: 0.01}}
"""
CURVE = Curve(4, (0.1, 0.2, 0.4, 0.8), (2.0, 1.5, 1.0, 3.0), (2, 4), (0.3, 0.6), 0.1, 50)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "study.yaml").write_text(STUDY)

    def run(*options: str, code: int = 0) -> str:
        study = [str(tmp_path / "study.yaml"), f"storage.path={tmp_path / 'runs'}"]
        assert _main(["lr-find", *study, *options]) == code
        said = capsys.readouterr()
        return said.out if code == 0 else said.err

    return run


def test_the_chart_shows_the_smoothed_loss_and_the_accuracy_between_the_rates_of_the_test():
    text = chart(CURVE, 60).plain
    assert "loss (smoothed)" in text
    assert "accuracy (validation)" in text
    axis = text.splitlines()[-1].split()
    assert axis == ["0.1", "0.4", "0.8", "rate"]
    assert "*" in chart(CURVE, 60, is_unicode=False).plain


def test_the_drawing_marks_every_suggestion_and_is_the_same_every_time():
    drawn = [draw(CURVE, {"valley": 0.2, "smith": 0.4}, "valley", True) for _ in range(2)]
    assert drawn[0] == drawn[1]
    for text in ("valley 0.2", "smith 0.4", "accuracy on the validation part", "learning rate"):
        assert text in drawn[0]


@pytest.mark.slow
def test_a_test_is_run_once_and_tells_all_that_it_found(command, tmp_path):
    asked = json.loads(command("--json"))
    assert (asked["arm"], asked["suggestion"], asked["recalled"]) == ("constant", "steep", False)
    assert asked["lr"] == asked["suggestions"]["steep"]
    assert (
        len(asked["rates"]) == len(asked["losses"]) == len(asked["smoothed_losses"]) <= asked["planned_updates"] == 30
    )
    again = json.loads(command("--json", "--suggest", "minimum"))
    assert again["recalled"]
    assert again["lr"] == asked["suggestions"]["minimum"]
    assert again["range_test"] == asked["range_test"], "which rate is taken changes nothing of the test"
    shown = command()
    assert f"constant: {asked['lr']:g} (steep)" in shown
    assert "exponential from 1e-07 to 10" in shown
    drawing = tmp_path / "curve.svg"
    assert command("--svg", str(drawing)).strip() == str(drawing)
    assert "<svg" in drawing.read_text()
    other = json.loads(command("--arm", "adam", "--form", "linear", "--high", "0.1", "--json"))
    assert (other["optimizer"], other["suggestion"], other["low"], other["high"]) == ("adam", "smith", 1e-4, 0.1)
    assert other["bounds"]["max"] <= 0.1
    assert len(other["accuracies"]) == len(other["accuracy_after"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--low", "3", "--high", "1"], "--low: expected it below high; got 3 and 1."),
        (["--updates", "0"], "--updates: expected a whole number of at least 1"),
        (["--suggest", "smith", "--form", "exponential"], "--suggest: smith goes by the accuracy"),
        (["--arm", "constnat"], "--arm: there is no arm 'constnat'. Did you mean 'constant'?"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(command, options, text):
    assert text in command(*options, code=2)


@pytest.mark.slow
def test_a_test_that_diverges_at_its_first_rate_is_one_paragraph(command):
    said = command("--low", "1e10", "--high", "1e12", "--updates", "30", code=2)
    assert (
        "arms.constant.lr: the range test diverged at its first rate, 1e+10: its first update raised the loss" in said
    )
    assert "Begin lower (low)." in said
    assert "Traceback" not in said
