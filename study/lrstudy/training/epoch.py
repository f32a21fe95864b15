"""One epoch of training, and evaluation.

`train_epoch` receives state, settings, data and generators, and nothing else; what it computes is
determined by them. No host-device synchronisation happens per update.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lrstudy import tasks
from lrstudy.data.batches import Augmentation, Part
from lrstudy.settings import Settings
from lrstudy.training.randomness import generator, seed_for
from lrstudy.training.state import State


def batch_bounds(num_examples: int, batch_size: int, num_updates: int) -> list[tuple[int, int]]:
    """First and one-past-last position of each update's examples; the last takes what is left."""
    starts = [update * batch_size for update in range(num_updates)]
    return list(zip(starts, [*starts[1:], num_examples], strict=True))


def train_epoch(state: State, settings: Settings, part: Part, seed: int, epoch: int) -> float:
    """Train one epoch; modifies `state`. Returns the mean training loss per example (NaN or inf if it diverged).

    The order of examples, their augmentation and dropout are drawn from (seed, purpose, epoch).
    Raises ValueError if the settings do not fit the data or the model.
    """
    bounds = batch_bounds(len(part), settings.batch_size, settings.num_updates)
    if settings.num_sections != len(state.optimizer.param_groups) or bounds[-1][0] >= len(part):
        raise ValueError(
            f"settings of {settings.num_updates} updates x {settings.num_sections} sections with batch "
            f"{settings.batch_size} do not fit {len(part)} examples and {len(state.optimizer.param_groups)} sections"
        )
    recipe, device = settings.recipe, part.images.device
    if recipe.reset_optimizer:
        state.reset_optimizer()
    order = torch.randperm(len(part), generator=generator(seed, "order", epoch)).to(device)
    augmentation = Augmentation.draw(recipe.augment, part, generator(seed, "augment", epoch))
    rates, momenta = settings.lr.tolist(), settings.momentum.tolist()
    model, optimizer = state.model.train(), state.optimizer
    for group in optimizer.param_groups:
        group["weight_decay"], group["nesterov"] = recipe.weight_decay, recipe.nesterov
    total = torch.zeros((), device=device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_for(seed, "dropout", epoch))
        for update, (start, stop) in enumerate(bounds):
            chosen = order[start:stop]
            images = part.images[chosen]
            if augmentation is not None:
                images = augmentation.apply(images, chosen)
            for group, lr, momentum in zip(optimizer.param_groups, rates[update], momenta[update], strict=True):
                group["lr"], group["momentum"] = lr, momentum
            optimizer.zero_grad(set_to_none=True)
            loss = tasks.loss(model(part.normalised(images)), part.labels[chosen], recipe.class_weights)
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
            total += loss.detach() * (stop - start)
    return float(total) / len(part)


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and metrics over a part; `logits` (N, classes) float32 on the CPU if asked for."""

    loss: float
    metrics: dict[str, float]
    logits: Tensor | None = None


@torch.no_grad()
def evaluate(model: nn.Module, part: Part, batch_size: int, keep_logits: bool = False) -> Evaluation:
    """Evaluate in evaluation mode; leaves the model's parameters, buffers and all generators untouched."""
    was_training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=part.images.device)
    counts: Tensor | None = None
    kept = []
    for start in range(0, len(part), batch_size):
        images, labels = part.images[start : start + batch_size], part.labels[start : start + batch_size]
        logits = model(part.normalised(images))
        total += tasks.loss(logits, labels, None).double() * len(labels)
        table = tasks.confusion(logits, labels)
        counts = table if counts is None else counts + table
        if keep_logits:
            kept.append(logits.float().cpu())
    model.train(was_training)
    assert counts is not None
    return Evaluation(float(total) / len(part), tasks.metrics(counts), torch.cat(kept) if keep_logits else None)
