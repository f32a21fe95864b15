"""Models of timm's: built for the images, with sections and stems by their family, and refused where they do not fit."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from lrstudy.errors import InputError
from lrstudy.models.build import build_model, head_names
from lrstudy.models.examine import examine
from lrstudy.models.timm_names import architectures

pytestmark = pytest.mark.slow

# name, size, stem, where section 2 begins, head, has BatchNorm
FAMILIES = [
    ("mobilenetv1_100", 32, "stride1", "blocks.3.0.conv_dw.weight", "classifier", True),
    ("efficientnet_lite0", 32, "stride1", "blocks.4.0.conv_pw.weight", "classifier", True),
    ("mobilenetv3_small_050", 32, "stride1", "blocks.3.", "classifier", True),
    ("convnext_atto", 32, "original", "stages.2.downsample.0.weight", "head.fc", False),
    ("vit_tiny_patch16_224", 48, "original", "blocks.6.norm1.weight", "head", False),
    ("deit_tiny_distilled_patch16_224", 32, "original", "blocks.6.norm1.weight", "head+head_dist", False),
    ("swin_tiny_patch4_window7_224", 64, "original", "layers.2.", "head.fc", False),
    ("resnet10t", 32, "3x3", "layer3.0.conv1.weight", "fc", True),
    ("resnet18", 32, "3x3", "layer3.0.conv1.weight", "fc", True),
    ("densenet121", 32, "3x3", "features.transition2.norm.weight", "classifier", True),
    ("regnetx_002", 32, "stride1", "s4.b1.", "head.fc", True),
]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "size", "stem", "second", "head", "has_batchnorm"), FAMILIES)
def test_every_family_gives_logits_and_three_sections_that_cover_it(name, size, stem, second, head, has_batchnorm):
    model = build_model(f"timm:{name}", 7, 1, size, 0)
    with torch.no_grad():
        logits = model.module(torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert model.description["stem"] == stem
    assert head_names(model.module) == tuple(head.split("+"))
    assert model.sections[1][0].startswith(second)
    assert model.sections[2] == tuple(f"{part}.{kind}" for part in head.split("+") for kind in ("weight", "bias"))
    listed = [name for section in model.sections for name in section]
    assert sorted(listed) == sorted(name for name, _ in model.module.named_parameters())
    facts = examine(f"timm:{name}", 7, 1, size)
    assert facts.has_batchnorm == has_batchnorm
    assert [s.num_parameters for s in facts.sections] == [
        sum(model.module.get_parameter(name).numel() for name in section) for section in model.sections
    ], "what is built without values is what is trained"


@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:vit_tiny_patch16_224"])
def test_weights_depend_on_the_seed_alone_and_generators_stay_untouched(name):
    def weights(seed):
        return {key: value.clone() for key, value in build_model(name, 3, 3, 32, seed).module.state_dict().items()}

    torch.manual_seed(123)
    before = torch.get_rng_state().tolist()
    one = weights(5)
    assert torch.get_rng_state().tolist() == before
    torch.manual_seed(99)
    assert all(torch.equal(value, weights(5)[key]) for key, value in one.items())
    assert not all(torch.equal(value, weights(6)[key]) for key, value in one.items())


def test_small_images_get_a_stem_that_keeps_their_size():
    plain = build_model("timm:resnet18", 3, 3, 64, 0).module
    assert (plain.conv1.kernel_size, plain.conv1.stride) == ((3, 3), (1, 1))
    assert isinstance(plain.maxpool, nn.Identity)
    deep = build_model("timm:resnet10t", 3, 3, 64, 0).module
    assert (deep.conv1[0].kernel_size, deep.conv1[0].stride) == ((3, 3), (1, 1))
    assert isinstance(deep.maxpool, nn.Identity)
    mobile = build_model("timm:mobilenetv1_100", 3, 3, 64, 0).module
    assert mobile.conv_stem.stride == (1, 1)
    for name in ("resnet18", "mobilenetv1_100"):
        larger = build_model(f"timm:{name}", 3, 3, 65, 0)
        assert larger.description["stem"] == "original"
        theirs = timm.create_model(name, num_classes=3)
        shapes = {key: value.shape for key, value in theirs.state_dict().items()}
        assert {key: value.shape for key, value in larger.module.state_dict().items()} == shapes


@pytest.mark.parametrize("file", ["resnet", "densenet", "res2net", "resnest", "sknet", "mobilenetv3", "efficientnet",
                                  "regnet", "ghostnet", "hardcorenas", "rexnet"])  # fmt: skip
def test_models_of_the_files_with_small_stems_have_them(file):
    """Every eighth of a file, as its models have one layout; without values, which takes a tenth of a second each."""
    names = sorted(name for name, stands_in in architectures().items() if stands_in == file)
    for name in names[::8]:
        examine(f"timm:{name}", 7, 3, 32)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        (
            "vit_tiny_patch16_224",
            40,
            "takes images in multiples of 16 pixels; got 40 x 40 pixels. It was made for 224 x 224 pixels",
        ),
        ("inception_v3", 64, "cannot take images of 64 x 64 pixels: RuntimeError: Calculated padded input size"),
        ("crossvit_tiny_240", 64, "cannot take images of 64 x 64 pixels: RuntimeError:"),
        ("mobilenetv5_300m_enc", 64, "expected a classifier, with logits of shape (2, 7) for 2 images; got"),
        ("vit_tiny_patch16_224.augreg", 64, "Did you mean 'augreg_in21k'?"),
    ],
)
def test_what_cannot_take_the_images_or_is_no_classifier_is_refused(name, size, expected):
    with pytest.raises(InputError) as caught:
        examine(f"timm:{name}", 7, 3, size)
    told = str(caught.value)
    assert told.startswith("model: ")
    assert expected in told
    assert name in told
