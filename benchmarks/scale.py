"""What a driver does for each trial, and the storage, as slots and trials become many: the real parts on simulated time."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from benchmarks.harness import HERE, Row, compared, in_turn
from benchmarks.many_slots import PARTS, Driven, counted, drive
from benchmarks.tables import limit
from lrstudy.memo.memo import Memo
from lrstudy.planning.plan import Plan, default_outstanding
from lrstudy.settings import Settings
from lrstudy.study import Study
from lrstudy.trial.walk import Walk

TITLE = "the driver at 8 to 1,000 slots"
NOTES = (
    "CPU of the driver per trial of 6 epochs of 60 s, five arms by random search that share next to nothing: the real admission, protocol,",
    "slots, journal, memo and tables, called as Tune calls them, and no Ray. The ratio is the cost on 8 slots over that on more: 1 means that",
    "it does not grow. Core: what all but Tune takes of one core, against half a core; with epochs of 10 s it does the same in a sixth of the",
    "time, which is computed, not measured. Tables: all of them written once more, after a tenth of the trials had ended since the last time;",
    "a run does so at most a twentieth of its time. Memory: what the process grew by, tables in the making included. Journal: against 1 KB per report.",
    "Requests: those that a worker makes for an epoch and a driver for a trial, counted on a folder, at 1,000 slots with epochs of 10 s, against",
    "what S3 grants one prefix (3,500 writes, 5,500 reads per second). Searcher: a suggestion by HyperOpt to one of five arms, of 1,000 trials",
    "against 250. An event of Tune's loop: waiting for one result of many, against 8; Tune's own work for a result comes on top.",
)  # fmt: skip
SIZES = ((8, 800), (64, 3_200), (250, 8_000), (1_000, 20_000))
_EPOCHS, _EPOCH_S = 6, 60.0
_MOST_REPEATS = 2
_HALF_A_CORE = 0.5
_WRITES_PER_S, _READS_PER_S = 3_500.0, 5_500.0
_ARMS = (
    "arms.constant={}",
    "arms.step={milestones: {choice: [[50%, 75%], [30%, 60%, 80%], [60%, 80%], [75%]]}, gamma: {choice: [0.1, 0.2]}}",
    "arms.batch_increase={milestones: {choice: [[50%, 75%], [60%, 80%], [75%]]}, factor: {choice: [2, 3]}, cap: null}",
    "arms.clr={mode: {choice: [triangular, triangular2]}, step_size: {choice: [0.5, 1, 1.5]}, base_ratio: 0.1}",
    "arms.sgdr={t0: {choice: [2, 3]}, t_mult: {choice: [1, 2]}, min_ratio: {choice: [0, 0.01]}}",
    "common.lr={log: [1e-3, 1.0], steps: 400}", "common.weight_decay={log: [1e-5, 1e-2], steps: 30}",
    f"budget.epochs={_EPOCHS}", "confirm={top: 0}",
)  # fmt: skip


def run(repeats: int) -> list[Row]:
    few = min(repeats, _MOST_REPEATS)
    small, large = SIZES[:-1], SIZES[-1:]
    found = in_turn({size: lambda size=size: _driven(*size) for size in small}, few)  # type: ignore[misc]
    found |= in_turn({size: lambda size=size: _driven(*size) for size in large}, 1)  # type: ignore[misc]
    most = found[SIZES[-1]]
    return [
        *(_growth(size, found) for size in SIZES[1:]),
        *(_growth(SIZES[-1], found, part) for part in PARTS),
        *(_core(seconds, most) for seconds in (_EPOCH_S, 10.0)),
        *(_tables(size, found) for size in SIZES[1:]),
        compared("1,000 slots, 20,000 trials: memory per epoch", _epoch_kb(most), _epoch_kb(found[SIZES[0]][:1]), "KB"),
        limit("1,000 slots: journal per report", [d.journal_bytes / d.reports / 1e3 for d in most], 1.0, "KB"),
        *_requests(10.0, most[0]),
        _searcher(),
        *_events(few),
    ]


def _driven(slots: int, trials: int, method: str = "random") -> Driven:
    """A study driven to its end in a process of its own, as memory that an earlier one freed would be used again."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(_driven_here, slots, trials, method).result()


def _driven_here(slots: int, trials: int, method: str) -> Driven:
    with tempfile.TemporaryDirectory() as folder:
        plan = _plan(folder, slots, trials, method)
        return drive(plan, Path(folder) / "run", slots, _EPOCH_S)


def _plan(folder: str, slots: int, trials: int, method: str) -> Plan:
    search = f"search={{method: {method}, trials: {trials // 5}, cohort: 0}}"
    overrides = [f"storage.path={folder}", "name=scale", search, *_ARMS]
    study = Study.from_yaml(HERE / "sharing.yaml", overrides).file
    outstanding = f"search.outstanding={default_outstanding(study, slots)}"
    return Study.from_yaml(HERE / "sharing.yaml", [*overrides, outstanding]).plan()[0]


def _growth(size: tuple[int, int], found: dict[tuple[int, int], list[Driven]], *parts: str) -> Row:
    """CPU per trial at a size, against the smallest."""
    slots, trials = size
    many, few = found[size], found[SIZES[0]][: len(found[size])]
    what = f"{slots:,} slots, {trials:,} trials: CPU per trial" + (f", {' and '.join(parts)}" if parts else "")
    return compared(what, [d.cpu_per_trial_s(*parts) for d in many], [d.cpu_per_trial_s(*parts) for d in few])


