from __future__ import annotations

from copy import deepcopy

import pytest

from lrstudy.config import load
from lrstudy.config.not_yet import refuse_later
from lrstudy.errors import InputError
from lrstudy.planning import plan

HEAD = "lrstudy: 1\nname: x\n"
NOT_YET = " is not available yet. "


def faults(body: str) -> list[str]:
    """What reading a study file of `body` complains of, arms added where it has none."""
    try:
        plan.read(HEAD + body + ("" if "arms" in body else "\narms: [constant]"))
    except InputError as error:
        return list(error.sentences)
    return []


# Every key of the design's example of a study file, with every value that it names, one at a time.
ACCEPTED = (
    "workload: {data: 'folder:/data/isic'}",
    "workload: {data: digits}",
    "workload: {data: 'parquet:a'}",
    "workload: {data: {source: 'folder:a', image: i, label: l}}",
    "workload: {split: {test: given, validation: 0.15, by: stratified, seed: 0}}",
    "workload: {split: {test: 300, by: random}}",
    "workload: {data: 'csv:a.csv'}",
    "workload: {data: 'npz:a.npz'}",
    "workload: {data: cifar10}",
    "workload: {data: {source: 'csv:a.csv', image: i, label: l, group: patient, root: images}}",
    "workload: {split: {test: {column: a, value: b}, validation: {column: a, value: 3}}}",
    "workload: {split: {by: group}}",
    "workload: {subset: 5000}",
    "workload: {image: {size: 96, resize: squash, channels: rgb, normalize: imagenet}}",
    "workload: {image: {resize: crop, channels: grey, normalize: data}}",
    "workload: {image: {resize: pad, normalize: none}}",
    "workload: {augment: none}",
    "workload: {augment: flip}",
    "workload: {augment: crop_flip}",
    "workload: {model: resnet34}",
    "workload: {weights: random}",
    "workload: {model: resnet18, weights: imagenet, download: true, image: {normalize: weights}}",
    "workload: {weights: 'run:a/clr/1000'}",
    "workload: {task: {kind: auto, class_weights: none, loss: auto}}",
    "workload: {task: {kind: multilabel, class_weights: balanced, label: Edema}}",
    "workload: {task: {class_weights: {a: 2}}}",
    "metric: balanced_accuracy",
    "metric: auroc",
    "report_metrics: [auroc, average_precision, f1, exact_match]",
    "select: final",
    "select: best",
    "select: last_cycle",
    "budget: {epochs: 30}",
    "common: {optimizer: sgd, lr: {log: [1e-4, 1e-1], steps: 10}, momentum: 0.9, batch_size: 32}",
    "common: {optimizer: adamw, beta2: 0.99, eps: 1e-6}",
    "common: {optimizer: rmsprop, alpha: 0.9, tail: drop}",
    "common: {norm_batch: initial, micro_batch: 16}",
    "arms: {clr: {optimizer: adam}}",
    "common: {weight_decay: {choice: [0, 1e-4, 5e-4]}}",
    "arms: {constant: , step_late: {policy: step, milestones: [50%, 75%], gamma: 0.1}}",
    "arms: {batch_increase: {factor: {choice: [2, 5]}}, sgdr_dlr: }",
    "arms: [constant, clr]",
    "search: {method: hyperopt, trials: 16, cohort: 8, seeds: [0]}",
    "search: {method: [hyperopt, smac, random, grid, optuna], repeats: 3}",
    "early_stopping: none",
    "confirm: {top: 1, seeds: 5}",
    "confirm: {seeds: [5, 10]}",
    "compare: {control: constant, margin: 0.003}",
    "target: {value: 0.9}",
    "target: {of_control: 0.98}",
    "limits: {gpu_hours: 60, wall: 12h}",
    "resources: {gpu: 0.5, cpu: 4}",
    "price: {gpu_hour: {A100: 2.0}, currency: USD}",
    "storage: {path: runs/, keep_gb: 100}",
    "storage: {path: 's3://my-bucket/runs'}",
    "storage: {path: 'gs://my-bucket/runs'}",
)
REFUSED = (
    ("workload.task.loss", "workload: {task: {loss: './mine.py:focal'}}", "Use workload.train_step"),
    ("common.optimizer", "common: {optimizer: lamb}", "Use sgd, adam,"),
    ("arms.clr.optimizer", "arms: {clr: {optimizer: schedule_free}}", "Use sgd, adam,"),
    ("search.method", "search: {method: './mine.py:Searcher'}", "Use random, grid, hyperopt, smac or optuna."),
    ("early_stopping", "early_stopping: {method: asha, eta: 3, audit: 0.1}", "Use none"),
    ("limits.money", "limits: {money: 50}", "Use limits.gpu_hours or limits.wall."),
    ("storage.path", "storage: {path: 'az://bucket/runs'}", "Use a folder, s3:// or gs://."),
)


@pytest.mark.parametrize("body", ACCEPTED)
def test_what_the_design_shows_and_this_version_has_is_accepted(body):
    assert faults(body) == []


@pytest.mark.parametrize(("field", "body", "instead"), REFUSED, ids=[body for _, body, _ in REFUSED])
def test_what_comes_later_is_refused_by_name_with_a_way_on(field, body, instead):
    (told,) = faults(body)
    assert told.startswith(f"{field}: ")
    assert NOT_YET + instead in told


def test_two_stage_is_no_policy_and_says_what_to_write_instead():
    for body, where in (("two_stage: {anything: 3}", "arms.two_stage"), ("m: {policy: two_stage}", "arms.m.policy")):
        (told,) = faults(f"arms: {{{body}}}")
        assert told.startswith(f"{where}: there is no policy 'two_stage'. ")
        assert "`sgdr_dlr: {stages: two}`" in told


def test_only_the_later_items_of_a_list_are_refused():
    found = faults("search: {method: [./mine.py:Searcher, smca]}\nreport_metrics: [acuracy]")
    assert [fault.partition(":")[0] for fault in found] == ["search.method", "report_metrics[0]", "search.method"]
    assert "no searcher 'smca'" in found[-1]


def test_later_parts_and_faults_are_told_together_and_nothing_twice():
    found = faults(
        "workload: {data: digits, model: 'timm:x', modle: a}\n"
        "arms: {late: {policy: constant, optimizer: lars}, clr: {stepsize: 3}, step: 3}\n"
        "compare: {control: late}\n"
        "search: {trials: x}"
    )
    assert sorted(fault.partition(":")[0] for fault in found) == [
        "arms.clr.stepsize",
        "arms.late.optimizer",
        "arms.step",
        "search.trials",
        "workload.model",
        "workload.modle",
    ]


def test_a_misspelt_value_is_no_later_one():
    for body in ("metric: aurok", "select: lst_cycle", "early_stopping: ahsa", "workload: {task: {kind: binry}}"):
        (told,) = faults(body)
        assert "not available" not in told


def test_refusing_leaves_the_raw_study_as_it_was_and_returns_one_without_those_parts():
    raw = {
        "limits": {"money": 50},
        "arms": {"step": {"optimizer": "lars"}, "clr": None},
        "workload": {"subset": 3},
    }
    before = deepcopy(raw)
    found, rest = refuse_later(raw)
    assert len(found) == 2
    assert raw == before
    assert rest == {"limits": {}, "arms": {"step": {}, "clr": None}, "workload": {"subset": 3}}


def test_a_study_that_is_refused_is_never_returned():
    with pytest.raises(InputError, match="not available yet"):
        load(HEAD + "arms: [constant]\nlimits: {money: 50}")
