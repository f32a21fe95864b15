"""State: a model and its optimizer after some epochs, as an object and as bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from lrstudy.data.batches import MEMORY_FORMATS
from lrstudy.models.build import Model, head_module
from lrstudy.settings import Recipe
from lrstudy.training.keras_rmsprop import KerasRMSprop
from lrstudy.workload.numerics import PLAIN, NumericsSpec

_MAX_COMPILED_SHAPES = 10_000
"""How many batch sizes may be compiled. Beyond its own limit of 8 torch would go on uncompiled, with other numbers."""
_OPTIMIZERS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "rmsprop_keras": KerasRMSprop,
}


@dataclass
class State:
    """A model, its sections (names of parameters, input to head), and its optimizer, once one has been used.

    The optimizer has one parameter group per section; `kind` is its name, empty without one. `network` is what is called:
    the model itself or its compiled form, which holds the same tensors. `scaler` scales the loss under float16, so that
    small gradients do not underflow.
    """

    model: nn.Module
    sections: tuple[tuple[str, ...], ...]
    numerics_spec: NumericsSpec = PLAIN
    optimizer: torch.optim.Optimizer | None = field(init=False)
    kind: str = field(init=False)
    network: Any = field(init=False)
    scaler: torch.amp.GradScaler | None = field(init=False)

    def __post_init__(self) -> None:
        self.network = self.model
        if self.numerics_spec.compile:
            torch._dynamo.config.recompile_limit = _MAX_COMPILED_SHAPES
            self.network = torch.compile(self.model, dynamic=False)
        self._discard_optimizer()

    @staticmethod
    def of(model: Model, device: torch.device, numerics_spec: NumericsSpec = PLAIN) -> State:
        """The state before the first epoch."""
        layout = MEMORY_FORMATS[numerics_spec.memory_format]
        return State(model.module.to(device).to(memory_format=layout), model.sections, numerics_spec)

    def begin_again(self, module: nn.Module) -> None:
        """Return to the state before the first epoch, with the weights of `module`, keeping the compiled network."""
        self.model.load_state_dict(module.state_dict())
        self._discard_optimizer()

    @cached_property
    def head(self) -> nn.Module | None:
        """The module that is the last section; None if there is no such module."""
        return head_module(self.model, self.sections)

    def autocast(self) -> AbstractContextManager[object]:
        """Within it, forward passes compute with the study's precision."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.numerics_spec.precision)
        return nullcontext() if dtype is None else torch.autocast(self._device.type, dtype)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those that the parameters hold."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]

    def update(self, clip_norm: float | None) -> None:
        """Update the parameters from their gradients, clipped to a norm; skipped if a float16 gradient overflowed."""
        assert self.optimizer is not None
        if self.kind == "rmsprop":
            _add_missing_momenta(self.optimizer)
        if clip_norm is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), clip_norm)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def optimizer_for(self, recipe: Recipe) -> torch.optim.Optimizer:
        """The optimizer with the recipe's constants; a new one before the first epoch and where the recipe resets it.

        Learning rates and momentum are set for every update, by `set_rates`.
        """
        optimizer = self.optimizer
        if optimizer is None or recipe.reset_optimizer:
            optimizer = self._make_optimizer(recipe.optimizer)
        assert self.kind == recipe.optimizer, f"a state of {self.kind} cannot go on with {recipe.optimizer}"
        for group in optimizer.param_groups:
            group["weight_decay"] = recipe.weight_decay
            group |= {"nesterov": recipe.nesterov} if self.kind == "sgd" else {"eps": recipe.eps}
            group |= {} if recipe.alpha is None else {"alpha": recipe.alpha}
        return optimizer

    def capture(self) -> bytes:
        """All tensors of model and optimizer as safetensors; equal states give equal bytes."""
        return self.snapshot()()

    def snapshot(self) -> Callable[[], bytes]:
        """`capture` in two steps: the tensors are copied to the host now, and the result makes the bytes when it is called."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.optimizer is not None:
            for name, parameter in self.model.named_parameters():
                for key, value in self.optimizer.state.get(parameter, {}).items():
                    if isinstance(value, Tensor):
                        tensors[f"optimizer.{self.kind}.{key}.{name}"] = value
        if self.scaler is not None:
            scale = self.scaler.state_dict()
            tensors["scaler"] = torch.tensor([scale["scale"], scale["_growth_tracker"]], dtype=torch.float64)
        return partial(save, {name: _copied(tensor) for name, tensor in tensors.items()})

    def restore(self, data: bytes) -> None:
        """Become the state that `capture` returned.

        Raises ValueError if the bytes are those of another model, or no state at all; then this one holds neither its old
        state nor a new one, until it is restored or begins again.
        """
        try:
            self._restore(load(data))
        except (SafetensorError, RuntimeError, KeyError, TypeError, IndexError, ValueError, OverflowError) as error:
            raise ValueError(f"the stored state does not fit the model: {error}") from error

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        self.model.load_state_dict(weights, strict=True)
        self._discard_optimizer()
        if self.scaler is not None:
            scale, tracker = tensors["scaler"].tolist()
            self.scaler.load_state_dict(self.scaler.state_dict() | {"scale": scale, "_growth_tracker": int(tracker)})
        parameters = dict(self.model.named_parameters())
        for stored, tensor in tensors.items():
            if stored.startswith("optimizer."):
                _, kind, key, name = stored.split(".", 3)
                if key != "step" and tensor.shape != parameters[name].shape:
                    raise ValueError(f"{stored} has the shape {tuple(tensor.shape)}")
                optimizer = self.optimizer or self._make_optimizer(kind)
                optimizer.state[parameters[name]][key] = self._placed(tensor, key, parameters[name])

    def _placed(self, tensor: Tensor, key: str, parameter: Tensor) -> Tensor:
        """A stored tensor of an optimizer, on the device and in the memory format in which the optimizer keeps it."""
        if tensor.shape != parameter.shape or key == "step":
            # Unfused, Adam counts its steps on the CPU.
            return tensor.to(parameter.device) if self.numerics_spec.fused else tensor
        return torch.empty_like(parameter).copy_(tensor)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _discard_optimizer(self) -> None:
        """Have no optimizer and a new scaler."""
        self.optimizer, self.kind = None, ""
        self.scaler = torch.amp.GradScaler(self._device.type) if self.numerics_spec.precision == "fp16" else None

    def _make_optimizer(self, kind: str) -> torch.optim.Optimizer:
        parameters = dict(self.model.named_parameters())
        groups = [{"params": [parameters[name] for name in section]} for section in self.sections]
        options: dict[str, Any] = {"lr": 0.0} | ({} if kind in ("adam", "adamw") else {"momentum": 0.9})
        options |= {"fused": True} if self.numerics_spec.fused and not kind.startswith("rmsprop") else {}
        optimizer: torch.optim.Optimizer = _OPTIMIZERS[kind](groups, **options)
        if self.scaler is not None and kind == "sgd":
            # Fused, a first update that is skipped for an overflow would leave a momentum buffer that was never written.
            for parameter in parameters.values():
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self.optimizer, self.kind = optimizer, kind
        return optimizer


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _add_missing_momenta(optimizer: torch.optim.Optimizer) -> None:
    """Give parameters a momentum buffer that were first updated without momentum: torch's RMSprop makes one only then."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            if (held := optimizer.state.get(parameter)) and "momentum_buffer" not in held:
                held["momentum_buffer"] = torch.zeros_like(parameter)


def set_rates(group: dict[str, object], lr: float, momentum: float, recipe: Recipe) -> None:
    """Set the learning rate and momentum of one parameter group for the next update.

    Args:
        group: A parameter group of the optimizer; modified.
        lr: The learning rate, >= 0.
        momentum: The momentum in [0, 1); for Adam and AdamW their beta1.
        recipe: The epoch's recipe, which has a `beta2` if the optimizer is Adam or AdamW.
    """
    group["lr"] = lr
    if recipe.beta2 is not None:
        group["betas"] = (momentum, recipe.beta2)
    else:
        group["momentum"] = momentum
