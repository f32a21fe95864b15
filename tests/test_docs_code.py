"""The code of the guides, run as a reader would: extracted from the pages, in a folder of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lrstudy.policies.contract import validate_policy
from lrstudy.study import Study

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text("\n\n".join(blocks("own-policy.md", "python")))
    return tmp_path


@pytest.mark.parametrize("name", ["knee", "HalveWhenWorse"])
def test_the_policies_of_the_guide_keep_the_contract(folder: Path, name: str) -> None:
    lines = validate_policy(f"./mine.py:{name}", folder)
    assert lines[0].startswith(f"./mine.py:{name} is a valid policy")


def test_the_commands_of_the_guide_run(folder: Path) -> None:
    (commands,) = blocks("own-policy.md", "sh")
    for command in commands.strip().splitlines():
        arguments = [str(Path(sys.executable).with_name("lrstudy")), *command.split()[1:]]
        done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr


def test_the_studies_of_the_guide_are_valid(folder: Path) -> None:
    studies = blocks("own-policy.md", "yaml")
    assert len(studies) == 3
    for number, text in enumerate(studies):
        path = folder / f"{number}.yaml"
        path.write_text(text)
        plan, _ = Study.from_yaml(path).plan()
        assert plan.num_trials > 0


def test_the_loop_of_the_guide_follows_the_studys_own_rates() -> None:
    from lrstudy.policies import SGDR, Run

    (code,) = blocks("pytorch-loop.md", "python")
    used: list[float] = []

    class Watched(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            used.append(self.param_groups[0]["lr"])
            super().step()

    original, torch.optim.SGD = torch.optim.SGD, Watched  # type: ignore[misc]
    try:
        exec(compile(code, "pytorch-loop.md", "exec"), {})
    finally:
        torch.optim.SGD = original  # type: ignore[misc]
    policy, run = SGDR(lr=0.1, batch_size=32, t0=2, t_mult=2), Run(320, 6)
    assert used == [float(lr) for epoch in range(6) for lr in policy.settings(epoch, (), run).lr[:, 0]]
