"""One epoch of training, and evaluation.

`train_epoch` receives state, settings, data and generators, and nothing else; what it computes is
determined by them. No host-device synchronisation happens per update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lrstudy.data.augment import PerExample, Transform, compose
from lrstudy.data.batches import Augmentation, Part
from lrstudy.errors import Fault, InputError
from lrstudy.settings import Recipe, Settings
from lrstudy.tasks import metrics as task_metrics
from lrstudy.tasks.kinds import Kind
from lrstudy.training.ghost_norm import chunks, ghost_norm
from lrstudy.training.randomness import generator, seed_for
from lrstudy.training.state import State, set_rates

TrainStep = Callable[[nn.Module, Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]], Tensor]
"""A user's train step: from model, normalised images, labels and the task's mean loss to the loss to be minimised."""


@dataclass(frozen=True)
class Own:
    """A user's own parts of an epoch."""

    augment: Transform | None = None
    train_step: TrainStep | None = None


def batch_bounds(num_examples: int, batch_size: int, num_updates: int, tail: str = "keep") -> list[tuple[int, int]]:
    """First and one-past-last position of each update's examples; the last takes what is left, unless it is dropped."""
    starts = [update * batch_size for update in range(num_updates)]
    end = num_updates * batch_size if tail == "drop" else num_examples
    return list(zip(starts, [*starts[1:], end], strict=True))


def train_epoch(state: State, settings: Settings, part: Part, seed: int, epoch: int, own: Own | None = None) -> float:
    """Train one epoch; modifies `state`. Returns the mean training loss per example (NaN or inf if it diverged).

    The order of examples, their augmentation and dropout are drawn from (seed, purpose, epoch); with a micro batch
    dropout is drawn micro batch by micro batch. Raises ValueError if the settings do not fit the data or the model.
    """
    recipe, device, own = settings.recipe, part.device, own or Own()
    bounds = batch_bounds(len(part), settings.batch_size, settings.num_updates, recipe.tail)
    if settings.num_sections != len(state.sections) or bounds[-1][0] >= len(part) or bounds[-1][1] > len(part):
        raise ValueError(
            f"settings of {settings.num_updates} updates x {settings.num_sections} sections with batch "
            f"{settings.batch_size} do not fit {len(part)} examples and {len(state.sections)} sections"
        )
    order = torch.randperm(len(part), generator=generator(seed, "order", epoch))
    augmentation = _augmentation(recipe, part, seed, epoch, own)
    rates, momenta = settings.lr.tolist(), settings.momentum.tolist()
    state.network.train()
    optimizer = state.optimizer_for(recipe)
    total = torch.zeros((), device=device)
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        ghost_norm(state.model, recipe.norm_batch),
    ):
        torch.manual_seed(seed_for(seed, "dropout", epoch))
        for update, (chosen, images, labels) in enumerate(part.batches(order, bounds)):
            for group, lr, momentum in zip(optimizer.param_groups, rates[update], momenta[update], strict=True):
                set_rates(group, lr, momentum, recipe)
            optimizer.zero_grad(set_to_none=True)
            if augmentation is not None:
                images = augmentation.apply(images, chosen)
            for loss, weight in losses(state, part, images, labels, recipe, own):
                state.backward(loss)
                total += loss.detach() * weight
            state.update(recipe.clip_norm)
    return float(total) / bounds[-1][1]


def _augmentation(recipe: Recipe, part: Part, seed: int, epoch: int, own: Own) -> Augmentation | PerExample | None:
    draws = generator(seed, "augment", epoch)
    if own.augment is not None:
        return PerExample.draw(own.augment, len(part), draws, recipe.augment)
    if recipe.augment.startswith("["):
        return PerExample.draw(compose(recipe.augment), len(part), draws, "the list of transforms")
    return Augmentation.draw(recipe.augment, part, draws)


def losses(
    state: State, part: Part, images: Tensor, labels: Tensor, recipe: Recipe, own: Own
) -> Iterator[tuple[Tensor, int]]:
    """The mean loss of a batch and its number of examples; or, with micro batches, each one's share of that mean.

    The shares' gradients sum to that of the batch: a piece counts by its examples, or their weights. (A plain mean of
    means is wrong where the pieces differ in size.)
    """
    weights = recipe.class_weights
    # Ghost BatchNorm changes what its layers do, which compiled code would not notice.
    model = state.network if recipe.norm_batch is None else state.model

    def mean(images: Tensor, labels: Tensor) -> Tensor:
        with state.autocast():
            if own.train_step is not None:
                return _stepped(own.train_step, model, part.normalised(images), labels, recipe)
            return task_metrics.loss(model(part.normalised(images)), labels, weights)

    if recipe.micro_batch is None or len(labels) <= recipe.micro_batch:
        yield mean(images, labels), len(labels)
        return
    sizes = chunks(len(labels), recipe.micro_batch)
    for piece, of_piece in zip(torch.split(images, sizes), torch.split(labels, sizes), strict=True):
        loss = mean(piece, of_piece)
        yield (
            loss * torch.as_tensor(task_metrics.share_of_mean(of_piece, labels, weights), dtype=loss.dtype),
            len(labels),
        )


def _stepped(step: TrainStep, model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """What a user's train step gives. Raises InputError unless that is a loss."""
    loss = step(model, images, labels, lambda logits, of: task_metrics.loss(logits, of, recipe.class_weights))
    if not isinstance(loss, Tensor) or loss.shape != () or not loss.requires_grad:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise InputError(
            Fault("train_step", expected="the mean loss, a tensor without dimensions that has a gradient", got=got)
        )
    return loss


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and metrics over a part; `logits` (N, classes) float32 on the CPU if asked for."""

    loss: float
    metrics: dict[str, float]
    logits: Tensor | None = None


@torch.no_grad()
def evaluate(state: State, part: Part, kind: Kind, keep_logits: bool = False) -> Evaluation:
    """Evaluate in evaluation mode; leaves the model's parameters, buffers and all generators untouched."""
    was_training, batch_size = state.model.training, state.numerics_spec.eval_batch
    state.network.eval()
    total = torch.zeros((), dtype=torch.float64, device=part.device)
    logits = torch.empty(0, device=part.device)
    bounds = [(start, min(start + batch_size, len(part))) for start in range(0, len(part), batch_size)]
    for chosen, images, labels in part.batches(None, bounds):
        with state.autocast():
            found = task_metrics.precise(state.network(part.normalised(images)))
        total += task_metrics.loss(found, labels, None).double() * len(labels)
        if len(logits) == 0:
            # One tensor for all: small ones, kept between the large ones of every batch, let the heap grow by 1 GB here.
            logits = found.new_empty((len(part), *found.shape[1:]))
        logits[chosen] = found
    state.network.train(was_training)
    loss = float(total) / len(part)
    metrics = task_metrics.metrics(logits, part.labels, kind) if torch.isfinite(logits).all() else {}
    return Evaluation(loss, metrics, logits.cpu() if keep_logits else None)
