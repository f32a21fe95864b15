"""Policies outside a study: a schedule in a plain PyTorch loop uses the very rates that a study would train with."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from lrstudy.errors import InputError
from lrstudy.policies import build
from lrstudy.policies.base import Policy
from lrstudy.policies.run import Run
from lrstudy.settings import Recipe

NUM_EXAMPLES, EPOCHS = 99, 5
VALUES: dict[str, dict[str, object]] = {
    "constant": {}, "step": {"milestones": [2]}, "cosine": {"warmup": 1}, "batch_increase": {"milestones": [1, 3]},
    "clr": {"step_size": 1, "momentum_low": 0.8}, "sgdr_dlr": {"t0": 2}, "one_cycle": {"momentum_low": 0.8},
}  # fmt: skip


def policy_of(name: str, **values: object) -> Policy:
    return build(name, {"lr": 0.1, "batch_size": 16, **VALUES.get(name, {}), **values})


def optimizer_of(groups: int = 1, kind: Any = torch.optim.SGD, **options: Any) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = kind(
        [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(groups)], lr=0.0, **options
    )
    return made


def looped(policy: Policy, optimizer: torch.optim.Optimizer, history: Any = (), tail: Any = "keep") -> Any:
    """Rates, momenta and batches that a loop uses, update by update."""
    schedule = policy.attach(optimizer, num_examples=NUM_EXAMPLES, epochs=EPOCHS, tail=tail)
    used = []
    for epoch in range(EPOCHS):
        for _ in range(schedule.num_updates):
            used.append(read(optimizer, schedule.batch_size))
            schedule.step()
        if history:
            schedule.epoch_end(history[epoch])
    assert schedule.is_finished
    return used


def read(optimizer: torch.optim.Optimizer, batch_size: int) -> tuple[Any, ...]:
    momenta = [g["betas"][0] if "betas" in g else g.get("momentum") for g in optimizer.param_groups]
    return [g["lr"] for g in optimizer.param_groups], momenta, batch_size


def studied(policy: Policy, groups: int = 1, history: Any = (), tail: Any = "keep") -> Any:
    run = Run(NUM_EXAMPLES, EPOCHS, groups, Recipe(tail=tail))
    made = [policy.settings(epoch, history[:epoch], run) for epoch in range(EPOCHS)]
    return [(s.lr[k].tolist(), s.momentum[k].tolist(), s.batch_size) for s in made for k in range(s.num_updates)]


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("tail", ["keep", "drop"])
def test_a_loop_uses_the_settings_of_a_study(name: str, tail: str) -> None:
    groups = 3 if name == "sgdr_dlr" else 1
    policy = policy_of(name)
    assert looped(policy, optimizer_of(groups, momentum=0.9), tail=tail) == studied(policy, groups, tail=tail)


@pytest.mark.parametrize("tail", ["keep", "drop"])
@pytest.mark.parametrize("num_examples", [96, 97, 98])
def test_an_epoch_has_as_many_updates_as_a_loader_has_batches(num_examples: int, tail: str) -> None:
    """A loader makes a batch of its own of a single last example, which a study merges into the one before."""
    schedule = policy_of("batch_increase").attach(optimizer_of(), num_examples=num_examples, epochs=EPOCHS, tail=tail)  # type: ignore[arg-type]
    data = torch.utils.data.TensorDataset(torch.zeros(num_examples))
    for _ in range(EPOCHS):
        loader = torch.utils.data.DataLoader(data, schedule.batch_size, drop_last=tail == "drop")
        assert schedule.num_updates == len(loader)
        for _ in loader:
            schedule.step()
        schedule.epoch_end()


def test_momentum_is_beta1_of_adam_and_left_out_where_there_is_none() -> None:
    policy = policy_of("one_cycle")
    assert looped(policy, optimizer_of(kind=torch.optim.AdamW)) == studied(policy)
    lone = optimizer_of(kind=torch.optim.Adagrad)
    rates = [lr for lr, _, _ in looped(policy, lone)]
    assert rates == [lr for lr, _, _ in studied(policy)]


def test_a_reactive_policy_sees_the_metrics_of_the_loop() -> None:
    policy = policy_of("plateau", patience=1, factor=0.5)
    history = [{"val_loss": value} for value in (1.0, 1.0, 1.0, 0.5, 0.5)]
    used = looped(policy, optimizer_of(), history)
    assert used == studied(policy, history=history)
    assert used[-1][0] == [0.05]


def test_a_reactive_policy_without_metrics_says_what_it_needs() -> None:
    schedule = policy_of("plateau").attach(optimizer_of(), num_examples=32, epochs=3)
    schedule.step()
    schedule.step()
    with pytest.raises(RuntimeError, match=r"plateau needs the metrics of epoch 0 first: call epoch_end"):
        schedule.step()
    with pytest.raises(
        InputError, match=r"metrics: expected the metrics of epoch 0, which plateau looks at; got none."
    ):
        schedule.epoch_end()
    with pytest.raises(InputError, match=r"metric: expected a metric that is there; got 'val_loss'."):
        schedule.epoch_end({"val_los": 1.0})
    with pytest.raises(InputError, match=r"metrics.val_loss: expected a number; got 'low'."):
        schedule.epoch_end({"val_loss": "low"})  # type: ignore[dict-item]


@pytest.mark.parametrize("stop", [0, 3, 7, 12])
def test_a_state_goes_on_in_the_middle_of_an_epoch(stop: int) -> None:
    policy, history = policy_of("batch_plateau", patience=0), [{"val_loss": 1.0}] * EPOCHS
    used, expected = [], studied(policy, history=history)
    schedule, optimizer = None, optimizer_of(momentum=0.9)
    for at in range(len(expected)):
        if schedule is None or at == stop:
            state = json.dumps(schedule.state_dict()) if schedule is not None else None
            optimizer = optimizer_of(momentum=0.9)
            schedule = policy.attach(optimizer, num_examples=NUM_EXAMPLES, epochs=EPOCHS)
            if state is not None:
                schedule.load_state_dict(json.loads(state))
        used.append(read(optimizer, schedule.batch_size))
        last = schedule.update == schedule.num_updates - 1
        schedule.step()
        if last:
            schedule.epoch_end({"val_loss": 1.0})
    assert used == expected


def test_the_state_of_another_run_is_refused_by_name() -> None:
    state = policy_of("step").attach(optimizer_of(), num_examples=97, epochs=5).state_dict()
    other = policy_of("step", gamma=0.5).attach(optimizer_of(), num_examples=90, epochs=5)
    with pytest.raises(InputError) as caught:
        other.load_state_dict(state)
    assert str(caught.value).splitlines() == [
        "gamma: expected 0.5, as this schedule has; got 0.1.",
        "num_examples: expected 90, as this schedule has; got 97.",
    ]


def test_an_epoch_of_the_wrong_length_is_noticed() -> None:
    schedule = policy_of("constant").attach(optimizer_of(), num_examples=97, epochs=5)
    schedule.step()
    with pytest.raises(
        RuntimeError, match=r"epoch 0 is not over: 1 of its 7 updates were made, with a batch of 16 of 97"
    ):
        schedule.epoch_end()


def test_beyond_the_budget_there_is_nothing_to_set() -> None:
    schedule = policy_of("constant").attach(optimizer_of(), num_examples=16, epochs=1)
    schedule.step()
    with pytest.raises(RuntimeError, match="the budget of 1 epochs is over"):
        schedule.step()


def test_a_run_that_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(InputError) as caught:
        policy_of("constant").attach(optimizer_of(), num_examples=0, epochs=2.5)  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) == 2
    with pytest.raises(InputError, match="one ratio per section of the model"):
        policy_of("sgdr_dlr").attach(optimizer_of(2), num_examples=32, epochs=2)


def test_a_group_that_was_added_later_is_noticed() -> None:
    optimizer = optimizer_of()
    schedule = policy_of("constant").attach(optimizer, num_examples=97, epochs=5)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    with pytest.raises(RuntimeError, match="the optimizer has 2 groups; this schedule was attached when it had 1"):
        schedule.step()
