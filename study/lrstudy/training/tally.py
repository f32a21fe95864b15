"""How much of the training part was predicted right during an epoch, counted from the logits of training itself."""

from __future__ import annotations

import torch
from torch import Tensor


class Tally:
    """Counts right predictions batch by batch, on the device; counting never makes the host wait for it.

    The predictions are those of training: of augmented images, with dropout, by weights that change with every update. They
    cost no forward pass, and say something else than an evaluation of the weights after the epoch.
    """

    def __init__(self, device: torch.device) -> None:
        self._answers = torch.zeros((), dtype=torch.int64, device=device)
        self._examples = torch.zeros((), dtype=torch.int64, device=device)
        self._num_answers = self._num_examples = 0
        self._has_several = False

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch; logits (batch, classes), labels int64 (batch,) or 0 and 1 (batch, classes)."""
        logits, self._has_several = logits.detach(), labels.ndim == 2
        right = (logits > 0) == labels.bool() if self._has_several else logits.argmax(1) == labels
        self._answers += right.sum()
        self._num_answers += right.numel()
        self._num_examples += len(right)
        if self._has_several:
            self._examples += right.all(1).sum()

    def metrics(self) -> dict[str, float]:
        """`accuracy` and, where an example may have several labels, `exact_match`, as tasks/metrics.py defines them.

        Empty if nothing was counted. Waits for the device.
        """
        if not self._num_examples:
            return {}
        found = {"accuracy": int(self._answers) / self._num_answers}
        return found | ({"exact_match": int(self._examples) / self._num_examples} if self._has_several else {})
