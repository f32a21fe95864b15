"""The studies and default spaces that are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lrstudy.config import load
from lrstudy.planning.arms import one_at_a_time, resolve
from lrstudy.policies import build, registry
from lrstudy.policies.base import parameter_names
from lrstudy.policies.spaces import default_space, search_spaces
from lrstudy.study import Study
from lrstudy.user_code import load as load_code

SHARED = Path(__file__).parents[2] / "shared"
STUDIES = sorted((search_spaces() / "studies").glob("*.yaml"))


def test_there_are_studies_and_a_space_for_every_policy():
    assert "quickstart" in {path.stem for path in STUDIES}
    assert {path.stem for path in search_spaces().glob("*.yaml")} == set(registry())


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_is_valid_and_called_after_its_file(path):
    for study in Study.each(path):
        assert study.file.name.partition("/")[0] == path.stem
        assert study.file.control in study.file.arms


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data and ../shared/weights")
@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        (
            "mishra2019-small",
            [
                f"workload.data=folder:{SHARED}/data/isic_uda1",
                f"workload.weights={SHARED}/weights/tf_efficientnet_lite0.safetensors",
            ],
        ),
        ("chopade_baseline-small", [f"workload.data.source=parquet:{SHARED}/data/nih_cxr14_1k"]),
        ("yacalis_le-small", [f"workload.data=parquet:{SHARED}/data/sign_digits"]),
    ],
)
def test_a_small_study_of_a_source_fits_its_real_data_and_weights(tmp_path, name, overrides):
    path = search_spaces() / "studies" / f"{name}.yaml"
    for study in Study.each(path, [*overrides, f"storage.path={tmp_path}"]):
        made, _ = study.plan()
        assert all(len(settings) for arm in made.arms.values() for settings in [made.cohort[arm.name]])
        assert made.workload.weights.is_random == (name != "mishra2019-small")


def test_the_network_for_faces_has_the_parameters_that_its_source_prints():
    """460,707 with the two running statistics of three channels, which Keras counts too: 456,256 in the first dense layer."""
    build_faces = load_code(f"{search_spaces()}/studies/faces.py:build", "model")
    network = build_faces(3, 3, (218, 178))
    assert sum(p.numel() for p in network.parameters()) + 6 == 460_707
    assert network.hidden[1].weight.numel() + 64 == 456_256
    for size in (28, 29, (109, 89), (64, 47)):
        height, width = (size, size) if isinstance(size, int) else size
        assert build_faces(10, 1, size)(torch.zeros(2, 1, height, width)).shape == (2, 10)


@pytest.mark.parametrize("policy", registry())
def test_a_default_space_searches_parameters_of_its_policy_alone_and_every_value_builds(policy):
    own = set(parameter_names(registry()[policy])) - {"lr", "batch_size", "momentum"}
    assert set(default_space(policy)) - {"norm_batch"} <= own, "lr, batch_size and momentum are common to all policies"
    arm = resolve(load(f"lrstudy: 1\nname: x\narms: [{policy}]"))[policy]
    for configuration in one_at_a_time(arm.space):
        assert build(policy, arm.parameters(configuration)).name == policy


def test_the_quickstart_compares_the_families_and_their_baselines_on_equal_budgets():
    study = Study.from_yaml(search_spaces() / "studies" / "quickstart.yaml").file
    assert list(study.arms) == ["constant", "step", "cosine", "batch_increase", "clr", "sgdr", "sgdr_dlr"]
    assert not any(study.arms.values()), "nothing but default spaces"
    assert study.workload.data == "digits"
