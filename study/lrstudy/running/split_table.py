"""The table of the split: which part each example is in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from lrstudy.study_folder.examples import Examples
from lrstudy.study_folder.schemas import SPLIT
from lrstudy.workload.workload import Workload, opened_data


def split_table(workload: Workload) -> pa.Table:
    """The rows of split.parquet, in the order of the data set; examples that `subset` left out have none.

    Raises InputError or StorageError if the decoded data is gone and cannot be decoded anew.
    """
    data, splits = opened_data(workload)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    index = np.concatenate(list(parts.values()))
    order = np.argsort(index)
    names = np.repeat(list(parts), [len(part) for part in parts.values()])[order]
    chosen = index[order]
    examples = Examples(chosen, data.labels[chosen], data.classes, data.groups_of(chosen), data.sources_of(chosen))
    return pa.table({**examples.columns(), "part": names.tolist()}).select(SPLIT.names).cast(SPLIT)
