"""Who trains, who validates, who tests: index arrays that depend on labels, rule and seed alone.

Every example draws one 64-bit key per purpose from the raw stream of PCG64, whose values NumPy keeps
across versions, and a part takes the examples with the lowest keys. So a smaller `subset` lies within a
larger one (under `random` exactly, under `stratified` up to one example per class).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lrstudy.data.cells import TEST, VALIDATION
from lrstudy.data.labels import Labels, class_counts, strata
from lrstudy.data.spec import ByColumn, SplitSpec
from lrstudy.errors import Fault, InputError, unknown

Indices = NDArray[np.int64]
Keys = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Splits:
    """Indices into the data set: int64, sorted, disjoint. `digest` (32 hex digits) names all three."""

    train: Indices
    validation: Indices
    test: Indices
    digest: str


def split(
    labels: Labels,
    part: NDArray[np.uint8],
    spec: SplitSpec,
    subset: int | None = None,
    classes: Sequence[str] = (),
    group: Indices | None = None,
    groups: Sequence[str] = (),
) -> Splits:
    """Divide the examples: first the test part, then `subset` of the rest, of which some validate.

    A fraction or count of test is taken from all examples that are not `given` to validation; then of
    `subset` (which also thins a given validation part, in proportion); then validation takes its own from
    what is left. A part that the source gives but the spec draws by fraction or count returns to the pool.

    `stratified`: each class gives its share, by largest remainder, so that counts are exact; it keeps at
    least one example for training as long as larger classes can give instead. A class too small for its
    share to reach one example is then absent from validation or test. That is allowed, because refusing
    would shut out rare classes: metrics averaged over classes must skip it.

    `group`: the groups that `group` numbers are never divided: groups are drawn, those left out that would lead away from
    the share, so counts are not exact. A part that is chosen by a column is a given one here.

    `classes` and `groups` name classes and groups in messages. Raises InputError for a fraction outside its range, a part
    that is `given` but not there, an empty part, a class without a training example, and a group in two parts.
    """
    _check(spec, subset, group)
    test_fraction, validation_fraction = _fraction(spec.test), _fraction(spec.validation)
    by_group = group if spec.by == "group" else None
    drawn_by = strata(labels) if spec.by == "stratified" else np.zeros(len(labels), dtype=np.int64)
    given_test, given_validation = part == TEST, part == VALIDATION
    everyone = np.arange(len(labels), dtype=np.int64)

    if test_fraction == "given":
        test = _given("test", everyone[given_test])
    else:
        drawn_from = everyone[~given_validation] if validation_fraction == "given" else everyone
        test = _draw("test", test_fraction, drawn_from, drawn_by, spec.seed, by_group, leave=True)
    rest = np.setdiff1d(everyone, test, assume_unique=True)

    if validation_fraction == "given":
        _given("validation", rest[given_validation[rest]])
        drawn_by = drawn_by * 2 + given_validation
    if subset is not None:
        rest = _draw("subset", subset, rest, drawn_by, spec.seed, by_group, leave=False)

    if validation_fraction == "given":
        validation = rest[given_validation[rest]]
    else:
        validation = _draw("validation", validation_fraction, rest, drawn_by, spec.seed, by_group, leave=True)
    train = np.setdiff1d(rest, validation, assume_unique=True)

    _check_training_part(labels, train, validation, classes)
    if group is not None:
        _check_groups(group, groups, {"train": train, "validation": validation, "test": test})
    return Splits(train, validation, test, _digest(train, validation, test))


def _fraction(fraction: float | int | Literal["given"] | ByColumn) -> float | int | Literal["given"]:
    return "given" if isinstance(fraction, ByColumn) else fraction


def _check(spec: SplitSpec, subset: int | None, group: Indices | None) -> None:
    faults: list[Fault] = []
    if spec.by == "group" and group is None:
        problem = "group needs a column of groups; name it as data: {source: ..., group: COLUMN}"
        faults.append(Fault("split.by", problem))
    for name, fraction in (("test", spec.test), ("validation", spec.validation)):
        field = f"split.{name}"
        if fraction == "given" or isinstance(fraction, ByColumn):
            continue
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)):
            faults.append(Fault(field, expected="a fraction, a count or 'given'", got=f"{fraction!r}"))
        elif isinstance(fraction, float) and not 0 < fraction < 1:
            faults.append(Fault(field, expected="a fraction between 0 and 1, exclusive", got=f"{fraction!r}"))
        elif isinstance(fraction, int) and fraction < 1:
            faults.append(Fault(field, expected="a count of at least 1", got=f"{fraction!r}"))
    if subset is not None and subset < 2:
        faults.append(Fault("subset", expected="at least 2 examples", got=f"{subset!r}"))
    if spec.by not in ("stratified", "group", "random"):
        faults.append(unknown("split.by", "rule", spec.by, ("stratified", "group", "random")))
    if faults:
        raise InputError(faults)


def _given(name: str, indices: Indices) -> Indices:
    if not len(indices):
        instead = {"test": "0.2", "validation": "0.15"}[name]
        raise InputError(
            Fault(
                f"split.{name}",
                f"the data gives no {name} part; write a fraction or a count instead of 'given', such as `split.{name}: "
                f"{instead}`",
            )
        )
    return indices


def _draw(
    name: str,
    fraction: float | int,
    pool: Indices,
    groups: NDArray[Any],
    seed: int,
    by_group: Indices | None,
    *,
    leave: bool,
) -> Indices:
    """Sorted indices of the part drawn from `pool`; with `leave`, it must not be all of it."""
    field = "subset" if name == "subset" else f"split.{name}"
    count = round(fraction * len(pool)) if isinstance(fraction, float) else fraction
    most = len(pool) - 1 if leave else len(pool)
    if not 1 <= count <= most:
        raise InputError(Fault(field, f"{fraction!r} asks for {count} of {len(pool)} examples; expected 1 to {most}"))
    if by_group is not None:
        return _draw_whole(field, count, pool, by_group, _keys(name, seed, int(by_group.max()) + 1), leave=leave)
    members, sizes = np.unique(groups[pool], return_inverse=True, return_counts=True)[1:]
    keys = _keys(name, seed, len(groups))[pool]
    order = np.lexsort((pool, keys, members))
    rank = np.arange(len(pool)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = order[rank < np.repeat(_quotas(count, sizes, leave), sizes)]
    return np.sort(pool[chosen])


def _draw_whole(field: str, count: int, pool: Indices, group: Indices, keys: Keys, *, leave: bool) -> Indices:
    """Sorted indices of whole groups, in the order of their keys, leaving out those that would lead away from `count` examples."""
    numbers, sizes = np.unique(group[pool], return_counts=True)
    if leave and len(numbers) < 2:
        raise InputError(Fault(field, f"all {len(pool)} examples are of one group, which cannot be divided"))
    order = np.argsort(keys[numbers], kind="stable").tolist()
    taken_at: list[int] = []
    reached = 0
    for k in order:
        if len(taken_at) < len(numbers) - leave and abs(reached + sizes[k] - count) < abs(reached - count):
            taken_at.append(k)
            reached += int(sizes[k])
    taken_at = taken_at or [min(order, key=lambda k: sizes[k])]
    taken = numbers[taken_at]
    return np.sort(pool[np.isin(group[pool], taken)])


def _check_groups(group: Indices, names: Sequence[str], parts: dict[str, Indices]) -> None:
    """Raise InputError if a group lies in two parts: what is learnt of it in one would be tested in the other."""
    for (one, first), (other, second) in combinations(parts.items(), 2):
        shared = np.intersect1d(group[first], group[second])
        if len(shared):
            shown = ", ".join(repr(names[k]) for k in shared[:5].tolist()) + (", ..." if len(shared) > 5 else "")
            raise InputError(
                Fault(
                    "split",
                    f"{len(shared)} groups lie in both {one} and {other} ({shown}), so results would be too good",
                    advice="Write split.by: group with fractions or counts, or repair the parts that the data gives.",
                )
            )


def _quotas(count: int, sizes: Indices, leave: bool) -> Indices:
    """How many each group gives: proportional to its size, rounded by largest remainder, `count` in all.

    With `leave`, a group that would give its last example is asked last. Ties go to the earlier group.
    """
    whole, remainder = np.divmod(count * sizes, sizes.sum())
    last_example = (whole + 1 >= sizes) & leave
    order = np.lexsort((np.arange(len(sizes)), -remainder, last_example))
    whole[order[: count - whole.sum()]] += 1
    return np.asarray(whole, dtype=np.int64)


def _keys(purpose: str, seed: int, num_examples: int) -> Keys:
    entropy = blake2b(f"split/{purpose}/{seed}".encode(), digest_size=16).digest()
    return np.random.PCG64(int.from_bytes(entropy, "little")).random_raw(num_examples)


def _check_training_part(labels: Labels, train: Indices, validation: Indices, classes: Sequence[str]) -> None:
    num_classes = labels.shape[1] if labels.ndim == 2 else max(len(classes), int(labels.max()) + 1)
    counts = class_counts(labels[train], num_classes)
    if not len(validation):
        raise InputError(Fault("subset", "no example of the given validation part is left; raise it"))
    absent = [classes[k] if classes else str(k) for k in np.flatnonzero(counts == 0).tolist()]
    if absent:
        names = ", ".join(repr(name) for name in absent[:5]) + (", ..." if len(absent) > 5 else "")
        raise InputError(
            Fault(
                "split",
                f"{len(absent)} of {num_classes} classes have no training example ({names}); take less for test "
                "and validation, raise `subset`, or leave these classes out of the data",
            )
        )


def _digest(*parts: Indices) -> str:
    digest = blake2b(digest_size=16, person=b"lrstudy-split")
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(part, dtype="<i8").tobytes())
    return digest.hexdigest()
