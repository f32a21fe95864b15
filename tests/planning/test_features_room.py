"""Features that the disk cannot take are refused before anything is trained."""

from __future__ import annotations

import pytest

from lrstudy.errors import InputError
from lrstudy.planning import features_room
from study_files import plan_of

pytestmark = pytest.mark.slow  # the model is built in a child process, once

TEXT = """
lrstudy: 1
name: small
workload: {data: digits, subset: 120, split: {test: 0.5, validation: 40}, model: small_cnn}
budget: {epochs: 4}
common: {lr: 0.1, batch_size: 20}
arms: {constant: , two: {policy: sgdr_dlr, stages: two}}
search: {method: random, trials: 2, seeds: [0, 1]}
confirm: {seeds: 3}
"""
BYTES = 5 * 120 * 64 * 4
"""Of 80 training and 40 validation examples with 64 numbers each, under 2 seeds and 3 more."""


def test_features_larger_than_the_disk_are_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(features_room, "free_bytes", lambda path: BYTES - 1)
    with pytest.raises(InputError) as refused:
        plan_of(text=TEXT)
    (told,) = refused.value.sentences
    assert told.startswith(
        "arms.two.stages: the features of 120 images, 64 numbers each, under 5 seeds take 0.00015 GB"
    )
    assert "Write `input: images` in the stage" in told


def test_features_that_fit_and_studies_without_them_are_not(monkeypatch):
    monkeypatch.setattr(features_room, "free_bytes", lambda path: BYTES)
    plan_of(text=TEXT)
    monkeypatch.setattr(features_room, "free_bytes", lambda path: 0)
    plan_of(text=TEXT.replace("stages: two", "min_ratio: 0"))
    stages = "stages: [{train: head, epochs: 1, policy: constant, input: images}, {train: all, policy: constant}]"
    plan_of(text=TEXT.replace("policy: sgdr_dlr, stages: two", stages))


def test_a_folder_that_does_not_exist_yet_has_the_room_of_the_one_around_it(tmp_path):
    assert features_room.free_bytes(tmp_path / "a" / "b") == pytest.approx(features_room.free_bytes(tmp_path), rel=0.1)


def test_the_report_says_what_a_stage_on_features_leaves_out():
    from lrstudy.planning.caveats import FEATURES, caveats

    plan = plan_of(text=TEXT)
    assert FEATURES.format(1) in caveats(plan, plan.arms["two"])
    assert not any("features" in caveat for caveat in caveats(plan, plan.arms["constant"]))


def test_frozen_statistics_that_nothing_has_gathered_are_told():
    """A ResNet-18 with random weights, its BatchNorm frozen after a stage on features, diverged at a rate of 0.1."""
    from lrstudy.planning.caveats import UNGATHERED, caveats

    first = "{train: head, epochs: 1, policy: constant}"
    frozen = "{train: all, policy: constant, batchnorm: frozen}"
    for stages, told in (
        (f"[{first}, {frozen}]", True),
        (f"[{{train: all, epochs: 1, policy: constant}}, {frozen}]", False),
    ):
        plan = plan_of(text=TEXT.replace("policy: sgdr_dlr, stages: two", f"stages: {stages}"))
        assert (UNGATHERED.format(2) in caveats(plan, plan.arms["two"])) == told


def test_a_model_whose_head_is_not_all_trains_on_images_and_refuses_features():
    text = TEXT.replace("model: small_cnn", "model: squeezenet1_0, image: {size: 16}")
    plan = plan_of(text=text)
    arm = plan.arms["two"]
    assert plan.head_inputs is None
    assert arm.build(arm.space.default()).settings(0, (), plan.run(arm, arm.space.default())).recipe.input == "images"
    stages = "stages: [{train: head, epochs: 1, policy: constant, input: features}, {train: all, policy: constant}]"
    with pytest.raises(InputError, match=r"arms.two.stages\[0\].input: expected images with this model"):
        plan_of(text=text.replace("policy: sgdr_dlr, stages: two", stages))
