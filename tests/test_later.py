from __future__ import annotations

import pytest

from lrstudy import plan
from lrstudy.config import load
from lrstudy.faults import InputError
from lrstudy.later import POLICIES, refuse_later
from lrstudy.policies import registry

HEAD = "lrstudy: 1\nname: x\n"
NOT_YET = " is not available yet. "


def faults(body: str) -> list[str]:
    """What reading a study file of `body` complains of, arms added where it has none."""
    try:
        plan.read(HEAD + body + ("" if "arms" in body else "\narms: [constant]"))
    except InputError as error:
        return list(error.faults)
    return []


# Every key of the design's example of a study file, with every value that it names, one at a time.
ACCEPTED = (
    "workload: {data: 'folder:/data/isic'}",
    "workload: {data: digits}",
    "workload: {data: 'parquet:a'}",
    "workload: {data: {source: 'folder:a', image: i, label: l}}",
    "workload: {split: {test: given, validation: 0.15, by: stratified, seed: 0}}",
    "workload: {split: {test: 300, by: random}}",
    "workload: {subset: 5000}",
    "workload: {image: {size: 96, resize: squash, channels: rgb, normalize: imagenet}}",
    "workload: {image: {resize: crop, channels: grey, normalize: data}}",
    "workload: {image: {resize: pad, normalize: none}}",
    "workload: {augment: none}",
    "workload: {augment: flip}",
    "workload: {augment: crop_flip}",
    "workload: {model: resnet34}",
    "workload: {weights: random}",
    "workload: {task: {kind: auto, class_weights: none, loss: auto}}",
    "metric: balanced_accuracy",
    "select: final",
    "select: best",
    "budget: {epochs: 30}",
    "common: {optimizer: sgd, lr: {log: [1e-4, 1e-1], steps: 10}, momentum: 0.9, batch_size: 32}",
    "common: {weight_decay: {choice: [0, 1e-4, 5e-4]}}",
    "arms: {constant: , step_late: {policy: step, milestones: [50%, 75%], gamma: 0.1}}",
    "arms: {batch_increase: {factor: {choice: [2, 5]}}, sgdr_dlr: }",
    "arms: [constant, clr]",
    "search: {method: hyperopt, trials: 16, cohort: 8, seeds: [0]}",
    "search: {method: [hyperopt, smac, random, grid]}",
    "early_stopping: none",
    "confirm: {top: 1, seeds: 5}",
    "compare: {control: constant, margin: 0.003}",
    "target: {value: 0.9}",
    "target: {of_control: 0.98}",
    "limits: {gpu_hours: 60, wall: 12h}",
    "resources: {gpu: 0.5, cpu: 4}",
    "price: {gpu_hour: {A100: 2.0}, currency: USD}",
    "storage: {path: runs/, keep_gb: 100}",
)
REFUSED = (
    ("workloads", "workloads: {a: {}}", "Write one study per workload"),
    ("workload.data", "workload: {data: cifar10}", "Use digits, folder:PATH or parquet:PATH."),
    ("workload.data", "workload: {data: 'csv:a.csv'}", "Use digits,"),
    ("workload.data", "workload: {data: 'npz:a.npz'}", "Use digits,"),
    ("workload.data", "workload: {data: './mine.py:load'}", "Use digits,"),
    ("workload.data.source", "workload: {data: {source: MNIST}}", "Use digits,"),
    ("workload.data.group", "workload: {data: {source: digits, group: patient}}", "Divide by group beforehand"),
    ("workload.data.root", "workload: {data: {source: digits, root: a}}", "Use folder:PATH or parquet:PATH."),
    ("workload.split.test", "workload: {split: {test: {column: a, value: b}}}", "Use a fraction, a count or given."),
    ("workload.split.validation", "workload: {split: {validation: {column: a, value: b}}}", "Use a fraction,"),
    ("workload.split.by", "workload: {split: {by: group}}", "Use stratified"),
    ("workload.augment", "workload: {augment: [{RandomRotation: 10}]}", "Use none, flip or crop_flip."),
    ("workload.augment", "workload: {augment: './mine.py:augment'}", "Use none, flip or crop_flip."),
    ("workload.model", "workload: {model: 'timm:vit_tiny'}", "Use small_cnn, lenet or a torchvision name."),
    ("workload.model", "workload: {model: './mine.py:build'}", "Use small_cnn, lenet or a torchvision name."),
    ("workload.weights", "workload: {weights: imagenet}", "Use random."),
    ("workload.weights", "workload: {weights: a.safetensors}", "Use random."),
    ("workload.weights", "workload: {weights: 'run:a/clr'}", "Use random."),
    ("workload.task.kind", "workload: {task: {kind: multilabel}}", "Use multiclass."),
    ("workload.task.class_weights", "workload: {task: {class_weights: balanced}}", "Use none"),
    ("workload.task.class_weights", "workload: {task: {class_weights: {a: 2}}}", "Use none"),
    ("workload.task.loss", "workload: {task: {loss: './mine.py:focal'}}", "Use what is built in."),
    ("workload.task.label", "workload: {task: {label: Edema}}", "Use a source with one label per image."),
    ("metric", "metric: auroc", "Use accuracy or balanced_accuracy."),
    ("report_metrics", "report_metrics: [auroc, accuracy]", "Use accuracy or balanced_accuracy."),
    ("select", "select: last_cycle", "Use final or best."),
    ("common.optimizer", "common: {optimizer: adamw}", "Use sgd."),
    ("arms.clr.optimizer", "arms: {clr: {optimizer: adam}}", "Use sgd."),
    ("arms.clr.mode", "arms: {clr: {mode: {choice: [triangular, exp_range]}}}", "Use triangular or triangular2."),
    ("arms.clr.gamma", "arms: {clr: {gamma: {log: [0.999, 0.99999]}}}", "Use mode: triangular2."),
    ("arms.up.mode", "arms: {up: {policy: clr, mode: exp_range}}", "Use triangular or triangular2."),
    ("arms.mine.policy", "arms: {mine: {policy: './mine.py:knee', hold: {choice: [30%]}}}", "Use a built-in policy:"),
    ("arms.poly.policy", "arms: {poly: {policy: 'torch:PolynomialLR'}}", "Use a built-in policy:"),
    ("arms.cosine", "arms: [constant, cosine]", "Use a built-in policy:"),
    ("search.method", "search: {method: optuna}", "Use random, grid, hyperopt or smac."),
    ("search.method", "search: {method: './mine.py:Searcher'}", "Use random, grid, hyperopt or smac."),
    ("early_stopping", "early_stopping: {method: asha, eta: 3, audit: 0.1}", "Use none"),
    ("limits.money", "limits: {money: 50}", "Use limits.gpu_hours or limits.wall."),
    ("storage.path", "storage: {path: 's3://bucket/runs'}", "Use a folder."),
)


