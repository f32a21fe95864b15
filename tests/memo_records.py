"""Records made for tests, and the files of a memo in a folder."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from lrstudy.memo.records import Record


def record(number: int, by: str = "", **changes: object) -> Record:
    """The record of epoch `number` as process `by` trained it."""
    name = blake2b(str(number).encode(), digest_size=16).hexdigest()
    facts: dict[str, object] = {
        "lineage": name, "parent": "0" * 32, "root": "1" * 32, "epoch": number, "settings": "2" * 32, "state": None,
        "diverged": False, "metrics": {"val_loss": 0.5}, "batch_size": 32, "updates": 4, "examples": 120, "train_s": 1.5,
        "eval_s": 0.25, "state_s": 0.125, "device_kind": "cpu: x", "device_share": 2.0, "device_s": 3.75, "host": "h",
        "created_at": 1.0 + number, "origin": {"trial": by},
    }  # fmt: skip
    return Record(**(facts | changes))  # type: ignore[arg-type]


def files(folder: Path, kind: str) -> list[Path]:
    return sorted(path for path in (folder / kind).rglob("*") if path.is_file())


def loose(folder: Path, epoch: Record) -> Path:
    return folder / "records" / epoch.lineage[:2] / epoch.lineage


def flip(path: Path, place: int = 100) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def misplaced(path: Path) -> None:
    path.write_bytes(record(7).to_bytes())
