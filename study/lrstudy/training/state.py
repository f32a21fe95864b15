"""State: a model and its optimizer after some epochs, as an object and as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from lrstudy.models import Model
from lrstudy.settings import Recipe

_OPTIMIZERS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


@dataclass
class State:
    """A model, its sections (names of parameters, input to head), and its optimizer, once one has been used.

    The optimizer has one parameter group per section; `kind` says which it is.
    """

    model: nn.Module
    sections: tuple[tuple[str, ...], ...]
    optimizer: torch.optim.Optimizer | None = None
    kind: str = ""

    @staticmethod
    def of(model: Model, device: torch.device) -> State:
        """The state before the first epoch."""
        return State(model.module.to(device), model.sections)

    def optimizer_for(self, recipe: Recipe) -> torch.optim.Optimizer:
        """The optimizer with the recipe's constants; a new one before the first epoch and where the recipe resets it.

        Rates and momentum are set by every update's settings.
        """
        optimizer = self.optimizer
        if optimizer is None or recipe.reset_optimizer:
            optimizer = self._make(recipe.optimizer)
        assert self.kind == recipe.optimizer, f"a state of {self.kind} cannot go on with {recipe.optimizer}"
        for group in optimizer.param_groups:
            group["weight_decay"] = recipe.weight_decay
            group |= {"nesterov": recipe.nesterov} if self.kind == "sgd" else {"eps": recipe.eps}
            group |= {"alpha": recipe.alpha} if self.kind == "rmsprop" else {}
        return optimizer

    def capture(self) -> bytes:
        """All tensors of model and optimizer as safetensors; the same state gives the same bytes."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.optimizer is not None:
            for name, parameter in self.model.named_parameters():
                for key, value in self.optimizer.state.get(parameter, {}).items():
                    if isinstance(value, Tensor):
                        tensors[f"optimizer.{self.kind}.{key}.{name}"] = value
        return save({name: tensor.detach().contiguous().cpu().clone() for name, tensor in tensors.items()})

    def restore(self, data: bytes) -> None:
        """Become the state that `capture` gave. Raises ValueError if the bytes are of another model."""
        tensors = load(data)
        model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        try:
            self.model.load_state_dict(model, strict=True)
        except RuntimeError as error:
            raise ValueError(f"the stored state does not fit the model: {error}") from error
        self.optimizer, self.kind = None, ""
        parameters = dict(self.model.named_parameters())
        for stored, tensor in tensors.items():
            if stored.startswith("optimizer."):
                _, kind, key, name = stored.split(".", 3)
                optimizer = self.optimizer or self._make(kind)
                at = tensor.device if key == "step" else parameters[name].device  # torch keeps Adam's count on the CPU
                optimizer.state[parameters[name]][key] = tensor.to(at)

    def _make(self, kind: str) -> torch.optim.Optimizer:
        parameters = dict(self.model.named_parameters())
        groups = [{"params": [parameters[name] for name in section]} for section in self.sections]
        options: dict[str, Any] = {"lr": 0.0} | ({"momentum": 0.9} if kind in ("sgd", "rmsprop") else {})
        optimizer: torch.optim.Optimizer = _OPTIMIZERS[kind](groups, **options)
        self.optimizer, self.kind = optimizer, kind
        return optimizer


def set_rates(group: dict[str, object], lr: float, momentum: float, recipe: Recipe) -> None:
    """Set a parameter group's rate, and its momentum: Adam's beta1."""
    group["lr"] = lr
    if recipe.beta2 is not None:
        group["betas"] = (momentum, recipe.beta2)
    else:
        group["momentum"] = momentum
