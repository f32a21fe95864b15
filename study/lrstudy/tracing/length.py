"""How long the run of a trace is: epochs, updates per epoch, batch size and examples, as far as the user gives them."""

from __future__ import annotations

from dataclasses import dataclass

from lrstudy.errors import Fault, InputError
from lrstudy.policies.run import count_updates
from lrstudy.settings import Tail

DEFAULT_BATCH = 32
DEFAULT_UPDATES = 100


@dataclass(frozen=True)
class Length:
    """How long a run is: `num_epochs` of `num_updates` at `batch_size` from `num_examples`."""

    num_epochs: int
    num_updates: int
    batch_size: int
    num_examples: int


def length_of(epochs: int, updates: int | None, examples: int | None, batch_size: object, tail: Tail) -> Length:
    """The length of a run, given some of updates per epoch, examples and batch size.

    If two of the three are given, the third follows. If fewer are, the batch size is 32 by default, and an epoch has 100
    updates unless their number follows from the examples.

    Args:
        epochs: Number of epochs, at least 1.
        updates: Updates per epoch, at least 1.
        examples: Number of training examples, at least 1.
        batch_size: As the user wrote it, or None. Of several batch sizes that make the same updates the smallest is
            taken, or the largest if the tail is dropped.
        tail: What happens to the last, smaller batch of an epoch.

    Raises:
        InputError: `batch_size` is no whole number of at least 1, or the three contradict each other.
    """
    if batch_size is not None and not (type(batch_size) is int and batch_size >= 1):
        raise InputError(Fault("batch_size", expected="a whole number of at least 1", got=f"{batch_size!r}"))
    batch: int | None = batch_size
    if batch is None and updates is not None and examples is not None:
        batch = _batch_size(examples, updates, tail)
    batch = batch or DEFAULT_BATCH
    if examples is None:
        examples = batch * (updates or DEFAULT_UPDATES)
    num_updates = count_updates(examples, min(batch, examples) if tail == "keep" else batch, tail)
    if updates not in (None, num_updates):
        raise InputError(
            Fault(
                "--updates-per-epoch",
                f"{examples} examples make {num_updates} updates with batch_size {batch}; got {updates}",
                advice="Leave one of the three out.",
            )
        )
    return Length(epochs, num_updates, batch, examples)


def _batch_size(examples: int, updates: int, tail: Tail) -> int:
    """The batch size that makes `updates` updates of `examples` examples. Raises InputError if there is none."""
    updates_of = _nearest(examples, updates, tail)
    batch = next((size for size, num_updates in updates_of.items() if num_updates == updates), None)
    if batch is None:
        advice = "; ".join(f"batch_size {size} makes {num_updates}" for size, num_updates in updates_of.items())
        problem = f"no batch size makes {updates} updates of {examples} examples"
        raise InputError(Fault("--updates-per-epoch", problem, advice=f"{advice}."))
    return batch


def _nearest(examples: int, updates: int, tail: Tail) -> dict[int, int]:
    """The batch sizes whose number of updates comes nearest to `updates`, with that number; the preferred one first."""
    if tail == "drop":
        sizes = [examples // updates, examples // updates + 1]
    else:
        most = -(-examples // updates)
        sizes = [most - 1, most]  # a tail of one example joins the batch before it, so the smaller size may do as well
    return {size: count_updates(examples, size, tail) for size in sizes if 1 <= size <= examples}
