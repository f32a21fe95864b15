"""Models: the right network, its sections, and weights that depend on the seed and nothing else."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import get_model

from lrstudy.errors import InputError
from lrstudy.models.build import build_model, last_layer, sections
from lrstudy.models.catalogue import FAMILIES, NUM_SECTIONS, describe
from lrstudy.models.networks import LeNet

FAST = [
    ("small_cnn", 8),
    ("lenet", 32),
    ("resnet18", 32),
    ("densenet121", 32),
    ("mobilenet_v3_small", 32),
    ("efficientnet_b0", 32),
    ("shufflenet_v2_x0_5", 32),
    ("mnasnet0_5", 32),
    ("regnet_y_400mf", 32),
    ("squeezenet1_1", 32),
    ("vit_b_32", 32),
    ("swin_t", 32),
]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images(channels, size, number=2):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(number, channels, size, size, generator=generator)


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def same_weights(one, other):
    pairs = zip(one.module.state_dict().items(), other.module.state_dict().items(), strict=True)
    return all(a == b and torch.equal(v, w) for (a, v), (b, w) in pairs)


@pytest.mark.parametrize(("name", "size"), FAST)
def test_every_family_gives_logits_and_three_sections_that_cover_it(name, size):
    model = build_model(name, 7, 3, size, 0)
    with torch.no_grad():
        logits = model.module(images(3, size))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert logits.std() > 0 or name.startswith("vit"), "only ViT starts with a head of zeros"
    assert len(model.sections) == NUM_SECTIONS
    assert all(model.sections)
    listed = [name for section in model.sections for name in section]
    assert sorted(listed) == sorted(name for name, _ in model.module.named_parameters())
    parameters = dict(model.module.named_parameters())
    assert [7] in [[*parameters[name].shape] for name in model.sections[-1]], "the head holds the last bias"


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "mobilenet_v3_small"])
def test_weights_depend_on_the_seed_alone_and_generators_stay_untouched(name):
    def generators():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    torch.manual_seed(123)
    before = generators()
    one = build_model(name, 3, 1, 32, 5)
    assert generators() == before
    torch.manual_seed(99)
    assert same_weights(one, build_model(name, 3, 1, 32, 5))
    assert not same_weights(one, build_model(name, 3, 1, 32, 6))


def test_building_under_a_default_device_still_gives_the_same_weights_on_the_cpu():
    with torch.device("meta"):
        model = build_model("small_cnn", 3, 1, 8, 5)
    assert same_weights(model, build_model("small_cnn", 3, 1, 8, 5))


def test_resnet_is_cut_after_layer2_and_densenet_after_denseblock2():
    first, second, head = build_model("resnet18", 3, 3, 32, 0).sections
    assert {name.split(".")[0] for name in first} == {"conv1", "bn1", "layer1", "layer2"}
    assert {name.split(".")[0] for name in second} == {"layer3", "layer4"}
    assert head == ("fc.weight", "fc.bias")
    first, second, head = build_model("densenet121", 3, 3, 32, 0).sections
    # the children 0 ... 6 of `features`, and 7 ... 11, as in fastai's _densenet_split
    assert {name.split(".")[1] for name in first} == {"conv0", "norm0", "denseblock1", "transition1", "denseblock2"}
    assert {name.split(".")[1] for name in second} == {
        "transition2",
        "denseblock3",
        "transition3",
        "denseblock4",
        "norm5",
    }
    assert head == ("classifier.weight", "classifier.bias")


def test_other_backbones_are_cut_between_blocks_near_the_middle():
    first, second, head = build_model("small_cnn", 3, 3, 32, 0).sections
    assert {name.split(".")[0] for name in first} == {"stage1", "stage2"}
    assert {name.split(".")[0] for name in second} == {"stage3"}
    assert head == ("head.weight", "head.bias")
    first, second, _ = build_model("mobilenet_v3_small", 3, 3, 32, 0).sections
    blocks = [
        {int(name.split(".")[1]) for name in section if name.startswith("features")} for section in (first, second)
    ]
    assert max(blocks[0]) + 1 == min(blocks[1])
    assert abs(len(first) - len(second)) < 10


HEADS = {
    "lenet": "classifier.5", "alexnet": "classifier.6", "vgg11": "classifier.6", "mobilenet_v3_small": "classifier.3",
    "squeezenet1_1": "classifier.1", "mobilenet_v2": "classifier.1", "efficientnet_b0": "classifier.1", "mnasnet0_5": "classifier.1",
    "convnext_tiny": "classifier.2", "googlenet": "fc", "inception_v3": "fc", "shufflenet_v2_x0_5": "fc",
    "swin_t": "head", "vit_b_16": "heads.head", "densenet121": "classifier",
}  # fmt: skip
REVISED = ("lenet", "alexnet", "vgg", "mobilenet_v3", "convnext", "maxvit")


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_the_layer_that_makes_the_logits(name):
    """That of AlexNet was a classifier of three layers, 54.6 of its 57 million parameters; hidden layers are no head."""
    with torch.device("meta"):
        if name == "lenet":
            module = LeNet(3, 32, 7)
        else:
            arguments = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
            module = get_model(name, weights=None, num_classes=7, **arguments)
    parts = sections(module, (last_layer(module),))
    assert parts[2] == (f"{HEADS[name]}.weight", f"{HEADS[name]}.bias")
    assert all(parts)
    is_revised = parts != sections(module)
    assert is_revised == name.startswith(REVISED), "other heads than before"
    assert describe(name, 7, 3, 224)["version"] == 1 + is_revised, "and names of their own, while those of others stay"


def test_small_images_get_a_stem_that_keeps_their_size():
    small = build_model("resnet18", 3, 3, 64, 0)
    assert (small.module.conv1.kernel_size, small.module.conv1.stride) == ((3, 3), (1, 1))
    assert isinstance(small.module.maxpool, nn.Identity)
    assert small.description["stem"] == "3x3"
    dense = build_model("densenet121", 3, 3, 32, 0).module.features
    assert (dense.conv0.kernel_size, dense.conv0.stride) == ((3, 3), (1, 1))
    assert isinstance(dense.pool0, nn.Identity)
    mobile = build_model("mobilenet_v3_small", 3, 3, 32, 0)
    assert mobile.module.features[0][0].stride == (1, 1)
    assert mobile.description["stem"] == "stride1"


def test_larger_images_keep_torchvisions_network():
    from torchvision.models import resnet18

    large = build_model("resnet18", 1000, 3, 65, 0)
    assert large.description["stem"] == "original"
    expected = {name: value.shape for name, value in resnet18().state_dict().items()}
    assert {name: value.shape for name, value in large.module.state_dict().items()} == expected
    assert large.module.conv1.stride == (2, 2)


@pytest.mark.parametrize(("name", "size"), [("resnet18", 32), ("squeezenet1_1", 32), ("swin_t", 32)])
def test_a_grey_model_gives_what_the_rgb_model_gives_for_three_equal_channels(name, size):
    grey, rgb = build_model(name, 5, 1, size, 3), build_model(name, 5, 3, size, 3)
    pixels = images(1, size)
    with torch.no_grad():
        one, three = grey.module.eval()(pixels), rgb.module.eval()(pixels.expand(-1, 3, -1, -1))
    # float32 sums in another order
    torch.testing.assert_close(one, three, rtol=1e-3, atol=1e-4)


def test_lenet_is_the_tutorials_network():
    lenet = build_model("lenet", 10, 3, 32, 0).module
    shapes = [[*parameter.shape] for parameter in lenet.parameters() if parameter.ndim > 1]
    assert shapes == [[6, 3, 5, 5], [16, 6, 5, 5], [120, 400], [84, 120], [10, 84]]
    assert num_parameters(lenet) == 62006  # the number that the PyTorch tutorial's network has
    parts = [type(part).__name__ for part in lenet.modules() if not list(part.children())]
    assert parts == (
        [
            "Conv2d",
            "ReLU",
            "MaxPool2d",
            "Conv2d",
            "ReLU",
            "MaxPool2d",
            "Flatten",
            "Linear",
            "ReLU",
            "Linear",
            "ReLU",
            "Linear",
        ]
    )


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (3, 64)])
def test_small_cnn_is_small(channels, size):
    module = build_model("small_cnn", 10, channels, size, 0).module
    assert 20_000 < num_parameters(module) < 30_000
    assert module.stage3(module.stage2(module.stage1(images(channels, size)))).shape[2] == min(size, 32) // 4


def test_auxiliary_heads_are_off():
    with torch.no_grad():
        logits = build_model("googlenet", 4, 3, 32, 0).module.train()(images(3, 32))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 4)


def test_the_description_is_plain_and_needs_no_torch():
    script = """
