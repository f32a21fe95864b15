"""`lrstudy plan`: what a study will ask for, share, cost and be able to tell apart, before anything is trained."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lrstudy.cli.options import (
    Address,
    Json,
    Slots,
    StudyAndOverrides,
    WithoutToken,
    app,
    console_for_tables,
    counted,
    split,
)
from lrstudy.errors import Fault, InputError

if TYPE_CHECKING:
    from lrstudy.memo.memo import Memo
    from lrstudy.planning.plan import Plan
    from lrstudy.running.forecast import Forecast
    from lrstudy.running.forecast_cost import Noise, Timing
    from lrstudy.study import Study
    from lrstudy.workload.machine import Machine

_MOST_BRANCHES = 24
_MOST_SEEDS = 200
_ALONE = 0.9
"""A probe that was running for less of the time than this was not alone; what reading the clock costs is far less."""


@app.command()
def plan(
    study: StudyAndOverrides = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Time a few updates on the device to forecast device-hours and bytes.")
    ] = False,
    address: Address = None,
    without_token: WithoutToken = False,
    slots: Slots = None,
    as_json: Json = False,
) -> None:
    """Forecast trials, shared epochs, device-hours, money and the smallest detectable difference; trains nothing."""
    from lrstudy.cli import workloads
    from lrstudy.study import Study

    each = Study.each(*split(study))
    if probe and address is not None:
        raise InputError(Fault("--probe", "it times updates on this machine, so it goes without --address"))
    with each[0].machine(address, slots, without_token=without_token) as machine:
        plans = [_planned(ours, machine, slots) for ours in each]
    facts = {ours.workload: _facts(ours, *planned, probe) for ours, planned in zip(each, plans, strict=True)}
    if as_json:
        print(json.dumps(workloads.joined(each, facts), allow_nan=False))
        return
    for of_one in facts.values():
        _show(console_for_tables(), of_one)
    if each[0].workload:
        print(workloads.forecast_of_all(each, facts))


def _planned(study: Study, machine: Machine, slots: int | None) -> tuple[Plan, tuple[str, ...], int]:
    """The plan of a study, its notes, and on how many slots it will run."""
    from lrstudy.cli import workloads

    with workloads.placed(study):
        made, notes = study.plan(machine=machine)
    return made, notes, slots or machine.num_slots(made.workload.resources)


def _facts(ours: Study, made: Plan, notes: tuple[str, ...], num_slots: int, probe: bool) -> dict[str, Any]:
    """All that `plan` shows of a study."""
    from lrstudy.memo.memo import Memo
    from lrstudy.planning import arm_checks, study_lock
    from lrstudy.running import forecast, forecast_cost, history, probe_cost
    from lrstudy.running.found_rates import FoundRates
    from lrstudy.study_folder.journal import Journal

    tables = ours.mirror.bring_tables()
    memo, journal = Memo(ours.storage.memo), Journal(ours.folder / "journal")
    made, kept = history.with_what_was_begun(made, journal)
    expected = forecast.forecast(made, journal, memo)
    timing: Timing | None
    if probe:
        timing = probe_cost.probe(made, expected.asked_work or expected.work, _tell)
    else:
        timing = forecast_cost.recorded_timing(made, tables, expected.records, expected.efforts)
    return {
        "name": ours.file.name,
        **expected.to_json(),
        "cost": _cost(made, expected, timing, study_lock.price(made), num_slots),
        "states": _states(made, expected, timing, memo),
        "features": _features(made, expected),
        "detectable": _detectable(made, forecast_cost.noise(made, tables), history.num_seeds_read(journal)),
        "notes": [*notes, *kept, *arm_checks.notes(made), *FoundRates(made, memo, journal).notes()],
    }


def _tell(text: str) -> None:
    """Show on stderr what a probe does, as it may take a minute."""
    print(f"probe: {text} ...", file=sys.stderr, flush=True)


def _states(made: Plan, expected: Forecast, timing: Timing | None, memo: Memo) -> dict[str, Any]:
    """How many states the study may store while it runs, how many of them it needs afterwards, and their bytes, if known."""
    from lrstudy.running.forecast_cost import recorded_state_bytes

    measured = timing.state_bytes if timing else None
    size, study = measured or recorded_state_bytes(memo, expected.records), made.study
    most = expected.total.to_train
    needed = len(made.arms.keys() - made.retired) * study.confirm.top * study.confirm.looks[-1] * study.search.repeats
    return {
        "bytes_per_state": size, "most": most, "most_bytes": size and size * most,
        "needed": needed, "needed_bytes": size and size * needed, "keep_gb": study.storage.keep_gb,
    }  # fmt: skip


def _features(made: Plan, expected: Forecast) -> dict[str, Any]:
    """How often features are left to be computed, how often trials ask for them, and their bytes."""
    inputs = made.head_inputs if expected.asked_passes else None
    size = inputs and inputs * 4 * sum(made.workload.counts[:2])
    return {"to_compute": expected.passes, "asked": expected.asked_passes, "bytes_each": size}


def _cost(
    made: Plan, expected: Forecast, timing: Timing | None, price: dict[str, Any] | None, num_slots: int
) -> dict[str, Any]:
    """Device-hours and money for what is left to train, and for what would be without sharing and records."""
    from lrstudy.running import probe_cost

    workload = made.workload
    unit = "GPU-hours" if workload.device == "cuda" else "CPU-core-hours"
    facts: dict[str, Any] = {"unit": unit, "slots": num_slots, "source": None, "price": price}
    if timing is None:
        return facts
    train, validation, _ = workload.counts
    pass_s = timing.evaluation_s * (train + validation) / validation
    seconds = timing.seconds(expected.work, expected.passes * pass_s)
    alone = timing.seconds(expected.asked_work, expected.asked_passes * pass_s)
    return facts | {
        "source": timing.source,
        "timed": timing.count,
        "running": timing.running,
        "waiting_is_left_out": probe_cost.runs_on_one_core(made),
        "has_neighbours": timing.has_neighbours,
        "seconds_per_update": {str(batch): s for batch, s in sorted(timing.per_update_s.items())},
        "seconds_per_evaluation": timing.evaluation_s,
        "device_hours": seconds * workload.device_share / 3600,
        "device_hours_without_sharing": alone * workload.device_share / 3600,
        "wall_hours": seconds / num_slots / 3600,
        "money": None if price is None else seconds * workload.device_share / 3600 * price["device_hour"],
        "limit_hours": made.study.limits.gpu_hours,
    }


def _detectable(made: Plan, noise: Noise, num_read: int) -> dict[str, Any]:
    """The true difference to the control that the confirm trials would show with power 0.8."""
    from lrstudy_reports.statistics import smallest_detectable

    study = made.study
    looks = study.confirm.looks
    seeds, comparisons = looks[-1], max(1, len(made.arms.keys() - made.retired) - 1)

    def least(sd: float, pairs: int) -> float | None:
        value = smallest_detectable(sd, pairs, comparisons * len(looks))
        return None if math.isnan(value) else value

    margin = study.compare.margin
    enough = None
    if margin is not None:
        counts = range(3, _MOST_SEEDS + 1)
        enough = next((n for n in counts if (gap := least(noise.high, n)) is not None and gap <= margin), None)
    return {
        "metric": study.metric, "low": least(noise.low, seeds), "high": least(noise.high, seeds),
        "sd_low": noise.low, "sd_high": noise.high, "seeds": seeds if study.confirm.top else 0,
        "looks": len(looks), "comparisons": comparisons, "pairs": noise.pairs, "assumption": noise.assumption, "margin": margin,
        "seeds_for_margin": enough, "seeds_read": num_read,
    }  # fmt: skip


def _show(console: Console, facts: dict[str, Any]) -> None:
    total = facts["total"]
    console.print(
        f"{facts['name']}: {counted(total['trials'], 'trial')} of {counted(facts['epochs_per_trial'], 'epoch')}"
    )
    console.print(_arms(facts))
    lines = (
        *_sharing(facts),
        *_costs(facts["cost"], total),
        *_bytes(facts["states"]),
        *_of_features(facts["features"]),
        *_difference(facts["detectable"]),
    )
    for text in lines:
        console.print(text, soft_wrap=True, markup=False)
    for warning in facts["warnings"]:
        console.print(f"[yellow]warning:[/] {warning.replace('[', chr(92) + '[')}", soft_wrap=True)
    for note in facts["notes"]:
        console.print(f"note: {note}", soft_wrap=True, markup=False)


def _arms(facts: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    headings = ("arm", "trials", "known now", "by a model", "epochs asked", "distinct", "recorded", "to train")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "arm" else "right", no_wrap=True)
    rows = [*facts["arms"].items(), ("all, shared ones once", facts["total"])]
    for name, counts in rows:
        keys = ("trials", "known_trials", "by_model", "asked", "distinct", "recorded", "to_train")
        table.add_row(name, *(str(counts[key]) for key in keys))
    return table


def _sharing(facts: dict[str, Any]) -> Iterator[str]:
    shared = facts["sharing"]
    text = (
        f"Sharing within one search: {shared['asked']} epochs that are known now are {shared['distinct']} distinct ones "
        f"(x{shared['known']:.2f})"
    )
    if shared["unknown"]:
        text += (
            f"; {shared['unknown']} others, which depend on results, count as unshared: x{shared['at_least']:.2f} or more "
            "over all"
        )
    yield text + "."
    if not facts["tree"]:
        return
    yield "Who shares epochs with whom (under one seed; numbers are suggestions of an arm):"
    lines = list(_tree(facts["tree"], ""))
    yield from lines[:_MOST_BRANCHES]
    if len(lines) > _MOST_BRANCHES:
        yield f"  ... and {len(lines) - _MOST_BRANCHES} more branches (--json has all)"


def _tree(branches: Sequence[dict[str, Any]], indent: str) -> Iterator[str]:
    for branch in branches:
        span = f"epochs {branch['start'] + 1}-{branch['end']}"
        yield f"  {indent}{span:<13} {_members(branch['members'])}"
        yield from _tree(branch["below"], indent + "  ")


def _members(members: Sequence[str]) -> str:
    """``clr 0, 3; step 1``: every arm once, with the numbers of its suggestions."""
    by_arm: dict[str, list[str]] = {}
    for member in members:
        arm, _, number = member.rpartition(" ")
        by_arm.setdefault(arm, []).append(number)
    shown = [f"{arm} {', '.join(n[:6])}{', ...' if len(n) > 6 else ''}" for arm, n in by_arm.items()]
    return "; ".join(shown[:8]) + (f"; and {len(shown) - 8} more arms" if len(shown) > 8 else "")


def _costs(cost: dict[str, Any], total: dict[str, int]) -> Iterator[str]:
    if cost["source"] is None:
        yield f"Cost: unknown; use --probe. ({total['asked']} epochs asked, at most {total['distinct'] - total['recorded']} to train.)"
        return
    timed = {
        "recorded": f"from {counted(cost.get('timed', 0), 'recorded epoch')} of this workload on this kind of device",
        "measured": f"from a probe of {counted(cost.get('timed', 0), 'batch size')}",
    }[cost["source"]]
    money = ""
    if cost["money"] is not None:
        money = f", {cost['money']:.2f} {cost['price']['currency']} at {cost['price']['device_hour']:g} an hour"
    yield (
        f"Cost: at most {_hours(cost['device_hours'], cost['unit'])}{money}, about {_hours(cost['wall_hours'], 'hours')} "
        f"on {counted(cost['slots'], 'slot')}, {timed}; without sharing and recall {_hours(cost['device_hours_without_sharing'], cost['unit'])}. "
        "Start-up and the test part are not in it."
    )
    if cost["running"] < _ALONE:
        yield (
            f"warning: the probe was not alone: it waited {1 - cost['running']:.0%} of its time for other programs or the disk. "
            + (
                "That does not count, but shared caches do"
                if cost["waiting_is_left_out"]
                else "The forecast may be too high by that"
            )
            + "; beside the same programs the study takes longer."
        )
    if cost["has_neighbours"]:
        yield "warning: the probe was not alone: another program has memory of the GPU, and may have slowed it."
    if cost["limit_hours"] is not None and cost["device_hours"] > cost["limit_hours"]:
        yield f"warning: limits.gpu_hours ({cost['limit_hours']:g}) will stop the study before that."


def _bytes(states: dict[str, Any]) -> Iterator[str]:
    """What the states may take while the study runs, and what of them stays."""
    if not states["bytes_per_state"]:
        return
    cap = states["keep_gb"]
    after = "all of them stay (storage.keep_gb: all)"
    if cap != "all":
        after = (
            f"afterwards {_size(states['needed_bytes'])} stay for {counted(states['needed'], 'confirmed trial')}, and others up to "
            f"{cap:g} GB in all (storage.keep_gb)"
        )
    yield (
        f"States: {_size(states['bytes_per_state'])} each, at most {_size(states['most_bytes'])} while the study runs "
        f"({counted(states['most'], 'epoch')}); {after}."
    )


def _of_features(features: dict[str, Any]) -> Iterator[str]:
    """What is computed for stages that train the head alone."""
    if features["asked"]:
        yield (
            f"Features: {counted(features['asked'], 'trial')} train a head on features, which are computed "
            f"{counted(features['to_compute'], 'time')}; {_size(features['bytes_each'])} each, kept like states."
        )


def _size(num_bytes: float) -> str:
    """``86 MB``, ``1.3 GB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            value = num_bytes / factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"
    return f"{num_bytes} bytes"


