"""The lag rule of a stream: what a searcher knows when it is asked, in any order of results and after any crash."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import pytest

from lrstudy.search import METHODS, Searcher, stream
from lrstudy.search.parameter import Configuration, parse_parameter
from lrstudy.search.space import Space
from lrstudy.search.stream import Stream, Suggestion
from lrstudy.settings import canonical_json

SPACE = Space(
    (parse_parameter("a", {"uniform": [0, 1], "steps": 40}, "a"), parse_parameter("b", {"choice": list(range(9))}, "b"))
)


class Impressionable(Searcher):
    """Suggests what follows from all that it was told and asked, in order; `knew` counts the results at each ask."""

    knew: list[tuple[int, int]]

    def _propose(self) -> Configuration:
        heard = canonical_json([[key.decode(), self._costs.get(key)] for key in self._codes])
        rng = random.Random(blake2b(heard, digest_size=8).digest())
        self.__dict__.setdefault("knew", []).append((len(self._codes), len(self._costs)))
        grid = list(SPACE.grid())
        return next(point for point in iter(lambda: rng.choice(grid), None) if not self._is_known(point))


@dataclass
class Study:
    """A stream whose trials end in random order on `slots` slots; `run` may be cut off, and begins again from the journal."""

    cohort: int
    outstanding: int
    slots: int
    rng: random.Random
    num_trials: int = 20
    suggested: dict[int, Suggestion] = field(default_factory=dict)
    told: dict[int, float | None] = field(default_factory=dict)

    def run(self, method: str = "hyperopt", stop_after: int | None = None) -> Mapping[int, Suggestion]:
        # A crash loses which trials ran, and nothing that the journal has.
        points = list(SPACE.grid())[:: 360 // max(self.cohort, 1)][: self.cohort]
        made = Stream(method, SPACE, 0, points, self.num_trials, self.outstanding, dict(self.suggested))
        for index, cost in self.told.items():
            made.result(index, cost)
        running: list[int] = []
        waiting: list[int] = []
        steps = 0
        while True:
            while made.can_ask and (suggestion := made.ask()) is not None:
                index = len(made.asked) - 1
                assert self.suggested.setdefault(index, suggestion) == suggestion
                waiting += [index] if index not in self.told else []
            while waiting and len(running) < self.slots:
                running.append(waiting.pop(self.rng.randrange(len(waiting))))
            if not running or steps == stop_after:
                assert made.is_complete or running, "deadlock"
                return self.suggested
            steps += 1
            ended = running.pop(self.rng.randrange(len(running)))
            self.told[ended] = None if ended % 7 == 3 else (ended * 37 % 11) / 11
            made.result(ended, self.told[ended])


@pytest.fixture
def asked(monkeypatch) -> list[Impressionable]:
    """The searchers that streams make."""
    made: list[Impressionable] = []

    def make(method: str, space: Space, seed: int) -> Impressionable:
        made.append(Impressionable(space, seed))
        return made[-1]

    monkeypatch.setattr(stream, "make", make)
    return made


@pytest.mark.parametrize("cohort", [0, 1, 2, 5, 9, 20])
@pytest.mark.parametrize("outstanding", [1, 2, 4, 7, 11, 16])
def test_the_searcher_knows_the_whole_cohort_and_all_but_the_last_results(asked, cohort, outstanding):
    """Suggestion i has been told exactly the results 0 ... max(C, i-W+1)-1, whatever ended first."""
    for seed in range(5):
        asked.clear()
        Study(cohort, outstanding, 1 + 5 * seed, random.Random(seed)).run()
        knew = asked[0].knew if asked else []
        expected = [(i, max(cohort, i - outstanding + 1)) for i in range(cohort, 20)]
        assert knew == expected


@pytest.mark.parametrize("outstanding", range(1, 17))
def test_neither_order_nor_slots_nor_crashes_change_a_suggestion(asked, outstanding):
    """2,000 studies in all, half of them killed three times; none waits for ever."""
    rng = random.Random(outstanding)
    for _ in range(25):
        cohort = rng.randrange(0, 12)
        expected = dict(Study(cohort, outstanding, 1, random.Random(0)).run())
        for _ in range(5):
            study = Study(cohort, outstanding, rng.randint(1, 40), random.Random(rng.random()))
            for _ in range(rng.choice([0, 3])):
                study.run(stop_after=rng.randrange(12))
            assert study.run() == expected


def test_a_searcher_that_ignores_results_is_not_held_back_by_the_cohort():
    for method in ("random", "grid"):
        made = Stream(method, SPACE, 0, list(SPACE.grid())[:3], 12, 8)
        while made.can_ask:
            made.ask()
        assert len(made.asked) == 8, "a window of 8, without any result"


@pytest.mark.parametrize("method", METHODS)
def test_who_proposed_is_known_of_every_suggestion(method):
    cohort = [SPACE.default(), *list(SPACE.grid())[:3]]
    made = Stream(method, SPACE, 0, cohort, 8, 4)
    while made.can_ask:
        made.ask()
        made.result(len(made.asked) - 1, len(made.asked) / 10)
    own = {"random": "random", "grid": "grid"}.get(method, "model")
    assert [suggestion.proposed_by for suggestion in made.asked] == ["default", *["cohort"] * 3, *[own] * 4]


@pytest.mark.parametrize("method", ["hyperopt", "smac", "optuna"])
@pytest.mark.parametrize("outstanding", [4, 9, 32])
def test_all_after_a_cohort_is_a_models(method, outstanding):
    """Under the rule without the C, a W of 9 left 16 trials no suggestion by a model, and 4 one of 8."""
    study = Study(2, outstanding, 3, random.Random(1), num_trials=8)
    assert [suggestion.proposed_by for suggestion in study.run(method).values()][2:] == ["model"] * 6


def test_suggestions_of_an_earlier_rule_are_made_again_and_new_ones_follow_this_one(asked):
    points = list(SPACE.grid())
    remembered = {i: Suggestion(points[100 + i], "random") for i in range(4, 9)}
    study = Study(4, 4, 2, random.Random(0), num_trials=12, suggested=dict(remembered))
    found = study.run()
    assert {i: found[i] for i in remembered} == remembered
    assert asked[0].knew == [(i, i - 3) for i in range(9, 12)]
    assert asked[0]._is_known(points[104]), "the remembered one is what it was told of"


def test_a_searcher_is_not_made_for_what_is_remembered(asked):
    study = Study(4, 4, 2, random.Random(0))
    study.run()
    asked.clear()
    study.run()
    assert asked == []
