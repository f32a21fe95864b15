"""The commands that take what a study found out of it: export, train."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from lrstudy.cli.options import Address, As, Json, Slots, WithoutToken, app

Place = Annotated[
    str, typer.Argument(help="A study's folder and one of its arms, such as runs/derm/sgdr.", metavar="OUT/ARM")
]


@app.command()
def export(
    place: Place,
    to: Annotated[
        Path | None, typer.Option("--to", help="The folder to write; by default STUDY-ARM here.", metavar="FOLDER")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The seed of the confirmed trial; by default the best on validation.")
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx/--no-onnx", help="Whether to write ONNX, and compare it.")] = True,
    as_json: Json = False,
) -> None:
    """Write an arm's confirmed winner as safetensors with a card, and as ONNX with its preprocessing inside."""
    from lrstudy.export.files import export as write
    from lrstudy.export.winner import find

    winner = find(place, seed)
    done = write(winner, to or Path(f"{winner.lock['name']}-{winner.arm}"), with_onnx=onnx)
    trial, metric = winner.trial, winner.lock["metric"]
    if as_json:
        print(
            json.dumps(
                {"folder": str(done.folder), "files": done.files, "trial": trial["trial_id"], "notes": done.notes}
            )
        )
        return
    print(f"Wrote {done.folder}: {', '.join(done.files)}.")
    print(
        f"Trial {trial['trial_id']}, epoch {trial['selected_epoch'] + 1}: {metric} {trial['selected_val_metric']:.4f} on "
        f"validation, {trial['test_metric']:.4f} on test."
    )
    for note in done.notes:
        print(note)


@app.command()
def train(
    place: Place,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="data=NEW, other keys of the workload by their name, and others such as confirm.seeds=3.",
            metavar="data=NEW [key=value ...]",
        ),
    ] = None,
    name: As = None,
    address: Address = None,
    without_token: WithoutToken = False,
    slots: Slots = None,
) -> None:
    """Train an arm's winning configuration on new data: writes a study file with everything fixed, and runs it."""
    from lrstudy.cli.studies import run
    from lrstudy.export.retraining import write_study
    from lrstudy.export.winner import find
    from lrstudy.study import Study

    path = write_study(find(place), overrides or [], name)
    print(f"Wrote {path}.")
    run([str(path)], None, address, without_token, slots)
    mirror = Study.from_yaml(path).drivers_mirror
    for line in _results(mirror.folder, mirror.location):
        print(line)


def _results(folder: Path, location: str) -> Iterator[str]:
    """The test metric of a study's only arm with its interval, and how to export its winner.

    `folder` has the study's tables; `location` is where it lies: a path or a URL.
    """
    import pyarrow.parquet as pq

    (row,) = pq.read_table(folder / "arms.parquet").to_pylist()
    if row["test_metric"] is None:
        return
    low, high = row["test_low"], row["test_high"]
    interval = "" if low is None or high is None else f", 95% interval {low:.4f} to {high:.4f}"
    metric = json.loads((folder / "study.lock.json").read_text(encoding="utf-8"))["metric"]
    yield f"{metric} on the test part: {row['test_metric']:.4f}{interval}. Write the model with:"
    yield f"  lrstudy export {location}/{row['arm']}"
