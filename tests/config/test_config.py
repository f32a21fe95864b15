from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from lrstudy import config
from lrstudy.config import examine, load
from lrstudy.config.schema import FILE, json_schema, render
from lrstudy.config.text import apply_overrides, parse_yaml
from lrstudy.errors import InputError
from lrstudy.policies import registry
from lrstudy.policies.spaces import default_space, search_spaces

HEAD = "lrstudy: 1\nname: x\n"
ARMS = "arms: [constant]\n"
SHIPPED = sorted((search_spaces() / "studies").glob("*.yaml"))


def faults(body: str, *overrides: str) -> list[str]:
    """What is wrong with a study file of `body` under a sound head, arms added where it has none."""
    text = HEAD + body + ("" if "arms" in body else f"\n{ARMS}")
    with pytest.raises(InputError) as caught:
        load(text, overrides)
    return list(caught.value.sentences)


def one(body: str, *overrides: str) -> str:
    found = faults(body, *overrides)
    assert len(found) == 1, found
    return found[0]


# --- the text ---------------------------------------------------------------------------------------


@pytest.fixture
def usual_recursion():
    """Python's own limit: torch.compile, which other tests use, raises it."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "study file: expected a map with keys such as lrstudy, name and arms; got an empty file."),
        ("- a", "study file: expected a map with keys such as lrstudy, name and arms; got a list (['a'])."),
        ("just text", "study file: expected a map with keys such as lrstudy, name and arms; got 'just text'."),
        ("lrstudy: 1\nname: a\nname: b", 'study file, line 3: not valid YAML: found duplicate key "name"'),
        ("a:\n\tb: 1", "study file, line 2: not valid YAML: found character '\\t' that cannot start any token."),
        ("a: \x00", "study file: not valid YAML: unacceptable character #x0000"),
        ("a: 2024-13-45", "study file: not valid YAML: month must be in 1..12."),
        ("a: !mine {}", "study file, line 1: not valid YAML: could not determine a constructor for the tag"),
        ("a: 1\n---\nb: 2", "study file, line 2: not valid YAML: but found another document."),
        ("[" * 500, "study file: not valid YAML: nested too deeply."),
        ("name: 2024-01-01", "name: expected a text, a number, true, false, a list or a map; got the date 2024-01-01."),
        ("arms: {clr: {3: 4}}", "arms.clr: expected keys that are texts; got 3. Put it in quotes."),
        ("common: {lr: {choice: [1, .inf]}}", "common.lr.choice: expected a finite number; got inf."),
        ("a: &a [*a, *a]", "a: this value contains itself (a YAML alias)."),
    ],
)
def test_a_text_that_is_no_study_is_refused_with_the_place(text, told, usual_recursion):
    with pytest.raises(InputError) as caught:
        parse_yaml(text)
    assert str(caught.value).startswith(told)


def test_yaml_1_2_is_read_so_exponents_are_numbers_and_no_is_a_text():
    assert parse_yaml("a: 1e-4\nb: no\nc: 012") == {"a": 1e-4, "b": "no", "c": 12}


def test_a_byte_order_mark_does_no_harm():
    assert load("\ufeff" + HEAD + ARMS).name == "x"


# --- faults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("mertic: accuracy", "mertic: unknown key. Did you mean 'metric'? Valid: lrstudy, name, workload, metric,"),
        ("epochs: 3", "epochs: unknown key. Valid: lrstudy, name,"),
        ("workload: {split: {tst: 1}}", "workload.split.tst: unknown key. Did you mean 'test'? Valid: test,"),
        (
            "workload: {data: {source: digits, lable: y}}",
            "workload.data.lable: unknown key. Did you mean 'label'? Valid: source, image, label, group,",
        ),
        (
            "metric: balanced_acuracy",
            "metric: expected accuracy, balanced_accuracy, f1, auroc, average_precision or exact_match; got 'balanced_acuracy'. Did you mean 'balanced_accuracy'",
        ),
        (
            "workload: {data: 3}",
            "workload.data: expected digits, a torchvision set such as cifar10, folder:PATH, parquet:PATH, csv:PATH,",
        ),
        ("workload: {data: {image: x}}", "workload.data.source: this key is required; expected a text."),
        ("workload: {data: {source: 3}}", "workload.data.source: expected a text; got 3."),
        (
            "workload: {split: {test: 1.5}}",
            "workload.split.test: expected given, a fraction between 0 and 1, a count of at least 1 or a map (keys: column, value); got 1.5.",
        ),
        (
            "workload: {split: {test: giv}}",
            "workload.split.test: expected given, a fraction between 0 and 1, a count of at least 1 or a map (keys: column, value); got 'giv'. "
            "Did you mean 'given'?",
        ),
        ("workload: {split: {seed: true}}", "workload.split.seed: expected a whole number of at least 0; got true."),
        (
            "workload: {image: {size: 2}}",
            "workload.image.size: expected a whole number of pixels from 4 to 4096, or [height, width] of such; got 2.",
        ),
        ("budget: {epochs: '30'}", "budget.epochs: expected a whole number of at least 1; got '30'."),
        ("budget: {epochs: 3.0}", "budget.epochs: expected a whole number of at least 1; got 3.0."),
        ("budget:", "budget: expected a map (keys: epochs, until); got nothing."),
        (
            "budget: {until: {accuracy: 90}}",
            "budget.until.accuracy: expected a number above 0 and at most 1; got 90.",
        ),
        (
            "budget: {until: {accurcy: 0.9}}",
            "budget.until.accurcy: expected accuracy, balanced_accuracy, f1, auroc, average_precision or exact_match; got "
            "'accurcy'. Did you mean 'accuracy'",
        ),
        (
            "budget: {until: {accuracy: 0.9, f1: 0.9}}",
            "budget.until: expected none, or one metric with a value above 0 and at most 1 to reach, such as {accuracy: 0.9}; "
            "got {'accuracy': 0.9, 'f1': 0.9}.",
        ),
        ("budget: 30", "budget: expected a map (keys: epochs, until); got 30."),
        (
            "report_metrics: accuracy",
            "report_metrics: expected a list of which each is accuracy, balanced_accuracy, f1, auroc, average_precision or exact_match; got 'accuracy'.",
        ),
        (
            "report_metrics: [acc]",
            "report_metrics[0]: expected accuracy, balanced_accuracy, f1, auroc, average_precision or exact_match; got 'acc'.",
        ),
        ("common: {lrr: 3}", "common.lrr: unknown key. Did you mean 'lr'? Valid: lr, batch_size,"),
        ("arms:", "arms: expected a list of policy names, or a map from arm names to parameters; got nothing."),
        ("arms: []", "arms: expected a list of policy names, or a map from arm names to parameters; got []."),
        ("arms: [1]", "arms: expected a list of policy names, or a map from arm names to parameters; got [1]."),
        ("arms: [{clr: {}}]", "arms: expected a list of policy names, or a map from arm names to parameters; got [{"),
        ("arms: [clr, clr]", "arms: expected every value once; 'clr' repeats."),
        (
            "arms: {clr: 3}",
            "arms.clr: expected a map of parameters, or nothing for the policy's default space; got 3.",
        ),
        (
            "arms: {1st: {policy: clr}}",
            "arms.1st: expected arm names of up to 60 letters, digits and '_', beginning with a letter; got '1st'.",
        ),
        ("search: {method: smca}", "search.method: there is no searcher 'smca'. Did you mean 'smac'? Valid: random,"),
        ("search: {method: []}", "search.method: expected one or more searchers; got []."),
        ("search: {method: [1]}", "search.method[0]: expected a text; got 1."),
        ("search: {method: [smac, smac]}", "search.method: expected every value once; 'smac' repeats."),
        ("search: {trials: 0}", "search.trials: expected a whole number of at least 1; got 0."),
        ("search: {trials: 4, cohort: 9}", "search.cohort: expected at most search.trials (4); got 9."),
        ("search: {cohort: -1}", "search.cohort: expected a whole number of at least 0; got -1."),
        ("confirm: {seeds: 0}", "confirm.seeds: expected a whole number of at least 1, or a list of them; got 0."),
        (
            "confirm: {seeds: [9, 5]}",
            "confirm.seeds: expected looks after more and more seeds, such as [5, 10]; got [9, 5].",
        ),
        ("search: {seeds: 3}", "search.seeds: expected a list of whole numbers; got 3."),
        ("search: {seeds: []}", "search.seeds: expected a list of whole numbers; got []."),
        ("search: {seeds: [0, 0]}", "search.seeds: expected every value once; 0 repeats."),
        ("search: {seeds: [0, a]}", "search.seeds[1]: expected a whole number; got 'a'."),
        (
            "search: {seeds: [0, 1000]}",
            "search.seeds: expected seeds from 0 to 999 (confirmation takes 1000 and up); got 1000.",
        ),
        ("compare: {control: constnat}", "compare.control: there is no arm 'constnat'. Did you mean 'constant'?"),
        ("compare: {margin: 1}", "compare.margin: expected a fraction between 0 and 1; got 1."),
        ("target: {value: 90}", "target.value: expected a number above 0 and at most 1; got 90."),
        ("target: {value: 0.9, of_control: 1}", "target: expected either value or of_control; got both."),
        (
            "limits: {wall: 12x}",
            "limits.wall: expected a time above 0, such as 90s, 30m, 12h or 2d, or hours; got '12x'.",
        ),
        (
            "limits: {wall: 0h}",
            "limits.wall: expected a time above 0, such as 90s, 30m, 12h or 2d, or hours; got '0h'.",
        ),
        ("limits: {wall: 1.2.3h}", "limits.wall: expected a time above 0, such as 90s, 30m, 12h or 2d, or hours; got"),
        ("limits: {wall: [1]}", "limits.wall: expected a time such as 90s, 30m, 12h or 2d, or hours; got [1]."),
        ("limits: {gpu_hours: 0}", "limits.gpu_hours: expected a number above 0; got 0."),
        ("resources: {gpu: 2}", "resources.gpu: expected a number from 0 to 1, or auto; got 2."),
        ("resources: {cpu: 0}", "resources.cpu: expected a whole number of at least 1; got 0."),
        ("price: {gpu_hour: x}", "price.gpu_hour: expected a number above 0 or a map; got 'x'."),
        ("price: {gpu_hour: {A100: -1}}", "price.gpu_hour.A100: expected a number above 0; got -1."),
        ("storage: {keep_gb: -1}", "storage.keep_gb: expected a number of at least 0, or all; got -1."),
        ("storage: {keep_gb: some}", "storage.keep_gb: expected a number of at least 0, or all; got 'some'."),
        ("storage: {path: }", "storage.path: expected a text; got nothing."),
    ],
)
def test_a_fault_says_the_field_what_was_expected_what_arrived_and_the_nearest_names(body, told):
    found = one(body)
    assert found.startswith(told)
    assert found[-1] in ".?"
    assert "\n" not in found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            ARMS + "lrstudy: 2\nname: x",
            ["lrstudy: expected 1, the version of study files that this lrstudy reads; got 2."],
        ),
        (
            ARMS,
            [
                "lrstudy: this key is required; expected 1, the version of study files that this lrstudy reads.",
                "name: this key is required; expected up to 100 letters, digits, '_', '-' and '.', "
                "beginning with a letter or digit.",
            ],
        ),
        (HEAD, ["arms: this key is required; expected a map."]),
        (
            ARMS + "lrstudy: 1\nname: ../x",
            [
                "name: expected up to 100 letters, digits, '_', '-' and '.', beginning with a letter or digit; "
                "got '../x'."
            ],
        ),
        (
            ARMS + "lrstudy: 1\nname: Memo",
            ["name: expected another name: Memo is the folder of the memo; got 'Memo'."],
        ),
    ],
)
def test_version_name_and_arms_are_required(text, told):
    with pytest.raises(InputError) as caught:
        load(text)
    assert list(caught.value.sentences) == told


def test_all_faults_of_a_file_are_told_at_once_and_each_once():
    found = faults(
        "mertic: accuracy\n"
        "workload: {data: 3, split: {test: 1.5, tst: 1}, modle: x, weights: 3}\n"
        "arms: {clr: 3, step: {}}\n"
        "search: {method: [hyperop, smca], trials: 0, seeds: [0, '1', b]}\n"
        "compare: {control: nope}\n"
        "price: {gpu_hour: {A100: -1, H100: 0}}\n"
    )
    assert sorted(fault.partition(":")[0] for fault in found) == [
        "arms.clr",
        "compare.control",
        "mertic",
        "price.gpu_hour.A100",
        "price.gpu_hour.H100",
        "search.method",
        "search.method",
        "search.seeds[1]",
        "search.seeds[2]",
        "search.trials",
        "workload.data",
        "workload.modle",
        "workload.split.test",
        "workload.split.tst",
        "workload.weights",
    ]


def test_a_fault_does_not_cause_another():
    """trials: 0 was replaced by the default 16, which a cohort of 20 exceeds: nobody wrote that."""
    assert one("search: {trials: 0, cohort: 20}") == "search.trials: expected a whole number of at least 1; got 0."
    assert one("arms: {clr: 3, constant: }\ncompare: {control: clr}").startswith("arms.clr: expected a map")


def test_what_is_not_at_fault_is_kept_for_further_checks():
    study, found = examine(HEAD + "metric: acc\nbudget: {epochs: 7}\narms: {clr: {mode: triangular}, step: 3}")
    assert study is not None
    assert study.budget.epochs == 7
    assert study.arms["clr"] == {"mode": "triangular"}
    assert len(found) == 2
    assert examine(HEAD + "arms: [1]")[0] is None


# --- what is accepted -------------------------------------------------------------------------------


def test_arms_are_a_list_or_a_map_and_nothing_means_the_default_space():
    assert (
        load(HEAD + "arms: [clr, step]").arms == load(HEAD + "arms: {clr: , step: {}}").arms == {"clr": {}, "step": {}}
    )


def test_one_searcher_needs_no_list():
    assert load(HEAD + ARMS + "search: {method: smac}").search.method == ["smac"]


@pytest.mark.parametrize(
    ("wall", "expected_s"), [("90s", 90), ("1.5h", 5400), ("30 m", 1800), ("2d", 172800), (2, 7200), (0.5, 1800)]
)
def test_a_wall_limit_is_a_time_or_a_number_of_hours(wall, expected_s):
    assert load(HEAD + ARMS + f"limits: {{wall: {wall}}}").limits.wall_s == expected_s
    assert load(HEAD + ARMS).limits.wall_s is None


def test_the_control_is_as_given_else_constant_else_the_first():
    assert load(HEAD + "arms: [clr, constant]\ncompare: {control: clr}").control == "clr"
    assert load(HEAD + "arms: [clr, constant]").control == "constant"
    assert load(HEAD + "arms: [clr, step]").control == "clr"


@pytest.mark.parametrize(
    ("data", "source", "test"),
    [
        ("digits", "digits", 0.2),
        ("folder:images", "folder:/base/images", "given"),
        ("parquet:/abs/a.parquet", "parquet:/abs/a.parquet", "given"),
        ("{source: 'folder:a', image: i, label: l}", "folder:/base/a", "given"),
    ],
)
def test_paths_of_data_start_at_the_study_file(data, source, test):
    spec = load(HEAD + ARMS + f"workload: {{data: {data}}}").workload.data_spec(Path("/base"))
    assert (spec.source, spec.split.test) == (source, test)
    assert (spec.image_column, spec.label_column) == (("i", "l") if "label" in data else ("image", "label"))


# --- overrides --------------------------------------------------------------------------------------


def test_overrides_are_yaml_and_later_ones_win():
    study = load(
        HEAD + ARMS,
        ["budget.epochs=3", "budget.epochs=5", "common.lr={log: [1e-3, 1], steps: 4}", "search.method=[random, grid]"],
    )
    assert study.budget.epochs == 5
    assert study.common.lr == {"log": [1e-3, 1], "steps": 4}
    assert study.search.method == ["random", "grid"]


def test_an_override_reaches_into_a_list_of_arms_and_into_an_empty_arm():
    assert load(HEAD + "arms: [clr, step]", ["arms.clr.mode=triangular"]).arms == {
        "clr": {"mode": "triangular"},
        "step": {},
    }
    assert load(HEAD + "arms: {clr: }", ["arms.clr.mode=triangular"]).arms["clr"] == {"mode": "triangular"}


def test_an_override_may_add_a_whole_arm_but_not_a_parameter_of_an_arm_that_is_not_there():
    assert list(load(HEAD + ARMS, ["arms.clr="]).arms) == ["constant", "clr"]
    told = one("arms: {constant: , step_late: {policy: step}}", "arms.step_lat.gamma=0.5")
    assert told.startswith("command line: arms.step_lat: there is no arm 'step_lat'. Did you mean 'step_late'? Valid:")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("epochs", "command line: expected key.key=VALUE; got 'epochs'."),
        ("=3", "command line: expected key.key=VALUE; got '=3'."),
        ("budget..epochs=3", "command line: expected key.key=VALUE; got 'budget..epochs=3'."),
        ("budget.epoch=3", "budget.epoch: unknown key. Did you mean 'epochs'? Valid: epochs, until."),
        ("bugdet.epochs=3", "bugdet: unknown key. Did you mean 'budget'?"),
        ("budget.epochs=[1", "command line: budget.epochs: not valid YAML: "),
        ("budget.epochs=.nan", "command line: budget.epochs: expected a finite number; got nan."),
        ("budget.epochs=", "budget.epochs: expected a whole number of at least 1; got nothing."),
        ("name.x=3", "command line: name.x: name is 'x', so there is no such key."),
        ("common.lr.log=3", "command line: common.lr.log: common.lr is 0.1, so there is no such key."),
    ],
)
def test_an_override_that_makes_no_sense_is_refused(override, told):
    assert told in one("common: {lr: 0.1}", override)


def test_all_faults_of_overrides_are_told_at_once():
    assert len(faults("", "a", "name.x=3", "arms.clr.mode=a")) == 3


def test_overrides_leave_the_study_that_they_are_applied_to_alone():
    raw = parse_yaml(HEAD + ARMS)
    changed = apply_overrides(raw, ["arms.constant.lr=3", "budget.epochs=3"])
    assert raw == parse_yaml(HEAD + ARMS)
    assert changed["budget"] == {"epochs": 3}


def test_paths_in_overrides_start_at_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = ["workload.data=folder:images", "storage={path: out}"]
    study = load(HEAD + ARMS, overrides)
    assert study.workload.data == f"folder:{tmp_path / 'images'}"
    assert study.storage.path == str(tmp_path / "out")
    assert load(HEAD + ARMS, ["workload.data.source=parquet:a"]).workload.source.source == f"parquet:{tmp_path / 'a'}"


# --- JSON Schema ------------------------------------------------------------------------------------


def test_a_study_that_chooses_nothing_may_begin_with_the_seed_of_a_confirm_trial():
    study = load(HEAD + ARMS + "search: {trials: 1, seeds: [1000]}\n")
    assert study.search.seeds == [1000]
    told = faults("search: {trials: 2, seeds: [1000]}")
    assert told == ["search.seeds: expected seeds from 0 to 999 (confirmation takes 1000 and up); got 1000."]


def test_the_shipped_schema_is_up_to_date():
    assert FILE.read_text() == render(), "run: python -m lrstudy.config.schema"
    assert FILE.parent == Path(config.__file__).parents[1], "inside the package, so a wheel has it"
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_schema_accepts_the_shipped_studies(path):
    jsonschema.validate(YAML(typ="safe", pure=True).load(path), json_schema())


@pytest.mark.parametrize("policy", registry())
def test_the_schema_accepts_the_default_space_of_every_policy(policy):
    arm = {"policy": policy, **default_space(policy)}
    jsonschema.validate({"lrstudy": 1, "name": "x", "arms": {"an_arm": arm}}, json_schema())


@pytest.mark.parametrize(
    ("body", "is_valid"),
    [
        ("arms: {clr: , late: {policy: step, milestones: [75%]}}", True),
        ("arms: [clr]\nsearch: {method: [smac, random]}\nlimits: {wall: 2h}", True),
        ("arms: [clr]\ncommon: {lr: {log: [1e-3, 1], steps: 4, default: 0.1}}", True),
        ("arms: {mine: {policy: ./mine.py:knee, hold: {choice: [30%, 50%]}}}", True),
        ("arms: {poly: {policy: 'torch:PolynomialLR', power: {choice: [1.0, 2.0]}}}", True),
        (
            "arms: {clr: {optimizer: adamw, norm_batch: initial, tail: drop, micro_batch: {choice: [8, 16]}, beta2: 0.99}}",
            True,
        ),
        (
            "arms: [clr]\ncommon: {weight_decay: {choice: [0, 1e-4]}, clip_norm: null, nesterov: {choice: [true, false]}}",
            True,
        ),
        ("arms: {clr: {until: {accuracy: 0.9}}, step: {until: none}}\nbudget: {until: {f1: 1}}", True),
        ("arms: {clr: {until: {accuracy: 90}}}", False),
        ("arms: {clr: {until: {acuracy: 0.9}}}", False),
        ("arms: {clr: {optimizer: adamm}}", False),
        ("arms: {clr: {tail: {choice: [keep, cut]}}}", False),
        ("arms: [clr]\ncommon: {momentum: 1.5}", False),
        ("arms: {mine: {policy: mine.knee}}", False),
        ("arms: [clr]\nmertic: accuracy", False),
        ("arms: [clr]\nworkload: {split: {tst: 1}}", False),
        ("arms: [clr]\ncommon: {lr: {lgo: [1e-3, 1]}}", False),
        ("arms: [clr]\ncommon: {lr: {log: [1e-3, 1], uniform: [0, 1]}}", False),
        ("arms: {clr: {stepsize: 3}}", False),
        ("arms: [crl]", False),
        ("arms: []", False),
        ("arms: [clr]\nsearch: {method: smca}", False),
        ("budget: {epochs: 3}", False),
    ],
)
def test_the_schema_refuses_what_is_misspelt(body, is_valid):
    errors = list(jsonschema.Draft202012Validator(json_schema()).iter_errors(parse_yaml(HEAD + body)))
    assert (not errors) == is_valid


def test_a_study_file_survives_json():
    study = load((search_spaces() / "studies" / "quickstart.yaml").read_text())
    assert load(json.dumps(study.model_dump())) == study
