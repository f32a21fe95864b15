"""Whether the storage has room for the features that a study will compute, asked before anything is trained."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from lrstudy.errors import Fault
from lrstudy.lineage import features_name
from lrstudy.memo.memo import Memo
from lrstudy.planning.arms import Arm
from lrstudy.planning.plan import CONFIRM_SEED, Plan
from lrstudy.policies.stages import parts

_BYTES = 4  # of a float32


def room_faults(plan: Plan) -> Iterator[Fault]:
    """The fault of features that the storage's disk cannot take. Of a bucket nobody knows how much room it has."""
    using = [arm for name, arm in plan.arms.items() if name not in plan.retired and _uses_features(plan, arm)]
    storage = plan.workload.storage
    if not using or storage.is_bucket or plan.head_inputs is None:
        return
    number = _num_to_compute(plan)
    examples = sum(plan.workload.counts[:2])
    needed = number * examples * plan.head_inputs * _BYTES
    free = free_bytes(Path(storage.memo))
    if needed > free:
        sets = "" if number == 1 else f" under {number} seeds"
        yield Fault(
            f"arms.{using[0].name}.stages",
            f"the features of {examples:,} images, {plan.head_inputs:,} numbers each,{sets} take {_gb(needed)}, and the disk "
            f"of {storage.location} has {_gb(free)} free",
            advice="Write `input: images` in the stage, which computes them anew every epoch, or choose a storage.path with more room.",
        )


def free_bytes(path: Path) -> int:
    """The free space of the disk that has this path, or will have it."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def _uses_features(plan: Plan, arm: Arm) -> bool:
    configuration = arm.space.default()
    return any(
        run.recipe.input == "features" for _, _, run in parts(arm.build(configuration), plan.run(arm, configuration))
    )


def _num_to_compute(plan: Plan) -> int:
    """How many sets of features are not recorded yet, one for every seed where the seed draws the backbone's weights."""
    search, confirm = plan.study.search, plan.study.confirm
    confirmed = range(CONFIRM_SEED, CONFIRM_SEED + confirm.looks[-1]) if confirm.top else ()
    roots = [plan.root(seed) for seed in (*search.seeds, *confirmed)]
    memo = Memo(plan.workload.storage.memo)
    return sum(memo.find(name) is None for name in {features_name(root, root.name(), 0) for root in roots})


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2g} GB" if num_bytes < 1e10 else f"{num_bytes / 1e9:,.0f} GB"
