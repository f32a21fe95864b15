"""The way from a study file to a submitted run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lrstudy.config.text import located
from lrstudy.errors import Fault, InputError
from lrstudy.planning import plan
from lrstudy.study_folder.replace_file import replacing
from lrstudy_cluster import catalogue, profile
from lrstudy_cluster.target import Launch, Submission, Target


@dataclass(frozen=True)
class Prepared:
    """A launch that has been checked as far as it can be here: its target and its files by name."""

    target: Target
    launch: Launch
    files: Mapping[str, str | bytes]


def prepare(
    target: str,
    study: Path,
    overrides: Sequence[str] = (),
    options: Sequence[str] = (),
    profile_file: str | None = None,
) -> Prepared:
    """Check a launch and fill in its templates; touches neither the site nor the disk.

    Args:
        target: The target's name.
        study: The study file.
        overrides: ``a.b=VALUE`` texts that replace values of the study file.
        options: ``key=VALUE`` texts that replace values of the site's profile.
        profile_file: The site's profile, if it is not the default one.

    Raises:
        InputError: With every fault of study file, profile and launch.
    """
    chosen = catalogue.target(target)
    asked = profile.read(chosen, profile_file, options)
    try:
        text = study.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault("study file", f"cannot read {study}: {error}")) from None
    path = study.resolve()
    launch = Launch(path, plan.read(text, overrides, path.parent), located(overrides), asked)
    if faults := chosen.check(launch):
        raise InputError(faults)
    return Prepared(chosen, launch, chosen.render(launch))


def write(prepared: Prepared, folder: Path) -> list[Path]:
    """Write the files of a launch to a folder, which is made; returns their paths. Raises InputError if that fails."""
    try:
        paths = []
        for name, text in prepared.files.items():
            content = text.encode() if isinstance(text, str) else text
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with replacing(folder / name) as fresh:
                fresh.write_bytes(content)
                if content.startswith(b"#!"):
                    fresh.chmod(0o755)
            paths.append(folder / name)
        return paths
    except OSError as error:
        raise InputError(Fault("--out", f"cannot write in {folder}: {error.strerror}")) from None


def submit(prepared: Prepared, folder: Path) -> Submission:
    """Ask the site what only it can tell, then submit the written files.

    Raises:
        InputError: The site does not have what the launch asks for; nothing was submitted.
        ClusterError: The site refuses, or cannot be reached.
    """
    if faults := prepared.target.ask(prepared.launch):
        raise InputError(faults)
    return prepared.target.submit(prepared.launch, folder)
