"""A map of workloads: what each of its studies is, and where their faults stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrstudy import config
from lrstudy.errors import InputError
from lrstudy.planning import plan

TEXT = """
lrstudy: 1
name: faces
workload: {data: digits, subset: 200, image: {size: 8}, split: {test: 0.3, validation: 0.2}}
workloads:
  glasses: {image: {channels: grey}, task: {label: glasses}}
  smiling: {subset: 300, split: {test: {column: part, value: test}}}
  plain:
arms: [constant]
"""


def faults(*overrides: str, text: str = TEXT) -> list[str]:
    with pytest.raises(InputError) as caught:
        plan.read_each(text, overrides)
    return list(caught.value.sentences)


def test_each_workload_is_merged_over_the_common_one_key_by_key():
    glasses, smiling, plain = plan.read_each(TEXT).values()
    assert [study.name for study in (glasses, smiling, plain)] == ["faces/glasses", "faces/smiling", "faces/plain"]
    assert (glasses.workload.image.size, glasses.workload.image.channels) == (8, "grey")
    assert glasses.workload.task.label == "glasses"
    assert (smiling.workload.subset, smiling.workload.image.channels) == (300, "stored")
    assert smiling.workload.split.test.column == "part"
    assert smiling.workload.split.validation == 0.2
    assert plain.workload == plan.read_each(TEXT, ["workloads={only: }"])["only"].workload


def test_a_file_without_a_map_is_the_study_without_a_name():
    (found,) = plan.read_each("lrstudy: 1\nname: x\narms: [constant]").items()
    assert found[0] == ""
    assert found[1].name == "x"


def test_an_override_reaches_one_workload_or_all_and_its_paths_start_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = ["workload.subset=150", "workloads.plain.data=folder:pictures", "workloads.glasses.data.root=there"]
    glasses, smiling, plain = plan.read_each(TEXT, overrides, Path("/elsewhere")).values()
    assert (glasses.workload.subset, smiling.workload.subset, plain.workload.subset) == (150, 300, 150)
    assert plain.workload.data == f"folder:{tmp_path / 'pictures'}"
    assert (glasses.workload.data.source, glasses.workload.data.root) == ("digits", str(tmp_path / "there"))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "workloads.glases.subset=9",
            "command line: workloads.glases: there is no workload 'glases'. Did you mean 'glasses'?",
        ),
        ("workloads={}", "workloads: expected a map from names to what each changes of `workload`; got {}."),
        (
            "workloads=[a, b]",
            "workloads: expected a map from names to what each changes of `workload`; got ['a', 'b'].",
        ),
        ("workloads.plain=3", "workloads.plain: expected a map of what it changes of `workload`; got 3."),
        (
            "workloads={report: }",
            "workloads.report: expected a name of up to 60 letters, digits, '_' and '-', beginning with",
        ),
        ("workloads={a.b: }", "workloads.a.b: expected a name of up to 60 letters"),
        (
            "workloads={a: , A: }",
            "workloads: two of the names differ in capitals only, and each is the name of a folder.",
        ),
        ("workloads.plain.modle=x", "workloads.plain.modle: unknown key. Did you mean 'model'?"),
        ("workloads.plain.model=lenett", "workloads.plain.model: there is no model 'lenett'. Did you mean 'lenet'"),
        ("workload.model=lenett", "workload.model: there is no model 'lenett'"),
        ("arms=[constan]", "arms.constan: there is no policy 'constan'"),
    ],
)
def test_a_fault_stands_where_it_is_written_and_once(override, told):
    (found,) = faults(override)
    assert found.startswith(told)


def test_a_fault_of_the_common_part_that_one_workload_alone_has_names_it():
    (found,) = faults("workload.model=lenett", "workloads.glasses.model=lenet", "workloads.smiling.model=lenet")
    assert found.startswith("workload.model (workloads.plain): there is no model 'lenett'")


def test_the_faults_of_all_workloads_are_told_at_once():
    found = faults("workloads.plain.model=x", "workloads.glasses.subset=0", "metric=acc")
    assert [text.partition(":")[0] for text in found] == [
        "workloads.glasses.subset",
        "metric",
        "workloads.plain.model",
    ] or [text.partition(":")[0] for text in found] == ["metric", "workloads.glasses.subset", "workloads.plain.model"]


def test_whatever_takes_one_workload_refuses_a_map():
    with pytest.raises(InputError, match="this takes a study of one workload, and the file has a map"):
        config.examine(TEXT)


def test_a_fault_that_shows_with_the_data_is_placed_likewise():
    from lrstudy.errors import Fault

    found = [Fault("workload.task.label", "x"), Fault("workload.image.size", "y"), Fault("metric", "z")]
    placed = [fault.where for fault in config.of_workload(found, "glasses", TEXT)]
    assert placed == ["workloads.glasses.task.label", "workloads.glasses.image.size", "metric (workloads.glasses)"]
