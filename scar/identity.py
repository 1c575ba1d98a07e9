"""What decides a run's numbers, by name. A run's folder carries the fingerprint of these names and values.

The names follow neither the layout of the config nor the modules of the code, so moving a setting or a class renames no
run. A setting that only says where or how a run is computed (paths, tracker, engine, memory, checkpoints) has no name here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

TOP = ("scale", "seed", "model_seed", "threads", "device", "recipe")
"""Single values. `device`: cpu or cuda; `recipe`: that of the models trained here (scar/supervised/store.py)."""
NOT_NAMED = ("_target_", "rows_a_batch", "shape", "labels", "test_prompts")
"""Keys without a say in any number: a class's place in the code, how many rows go into one pass, what `make check` reads."""
NOT_OF_MODELS = ("recipe", "build", "stated", "gold")
"""Keys of `models` that follow from the task and its data (`build`: in old records), or are of the model that judges finished
runs."""
NOT_OF_TASK = ("alpha", "source", "data_dir", "sources", "reviews", "prompt", "generation", "scoring")
"""Keys of `task` that are no settings of its class; they have names of their own (`reviews`: in old records)."""
LATER = {
    "sparse_weight": None,
    "ppo.kl_scale": 1.0,
    "evaluation.temperature": None,
    "method.one_unit": "score",
}
"""Settings that came later, and the value that means what runs did before there was such a setting: at it they have no name, so
old runs keep theirs."""

RENAMED = {"prefix": "red"}
"""Credit methods that had another name: that name, and the one of now."""

OLD_NAMES = {
    "ExactEstimator": "exact",
    "OwenEstimator": "owen",
    "PermutationEstimator": "permutation",
    "SequentialEstimator": "sequential",
    "ShapEstimator": "shap",
    "SpacyParser": "spacy",
    "StanzaParser": "stanza",
    "ChunkParser": "chunk",
}
"""The `name` of a class in records that know its place in the code alone (schema version 1)."""


def old_name(target: str) -> str:
    """The name of a class by the `_target_` of an old record; ValueError for one that no record has."""
    class_name = target.rpartition(".")[2]
    if class_name not in OLD_NAMES:
        raise ValueError(f"{target} is no class of this code")
    return OLD_NAMES[class_name]


def name_now(method: str) -> str:
    """What a credit method is called now."""
    return RENAMED.get(method, method)


def first_name(method: str) -> str:
    """What a credit method was called first: so it is named in fingerprints and folders of before, which renaming it leaves."""
    return {now: first for first, now in RENAMED.items()}.get(method, method)


def data_source(task: Mapping[str, Any]) -> str:
    """Which of the task's data sources is used: that of `data_dir`, if it is set, else the one that the scale chose."""
    return "folder" if task.get("data_dir") is not None else task["source"]


def run_settings(config: Mapping[str, Any], name_of: Callable[[str], str], needs: Collection[str]) -> dict[str, Any]:
    """The settings that decide a run's numbers, from its resolved config (plain data; `device` is a kind, `recipe` is there).

    `name_of` gives the name of the class at a `_target_`, `needs` says what the credit method needs. Units, parser, estimator
    and coalitions are None for methods that need none, the parser also for units that need none. KeyError when the config is
    none of this code.
    """
    return without_later(
        {key: config[key] for key in TOP}
        | task_settings(config["task"])
        | {
            "models": model_settings(config["models"]),
            "ppo": _named(config["ppo"]),
            "evaluation": _named(config["evaluation"]),
            "alpha": config["shaping"]["alpha"],
            "sparse_weight": config["shaping"].get("sparse_weight"),
            **credit_settings(config, name_of, needs),
        }
    )


def model_settings(models: Mapping[str, Any]) -> dict[str, Any]:
    """Of the policy and the reward model: where they come from, and how they are trained and held."""
    return _named(models, without=NOT_OF_MODELS)


def task_settings(task: Mapping[str, Any]) -> dict[str, Any]:
    """Of the task: its rows, its prompts, how responses are sampled and scored; ValueError for a source that it has not."""
    source = data_source(task)
    if source not in task["sources"]:
        raise ValueError(f"task.source={source}; allowed for task={task['name']}: {', '.join(task['sources'])}")
    return {
        "task": _named(_flat(task), without=NOT_OF_TASK),
        "data": {"source": source, **_named(task["sources"][source])},
        **{key: _named(task.get(key, {})) for key in ("prompt", "generation", "scoring")},
    }


def old_needs(config: Mapping[str, Any]) -> list[str]:
    """What the credit method of an old record needs: its config says so, but for the units, which an estimator needs."""
    return [*config["shaping"]["needs"], *(["units"] if "estimator" in config["shaping"]["needs"] else [])]


def credit_settings(config: Mapping[str, Any], name_of: Callable[[str], str], needs: Collection[str]) -> dict[str, Any]:
    """Of the credit method, whatever alpha is: its name and options, and its units and their values where it needs them."""
    shaping = config["shaping"]
    settings: dict[str, Any] = {"method": {"name": first_name(shaping["name"]), **_named(shaping["method"])}}
    settings |= dict.fromkeys(("units", "parser", "estimator", "coalitions"))
    if "units" in needs:
        units = _flat(config["segmentation"])
        name, parser = units.get("name") or name_of(units["_target_"]), units.get("parser")
        settings["units"] = {"name": name, **_named(units, without=("name", "parser"))}
        settings["parser"] = None if parser is None else {"name": name_of(parser["_target_"]), **_named(parser)}
    if "estimator" in needs:
        estimator = config["estimator"]
        settings["estimator"] = {"name": name_of(estimator["_target_"]), **_named(estimator)}
    if "scorer" in needs:
        coalitions = config.get("coalitions", {})
        settings["coalitions"] = {key: coalitions[key] for key in ("backend", "dtype") if key in coalitions}
    return settings


def judge_settings(judge: Mapping[str, Any]) -> dict[str, Any]:
    """Of a judge: all of its settings."""
    return _named(judge)


def without_later(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`settings` without those of `LATER` that say nothing new; also where a method's are one of several, `methods.<label>`."""
    kept = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if name not in LATER or value != LATER[name]:
            inside = "" if prefix == "methods." else f"{name}."
            kept[key] = without_later(value, inside) if isinstance(value, Mapping) else value
    return kept


def _flat(node: Mapping[str, Any]) -> dict[str, Any]:
    """A node whose class and its settings are at its root; in old records they are in `build`."""
    return {key: value for key, value in node.items() if key != "build"} | dict(node.get("build", {}))


def _named(node: Mapping[str, Any], *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """A node's values, at every depth, without the keys that have no say."""
    excluded = (*NOT_NAMED, *without)
    return {k: _named(v) if isinstance(v, Mapping) else v for k, v in node.items() if k not in excluded}
