"""One update before a study begins: a fault in somebody's own code should not cost a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrstudy import user_code
from lrstudy.errors import Fault, InputError
from lrstudy.workload.workload import Workload, load

_EXAMPLES = 4
_SEEDS = 8


def has_batchnorm(workload: Workload) -> bool:
    """Whether the user's model normalises over the batch. Imports torch, to build it; False if it cannot be built."""
    from torch.nn.modules.batchnorm import _BatchNorm

    from lrstudy.models.build import build_model

    shape = len(workload.classes), workload.channels, workload.size
    try:
        built = build_model(workload.model, *shape, 0, _owned(workload, "model"))
    except Exception:  # the rehearsal says what is wrong
        return False
    return any(isinstance(module, _BatchNorm) for module in built.module.modules())


def rehearse(workload: Workload) -> None:
    """Build the model and train one update on a few training examples, on the CPU, if any of the code is the user's.

    Imports torch then. Raises InputError for whatever fails, with the line of the user's at fault.
    """
    if not workload.own and not workload.recipe.augment.startswith("["):
        return
    import numpy as np
    import torch

    from lrstudy.data.batches import part_of
    from lrstudy.models.build import build_model
    from lrstudy.settings import Settings
    from lrstudy.training.epoch import Own, train_epoch
    from lrstudy.training.state import State

    data, parts = load(workload.data, Path(workload.cache))
    index, device = parts.train[: min(_EXAMPLES, len(parts.train))], torch.device("cpu")
    if "augment" in workload.own:
        _require_own_generator(_owned(workload, "augment"), data.images[index[0]])
    part = part_of(data.images, data.labels, index, device, workload.constants)
    try:
        built = build_model(
            workload.model, len(workload.classes), data.channels, data.size, 0, _owned(workload, "model")
        )
        state = State.of(built, device)
        settings = Settings(np.full((1, len(state.sections)), 1e-3), np.array(0.9), len(index), workload.recipe)
        train_epoch(state, settings, part, 0, 0, Own(_owned(workload, "augment"), _owned(workload, "train_step")))
    except InputError as error:
        raise error.within("workload") from error
    except Exception as error:
        folders = {user_code.Reference.parse(reference).path.parent for reference in workload.own.values()}
        line = next(filter(None, (user_code.line_in(error, folder) for folder in sorted(folders))), "")
        what = " and ".join(workload.own) or "augment"
        raise InputError(
            Fault("workload", f"a first update with your {what} fails: {type(error).__name__}: {error}{line}")
        ) from error


def _require_own_generator(augment: Any, image: Any) -> None:
    """Raise InputError if the answer depends on global generators: then neither a rerun nor another worker repeats it."""
    import random

    import numpy as np
    import torch

    kept = random.getstate(), np.random.get_state()
    answers = []
    try:
        with torch.random.fork_rng(devices=[]):
            for seed in range(_SEEDS):
                random.seed(seed)
                np.random.seed(seed)
                torch.default_generator.manual_seed(seed)
                answers.append(augment(torch.from_numpy(np.array(image)), torch.Generator().manual_seed(0)))
    except Exception:  # the first update says what is wrong
        return
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
    are_images = all(isinstance(answer, torch.Tensor) for answer in answers)
    if are_images and not all(torch.equal(answer, answers[0]) for answer in answers):
        raise InputError(
            Fault(
                "workload.augment",
                "your function draws from a global generator; expected it to draw from the generator it is given "
                "alone, as in torch.rand((), generator=generator)",
            )
        )


def _owned(workload: Workload, role: str) -> Any:
    """The user's code in a role, or None. Raises InputError if it cannot be loaded."""
    return user_code.load(workload.own[role], role) if role in workload.own else None
