"""Which parts of a network an epoch trains, and which are in evaluation mode meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lrstudy.settings import Recipe
from lrstudy.training.state import State

ALL = Recipe()
"""Everything is trained, and BatchNorm gathers statistics."""


@contextmanager
def training(state: State, recipe: Recipe) -> Iterator[None]:
    """Within it, the network is in training mode as the recipe says, and frozen sections take no gradients.

    So the backward pass ends where the frozen sections begin. Without a gradient an optimizer leaves a parameter alone,
    weight decay and momentum included. The modes stay as they are afterwards: the next epoch or evaluation sets its own.
    """
    set_modes(state, recipe)
    frozen = [p for p in _frozen(state, recipe).values() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def set_modes(state: State, recipe: Recipe) -> None:
    """Put every module into training or evaluation mode, as `Recipe.batchnorm` describes it."""
    state.network.train()
    if recipe.batchnorm == "frozen":
        for module in state.model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
    elif recipe.batchnorm == "eval":
        _evaluate_what_is_frozen(state.model, set(map(id, _frozen(state, recipe).values())))


def _evaluate_what_is_frozen(model: nn.Module, frozen: set[int]) -> None:
    """Put what is not trained into evaluation mode.

    A module without parameters (dropout, stochastic depth) goes with the parameters before it, in the order in which the
    network was built: so dropout between a frozen backbone and the head is off, as it is where the head is trained on features.
    """
    is_trained = False
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own:
            is_trained = any(id(parameter) not in frozen for parameter in own)
        is_container = not own and any(True for _ in module.parameters())
        is_active = is_trained or (is_container and any(id(p) not in frozen for p in module.parameters()))
        module.training &= is_active  # `eval()` would set all modules below as well


def _frozen(state: State, recipe: Recipe) -> dict[str, nn.Parameter]:
    """The parameters of the sections that are not trained, by name."""
    names = {
        name for names, trained in zip(state.sections, recipe.trainable, strict=False) if not trained for name in names
    }
    return {name: parameter for name, parameter in state.model.named_parameters() if name in names}
