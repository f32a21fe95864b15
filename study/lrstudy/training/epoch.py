"""One epoch of training, and evaluation.

`train_epoch` receives state, settings, data and a seed, and nothing else; they determine what it computes. No update
makes the host wait for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrstudy.data.augment import PerExample, Transform, compose
from lrstudy.data.batches import Augmentation, Part
from lrstudy.errors import Fault, InputError
from lrstudy.settings import Recipe, Settings
from lrstudy.tasks import metrics as task_metrics
from lrstudy.tasks.kinds import Kind
from lrstudy.training.features import FeaturePart
from lrstudy.training.ghost_norm import chunks, ghost_norm
from lrstudy.training.modes import training
from lrstudy.training.randomness import generator, seed_for
from lrstudy.training.state import State, set_rates
from lrstudy.training.tally import Tally

TrainStep = Callable[[nn.Module, Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]], Tensor]
"""A user's train step: maps the model, normalised images, labels and the task's mean loss to the loss to minimise."""


@dataclass(frozen=True)
class UserFunctions:
    """The user's own functions that take part in an epoch; None where the built-in behaviour applies."""

    augment: Transform | None = None
    train_step: TrainStep | None = None


def batch_bounds(num_examples: int, batch_size: int, num_updates: int, tail: str = "keep") -> list[tuple[int, int]]:
    """The positions in an epoch's order of the examples that each update trains on.

    Args:
        num_examples: Size of the training part.
        batch_size: Examples of every update but the last.
        num_updates: Updates in the epoch, at least 1.
        tail: ``keep``: the last update takes all remaining examples. ``drop``: the remaining examples are left out.

    Returns:
        One (first, one past the last) for each update.
    """
    starts = [update * batch_size for update in range(num_updates)]
    end = num_updates * batch_size if tail == "drop" else num_examples
    return list(zip(starts, [*starts[1:], end], strict=True))


def train_epoch(
    state: State,
    settings: Settings,
    part: Part,
    seed: int,
    epoch: int,
    user_functions: UserFunctions | None = None,
    tally: Tally | None = None,
    watch: Callable[[Tensor], bool] | None = None,
) -> float:
    """Train one epoch.

    The order of the examples, their augmentation and dropout are drawn from (seed, purpose, epoch). With micro
    batches, dropout is drawn for one micro batch after the other.

    Args:
        state: The model and optimizer to go on from; modified.
        settings: The epoch's numbers; `lr` and `momentum` hold one row per update and one column per section.
        part: The training data, on the device of the model.
        seed: The trial's seed, >= 0.
        epoch: Number of epochs trained before, >= 0.
        user_functions: The user's own augmentation and train step, if the study has any.
        tally: Counts what is predicted right; a user's train step keeps its logits for itself, and nothing is counted.
        watch: Is told the mean loss of every batch, once its update is made; if it says True, the epoch ends there, and
            its mean loss means nothing.

    Returns:
        The mean training loss per example; NaN or inf if training diverged.

    Raises:
        ValueError: If the settings do not fit the data or the model.
        InputError: If the user's augmentation or train step does not return what it should.
    """
    recipe, device, user_functions = settings.recipe, part.device, user_functions or UserFunctions()
    bounds = batch_bounds(len(part), settings.batch_size, settings.num_updates, recipe.tail)
    _require_fit(settings, bounds, len(part), len(state.sections))
    order = torch.randperm(len(part), generator=generator(seed, "order", epoch))
    augmentation = _augmentation(recipe, part, seed, epoch, user_functions)
    rates, momenta = settings.lr.tolist(), settings.momentum.tolist()
    optimizer = state.optimizer_for(recipe)
    total = torch.zeros((), device=device)
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        ghost_norm(state.model, recipe.norm_batch),
        training(state, recipe),
    ):
        torch.manual_seed(seed_for(seed, "dropout", epoch))
        for update, (chosen, images, labels) in enumerate(part.batches(order, bounds)):
            for group, lr, momentum in zip(optimizer.param_groups, rates[update], momenta[update], strict=True):
                set_rates(group, lr, momentum, recipe)
            optimizer.zero_grad(set_to_none=True)
            if augmentation is not None:
                images = augmentation.apply(images, chosen)
            of_batch = torch.zeros((), device=device)
            for loss, num_examples in losses(state, part, images, labels, recipe, user_functions, tally):
                state.backward(loss)
                total += loss.detach() * num_examples
                if watch is not None:
                    of_batch += loss.detach()
            state.update(recipe.clip_norm)
            if watch is not None and watch(of_batch):
                break
    return float(total) / bounds[-1][1]


def _network(state: State, part: Part) -> Any:
    """What maps the examples of a part to logits: the network, or its head alone, for features."""
    return state.head if isinstance(part, FeaturePart) else state.network


def _require_fit(settings: Settings, bounds: list[tuple[int, int]], num_examples: int, num_sections: int) -> None:
    """Raise ValueError if an update has no examples, or the settings are for another number of sections."""
    start, stop = bounds[-1]
    if settings.num_sections != num_sections or start >= num_examples or stop > num_examples:
        raise ValueError(
            f"settings of {settings.num_updates} updates x {settings.num_sections} sections with batch "
            f"{settings.batch_size} do not fit {num_examples} examples and {num_sections} sections"
        )


