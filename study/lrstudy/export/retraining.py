"""A study that trains an arm's winning configuration on new data: everything fixed, confirmed with fresh seeds."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from lrstudy import user_code
from lrstudy.config.sections import WorkloadConfig
from lrstudy.config.text import apply_overrides, parse_yaml
from lrstudy.errors import Fault, InputError
from lrstudy.export.winner import Winner, configuration
from lrstudy.planning.arms import UNTIL
from lrstudy.planning.plan import CONFIRM_SEED
from lrstudy.planning.staged import base_name
from lrstudy.planning.study_lock import SOURCES
from lrstudy.policies.stages import STAGES

_KEPT = ("lrstudy", "workload", "metric", "report_metrics", "select", "budget", "resources", "price")
"""What the new study takes from the old one as it is."""
_HEAD = """# Written by `lrstudy train {place}`: the winning configuration of that arm, on other data.
# The one trial before the confirm trials has the seed of the first of them, so it is that training and costs nothing.
"""


def write_study(winner: Winner, overrides: Sequence[str], name: str | None = None) -> Path:
    """Write the study file beside the old one, where its relative paths start; returns its path.

    Args:
        winner: The confirmed trial whose configuration is trained.
        overrides: ``data=NEW``, other keys of `workload` by their name alone, and ``a.b=VALUE`` for all others.
        name: The name of the new study; by default it is made of the old one's, the arm's and the data's.

    Raises:
        InputError: There is no new data, a key is unknown, or the file exists with other content.
    """
    translated = [_translated(override) for override in overrides]
    data = next((text.partition("=")[2] for text in translated if text.startswith("workload.data.source=")), None)
    if data is None:
        raise InputError(Fault("train", expected="data=NEW, the data to train on, such as data=folder:data/week48"))
    arm = winner.arm.partition("@")[0]
    fresh = _study(winner, arm) | {"name": name or _name(f"{winner.lock['name']}-{arm}", data)}
    text = _HEAD.format(place=f"{winner.tables.folder.name}/{winner.arm}") + _yaml(apply_overrides(fresh, translated))
    path = winner.base / f"{fresh['name']}.yaml"
    try:
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise InputError(
                Fault(str(path), "exists with other content", advice="Choose another name with --as NAME.")
            )
        path.write_text(text, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(Fault(str(path), f"cannot be written ({reason})")) from None
    return path


def _translated(override: str) -> str:
    """An override with its whole path: ``data=NEW`` is ``workload.data.source=NEW``."""
    key, equals, value = override.partition("=")
    if not equals:
        raise InputError(Fault("train", expected="key=VALUE, such as data=folder:data/week48", got=repr(override)))
    if key in ("data", "workload.data"):
        return f"workload.data.source={value}"
    return f"workload.{override}" if key.partition(".")[0] in WorkloadConfig.model_fields else override


def _study(winner: Winner, arm: str) -> dict[str, Any]:
    """The new study as a map, on the old data yet."""
    text = (winner.tables.folder / "study.yaml").read_text(encoding="utf-8")
    old = apply_overrides(parse_yaml(text), winner.lock["overrides"])
    return {key: old[key] for key in _KEPT if key in old} | {
        "arms": {arm: _fixed(winner)},
        "search": {"method": "random", "trials": 1, "cohort": 1, "seeds": [CONFIRM_SEED]},
        "confirm": {"top": 1, "seeds": winner.lock["confirm"]["seeds"]},
        "storage": {**(old.get("storage") or {}), "path": winner.storage.location},
    }


def _fixed(winner: Winner) -> dict[str, Any]:
    """The arm with the values of the winning trial; what is inactive beside these has none, and is left out."""
    definition, values = winner.lock["arms"][winner.arm]["definition"], configuration(winner)
    given = {key: definition[key] for key in (UNTIL,) if key in definition}
    if definition["policy"] != STAGES:
        return {"policy": _policy(winner, definition), **values, **given}
    stages = [
        {"policy": _policy(winner, stage), **_in_stage(values, f"stage{number}_")}
        for number, stage in enumerate(definition["stages"], 1)
    ]
    return {key: value for key, value in values.items() if base_name(key) == key} | given | {"stages": stages}


def _in_stage(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The parameters of a stage under the names that they have in it."""
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def _policy(winner: Winner, definition: Mapping[str, Any]) -> str:
    """The policy of an arm or a stage; for a user's the reference to the copy that the study keeps, if it is here."""
    written = str(definition["policy"])
    if "source" not in definition:
        return written
    kept = user_code.kept(written, definition["source"], winner.tables.folder / SOURCES)
    return kept if user_code.Reference.parse(kept).path.is_file() else written


def _name(beginning: str, data: str) -> str:
    """A name of at most 100 characters, of letters, digits, '_', '.' and '-'."""
    source = data.strip("'\"")
    path = (
        user_code.Reference.parse(source).path
        if user_code.is_reference(source)
        else Path(source.partition(":")[2] or source)
    )
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{beginning}-{path.stem}")[:100].rstrip("-.")


def _yaml(study: dict[str, Any]) -> str:
    order = ("lrstudy", "name", "workload", "metric", "report_metrics", "select", "budget", "arms")
    text, yaml = io.StringIO(), YAML()
    yaml.dump({key: study[key] for key in (*order, *study) if key in study}, text)
    return text.getvalue()
