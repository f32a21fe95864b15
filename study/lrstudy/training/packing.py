"""How many trials fit on one GPU: one is trained for a moment on a whole GPU, and the memory that it takes is measured.

Run as a module it does that for a workload on its standard input, so that the driver need not import torch.
"""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

from lrstudy import child_process
from lrstudy.settings import Recipe, canonical_json
from lrstudy.training.sharing import CONTEXT_BYTES
from lrstudy.workload.workload import Workload

_TIMEOUT_S = 900.0
_NUM_UPDATES = 2


@dataclass(frozen=True)
class Probe:
    """What is trained: the workload, alone on its GPU, with the largest batch of the study."""

    workload: Workload
    batch_size: int
    recipe: Recipe

    @property
    def path(self) -> str:
        """The memo path of the measurement, made of all that it depends on; the values of pixels do not matter."""
        workload = self.workload
        depends = {
            "model": workload.root(0).model,
            "source": dict(workload.source_digests),
            "counts": list(workload.counts),
            "image": [workload.channels, workload.size],
            "numerics": workload.numerics,
            "batch_size": self.batch_size,
            "recipe": asdict(self.recipe),
        }
        return f"packing/{blake2b(canonical_json(depends), digest_size=16).hexdigest()}"


def measure(probe: Probe) -> dict[str, int]:
    """What one trial takes of a GPU, in bytes. Imports torch.

    Returns:
        `total_bytes`, the GPU's memory; `tensors_bytes`, the most that torch reserved while it trained and evaluated;
        `context_bytes`, what CUDA takes for the process beyond that.
    """
    import numpy as np
    import torch

    from lrstudy.models.catalogue import NUM_SECTIONS
    from lrstudy.settings import Settings
    from lrstudy.training.trainer import Trainer

    trainer = Trainer(probe.workload)
    trainer.start(seed=0)
    settings = Settings(
        np.full((_NUM_UPDATES, NUM_SECTIONS), 1e-6), np.array(0.9), probe.batch_size, probe.recipe
    )  # fmt: skip
    trainer.make_ready(settings)
    trainer.train(settings, 0, 0)
    trainer.snapshot()  # a copy of the state, as it is made before a state is stored
    free, total = torch.cuda.mem_get_info(trainer.device)
    held = torch.cuda.memory_reserved(trainer.device)
    tensors = torch.cuda.max_memory_reserved(trainer.device)
    return {
        "total_bytes": total,
        "tensors_bytes": tensors,
        "context_bytes": min(max(0, total - free - held), CONTEXT_BYTES),
    }


def measure_in_child(probe: Probe) -> dict[str, int]:
    """`measure` in a child process. Raises RuntimeError if that fails: out of memory even with a whole GPU, for example."""
    done = child_process.run_python(["-m", "lrstudy.training.packing"], stdin=pickle.dumps(probe), timeout_s=_TIMEOUT_S)
    if done.returncode != 0:
        last = [f"it ended with {done.returncode}", *done.stderr.decode(errors="replace").strip().splitlines()][-1]
        raise RuntimeError(f"resources.gpu: auto, and a first trial on a whole GPU fails: {last}")
    measured: dict[str, int] = json.loads(done.stdout)
    return measured


def _main() -> None:
    probe: Any = pickle.load(sys.stdin.buffer)  # from the parent process, through a pipe
    print(json.dumps(measure(probe)))


if __name__ == "__main__":
    _main()
