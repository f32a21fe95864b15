"""A workload, resolved: data found and split, device and numerics known; plain values that a worker takes.

Nothing here imports torch, so a study whose training is all recorded never pays for it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lrstudy import numerics
from lrstudy.config import StudyFile
from lrstudy.data.cache import prepare
from lrstudy.data.normalise import Constants, normalisation
from lrstudy.data.spec import DataSpec
from lrstudy.data.splits import split
from lrstudy.lineage import Root
from lrstudy.model_names import describe


@dataclass(frozen=True)
class Workload:
    """Data, model and device of a study.

    `cache` is the folder of decoded data. `data_digest` and `split_digest` are what the driver found; a
    worker checks them, and `numerics` too. `constants` are mean and deviation per channel. `share` is the
    number of devices that a trial occupies: GPUs, or CPU cores where there is none.
    """

    data: DataSpec
    cache: str
    data_digest: str
    split_digest: str
    classes: tuple[str, ...]
    counts: tuple[int, int, int]
    constants: Constants
    model: str
    channels: int
    size: int
    device: str
    threads: int
    share: float
    numerics: dict[str, object]

    @property
    def num_slots(self) -> int:
        """How many trials this machine can run at once; at least 1."""
        cores = len(os.sched_getaffinity(0)) // self.threads
        if self.device == "cuda":
            return max(1, min(num_gpus() * int(1 / self.share + 1e-9), cores))
        return max(1, cores)

    def root(self, seed: int) -> Root:
        """The root of a trial with this seed."""
        image = self.data.image
        return Root(
            data=self.data_digest,
            split=self.split_digest,
            preprocessing={"normalize": image.normalize, "constants": [list(c) for c in self.constants]},
            model=describe(self.model, len(self.classes), self.channels, self.size),
            weights="random",
            seed=seed,
            numerics=self.numerics,
        )


def resolve(study: StudyFile, base: Path, storage: Path) -> Workload:
    """Find, decode and split the data, and measure the numerics of the device that will train.

    Raises InputError if the data or the split does not do, or if the decoded data cannot be kept.
    """
    config = study.workload
    spec = config.data_spec(base)
    cache = storage / "memo" / "data"
    data = prepare(spec, cache)
    parts = split(data.labels, data.part, spec.split, spec.subset, data.classes)
    gpu = study.resources.gpu if study.resources.gpu is not None else float(num_gpus() > 0)
    device, threads = "cuda" if gpu else "cpu", study.resources.cpu
    return Workload(
        data=spec,
        cache=str(cache),
        data_digest=data.digest,
        split_digest=parts.digest,
        classes=tuple(data.classes),
        counts=(len(parts.train), len(parts.validation), len(parts.test)),
        constants=normalisation(spec.image.normalize, data.images, parts.train),
        model=config.model,
        channels=data.channels,
        size=data.size,
        device=device,
        threads=threads,
        share=gpu or float(threads),
        numerics=numerics.probe(device, threads, storage / "memo" / "numerics"),
    )


def num_gpus() -> int:
    """How many NVIDIA GPUs this process may use, found without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return found if visible is None else min(found, len([v for v in visible.split(",") if v.strip() not in ("", "-1")]))
