"""The waiting line hands out what the plain rule does, which looks at every waiting trial every time, in the same order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from benchmarks.simulation import simulate

from lrstudy.memo.records import Record
from lrstudy.planning.plan import Plan
from lrstudy.running.admission import Admission
from lrstudy.running.trials import Trial
from lrstudy.running.waiting_line import WaitingLine
from lrstudy.settings import Settings
from study_files import plan_of

ARMS = {
    "constant": "{}",
    "step": "{milestones: {choice: [[4, 6], [2], [6], [4]]}, gamma: {choice: [0.1, 0.5]}}",
    "batch_increase": "{milestones: {choice: [[4, 6], [2], [6], [4]]}, factor: 2, cap: null}",
    "sgdr": "{t0: {choice: [2, 4]}, t_mult: {choice: [1, 2]}, min_ratio: 0}",
    "plateau": "{patience: {choice: [0, 1]}, factor: {choice: [0.2, 0.5]}}",
    "late": "{policy: plateau, patience: {choice: [1, 2]}, factor: 0.5}",
}


class PlainLine:
    """The rule in the fewest lines."""

    def __init__(self, known: Callable[[str], Record | None]) -> None:
        self.known = known
        self.waiting: list[Trial] = []
        self.claims: dict[str, str] = {}
        self.wanted: Counter[str] = Counter()
        self.counted: dict[str, Sequence[str]] = {}

    def __len__(self) -> int:
        return len(self.waiting)

    def add(self, trial: Trial, first: bool = False) -> None:
        self.waiting.insert(0 if first else len(self.waiting), trial)
        self.counted[trial.trial_id] = trial.chain
        self.wanted.update(trial.chain)

    def remove(self, trial: Trial) -> None:
        self.waiting.remove(trial)
        self.wanted.subtract(self.counted.pop(trial.trial_id))

    def claim(self, trial: Trial, names: Iterable[str]) -> None:
        for name in names:
            self.claims.setdefault(name, trial.trial_id)

    def release(self, trial: Trial, chain: Sequence[str]) -> None:
        for name in chain:
            if self.claims.get(name) == trial.trial_id:
                del self.claims[name]

    def learned(self, lineage: str) -> None:
        self.claims.pop(lineage, None)

    def next(self) -> Trial | None:
        best: tuple[tuple[int, int], Trial] | None = None
        for trial in self.waiting:
            walked = trial.walk(self.known)
            missing = () if walked and walked[-1].diverged else trial.chain[len(walked) :]
            if not missing:
                return trial
            if any(name in self.claims for name in missing):
                continue
            importance = (sum(self.wanted[name] for name in missing), len(missing))
            if best is None or importance > best[0]:
                best = (importance, trial)
        return None if best is None else best[1]

    def branches(self, trial: Trial) -> frozenset[int]:
        depths = {sum(1 for a, b in zip(trial.chain, other.chain, strict=False) if a == b) for other in self.waiting}
        return frozenset(depths - {0, len(trial.chain)})


def random_plan(rng: random.Random, slots: int) -> Plan:
    chosen = rng.sample(sorted(ARMS), rng.randint(2, 5))
    arms = "".join(f"  {name}: {ARMS[name]}\n" for name in chosen)
    rates = rng.sample([0.01, 0.02, 0.05, 0.1, 0.2], rng.randint(1, 4))
    return plan_of(
        f"search.outstanding={rng.choice([2, 5, 20])}",
        text=(
            "lrstudy: 1\nname: small\nworkload: {data: digits, subset: 120, split: {test: 0.5, validation: 40}}\n"
            f"budget: {{epochs: 8}}\ncommon: {{lr: {{choice: {rates}}}, batch_size: 20}}\narms:\n{arms}"
            f"search: {{method: {rng.choice(['grid', 'random'])}, trials: {rng.randint(2, 12)}, "
            f"cohort: {rng.choice([0, 2])}, seeds: {rng.choice([[0], [0, 1]])}}}\n"
            f"confirm: {{top: {rng.choice([0, 1])}, seeds: 2}}\ncompare: {{control: {chosen[0]}}}\n"
        ),
        slots=slots,
    )


def handed_out(line: type, plan: Plan, folder: Path, slots: int, deaths: float, seed: int, monkeypatch):
    """Every trial that is handed out, where it stores its state for others, and after how many records it was.

    Where one that only reads the test part stores is left out, as it trains nothing: the plain rule returns it before it has
    replanned the reactive trials behind it.
    """
    handed: list[tuple[str, list[int], int]] = []

    class Watched(Admission):
        def _admit(self, trial: Trial) -> Trial:
            trains = bool(self._missing(trial))
            admitted = super()._admit(trial)
            stores = sorted(trial.spec.store_at) if trains else []
            handed.append((trial.trial_id, stores, len(self.memo._known)))
            return admitted

    with monkeypatch.context() as patched:
        patched.setattr("lrstudy.running.admission.WaitingLine", line)
        patched.setattr("benchmarks.simulation.Admission", Watched)
        simulate(plan, folder, slots, seconds, deaths, seed)
    return handed


def seconds(settings: Settings) -> float:
    return 1.0 + settings.num_updates / 10


@pytest.mark.parametrize("seed", range(12))
def test_the_same_trials_are_handed_out_in_the_same_order_as_by_the_plain_rule(tmp_path, monkeypatch, seed):
    rng = random.Random(seed)
    slots, deaths = rng.choice([1, 2, 5, 16]), rng.choice([0.0, 0.1])
    plan = random_plan(rng, slots)
    expected = handed_out(PlainLine, plan, tmp_path / "plain", slots, deaths, seed, monkeypatch)
    found = handed_out(WaitingLine, plan, tmp_path / "line", slots, deaths, seed, monkeypatch)
    assert len(expected) > 4
    assert found == expected
