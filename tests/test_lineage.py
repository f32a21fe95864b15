"""Lineage: names are recomputed by hand, know every field, and are shared where training is the same."""

from __future__ import annotations

import struct
from dataclasses import fields, replace
from hashlib import blake2b

import pytest

from lrstudy.lineage import Root, chain, extend
from lrstudy.policies import build
from lrstudy.policies.run import Run
from lrstudy.settings import Recipe, Settings

ROOT = Root(
    data="aa",
    split="bb",
    preprocessing={"size": 8, "mean": [0.5]},
    model={"name": "mlp"},
    weights="random",
    seed=7,
    numerics={"device": "cpu", "threads": 1},
)
FIRST = Settings([0.5, 0.25], 0.9, 2)
SECOND = Settings([0.125], 0.0, 4)

OTHER_ROOT = {
    "data": "ab",
    "split": "bc",
    "preprocessing": {"size": 9, "mean": [0.5]},
    "model": {"name": "cnn"},
    "weights": "cc",
    "seed": 8,
    "numerics": {"device": "cpu", "threads": 2},
    "source": "dd",
    "task": "binary",
    "semantics": 2,
}

SCALARS = (
    b'{"alpha":null,"augment":"none","batch_size":%d,"batchnorm":"train","beta2":null,"class_weights":null,'
    b'"clip_norm":null,"eps":null,"input":"images","loss":"cross_entropy","micro_batch":null,"nesterov":false,"norm_batch":null,'
    b'"optimizer":"sgd","reset_optimizer":false,"shape":[%d,1],"tail":"keep","trainable":[],"weight_decay":0.0}'
)


def by_hand(*parts: bytes) -> str:
    framed = b"".join(struct.pack("<Q", len(part)) + part for part in parts)
    return blake2b(framed, digest_size=16, person=b"lrstudy-lineage1").hexdigest()


def test_names_recomputed_by_hand() -> None:
    root = (
        b'{"data":"aa","model":{"name":"mlp"},"numerics":{"device":"cpu","threads":1},'
        b'"preprocessing":{"mean":[0.5],"size":8},"seed":7,"semantics":1,"source":"","split":"bb","task":"multiclass",'
        b'"weights":"random"}'
    )
    first = SCALARS % (2, 2) + b"\n" + struct.pack("<2d", 0.5, 0.25) + struct.pack("<2d", 0.9, 0.9)
    second = SCALARS % (4, 1) + b"\n" + struct.pack("<d", 0.125) + struct.pack("<d", 0.0)
    name0 = by_hand(b"root", root)
    name1 = by_hand(bytes.fromhex(name0), first)
    name2 = by_hand(bytes.fromhex(name1), second)
    assert ROOT.name() == name0
    assert extend(name0, FIRST) == name1
    assert list(chain(name0, [FIRST, SECOND])) == [name1, name2]


def test_a_name_never_changes_by_accident() -> None:
    """Frozen: if this fails, every stored state has lost its name. Raise SEMANTICS only if that is meant."""
    assert list(chain(ROOT.name(), [FIRST, SECOND]))[-1] == "8141a571c43dc453e9e956d2c86eb667"


@pytest.mark.parametrize("name", [f.name for f in fields(Root)])
def test_every_field_of_the_root_changes_the_name(name: str) -> None:
    assert replace(ROOT, **{name: OTHER_ROOT[name]}).name() != ROOT.name()


def test_the_order_of_keys_does_not_change_the_name() -> None:
    assert replace(ROOT, numerics={"threads": 1, "device": "cpu"}).name() == ROOT.name()


def test_the_order_of_epochs_changes_the_name() -> None:
    forth, back = (list(chain(ROOT.name(), order)) for order in ([FIRST, SECOND], [SECOND, FIRST]))
    assert not set(forth) & set(back)


def test_one_difference_changes_all_later_names() -> None:
    one, other = (list(chain(ROOT.name(), [FIRST, odd, FIRST, FIRST])) for odd in (FIRST, SECOND))
    assert [a == b for a, b in zip(one, other, strict=True)] == [True, False, False, False]


def names(policy: str, epochs: int, recipe: Recipe | None = None, **parameters: object) -> list[str]:
    """The names of all states of a run: 250 examples, batch 20, so 13 updates per epoch."""
    made = build(policy, {"lr": 0.1, "batch_size": 20, **parameters})
    run = Run(num_examples=250, num_epochs=epochs, recipe=recipe or Recipe())
    return list(chain(ROOT.name(), (made.settings(epoch, (), run) for epoch in range(epochs))))


def shared(one: list[str], other: list[str]) -> int:
    """Number of equal names at the start; none may be equal after the first unequal one."""
    common = len(set(one) & set(other))
    assert one[:common] == other[:common]
    return common


def test_constant_is_step_until_the_first_milestone() -> None:
    constant = names("constant", 8)
    assert shared(constant, names("step", 8, milestones=[3, 6])) == 3
    assert shared(constant, names("batch_increase", 8, milestones=["50%"])) == 4
    assert shared(constant, names("step", 8, milestones=[0])) == 0
    assert shared(constant, names("step", 8, milestones=[8])) == 8


def test_step_and_batch_increase_part_at_the_milestone() -> None:
    steps = names("step", 9, milestones=[4, 6])
    assert shared(steps, names("step", 9, milestones=[4, 7])) == 6
    assert shared(steps, names("batch_increase", 9, milestones=[4, 6])) == 4


def test_a_cap_changes_nothing_until_a_batch_meets_it() -> None:
    free = names("batch_increase", 9, milestones=[2, 4, 6], factor=2)
    assert shared(free, names("batch_increase", 9, milestones=[2, 4, 6], factor=2, cap=100)) == 6


def test_triangular_is_triangular2_for_the_first_cycle() -> None:
    one, other = (names("clr", 9, mode=mode, step_size=2) for mode in ("triangular", "triangular2"))
    assert shared(one, other) == 4


def test_a_long_sgdr_run_contains_the_short_one() -> None:
    for t_mult in (1, 2, 3):
        half, whole = (names("sgdr", epochs, t0=2, t_mult=t_mult) for epochs in (30, 60))
        assert shared(half, whole) == 30


def test_sgdr_shares_the_first_cycle_whatever_its_t_mult() -> None:
    one, two, three = (names("sgdr", 9, t0=3, t_mult=t_mult) for t_mult in (1, 2, 3))
    assert shared(one, two) == shared(two, three) == shared(one, three) == 3


def test_a_duration_has_one_name_however_it_is_written() -> None:
    for policy, parameter in (("clr", "step_size"), ("sgdr", "t0")):
        ways = [names(policy, 8, **{parameter: way}) for way in (2, 2.0, "2", "25%", "100/4%", "26u")]
        assert all(way == ways[0] for way in ways)


def test_rates_that_differ_in_the_tenth_digit_are_the_same_training() -> None:
    assert names("constant", 2, lr=0.1) == names("constant", 2, lr=0.10000000004)
    assert not set(names("constant", 2, lr=0.1)) & set(names("constant", 2, lr=0.100000001))


def test_the_recipe_is_in_every_name() -> None:
    assert not set(names("constant", 2)) & set(names("constant", 2, Recipe(augment="flip")))
