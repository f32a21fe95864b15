"""Our epoch against a bare PyTorch loop over tensors in memory: same model, batches, optimizer and augmentation."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness import Row, compared, in_turn, timed
from lrstudy.data.batches import Part, part_of
from lrstudy.models.build import build_model
from lrstudy.models.catalogue import has_batchnorm
from lrstudy.settings import Recipe, Settings
from lrstudy.training.epoch import evaluate, train_epoch
from lrstudy.training.state import State
from lrstudy.workload.numerics import NumericsSpec

TITLE = "an epoch, against a bare PyTorch loop"
NOTES = (
    "One core. Images of CIFAR-10's shape, already normalised in the bare loop (ours keeps bytes and normalises each batch), batch 64,",
    "SGD with momentum and weight decay. The bare loop augments with one crop for the whole batch; ours, with one for every image,",
    "drawn from (seed, purpose, epoch). Ours also sets rates and momentum before each update, reads images from a mapped file, and an",
    "evaluation computes five metrics. Rows `by default` have channels_last and small evaluation batches, as a study on a CPU; the bare",
    "loop, as people write it, has neither. Ghost batches are measured against our own epoch without them, by default: a batch of 128 whose",
    "BatchNorm takes its statistics over 32, as after two doublings.",
)
CPU = torch.device("cpu")
_BATCH = 64
_SIZES = {"lenet": 4096, "small_cnn": 2048, "resnet18": 192}


PLAIN = NumericsSpec(eval_batch=512)
DEFAULT = NumericsSpec(memory_format="channels_last", eval_batch=128)
"""What `auto` comes to on a CPU for images of 32 pixels."""


def run(repeats: int) -> list[Row]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="lrstudy-bench-") as folder:
        made = {model: _Data.made(count, Path(folder)) for model, count in _SIZES.items()}
        rows = [row for model, data in made.items() for row in _rows(model, data, repeats)]
        return rows + [_ghost_batches(model, made[model], repeats) for model in _SIZES if has_batchnorm(model)]


def _rows(model: str, data: _Data, repeats: int) -> Iterator[Row]:
    for augment in ("none", "crop_flip"):
        found = _in_turn(
            {
                "ours": _ours(model, data, augment, PLAIN),
                "default": _ours(model, data, augment, DEFAULT),
                "bare": _bare(model, data, augment),
            },
            repeats,
        )
        yield compared(f"{model}, training, {augment}", found["ours"], found["bare"], target=0.95)
        yield compared(f"{model}, training, {augment}, by default", found["default"], found["bare"])
    found = _in_turn(
        {
            "ours": _evaluation(model, data, PLAIN),
            "default": _evaluation(model, data, DEFAULT),
            "bare": _bare_evaluation(model, data),
        },
        repeats,
    )
    yield compared(f"{model}, evaluation", found["ours"], found["bare"], target=0.95)
    yield compared(f"{model}, evaluation, by default", found["default"], found["bare"])


def _ghost_batches(model: str, data: _Data, repeats: int) -> Row:
    """Ghost batches cost at most 15% of an epoch."""
    norm_batches = {"ghost": 32, "plain": None}
    found = _in_turn(
        {name: _ours(model, data, "none", DEFAULT, 128, norm) for name, norm in norm_batches.items()}, repeats
    )
    return compared(f"{model}, training, ghost batches", found["ghost"], found["plain"], target=round(1 / 1.15, 2))


def _in_turn(work: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    variants = {name: timed(function) for name, function in work.items()}
    in_turn(variants, 1)  # the first epoch allocates
    return in_turn(variants, repeats)


@dataclass(frozen=True)
class _Data:
    """The same images as a decoded file and as normalised tensors in memory."""

    images: np.ndarray
    labels: np.ndarray

    @staticmethod
    def made(count: int, folder: Path) -> _Data:
        rng, path = np.random.default_rng(0), folder / f"{count}.npy"
        np.save(path, rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8))
        return _Data(np.load(path, mmap_mode="r"), rng.integers(0, 10, count))

    def part(self, numerics_spec: NumericsSpec) -> Part:
        index, constants = np.arange(len(self.labels)), ((0.5,) * 3, (0.25,) * 3)
        return part_of(self.images, self.labels, index, CPU, constants, memory_format=numerics_spec.memory_format)

    def tensors(self) -> tuple[Tensor, Tensor]:
        return (torch.from_numpy(np.array(self.images)).float() / 255 - 0.5) / 0.25, torch.from_numpy(self.labels)


def _state(model: str, numerics_spec: NumericsSpec = PLAIN) -> State:
    return State.of(build_model(model, 10, 3, 32, 0), CPU, numerics_spec)


def _ours(
    model: str,
    data: _Data,
    augment: str,
    numerics_spec: NumericsSpec,
    batch: int = _BATCH,
    norm_batch: int | None = None,
) -> Callable[[], object]:
    state, part = _state(model, numerics_spec), data.part(numerics_spec)
    recipe = Recipe(weight_decay=5e-4, augment=augment, norm_batch=norm_batch)
    rates = np.full((-(-len(part) // batch), len(state.sections)), 1e-3)
    settings = Settings(rates, np.array(0.9), batch, recipe)
    return lambda: train_epoch(state, settings, part, 0, 0)


def _evaluation(model: str, data: _Data, numerics_spec: NumericsSpec) -> Callable[[], object]:
    state, part = _state(model, numerics_spec), data.part(numerics_spec)
    return lambda: evaluate(state, part, "multiclass")


def _bare(model: str, data: _Data, augment: str) -> Callable[[], object]:
    net = _state(model).model.train()
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4)
    x, y = data.tensors()

    def epoch() -> float:
        total = 0.0
        losses = []
        for chosen in torch.randperm(len(y)).split(_BATCH):
            batch = x[chosen] if augment == "none" else _crop_flip(x[chosen])
            loss = nn.functional.cross_entropy(net(batch), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        total += float(torch.stack(losses).mean())
        return total

    return epoch


def _crop_flip(batch: Tensor) -> Tensor:
    """One random crop for the whole padded batch, and flips by image: less work than a crop for each image."""
    padding = 4
    padded = nn.functional.pad(batch, (padding,) * 4)
    dy, dx = torch.randint(0, 2 * padding + 1, (2,)).tolist()
    out = padded[:, :, dy : dy + batch.shape[2], dx : dx + batch.shape[3]]
    flip = torch.rand(len(batch)) < 0.5
    return torch.where(flip[:, None, None, None], out.flip(-1), out)


def _bare_evaluation(model: str, data: _Data) -> Callable[[], object]:
    net = _state(model).model
    x, y = data.tensors()

    @torch.no_grad()
    def evaluation() -> Sequence[float]:
        net.eval()
        hits, loss = 0, 0.0
        for start in range(0, len(y), PLAIN.eval_batch):
            logits = net(x[start : start + PLAIN.eval_batch])
            labels = y[start : start + PLAIN.eval_batch]
            hits += int((logits.argmax(1) == labels).sum())
            loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
        return hits / len(y), loss / len(y)

    return evaluation
