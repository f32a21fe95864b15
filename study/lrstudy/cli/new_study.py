"""`lrstudy init`: writes a commented study file for the user's data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lrstudy.cli.options import app
from lrstudy.errors import Fault, InputError


@app.command()
def init(
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder of classes, a .parquet, .csv or .npz file, a torchvision set, or ./mine.py:load.",
            metavar="DIR|SOURCE",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The study file to write.", metavar="FILE")] = Path("study.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
) -> None:
    """Look at data and write a commented study file for it."""
    from lrstudy.first_study.write import first_study
    from lrstudy.planning import plan
    from lrstudy.workload.devices import num_gpus

    if data is None:
        raise InputError(Fault("--data", expected="what to look at, as in `lrstudy init --data DIR`", got="nothing"))
    if out.exists() and not force:
        raise InputError(Fault("--out", f"{out} exists already; --force overwrites it, --out FILE writes another"))
    text = first_study(data, out, has_gpu=num_gpus() > 0)
    plan.read(text, base=out.resolve().parent)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(Fault("--out", f"{out} exists already; --force overwrites it")) from None
    except OSError as error:
        raise InputError(Fault("--out", f"cannot write {out}: {error.strerror}")) from None
    print(f"Wrote {out}. Read it, then:")
    for command, why in (
        ("validate", "check it and the data"),
        ("plan", "what it asks for and shares (--probe: and what it costs)"),
        ("run", "run it; the same command goes on after a stop"),
    ):
        print(f"  lrstudy {command} {out}".ljust(34) + f"  # {why}")
