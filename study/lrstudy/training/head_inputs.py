"""How many numbers enter a model's head for an image, and whether the head alone makes the logits of them.

A model is built to find out, in a child process that imports torch, and what was found is kept in the memo. Run as a module
it does that for a workload on its standard input.
"""

from __future__ import annotations

import json
import pickle
import sys
from hashlib import blake2b
from typing import Any

from lrstudy import child_process
from lrstudy.memo.memo import Memo
from lrstudy.models.image_size import sides
from lrstudy.settings import canonical_json
from lrstudy.workload.workload import Workload

_TIMEOUT_S = 900.0


def head_inputs(workload: Workload) -> int | None:
    """How many numbers enter the head for an image; None if it cannot be trained on them alone.

    It cannot where the logits are more than what the head makes of its input, where no module is the head, where the model
    cannot be built (the rehearsal says why), and with a train step of the user's, which calls the model.
    """
    if "train_step" in workload.user_references:
        return None
    memo, path = Memo(workload.storage.memo), _path(workload)
    found = memo.measurement(path, "elements")
    if found is None:
        done = child_process.run_python(
            ["-m", "lrstudy.training.head_inputs"], stdin=pickle.dumps(workload), timeout_s=_TIMEOUT_S
        )
        if done.returncode != 0:
            return None
        found = {"elements": json.loads(done.stdout)}
        memo.put_measurement(path, found)
    return int(found["elements"]) or None


def _path(workload: Workload) -> str:
    depends = [workload.root(0).model, {role: workload.source_digests.get(role) for role in ("model", "files")}]
    return f"heads/{blake2b(canonical_json(depends), digest_size=16).hexdigest()}"


def _measure(workload: Workload) -> int:
    """The number of elements, 0 if the head cannot be trained alone. Imports torch."""
    import torch

    from lrstudy.training import features
    from lrstudy.training.state import State
    from lrstudy.training.workload_model import build

    with workload.only_named_files():
        state = State.of(build(workload), torch.device("cpu"))
    shape = (2, workload.channels, *sides(workload.size))
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return features.elements(state, images) or 0


def _main() -> None:
    workload: Any = pickle.load(sys.stdin.buffer)  # from the parent process, through a pipe
    print(json.dumps(_measure(workload)))


if __name__ == "__main__":
    _main()
