"""Policies of a user's own and of torch: what the contract catches, and what reaches them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lrstudy.errors import InputError
from lrstudy.policies import build, resolve
from lrstudy.policies.contract import check, validate_policy
from lrstudy.policies.run import Run

MINE = """
import random, time
from dataclasses import dataclass
import numpy as np
from lrstudy.policies import Duration, Policy

def good(p: float, E: float, *, lr: float, hold: Duration = "50%", knees: tuple[Duration, ...] = ("10%", "20%")) -> float:
    assert isinstance(hold, float) and all(isinstance(k, float) for k in knees)
    return lr if p < hold else lr * 0.5
def sections(p: float, E: float, *, lr: float):
    return [lr / 100, lr / 10, lr]
def nan(p: float, E: float, *, lr: float) -> float:
    return lr if p < 1 else float("nan")
def negative(p: float, E: float, *, lr: float) -> float:
    return lr * (1 - p)
def two(p: float, E: float, *, lr: float):
    return [lr, lr]
def nothing(p: float, E: float, *, lr: float):
    if p < 2: return lr
def text(p: float, E: float, *, lr: float):
    return "0.1"
def drawn(p: float, E: float, *, lr: float) -> float:
    return lr * random.random()
def hashed(p: float, E: float, *, lr: float) -> float:
    return lr * (1 + abs(hash("a")) / 2**63)
def crashing(p: float, E: float, *, lr: float) -> float:
    return lr / (1 - p) if p <= 1 else lr
def lazy(p: float, E: float, *, lr: float) -> float:
    import torch.nonexistent
    return lr
def leaving(p: float, E: float, *, lr: float) -> float:
    raise SystemExit(3)
def mapped(p: float, E: float, *, lr: float, table: dict = {}) -> float: return lr
def own_lr(p: float, E: float, *, lr: float = 0.3, momentum: float = 0.5) -> float: return lr
def maybe(p: float, E: float, *, lr: float, hold: Duration | None = None, knees: list[Duration] = ["10%"]) -> float:
    assert hold is None or isinstance(hold, float)
    assert all(isinstance(k, float) for k in knees)
    return lr if hold is None or p < hold else lr / 2
def untyped(p, E, *, lr, hold=3): return lr
def no_lr(p: float, E: float) -> float: return 0.1
def one(p: float, *, lr: float) -> float: return lr
def hides(p: float, E: float, *, lr: float, settings: float = 1.0) -> float: return lr
number = 3
calls = []
def counting(p: float, E: float, *, lr: float) -> float:
    calls.append(p)
    return lr / len(calls)

@dataclass(frozen=True, kw_only=True)
class Secretly(Policy):
    def settings(self, epoch, history, run):
        return run.settings(self.lr * 0.5 ** len(history), self.momentum, self.initial_batch(run))
@dataclass(frozen=True, kw_only=True)
class Hasty(Policy):
    reactive = True
    def settings(self, epoch, history, run):
        return run.settings(self.lr * (2 if epoch and history[epoch - 1]["val_loss"] > 3 else 1), 0.9, self.initial_batch(run))
@dataclass(frozen=True, kw_only=True)
class Huge(Policy):
    def settings(self, epoch, history, run):
        return run.settings(self.lr, self.momentum, run.num_examples * 2)
@dataclass(frozen=True, kw_only=True)
class Rates(Policy):
    def settings(self, epoch, history, run):
        return [self.lr] * 3
@dataclass(frozen=True, kw_only=True)
class Short(Policy):
    def settings(self, epoch, history, run):
        return run.settings(np.full(3, self.lr), self.momentum, self.initial_batch(run))
@dataclass(frozen=True, kw_only=True)
class Cycling(Policy):
    def settings(self, epoch, history, run):
        return run.settings(self.lr, self.momentum, self.initial_batch(run))
    def cycle_ends(self, run):
        return [run.num_epochs / 2, run.num_epochs]
class Plain(Policy):
    hold: float = 1.0
    def settings(self, epoch, history, run):
        return run.settings(self.lr, self.momentum, self.initial_batch(run))
class Abstract(Policy):
    pass
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mine")
    (made / "mine.py").write_text(MINE)
    return made


