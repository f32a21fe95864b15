"""Facts of a workload's model: found once, then known without torch; a model that does not fit is refused before training."""

from __future__ import annotations

from unittest import mock

import pytest

from lrstudy.errors import InputError
from lrstudy.training.model_facts import facts_of
from lrstudy.training.rehearsal import rehearse
from study_files import plan_of

pytestmark = pytest.mark.slow

MOBILENET = ("workload.model=timm:mobilenetv1_100", "workload.image.size=16")


def test_facts_of_a_model_by_name_are_found_once():
    plan = plan_of(*MOBILENET)
    facts = facts_of(plan.workload)
    assert [section.num_parameters for section in facts.sections] == [133_632, 3_072_768, 10_250]
    with mock.patch("lrstudy.models.examine.examine", side_effect=AssertionError("built again")):
        assert facts_of(plan_of(*MOBILENET).workload) == facts
        with pytest.raises(AssertionError):
            facts_of(plan_of(*MOBILENET, "workload.image.size=20").workload)


def test_a_growing_batch_has_ghost_batches_with_the_models_of_timms_that_have_batchnorm():
    arms = "arms=[constant, batch_increase]"
    for name, expected in (("timm:mobilenetv1_100", 20), ("timm:vit_tiny_patch16_224", None)):
        plan = plan_of(f"workload.model={name}", "workload.image.size=16", arms)
        arm = plan.arms["batch_increase"]
        assert plan.run(arm, arm.space.default()).recipe.norm_batch == expected


def test_a_size_that_a_model_of_timms_cannot_take_is_refused_before_training():
    plan = plan_of("workload.model=timm:vit_tiny_patch16_224", "workload.image.size=20")
    with pytest.raises(InputError, match=r"workload\.model: timm:vit_tiny_patch16_224 takes images in multiples of 16"):
        rehearse(plan.workload)
