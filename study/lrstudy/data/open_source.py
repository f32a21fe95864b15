"""Opens the source that a study's `workload.data` names."""

from __future__ import annotations

from pathlib import Path

from lrstudy import user_code
from lrstudy.data.sources.base import Source
from lrstudy.data.sources.csv_file import CsvFile
from lrstudy.data.sources.digits import Digits
from lrstudy.data.sources.folder import Folder
from lrstudy.data.sources.npz import NpzFile
from lrstudy.data.sources.parquet import Parquet
from lrstudy.data.sources.torchvision_sets import SETS, TorchvisionSet
from lrstudy.data.sources.user_function import UserFunction
from lrstudy.data.spec import DataSpec
from lrstudy.errors import InputError, unknown


def open_source(spec: DataSpec) -> Source:
    """The source that `spec.source` names. Nothing is read yet.

    Raises InputError for a kind of source that does not exist.
    """
    kind, colon, path = spec.source.partition(":")
    if user_code.is_reference(spec.source):
        return UserFunction(spec.source)
    if spec.source == "digits":
        return Digits()
    if spec.source.lower() in SETS:
        return TorchvisionSet(spec.source.lower(), spec.root, spec.download)
    if colon and kind == "folder":
        return Folder(Path(path))
    if colon and kind == "parquet":
        return Parquet(Path(path), spec.image_column, spec.label_column, spec.multilabel)
    if colon and kind == "csv":
        return CsvFile(Path(path), spec.image_column, spec.label_column, spec.root, spec.multilabel)
    if colon and kind == "npz":
        return NpzFile(Path(path))
    kinds = ("digits", "folder:PATH", "parquet:PATH", "csv:PATH", "npz:PATH", "./mine.py:load")
    raise InputError(unknown("data", "source", spec.source, (*kinds, *SETS)))