@pytest.mark.parametrize("name", ["good", "sections", "maybe"])
def test_a_good_policy_is_valid_and_described(folder: Path, name: str) -> None:
    lines = validate_policy(f"./mine.py:{name}", folder)
    assert lines[0] == f"./mine.py:{name} is a valid policy (not reactive: its settings are known beforehand)."
    assert any("source:" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("nan", "a finite rate of at least 0; got nan at epoch 1, update 0 (p = 1, E = 20), with lr = 0.1"),
        ("negative", "a finite rate of at least 0; got -0.001"),
        ("two", "1 rate or 3, one per section; got 2 at epoch 0, update 0"),
        ("nothing", "got nothing (it has no return there) at epoch 2"),
        ("text", "a number, or one per section; got '0.1'"),
        ("drawn", "it draws from the global generator of random"),
        ("hashed", "in another process it answers otherwise"),
        ("crashing", "raised ZeroDivisionError: float division by zero (line 27 of mine.py) at epoch 1, update 0"),
        ("lazy", "raised ModuleNotFoundError: No module named 'torch.nonexistent' (line 29 of mine.py)"),
        ("leaving", "leaving raised SystemExit: 3 (line 32 of mine.py) at epoch 0"),
        (
            "Short",
            "expected one rate, or one for each of the 100 updates, or of shape (100, 3) (updates, sections); got rates of shape "
            "(3, 1)",
        ),
        ("mapped", "mapped has a parameter that a policy cannot have: mutable default"),
        ("own_lr", "own_lr may not give lr a default: it is the study's, common.lr."),
        ("untyped", "untyped needs a type for hold, like hold: float."),
        ("no_lr", "to take lr, the peak rate, as a keyword"),
        ("one", "to take the epoch clock p and the budget E"),
        ("hides", "hides may not call a parameter 'settings'"),
        ("number", "to be a function"),
        ("counting", "depend on when they are asked for"),
        ("Secretly", "settings look at the history: a policy that does so says reactive = True"),
        ("Hasty", "raised IndexError"),
        ("Huge", "batch_size: expected at most the 3200 training examples; got 6400 in epoch 0."),
        ("Rates", "expected what run.settings(lr, momentum, batch_size) gives; got [0.1, 0.1, 0.1]"),
        ("Cycling", "cycle_ends: expected rising numbers of epochs from 1 to 20; got [10.0, 20]."),
        ("Plain", "Plain has parameters (hold) but is no dataclass"),
        ("Abstract", "Abstract does not define settings."),
        ("goood", "has no 'goood'. Did you mean 'good'?"),
    ],
)
def test_what_breaks_the_contract_is_told_in_a_sentence(folder: Path, name: str, fault: str) -> None:
    with pytest.raises(InputError) as caught:
        validate_policy(f"./mine.py:{name}", folder)
    assert fault in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_value_of_a_parameter_is_checked_like_a_built_in_ones(folder: Path) -> None:
    with pytest.raises(InputError, match=r"hold: expected a duration, like 4, '25%' or '2000u'; got 'half'."):
        validate_policy("./mine.py:good", folder, {"hold": "half"})


def test_a_duration_that_may_be_absent_is_one_all_the_same(folder: Path) -> None:
    policy = build(f"{folder / 'mine.py'}:maybe", {"lr": 0.1, "batch_size": 32, "hold": "50%"})
    assert [policy.settings(e, (), Run(32, 4)).lr[0, 0] for e in range(4)] == [0.1, 0.1, 0.05, 0.05]
    with pytest.raises(InputError, match=r"hold: expected a duration, like 4, '25%' or '2000u' or null; got 'banana'."):
        validate_policy("./mine.py:maybe", folder, {"hold": "banana"})
    with pytest.raises(InputError, match="knees: expected a list of which each is a duration"):
        validate_policy("./mine.py:maybe", folder, {"knees": ["x"]})


@pytest.mark.parametrize(
    ("text", "parameters", "fits"),
    [
        ("cosine", {"warmup": 5}, True),
        ("wsd", {"cooldown": 5}, True),
        ("clr", {"batch_milestones": ["50%"], "batch_factor": 4}, True),
        ("./mine.py:Huge", {}, False),
        ("cosine", {"warmup": 50}, False),
    ],
)
def test_runs_that_a_policy_refuses_are_named_and_the_others_checked(
    folder: Path, text: str, parameters: dict[str, object], fits: bool
) -> None:
    if not fits:
        with pytest.raises(InputError, match="expected"):
            validate_policy(text, folder, parameters)
        return
    lines = validate_policy(text, folder, parameters)
    assert any(line.startswith("  asked for 20 epochs of 3200 examples") for line in lines)
    assert any(line.startswith("  not for 4 epochs of 97 examples: ") for line in lines)


def test_durations_arrive_in_epochs_of_the_run(folder: Path) -> None:
    policy = build(f"{folder / 'mine.py'}:good", {"lr": 0.1, "batch_size": 32, "hold": "30u"})
    made = policy.settings(2, (), Run(320, 5))  # ten updates an epoch
    np.testing.assert_array_equal(policy.settings(1, (), Run(320, 5)).lr, 0.1)
    np.testing.assert_array_equal(made.lr, 0.1)
    np.testing.assert_array_equal(policy.settings(3, (), Run(320, 5)).lr, 0.05)


