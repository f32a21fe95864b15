"""Growing batches instead of falling rates.

Smith, Kindermans, Ying and Le, "Don't decay the learning rate, increase the batch size" (arXiv 1711.00489):
the noise of SGD is about lr * N / (B * (1 - momentum)) while B << N, so that multiplying B by f does what
dividing lr by f does, with fewer updates per epoch.
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

CapMode = Literal["residual", "switch"]


def grown(lr: float, batch_size: int, factor: int, limit: int, cap_mode: CapMode = "residual") -> tuple[float, int]:
    """Rate and batch after the noise has fallen by `factor`: through the batch while it may grow, then the rate.

    Where the whole factor does not fit below `limit`, ``residual`` grows the batch up to it and gives the rate the
    rest, so that lr / B falls by exactly the factor; ``switch`` keeps the batch and divides the rate. A batch that
    is above the limit stays.
    """
    larger = factor * batch_size
    if larger > limit:
        larger = batch_size if cap_mode == "switch" else max(batch_size, limit)
    return lr * (larger / (batch_size * factor)), larger


@dataclass(frozen=True, kw_only=True)
class GrowingPolicy(Policy):
    """A policy whose batch grows by `factor` up to `cap` examples, and never beyond the training set.

    `initial_factor` starts with a batch so many times as large, and a rate larger by the same factor (``linear``,
    Goyal et al. 2017, arXiv 1706.02677) or its square root (``sqrt``, which Malladi et al. 2022, arXiv 2205.10287,
    derive for Adam and RMSprop).
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
        """The batch size that the run starts with. Raises InputError if a larger first one does not fit the data."""
        first = self.batch_size * self.initial_factor
        fits = self.initial_factor == 1 or first <= run.num_examples
        words = f"at most {run.num_examples // self.batch_size}: a first batch within the {run.num_examples} training examples"
        require(fits, "initial_factor", words, self.initial_factor)
        return min(first, run.num_examples)

    def initial_rate(self) -> float:
        """The rate that the run starts with."""
        return self.lr * (math.sqrt(self.initial_factor) if self.scaling == "sqrt" else self.initial_factor)

    def limit(self, run: Run) -> int:
        """The largest batch."""
        return min(run.num_examples, self.cap or run.num_examples)

    def after(self, num_times: int, run: Run) -> tuple[float, int]:
        """The unrounded rate and the batch size after the noise has fallen so many times."""
        lr, batch_size = self.initial_rate(), self.initial_batch(run)
        for _ in range(num_times):
            lr, batch_size = grown(lr, batch_size, self.factor, self.limit(run), self.cap_mode)
        return lr, batch_size


@dataclass(frozen=True, kw_only=True)
class BatchIncrease(GrowingPolicy):
    """At each milestone the noise falls by `factor`: through the batch while it may grow, then the rate.

    The batch never grows beyond `cap` examples, nor the training set; the paper caps at about a tenth of it.
    `factor` is a whole number, which makes every batch the exact multiple. Milestones act as in step decay, of
    which this is the twin with gamma = 1 / factor.
    """

    name = "batch_increase"

    milestones: tuple[Duration, ...] = ("50%", "75%")

    def settings(self, epoch: int, history: History, run: Run) -> Settings:
        """Settings of epoch `epoch`; the history is not looked at."""
        lr, batch_size = self.rate_and_batch(epoch, run)
        return run.settings(lr, self.momentum, batch_size)

    def rate_and_batch(self, epoch: int, run: Run) -> tuple[float, int]:
        """The unrounded rate and the batch size of an epoch."""
        return self.after(count_passed(self.milestones, epoch, run.num_epochs, self.initial_updates(run)), run)


@dataclass(frozen=True, kw_only=True)
class BatchHybrid(BatchIncrease):
    """The first `batch_steps` milestones grow the batch, the later ones divide the rate (Smith et al. 2017, section 5.1)."""

    name = "batch_hybrid"

    batch_steps: Count = 1

    def rate_and_batch(self, epoch: int, run: Run) -> tuple[float, int]:
        """The unrounded rate and the batch size of an epoch."""
        passed = count_passed(self.milestones, epoch, run.num_epochs, self.initial_updates(run))
        lr, batch_size = self.after(min(passed, self.batch_steps), run)
        return lr / float(self.factor) ** max(0, passed - self.batch_steps), batch_size


@dataclass(frozen=True, kw_only=True)
class BatchPlateau(GrowingPolicy, PlateauPolicy):
    """The noise falls by `factor` whenever the plateau rule acts.

    `semantics` ``keras_restart`` is the machine of Yacalis and Le's study, an EarlyStopping whose fit is started again
    with a doubled batch: the best is forgotten at each stop. For a fair comparison with `plateau` use the same
    semantics, metric and patience in both, and let both run to the end of the budget.
    """

    name = "batch_plateau"

    def settings(self, epoch: int, history: History, run: Run) -> Settings:
        """Settings of epoch `epoch`, by the metrics of the epochs before it."""
        lr, batch_size = self.after(self.num_triggers(epoch, history), run)
        return run.settings(lr, self.momentum, batch_size)


@dataclass(frozen=True, kw_only=True)
class AdaBatch(Policy):
    """Every `every` epochs the batch grows by `resize` and the rate is multiplied by `gamma`.

    Devarakonda, Naumov and Garland 2017 (arXiv 1712.02029), as in NVlabs/AdaBatch: purely periodic, whatever its help
    says. lr / B falls by gamma / resize, so `gamma` 0.75 with `resize` 2 matches a fixed batch with 0.375. Their code
    drops the last, partial batch (`tail: drop`). With `baseline_batch` the rate rises over the epochs of `warmup` (5) from
    lr in the first to lr * batch_size / baseline_batch in the last, by equal steps. A batch that would exceed `cap` or the training set stays,
    and the rate takes the whole step, gamma / resize.
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
        """Settings of epoch `epoch`; the history is not looked at."""
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
