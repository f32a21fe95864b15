"""RMSprop as Keras computes it, which torch's is not.

Keras 3 (keras/src/optimizers/rmsprop.py, keras-team/keras at 13de96a), with the gradient g and v, m beginning at 0:

    v <- rho * v + (1 - rho) * g^2
    m <- momentum * m + lr * g / sqrt(v + epsilon)
    w <- w - m

torch 2.14 divides by sqrt(v) + eps, and multiplies by the rate after the momentum, so that a change of the rate acts on
what the momentum has gathered before; here it does not. Keras' `weight_decay`, which is decoupled, is not taken: as with
all optimizers here but AdamW it is an L2 penalty, like Keras' `regularizers.L2(weight_decay / 2)`. Not centered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class KerasRMSprop(torch.optim.Optimizer):
    """RMSprop with epsilon under the root, whose groups have the keys of torch's: `alpha` is rho, `eps` is epsilon."""

    def __init__(self, params: Iterable[dict[str, Any]], lr: float = 1e-3, momentum: float = 0.0) -> None:
        defaults = {"lr": lr, "momentum": momentum, "alpha": 0.9, "eps": 1e-7, "weight_decay": 0.0}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient; gradients stay as they are."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update some parameters of a group, in as few kernels as the device allows."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        squares = self._held("square_avg", parameters)
        torch._foreach_mul_(squares, group["alpha"])
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - group["alpha"])
        roots = torch._foreach_sqrt(torch._foreach_add(squares, group["eps"]))
        steps = list(torch._foreach_div(torch._foreach_mul(gradients, group["lr"]), roots))
        if group["momentum"] or "momentum_buffer" in self.state[parameters[0]]:
            gathered = self._held("momentum_buffer", parameters)
            torch._foreach_mul_(gathered, group["momentum"])
            torch._foreach_add_(gathered, steps)
            steps = gathered
        torch._foreach_sub_(parameters, steps)

    def _held(self, key: str, parameters: list[Tensor]) -> list[Tensor]:
        """What the state holds of each parameter under `key`; zeros to begin with."""
        for parameter in parameters:
            if key not in self.state[parameter]:
                self.state[parameter][key] = torch.zeros_like(parameter)
        return [self.state[parameter][key] for parameter in parameters]
