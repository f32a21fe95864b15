"""Growing batches instead of falling rates.

Smith, Kindermans, Ying and Le, "Don't decay the learning rate, increase the batch size" (arXiv 1711.00489):
the noise of SGD is about lr * N / (B * (1 - momentum)) while B << N, so that multiplying B by f has the effect of
dividing lr by f, with fewer updates per epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from lrstudy.annotations import Rule
from lrstudy.policies.base import Policy, require_absent
from lrstudy.policies.durations import Duration, count_passed, to_whole_epoch
from lrstudy.policies.families.plateau import PlateauPolicy
from lrstudy.policies.parameters import Count, Factor, PositiveDuration, Ratio, require
from lrstudy.policies.run import History, Run
from lrstudy.settings import Settings

CapMode = Literal["residual", "switch", "keep"]


def grown(lr: float, batch_size: int, factor: int, limit: int, cap_mode: CapMode = "residual") -> tuple[float, int]:
    """Rate and batch size after the noise has been lowered by `factor`, or as far as `cap_mode` lets it be.

    Args:
        lr: The rate before.
        batch_size: The batch size before.
        factor: What lr / B is divided by.
        limit: The largest batch size. A batch above it stays as it is.
        cap_mode: What happens if the whole factor does not fit below `limit`. ``residual`` grows the batch up to the
            limit and applies the rest to the rate; ``switch`` keeps the batch and divides the rate; ``keep`` grows the
            batch up to the limit and leaves the rate alone, as Yacalis and Le do, so that the noise stays higher.

    Returns:
        The rate, unrounded, and the batch size; lr / B is lower by exactly the factor, except with ``keep``.
    """
    larger = factor * batch_size
    if larger > limit:
        larger = batch_size if cap_mode == "switch" else max(batch_size, limit)
    return lr if cap_mode == "keep" else lr * (larger / (batch_size * factor)), larger


@dataclass(frozen=True, kw_only=True)
class GrowingPolicy(Policy):
    """A policy whose batch grows, but never beyond the training set.

    Attributes:
        factor: What the batch is multiplied by each time.
        cap: The largest batch, in examples; by default only the training set limits it.
        cap_mode: What happens when the batch cannot grow by the whole factor (see `grown`).
        initial_factor: What the first batch is multiplied by; the first rate is scaled with it.
        scaling: How: by the same factor (``linear``, the default; Goyal et al. 2017, arXiv 1706.02677) or by its square
            root (``sqrt``, which Malladi et al. 2022, arXiv 2205.10287, derive for Adam and RMSprop).
    """

    factor: Factor = 2
    cap: Count | None = None
    cap_mode: CapMode = "residual"
    initial_factor: Count = 1
    scaling: Literal["linear", "sqrt"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.initial_factor == 1:
            require_absent(self, ["scaling"], "an initial_factor above 1")

    def initial_batch(self, run: Run) -> int:
        """The batch size at the start. Raises InputError if `initial_factor` makes it exceed the training set."""
        first = self.batch_size * self.initial_factor
        fits = self.initial_factor == 1 or first <= run.num_examples
        words = f"at most {run.num_examples // self.batch_size}: a first batch within the {run.num_examples} training examples"
        require(fits, "initial_factor", words, self.initial_factor)
        return min(first, run.num_examples)

    def initial_rate(self) -> float:
        """The rate at the start of the run."""
        return self.lr * (math.sqrt(self.initial_factor) if self.scaling == "sqrt" else self.initial_factor)

    def limit(self, run: Run) -> int:
        """The largest batch size."""
        return min(run.num_examples, self.cap or run.num_examples)

    def after(self, num_times: int, run: Run) -> tuple[float, int]:
        """The unrounded rate and the batch size after the noise has been lowered `num_times` times."""
        lr, batch_size = self.initial_rate(), self.initial_batch(run)
        for _ in range(num_times):
            lr, batch_size = grown(lr, batch_size, self.factor, self.limit(run), self.cap_mode)
        return lr, batch_size


@dataclass(frozen=True, kw_only=True)
class BatchIncrease(GrowingPolicy):
    """At each milestone the noise is lowered by `factor`: by a larger batch while it may grow, then as `cap_mode` says.

    The batch never exceeds `cap` examples or the training set; the paper caps it at about a tenth of the training set.
    `factor` is a whole number, so that every batch is an exact multiple. Milestones act as in step decay, and step
    decay with gamma = 1 / factor is the counterpart of this policy.

    Attributes:
        milestones: When the noise is lowered, rounded to whole epochs.
    """

    name = "batch_increase"

    milestones: tuple[Duration, ...] = ("50%", "75%")

    def settings(self, epoch: int, history: History, run: Run) -> Settings:
        """Settings of epoch `epoch`; the history is not used."""
        lr, batch_size = self.rate_and_batch(epoch, run)
        return run.settings(lr, self.momentum, batch_size)

    def rate_and_batch(self, epoch: int, run: Run) -> tuple[float, int]:
        """The unrounded rate and the batch size of an epoch."""
        return self.after(count_passed(self.milestones, epoch, run.num_epochs, self.initial_updates(run)), run)


@dataclass(frozen=True, kw_only=True)
class BatchHybrid(BatchIncrease):
    """The first milestones grow the batch, the later ones divide the rate (Smith et al. 2017, section 5.1).

    Attributes:
        batch_steps: How many milestones grow the batch.
    """

    name = "batch_hybrid"

    batch_steps: Count = 1

    def rate_and_batch(self, epoch: int, run: Run) -> tuple[float, int]:
        """The unrounded rate and the batch size of an epoch."""
        passed = count_passed(self.milestones, epoch, run.num_epochs, self.initial_updates(run))
        lr, batch_size = self.after(min(passed, self.batch_steps), run)
        return lr / float(self.factor) ** max(0, passed - self.batch_steps), batch_size


@dataclass(frozen=True, kw_only=True)
class BatchPlateau(GrowingPolicy, PlateauPolicy):
    """The noise is lowered by `factor` whenever the plateau rule triggers.

    `semantics` ``keras_restart`` is the procedure of Yacalis and Le's study: an EarlyStopping after which fit is called
    again with a doubled batch, so that the best value is forgotten at each stop. For a fair comparison with `plateau`,
    use the same semantics, metric and patience in both, and let both run to the end of the budget.
    """

    name = "batch_plateau"

    def settings(self, epoch: int, history: History, run: Run) -> Settings:
        """Settings of epoch `epoch`, given the metrics of the epochs before it."""
        lr, batch_size = self.after(self.num_triggers(epoch, history), run)
        return run.settings(lr, self.momentum, batch_size)


@dataclass(frozen=True, kw_only=True)
class AdaBatch(Policy):
    """Periodically the batch is multiplied by `resize` and the rate by `gamma`.

    Devarakonda, Naumov and Garland 2017 (arXiv 1712.02029), as in NVlabs/AdaBatch, whose code is purely periodic in
    spite of its help text. Each step multiplies lr / B by gamma / resize, so `gamma` 0.75 with `resize` 2 matches a
    fixed batch with gamma 0.375. Their code drops the last, partial batch (`tail: drop`).

    Attributes:
        every: The period, rounded to whole epochs.
        resize: What the batch is multiplied by.
        gamma: What the rate is multiplied by.
        cap: The largest batch, in examples. If the batch would exceed it or the training set, it stays as it is and the
            rate is multiplied by gamma / resize.
        baseline_batch: If given, the rate is scaled from lr up to lr * batch_size / baseline_batch during the warm-up.
        warmup: How long that takes, rounded to whole epochs; 5 by default. The rate rises in equal steps, from lr in the
            first epoch to the full rate in the last.
    """

    name = "adabatch"

    every: PositiveDuration = "20%"
    resize: Factor = 2
    gamma: Ratio = 0.75
    cap: Count | None = None
    baseline_batch: Count | None = None
    warmup: Annotated[Duration, Rule("a duration, like 5 or '5%'", lambda value: True)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline_batch is None:
            require_absent(self, ["warmup"], "a baseline_batch")

    def settings(self, epoch: int, history: History, run: Run) -> Settings:
        """Settings of epoch `epoch`; the history is not used."""
        every = max(1, to_whole_epoch(self.every, run.num_epochs, self.initial_updates(run)))
        lr, batch_size = self.lr * self._scale(epoch, run), self.initial_batch(run)
        for _ in range(epoch // every):
            fits = batch_size * self.resize <= min(run.num_examples, self.cap or run.num_examples)
            batch_size, lr = (
                (batch_size * self.resize, lr * self.gamma) if fits else (batch_size, lr * self.gamma / self.resize)
            )
        return run.settings(lr, self.momentum, batch_size)

    def _scale(self, epoch: int, run: Run) -> float:
        if self.baseline_batch is None:
            return 1.0
        target = self.batch_size / self.baseline_batch
        warmup = to_whole_epoch(5 if self.warmup is None else self.warmup, run.num_epochs, self.initial_updates(run))
        return 1 + (target - 1) * min(1.0, epoch / (warmup - 1) if warmup > 1 else 1.0)
