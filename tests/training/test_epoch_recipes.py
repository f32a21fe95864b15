"""What a recipe asks of an epoch: optimizers, micro batches, ghost BatchNorm, tails, augmentation, a user's train step."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lrstudy.data.augment import canonical, compose
from lrstudy.data.batches import Part
from lrstudy.data.reading import Resident
from lrstudy.errors import InputError
from lrstudy.models.build import Model
from lrstudy.policies.run import Run
from lrstudy.settings import Recipe, Settings
from lrstudy.training.epoch import UserFunctions, train_epoch
from lrstudy.training.ghost_norm import chunks, ghost_norm
from lrstudy.training.state import State

N, CLASSES = 50, 3


class Doubles(Part):
    """A part whose images are float64, so that equality can be told from rounding."""

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        return images.double() / 255 - 0.5


def part(is_multilabel: bool = False) -> Part:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (N, CLASSES), dtype=np.uint8) if is_multilabel else rng.integers(0, CLASSES, N)
    ones = torch.ones(1, 1, 1, 1)
    images = torch.from_numpy(rng.integers(0, 256, (N, 1, 6, 6), dtype=np.uint8))
    return Doubles(Resident(images), torch.from_numpy(labels), np.arange(N), ones, ones)


def network(norm: bool = False) -> State:
    torch.manual_seed(1)
    middle = nn.BatchNorm2d(4) if norm else nn.Identity()
    module = nn.Sequential(nn.Conv2d(1, 4, 3), middle, nn.ReLU(), nn.Flatten(), nn.Linear(64, CLASSES)).double()
    names = [name for name, _ in module.named_parameters()]
    return State.of(Model(module, (tuple(names[:2]), tuple(names[2:-2]), tuple(names[-2:])), {}), torch.device("cpu"))


def settings(batch: int = 8, lr: float = 0.1, momentum: float = 0.9, **recipe: object) -> Settings:
    return Run(N, 10, 3, Recipe(**recipe)).settings(lr, momentum, batch)  # type: ignore[arg-type]


def weights(state: State) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1).clone() for p in state.model.parameters()])


class KerasRMSpropAsWritten:
    """Keras 3's RMSprop.update_step, one parameter after the other; the L2 penalty is part of its gradient."""

    def __init__(self, parameters: Iterable[torch.Tensor]) -> None:
        self.parameters = list(parameters)
        self.velocities = [torch.zeros_like(p) for p in self.parameters]
        self.momenta = [torch.zeros_like(p) for p in self.parameters]

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        lr, rho, momentum, epsilon = 0.01, 0.95, 0.8, 1e-6
        for k, variable in enumerate(self.parameters):
            gradient = variable.grad + 0.01 * variable
            self.velocities[k] = rho * self.velocities[k] + (1 - rho) * gradient**2
            increment = lr * gradient / torch.sqrt(self.velocities[k] + epsilon)
            self.momenta[k] = momentum * self.momenta[k] + increment
            variable -= self.momenta[k]


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.01, momentum=0.8, weight_decay=0.01, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, alpha=0.95, eps=1e-6, momentum=0.8, weight_decay=0.01),
    "rmsprop_keras": KerasRMSpropAsWritten,
}
CONSTANTS = {
    "sgd": {"nesterov": True},
    "adam": {"beta2": 0.99, "eps": 1e-6},
    "adamw": {"beta2": 0.99, "eps": 1e-6},
    "rmsprop": {"alpha": 0.95, "eps": 1e-6},
    "rmsprop_keras": {"alpha": 0.95, "eps": 1e-6},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_torchs_and_keras(name: str) -> None:
    ours, theirs, data = network(), network(), part()
    applied = settings(batch=N, lr=0.01, momentum=0.8, optimizer=name, weight_decay=0.01, **CONSTANTS[name])
    optimizer = OPTIMIZERS[name](theirs.model.parameters())
    for epoch in range(3):  # one update each: the order of examples changes nothing but rounding
        train_epoch(ours, applied, data, seed=0, epoch=epoch)
        optimizer.zero_grad()
        functional.cross_entropy(theirs.model(data.normalised(data.images.pixels)), data.labels).backward()
        optimizer.step()
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_with_any_optimizer_goes_on_from_its_bytes(name: str) -> None:
    applied, data, whole, other = settings(optimizer=name, lr=0.01), part(), network(), network()
    train_epoch(whole, applied, data, seed=0, epoch=0)
    stored = whole.capture()
    train_epoch(whole, applied, data, seed=0, epoch=1)
    other.restore(stored)
    assert other.capture() == stored
    train_epoch(other, applied, data, seed=0, epoch=1)
    assert other.capture() == whole.capture()


def test_a_reset_forgets_the_optimizer() -> None:
    state, data = network(), part()
    train_epoch(state, settings(optimizer="adam", lr=0.01), data, seed=0, epoch=0)
    train_epoch(state, settings(optimizer="sgd", lr=0.01, reset_optimizer=True), data, seed=0, epoch=1)
    assert state.kind == "sgd"


@pytest.mark.parametrize("is_multilabel", [False, True])
@pytest.mark.parametrize("class_weights", [None, (0.5, 2.0, 1.0)])
@pytest.mark.parametrize("micro", [16, 7, 1])
def test_micro_batches_give_the_update_of_the_whole_batch(
    micro: int, class_weights: tuple[float, ...] | None, is_multilabel: bool
) -> None:
    """Chunks of 16, 16, 16, 2: a mean of means would be off by 0.1."""
    data, whole, pieces = part(is_multilabel), network(), network()
    loss = "binary_cross_entropy" if is_multilabel else "cross_entropy"
    one = settings(batch=N, class_weights=class_weights, loss=loss)
    other = settings(batch=N, class_weights=class_weights, loss=loss, micro_batch=micro)
    losses = [train_epoch(s, a, data, seed=0, epoch=0) for s, a in ((whole, one), (pieces, other))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # the mean loss is summed in float32
    torch.testing.assert_close(weights(pieces), weights(whole), rtol=0, atol=1e-12)


def test_ghost_norm_makes_accumulation_and_large_batches_one() -> None:
    data, large, pieces = part(), network(norm=True), network(norm=True)
    train_epoch(large, settings(batch=48, norm_batch=16), data, seed=0, epoch=0)
    train_epoch(pieces, settings(batch=48, norm_batch=16, micro_batch=16), data, seed=0, epoch=0)
    torch.testing.assert_close(weights(pieces), weights(large), rtol=0, atol=1e-12)
    plain = network(norm=True)
    train_epoch(plain, settings(batch=48), data, seed=0, epoch=0)
    assert not torch.allclose(weights(plain), weights(large), atol=1e-6)


def test_ghost_norm_updates_running_statistics_as_often_whatever_the_batch() -> None:
    for batch in (8, 16, 50):
        state = network(norm=True)
        train_epoch(state, settings(batch=batch, norm_batch=8, lr=0.0), part(), seed=0, epoch=0)
        assert int(state.model[1].num_batches_tracked) == 7  # 50 examples: six pieces of 8, one of 2
        statistics = state.model[1].running_mean.clone()
        if batch == 8:
            expected = statistics
        torch.testing.assert_close(statistics, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_a_piece_is_normalised_to_the_very_numbers_that_the_layer_gives(affine: bool, momentum: float | None) -> None:
    """Records of earlier versions, which called the layer for every piece, are recalled."""
    values = torch.randn(50, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    layers = [nn.BatchNorm2d(3, momentum=momentum, affine=affine) for _ in range(2)]
    one, other = values.clone().requires_grad_(), values.clone().requires_grad_()
    with ghost_norm(nn.Sequential(layers[0]), 16):
        ours = layers[0](one)
    theirs = torch.cat([layers[1](piece) for piece in torch.split(other, [16, 16, 16, 2])])
    for result in (ours, theirs):
        (result * values.abs()).sum().backward()
    assert torch.equal(ours, theirs)
    assert torch.equal(one.grad, other.grad)
    for name, tensor in layers[0].state_dict().items():
        assert torch.equal(tensor, layers[1].state_dict()[name]), name
    assert not affine or torch.equal(layers[0].weight.grad, layers[1].weight.grad)


def test_ghost_norm_leaves_the_model_as_it_was() -> None:
    model = network(norm=True).model
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ZeroDivisionError), ghost_norm(model, 4):
        _ = 1 / 0
    assert model.state_dict().keys() == before.keys()
    assert "forward" not in vars(model[1])


@pytest.mark.parametrize(
    ("n", "size", "pieces"), [(50, 16, [16, 16, 16, 2]), (33, 16, [16, 17]), (5, 8, [5]), (16, 16, [16])]
)
def test_a_piece_of_one_example_joins_the_one_before(n: int, size: int, pieces: list[int]) -> None:
    assert chunks(n, size) == pieces


def test_a_dropped_tail_is_not_trained_on() -> None:
    data, state, other = part(), network(), network()
    loss = train_epoch(state, settings(batch=16, tail="drop"), data, seed=0, epoch=0)
    again = train_epoch(other, settings(batch=16), data, seed=0, epoch=0)
    assert settings(batch=16, tail="drop").num_updates == 3
    assert not torch.equal(weights(state), weights(other))
    assert loss != again


def test_a_list_of_transforms_is_applied_example_by_example() -> None:
    """The same examples are augmented alike in batches of any size; other epochs draw anew."""
    recipe = {"augment": canonical(["RandomHorizontalFlip", {"RandomRotation": 20}])}
    data, shown = part(), []

    def spy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, loss: object) -> torch.Tensor:
        shown.append(images.detach().clone())
        return functional.cross_entropy(model(images), labels)

    for batch in (8, 25, 8):
        train_epoch(network(), settings(batch=batch, **recipe), data, 0, len(shown) > 12, UserFunctions(train_step=spy))  # type: ignore[arg-type]
    first, second, other = torch.cat(shown[:7]), torch.cat(shown[7:9]), torch.cat(shown[9:])
    assert torch.equal(first, second)
    assert first.shape == other.shape


def test_the_global_generator_is_left_alone_by_transforms() -> None:
    state = torch.get_rng_state()
    step = compose(canonical([{"ColorJitter": {"brightness": 0.5}}]))
    step(torch.zeros(3, 8, 8, dtype=torch.uint8), torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("transforms", "fault"),
    [
        (
            ["RandomHorizontalFlop"],
            "augment: there is no transform 'RandomHorizontalFlop'. Did you mean 'RandomHorizontalFlip'",
        ),
        ([{"RandomRotation": {"angle": 3}}], "augment: RandomRotation does not take {'angle': 3}"),
        ([3], "augment: expected the name of a transform, or a map from one to its arguments; got 3."),
    ],
)
def test_transforms_that_torchvision_does_not_have_are_refused(transforms: list[object], fault: str) -> None:
    with pytest.raises(InputError) as caught:
        canonical(transforms)
    assert str(caught.value).startswith(fault)


def test_a_users_augmentation_sees_each_example_with_a_generator_of_its_own() -> None:
    seeds: list[int] = []

    def augment(image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seeds.append(generator.initial_seed())
        return image.flip(2)

    train_epoch(network(), settings(augment="mine.py:augment"), part(), 0, 0, UserFunctions(augment=augment))
    assert len(set(seeds)) == N
    with pytest.raises(InputError, match=r"augment: expected mine.py:augment to give an image like the one it got"):
        train_epoch(
            network(),
            settings(augment="mine.py:augment"),
            part(),
            0,
            0,
            UserFunctions(augment=lambda image, g: image[:, 1:]),
        )


def test_a_users_train_step_decides_the_loss() -> None:
    data, own, plain = part(), network(), network()
    step = lambda model, images, labels, loss: loss(model(images), labels)  # noqa: E731
    train_epoch(own, settings(), data, 0, 0, UserFunctions(train_step=step))
    train_epoch(plain, settings(), data, 0, 0)
    assert torch.equal(weights(own), weights(plain))
    with pytest.raises(InputError, match="train_step: expected the mean loss, a tensor without dimensions"):
        train_epoch(
            own, settings(), data, 0, 1, UserFunctions(train_step=lambda model, images, labels, loss: model(images))
        )


def test_an_rmsprop_may_begin_without_momentum():
    """torch makes a momentum buffer with the first update alone: a momentum that came later was a KeyError."""
    state, data = network(), part()
    train_epoch(state, settings(momentum=0.0, lr=0.01, optimizer="rmsprop"), data, 0, 0)
    before = weights(state)
    loss = train_epoch(state, settings(momentum=0.9, lr=0.01, optimizer="rmsprop"), data, 0, 1)
    assert np.isfinite(loss)
    assert not torch.equal(weights(state), before)
