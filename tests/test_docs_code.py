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


@pytest.mark.slow
def test_the_commands_and_loaders_of_the_export_guide_run(tmp_path: Path) -> None:
    from PIL import Image

    from finished_studies import TINY, finished

    for k in range(60):
        path = tmp_path / "{}" / "ab"[k % 2] / f"{k}.png"
        for folder in ("first", "week48"):
            file = Path(str(path).format(folder))
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (80, 70), (4 * k, 100, 7)).save(file)
    Image.new("RGB", (90, 100), (200, 100, 7)).save(tmp_path / "lesion.jpg")
    workload = "{data: 'folder:first', split: {test: 10, validation: 10}, image: {size: 65}, model: squeezenet1_1}"
    finished(
        tmp_path,
        TINY.replace("{data: digits, subset: 200, split: {test: 60, validation: 40}, model: small_cnn}", workload)
        .replace("[constant, step]", "{sgdr: {t0: 1, t_mult: 1}}")
        .replace("epochs: 2", "epochs: 1")
        .replace("trials: 2", "trials: 1"),
    )
    commands = [command.strip().replace("skin", "small") for command in blocks("export.md", "sh")]
    assert [command.split()[1] for command in commands] == ["export", "train"]
    lrstudy = [sys.executable, "-P", "-c", "from lrstudy.cli import main; main()"]
    for command in commands:
        done = subprocess.run(
            [*lrstudy, *command.split()[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "accuracy on the test part: " in done.stdout
    loader, plain, onnx = blocks("export.md", "python")
    assert all(sum(bool(line.strip()) for line in code.splitlines()) == 5 for code in (loader, plain))
    for code in (loader, plain, onnx):
        code += "\nprint(logits.shape)" if "logits" in code else "\nprint(network)"
        done = subprocess.run(
            [sys.executable, "-P", "-c", code.replace("skin", "small")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "1, 2" in done.stdout or "SqueezeNet" in done.stdout
