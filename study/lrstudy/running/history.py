"""What earlier runs of a study began, read and planned: it is not taken back, and changes of the plan leave a trace.

Whoever has read the test part may not change the plan by what it said. A study may be extended all the same, so every
freeze notes in the journal what is planned, and a report lists what was changed after the first reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lrstudy.planning.plan import CONFIRM_SEED, Plan
from lrstudy.settings import canonical_json
from lrstudy.study_folder.journal import Journal


def with_what_was_begun(plan: Plan, journal: Journal) -> tuple[Plan, tuple[str, ...]]:
    """The plan, with as many trials per arm and fresh seeds as earlier runs have begun, if the study file has fewer now.

    Results are never dropped because of what they are, and all arms get the same: what was suggested to one arm is tried
    in all, and a seed that the test part was read for is confirmed in all. Returns notes for the user as well.
    """
    study, notes = plan.study, []
    search, confirm = study.search, study.confirm
    if (suggested := _num_suggested(plan, journal)) > search.trials:
        notes.append(
            f"search.trials stays {suggested}, whatever the file says now ({search.trials}): so many have been suggested."
        )
        search = search.model_copy(update={"trials": suggested})
    if confirm.top and (read := num_seeds_read(journal)) > confirm.looks[-1]:
        notes.append(
            f"confirm.seeds stays {read}, whatever the file says now ({confirm.looks[-1]}): the test part has been read "
            "for so many."
        )
        confirm = confirm.model_copy(update={"seeds": [*confirm.looks[:-1], read]})
    study = study.model_copy(update={"search": search, "confirm": confirm})
    return replace(plan, study=study), tuple(notes)


def num_seeds_read(journal: Journal) -> int:
    """With how many fresh seeds, counted from the first, the test part has been read for any arm."""
    return max((seed + 1 - CONFIRM_SEED for seed in map(_seed, _read(journal))), default=0)


def frozen(journal: Journal) -> list[dict[str, Any]]:
    """The configurations that were chosen last, by the number of the search, then by arm; none if nothing was."""
    last = next(reversed(list(journal.of_kind("frozen"))), None)
    return [] if last is None else _chosen(last)


def planned(plan: Plan, chosen: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a freeze notes: the configurations that it chose, by the number of the search and by arm, and all else that
    verdicts depend on. What an arm's first search chose stands by itself, as in versions without others."""
    return {
        "arms": chosen[0],
        **({"repeats": list(chosen[1:])} if len(chosen) > 1 else {}),
        "retired": sorted(plan.retired),
        "looks": list(plan.study.confirm.looks),
        "control": plan.control,
        "margin": plan.study.compare.margin,
    }


def note_freeze(journal: Journal, now: Mapping[str, Any]) -> bool:
    """Write to the journal what is `planned` now, unless the last freeze noted the same. Returns whether it was written."""
    before = next(reversed(list(journal.of_kind("frozen"))), None)
    num_read = sum(1 for _ in _read(journal))
    changes = [] if before is None else list(_changes(_completed(before, now, journal), now))
    if before is not None and not changes:
        return False
    journal.write("frozen", **now, changes=changes, read=num_read, deviates=num_read > 0)
    return True


def deviations(journal: Journal) -> list[str]:
    """What was changed after the test part had been read, a sentence for each freeze that did."""
    return [
        f"run {line['run']}: {'; '.join(line.get('changes', ())) or 'configurations were chosen anew'}, after "
        f"{line.get('read', 'some')} confirm trials had read the test part"
        for line in journal.of_kind("frozen")
        if line["deviates"]
    ]


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two freezes, in words."""
    was, chosen = before["arms"], now["arms"]
    if added := [arm for arm in chosen if arm not in was]:
        yield f"{', '.join(added)} came in"
    if len(_chosen(before)) != len(_chosen(now)):
        yield f"search.repeats went from {len(_chosen(before))} to {len(_chosen(now))}"
    if dropped := set(now["retired"]) - set(before["retired"]):
        yield f"{', '.join(sorted(dropped))} went out"
    if anew := [arm for arm in chosen if arm in was and _is_chosen_anew(arm, _chosen(before), _chosen(now))]:
        yield f"configurations of {', '.join(anew)} were chosen anew"
    for key, name in (("looks", "confirm.seeds"), ("control", "compare.control"), ("margin", "compare.margin")):
        if before[key] != now[key]:
            yield f"{name} went from {_shown(before[key])} to {_shown(now[key])}"


def _chosen(freeze: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a freeze chose, by the number of the search and by arm."""
    return [freeze["arms"], *freeze.get("repeats", ())]


def _is_chosen_anew(arm: str, before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> bool:
    """Whether other configurations of an arm were chosen than before, of the searches that both have."""
    both = zip(before, now, strict=False)
    return any(arm in was and canonical_json(was[arm]) != canonical_json(chosen[arm]) for was, chosen in both)


def _completed(before: Mapping[str, Any], now: Mapping[str, Any], journal: Journal) -> dict[str, Any]:
    """A freeze with what an earlier version did not note: as many seeds as were read, and all else as it is now."""
    looks = [num_seeds_read(journal)] if num_seeds_read(journal) else now["looks"]
    rest = {key: before.get(key, looks if key == "looks" else now[key]) for key in now if key != "repeats"}
    return rest | ({"repeats": before["repeats"]} if "repeats" in before else {})


def _num_suggested(plan: Plan, journal: Journal) -> int:
    """The most configurations that any searcher has suggested to an arm that is still compared."""
    active = plan.arms.keys() - plan.retired
    lines = (line for line in journal.of_kind("suggest") if line["arm"] in active and line["method"] in plan.methods)
    return max((line["index"] + 1 for line in lines), default=0)


def _read(journal: Journal) -> Iterator[Mapping[str, Any]]:
    """The lines of confirm trials that have read the test part, a trial once."""
    yield from {line["trial_id"]: line for line in journal.of_kind("trial") if line["test"]}.values()


def _seed(line: Mapping[str, Any]) -> int:
    return int(line["trial_id"].rpartition("-")[2])


def _shown(value: object) -> str:
    if isinstance(value, list):
        return str(value[0]) if len(value) == 1 else str(value)
    return "none" if value is None else str(value)
