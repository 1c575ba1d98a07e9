"""Every setting is known: each node of a composed config is checked against names, types and bounds before anything is loaded.

What a node may hold is read off the class, dataclass or function that takes it, so a new parameter needs no entry here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, partial
from typing import Annotated, Any, Literal, get_args

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from scar.coalitions.backends import BACKENDS, DTYPES
from scar.commands.targets import keys, located, parameters, unknown
from scar.config import EvaluationConfig, GenerationConfig, LoadConfig, MemoryConfig, PPOConfig, ScoringConfig
from scar.credit.methods import CONSTRUCTED_WITH

STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
Schema = Any
"""What a node may hold: a type; a dataclass, whose constructor checks the bounds; `Target`; or a schema for each key."""


@dataclass(frozen=True)
class Target:
    """A node that names its class by `_target_`. `runtime`: parameters that no config gives; `others`: keys of the node that
    are no parameters; `build`: construct it, so that bounds are checked (its `runtime` is then None)."""

    runtime: tuple[str, ...] = ()
    others: Mapping[str, Schema] | None = None
    build: bool = False


Seed, Count = Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]
Share, Weight = Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
RUN: dict[str, Schema] = {
    "scale": Text,
    "seed": Seed,
    "model_seed": Seed,
    "threads": Count,
    "device": Literal["auto", "cpu", "cuda"],
    "force": bool,
    "coalitions": {"backend": Literal[tuple(BACKENDS)], "dtype": Literal[tuple(DTYPES)], "memory_mib": Count},
    "memory": MemoryConfig,
    "checkpoint": {"updates": Count | None},
    "evaluation": EvaluationConfig,
    "ppo": PPOConfig,
    "paths": {"runs": Text, "cache": Text},
    "task": Target(
        runtime=("left_out",),
        others={
            "alpha": Share,
            "source": str,
            "data_dir": str | None,
            "sources": {
                "hub": Target(("cache",)),
                "package": Target(("cache",)),
                "folder": Target(("path",), others={"path": str | None}),  # that of task.data_dir
            },
            "prompt": Target(build=True),
            "generation": GenerationConfig,
            "scoring": ScoringConfig,
        },
    ),
    "shaping": {"name": str, "alpha": Share, "sparse_weight": Weight | None, "method": Target(CONSTRUCTED_WITH)},
    "estimator": Target(build=True),
    "segmentation": Target(("tokenizer",), build=True),
    "parser": Target(),
    "models": None,  # by what `source` says
    "engine": Target(),
    "tracker": Target(("folder", "name", "config")),
}
"""Of every run (conf/config.yaml)."""
AUTO = {"bounded": Target(build=True), "unbounded": Target(build=True)}
"""Of estimator=auto (conf/estimator/auto.yaml)."""
HUB = {
    "source": str,
    "policy": {"name": str, "revision": str | None, "shape": dict, "load": LoadConfig},
    "reward": {
        "name": str,
        "revision": str | None,
        "shape": dict,
        "labels": Count,
        "weights": Literal["float32", "bfloat16"],
        "rows_a_batch": Count,
    },
    "gold": {"name": str | None},
}
"""Of `models` that are on the hub."""
HELD = {
    "policy": {"load": LoadConfig},
    "reward": {"labels": Count, "weights": Literal["float32", "bfloat16"], "rows_a_batch": Count},
}
"""How models that are trained here are held; the rest is said by their recipes (`SETTINGS`)."""


def prepared(cfg: DictConfig, more: Mapping[str, Schema] | None = None) -> DictConfig:
    """`cfg`, every setting of which is known, with its estimator chosen; `more`: what a script has beside `RUN`.

    ValueError names the setting, what it may be, and for an unknown one the nearest that is known.
    """
    if HydraConfig.initialized():
        _check_names(HydraConfig.get(), HydraConf, "hydra")
        check_variant(HydraConfig.get().overrides.task)
    schema = _joined(RUN, more or {})
    schema["models"] = _models(cfg.get("models"))
    auto = "estimator" in cfg and "_target_" not in cfg.estimator
    if auto:
        schema["estimator"] = AUTO
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    check(values, schema, known=list(keys(values)))
    absent = [key for key in schema if key not in values]
    if absent:
        raise ValueError(
            f"{', '.join(absent)}: not set; choose one on the command line, or let conf/scale/{cfg.scale}.yaml do so"
        )
    if auto:
        cfg.estimator = cfg.estimator.bounded if "max_units" in cfg.segmentation else cfg.estimator.unbounded
    return cfg


def check_variant(overrides: Iterable[str]) -> None:
    """Raise ValueError where a command, or a job of its sweep, names a variant and a method: Hydra would take the method, and of
    the variant what is left."""
    given = dict(override.lstrip("+~").split("=", 1) for override in overrides if "=" in override)
    if given.get("variant", "null") != "null" and "shaping" in given:
        raise ValueError(
            f"variant={given['variant']} with shaping={given['shaping']}: a variant chooses its method; leave shaping out "
            "(experiments/train.py or experiments/explain.py, or experiment=released; make train and experiment=table1 give one)"
        )


def check(values: Any, schema: Schema, path: str = "", *, known: Iterable[str] = ()) -> None:
    """Raise ValueError unless `values` (plain data) fit `schema`; `known`: keys to propose in place of an unknown one."""
    build: Callable[..., Any] | None = None
    if isinstance(schema, Target):
        schema, build = _of_target(values, schema, path)
    elif isinstance(schema, type) and is_dataclass(schema):
        schema, build = _parameters(schema), schema
    if not isinstance(schema, Mapping):
        _check_type(values, schema, path)
        return
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}={values!r}; allowed: a group of settings: {', '.join(schema)}")
    for key, value in values.items():
        inside = f"{path}.{key}".lstrip(".")
        if key not in schema:
            raise ValueError(unknown(inside, [*known, *(f"{path}.{name}".lstrip(".") for name in schema)]))
        check(value, schema[key], inside, known=known)
    if build is not None:
        try:
            build(**{key: value for key, value in values.items() if key != "_target_"})
        except TypeError as error:  # a parameter that has no value
            raise ValueError(f"{path}: {error}") from error
        except ValueError as error:
            raise ValueError(_whole(str(error), path)) from error


def _whole(message: str, path: str) -> str:
    """`message` of a class that knows the last part of its node's name, with the whole name."""
    last = path.rpartition(".")[2]
    return message.replace(f"{last}.", f"{path}.", 1) if message.startswith(f"{last}.") else message


