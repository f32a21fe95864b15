"""What a warm start has seen of our data: who begins with a state that was trained on our test examples tests its memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrstudy.data.cache import DamagedError, DataSet, opened
from lrstudy.data.spec import DataSpec
from lrstudy.data.splits import Splits
from lrstudy.data.statistics import pixel_digests
from lrstudy.errors import Fault, InputError
from lrstudy.storage.place import Storage
from lrstudy.workload.warm_start import WarmStart, rows

Row = dict[str, Any]
_Example = tuple[object, str | None]
"""What an example is called, and its group if there are groups."""


@dataclass(frozen=True)
class OurData:
    """The data of a study that begins with another one's state."""

    data: DataSet
    parts: Splits
    spec: DataSpec


def deviations(start: WarmStart, ours: OurData, storage: Storage) -> tuple[str, ...]:
    """Departures from the protocol that lie in what a warm start has seen of our data, a sentence each.

    Where both studies have the same source, examples are compared by their position or name, and by their group; else by
    their pixels, if the other study's images are still decoded and have the size of ours.

    Args:
        start: The warm start.
        ours: Our data.
        storage: Our storage, whose memo keeps what was counted.

    Raises:
        InputError: It was trained on examples of our test part, or chosen by them.
        StorageError: The storage fails.
    """
    its, earlier = start.lock["identity"], tuple(_of_an_earlier_start(start))
    if (its["data"], its["split"]) == (ours.data.digest, ours.parts.digest):
        return earlier
    table = rows(start.folder / "split.parquet", ("example", "part", "group", "source"))
    if its["data"] == ours.data.digest or start.lock["data"]["source"] == ours.spec.source:
        return (*_of_the_same_data(start, table, ours), *earlier)
    return (_of_other_data(start, table, ours, storage), *earlier)


def _of_an_earlier_start(start: WarmStart) -> Iterator[str]:
    before = start.lock.get("weights")
    if isinstance(before, dict) and before.get("run"):
        yield f"{start.name} itself began with {before.get('source')}; what that had seen was not compared with our data"


def _of_the_same_data(start: WarmStart, table: Sequence[Row], ours: OurData) -> Iterator[str]:
    """What another split of the same data, or the same one decoded otherwise, has let a warm start see."""
    by_name = start.lock["identity"]["data"] != ours.data.digest
    column = "source" if by_name else "example"
    test, validation = (_examples(ours.data, index, by_name) for index in (ours.parts.test, ours.parts.validation))
    if count := _num_seen(test, [row for row in table if row["part"] != "test"], column):
        problem = (
            f"{start.name} was trained on the same data with another split: {count:,} of our {len(test):,} test examples, "
            "or others of their groups, are among those that it was trained on or chosen by"
        )
        advice = "Give both studies the same split and seed, or test on data that neither has seen."
        raise InputError(Fault("weights", problem, advice=advice))
    if count := _num_seen(validation, [row for row in table if row["part"] == "train"], column):
        yield (
            f"training began with the state of {start.name}, which was trained on {count:,} of our {len(validation):,} "
            "validation examples, so choices by these favour what it knows by heart; it has not seen our test part"
        )


def _examples(data: DataSet, index: NDArray[np.int64], by_name: bool) -> list[_Example]:
    """The examples at `index`, by the name that they have in the source or by their position, with their groups."""
    names: Sequence[object] = (data.sources_of(index) or [None] * len(index)) if by_name else index.tolist()
    groups: Sequence[str | None] = data.groups_of(index) or [None] * len(index)
    return list(zip(names, groups, strict=True))


def _num_seen(examples: Sequence[_Example], seen: Sequence[Row], column: str) -> int:
    """How many examples are among the rows `seen` of another study's split, or have a group that is."""
    names = {row[column] for row in seen} - {None}
    groups = {row["group"] for row in seen} - {None, ""}
    return sum(name in names or group in groups for name, group in examples)


def _of_other_data(start: WarmStart, table: Sequence[Row], ours: OurData, storage: Storage) -> str:
    """A sentence on how much of our test part was among other data, as far as can be told."""
    from lrstudy.memo.memo import Memo

    its, memo, total = start.lock["identity"], Memo(storage.memo), len(ours.parts.test)
    path = f"copies/{ours.data.digest}-{ours.parts.digest}-of-{its['data']}-{its['split']}"
    known = memo.measurement(path, "copies")
    count = known["copies"] if known is not None else _num_copies(start, table, ours)
    if known is None and count is not None:
        memo.put_measurement(path, {"copies": count})
    told = (
        f"{count:,} of our {total:,} test examples have exactly the pixels of one that it was trained on or chosen by"
        if count is not None
        else "whether it has seen our test examples is not known, as its images are not here or have another size"
    )
    return (
        f"training began with the state of {start.name}, which was trained on other data ({start.lock['data']['source']}); "
        f"{told}"
    )


def _num_copies(start: WarmStart, table: Sequence[Row], ours: OurData) -> int | None:
    """How many of our test examples have the pixels of one that the warm start has seen; None if that cannot be told."""
    theirs = _its_data(start)
    if theirs is None or theirs.images.shape[1:] != ours.data.images.shape[1:]:
        return None
    index = [row["example"] for row in table if row["part"] != "test" and 0 <= row["example"] < len(theirs.images)]
    seen = set(pixel_digests(theirs.images, index))
    return sum(digest in seen for digest in pixel_digests(ours.data.images, ours.parts.test.tolist()))


def _its_data(start: WarmStart) -> DataSet | None:
    """The decoded data of a warm start's study, if the cache of its storage still has it."""
    cache = start.storage.data_cache
    for meta in sorted(cache.glob("*/meta.json")):
        try:
            if json.loads(meta.read_bytes())["digest"] == start.lock["identity"]["data"]:
                return opened(cache, meta.parent.name)
        except (OSError, ValueError, KeyError, TypeError, DamagedError):
            continue  # one that is being made, or is none
    return None
