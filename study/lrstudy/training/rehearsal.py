"""One update before a study begins, so that a fault in the user's own code does not cost device time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lrstudy import user_code
from lrstudy.errors import Fault, InputError
from lrstudy.models.timm_names import is_timm
from lrstudy.training.model_facts import facts_of
from lrstudy.training.workload_model import build
from lrstudy.workload.workload import Workload, opened_data

if TYPE_CHECKING:
    from lrstudy.data.batches import Part

_NUM_EXAMPLES = 4
_NUM_SEEDS = 8


def rehearse(workload: Workload) -> None:
    """Build the model and train one update on a few training examples, on the CPU, if the study has code of the user's.

    A list of transforms counts as such. A model of timm's is shown images without values. Only then is torch imported.
    Raises InputError for whatever fails, with the line of the user's code where it failed.
    """
    if is_timm(workload.model):
        try:
            facts_of(workload)
        except InputError as error:
            raise error.within("workload") from error
    if not workload.user_references and not workload.recipe.augment.startswith("["):
        return
    import torch

    from lrstudy.data.batches import part_of

    data, parts = opened_data(workload)
    index = parts.train[: min(_NUM_EXAMPLES, len(parts.train))]
    if "augment" in workload.user_references:
        _require_own_generator(workload.user_function("augment"), data.images[index[0]])
    part = part_of(data.images, data.labels, index, torch.device("cpu"), workload.constants)
    try:
        with workload.only_named_files():
            _train_one_update(workload, part)
    except InputError as error:
        raise error.within("workload") from error
    except Exception as error:
        references = workload.user_references
        folders = {user_code.Reference.parse(reference).path.parent for reference in references.values()}
        line = next(filter(None, (user_code.line_in(error, folder) for folder in sorted(folders))), "")
        roles = " and ".join(references) or "augment"
        raise InputError(
            Fault("workload", f"a first update with your {roles} fails: {type(error).__name__}: {error}{line}")
        ) from error


def _train_one_update(workload: Workload, part: Part) -> None:
    """Train the workload's model for one update on all examples of `part`."""
    import numpy as np

    from lrstudy.settings import Settings
    from lrstudy.training.epoch import UserFunctions, train_epoch
    from lrstudy.training.state import State

    state = State.of(build(workload), part.device)
    settings = Settings(np.full((1, len(state.sections)), 1e-3), np.array(0.9), len(part), workload.recipe)
    functions = UserFunctions(workload.user_function("augment"), workload.user_function("train_step"))
    train_epoch(state, settings, part, 0, 0, functions)


def _require_own_generator(augment: Any, image: Any) -> None:
    """Raise InputError if an augmentation draws from global generators: neither a rerun nor another worker would repeat it."""
    import random

    import numpy as np
    import torch

    results = []
    try:
        with _global_generators_kept():
            for seed in range(_NUM_SEEDS):
                random.seed(seed)
                np.random.seed(seed)
                torch.default_generator.manual_seed(seed)
                results.append(augment(torch.from_numpy(np.array(image)), torch.Generator().manual_seed(0)))
    except Exception:  # the first update says what is wrong
        return
    are_images = all(isinstance(result, torch.Tensor) for result in results)
    if are_images and not all(torch.equal(result, results[0]) for result in results):
        raise InputError(
            Fault(
                "workload.augment",
                "your function draws from a global generator; expected it to draw from the generator it is given "
                "alone, as in torch.rand((), generator=generator)",
            )
        )


@contextmanager
def _global_generators_kept() -> Iterator[None]:
    """Within it, the global generators of Python, NumPy and torch may be used; afterwards they are as they were."""
    import random

    import numpy as np
    import torch

    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
