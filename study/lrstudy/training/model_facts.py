"""Facts of a workload's model, kept in the memo: to find them, torch is imported and the model built, which takes seconds."""

from __future__ import annotations

from hashlib import blake2b

from lrstudy.memo.memo import Memo
from lrstudy.models import facts
from lrstudy.models.facts import Facts
from lrstudy.settings import canonical_json
from lrstudy.workload.workload import Workload


def facts_of(workload: Workload) -> Facts:
    """What is known of the workload's model once it is built.

    A user's model is built every time, one by name once for every memo; only then is torch imported. Raises InputError if
    it cannot be built or does not fit the images.
    """
    if "model" in workload.user_references:
        return _found(workload)
    memo = Memo(workload.storage.memo)
    path = _path(workload)
    if (known := memo.measurement(path)) is not None:
        return Facts.of_json(known)
    found = _found(workload)
    memo.put_measurement(path, found.to_json())
    return found


def _found(workload: Workload) -> Facts:
    from lrstudy.models.examine import examine

    builder = workload.user_function("model")
    return examine(workload.model, len(workload.classes), workload.channels, workload.size, builder, workload.stem)


def _path(workload: Workload) -> str:
    """The memo path of the facts, made of what the model is."""
    description = [facts.VERSION, workload.root(0).model]
    return f"models/{blake2b(canonical_json(description), digest_size=16).hexdigest()}"
