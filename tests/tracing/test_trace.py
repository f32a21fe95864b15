"""lrstudy trace: the numbers that training would be given, as JSON, table, chart and drawing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from golden_cases import CASES, canonical
from lrstudy.cli import _main
from lrstudy.errors import InputError
from lrstudy.policies.run import count_updates
from lrstudy.tracing.length import Length, length_of
from lrstudy.tracing.make_traces import trace_policies
from lrstudy.tracing.metrics_input import read_metrics
from lrstudy.tracing.trace_chart import chart, panels

HERE = Path()


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert _main(["trace", *arguments, "--json"]) == 0
    found: dict = json.loads(capsys.readouterr().out)
    return found


def flags(case: dict) -> list[str]:
    """The command line of a golden case: policy, values, and the length of its run."""
    name, values = canonical()[case["id"]]
    if "batch_size" not in values:
        values["batch_size"] = case["batch_size_per_epoch"][0]
    given = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    epochs, examples = len(case["batch_size_per_epoch"]), case["params"]["N"]
    return [
        name,
        *given,
        "--epochs",
        str(epochs),
        "--examples",
        str(examples),
        "--updates-per-epoch",
        str(case["steps_per_epoch"][0]),
    ]


@pytest.mark.parametrize(
    "case_id", ["clr_triangular2", "bs_smith_cap_residual", "wsd_linear", "onecycle_two_phase", "mishra_stage2_clm_dlr"]
)
def test_the_json_holds_a_golden_trajectory(capsys: pytest.CaptureFixture[str], case_id: str) -> None:
    case = CASES[case_id]
    found = told(capsys, *flags(case))
    assert found["batch_size_per_epoch"] == case["batch_size_per_epoch"]
    assert found["updates_per_epoch"] == case["steps_per_epoch"]
    close = {"rtol": 5.1e-9, "atol": case["tolerance"]["atol"]}  # half a unit in the ninth digit
    if "lr_per_step_groups" in case:
        sections = list(case["lr_per_step_groups"].values())
        np.testing.assert_allclose(found["lr_per_step_sections"], sections, **close)
        np.testing.assert_allclose(found["lr_per_step"], sections[-1], **close)
    else:
        np.testing.assert_allclose(found["lr_per_step"], case["lr_per_step"], **close)
    if "momentum_per_step" in case:
        np.testing.assert_allclose(found["momentum_per_step"], case["momentum_per_step"], **close)


def test_by_epoch_the_json_holds_summaries(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "cosine", "lr=1.0", "--epochs", "2", "--updates-per-epoch", "2", "--by", "epoch")
    rates = [np.cos(np.pi / 2 * k / 4) ** 2 for k in range(4)]
    summary = found["lr_per_epoch"]
    np.testing.assert_allclose(summary["first"], rates[::2], rtol=1e-8)
    np.testing.assert_allclose(summary["last"], rates[1::2], rtol=1e-8)
    assert "lr_per_step" not in found


def test_several_policies_are_traces_of_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "step", "clr", "gamma=0.5", "mode=exp_range", "--epochs", "4", "--updates-per-epoch", "3")[
        "traces"
    ]
    assert [trace["label"] for trace in found] == ["step", "clr"]
    assert [trace["parameters"]["gamma"] for trace in found] == [0.5, 0.5]


def test_the_arms_of_a_study_are_traced_at_their_defaults(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "lrstudy: 1\nname: s\nworkload: {data: digits}\nbudget: {epochs: 4}\ncommon: {lr: 0.2, batch_size: 10}\n"
        "arms: {constant: , late: {policy: step, milestones: [3], gamma: {choice: [0.1, 0.5], default: 0.5}}}\n"
    )
    found = told(capsys, str(path), "late", "--examples", "30")
    assert found["lr_per_step"] == [0.2] * 9 + [0.1] * 3
    assert found["sections"] == 3
    assert _main(["trace", str(path), "latte", "--examples", "30"]) == 2
    assert "trace: there is no arm 'latte'. Did you mean 'late'?" in capsys.readouterr().err


def test_what_a_reactive_policy_does_follows_from_metrics(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = ["plateau", "lr=1.0", "patience=1", "factor=0.5", "--epochs", "5", "--updates-per-epoch", "1"]
    assert told(capsys, *run)["lr_per_step"] == [1.0] * 5
    assert "without --metrics nothing triggers" in told(capsys, *run)["notes"][0]
    assert told(capsys, *run, "--metrics", "val_loss=1,1,1,1")["lr_per_step"] == [1.0, 1.0, 1.0, 0.5, 0.5]
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps([{"val_loss": 1.0}, {"val_loss": None}, {"val_loss": 1.0}, {"val_loss": 1.0}]))
    assert told(capsys, *run, "--metrics", str(file))["lr_per_step"] == [1.0, 1.0, 1.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ((), "trace: expected the name of a policy or a study file; got none"),
        (("sgdr",), "--epochs: expected the number of epochs; got nothing."),
        (("sgdr", "--epochs", "0"), "--epochs: expected a whole number of at least 1; got 0."),
        (("sgdrr", "--epochs", "3"), "there is no policy 'sgdrr'. Did you mean 'sgdr'"),
        (("sgdr", "t_0=3", "--epochs", "3"), "t_0: sgdr has no such parameter. Did you mean 't0'"),
        (("sgdr", "step", "gama=3", "--epochs", "3"), "gama: none of the policies has such a parameter. Did you mean 'gamma'"),
        (("step", "gamma=3", "--epochs", "3"), "step: gamma: expected a number above 0 and at most 1; got 3"),
        (("step", "tail=cut", "--epochs", "3"), "tail: expected keep or drop; got 'cut'."),
        (("step", "norm_batch=0", "--epochs", "3"), "norm_batch: expected a whole number of examples, initial (the trial's batch_size), or null; got 0."),
        (("step", "--epochs", "3", "--examples", "100", "--updates-per-epoch", "60"),
         "no batch size makes 60 updates of 100 examples. batch_size 1 makes 100; batch_size 2 makes 50."),
        (("step", "batch_size=10", "--epochs", "3", "--examples", "100", "--updates-per-epoch", "9"),
         "100 examples make 10 updates with batch_size 10; got 9. Leave one of the three out."),
        (("plateau", "--epochs", "3", "--metrics", "val_acc=1,2"), "--metrics: plateau looks at val_loss; got val_acc."),
        (("plateau", "--epochs", "1", "--metrics", "val_loss=1,2"), "at most the 1 epochs of the run; got 2 values."),
        (("plateau", "--epochs", "3", "--metrics", "val_loss=a"), "expected numbers, like val_loss=1.0,0.9; got 'a'."),
        (("plateau", "--epochs", "3", "--metrics", "nowhere.json"), "nowhere.json cannot be read: No such file"),
        (("cosine", "warmup=3", "--epochs", "3"), "cosine: warmup: expected a duration below the budget of 3 epochs; got 3"),
        (("sgdr_dlr", "--epochs", "3", "--num-sections", "2"), "section_ratios: expected one ratio per section of the model (2)"),
        (("sgdr", "--sections"), "--sections: expected it with a study file alone, whose model it shows; got sgdr."),
        (("step", "--epochs", "3", "--svg", "/nowhere/t.svg"), "--svg: cannot write /nowhere/t.svg: No such file"),
    ],
)  # fmt: skip
def test_faults_are_one_sentence_each_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], fault: str
) -> None:
    assert _main(["trace", *arguments]) == 2
    assert fault in capsys.readouterr().err


@pytest.mark.parametrize("tail", ["keep", "drop"])
@pytest.mark.parametrize("examples", [64, 97, 100, 101])
@pytest.mark.parametrize("updates", [1, 3, 7, 50])
def test_the_missing_one_of_three_follows_from_two(tail: str, examples: int, updates: int) -> None:
    try:
        found = length_of(5, updates, examples, None, tail)  # type: ignore[arg-type]
    except InputError:
        possible = {count_updates(examples, batch, tail) for batch in range(1, examples + 1)}  # type: ignore[arg-type]
        assert updates not in possible
        return
    assert count_updates(examples, found.batch_size, tail) == updates  # type: ignore[arg-type]


def test_lengths_have_defaults() -> None:
    assert length_of(5, None, None, None, "keep") == Length(5, 100, 32, 3200)
    assert length_of(5, None, 64, 100, "keep") == Length(5, 1, 100, 64)


def test_metrics_add_up_and_missing_ones_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text(json.dumps({"val_accuracy": [0.5, None]}))
    assert read_metrics(["val_loss=1,nan,2", str(file)], 3) == [
        {"val_loss": 1.0, "val_accuracy": 0.5},
        {},
        {"val_loss": 2.0},
    ]


# --- chart and drawing --------------------------------------------------------------------------------


def drawn(*names: str, **values: str) -> list:
    return trace_policies(names, [f"{k}={v}" for k, v in values.items()], HERE, 12, 10)


def test_panels_are_there_for_what_changes() -> None:
    titles = lambda traces: [panel.title for panel in panels(traces)]  # noqa: E731
    assert titles(drawn("constant", "step")) == ["learning rate"]
    assert titles(drawn("batch_increase")) == ["learning rate", "batch size"]
    assert titles(drawn("one_cycle", "batch_increase", momentum_low="0.8")) == [
        "learning rate",
        "momentum",
        "batch size",
    ]


@pytest.mark.parametrize("is_unicode", [True, False])
@pytest.mark.parametrize("width", [40, 100])
def test_a_chart_fits_its_width_and_names_every_trace(is_unicode: bool, width: int) -> None:
    text = chart(drawn("constant", "step", "sgdr_dlr"), width, is_unicode=is_unicode).plain
    assert max(map(len, text.splitlines())) <= width
    assert is_unicode or text.isascii()
    for name in ("constant", "step", "sgdr_dlr"):
        assert name[:7] in text
    assert "12 epochs" in text


def test_a_step_is_drawn_where_it_happens() -> None:
    """The line stands high for the first half and low for the second."""
    text = chart(drawn("step", milestones="[6]", gamma="0.5", lr="1.0"), 80, is_unicode=False).plain
    rows = [line for line in text.splitlines() if "|" in line or "+" in line]
    top, bottom = rows[0], next(row for row in rows if row.rstrip().endswith("step"))
    at = lambda row: [m.start() for m in re.finditer(r"\*", row[10:])]  # noqa: E731
    middle = text.count("-") / 2
    assert min(at(top)) == 0
    assert abs(max(at(top)) - middle) <= 1
    assert abs(min(at(bottom)) - middle) <= 1


def test_the_drawing_is_well_formed_and_the_same_for_the_same_traces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for name in ("a.svg", "b.svg"):
        path = tmp_path / name
        assert _main(["trace", "clr", "batch_increase", "--epochs", "12", "--svg", str(path)]) == 0
        assert str(path) in capsys.readouterr().out
        texts.append(path.read_text())
    assert texts[0] == texts[1]
    ElementTree.fromstring(texts[0])
    assert "batch_increase" in texts[0]


def test_a_table_cuts_no_number_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(["trace", "sgdr", "lr=0.001", "--epochs", "3", "--table"]) == 0
    first = capsys.readouterr().out.splitlines()[1].split()
    assert [float(cell) for cell in first[:3]] == [0, 100, 0.001]
    assert 0 < float(first[3]) < 1e-4


def test_a_users_policy_that_fails_on_metrics_is_the_users_fault(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom lrstudy.policies import Policy\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Mine(Policy):\n    reactive = True\n"
        "    def settings(self, epoch, history, run):\n"
        "        worst = max((m['val_loss'] for m in history), default=1)\n"
        "        return run.settings(self.lr / worst, self.momentum, self.initial_batch(run))\n"
    )
    assert _main(["trace", f"{tmp_path}/mine.py:Mine", "--epochs", "3", "--metrics", "val_loss=1,nan"]) == 2
    assert "settings raised KeyError: 'val_loss' (line 7 of mine.py)" in capsys.readouterr().err


def test_a_table_has_a_row_for_every_update_or_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    for by, rows in (("epoch", 3), ("update", 12)):
        assert _main(["trace", "step", "--epochs", "3", "--updates-per-epoch", "4", "--table", "--by", by]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert sum(line.strip()[:1].isdigit() for line in lines) == rows


def test_a_trace_of_stages_says_what_each_of_them_trains(tmp_path, capsys):
    file = tmp_path / "study.yaml"
    file.write_text("lrstudy: 1\nname: x\nbudget: {epochs: 10}\ncommon: {lr: 0.1}\narms: {sgdr_dlr: {stages: two}}\n")
    assert _main(["trace", str(file), "--examples", "320"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "sgdr_dlr: 10 epochs of 320 examples, 100 updates" in lines
    (one, two) = (line for line in lines if line.startswith("  stage"))
    assert one.startswith("  stage 1, epochs 0-2, the head on features, BatchNorm eval: sgdr, lr 0.1,")
    assert two.startswith("  stage 2, epochs 3-9, all sections on images: sgdr_dlr, lr 0.1,")
    traced = told(capsys, str(file), "--examples", "320")
    assert [rates[0] for rates in traced["lr_per_step_sections"]] == [0, 0, 0.1]


def test_the_sections_of_a_studys_model_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        "lrstudy: 1\nname: s\nworkload: {data: digits, subset: 120}\narms: [constant]\nstorage: {path: runs}\n"
    )
    assert _main(["trace", str(study), "--sections"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Model: small_cnn, 24,058 parameters, BatchNorm:",
        "  section 1               4,848 parameters  20.2%  stage1.0.weight to stage2.2.bias",
        "  section 2              18,560 parameters  77.1%  stage3.0.weight to stage3.2.bias",
        "  section 3 (head)          650 parameters   2.7%  head.weight to head.bias",
    ]
    values = told(capsys, str(study), "--sections", "workload.model=resnet18", "name=t")
    assert values["model"]["stem"] == "3x3"
    assert [section["first"] for section in values["sections"]] == [
        "conv1.weight",
        "layer3.0.conv1.weight",
        "fc.weight",
    ]
