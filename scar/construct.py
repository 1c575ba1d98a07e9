"""From nodes of a Hydra config to Python objects, refusing what a target does not take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A config node as resolved plain Python."""
    return OmegaConf.to_container(cfg, resolve=True)


def construct(node: DictConfig, **runtime: Any) -> Any:
    """Call a node's `_target_` with its values and run-time objects (`instantiate` alone would turn a dataclass passed to
    it into a config). A ValueError names a key that the target does not take."""
    _refuse_unknown(
        get_object(node._target_),
        [key for key in node if key != "_target_"],
        node._get_full_key("").rstrip("."),
        runtime,
    )
    return instantiate(node, _partial_=True, _convert_="all")(**runtime)


def _refuse_unknown(build: Callable[..., Any], keys: Iterable[Any], group: str, runtime: Mapping[str, Any]) -> None:
    parameters = inspect.signature(build).parameters.values()
    allowed = [p.name for p in parameters if p.name not in runtime and p.kind != inspect.Parameter.VAR_KEYWORD]
    unknown = [f"{group}.{key}" for key in keys if key not in allowed]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no such setting; allowed in {group}: {', '.join(allowed) or 'none'}")


def build_settings(build: Callable[..., Any], node: DictConfig, group: str, **runtime: Any) -> Any:
    """Call `build` with a node's values and run-time objects; a ValueError names a key that it does not take."""
    _refuse_unknown(build, node, group, runtime)
    return build(**plain(node), **runtime)
