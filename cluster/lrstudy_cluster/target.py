"""The contract of a target: a kind of place that studies can be launched on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lrstudy.config import StudyFile
from lrstudy.errors import Fault


class Profile(BaseModel):
    """What a launch asks of a site; one subclass per target. All keys are flat: ``--set key=value`` sets any of them.

    A field's `description` is what faults say was expected, and what ``lrstudy launch TARGET --help-profile`` prints.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Launch:
    """A study that is to run on a target.

    Attributes:
        path: The study file, absolute.
        study: The same, checked, with the overrides.
        overrides: The ``key=value`` texts of the command line.
        profile: What is asked of the site, of the target's own class.
    """

    path: Path
    study: StudyFile
    overrides: Sequence[str]
    profile: Profile


@dataclass(frozen=True)
class Submission:
    """A run that has been submitted: its identity there, and the commands that follow and stop it."""

    identity: str
    follow: str
    stop: str


@dataclass(frozen=True)
class Target:
    """A kind of place that studies can be launched on.

    Attributes:
        name: Its name on the command line, and the folder of its templates in ``cluster/``.
        summary: What it is, in a few words.
        profile: The class of its profiles.
        check: Faults of a launch beyond those of its profile, all at once and without touching the site.
        render: The files of a launch, by name; they need nothing beside them but what the target ships itself. A name
            may have folders; files of the user are bytes.
        ask: Faults that only the site can tell, such as a partition that does not exist; asked before anything is
            submitted, never in a dry run.
        submit: Submits the files, which have been written to a folder. Raises ClusterError if the site refuses.
    """

    name: str
    summary: str
    profile: type[Profile]
    check: Callable[[Launch], list[Fault]]
    render: Callable[[Launch], Mapping[str, str | bytes]]
    ask: Callable[[Launch], list[Fault]]
    submit: Callable[[Launch, Path], Submission]