def _epoch_kb(found: Sequence[Driven]) -> list[float]:
    return [driven.resident_bytes / driven.trials / _EPOCHS / 1e3 for driven in found]


def _core(epoch_s: float, found: Sequence[Driven]) -> Row:
    shares = [d.trials * d.cpu_per_trial_s() / (d.span_s * epoch_s / _EPOCH_S) for d in found]
    return limit(f"1,000 slots, epochs of {epoch_s:.0f} s: core", shares, _HALF_A_CORE, "cores")


def _tables(size: tuple[int, int], found: dict[tuple[int, int], list[Driven]]) -> Row:
    """CPU of writing the tables, per trial that they hold, against the smallest size."""
    trials = size[1]
    per_trial = {one: [d.tables_s / one[1] for d in found[one]] for one in (SIZES[0], size)}
    few = per_trial[SIZES[0]][: len(per_trial[size])]
    row = compared(f"{trials:,} trials: tables, per trial", per_trial[size], few)
    whole = median(per_trial[size]) * trials
    return Row(f"{row.what} ({whole:.2g} s in all)", row.ours, row.other, row.ratio, row.low, row.high, row.repeats)


def _requests(epoch_s: float, driven: Driven) -> list[Row]:
    """Requests per second at 1,000 slots: of workers for each epoch that they train, and of the driver for each trial."""
    epochs_per_s = driven.trials * _EPOCHS / (driven.span_s * epoch_s / _EPOCH_S)
    of_worker, of_driver = _of_an_epoch(), {name: count / driven.trials for name, count in driven.requests.items()}
    per_s = {
        name: epochs_per_s * (of_worker.get(name, 0.0) + of_driver.get(name, 0.0) / _EPOCHS)
        for name in of_worker.keys() | of_driver.keys()
    }
    shown = ", ".join(f"{of_worker[name]:.2g} {name}" for name in sorted(of_worker))
    return [
        limit(f"1,000 slots, epochs of 10 s: writes ({shown} an epoch)", [per_s["put"]], _WRITES_PER_S, "per s"),
        limit("1,000 slots, epochs of 10 s: reads", [per_s["get"] + per_s["list"]], _READS_PER_S, "per s"),
    ]


def _of_an_epoch() -> dict[str, float]:
    """How many requests of each kind a worker makes per epoch of a trial of which nothing is recorded."""
    with tempfile.TemporaryDirectory() as folder:
        plan = _plan(folder, 8, 100, "random")
        arm = plan.arms["sgdr"]
        spec = plan.spec("t", arm, arm.space.default(), 0, False, {})
        with counted() as requests:
            epochs = list(Walk(spec, Memo(Path(folder) / "memo"), lambda: _Trainer()))
    return {name: count / len(epochs) for name, count in requests.items()}


class _Trainer:
    """Trains nothing; its states are small."""

    def start(self, seed: int) -> None: ...

    def make_ready(self, settings: Settings) -> None: ...

    def train(self, settings: Settings, seed: int, epoch: int) -> Any:
        validation = SimpleNamespace(loss=0.5, metrics={"accuracy": 0.5})
        return SimpleNamespace(train_loss=0.5, train_metrics={}, validation=validation, train_s=0.0, eval_s=0.0)

    def restore(self, data: bytes) -> None: ...

    def capture(self) -> bytes:
        return f"{time.monotonic_ns()}".encode()

    def snapshot(self) -> Callable[[], bytes]:
        return self.capture


def _searcher() -> Row:
    """CPU of the protocol per trial with a searcher that fits a model, as its results become more."""
    few, many = (_driven(64, trials, "hyperopt") for trials in (250, 1_000))
    name = "HyperOpt, 1,000 trials: protocol per trial"
    return compared(name, [many.cpu_per_trial_s("protocol")], [few.cpu_per_trial_s("protocol")])


def _events(repeats: int) -> list[Row]:
    """How long Tune's loop takes to wait for one result, by how many workers it waits for."""
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    try:
        sizes = [slots for slots, _ in SIZES]
        found = in_turn({slots: lambda slots=slots: _event_s(ray, slots) for slots in sizes}, repeats)  # type: ignore[misc]
    finally:
        ray.shutdown()
    return [
        compared(f"an event of Tune's loop with {slots:,} workers", found[slots], found[sizes[0]])
        for slots in sizes[1:]
    ]


def _event_s(ray: Any, slots: int) -> float:
    from ray.air.execution._internal.event_manager import RayEventManager

    sleeper = ray.remote(_Sleeper).options(num_cpus=0).remote()
    events, results = RayEventManager(), [ray.put(number) for number in range(100)]
    for _ in range(slots):
        events.track_future(sleeper.sleep.remote())
    begin = time.perf_counter()
    for result in results:
        events.track_future(result, on_result=lambda value: None)
        events.wait(timeout=1.0)
    seconds = (time.perf_counter() - begin) / len(results)
    ray.kill(sleeper)
    return seconds


class _Sleeper:
    def sleep(self) -> None:
        time.sleep(3600)
