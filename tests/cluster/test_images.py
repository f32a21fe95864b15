"""The container images: linted, consistent with the checkout, and their one step run in a folder of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "cluster" / "images"
DOCKERFILE = (IMAGES / "Dockerfile").read_text()
APPTAINER = (IMAGES / "lrstudy.def").read_text()


def tool(name: str) -> str | None:
    """A linter's path: beside this Python, else on the PATH."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, continued lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined]


def copied() -> set[str]:
    """What the Dockerfile copies from the checkout."""
    texts = [text for name, text in instructions() if name == "COPY" and not text.startswith("--from")]
    return {source for text in texts for source in text.split()[:-1]}


def section(name: str) -> list[str]:
    """The lines of a section of the Apptainer definition."""
    (text,) = re.findall(rf"^%{name}\n(.*?)(?=^%|\Z)", APPTAINER, flags=re.MULTILINE | re.DOTALL)
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.mark.skipif(tool("hadolint") is None, reason="needs hadolint")
def test_the_dockerfile_is_linted():
    done = subprocess.run([str(tool("hadolint")), IMAGES / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(tool("shellcheck") is None, reason="needs shellcheck")
def test_the_step_that_both_share_is_good_shell():
    done = subprocess.run([str(tool("shellcheck")), IMAGES / "install.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_both_images_begin_with_the_same_pinned_python():
    (base,) = {text.split()[0] for name, text in instructions() if name == "FROM"}
    assert f"\nFrom: {base}\n" in APPTAINER
    version = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-\w+", base)
    assert version
    assert f"Programming Language :: Python :: {version[1]}" in project()["classifiers"]


def test_both_images_get_what_the_wheel_is_made_of_and_nothing_else():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    folders = {path.split("/")[0] for path in [*config["packages"], *config["force-include"]]}
    needed = {"constraints.txt", "pyproject.toml", project()["readme"], *project()["license-files"], *folders}
    assert copied() == needed
    assert dict(line.split() for line in section("files")) == {name: f"/checkout/{name}" for name in needed}
    ignored = (IMAGES / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == needed
    assert "*" in ignored


def test_the_container_is_nobody_special_and_holds_no_secret():
    names = [name for name, _ in instructions()]
    assert ("USER", "1000:1000") in instructions()
    assert names.index("USER") > len(names) - names[::-1].index("COPY") - 1
    assert names.count("FROM") == 2
    assert not re.search(r"(?i)(token|password|secret|key)\s*=", DOCKERFILE + APPTAINER)
    assert "RAY_AUTH_MODE" not in DOCKERFILE  # a container alone has no token; launches set it


def test_both_images_are_installed_by_the_same_step():
    step = "install.sh /checkout /opt/lrstudy"
    assert any(name == "RUN" and text.endswith(step) for name, text in instructions())
    assert any(line.endswith(step) for line in section("post"))


@pytest.mark.long
def test_the_step_installs_a_whole_lrstudy_without_git(tmp_path):
    """As in the image: from the files that are copied there alone. Needs the package index."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, checkout / name)
    done = subprocess.run(
        ["bash", checkout / "cluster" / "images" / "install.sh", checkout, tmp_path / "environment"],
        env={"PATH": f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin", "HOME": str(Path.home())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert project()["version"] in done.stdout.splitlines()
    assert "kuberay: " in done.stdout


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
