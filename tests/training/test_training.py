"""One epoch: what it computes is determined by state, settings, data and seed, and by nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lrstudy.data.batches import Augmentation, Part, part_of
from lrstudy.data.normalise import normalisation
from lrstudy.models.build import Model
from lrstudy.policies.run import Run
from lrstudy.settings import Recipe
from lrstudy.training.epoch import batch_bounds, evaluate, train_epoch
from lrstudy.training.randomness import generator, seed_for
from lrstudy.training.state import State
from lrstudy.workload.numerics import NumericsSpec

N, CLASSES = 50, 3
SECTIONS = (("0.weight", "0.bias"), ("2.weight", "2.bias"), ("5.weight", "5.bias"))


def part(n=N, channels=1, size=6, seed=0) -> Part:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, channels, size, size), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, n)
    index = np.arange(n)
    return part_of(images, labels, index, torch.device("cpu"), normalisation("data", images, index))


def network(dropout=0.0, numerics_spec=NumericsSpec()) -> State:  # noqa: B008  # frozen
    torch.manual_seed(1)
    layers = [
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(64, CLASSES),
    ]
    module = nn.Sequential(*layers)
    return State.of(Model(module, SECTIONS, {}), torch.device("cpu"), numerics_spec)


def settings(batch=8, lr=0.1, recipe=None, momentum=0.9):
    return Run(N, 10, 3, recipe or Recipe()).settings(lr, momentum, batch)


def weights(state: State) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1).clone() for p in state.model.parameters()])


def test_an_epoch_is_the_plain_loop_that_anybody_would_write():
    data, state, other = part(), network(), network()
    applied = Run(N, 10, 3).settings(np.linspace(0.1, 0.01, 7), 0.9, 8)
    loss = train_epoch(state, applied, data, seed=5, epoch=2)

    order = torch.randperm(N, generator=generator(5, "order", 2))
    images = (data.images.pixels.float() - data.mean) * data.scale
    optimizer = torch.optim.SGD(other.model.parameters(), lr=1.0, momentum=0.9)
    losses = []
    for update, chosen in enumerate(order.split(8)):
        optimizer.param_groups[0]["lr"] = float(applied.lr[update, 0])
        optimizer.zero_grad()
        step = functional.cross_entropy(other.model(images[chosen]), data.labels[chosen])
        step.backward()
        optimizer.step()
        losses.append(float(step.detach()) * len(chosen))
    assert torch.equal(weights(state), weights(other))
    assert loss == pytest.approx(sum(losses) / N, rel=1e-6)  # float32 sums in another order


def test_sections_train_at_their_own_rates():
    data, state = part(), network()
    before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    train_epoch(state, settings(lr=np.array([[0.0, 0.0, 0.1]] * 7)), data, 0, 0)
    moved = {name for name, p in state.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"5.weight", "5.bias"}


@pytest.mark.parametrize(
    ("batch", "sizes"), [(8, [8] * 6 + [2]), (7, [7] * 7 + [1]), (49, [50]), (50, [50]), (1, [1] * 50)]
)
def test_a_tail_is_kept_and_a_tail_of_one_joins_the_batch_before(batch, sizes):
    updates = Run(N, 1).num_updates(batch)
    found = [stop - start for start, stop in batch_bounds(N, batch, updates)]
    assert found == (sizes if batch != 7 else [7] * 6 + [8])
    assert sum(found) == N


def test_every_example_is_seen_once_per_epoch_in_an_order_that_depends_on_seed_and_epoch_alone():
    orders = {
        (seed, epoch): tuple(torch.randperm(N, generator=generator(seed, "order", epoch)).tolist())
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert all(sorted(order) == list(range(N)) for order in orders.values())
    assert seed_for(0, "order", 1) != seed_for(0, "augment", 1)


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(augment="crop_flip"), Recipe(nesterov=True, weight_decay=1e-3)])
def test_training_on_from_a_restored_state_equals_never_having_stopped(recipe):
    data, straight, stopped = part(), network(dropout=0.5), network(dropout=0.5)
    for epoch in range(3):
        train_epoch(straight, settings(recipe=recipe), data, 3, epoch)
    for epoch in range(2):
        train_epoch(stopped, settings(recipe=recipe), data, 3, epoch)
    torch.rand(17)  # whatever the global generator did in between
    resumed = network(dropout=0.5)
    resumed.restore(stopped.capture())
    train_epoch(resumed, settings(recipe=recipe), data, 3, 2)
    assert resumed.capture() == straight.capture()


def test_the_global_generator_is_left_as_it_was():
    data, state = part(), network(dropout=0.5)
    torch.manual_seed(123)
    expected = torch.get_rng_state()
    train_epoch(state, settings(recipe=Recipe(augment="crop_flip")), data, 0, 0)
    evaluate(state, data, "multiclass")
    assert torch.equal(torch.get_rng_state(), expected)


def test_evaluation_leaves_the_state_untouched_and_does_not_depend_on_its_batch_size():
    data, state = part(), network(dropout=0.5)
    train_epoch(state, settings(), data, 0, 0)
    before = state.capture()
    one, many = (
        evaluate(replace(state, numerics_spec=NumericsSpec(eval_batch=size)), data, "multiclass", keep_logits=True)
        for size in (50, 7)
    )
    assert state.capture() == before
    assert state.model.training
    assert one.metrics == many.metrics
    torch.testing.assert_close(one.logits, many.logits)


def test_augmentation_goes_by_example_not_by_batch():
    data = part()
    drawn = Augmentation.draw("crop_flip", data, generator(0, "augment", 0))
    whole = drawn.apply(data.images.pixels, torch.arange(N))
    chosen = torch.tensor([7, 3, 40])
    assert torch.equal(drawn.apply(data.images.pixels[chosen], chosen), whole[chosen])


def test_crop_and_flip_are_what_pad_slice_and_mirror_give():
    data = part(channels=3, size=8)
    drawn = Augmentation.draw("crop_flip", data, generator(1, "augment", 0))
    result = drawn.apply(data.images.pixels, torch.arange(N))
    padded = functional.pad(data.images.pixels, (drawn.padding,) * 4)
    for i in range(N):
        top, left = drawn.shift[i].tolist()
        crop = padded[i, :, top : top + 8, left : left + 8]
        assert torch.equal(result[i], crop.flip(2) if drawn.flip[i] else crop)
    assert 0 < drawn.flip.sum() < N
    assert drawn.shift.min() == 0
    assert drawn.shift.max() == 2 * drawn.padding


def test_without_augmentation_images_are_as_they_are():
    assert Augmentation.draw("none", part(), generator(0, "augment", 0)) is None
    flip_only = Augmentation.draw("flip", part(), generator(0, "augment", 0))
    assert flip_only.shift is None


def test_a_diverging_rate_gives_a_loss_that_is_not_finite():
    loss = train_epoch(network(), settings(lr=1e20), part(), 0, 0)
    assert not np.isfinite(loss)


def test_settings_of_another_size_are_refused():
    wrong = Run(N + 30, 1, 3).settings(0.1, 0.9, 8)
    with pytest.raises(ValueError, match="do not fit 50 examples"):
        train_epoch(network(), wrong, part(), 0, 0)


def test_reset_optimizer_forgets_momentum():
    data, kept, reset = part(), network(), network()
    for state in (kept, reset):
        train_epoch(state, settings(), data, 0, 0)
    train_epoch(kept, settings(), data, 0, 1)
    train_epoch(reset, settings(recipe=replace(Recipe(), reset_optimizer=True)), data, 0, 1)
    assert not torch.equal(weights(kept), weights(reset))


def test_a_state_of_another_model_is_refused():
    other = State.of(Model(nn.Sequential(nn.Linear(2, 2)), (("0.weight",), ("0.bias",), ()), {}), torch.device("cpu"))
    with pytest.raises(ValueError, match="does not fit the model"):
        network().restore(other.capture())


def test_normalisation_gives_training_data_mean_zero_and_deviation_one():
    data = part(n=300, channels=3)
    pixels = data.normalised(data.images.pixels).double()
    assert pixels.mean(dim=(0, 2, 3)).abs().max() < 1e-4  # constants have 6 digits
    assert (pixels.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-4
