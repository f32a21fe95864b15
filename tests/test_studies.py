"""The studies and default spaces that are shipped."""

from __future__ import annotations

import pytest

from lrstudy.config import load
from lrstudy.planning import plan
from lrstudy.planning.arms import one_at_a_time, resolve
from lrstudy.policies import build, registry
from lrstudy.policies.base import parameter_names
from lrstudy.policies.spaces import default_space, search_spaces

STUDIES = sorted((search_spaces() / "studies").glob("*.yaml"))


def test_there_are_studies_and_a_space_for_every_policy():
    assert "quickstart" in {path.stem for path in STUDIES}
    assert {path.stem for path in search_spaces().glob("*.yaml")} == set(registry())


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_is_valid_and_called_after_its_file(path):
    study = plan.read(path.read_text(encoding="utf-8"))
    assert study.name == path.stem
    assert study.control in study.arms


@pytest.mark.parametrize("policy", registry())
def test_a_default_space_searches_parameters_of_its_policy_alone_and_every_value_builds(policy):
    own = set(parameter_names(registry()[policy])) - {"lr", "batch_size", "momentum"}
    assert set(default_space(policy)) - {"norm_batch"} <= own, "lr, batch_size and momentum are common to all policies"
    arm = resolve(load(f"lrstudy: 1\nname: x\narms: [{policy}]"))[policy]
    for configuration in one_at_a_time(arm.space):
        assert build(policy, arm.parameters(configuration)).name == policy


def test_the_quickstart_compares_the_families_and_their_baselines_on_equal_budgets():
    study = plan.read((search_spaces() / "studies" / "quickstart.yaml").read_text(encoding="utf-8"))
    assert list(study.arms) == ["constant", "step", "cosine", "batch_increase", "clr", "sgdr", "sgdr_dlr"]
    assert not any(study.arms.values()), "nothing but default spaces"
    assert study.workload.data == "digits"
