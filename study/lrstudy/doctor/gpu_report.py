"""What torch sees of the GPUs; a program of its own, as whoever asks must not import torch. Prints JSON."""

from __future__ import annotations

import json
from typing import Any


def report() -> dict[str, Any]:
    """The GPUs that torch can compute on, or why there is none."""
    import torch

    if not torch.cuda.is_available():
        build = f"torch {torch.__version__}"
        return {
            "gpus": [],
            "problem": f"{build} is built without CUDA" if torch.version.cuda is None else _problem(build),
        }
    found = []
    for number in range(torch.cuda.device_count()):
        total = torch.ones(1024, device=f"cuda:{number}").sum().item()
        free_bytes, memory_bytes = torch.cuda.mem_get_info(number)
        works = total == 1024.0
        name = torch.cuda.get_device_name(number)
        found.append({"name": name, "memory_bytes": memory_bytes, "free_bytes": free_bytes, "works": works})
    return {"gpus": found, "problem": ""}


def _problem(build: str) -> str:
    """Why a torch that is built for CUDA does not use it."""
    import torch

    try:
        torch.zeros(1, device="cuda")
    except Exception as error:
        return f"{build} for CUDA {torch.version.cuda}: {' '.join(str(error).split())[:200]}"
    return f"{build} finds no GPU"


if __name__ == "__main__":
    print(json.dumps(report()))
