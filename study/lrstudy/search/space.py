"""The search space of one arm: its parameters, the conditions between them, and the configurations they make up.

Nothing here depends on a searcher.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from lrstudy.errors import Fault, InputError, unknown
from lrstudy.search.parameter import Configuration, Parameter, Value, is_same


@dataclass(frozen=True)
class Space:
    """The parameters of one arm, in a fixed order (common ones first).

    Raises InputError with all faults if a parameter's `when` names a parameter that does not exist or is a continuous
    range, or if parameters depend on each other in a circle. A `when` with a value that the other parameter cannot have
    is no fault: an arm may have narrowed that parameter, and then this one never exists.
    """

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        names = [p.name for p in self.parameters]
        faults: list[Fault] = []
        for parameter in self.parameters:
            for other in parameter.when:
                if other not in names:
                    faults.append(unknown(f"{parameter.name}.when", "parameter", other, names))
                elif not self[other].values:
                    problem = f"{other} is a continuous range, which never has exactly {parameter.when[other]!r}"
                    advice = f"Give {other} 'steps' or a 'choice'."
                    faults.append(Fault(f"{parameter.name}.when", problem, advice=advice))
        circular = [p.name for p in self.parameters if not faults and p not in self._parents_first]
        if circular:
            faults.append(Fault(f"{circular[0]}.when", f"{', '.join(circular)} depend on each other"))
        if faults:
            raise InputError(faults)

    def __getitem__(self, name: str) -> Parameter:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(p.name == name for p in self.parameters)

    @cached_property
    def searched(self) -> tuple[Parameter, ...]:
        """The parameters that a searcher decides."""
        return tuple(p for p in self.parameters if not p.is_fixed and self.requirements(p.name) is not None)

    @cached_property
    def size(self) -> float:
        """Number of distinct configurations; infinity if a range is continuous."""
        if any(not p.values for p in self.searched):
            return math.inf
        parents = [p for p in self.searched if any(p.name in q.when for q in self.parameters)]
        others = [p for p in self.searched if p not in parents]
        branches = (self.complete(point) for point in self._distinct(parents))
        return sum(math.prod(len(p.values) for p in others if p.name in branch) for branch in branches)

    def requirements(self, name: str) -> dict[str, Value] | None:
        """The values that other parameters must have for this one to exist; None if it can never exist.

        The requirements of its parents are included, over all generations. Fixed parameters are left out.
        """
        needed: dict[str, Value] = {}
        for other, value in self[name].when.items():
            above = self.requirements(other)
            if above is None or not any(is_same(value, listed) for listed in self[other].values):
                return None
            own = {} if self[other].is_fixed else {other: value}
            for key, wanted in [*above.items(), *own.items()]:
                if not is_same(needed.setdefault(key, wanted), wanted):
                    return None
        return needed

    def complete(self, searched: Mapping[str, Value]) -> Configuration:
        """The full configuration for values of searched parameters: fixed ones are added, inactive ones dropped."""
        full: Configuration = {}
        for parameter in self._parents_first:
            if all(key in full and is_same(full[key], value) for key, value in parameter.when.items()):
                fixed = parameter.values[0] if parameter.is_fixed else parameter.default
                full[parameter.name] = searched.get(parameter.name, fixed)
        return {p.name: full[p.name] for p in self.parameters if p.name in full}

    def default(self) -> Configuration:
        """The configuration with every parameter at its default."""
        return self.complete({})

    def encode(self, configuration: Configuration) -> dict[str, float]:
        """The codes of the searched parameters that exist in `configuration`.

        Raises ValueError if it is not a configuration of this space: a value is out of range, a parameter is missing,
        or one is there that should not exist. Values of fixed parameters are not checked.
        """
        codes = {p.name: p.encode(configuration[p.name]) for p in self.searched if p.name in configuration}
        if (names := set(self.complete(configuration))) != set(configuration):
            raise ValueError(f"expected the parameters {sorted(names)}; got {sorted(configuration)}.")
        return codes

    def decode(self, codes: Mapping[str, float]) -> Configuration:
        """The full configuration for codes of searched parameters; those of inactive ones are ignored."""
        return self.complete({p.name: p.decode(codes[p.name]) for p in self.searched if p.name in codes})

    def grid(self) -> Iterator[Configuration]:
        """Every distinct configuration, the first parameter varying slowest.

        Raises InputError if a range is continuous.
        """
        continuous = [p.name for p in self.searched if not p.values]
        if continuous:
            raise InputError(
                Fault(
                    "search.method",
                    f"grid needs finite parameters, but {', '.join(continuous)} is continuous",
                    advice="Give it 'steps: N' or a 'choice'.",
                )
            )
        return (self.complete(point) for point in self._distinct(self.searched))

    def _distinct(self, parameters: Sequence[Parameter]) -> Iterator[Configuration]:
        """Each combination of values of those `parameters` that exist, once; the others have their first value."""
        for values in product(*(p.values for p in parameters)):
            point = {p.name: value for p, value in zip(parameters, values, strict=True)}
            full = self.complete(point)
            if all(p.name in full or point[p.name] is p.values[0] for p in parameters):
                yield point

    @cached_property
    def _parents_first(self) -> tuple[Parameter, ...]:
        """The parameters, each after those it depends on; those that depend on each other in a circle are missing."""
        placed: dict[str, Parameter] = {}
        for _ in self.parameters:
            for parameter in self.parameters:
                if parameter.name not in placed and all(other in placed for other in parameter.when):
                    placed[parameter.name] = parameter
        return tuple(placed.values())
