"""Precision, memory format, compiled networks and fused optimizers: other numbers at most, and the same ones again."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lrstudy.data.batches import Part, part_of
from lrstudy.errors import InputError
from lrstudy.models.build import build_model
from lrstudy.settings import Recipe, Settings
from lrstudy.training.compiling import compile_for
from lrstudy.training.epoch import UserFunctions, evaluate, train_epoch
from lrstudy.training.state import State
from lrstudy.workload.numerics import NumericsSpec
from study_files import plan_of

N, BATCH = 40, 16
CPU = torch.device("cpu")
CHOICES = {
    "fp32": NumericsSpec(),
    "channels_last": NumericsSpec(memory_format="channels_last"),
    "bf16": NumericsSpec(precision="bf16", memory_format="channels_last"),
    "fp16": NumericsSpec(precision="fp16", fused=True),
    "fused": NumericsSpec(fused=True),
    "compiled": NumericsSpec(compile=True),
}
RECIPES = {
    "sgd": Recipe(),
    "adam": Recipe(optimizer="adam", beta2=0.99, eps=1e-8),
    "rmsprop": Recipe(optimizer="rmsprop", alpha=0.9, eps=1e-8),
    "rmsprop_keras": Recipe(optimizer="rmsprop_keras"),
    "clipped": Recipe(clip_norm=0.1, augment="crop_flip"),
    "pieces": Recipe(micro_batch=5),
}
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")


def part(numerics_spec: NumericsSpec) -> Part:
    rng = np.random.default_rng(0)
    labels = np.arange(N) % 3
    images = (rng.integers(0, 60, (N, 3, 8, 8)) + 60 * labels[:, None, None, None]).astype(np.uint8)
    constants = ((0.4,) * 3, (0.3,) * 3)
    return part_of(images, labels, np.arange(N), CPU, constants, memory_format=numerics_spec.memory_format)


def start(numerics_spec: NumericsSpec) -> State:
    return State.of(build_model("small_cnn", 3, 3, 8, 0), CPU, numerics_spec)


def settings(recipe: Recipe) -> Settings:
    return Settings(np.full((math.ceil(N / BATCH), 3), 0.01), np.array(0.9), BATCH, recipe)


def trained(numerics_spec: NumericsSpec, recipe: Recipe, epochs=2) -> tuple[State, list[float]]:
    state = start(numerics_spec)
    return state, [train_epoch(state, settings(recipe), part(numerics_spec), 0, epoch) for epoch in range(epochs)]


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        pytest.param(name, recipe, marks=[needs_compiler, pytest.mark.slow] if name == "compiled" else [])
        for name in CHOICES
        for recipe in RECIPES
        if name != "compiled" or recipe in ("sgd", "pieces")  # compiling takes half a minute
    ],
)
def test_stopping_and_going_on_changes_nothing(name, recipe):
    numerics_spec, recipe = CHOICES[name], RECIPES[recipe]
    straight, losses = trained(numerics_spec, recipe, epochs=2)
    stopped, first = trained(numerics_spec, recipe, epochs=1)
    resumed = start(numerics_spec)
    resumed.restore(stopped.capture())
    assert [*first, train_epoch(resumed, settings(recipe), part(numerics_spec), 0, 1)] == losses
    assert resumed.capture() == straight.capture()
    assert evaluate(resumed, part(numerics_spec), "multiclass") == evaluate(straight, part(numerics_spec), "multiclass")


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("name", "tolerance"),
    # float32 sums in another order; bfloat16 has 8 bits, float16 11, and each is rounded some ten times on the way
    [(n, t) for n, t in (("channels_last", 1e-5), ("fused", 1e-5), ("bf16", 0.03), ("fp16", 0.004))],
)
def test_losses_are_those_of_plain_arithmetic_up_to_rounding(name, tolerance, recipe):
    _, plain = trained(CHOICES["fp32"], RECIPES[recipe])
    _, other = trained(CHOICES[name], RECIPES[recipe])
    if recipe.startswith("rmsprop"):
        tolerance *= 3  # it divides gradients by their own size, so the rounding of small ones counts in full
    assert other == pytest.approx(plain, rel=tolerance)
    if name in ("bf16", "fp16"):
        assert other != plain, "it does something"


@needs_compiler
@pytest.mark.slow
def test_a_compiled_network_learns_the_same_and_is_not_compiled_again_for_another_seed():
    numerics_spec = CHOICES["compiled"]
    _, plain = trained(CHOICES["fp32"], Recipe())
    state, losses = trained(numerics_spec, Recipe())
    assert losses == pytest.approx(plain, rel=1e-5)
    torch._dynamo.utils.counters.clear()
    state.begin_again(build_model("small_cnn", 3, 3, 8, 0).module)
    again = [train_epoch(state, settings(Recipe()), part(numerics_spec), 0, epoch) for epoch in range(2)]
    assert again == losses
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0


@needs_compiler
@pytest.mark.slow
def test_compiling_before_an_epoch_leaves_the_state_and_nothing_to_compile():
    numerics_spec = CHOICES["compiled"]
    state, data = start(numerics_spec), part(numerics_spec)
    before = state.capture()
    compile_for(state, settings(Recipe()), data, UserFunctions())
    evaluate(state, data, "multiclass")
    assert state.capture() == before
    assert all(p.grad is None for p in state.model.parameters())
    torch._dynamo.utils.counters.clear()
    assert train_epoch(state, settings(Recipe()), data, 0, 0) == trained(numerics_spec, Recipe(), epochs=1)[1][0]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0


def test_channels_last_reaches_weights_and_images():
    numerics_spec = CHOICES["channels_last"]
    state, data, seen = start(numerics_spec), part(numerics_spec), []

    def step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, loss: object) -> torch.Tensor:
        seen.append(images.is_contiguous(memory_format=torch.channels_last))
        return loss(model(images), labels)  # type: ignore[operator]

    train_epoch(state, settings(Recipe()), data, 0, 0, UserFunctions(train_step=step))
    assert seen == [True] * 3
    weight = next(p for p in state.model.parameters() if p.ndim == 4 and p.shape[1] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_parameters_stay_float32_and_what_autocast_deems_safe_is_not():
    state, seen = start(CHOICES["bf16"]), []

    def step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, loss: object) -> torch.Tensor:
        logits = model(images)
        seen.append(logits.dtype)
        return loss(logits, labels)  # type: ignore[operator]

    train_epoch(state, settings(Recipe()), part(CHOICES["bf16"]), 0, 0, UserFunctions(train_step=step))
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in state.model.parameters()} == {torch.float32}


def test_an_overflowing_update_in_float16_is_left_out_and_the_scale_halved():
    numerics_spec = CHOICES["fp16"]
    state = start(numerics_spec)
    huge = UserFunctions(train_step=lambda model, images, labels, loss: loss(model(images), labels) * 1e5)
    before = [p.detach().clone() for p in state.model.parameters()]
    train_epoch(state, settings(Recipe()), part(numerics_spec), 0, 0, huge)
    assert all(torch.equal(old, new) for old, new in zip(before, state.model.parameters(), strict=True))
    assert state.scaler is not None
    assert state.scaler.get_scale() == 65536 / 2**3, "halved in each of three updates"


def chosen(*overrides: str) -> NumericsSpec:
    return plan_of(*overrides).workload.numerics_spec


def test_a_study_chooses_and_auto_is_what_was_measured(monkeypatch):
    auto = chosen()
    assert auto == NumericsSpec(memory_format="channels_last", eval_batch=1024), "a CPU, and images of 8 x 8"
    assert chosen("workload.numerics.precision=bf16").precision == "bf16"
    assert chosen("workload.numerics.memory_format=contiguous").memory_format == "contiguous"
    assert chosen("workload.numerics.eval_batch=100").eval_batch == 100
    assert chosen("workload.image.size=128").eval_batch == 32, "half a million pixels at once stay in a CPU's cache"
    on_gpu = "resources.gpu=1"
    assert chosen(on_gpu).memory_format == "contiguous"
    half = chosen(on_gpu, "workload.numerics.precision=fp16")
    assert (half.memory_format, half.fused) == ("channels_last", True)
    assert chosen(on_gpu, "workload.numerics.tf32=true").memory_format == "channels_last"
    assert chosen(on_gpu, "workload.image.size=224", "workload.image.channels=rgb").eval_batch == 128


def test_every_choice_is_named_in_the_root():
    roots = {
        plan_of(*overrides).root(0).name()
        for overrides in (
            (),
            ("workload.numerics.precision=bf16",),
            ("workload.numerics.memory_format=contiguous",),
            ("workload.numerics.fused=true",),
            ("workload.numerics.compile=true",),
            ("workload.numerics.eval_batch=7",),
            ("workload.batchnorm=precise",),
        )
    }
    assert len(roots) == 7


def test_running_statistics_are_not_named_as_they_were_not_before_there_was_a_choice():
    assert "batchnorm" not in plan_of().root(0).numerics
    assert plan_of("workload.batchnorm=running").root(0) == plan_of().root(0)
    assert plan_of("workload.batchnorm=precise").root(0).numerics["batchnorm"] == "precise"


def test_precise_statistics_are_refused_where_there_are_none():
    lenet = ("workload.model=lenet", "workload.image.size=16")
    assert plan_of(*lenet)
    with pytest.raises(InputError) as caught:
        plan_of(*lenet, "workload.batchnorm=precise")
    assert caught.value.sentences == (
        "workload.batchnorm: expected precise only with a model that has BatchNorm, which lenet has not.",
    )


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("workload.numerics.precision=fp16", "workload.numerics.precision: fp16 needs a GPU"),
        ("workload.numerics.tf32=true", "workload.numerics.tf32: only NVIDIA GPUs have TF32"),
        ("workload.numerics.precision=int8", "workload.numerics.precision: expected fp32, bf16 or fp16; got 'int8'"),
        ("workload.numerics.fused=maybe", "workload.numerics.fused: expected auto, true or false; got 'maybe'"),
        ("workload.numerics.eval_batch=0", "workload.numerics.eval_batch: expected auto or a whole number of at least 1; got 0"),
    ],
)  # fmt: skip
def test_what_a_device_cannot_do_or_is_no_choice_is_refused(override, text):
    with pytest.raises(InputError) as caught:
        plan_of(override)
    assert text in str(caught.value)


def test_the_choice_belongs_to_the_study():
    from lrstudy.planning.study_lock import identity

    plan = plan_of()
    assert identity(plan) != identity(plan_of("workload.numerics.precision=bf16"))
    assert identity(plan)["numerics"]["memory_format"] == "auto", (
        "what auto comes to depends on the device, the study does not"
    )
    assert replace(plan.workload, numerics_spec=NumericsSpec()).root(0).name() == plan.root(0).name()


def test_a_first_update_that_overflows_leaves_no_momentum_behind():
    """torch's fused SGD makes a buffer for a skipped first update and does not write to it: the next one read garbage."""

    def trained(fused: bool) -> list[torch.Tensor]:
        numerics_spec = replace(CHOICES["fp16"], fused=fused)
        state = start(numerics_spec)
        huge = UserFunctions(train_step=lambda model, images, labels, loss: loss(model(images), labels) * 1e5)
        train_epoch(state, settings(Recipe()), part(numerics_spec), 0, 0, huge)
        train_epoch(state, settings(Recipe()), part(numerics_spec), 0, 1)
        return [p.detach().clone() for p in state.model.parameters()]

    for fused, unfused in zip(trained(True), trained(False), strict=True):
        torch.testing.assert_close(fused, unfused, rtol=1e-3, atol=1e-5)  # sums in another order, in half precision
