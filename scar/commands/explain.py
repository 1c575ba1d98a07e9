"""Where each setting of a run comes from: the file and line that set it last, the comment there, and what it was before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # PyYAML, which OmegaConf brings
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from scar.commands.settings import check_variant, prepared


@dataclass(frozen=True)
class Origin:
    """A line that gives a setting its value: `where` is a file and line, or the command line; `note` the comment there."""

    value: Any
    where: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A setting of a run with the lines that set it, the last of which counts."""

    key: str
    value: Any
    origins: list[Origin]

    def __str__(self) -> str:
        """One line: `key = value`, where it is set, the comment there, what was set before."""
        if not self.origins:
            return f"{self.key} = {_shown(self.value)}"
        last, before = self.origins[-1], self.origins[:-1]
        note = f"  {last.note}" if last.note else ""
        over = "".join(f"; over {_shown(o.value)} of {o.where}" for o in reversed(before) if o.value != last.value)
        return f"{self.key} = {_shown(self.value)}  [{last.where}]{note}{over}"


def explain(overrides: Sequence[str], conf: Path) -> list[Row]:
    """Every setting of the run that `experiments/train.py` with `overrides` would compute, in the order of the config; `conf` is
    the folder of the Hydra configuration. ValueError or a Hydra error for what does not compose."""
    with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
        check_variant(overrides)
        cfg = compose("config", overrides=list(overrides))
        origins = _origins(conf, list(overrides))
        chosen = None if "_target_" in cfg.estimator else "bounded" if "max_units" in cfg.segmentation else "unbounded"
        cfg = prepared(cfg)
    rows = []
    for key, value in _leaves(cfg):
        inside = (
            key.replace("estimator.", f"estimator.{chosen}.", 1) if chosen and key.startswith("estimator.") else key
        )
        rows.append(Row(key, value, origins.get(inside, [])))
    return rows


def _origins(conf: Path, overrides: list[str]) -> dict[str, list[Origin]]:
    loader = GlobalHydra.instance().config_loader()
    origins: dict[str, list[Origin]] = {}
    for default in loader.compute_defaults_list("config", overrides, RunMode.RUN).defaults:
        file = conf / f"{default.config_path}.yaml"
        if not file.exists():  # Hydra's own
            continue
        package = f"{default.package}." if default.package else ""
        for key, origin in _of_file(file, conf.parent):
            origins.setdefault(package + key, []).append(origin)
    for override in OverridesParser.create().parse_overrides(overrides):
        if not (conf / override.key_or_group).is_dir() and not override.is_delete():
            origins.setdefault(override.key_or_group, []).append(Origin(override.value(), "command line"))
    return origins


def _of_file(file: Path, root: Path) -> Iterator[tuple[str, Origin]]:
    text = file.read_text(encoding="utf-8")
    lines, tree = text.splitlines(), yaml.compose(text)
    values = OmegaConf.to_container(OmegaConf.load(file))
    if not isinstance(tree, yaml.MappingNode) or not isinstance(values, dict):
        return
    for path, line in _marks(tree):
        if path[0] in ("defaults", "hydra"):
            continue
        value: Any = values
        for name in path:
            value = value[name]
        note = lines[line].partition(" # ")[2].strip() or lines[line].partition("\t# ")[2]
        yield ".".join(path), Origin(value, f"{file.relative_to(root).as_posix()}:{line + 1}", note)


def _marks(node: yaml.MappingNode, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Path and line of every value that is no group."""
    for key, value in node.value:
        inside = (*path, key.value)
        if isinstance(value, yaml.MappingNode):
            yield from _marks(value, inside)
        else:
            yield inside, key.start_mark.line


def _leaves(cfg: DictConfig, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no group. A group that refers to another one is a value: what it refers to is listed there."""
    for key in cfg:
        inside = f"{path}.{key}".lstrip(".")
        if OmegaConf.is_interpolation(cfg, key) or not OmegaConf.is_dict(cfg._get_node(key)):
            yield inside, cfg[key]
        else:
            yield from _leaves(cfg[key], inside)


def _shown(value: Any) -> str:
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
