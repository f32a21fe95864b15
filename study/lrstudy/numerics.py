"""Numerics: whatever changes the order of floating-point operations, and so belongs to a lineage's root.

Measured bit-identical on CPU across processes and loads; other thread counts, mkldnn switched off, another
memory format or CPU capability gave other numbers.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from hashlib import blake2b
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

EVAL_BATCH = 512
EVALUATION = 2
"""Version of what an evaluation records: raised with new metrics, so that whatever is recalled has them all."""
_ENVIRONMENT = ("ATEN_", "MKL_", "DNNL_", "ONEDNN_", "CUBLAS_", "NVIDIA_TF32", "TORCH_ALLOW_TF32")


def measure(device: str, threads: int) -> dict[str, object]:
    """The numerics of this process; imports torch. `device` is ``cpu`` or ``cuda``."""
    import torch

    configure(device, threads)
    described: dict[str, object] = {
        "device": device,
        "device_model": torch.cuda.get_device_name() if device == "cuda" else _cpu_model(),
        "capability": ".".join(map(str, torch.cuda.get_device_capability()))
        if device == "cuda"
        else torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "mkldnn": bool(torch.backends.mkldnn.enabled),
        "precision": "fp32",
        "tf32": False,
        "compile": False,
        "memory_format": "contiguous",
        "torch": str(torch.__version__),
        "eval_batch": EVAL_BATCH,
        "evaluation": EVALUATION,
    }
    environment = {k: v for k, v in sorted(os.environ.items()) if k.startswith(_ENVIRONMENT)}
    return described | ({"environment": environment} if environment else {})


def configure(device: str, threads: int) -> None:
    """Make this process compute the way `measure` describes. OMP_NUM_THREADS alone does not set torch's threads."""
    import torch

    torch.set_num_threads(threads)
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False


def probe(device: str, threads: int, cache: Path | None = None) -> dict[str, object]:
    """`measure`, in a process of its own, remembered in `cache` for CPUs: the driver need not import torch."""
    key = blake2b(json.dumps(_machine(device, threads)).encode(), digest_size=8).hexdigest()
    remembered = cache / f"{key}.json" if cache and device == "cpu" else None
    if remembered and remembered.exists():
        try:
            return dict(json.loads(remembered.read_text()))
        except ValueError:
            pass  # torn by a crash: measured again and replaced below
    command = [sys.executable, "-m", "lrstudy.numerics", device, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"torch cannot use device {device!r}: {done.stderr.strip().splitlines()[-1]}")
    measured: dict[str, object] = json.loads(done.stdout)
    if remembered:
        remembered.parent.mkdir(parents=True, exist_ok=True)
        fresh = remembered.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(measured))
        fresh.replace(remembered)
    return measured


def _machine(device: str, threads: int) -> list[Any]:
    """What the measured numerics depend on, as far as it can be known without torch."""
    flags = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    environment = {k: v for k, v in sorted(os.environ.items()) if k.startswith(_ENVIRONMENT)}
    return [
        EVALUATION,
        device,
        threads,
        EVAL_BATCH,
        version("torch"),
        str(distribution("torch").locate_file("")),
        _cpu_model(),
        flags,
        environment,
    ]


def _cpu_model() -> str:
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