def _hours(hours: float, unit: str) -> str:
    if hours < 1.5 / 60:
        return f"{hours * 3600:.0f} {unit.removesuffix('hours')}seconds"
    if hours < 1.5:
        return f"{hours * 60:.1f} {unit.removesuffix('hours')}minutes"
    return f"{hours:.1f} {unit}"


def _difference(facts: dict[str, Any]) -> Iterator[str]:
    if not facts["seeds"]:
        yield "Smallest detectable difference: none, because nothing is confirmed (confirm.top is 0)."
        return
    comparisons = counted(facts["comparisons"], "comparison")
    looks = f" at the last of {facts['looks']} looks" if facts["looks"] > 1 else ""
    design = f"{facts['seeds']} paired seeds{looks}, {comparisons} with the control (Holm), power 0.8"
    if facts["low"] is None:
        yield f"Smallest detectable difference: none can be shown with {design}: at least 3 seeds that differ are needed."
        return
    if facts["low"] > 1:  # of a metric that lies in [0, 1]
        yield f"Smallest detectable difference: none; not even one of 1 in {facts['metric']} would show with {design}."
        return
    if facts["pairs"]:
        size = f"{facts['low']:.2g} in {facts['metric']}"
        basis = f"the differences of {facts['pairs']} recorded pairs of this workload vary by {facts['sd_low']:.2g}"
    else:
        size = f"{facts['low']:.2g} to {facts['high']:.2g} in {facts['metric']}"
        basis = facts["assumption"]
    yield f"Smallest detectable difference: about {size}, with {design}; {basis}."
    if facts["margin"] is not None and facts["high"] > facts["margin"]:
        enough = facts["seeds_for_margin"]
        more = f"about {enough} seeds" if enough else f"more than {_MOST_SEEDS} seeds"
        read = ", in a study whose test part has not been read" if facts["seeds_read"] else ""
        yield f"  A difference as small as compare.margin ({facts['margin']:g}) would take {more} (confirm.seeds{read})."