def _augmentation(
    recipe: Recipe, part: Part, seed: int, epoch: int, user_functions: UserFunctions
) -> Augmentation | PerExample | None:
    draws = generator(seed, "augment", epoch)
    if recipe.augment == "none":
        return None
    if user_functions.augment is not None:
        return PerExample.draw(user_functions.augment, len(part), draws, recipe.augment)
    if recipe.augment.startswith("["):
        return PerExample.draw(compose(recipe.augment), len(part), draws, "the list of transforms")
    return Augmentation.draw(recipe.augment, part, draws)


def losses(
    state: State,
    part: Part,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    user_functions: UserFunctions,
    tally: Tally | None = None,
) -> Iterator[tuple[Tensor, int]]:
    """The mean loss of a batch, in one piece or micro batch by micro batch; each is to be followed by `backward`.

    The loss of a micro batch is multiplied by its weight in the mean over the batch, which is its part of the
    examples or, with class weights, of their weights. So the gradients add up to that of the batch. (The plain mean
    of the micro batches' means is wrong where they differ in size.)

    Args:
        state: The model, in training mode; its running statistics are modified.
        part: The training data, which knows how to normalise images.
        images: uint8 (batch, channels, height, width), augmented but not yet normalised.
        labels: int64 (batch,), or 0 and 1 of shape (batch, classes).
        recipe: What the settings say of loss, micro batches and BatchNorm.
        user_functions: The user's train step, if the study has one.
        tally: Counts what is predicted right, as in `train_epoch`.

    Yields:
        A loss with its gradient, and the number of examples in the batch.
    """
    # Ghost BatchNorm changes what its layers do, which compiled code would not notice.
    model = _network(state, part) if recipe.norm_batch is None else state.model

    def mean_loss(images: Tensor, labels: Tensor) -> Tensor:
        with state.autocast():
            if user_functions.train_step is not None:
                return _loss_of_step(user_functions.train_step, model, part.normalised(images), labels, recipe)
            logits = model(part.normalised(images))
            if tally is not None:
                tally.add(logits, labels)
            return task_metrics.loss(logits, labels, recipe.class_weights)

    if recipe.micro_batch is None or len(labels) <= recipe.micro_batch:
        yield mean_loss(images, labels), len(labels)
        return
    sizes = chunks(len(labels), recipe.micro_batch)
    for piece, piece_labels in zip(torch.split(images, sizes), torch.split(labels, sizes), strict=True):
        loss = mean_loss(piece, piece_labels)
        weight = task_metrics.weight_in_mean(piece_labels, labels, recipe.class_weights)
        yield loss * torch.as_tensor(weight, dtype=loss.dtype), len(labels)


def _loss_of_step(step: TrainStep, model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """The loss that a user's train step returns. Raises InputError unless it is a scalar tensor with a gradient."""
    loss = step(model, images, labels, lambda logits, of: task_metrics.loss(logits, of, recipe.class_weights))
    if not isinstance(loss, Tensor) or loss.shape != () or not loss.requires_grad:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise InputError(
            Fault("train_step", expected="the mean loss, a tensor without dimensions that has a gradient", got=got)
        )
    return loss


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and metrics over a part; `logits` (N, classes) float32 on the CPU if they were asked for."""

    loss: float
    metrics: dict[str, float]
    logits: Tensor | None = None


@torch.no_grad()
def evaluate(state: State, part: Part, kind: Kind, keep_logits: bool = False) -> Evaluation:
    """Evaluate a model in evaluation mode; parameters, buffers and all generators stay as they were.

    Args:
        state: The model to evaluate, in batches of its `numerics_spec.eval_batch` examples.
        part: The data to evaluate on, at least one example.
        kind: The kind of task, which decides the metrics.
        keep_logits: Whether to return the logits too.

    Returns:
        The mean loss per example, without class weights, and the metrics; none of these if a logit is not finite.
    """
    was_training, batch_size, network = state.model.training, state.numerics_spec.eval_batch, _network(state, part)
    state.network.eval()
    total = torch.zeros((), dtype=torch.float64, device=part.device)
    logits = torch.empty(0, device=part.device)
    bounds = [(start, min(start + batch_size, len(part))) for start in range(0, len(part), batch_size)]
    for chosen, images, labels in part.batches(None, bounds):
        with state.autocast():
            batch_logits = task_metrics.precise(network(part.normalised(images)))
        total += task_metrics.loss(batch_logits, labels, None).double() * len(labels)
        if len(logits) == 0:
            # One tensor for all: small ones, kept between the large ones of every batch, let the heap grow by 1 GB here.
            logits = batch_logits.new_empty((len(part), *batch_logits.shape[1:]))
        logits[chosen] = batch_logits
    state.network.train(was_training)
    loss = float(total) / len(part)
    metrics = task_metrics.metrics(logits, part.labels, kind) if torch.isfinite(logits).all() else {}
    return Evaluation(loss, metrics, logits.cpu() if keep_logits else None)
