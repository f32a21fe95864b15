"""State: a model and its optimizer after some epochs, as an object and as bytes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from lrstudy.models import Model

_BUFFER = "momentum_buffer"


@dataclass
class State:
    """A model with one optimizer parameter group per section, ordered from input to head."""

    model: nn.Module
    optimizer: torch.optim.SGD
    sections: tuple[tuple[str, ...], ...]

    @staticmethod
    def of(model: Model, device: torch.device) -> State:
        """The state before the first epoch. Rates are set by every update's settings."""
        module = model.module.to(device)
        return State(module, _optimizer(module, model.sections), model.sections)

    def reset_optimizer(self) -> None:
        """Forget the optimizer's buffers, as if it had just been made."""
        self.optimizer = _optimizer(self.model, self.sections)

    def capture(self) -> bytes:
        """All tensors of model and optimizer as safetensors; the same state gives the same bytes."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            buffer = self.optimizer.state.get(parameter, {}).get(_BUFFER)
            if buffer is not None:
                tensors[f"optimizer.{_BUFFER}.{name}"] = buffer
        return save({name: tensor.detach().contiguous().cpu().clone() for name, tensor in tensors.items()})

    def restore(self, data: bytes) -> None:
        """Become the state that `capture` gave. Raises ValueError if the bytes are of another model."""
        tensors = load(data)
        model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        try:
            self.model.load_state_dict(model, strict=True)
        except RuntimeError as error:
            raise ValueError(f"the stored state does not fit the model: {error}") from error
        self.reset_optimizer()
        for name, parameter in self.model.named_parameters():
            buffer: Tensor | None = tensors.get(f"optimizer.{_BUFFER}.{name}")
            if buffer is not None:
                self.optimizer.state[parameter] = {_BUFFER: buffer.to(parameter.device)}


def _optimizer(model: nn.Module, sections: tuple[tuple[str, ...], ...]) -> torch.optim.SGD:
    parameters = dict(model.named_parameters())
    groups = [{"params": [parameters[name] for name in section]} for section in sections]
    return torch.optim.SGD(groups, lr=0.0, momentum=0.9)
