"""Division into training, validation and test parts: index arrays that depend only on labels, rule and seed.

Every example gets one 64-bit key per purpose from the raw stream of PCG64, whose values NumPy keeps across versions,
and a part takes the examples with the lowest keys. So a smaller `subset` is contained in a larger one (exactly under
``random``, up to one example per class under ``stratified``).
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
"""One random key per example, or per group."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Indices into the data set: int64, sorted, disjoint. `digest` (32 hexadecimal digits) covers all three."""

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
    """Divide the examples: first take the test part, then reduce the rest to `subset`, then take validation from that.

    A fraction or count of test is taken from all examples that are not ``given`` to validation. `subset` is taken from
    what is left, and also reduces a given validation part, in proportion. Validation is taken from the subset. A part
    that the source gives but the spec draws by fraction or count returns to the pool; one that is chosen by a column
    counts as given here.

    ``stratified``: each class contributes in proportion to its size, by largest remainder, so counts are exact. A class
    keeps at least one example for training as long as larger classes can contribute instead. A class too small for its
    share to reach one example is then absent from validation or test. That is allowed, because refusing it would
    exclude rare classes: metrics averaged over classes must skip it.

    ``group``: whole groups are drawn, and those that would lead away from the wanted count are skipped, so counts are
    not exact.

    Args:
        labels: Class numbers, int64 (N,), or uint8 0 and 1 of shape (N, classes).
        part: The part that the source assigns, uint8 (N,): POOL, VALIDATION or TEST.
        spec: How to divide.
        subset: How many of the examples outside the test part to keep; None keeps all.
        classes: Names of the classes, for messages.
        group: Group number of each example, int64 (N,); needed by ``group``. With any rule no group may be in two
            parts.
        groups: Names of the groups, for messages.

    Returns:
        Sorted, disjoint indices of the three parts.

    Raises:
        InputError: A fraction or count out of range, a part that is ``given`` but not there, an empty part, a class
            without a training example, or a group in two parts.
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
        test = _draw("test", test_fraction, drawn_from, drawn_by, spec.seed, by_group, leaves_some=True)
    rest = np.setdiff1d(everyone, test, assume_unique=True)

    if validation_fraction == "given":
        _given("validation", rest[given_validation[rest]])
        drawn_by = drawn_by * 2 + given_validation
    if subset is not None:
        rest = _draw("subset", subset, rest, drawn_by, spec.seed, by_group, leaves_some=False)

    if validation_fraction == "given":
        validation = rest[given_validation[rest]]
    else:
        validation = _draw("validation", validation_fraction, rest, drawn_by, spec.seed, by_group, leaves_some=True)
    train = np.setdiff1d(rest, validation, assume_unique=True)

    _check_training_part(labels, train, validation, classes)
    if group is not None:
        _check_groups(group, groups, {"train": train, "validation": validation, "test": test})
    return Splits(train, validation, test, _digest(train, validation, test))


def _fraction(fraction: float | int | Literal["given"] | ByColumn) -> float | int | Literal["given"]:
    return "given" if isinstance(fraction, ByColumn) else fraction


def _check(spec: SplitSpec, subset: int | None, group: Indices | None) -> None:
    """Raise InputError with every fault of the spec that is visible without the examples."""
    faults: list[Fault] = []
    if spec.by == "group" and group is None:
        problem = "group needs a column of groups; name it as data: {source: ..., group: COLUMN}"
        faults.append(Fault("split.by", problem))
    for name, fraction in (("test", spec.test), ("validation", spec.validation)):
        if expected := _expected_instead(fraction):
            faults.append(Fault(f"split.{name}", expected=expected, got=f"{fraction!r}"))
    if subset is not None and subset < 2:
        faults.append(Fault("subset", expected="at least 2 examples", got=f"{subset!r}"))
    if spec.by not in ("stratified", "group", "random"):
        faults.append(unknown("split.by", "rule", spec.by, ("stratified", "group", "random")))
    if faults:
        raise InputError(faults)


def _expected_instead(fraction: object) -> str:
    """What a study should have instead of `fraction`; empty if it is valid."""
    if fraction == "given" or isinstance(fraction, ByColumn):
        return ""
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)):
        return "a fraction, a count or 'given'"
    if isinstance(fraction, float):
        return "" if 0 < fraction < 1 else "a fraction between 0 and 1, exclusive"
    return "" if fraction >= 1 else "a count of at least 1"


def _given(name: str, indices: Indices) -> Indices:
    """`indices` of the part that the source gives. Raises InputError if there are none."""
    if not len(indices):
        instead = {"test": "0.2", "validation": "0.15"}[name]
        raise InputError(
            Fault(
                f"split.{name}",
                f"the data gives no {name} part; write a fraction or a count instead of 'given', such as "
                f"`split.{name}: {instead}`",
            )
        )
    return indices


def _draw(
    name: str,
    fraction: float | int,
    pool: Indices,
    stratum_of: NDArray[Any],
    seed: int,
    by_group: Indices | None,
    *,
    leaves_some: bool,
) -> Indices:
    """Sorted indices of the part drawn from `pool`: in proportion from each stratum, or whole groups if `by_group`.

    With `leaves_some` it may not be the whole pool. Raises InputError for a count out of range.
    """
    field = "subset" if name == "subset" else f"split.{name}"
    count = round(fraction * len(pool)) if isinstance(fraction, float) else fraction
    most = len(pool) - 1 if leaves_some else len(pool)
    if not 1 <= count <= most:
        raise InputError(Fault(field, f"{fraction!r} asks for {count} of {len(pool)} examples; expected 1 to {most}"))
    if by_group is not None:
        keys = _keys(name, seed, int(by_group.max()) + 1)
        return _draw_groups(field, count, pool, by_group, keys, leaves_some=leaves_some)
    stratum, sizes = np.unique(stratum_of[pool], return_inverse=True, return_counts=True)[1:]
    keys = _keys(name, seed, len(stratum_of))[pool]
    order = np.lexsort((pool, keys, stratum))
    rank = np.arange(len(pool)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = order[rank < np.repeat(_quotas(count, sizes, leaves_some), sizes)]
    return np.sort(pool[chosen])


def _draw_groups(field: str, count: int, pool: Indices, group: Indices, keys: Keys, *, leaves_some: bool) -> Indices:
    """Sorted indices of whole groups, taken in the order of their keys.

    A group that would lead away from `count` examples is skipped, but at least one is taken. Raises InputError, placed
    at `field`, if `leaves_some` and there is only one.
    """
    numbers, sizes = np.unique(group[pool], return_counts=True)
    if leaves_some and len(numbers) < 2:
        raise InputError(Fault(field, f"all {len(pool)} examples are of one group, which cannot be divided"))
    order = np.argsort(keys[numbers], kind="stable").tolist()
    taken: list[int] = []
    num_examples = 0
    for k in order:
        is_closer = abs(num_examples + sizes[k] - count) < abs(num_examples - count)
        if is_closer and len(taken) < len(numbers) - leaves_some:
            taken.append(k)
            num_examples += int(sizes[k])
    taken = taken or [min(order, key=lambda k: sizes[k])]
    return np.sort(pool[np.isin(group[pool], numbers[taken])])


def _check_groups(group: Indices, names: Sequence[str], parts: dict[str, Indices]) -> None:
    """Raise InputError if a group is in two parts: what is learnt about it in one would be tested in the other."""
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


def _quotas(count: int, sizes: Indices, leaves_some: bool) -> Indices:
    """How many examples each stratum contributes: proportional to its size, by largest remainder, `count` in all.

    With `leaves_some`, a stratum that would lose its last example gets a remainder last. Ties go to the earlier
    stratum.
    """
    whole, remainder = np.divmod(count * sizes, sizes.sum())
    is_emptied = (whole + 1 >= sizes) & leaves_some
    order = np.lexsort((np.arange(len(sizes)), -remainder, is_emptied))
    whole[order[: count - whole.sum()]] += 1
    return np.asarray(whole, dtype=np.int64)


def _keys(purpose: str, seed: int, num_keys: int) -> Keys:
    entropy = blake2b(f"split/{purpose}/{seed}".encode(), digest_size=16).digest()
    return np.random.PCG64(int.from_bytes(entropy, "little")).random_raw(num_keys)


def _check_training_part(labels: Labels, train: Indices, validation: Indices, classes: Sequence[str]) -> None:
    """Raise InputError if validation is empty or a class has no training example."""
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