def _check_names(values: Any, owner: Any, path: str) -> None:
    """Refuse keys that are no fields of `owner`, a dataclass of Hydra's, or of the dataclasses in it."""
    types = {"env": dict} | {field.name: field.type for field in fields(owner)}  # hydra.env is not in its dataclass
    for key in values:
        inside = f"{path}.{key}"
        if key not in types:
            raise ValueError(unknown(inside, [f"{path}.{name}" for name in types]))
        if isinstance(types[key], type) and is_dataclass(types[key]) and values[key] is not None:
            _check_names(values[key], types[key], inside)


def _of_target(values: Any, target: Target, path: str) -> tuple[Schema, Callable[..., Any] | None]:
    others = dict(target.others or {})
    if not isinstance(values, Mapping) or "_target_" not in values:
        raise ValueError(f"{path}={values!r}; allowed: _target_ (a class) and its settings")
    if values["_target_"] is None:  # tracker=jsonl
        return {"_target_": None, **others}, None
    owner = located(values["_target_"])
    schema = {"_target_": str, **_parameters(owner, target.runtime), **others}
    nested = {
        key: Target(target.runtime)
        for key, value in values.items()
        if isinstance(value, Mapping) and "_target_" in value
    }
    schema |= {key: node for key, node in nested.items() if key in schema and key not in others}
    runtime = dict.fromkeys(target.runtime)
    return schema, partial(owner, **runtime) if target.build else None


def _parameters(build: Callable[..., Any], runtime: tuple[str, ...] = ()) -> dict[str, Schema]:
    return {name: hint for name, hint in parameters(build).items() if name not in runtime}


def _check_type(value: Any, hint: Any, path: str) -> None:
    try:
        _adapter(hint).validate_python(value)
    except ValidationError as error:
        said = dict.fromkeys(_plainly(problem["msg"]) for problem in error.errors())
        null = " or null" if type(None) in get_args(hint) else ""
        raise ValueError(f"{path}={value!r}; allowed: {' or '.join(said)}{null}") from None


PLAINLY = {
    r"^\w+ should (be|have) ": "",
    r"a valid integer.*": "a whole number",
    r"a valid boolean": "true or false",
    r"a valid string": "a text",
    r"a valid (number|dictionary)": r"a \1",
    r"greater than or equal to (\S+)": r"\1 or more",
    r"less than or equal to (\S+)": r"\1 or less",
    r" after validation, not \d+": "",
}
"""Pydantic's words, and ours."""


def _plainly(message: str) -> str:
    for words, ours in PLAINLY.items():
        message = re.sub(words, ours, message)
    return message


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=None if is_dataclass(hint) else STRICT)


def _models(models: Any) -> Schema:
    """What `models` may hold, by where they come from."""
    if models is None or models.get("source") == "hub":
        return HUB
    trained, classes = _joined({"examples": Count | None}, HELD), {"pretrained": Target(("cache",))}
    for key in ("stated", "recipe"):
        if key in models:
            recipe = located(models[key]._target_)
            trained = _joined(trained, recipe.SETTINGS)
            classes[key] = Target(tuple(parameters(recipe)))
    gold = {**_partial(trained), "name": str | None}
    return {**trained, **classes, "source": Literal["hub", "scratch", "tuned"], "gold": gold}


def _partial(schema: Schema) -> Schema:
    """The same for a node of which parts are given: dataclasses are not built."""
    if isinstance(schema, type) and is_dataclass(schema):
        schema = _parameters(schema)
    return {key: _partial(value) for key, value in schema.items()} if isinstance(schema, Mapping) else schema


def _joined(first: Mapping[str, Schema], second: Mapping[str, Schema]) -> dict[str, Schema]:
    both = {
        key: _joined(first[key], second[key]) for key in first.keys() & second.keys() if isinstance(first[key], Mapping)
    }
    return {**first, **second, **both}
