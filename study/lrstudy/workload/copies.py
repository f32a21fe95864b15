"""Test examples that are copies of training or validation examples: counted once per data set and split."""

from __future__ import annotations

from dataclasses import replace

from lrstudy.data.cache import DataSet
from lrstudy.data.splits import Splits
from lrstudy.data.statistics import Statistics

_QUICK_BYTES = 2**30
"""Images up to this size are searched before every study, in about a second; larger sets only if somebody asks for it."""


def statistics(data: DataSet, parts: Splits, memo: str, is_always: bool = False) -> Statistics:
    """The statistics of a data set, with the number of copies if it is known or quickly counted; the memo keeps it.

    Args:
        data: The data set.
        parts: Its parts.
        memo: Where the memo lies: a path or a URL.
        is_always: Whether to count however long it takes, as all pixels are read.

    Raises:
        StorageError: The memo cannot be read or written.
    """
    from lrstudy.memo.memo import Memo  # imports pyarrow, which most commands do without

    place, plain = f"copies/{data.digest}-{parts.digest}", Statistics.of(data, parts)
    if (known := Memo(memo).measurement(place, "copies")) is not None:
        return replace(plain, num_copies=known["copies"])
    if data.images.nbytes > _QUICK_BYTES and not is_always:
        return plain
    counted = plain.with_copies(data, parts)
    Memo(memo).put_measurement(place, {"copies": counted.num_copies})
    return counted