@pytest.mark.parametrize("body", ACCEPTED)
def test_what_the_design_shows_and_this_version_has_is_accepted(body):
    assert faults(body) == []


@pytest.mark.parametrize(("field", "body", "instead"), REFUSED, ids=[body for _, body, _ in REFUSED])
def test_what_comes_later_is_refused_by_name_with_a_way_on(field, body, instead):
    (told,) = faults(body)
    assert told.startswith(f"{field}: ")
    assert NOT_YET + instead in told


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_of_the_later_catalogue_is_no_unknown_one(policy):
    (told,) = faults(f"arms: {{mine: {{policy: {policy}, anything: 3}}}}")
    assert told.startswith(f"arms.mine.policy: the policy '{policy}'{NOT_YET}Use a built-in policy: constant, step,")
    assert policy not in registry(), "it is here now: take it out of later.py"


def test_the_way_on_names_every_built_in_policy():
    (told,) = faults("arms: [cosine]")
    assert all(name in told for name in registry())


def test_only_the_later_items_of_a_list_are_refused():
    found = faults("search: {method: [optuna, smca]}\nreport_metrics: [auroc, acuracy]")
    assert [fault.partition(":")[0] for fault in found] == [
        "report_metrics",
        "search.method",
        "report_metrics[0]",
        "search.method",
    ]
    assert "no searcher 'smca'" in found[-1]


def test_later_parts_and_faults_are_told_together_and_nothing_twice():
    found = faults(
        "workload: {data: {source: cifar10, group: x}, weights: imagenet, modle: a}\n"
        "arms: {mine: {policy: './mine.py:knee'}, clr: {mode: exp_range, stepsize: 3}, step: 3}\n"
        "compare: {control: mine}\n"
        "search: {trials: x}"
    )
    assert sorted(fault.partition(":")[0] for fault in found) == [
        "arms.clr.mode",
        "arms.clr.stepsize",
        "arms.mine.policy",
        "arms.step",
        "search.trials",
        "workload.data.group",
        "workload.data.source",
        "workload.modle",
        "workload.weights",
    ]


def test_a_misspelt_value_is_no_later_one():
    for body in ("metric: aurok", "select: lst_cycle", "early_stopping: ahsa", "workload: {task: {kind: binry}}"):
        (told,) = faults(body)
        assert "not available" not in told


def test_refusing_leaves_the_raw_study_as_it_was_and_returns_one_without_those_parts():
    raw = {"metric": "auroc", "arms": ["cosine", "clr"], "workload": {"model": "timm:x", "subset": 3}}
    found, rest = refuse_later(raw)
    assert len(found) == 3
    assert raw == {"metric": "auroc", "arms": ["cosine", "clr"], "workload": {"model": "timm:x", "subset": 3}}
    assert rest == {"arms": {"cosine": {"policy": "constant"}, "clr": None}, "workload": {"subset": 3}}


def test_a_study_that_is_refused_is_never_returned():
    with pytest.raises(InputError, match="not available yet"):
        load(HEAD + "arms: [constant]\nmetric: auroc")
