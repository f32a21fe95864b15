"""The numerics that a study chooses, where ``auto`` stands for what is best on its device."""

from __future__ import annotations

from lrstudy.config.sections import NumericsConfig, WorkloadConfig
from lrstudy.errors import Fault, InputError
from lrstudy.workload.numerics import NumericsSpec

_EVALUATED_AT_ONCE = {"cpu": 2**19, "cuda": 2**25}
"""Pixel values in the images of one evaluation batch: a CPU is up to twice as fast while activations stay in its cache."""


def chosen(workload: WorkloadConfig, device: str, image_elements: int) -> NumericsSpec:
    """The numerics that a study chooses, ``auto`` decided. Raises InputError for what the device cannot do.

    On a CPU channels_last trained 11 networks 1.0 to 1.7 times as fast. That a GPU needs it to use its tensor cores, and
    is slower with it otherwise, is what NVIDIA says and was not measured.
    """
    config = workload.numerics
    _require_supported(config, device)
    uses_tensor_cores = config.precision != "fp32" or config.tf32
    best = "channels_last" if device == "cpu" or uses_tensor_cores else "contiguous"
    most_images = max(1, _EVALUATED_AT_ONCE[device] // image_elements)
    return NumericsSpec(
        precision=config.precision,
        tf32=config.tf32,
        memory_format=best if config.memory_format == "auto" else config.memory_format,
        compile=config.compile,
        # Unfused, an optimizer asks the device after every update whether a scaled gradient overflowed.
        fused=config.precision == "fp16" if config.fused == "auto" else config.fused,
        eval_batch=min(1024, 2 ** (most_images.bit_length() - 1)) if config.eval_batch == "auto" else config.eval_batch,
        batchnorm=workload.batchnorm,
    )


def _require_supported(config: NumericsConfig, device: str) -> None:
    """Raise InputError for a precision that only a GPU computes, or computes fast."""
    if device != "cpu":
        return
    if config.precision == "fp16":
        raise InputError(
            Fault(
                "workload.numerics.precision",
                "fp16 needs a GPU, as a CPU computes it many times slower than fp32; expected fp32 or bf16",
            )
        )
    if config.tf32:
        raise InputError(Fault("workload.numerics.tf32", "only NVIDIA GPUs have TF32; expected false on a CPU"))