def test_rates_by_section_reach_the_sections(folder: Path) -> None:
    policy = build(f"{folder / 'mine.py'}:sections", {"lr": 0.1, "batch_size": 32})
    assert policy.settings(0, (), Run(64, 5, 3)).lr.tolist() == [[0.001, 0.01, 0.1]] * 2


def test_an_edited_file_is_another_policy_and_the_old_one_stays(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def f(p: float, E: float, *, lr: float) -> float:\n    return lr\n")
    before = resolve(f"{file}:f")
    file.write_text("def f(p: float, E: float, *, lr: float) -> float:\n    return lr / 2\n")
    after = resolve(f"{file}:f")
    values = {"lr": 0.1, "batch_size": 32}
    assert [p(**values).settings(0, (), Run(32, 1)).lr[0, 0] for p in (before, after)] == [0.1, 0.05]  # type: ignore[arg-type]


TORCH = {
    "StepLR": {"step_size": 2}, "MultiStepLR": {"milestones": [1, 3]}, "ExponentialLR": {"gamma": 0.9}, "PolynomialLR": {"power": 2.0},
    "LinearLR": {}, "ConstantLR": {}, "CosineAnnealingLR": {}, "CosineAnnealingWarmRestarts": {"T_0": 7}, "OneCycleLR": {},
    "CyclicLR": {"base_lr": 0.01, "step_size_up": 5},
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_every_scheduler_of_torch_keeps_the_contract(name: str) -> None:
    assert check(resolve(f"torch:{name}"), TORCH[name], (Run(97, 6, 2),), in_fresh_process=False) == []


def test_a_scheduler_of_torch_gives_its_own_rates_and_momentum() -> None:
    policy, run = build("torch:OneCycleLR", {"lr": 0.1, "batch_size": 32, "cycle_momentum": True}), Run(320, 4, 1)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=40)
    for epoch in range(4):
        made = policy.settings(epoch, (), run)
        for update in range(10):
            group = optimizer.param_groups[0]
            assert made.lr[update, 0] == pytest.approx(group["lr"], rel=5.1e-9)  # half a unit in the ninth digit
            assert made.momentum[update, 0] == pytest.approx(group["momentum"], rel=5.1e-9)
            optimizer.step()
            if (epoch, update) != (3, 9):
                scheduler.step()


@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
def test_torchs_schedulers_leave_the_momentum_alone_unless_told_otherwise(name: str) -> None:
    values = {"lr": 0.1, "batch_size": 32, "momentum": 0.7, **TORCH[name]}
    assert (build(f"torch:{name}", values).settings(0, (), Run(320, 4)).momentum == 0.7).all()
    assert np.ptp(build(f"torch:{name}", {**values, "cycle_momentum": True}).settings(0, (), Run(320, 4)).momentum) > 0


def test_a_polynomial_lasts_as_long_as_the_run() -> None:
    policy = build("torch:PolynomialLR", {"lr": 1.0, "batch_size": 32})
    assert [policy.settings(e, (), Run(32, 10)).lr[0, 0] for e in range(10)] == pytest.approx(
        [1 - e / 10 for e in range(10)]
    )


@pytest.mark.parametrize(
    ("name", "values", "fault"),
    [
        ("torch:ReduceLROnPlateau", {}, "use the built-in policy `plateau`"),
        ("torch:LambdaLR", {}, "write a policy of your own"),
        ("torch:StepLRR", {}, "Did you mean 'torch:StepLR'"),
        ("torch:StepLR", {}, "step_size: expected a whole number; got nothing."),
        (
            "torch:StepLR",
            {"step_size": 2, "gama": 0.1},
            "gama: torch:StepLR has no such parameter. Did you mean 'gamma'?",
        ),
    ],
)
def test_faults_of_torchs_schedulers_are_told(name: str, values: dict[str, object], fault: str) -> None:
    with pytest.raises(InputError) as caught:
        build(name, {"lr": 0.1, "batch_size": 32, **values})
    assert fault in str(caught.value)


def test_what_torch_itself_refuses_is_told_in_its_words() -> None:
    policy = build("torch:CosineAnnealingWarmRestarts", {"lr": 0.1, "batch_size": 32, "T_0": 0})
    with pytest.raises(InputError, match="torch:CosineAnnealingWarmRestarts refuses its parameters or the run"):
        policy.settings(0, (), Run(64, 2))
