"""Points that cover a space evenly, from Halton's sequence: the cohort is drawn with it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lrstudy.search.parameter import Configuration, Parameter
from lrstudy.settings import canonical_json


def spread(parameters: Sequence[Parameter], count: int) -> list[Configuration]:
    """`count` points over `parameters`: the defaults first, then points that cover the ranges evenly.

    The points follow Halton's sequence (Numerische Mathematik, 1960), whose second half falls between the points of the
    first. Base 2 goes to the parameter with most values. (Additive recurrences cover planes well but lines badly: with
    two parameters, 8 points of Roberts' R2 had only 4 of 10 learning rates; 8 of these have 8.) Points repeat only if
    there are fewer distinct ones than `count`. `when` is ignored: a point holds a value for every parameter, and
    Space.complete drops those that do not exist.
    """
    searched = [p for p in parameters if not p.is_fixed]
    axes = sorted(searched, key=lambda p: -len(p.values) if p.values else -math.inf)
    fixed = {p.name: p.values[0] for p in parameters if p.is_fixed}
    centre = fixed | {p.name: p.default for p in searched}
    points, seen = [centre], {canonical_json(centre)}
    bases = _primes(len(axes))
    for index in range(2, 64 * count):  # index 1 is the centre in base 2; the defaults take its place
        if len(points) >= count or not searched:
            break
        drawn = {p.name: p.at(_mirrored(index, base)) for p, base in zip(axes, bases, strict=True)}
        point = {name: drawn.get(name, value) for name, value in centre.items()}
        if (key := canonical_json(point)) not in seen:
            seen.add(key)
            points.append(point)
    distinct = len(points)
    while len(points) < count:
        points.append(points[len(points) % distinct])
    return points[:count]


def _mirrored(index: int, base: int) -> float:
    """The digits of `index` in `base`, mirrored at the radix point: in base 2, 1, 2 and 3 give 1/2, 1/4 and 3/4."""
    result, unit = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        unit /= base
        result += digit * unit
    return result


def _primes(count: int) -> list[int]:
    primes: list[int] = []
    candidate = 2
    while len(primes) < count:
        if all(candidate % prime for prime in primes):
            primes.append(candidate)
        candidate += 1
    return primes
