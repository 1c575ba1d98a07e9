"""From nodes of a Hydra config to Python objects, and the names of settings. Imports no torch."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, get_type_hints

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A config node as resolved plain Python."""
    return OmegaConf.to_container(cfg, resolve=True)


MOVED = {
    "scar.attribution.estimators": "scar.credit.estimators",
    "scar.attribution.shap_backend": "scar.credit.shap_oracle",
    "scar.shaping.methods": "scar.credit.methods",
    "scar.evaluation.judge": "scar.judging.judge",
    "scar.evaluation.judge_prompts": "scar.judging.prompts",
    "scar.recipes.answers": "scar.supervised.preference",
    "scar.recipes.comparisons": "scar.supervised.comparisons",
    "scar.recipes.sentiment": "scar.supervised.sentiment",
    "scar.recipes.summaries": "scar.supervised.preference",
    "scar.credit.methods.PrefixDifferenceMethod": "scar.credit.methods.RedMethod",
    "scar.tracking.trackers.NoTracker": "null",
}
"""Where the classes are now that a `_target_` in a user's own YAML may name: modules, and single classes."""


def located(target: str) -> Any:
    """What a `_target_` names; ValueError with its new name for one that has moved."""
    module, _, name = target.rpartition(".")
    new = MOVED.get(target, f"{MOVED[module]}.{name}" if module in MOVED else None)
    if new is not None:
        raise ValueError(f"_target_: {target} is no longer there; write {new}")
    return get_object(target)


@lru_cache
def parameters(build: Callable[..., Any]) -> Mapping[str, Any]:
    """The parameters of a class or function with their types; `Any` where a type is imported for type checkers only."""
    typed: Any = build if inspect.isfunction(build) or "__init__" not in vars(build) else build.__init__
    try:
        hints = get_type_hints(typed, include_extras=True)
    except NameError:
        hints = {}
    own = inspect.signature(build).parameters.values()
    return {p.name: hints.get(p.name, Any) for p in own if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def construct(node: DictConfig, **runtime: Any) -> Any:
    """Call a node's `_target_` with its values and run-time objects (`instantiate` alone would turn a dataclass passed to
    it into a config)."""
    located(node._target_)
    return instantiate(node, _partial_=True, _convert_="all")(**runtime)


def build_settings(build: Callable[..., Any], node: DictConfig, **runtime: Any) -> Any:
    """Call `build` with a node's values and run-time objects."""
    return build(**plain(node), **runtime)


# Names of settings.


def keys(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Every key of nested settings, with dots, groups too."""
    for key, value in values.items():
        inside = f"{path}.{key}".lstrip(".")
        yield inside
        if isinstance(value, Mapping):
            yield from keys(value, inside)


def unknown(key: str, known: Iterable[str]) -> str:
    """What is said of a setting that does not exist."""
    if key in ("experiment", "variant"):
        return f"the file of {key}=... does not begin with the line `# @package _global_`, so its settings would do nothing"
    others = [name for name in dict.fromkeys(known) if not f"{key}.".startswith(f"{name}.")]
    if near := nearest(key, others):
        return f"{key}: no such setting; did you mean {near}?"
    group = key.rpartition(".")[0]
    beside = [name.rpartition(".")[2] for name in others if name.rpartition(".")[0] == group]
    return f"{key}: no such setting; allowed{f' in {group}' if group else ''}: {', '.join(beside)}"


OFTEN = ("ppo", "task", "shaping", "models")
"""The groups that most settings are in; they are proposed first."""


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The known setting that `key` was most likely meant to be: the same last name elsewhere, or one spelled alike."""
    names = list(dict.fromkeys(known))
    last = key.rpartition(".")[2]
    same = [name for name in names if name.rpartition(".")[2] == last]
    if same:
        return min(same, key=lambda name: (name.count("."), name.split(".")[0] not in OFTEN))
    whole = difflib.get_close_matches(key, names, n=1, cutoff=0.75)
    ends = difflib.get_close_matches(last, [name.rpartition(".")[2] for name in names], n=1, cutoff=0.6)
    return whole[0] if whole else nearest(ends[0], names) if ends else None
