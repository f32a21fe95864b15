"""What is trained and in which mode: frozen sections stay as they are, to the last bit, and so do frozen statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lrstudy.data.batches import Part, part_of
from lrstudy.data.normalise import normalisation
from lrstudy.models.build import Model
from lrstudy.policies.run import Run
from lrstudy.settings import OPTIMIZER_CONSTANTS, Recipe
from lrstudy.training.epoch import evaluate, train_epoch
from lrstudy.training.modes import set_modes
from lrstudy.training.precise_norm import gathering_layers
from lrstudy.training.randomness import generator
from lrstudy.training.state import State

N, CLASSES = 50, 3
HEAD, UPPER = (False, False, True), (False, True, True)
SECTIONS = (
    ("0.weight", "0.bias", "1.weight", "1.bias"),
    ("3.weight", "3.bias", "4.weight", "4.bias"),
    ("7.weight", "7.bias"),
)


def part() -> Part:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, 1, 6, 6), dtype=np.uint8)
    index = np.arange(N)
    labels = rng.integers(0, CLASSES, N)
    return part_of(images, labels, index, torch.device("cpu"), normalisation("data", images, index))


def network() -> State:
    torch.manual_seed(1)
    first = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    second = (nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5))
    module = nn.Sequential(*first, *second, nn.Linear(16, CLASSES))
    return State.of(Model(module, SECTIONS, {}), torch.device("cpu"))


def trained(recipe: Recipe, lr: float = 0.1, state: State | None = None) -> tuple[State, dict[str, torch.Tensor]]:
    """A state after one epoch, and all its tensors before."""
    state = state or network()
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    train_epoch(state, Run(N, 10, 3, recipe).settings(lr, 0.9, 8), part(), 0, 0)
    return state, before


def changed(state: State, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in state.model.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("optimizer", OPTIMIZER_CONSTANTS)
@pytest.mark.parametrize(("trainable", "first"), [(HEAD, 2), (UPPER, 1), ((), 0)])
def test_frozen_sections_get_no_update_not_even_by_weight_decay(optimizer, trainable, first):
    """At a rate that is not 0 for them, so that it is not the rate which spares them."""
    recipe = Recipe(optimizer=optimizer, weight_decay=0.1, trainable=trainable, batchnorm="eval" if first else "train")
    state, before = trained(recipe, lr=0.01)
    parameters = {name for section in SECTIONS[first:] for name in section}
    assert changed(state, before) & {name for section in SECTIONS for name in section} == parameters
    assert all(parameter.requires_grad for parameter in state.model.parameters()), "as they were before the epoch"
    held = {name for name, parameter in state.model.named_parameters() if state.optimizer.state.get(parameter)}
    assert held == parameters


@pytest.mark.parametrize(
    ("trainable", "batchnorm", "gathering"),
    [((), "train", {"1", "4"}), ((), "frozen", set()), (UPPER, "eval", {"4"}), (HEAD, "eval", set()), (HEAD, "train", {"1", "4"})],
)  # fmt: skip
def test_running_statistics_are_gathered_where_batchnorm_trains(trainable, batchnorm, gathering):
    recipe = Recipe(trainable=trainable, batchnorm=batchnorm)
    state, before = trained(recipe)
    assert {name.partition(".")[0] for name in changed(state, before) if "running" in name} == gathering
    names = {id(module): name for name, module in state.model.named_modules()}
    assert {names[id(layer)] for layer in gathering_layers(state, recipe)} == gathering


def test_frozen_batchnorm_still_learns_scale_and_shift():
    state, before = trained(Recipe(batchnorm="frozen"))
    assert {"1.weight", "1.bias", "4.weight", "4.bias"} <= changed(state, before)


@pytest.mark.parametrize(
    ("recipe", "active"),
    [
        (Recipe(), {"2", "6"}),
        (Recipe(batchnorm="frozen"), {"2", "6"}),
        (Recipe(trainable=UPPER, batchnorm="eval"), {"6"}),
        (Recipe(trainable=HEAD, batchnorm="eval"), set()),
        (Recipe(trainable=HEAD, batchnorm="train"), {"2", "6"}),
    ],
)
def test_dropout_is_off_where_what_comes_before_it_is_in_evaluation_mode(recipe, active):
    state = network()
    set_modes(state, recipe)
    assert {name for name, m in state.model.named_modules() if isinstance(m, nn.Dropout) and m.training} == active


def test_a_module_that_keeps_itself_in_evaluation_mode_stays_in_it():
    class Kept(nn.BatchNorm2d):
        def train(self, mode: bool = True) -> Kept:
            return super().train(False)

    state = network()
    state.model[4] = Kept(4)
    set_modes(state, Recipe(trainable=UPPER, batchnorm="eval"))
    assert not state.model[4].training


def test_an_epoch_of_the_head_is_the_plain_loop_over_what_the_backbone_gives_in_evaluation_mode():
    recipe = Recipe(trainable=HEAD, batchnorm="eval", weight_decay=1e-3)
    state, _ = trained(recipe)
    other, data = network(), part()
    backbone, head = other.model[:7].eval(), other.model[7]
    with torch.no_grad():
        features = backbone((data.images.pixels.float() - data.mean) * data.scale)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    for chosen in torch.randperm(N, generator=generator(0, "order", 0)).split(8):
        optimizer.zero_grad()
        functional.cross_entropy(head(features[chosen]), data.labels[chosen]).backward()
        optimizer.step()
    for name, tensor in other.model.state_dict().items():
        assert torch.allclose(state.model.state_dict()[name], tensor, rtol=1e-5, atol=1e-7), name


def test_the_modes_of_one_epoch_do_not_reach_the_next_one():
    """An epoch after a frozen one is the epoch that it would be from a state restored from its bytes."""
    state, _ = trained(Recipe(trainable=HEAD, batchnorm="eval"))
    fresh = network()
    fresh.restore(state.capture())
    later: list[Any] = [trained(Recipe(reset_optimizer=True), state=one)[0].capture() for one in (state, fresh)]
    assert later[0] == later[1]
    assert evaluate(state, part(), "multiclass").loss == evaluate(fresh, part(), "multiclass").loss


def test_a_new_optimizer_forgets_what_the_last_stage_gathered():
    state, _ = trained(Recipe(trainable=HEAD, batchnorm="eval"))
    moments = state.optimizer.state[state.model[7].weight]["momentum_buffer"]
    trained(Recipe(reset_optimizer=True), lr=1e-9, state=state)
    assert state.optimizer.state[state.model[7].weight]["momentum_buffer"] is not moments
