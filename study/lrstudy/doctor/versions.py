"""Whether all nodes run the same code: the source of lrstudy, Python, and the packages that compute, store and send."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import lrstudy
from lrstudy.doctor.findings import Finding
from lrstudy.doctor.nodes import Answer

CHECK = "versions"
PACKAGES = (
    "torch",
    "torchvision",
    "ray",
    "numpy",
    "pyarrow",
    "safetensors",
    "obstore",
    "pillow",
    "scikit-learn",
    "pydantic",
)
_ADVICE = (
    "Start every node from one environment: the same image, or an environment installed from the same constraints."
)


def measure() -> dict[str, str]:
    """Python, the digest of lrstudy's source, and every package's version (``missing`` if it is not installed)."""
    found = {"python": platform.python_version(), "lrstudy": source_digest()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def source_digest() -> str:
    """The digest of the Python files of lrstudy that this process imports, 12 hexadecimal digits."""
    folder, digest = Path(lrstudy.__file__).parent, blake2b(digest_size=6)
    for path in sorted(folder.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def judge(answers: Sequence[Answer], here: Mapping[str, str]) -> list[Finding]:
    """One finding per node, compared with what the driver has."""
    return [_judge(answer, here) for answer in answers]


def _judge(answer: Answer, here: Mapping[str, str]) -> Finding:
    node = answer.node.name
    if answer.error:
        advice = _ADVICE if not answer.is_silent else "See the logs of that node's raylet, or take the node away."
        return Finding(node, CHECK, "fail", answer.error, advice)
    there: Mapping[str, str] = answer.value
    differ = [
        f"{name} {there.get(name, 'missing')} there, {here[name]} here"
        for name in here
        if there.get(name) != here[name]
    ]
    missing = [name for name in here if there.get(name) == here[name] == "missing"]
    if differ or missing:
        text = "; ".join([*differ, *(f"{name} is not installed" for name in missing)])
        return Finding(node, CHECK, "fail", text, _ADVICE)
    return Finding(node, CHECK, "ok", f"Python {there['python']}, torch {there['torch']}, lrstudy {there['lrstudy']}")
