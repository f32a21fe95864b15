"""Names of timm's models, found without importing it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import timm

from lrstudy.errors import InputError
from lrstudy.models import timm_names
from lrstudy.models.catalogue import describe, family_of


def test_the_names_are_those_that_timm_lists():
    assert sorted(timm_names.architectures()) == sorted(timm.list_models())


def test_a_model_of_timms_is_described_without_importing_it():
    script = """
import sys
from lrstudy.models.catalogue import describe, has_batchnorm
print(describe("timm:mobilenetv1_100", 3, 1, 32), has_batchnorm("timm:mobilenetv1_100"))
assert not {"torch", "timm"} & set(sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.check_output([sys.executable, "-c", script], text=True, env=environment)
    assert output.strip() == (
        "{'name': 'timm:mobilenetv1_100', 'num_classes': 3, 'channels': 1, 'size': 32, 'stem': 'stride1', 'version': 1, "
        f"'timm': '{timm.__version__}'}} None"
    )


def test_a_tag_says_which_weights_and_so_is_no_part_of_the_model():
    tagged = describe("timm:vit_tiny_patch16_224.augreg_in21k", 3, 3, 224)
    assert tagged == describe("timm:vit_tiny_patch16_224", 3, 3, 224)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("timm:mobilenet_v1_100", "The nearest are mobilenetv1_100"),
        ("timm:efficientnet_light0", "The nearest are efficientnet_lite0"),
        ("timm:qqqqqqqqqqq", "timm.list_models() lists all"),
        ("timm:", "timm.list_models() lists all"),
        ("timm:../resnet18", "The nearest are resnet18"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_the_nearest_ones(name, nearest):
    with pytest.raises(InputError) as caught:
        family_of(name)
    told = str(caught.value)
    assert told.startswith(f"model: timm {timm.__version__} has no model '{name[5:]}'.")
    assert nearest in told
    assert len(told) < 300, "not a thousand names"


def test_a_name_of_timms_without_its_prefix_is_recognised():
    with pytest.raises(InputError) as caught:
        family_of("mobilenetv1_100")
    assert str(caught.value) == (
        "model: there is no model 'mobilenetv1_100'. timm has one of this name: model: timm:mobilenetv1_100."
    )