import json, sys
from lrstudy.models.catalogue import FAMILIES, describe
everything = [describe(name, 3, 3, 224) for family in FAMILIES for name in family.names]
assert "torch" not in sys.modules
print(json.dumps([len(everything), describe("resnet34", 3, 1, 64)]))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.check_output([sys.executable, "-c", script], text=True, env=environment)
    expected = {"name": "resnet34", "num_classes": 3, "channels": 1, "size": 64, "stem": "3x3", "version": 1}
    number, description = json.loads(output)
    assert description == expected == build_model("resnet34", 3, 1, 64, 0).description
    assert number >= 80


def test_the_listed_names_are_torchvisions():
    import torchvision

    listed = {name for family in FAMILIES for name in family.names}
    assert listed - {"small_cnn", "lenet"} == set(torchvision.models.list_models(module=torchvision.models))


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("lenet", 8, "model: lenet needs images of at least 16 pixels; got 8. Set image.size"),
        ("vit_b_16", 40, "vit_b_16 needs images of at least 16 pixels, in multiples of 16; got 40."),
        ("inception_v3", 64, "model: inception_v3 needs images of at least 75 pixels; got 64."),
        ("resnet35", 32, "model: there is no model 'resnet35'. Did you mean 'resnet50' or 'resnet34'? Valid:"),
        ("smallcnn", 32, "Did you mean 'small_cnn'"),
    ],
)
def test_faults_name_what_would_do(name, size, expected):
    with pytest.raises(InputError) as caught:
        describe(name, 3, 3, size)
    assert expected in str(caught.value)


@pytest.mark.parametrize("layers", [[nn.Linear(4, 2)], [nn.Linear(4, 3, bias=False), nn.Linear(3, 2)]])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_a_network_too_small_to_cut_leaves_sections_empty_and_trains(layers, optimizer):
    """Once, looking for the border between the blocks of a single one never ended."""
    module = nn.Sequential(*layers)
    first, second, head = sections(module)
    assert (first, len(second)) == ((), len(layers) - 1)
    assert sorted((*second, *head)) == sorted(name for name, _ in module.named_parameters())
    parameters = dict(module.named_parameters())
    groups = [{"params": [parameters[name] for name in section]} for section in (first, second, head)]
    before = module[-1].weight.detach().clone()
    made = getattr(torch.optim, optimizer)(groups, lr=0.1)
    module(torch.ones(1, 4)).sum().backward()
    made.step()
    assert not torch.equal(before, module[-1].weight)
