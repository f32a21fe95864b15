"""Features: what enters the head, and an epoch on them that is the epoch of the head on images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lrstudy.data.batches import Part, part_of
from lrstudy.data.normalise import normalisation
from lrstudy.models.build import Model, build_model, head_module
from lrstudy.policies.run import Run
from lrstudy.settings import Recipe
from lrstudy.training import features
from lrstudy.training.epoch import evaluate, train_epoch
from lrstudy.training.features import Hosted
from lrstudy.training.state import State
from lrstudy.workload.numerics import NumericsSpec

N, CLASSES, CPU = 50, 3, torch.device("cpu")
HEAD = Recipe(trainable=(False, False, True), batchnorm="eval", weight_decay=1e-3)


def part(size: int = 16) -> Part:
    rng = np.random.default_rng(0)
    images, index = rng.integers(0, 256, (N, 1, size, size), dtype=np.uint8), np.arange(N)
    return part_of(images, rng.integers(0, CLASSES, N), index, CPU, normalisation("data", images, index))


def state_of(name: str, size: int = 16) -> State:
    return State.of(build_model(name, CLASSES, 1, size, 0), CPU, NumericsSpec(eval_batch=16))


@pytest.mark.parametrize(
    ("name", "size", "elements"),
    [("small_cnn", 16, 64), ("lenet", 16, 84), ("resnet18", 16, 512), ("mobilenet_v2", 16, 1280), ("squeezenet1_0", 16, None)],
)  # fmt: skip
def test_the_head_is_alone_where_its_output_is_the_logits(name, size, elements):
    """SqueezeNet's head is a convolution, whose output is pooled afterwards."""
    assert features.elements(state_of(name, size), torch.rand(2, 1, size, size)) == elements


def test_a_head_module_several_layers_is_the_module_that_holds_them_and_a_dropout_before_it_is_not_in_it():
    module = nn.Sequential(
        nn.Flatten(),
        nn.Linear(4, 3),
        nn.Sequential(nn.Dropout(), nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))),
    )
    names = [name for name, _ in module.named_parameters()]
    assert head_module(module, ((), names[:2], names[2:])) is module[2][1]
    assert head_module(module, ((), names[:4], names[4:])) is module[2][1][2]
    assert head_module(module, ((), names[:3], names[3:])) is None


@pytest.mark.parametrize("forward", ["twice", "with a word", "and more"])
def test_a_head_that_is_not_called_once_with_a_tensor_alone_is_refused(forward):
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            inputs = self.body(images.flatten(1))
            if forward == "twice":
                return self.head(self.head(inputs))
            return self.head(input=inputs) if forward == "with a word" else self.head(inputs) + inputs

    module = Odd()
    names = [name for name, _ in module.named_parameters()]
    state = State.of(Model(module, ((), tuple(names[:2]), tuple(names[2:])), {}), CPU)
    assert features.elements(state, torch.rand(2, 1, 2, 2)) is None
    assert state.model.training


@pytest.mark.parametrize("name", ["small_cnn", "lenet", "mobilenet_v2"])
def test_an_epoch_on_features_is_the_epoch_of_the_head_on_images(name):
    """MobileNet drops out before its head: nothing is dropped in either."""
    data, on_images, on_features = part(), state_of(name), state_of(name)
    values = features.compute(on_features, data)
    precomputed = features.feature_part(data, values, is_resident=True)
    losses = {}
    for state, of, kind in ((on_images, data, "images"), (on_features, precomputed, "features")):
        recipe = Recipe(**{**vars(HEAD), "input": kind})
        losses[kind] = train_epoch(state, Run(N, 5, 3, recipe).settings(0.1, 0.9, 8), of, 3, 0)
    assert losses["features"] == pytest.approx(losses["images"], rel=1e-5)
    for key, tensor in on_images.model.state_dict().items():
        assert torch.allclose(on_features.model.state_dict()[key], tensor, rtol=1e-4, atol=1e-6), key
    seen, told = evaluate(on_images, data, "multiclass"), evaluate(on_features, precomputed, "multiclass")
    assert told.loss == pytest.approx(seen.loss, rel=1e-5)
    assert told.metrics == seen.metrics


def test_computing_leaves_the_state_and_the_generators_as_they_were():
    state, data = state_of("small_cnn"), part()
    before, drawn = state.capture(), torch.random.get_rng_state()
    values = features.compute(state, data)
    assert values.shape == (N, 64)
    assert state.capture() == before
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert state.model.training
    assert torch.equal(values, features.compute(state, data))


def test_a_head_that_works_in_place_does_not_change_the_features():
    body, head = (
        nn.Sequential(nn.Flatten(), nn.Linear(256, 6)),
        nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6), nn.Linear(6, CLASSES)),
    )
    module = nn.Sequential(body, head)
    names = tuple(name for name, _ in module.named_parameters())
    state, data = State.of(Model(module, ((), names[:2], names[2:]), {}), CPU), part()
    values = features.compute(state, data)
    assert (values < 0).any(), "as they enter the head"
    kept, precomputed = values.clone(), features.feature_part(data, values, is_resident=True)
    recipe = Recipe(**{**vars(HEAD), "input": "features"})
    train_epoch(state, Run(N, 5, 3, recipe).settings(0.1, 0.9, 50), precomputed, 0, 0)
    evaluate(state, precomputed, "multiclass")
    assert torch.equal(values, kept)


def test_features_in_the_hosts_memory_give_the_batches_of_those_on_the_device():
    values, order = torch.rand(N, 3), torch.randperm(N)
    bounds = [(0, 20), (20, 50)]
    for of in (None, order):
        batches = list(Hosted(values, CPU).batches(of, bounds))
        wanted = values if of is None else values[of]
        assert torch.equal(torch.cat(batches), wanted)
    assert Hosted(values, CPU).shape == (N, 3)


def test_features_survive_as_bytes_and_other_bytes_are_refused():
    train, validation = torch.rand(5, 3), torch.rand(2, 3)
    data = features.to_bytes(train, validation)
    assert all(map(torch.equal, features.from_bytes(data, (5, 2)), (train, validation)))
    for bad, counts in (
        (data, (5, 3)),
        (data[:-4], (5, 2)),
        (b"x", (5, 2)),
        (features.to_bytes(train.double(), validation), (5, 2)),
    ):
        with pytest.raises(ValueError, match="features"):
            features.from_bytes(bad, counts)
