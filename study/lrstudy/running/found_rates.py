"""The rates that range tests find for the arms of a study: found once, noted in its journal, and kept from then on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lrstudy.config.range_question import EPOCHS_OF_LINEAR
from lrstudy.errors import StorageError
from lrstudy.memo.memo import Memo
from lrstudy.planning.arms import origin
from lrstudy.planning.plan import Plan, with_rates
from lrstudy.planning.rate_questions import RATE
from lrstudy.running import range_tests
from lrstudy.running.range_tests import Measured, RangeTest
from lrstudy.study_folder.journal import Journal


class FoundRates:
    """The rates of a plan's arms that are to be found, as far as they are known; constructing it writes nothing.

    An arm keeps the rate that its journal has, whatever another test would say: its trials must not differ by chance, as
    tests on a GPU do. Raises InputError if the curve of a recorded test suggests no rate.
    """

    def __init__(self, plan: Plan, memo: Memo, journal: Journal) -> None:
        self._plan, self._memo, self._journal = plan, memo, journal
        noted = {line["arm"]: float(line["rate"]) for line in journal.of_kind("found")}
        asked = [name for name, arm in plan.arms.items() if arm.question is not None and name not in plan.retired]
        self._rates = {name: noted[name] for name in asked if name in noted}
        self._tests = {name: range_tests.of_arm(plan, name) for name in asked}
        self._handed_out: set[str] = set()
        self._unnoted: list[tuple[str, Measured]] = []
        for test in {test.digest: test for name, test in self._tests.items() if name not in self._rates}.values():
            if (measured := range_tests.recalled(memo, test)) is not None:
                self._answer(test, measured)

    @property
    def plan(self) -> Plan:
        """The plan with the rates that are known; others are provisional."""
        return with_rates(self._plan, self._rates)

    @property
    def tests(self) -> Mapping[str, RangeTest]:
        """The tests of all arms whose rates are to be found."""
        return self._tests

    @property
    def missing(self) -> Mapping[str, RangeTest]:
        """The tests that have not been run, by arm; arms may have one in common."""
        return {name: test for name, test in self._tests.items() if name not in self._rates}

    @property
    def has_next(self) -> bool:
        """Whether a test may be handed out."""
        return any(test.digest not in self._handed_out for test in self.missing.values())

    def next(self) -> RangeTest | None:
        """A test to run now; None if all have been handed out."""
        test = next((test for test in self.missing.values() if test.digest not in self._handed_out), None)
        if test is not None:
            self._handed_out.add(test.digest)
        return test

    def place(self, test: RangeTest) -> str:
        """The field of the study file that asks for a test."""
        return self._origin(next(name for name, other in self._tests.items() if other.digest == test.digest))

    def returned(self, test: RangeTest) -> None:
        """A test has lost its worker: it may be handed out again."""
        self._handed_out.discard(test.digest)

    def take(self, test: RangeTest) -> None:
        """A test that was handed out has been run: take the rates from its curve, and note them.

        Raises InputError if it suggests none, StorageError if it is not in the memo.
        """
        measured = range_tests.recalled(self._memo, test)
        if measured is None:
            raise StorageError("storage.path: a range test has just been stored, and cannot be read back.")
        self._answer(test, measured)
        self.note(is_own=True)

    def note(self, is_own: bool = False) -> None:
        """Write rates to the journal that are not there yet; `is_own`: this study has paid for their test."""
        while self._unnoted:
            arm, measured = self._unnoted[0]
            self._journal.write(
                "found", arm=arm, rate=self._rates[arm], range_test=self._tests[arm].digest, device_s=measured.device_s, own=is_own
            )  # fmt: skip
            self._unnoted.pop(0)

    def notes(self) -> Iterator[str]:
        """How the rate of each arm is found, a sentence each."""
        for name, test in self._tests.items():
            question = test.question
            length = f"{test.num_updates} updates"
            if question.updates is None:
                length += f" ({EPOCHS_OF_LINEAR} epochs)"
            how = (
                f"a range test ({question.found}; {question.form} from {question.low:g} to {question.high:g}, {length})"
            )
            if name in self._rates:
                yield f"arms.{name}: its {RATE} is {self._rates[name]:g}, found by {how}."
            else:
                provisional = self._plan.arms[name].space[RATE].default
                yield (
                    f"arms.{name}: its {RATE} will be found by {how} when the study runs; until then it is planned with "
                    f"{provisional:g}."
                )

    def _answer(self, test: RangeTest, measured: Measured) -> None:
        """Take the rates of all arms with this test from its curve."""
        for name, other in self.missing.items():
            if other.digest == test.digest:
                self._rates[name] = measured.curve.rate(other.question.found, self._origin(name))
                self._unnoted.append((name, measured))

    def _origin(self, arm: str) -> str:
        return origin(self._plan.study, arm.partition("@")[0], RATE)
