"""Numerics: whatever changes the order of floating-point operations, and so belongs to a lineage's root.

On a CPU, results were measured to be bit-identical across processes and under load; another number of threads, mkldnn
switched off, another memory format or another CPU capability gave other numbers.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from hashlib import blake2b
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any, Literal

from lrstudy import child_process
from lrstudy.study_folder.replace_file import replacing

EVALUATION = 2
"""Version of what an evaluation records: raised when metrics are added, so that every recalled record has them all."""
_LAYOUT = 2
"""Version of what `measure` returns: raised when fields are added, so that no older result is taken from a cache."""
_PROBE_TIMEOUT_S = 300.0
BatchNorm = Literal["running", "precise"]
_ENVIRONMENT = ("ATEN_", "MKL_", "DNNL_", "ONEDNN_", "CUBLAS_", "NVIDIA_TF32", "TORCH_ALLOW_TF32")


@dataclass(frozen=True)
class NumericsSpec:
    """The numerics that a study chooses.

    Attributes:
        precision: ``fp32``, or ``bf16`` or ``fp16`` for the operations that autocast considers safe. Parameters stay
            float32; with ``fp16`` the loss is scaled.
        tf32: Whether an NVIDIA GPU may round the factors of float32 products to 10 bits of mantissa.
        memory_format: ``contiguous`` or ``channels_last``.
        compile: Whether networks are compiled by torch.compile.
        fused: Whether optimizers update all parameters in one kernel (SGD, Adam, AdamW; RMSprop cannot).
        eval_batch: Number of examples evaluated at a time.
        batchnorm: Which statistics BatchNorm has in an evaluation: the ``running`` ones of training, or ``precise`` ones,
            recomputed over the training part.
    """

    precision: str = "fp32"
    tf32: bool = False
    memory_format: str = "contiguous"
    compile: bool = False
    fused: bool = False
    eval_batch: int = 512
    batchnorm: BatchNorm = "running"


PLAIN = NumericsSpec()


def describe(numerics_spec: NumericsSpec, machine: dict[str, object]) -> dict[str, object]:
    """All numerics of a study: those of a machine, as `measure` returns them, and the chosen ones.

    They are part of every name, so `batchnorm`, which names had not at first, is there only if it is not ``running``.
    """
    chosen = asdict(numerics_spec)
    if numerics_spec.batchnorm == "running":
        del chosen["batchnorm"]
    compiler = {"compiler": _compiler()} if numerics_spec.compile and machine["device"] == "cpu" else {}
    return machine | chosen | compiler


def measure(device: str, threads: int) -> dict[str, object]:
    """The numerics of this process that a study does not choose; imports torch. `device` is ``cpu`` or ``cuda``."""
    import torch

    measured: dict[str, object] = {
        "device": device,
        "device_model": torch.cuda.get_device_name() if device == "cuda" else _cpu_model(),
        "capability": ".".join(map(str, torch.cuda.get_device_capability()))
        if device == "cuda"
        else torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "mkldnn": bool(torch.backends.mkldnn.enabled),
        "torch": str(torch.__version__),
        "evaluation": EVALUATION,
    }
    environment = {k: v for k, v in sorted(os.environ.items()) if k.startswith(_ENVIRONMENT)}
    return measured | ({"environment": environment} if environment else {})


def configure(device: str, threads: int, numerics_spec: NumericsSpec) -> None:
    """Make this process compute as `describe` says. OMP_NUM_THREADS alone does not set the number of torch's threads."""
    import torch

    torch.set_num_threads(threads)
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = numerics_spec.tf32
        torch.backends.cudnn.allow_tf32 = numerics_spec.tf32
        torch.backends.cudnn.benchmark = False


def probe(device: str, threads: int, cache: Path | None = None) -> dict[str, object]:
    """`measure` in a child process, so that the driver need not import torch; for a CPU the result is kept in `cache`.

    Raises RuntimeError if torch cannot use the device.
    """
    if cache is None or device != "cpu":
        return _measure_in_child(device, threads)
    key = blake2b(json.dumps(_machine(device, threads)).encode(), digest_size=8).hexdigest()
    kept = cache / f"{key}.json"
    if kept.exists():
        try:
            return dict(json.loads(kept.read_text()))
        except ValueError:
            pass  # torn by a crash: measured again and replaced below
    measured = _measure_in_child(device, threads)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with replacing(kept) as fresh:
        fresh.write_text(json.dumps(measured))
    return measured


def _measure_in_child(device: str, threads: int) -> dict[str, object]:
    """What this module prints when it is run as a program."""
    done = child_process.run_python(
        ["-m", "lrstudy.workload.numerics", device, str(threads)], timeout_s=_PROBE_TIMEOUT_S
    )
    if done.returncode != 0:
        stderr = done.stderr.decode(errors="replace").strip()
        last = [f"it ended with {done.returncode}", *stderr.splitlines()][-1]
        raise RuntimeError(f"torch cannot use device {device!r}: {last}")
    measured: dict[str, object] = json.loads(done.stdout)
    return measured


def _machine(device: str, threads: int) -> list[Any]:
    """What the measured numerics depend on, as far as can be known without importing torch."""
    flags = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    environment = {k: v for k, v in sorted(os.environ.items()) if k.startswith(_ENVIRONMENT)}
    return [
        _LAYOUT,
        EVALUATION,
        device,
        threads,
        version("torch"),
        str(distribution("torch").locate_file("")),
        _cpu_model(),
        flags,
        environment,
    ]


def _compiler() -> str:
    """The C++ compiler that torch.compile uses on a CPU, with its version; ``none`` if there is none."""
    name = os.environ.get("CXX", "g++")
    try:
        done = child_process.run([name, "--version"])
    except OSError:
        return "none"
    lines = done.stdout.decode(errors="replace").splitlines()
    return lines[0] if done.returncode == 0 and lines else "none"


def _cpu_model() -> str:
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
