"""What travels to a place that does not share this machine's files: the study file, the user's code, and a driver script.

Everything is laid out as it lies beside the study file, so `./mine.py:name` means the same there. Names in the memo cover
the content of code and files but not where they lie, so training that was recorded here is recalled there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lrstudy import user_code
from lrstudy.errors import Fault, InputError, faults_of
from lrstudy.workload import user_files
from lrstudy.workload.warm_start import PREFIX
from lrstudy.workload.weights import IMAGENET, RANDOM
from lrstudy_cluster.target import Launch
from lrstudy_cluster.templates import fill

BUCKETS = ("s3://", "gs://")


def packed(
    launch: Launch,
    slots: int | None = None,
    setup: Sequence[str] = (),
    more_overrides: Sequence[str] = (),
    name_suffix: str = "",
) -> dict[str, bytes]:
    """Study file, user's code, the files that it reads, and `driver.sh`, which runs the study on the cluster.

    Returns contents by path below the study's folder there.

    Args:
        launch: The launch.
        slots: How many trials may run at once when the cluster is as large as it may become; None for what it has.
        setup: Lines of shell for the driver script, before anything else.
        more_overrides: Overrides that the target adds.
        name_suffix: Shell text, such as ``-$(date +%F)``, that ends the study's name; it is expanded when the driver starts.

    Raises:
        InputError: Code or files cannot travel.
    """
    base = launch.path.parent
    files = {"study.yaml": _read(launch.path, "study file")}
    for where, text in _references(launch):
        reference = user_code.Reference.parse(user_code.resolve(text, base, where))
        files |= {_below(file, base, where): _read(file, where) for file in user_code.files(str(reference), where)}
    for file in user_files.named(launch.study.workload.files, base).values():
        files[_below(file, base, "workload.files")] = _read(file, "workload.files")
    overrides = [*(_with_near_code(text, base) for text in launch.overrides), *more_overrides]
    values = {
        "slots": slots,
        "overrides": overrides,
        "setup": setup,
        "name": launch.study.name if name_suffix else None,
        "name_suffix": name_suffix,
    }
    return {**files, "driver.sh": fill("shared", "driver.sh", values).encode()}


def faults(launch: Launch, shared_folder: str | None, how: str) -> list[Fault]:
    """What does not fit a place with files of its own: code out of reach, data and storage that only this machine has.

    Args:
        launch: The launch.
        shared_folder: The folder there that all nodes share; None if there is none.
        how: What to do for such a folder, in a whole sentence.
    """
    return [
        *faults_of(lambda: packed(launch)),
        *_storage_faults(launch.study.storage.path, shared_folder, how),
        *_data_faults(launch, shared_folder),
        *_weights_faults(launch, shared_folder),
    ]


def _storage_faults(path: str, shared_folder: str | None, how: str) -> list[Fault]:
    if path.startswith(BUCKETS):
        return []
    if shared_folder and PurePosixPath(path).is_relative_to(shared_folder):
        return []
    expected = "a bucket (s3://... or gs://...)"
    if shared_folder:
        expected += f" or a folder below {shared_folder}, which all nodes share"
    return [Fault("storage.path", expected=expected, got=path, advice=how)]


def _data_faults(launch: Launch, shared_folder: str | None) -> list[Fault]:
    source = launch.study.workload.source
    kind, colon, path = source.source.partition(":")
    data = path if colon and not user_code.is_reference(source.source) else source.root
    if data is None:
        return []
    if _may_be_there(data, launch, shared_folder):
        return []
    expected = "the absolute path of the data as the cluster's nodes see it, since data does not travel with the study"
    return [Fault("workload.data", expected=expected, got=f"{kind}:{path}" if data is path else f"root: {data}")]


def _weights_faults(launch: Launch, shared_folder: str | None) -> list[Fault]:
    weights = launch.study.workload.weights
    is_named = weights in (RANDOM, IMAGENET) or weights.startswith(PREFIX)
    if is_named or _may_be_there(weights, launch, shared_folder):
        return []
    expected = "the absolute path of the file as the cluster's nodes see it, since weights do not travel with the study"
    return [Fault("workload.weights", expected=expected, got=weights)]


def _may_be_there(path: str, launch: Launch, shared_folder: str | None) -> bool:
    """Whether a path may exist in the place that the study is sent to: it is absolute, and not one beside the study file."""
    if shared_folder is not None and PurePosixPath(path).is_relative_to(shared_folder):
        return True
    return PurePosixPath(path).is_absolute() and not Path(path).is_relative_to(launch.path.parent)


def _with_near_code(override: str, base: Path) -> str:
    """An override whose references to code below `base` are relative to it; other paths stay as they are."""
    return re.sub(rf"{re.escape(str(base))}/([^\"',]+\.py:\w+)", r"./\1", override)


def _references(launch: Launch) -> Iterator[tuple[str, str]]:
    """The references to the user's code in a study, each with its field."""
    workload = launch.study.workload
    fields = {
        "workload.model": workload.model,
        "workload.augment": workload.augment,
        "workload.train_step": workload.train_step,
        "workload.data": workload.source.source,
        **dict(_policies(launch)),
    }
    for where, text in fields.items():
        if not user_code.is_reference(text):
            continue
        if PurePosixPath(text).is_absolute() and not any(text in override for override in launch.overrides):
            expected = "a path relative to the study file, since the code travels with it"
            raise InputError(Fault(where, expected=expected, got=text))
        yield where, text


def _policies(launch: Launch) -> Iterator[tuple[str, Any]]:
    """The policies of all arms and of their stages, each with its field."""
    for name, body in launch.study.arms.items():
        yield f"arms.{name}.policy", body.get("policy", name)
        stages = body.get("stages")
        for number, stage in enumerate(stages if isinstance(stages, list) else ()):
            yield f"arms.{name}.stages[{number}].policy", stage["policy"]


def _below(file: Path, base: Path, where: str) -> str:
    if not file.is_relative_to(base):
        expected = f"code and files below {base}, the folder of the study file, which travel with it"
        raise InputError(Fault(where, expected=expected, got=str(file)))
    return file.relative_to(base).as_posix()


def _read(file: Path, where: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(Fault(where, f"{file} cannot be read ({error.strerror})")) from None
