"""How many trials fit on the nodes that a cluster may have."""

from __future__ import annotations

from dataclasses import dataclass

from lrstudy.config import StudyFile
from lrstudy.errors import Fault
from lrstudy.training.sharing import MOST_PER_GPU


@dataclass(frozen=True)
class Fleet:
    """Nodes for trials, all alike: how many there may be, and the GPUs and CPU cores of each."""

    nodes: int
    gpus: int
    cpus: int


def faults(fleet: Fleet, study: StudyFile) -> list[Fault]:
    """Trials of the study that fit on no node."""
    share, cpus = _share(fleet, study), study.resources.cpu
    found = []
    if share > 0 and fleet.gpus == 0:
        found.append(
            Fault(
                "resources.gpu",
                f"the study asks for GPUs ({study.resources.gpu} per trial), and the profile's nodes have none",
            )
        )
    if cpus > fleet.cpus:
        found.append(
            Fault(
                "resources.cpu",
                f"the study asks for {cpus} CPU cores per trial, and a node has {fleet.cpus} (cpus in the profile)",
            )
        )
    return found


def num_slots(fleet: Fleet, study: StudyFile) -> int:
    """How many trials run at once when all nodes are there."""
    share, by_cpus = _share(fleet, study), fleet.cpus // study.resources.cpu
    if share == 0:
        return fleet.nodes * by_cpus
    return fleet.nodes * min(fleet.gpus * int(1 / share + 1e-9), by_cpus)


def overrides(fleet: Fleet, study: StudyFile) -> list[str]:
    """What the driver must be told: it may start before any node with a GPU is there, and must ask for one."""
    return [f"resources.gpu={_share(fleet, study):g}"] if study.resources.gpu is None else []


def _share(fleet: Fleet, study: StudyFile) -> float:
    """The share of a GPU that a trial occupies."""
    asked = study.resources.gpu
    if asked == "auto":
        return 1 / MOST_PER_GPU  # as many as may turn out to fit
    return asked if isinstance(asked, float) else float(fleet.gpus > 0)
