"""The command that submits a study to a cluster: launch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrstudy.cli.options import Json, app
from lrstudy.errors import Fault, InputError

if TYPE_CHECKING:
    from lrstudy_cluster.launching import Prepared


@app.command()
def launch(
    target: Annotated[
        str, typer.Argument(help="Where to run; `lrstudy launch list` names all targets.", metavar="TARGET")
    ],
    study: Annotated[
        list[str] | None, typer.Argument(help="A study file, then overrides.", metavar="STUDY.yaml [key=value ...]")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option of the target; any number of them.", metavar="KEY=VALUE"),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="The site's profile; by default ~/.config/lrstudy/TARGET.yaml.", metavar="FILE")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the files; by default launch/TARGET beside the study file.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write and check the files, submit nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Fill in a target's templates for a study, check them, submit the run, and say how to follow and stop it."""
    from lrstudy_cluster import catalogue, launching
    from lrstudy_cluster import profile as profiles

    if target == "list":
        print("\n".join(f"{name}: {catalogue.target(name).summary}" for name in catalogue.names()))
        return
    if not study:
        print("\n".join(profiles.described(catalogue.target(target))))
        return
    if "=" in study[0]:
        raise InputError(Fault("launch", expected="a study file before the overrides", got=study[0]))
    prepared = launching.prepare(target, Path(study[0]), study[1:], options or (), profile)
    folder = (out or prepared.launch.path.parent / "launch" / target).resolve()
    written = launching.write(prepared, folder)
    if dry_run:
        _print_files(written, as_json)
    else:
        _print_submission(prepared, folder, written, as_json)


def _print_files(written: list[Path], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"files": [str(path) for path in written], "submitted": False}))
    else:
        print("\n".join(["Checked and written, not submitted:", *(f"  {path}" for path in written)]))


def _print_submission(prepared: Prepared, folder: Path, written: list[Path], as_json: bool) -> None:
    from lrstudy_cluster import launching

    submission = launching.submit(prepared, folder)
    if as_json:
        facts = {"identity": submission.identity, "follow": submission.follow, "stop": submission.stop}
        print(json.dumps({"files": [str(path) for path in written], "submitted": True, **facts}))
        return
    print(f"Submitted: {submission.identity}. Its files are in {folder}.")
    print(f"  follow: {submission.follow}")
    print(f"  stop:   {submission.stop}")
