"""The commands that look after what a study runs on: `lrstudy doctor` examines it, `lrstudy prepare` brings data and weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lrstudy.cli.options import Address, Json, StudyAndOverrides, WithoutToken, app, counted, split
from lrstudy.errors import ClusterError, InputError

if TYPE_CHECKING:
    from lrstudy.data.fetch import Fetched
    from lrstudy.doctor.findings import Finding
    from lrstudy.study import Study


@app.command()
def doctor(
    study: StudyAndOverrides = None,
    address: Address = None,
    without_token: WithoutToken = False,
    as_json: Json = False,
) -> None:
    """Examine this machine, or every node of a Ray cluster, and the storage and data of a study, before it starts."""
    from lrstudy.doctor import findings

    found = _examined(_studies(study), address, without_token)
    print(json.dumps(findings.to_json(found)) if as_json else "\n".join(findings.render(found)))
    if findings.has_failed(found):
        raise typer.Exit(1)


@app.command()
def prepare(study: StudyAndOverrides = None, as_json: Json = False) -> None:
    """Fetch a study's data and weights, and decode the data, for machines without a network, such as a cluster's nodes."""
    from lrstudy.cli import workloads
    from lrstudy.data.fetch import fetch
    from lrstudy.study import Study

    each, facts = Study.each(*split(study)), {}
    for ours in each:
        with workloads.placed(ours):
            fetched = fetch(ours.file.workload.data_spec(ours.base), ours.storage)
            weights = ours.fetch_weights()
        told = {
            name: str(value) if name in ("reads", "entry") and value else value for name, value in vars(fetched).items()
        }
        facts[ours.workload] = {**told, "weights": weights.to_json()}
        if not as_json:
            print("\n".join([*_described(ours, fetched), *weights.told]))
    if as_json:
        print(json.dumps(workloads.joined(each, facts)))


def _studies(arguments: list[str] | None) -> tuple[Study, ...]:
    """The study that was named, if one was; those of all its workloads, if it has several."""
    from lrstudy.study import Study

    return Study.each(*split(arguments)) if arguments else ()


def _examined(studies: tuple[Study, ...], address: str | None, without_token: bool) -> list[Finding]:
    """All findings. A cluster that cannot be reached, or refuses, is one of them; a wrong argument raises InputError."""
    from lrstudy.doctor.examine import Needs, thorough
    from lrstudy.doctor.findings import Finding
    from lrstudy.doctor.nodes import ThisMachine
    from lrstudy.ray_tune import every_node, reach
    from lrstudy.workload.devices import Resources, num_gpus

    needs, found = Needs(), []
    if studies:
        study = studies[0]
        needs = Needs(study.storage.location, Resources.of(study.file.resources).device == "cuda")
        with suppress(OSError):  # a run makes it as well; if it cannot, the check of the storage says so
            if not study.storage.is_bucket:
                Path(study.storage.location).mkdir(parents=True, exist_ok=True)
        found = [_data(one) for one in studies]
    if address is None:
        return [*found, *thorough(ThisMachine(num_gpus()), needs)]
    reach.require_address(address)
    try:
        with every_node.connected(address, without_token=without_token):
            return [*found, *thorough(every_node.every_node, needs)]
    except InputError as error:
        return [
            *found,
            *(Finding("", fault.where.strip("-"), "fail", fault.problem, fault.advice) for fault in error.faults),
        ]
    except ClusterError as error:
        return [*found, Finding("", "cluster", "fail", str(error))]


def _data(study: Study) -> Finding:
    """Whether the data of a study is here, and whether it is decoded."""
    from lrstudy.data.cache import entry_of
    from lrstudy.doctor.findings import Finding

    spec = study.file.workload.data_spec(study.base)
    try:
        entry = entry_of(replace(spec, download=False), study.storage.data_cache)
    except InputError as error:
        advice = "`lrstudy prepare` fetches what torchvision can download." if spec.download else ""
        return Finding("", "data", "fail", " ".join(error.sentences), advice)
    if entry.exists():
        return Finding("", "data", "ok", f"{spec.source} is here and decoded")
    return Finding("", "data", "ok", f"{spec.source} is here; the first run decodes it, or `lrstudy prepare`")


def _described(study: Study, fetched: Fetched) -> Iterator[str]:
    """What `prepare` prints."""
    data = f"{fetched.source}: {counted(fetched.num_examples, 'example')}"
    done = [f"downloaded {_megabytes(fetched.fetched_bytes)}"] if fetched.fetched_bytes else []
    done += ["decoded"] if fetched.is_new else []
    yield f"{data}, {' and '.join(done) or 'fetched and decoded before'}."
    if fetched.reads:
        yield f"  {_megabytes(fetched.reads_bytes):>10}  {fetched.reads}  (source)"
    yield f"  {_megabytes(fetched.entry_bytes):>10}  {fetched.entry}  (decoded)"
    places = [study.storage.location, *([str(fetched.reads)] if fetched.reads else [])]
    places += [str(study.base / file) for file in study.file.workload.files]
    yield f"No node needs a network for it. Every node must see, under the same path: {', '.join(places)}."


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
