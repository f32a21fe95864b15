"""Our epoch against a bare PyTorch loop over tensors in memory: same model, batches, optimizer and augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness import Row, compared, in_turn, timed
from lrstudy import models, numerics
from lrstudy.data.batches import Part, part_of
from lrstudy.settings import Recipe, Settings
from lrstudy.training.epoch import evaluate, train_epoch
from lrstudy.training.state import State

TITLE = "an epoch, against a bare PyTorch loop"
NOTES = (
    "One core. Images of CIFAR-10's shape, already normalised in the bare loop (ours keeps bytes and normalises each batch), batch 64,",
    "SGD with momentum and weight decay. The bare loop augments with one crop for the whole batch; ours, with one for every image,",
    "drawn from (seed, purpose, epoch). Ours also sets rates and momentum before each update, and an evaluation computes five metrics.",
)
_BATCH = 64
_SIZES = {"lenet": 4096, "small_cnn": 2048, "resnet18": 192}
_RECIPE = Recipe(weight_decay=5e-4)


def run(repeats: int) -> list[Row]:
    torch.set_num_threads(1)
    rows = []
    for model, count in _SIZES.items():
        part = _part(count)
        for augment in ("none", "crop_flip"):
            variants = {"ours": timed(_ours(model, part, augment)), "bare": timed(_bare(model, part, augment))}
            in_turn(variants, 1)  # the first epoch allocates
            found = in_turn(variants, repeats)
            rows.append(compared(f"{model}, training, {augment}", found["ours"], found["bare"], target=0.95))
        trained = _state(model)
        variants = {
            "ours": timed(lambda part=part, state=trained: evaluate(state, part, "multiclass")),
            "bare": timed(_bare_evaluation(trained.model, part)),
        }
        in_turn(variants, 1)
        found = in_turn(variants, repeats)
        rows.append(compared(f"{model}, evaluation", found["ours"], found["bare"], target=0.95))
    return rows


def _part(count: int) -> Part:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10, count)
    return part_of(images, labels, np.arange(count), torch.device("cpu"), ((0.5,) * 3, (0.25,) * 3))


def _state(model: str) -> State:
    return State.of(models.build(model, 10, 3, 32, 0), torch.device("cpu"))


def _ours(model: str, part: Part, augment: str) -> Callable[[], object]:
    state, updates = _state(model), -(-len(part) // _BATCH)
    recipe = Recipe(weight_decay=5e-4, augment=augment)
    settings = Settings(np.full((updates, len(state.sections)), 1e-3), np.array(0.9), _BATCH, recipe)
    return lambda: train_epoch(state, settings, part, 0, 0)


def _bare(model: str, part: Part, augment: str) -> Callable[[], object]:
    net = _state(model).model.train()
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4)
    x, y = part.normalised(part.images.pixels), part.labels

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


def _bare_evaluation(net: nn.Module, part: Part) -> Callable[[], object]:
    x, y = part.normalised(part.images.pixels), part.labels

    @torch.no_grad()
    def evaluation() -> Sequence[float]:
        net.eval()
        hits, loss = 0, 0.0
        for start in range(0, len(y), numerics.EVAL_BATCH):
            logits = net(x[start : start + numerics.EVAL_BATCH])
            labels = y[start : start + numerics.EVAL_BATCH]
            hits += int((logits.argmax(1) == labels).sum())
            loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
        return hits / len(y), loss / len(y)

    return evaluation
