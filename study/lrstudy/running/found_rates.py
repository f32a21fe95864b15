"""The rates that range tests find for the arms of a study: found once, noted in its journal, and kept from then on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lrstudy.config.range_question import EPOCHS_OF_LINEAR
from lrstudy.errors import StorageError
from lrstudy.memo.memo import Memo
from lrstudy.planning.arms import origin
from lrstudy.planning.plan import Plan, with_rates
from lrstudy.planning.rate_questions import RATE
from lrstudy.planning.staged import place
from lrstudy.running import range_tests
from lrstudy.running.range_tests import Measured, RangeTest
from lrstudy.study_folder.journal import Journal

Asked = tuple[str, str]
"""A rate that is to be found: its arm, and which parameter of that it is, `lr` or of a stage `stage2_lr`."""


def asked_by(line: Mapping[str, Any]) -> Asked:
    """The rate that a line of the journal is about; versions without rates of stages did not write the parameter."""
    return line["arm"], line.get("parameter", RATE)


class FoundRates:
    """The rates of a plan's arms that are to be found, as far as they are known; constructing it writes nothing.

    The test of a stage begins with what the stages before have trained, at the rates that were found for these: so tests of
    one arm come one after the other. An arm keeps the rate that its journal has, whatever another test would say: its trials
    must not differ by chance, as tests on a GPU do. Raises InputError if the curve of a recorded test suggests no rate.
    """

    def __init__(self, plan: Plan, memo: Memo, journal: Journal) -> None:
        self._unfound, self._memo, self._journal = plan, memo, journal
        noted = {asked_by(line): float(line["rate"]) for line in journal.of_kind("found")}
        self._asked = {
            name: [rate for rate in dict.fromkeys(arm.rates) if rate in arm.questions]
            for name, arm in plan.arms.items()
            if name not in plan.retired
        }
        keys = ((name, rate) for name, rates in self._asked.items() for rate in rates)
        self._rates = {key: noted[key] for key in keys if key in noted}
        self._handed_out: dict[str, RangeTest] = {}
        self._looked_up: set[str] = set()
        self._paid: set[str] = set()
        self._unnoted: list[tuple[Asked, str, Measured]] = []
        self._go_on()

    @property
    def plan(self) -> Plan:
        """The plan with the rates that are known; others are provisional."""
        return self._plan

    @property
    def tests(self) -> Mapping[Asked, RangeTest]:
        """The tests of all rates that are to be found; of a stage, provisional until the rates before it are known."""
        return self._tests

    @property
    def missing(self) -> Mapping[Asked, RangeTest]:
        """The tests that have not been run; arms may have one in common."""
        return {key: test for key, test in self._tests.items() if key not in self._rates}

    @property
    def has_next(self) -> bool:
        """Whether a test may be handed out."""
        return any(True for _ in self._ready())

    def next(self) -> RangeTest | None:
        """A test to run now; None if all that can be made now have been handed out."""
        test = next(self._ready(), None)
        if test is not None:
            self._handed_out[test.digest] = test
        return test

    def place(self, test: RangeTest) -> str:
        """The field of the study file that asks for a test."""
        return self._origin(next(key for key, other in self._decided.items() if other.digest == test.digest))

    def returned(self, test: RangeTest) -> None:
        """A test has lost its worker: it may be handed out again."""
        self._handed_out.pop(test.digest, None)

    def take(self, test: RangeTest) -> None:
        """A test that was handed out has been run: take the rates from its curve, and note them.

        Raises InputError if it suggests none, StorageError if it is not in the memo.
        """
        measured = range_tests.recalled(self._memo, test)
        if measured is None:
            raise StorageError("storage.path: a range test has just been stored, and cannot be read back.")
        self.returned(test)
        self._paid.add(test.digest)
        self._looked_up.discard(test.digest)
        self._answer(test, measured)
        self._go_on()
        self.note()

    def note(self) -> None:
        """Write rates to the journal that are not there yet."""
        while self._unnoted:
            (arm, rate), test, measured = self._unnoted[0]
            self._journal.write(
                "found", arm=arm, parameter=rate, rate=self._rates[arm, rate], range_test=test, device_s=measured.device_s,
                own=test in self._paid,
            )  # fmt: skip
            self._unnoted.pop(0)

    def notes(self) -> Iterator[str]:
        """How each rate is found, a sentence each."""
        for (arm, rate), test in self._tests.items():
            question = test.question
            length = f"{test.num_updates} updates"
            if question.updates is None:
                length += f" ({EPOCHS_OF_LINEAR} epochs)"
            if test.depth:
                length += f", after epoch {test.depth}"
            how = (
                f"a range test ({question.found}; {question.form} from {question.low:g} to {question.high:g}, {length})"
            )
            if (arm, rate) in self._rates:
                yield f"arms.{arm}: its {place(rate)} is {self._rates[arm, rate]:g}, found by {how}."
            else:
                provisional = self._plan.arms[arm].space[rate].default
                yield (
                    f"arms.{arm}: its {place(rate)} will be found by {how} when the study runs; until then it is planned "
                    f"with {provisional:g}."
                )

    def _go_on(self) -> None:
        """Make the tests with the rates that are known, and take the rates of recorded ones, which lead to further tests.

        Decided are the missing tests whose names are final: the first of each arm, as the rates before it are known.
        """
        while True:
            self._plan = with_rates(self._unfound, self._rates)
            source = {"study": self._journal.study_id, "run": self._journal.run}
            self._tests = {
                (name, rate): range_tests.of_arm(self._plan, name, rate=rate, origin=source)
                for name, rates in self._asked.items()
                for rate in rates
            }
            firsts: dict[str, Asked] = {}
            for key in self.missing:
                firsts.setdefault(key[0], key)
            self._decided = {key: self._tests[key] for key in firsts.values()}
            recorded = [
                (test, measured) for test in self._new() if (measured := range_tests.recalled(self._memo, test))
            ]
            for test, measured in recorded:
                self._answer(test, measured)
            if not recorded:
                return

    def _new(self) -> list[RangeTest]:
        """The decided tests that the memo has not been asked for, each once."""
        new = {test.digest: test for test in self._decided.values() if test.digest not in self._looked_up}
        self._looked_up.update(new)
        return list(new.values())

    def _ready(self) -> Iterator[RangeTest]:
        """The tests that may be handed out: while one makes states or features, others that need these wait for them."""
        making = {name for test in self._handed_out.values() for name in test.needs}
        for test in self._decided.values():
            if test.digest not in self._handed_out and making.isdisjoint(test.needs):
                yield test

    def _answer(self, test: RangeTest, measured: Measured) -> None:
        """Take the rates of all arms with this test from its curve."""
        for key in [key for key, other in self._decided.items() if other.digest == test.digest]:
            self._rates[key] = measured.curve.rate(self._decided[key].question.found, self._origin(key))
            self._unnoted.append((key, test.digest, measured))
            del self._decided[key]

    def _origin(self, asked: Asked) -> str:
        return origin(self._unfound.study, asked[0].partition("@")[0], asked[1])
