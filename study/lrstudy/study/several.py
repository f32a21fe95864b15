"""A study file with a map of workloads: the study of each, run one after the other on one Ray, under common limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lrstudy import config
from lrstudy.errors import Fault, InputError
from lrstudy.planning.plan import Plan
from lrstudy.run import Display, Summary
from lrstudy.running.limits import NOTHING, Taken, taken
from lrstudy.storage.place import Storage
from lrstudy.study import Study, TrainsOn
from lrstudy.study_folder import of_workloads
from lrstudy.study_folder.journal import Journal
from lrstudy.study_folder.locks import is_held
from lrstudy.study_folder.mirror import Mirror


@dataclass(frozen=True)
class Studies:
    """The studies of a file with a map of workloads, at least one, in its order. Each lies in ``<storage>/<name>/<workload>/``."""

    members: tuple[Study, ...]

    @staticmethod
    def from_yaml(
        path: str | Path, overrides: Sequence[str] = (), name: str | None = None, begun: float | None = None
    ) -> Studies:
        """Read and check a study file with a map of workloads; arguments and faults as of `Study.each`."""
        members = Study.each(path, overrides, name, begun)
        if not members[0].workload:
            raise InputError(Fault("workloads", "the file has none: it is a study of one workload"))
        return Studies(members)

    @property
    def name(self) -> str:
        """The name of them all."""
        return self.members[0].file.name.partition("/")[0]

    @property
    def storage(self) -> Storage:
        """Where they lie."""
        return self.members[0].storage

    @property
    def mirror(self) -> Mirror:
        """Publishes the folder of them all, without those of the workloads, if the storage is a bucket."""
        return Mirror(self.storage, self.name, is_drivers=True)

    @property
    def folder(self) -> Path:
        """Their folder; if they lie in a bucket, the driver's working copy."""
        return self.mirror.folder

    def run(
        self,
        display: Callable[[Study], Display | None] = lambda study: None,
        slots: int | None = None,
        is_decided: Callable[[Path], bool] | None = None,
        address: str | None = None,
        *,
        without_token: bool = False,
    ) -> Iterator[tuple[Study, Summary]]:
        """Run the studies one after the other, each as `Study.run` does; yields each with its summary once it has ended.

        All are planned before the first is trained, so that a fault in the last shows at once. `limits` hold for all of them
        together. `display` gives what shows the progress of a study. Raises what `Study.run` does.
        """
        with self.members[0].connected(slots, address, without_token=without_token) as trains_on, trains_on.ray.kept():
            planned = self._planned(trains_on)
            self._begin()
            begun = self.members[0].begun
            for study, (plan, notes) in zip(self.members, planned, strict=True):
                ours = replace(study, begun=begun)  # devices that are not this one's any more are the next one's
                yield (
                    study,
                    ours.run_planned(plan, notes, trains_on, display(study), is_decided, self._taken_by_others(study)),
                )
                begun = time.monotonic()

    def _planned(self, trains_on: TrainsOn) -> list[tuple[Plan, tuple[str, ...]]]:
        """The plan of each, with notes. Raises InputError with the faults of all of them."""
        plans, faults = [], dict[str, list[Fault]]()
        for study in self.members:
            if is_held(self.storage, study.file.name):
                advice = "Wait for it, stop it, or give this run a name of its own with --as NAME."
                raise InputError(Fault(study.file.name, "another driver is running this study", advice=advice))
            try:
                plans.append(study.plan_on(trains_on))
            except InputError as error:
                faults[study.workload] = config.of_workload(error.faults, study.workload, study.text, study.overrides)
        if faults:
            raise InputError([fault for found in faults.values() for fault in found])
        return plans

    def _begin(self) -> None:
        """Write what says that the folder is that of these workloads."""
        self.mirror.bring()
        of_workloads.write(self.folder, self.members[0].text, self.name, [study.workload for study in self.members])
        self.mirror.publish()

    def _taken_by_others(self, study: Study) -> Taken:
        """What the runs of all other workloads have taken of the limits."""
        others = [other for other in self.members if other is not study]
        return sum((taken(Journal(other.drivers_mirror.folder / "journal")) for other in others), NOTHING)
