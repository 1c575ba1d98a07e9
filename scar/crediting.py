"""The life of a credit record: which texts, which methods with which settings, and the folder that they end in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from scar.build import load_parts, setup_process
from scar.config import EvaluationConfig, fingerprint, require
from scar.construct import plain
from scar.evaluation.credit import Assigner, CreditRows
from scar.identity import credit_settings, model_settings, task_settings
from scar.parts import Parts
from scar.ppo.rollout import Sampler
from scar.run import class_name
from scar.segmentation.segmenters import SpanSegmenter
from scar.supervised.store import RECIPE, StartProgress
from scar.tracking.credit_records import CREDIT_VERSION, CreditWriter
from scar.tracking.provenance import code_state, device_description, versions
from scar.tracking.records import RunRecord

SOURCES = ("text", "run", "sft")
NAMES = ("name", "source")
"""What names a node's class or data in a record; it has no key in the node itself."""
OF_RUN = ("scale", "task", "model_seed")
"""What a stored run decides itself."""


def make_credit(cfg: DictConfig, overrides: Sequence[str], *, start_progress: StartProgress) -> Path:
    """Compute the record that conf/credit.yaml with `overrides` asks for, unless it exists; returns its folder.

    `cfg` is that config composed. ValueError or OSError where it cannot be.
    """
    device = setup_process(cfg)
    _check(cfg)
    run = RunRecord(Path(cfg.run)) if cfg.source == "run" else None
    configs = _configs(cfg, list(overrides), run)
    base = next(iter(configs.values()))
    identity = _identity(cfg, base, configs, run, device)
    folder = Path(cfg.paths.credit) / base.scale / base.task.name / f"{_name(cfg, run)}-{fingerprint(identity)}"
    if folder.exists() and not cfg.force:
        return folder
    started = datetime.now(UTC)
    parts = load_parts(base, device)
    assigners = {label: _assigner(parts, one) for label, one in configs.items()}
    tokenizer = parts.tokenizer
    rows = CreditRows(
        assigners, parts.scoring, tokenizer, tokenizer.pad_token_id, tokenizer.eos_token_id, cfg.seed, device
    )
    samples = _samples(cfg, base, parts, run)
    with CreditWriter(folder) as writer:
        advance = start_progress("credit")
        for done, (number, sample) in enumerate(samples[writer.done :], start=writer.done + 1):
            writer.append(rows.row(number, sample))
            advance(done, len(samples), {})
        writer.commit(
            {
                "credit_version": CREDIT_VERSION,
                "scale": base.scale,
                "task": base.task.name,
                "source": identity["source"],
                "methods": identity["methods"],
                "seed": cfg.seed,
                "model_seed": base.model_seed,
                "models": parts.describe_models(),
                "device": device_description(device),
                "fingerprint": fingerprint(identity),
                "config": identity,
                **code_state(),
                "versions": versions(),
                "started": started.isoformat(timespec="seconds"),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
    return folder


def _check(cfg: DictConfig) -> None:
    require(cfg.source in SOURCES, f"source={cfg.source}", ", ".join(SOURCES))
    require(len(cfg.methods) > 0, "methods=[]", "one method or more, such as methods=[sparse,scar]")
    require(len(cfg.segmentations) > 0, "segmentations=[]", "one or more of token, span, sentence")
    require(type(cfg["items"]) is int and cfg["items"] >= 1, f"items={cfg['items']}", "a whole number, 1 or more")
    whole = cfg.sample is None or (type(cfg.sample) is int and cfg.sample >= 0)
    require(whole, f"sample={cfg.sample}", "null or a whole number from 0")
    require(cfg.sample is None or cfg.source == "run", f"sample={cfg.sample} with source={cfg.source}", "source=run")
    require(
        (cfg.run is not None) == (cfg.source == "run"),
        f"run={cfg.run} with source={cfg.source}",
        "run=<folder> with source=run",
    )
    for key in ("prompt", "response"):
        filled = isinstance(cfg[key], str) and cfg[key] != ""
        require(filled, f"{key}={cfg[key]!r}", "a text of at least one character")


def _configs(cfg: DictConfig, overrides: list[str], run: RunRecord | None) -> dict[str, DictConfig]:
    """The config of each method, by its label: what experiments/train.py would use for it. `scar:span` is scar on spans."""
    if run is not None:
        overrides = _overrides_of_run(overrides, run)
    typed = {_key(override).split(".")[0] for override in overrides}
    others = [one for one in overrides if not _key(one).startswith("shaping")]
    found = {}
    for method in cfg.methods:
        one = _compose([*others, f"shaping={method}"], run, typed)
        if "estimator" not in one.shaping.needs:
            found[method] = one
            continue
        for units in cfg.segmentations:
            chosen = [*overrides, f"shaping={method}", f"segmentation={units}"]
            found[f"{method}:{units}"] = _compose(chosen, run, typed)
    return found


def _compose(overrides: list[str], run: RunRecord | None, typed: set[str]) -> DictConfig:
    """The config of some overrides. A run's own settings take the place of what was not typed: its task and models, and
    those of its credit where it is the same method (and the same units)."""
    cfg = compose("credit", overrides)
    if run is None:
        return cfg
    saved, own = run.manifest["settings"], []
    if saved["method"]["name"] == cfg.shaping.name:
        own.append("method")
        if saved["units"] and saved["units"]["name"] == cfg.segmentation.name:
            own += ["units", *(key for key in ("parser", "estimator", "coalitions") if saved[key])]
    places = {"method": "shaping.method", "units": "segmentation.build"}
    own = [key for key in own if places.get(key, key).split(".")[0] not in typed]
    named = [f"{key}={saved[key]['name']}" for key in ("parser", "estimator") if key in own]
    cfg = compose("credit", [*overrides, *named]) if named else cfg
    source = saved["data"]["source"]
    values = {"models": saved["models"], "task.build": saved["task"], f"task.sources.{source}": saved["data"]}
    values |= {f"task.{key}": saved[key] for key in ("prompt", "generation", "scoring")}
    values |= {places.get(key, key): saved[key] for key in own}
    values["task"] = {"data_dir": saved["data"]["path"]} if source == "folder" else {"data_dir": None, "source": source}
    OmegaConf.resolve(cfg.task)
    OmegaConf.resolve(cfg.models)
    for place, settings in values.items():
        plain_settings = {key: value for key, value in settings.items() if place == "models" or key not in NAMES}
        OmegaConf.update(cfg, place, plain_settings, merge=True, force_add=True)
    return cfg


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~")


def _overrides_of_run(overrides: list[str], run: RunRecord) -> list[str]:
    """The overrides with the run's scale, task and model seed; ValueError where others are asked for."""
    for override in overrides:
        key, value = _key(override), override.split("=", 1)[-1]
        own = key in OF_RUN and value == str(run.manifest[key])
        if key.split(".")[0] in (*OF_RUN, "models") and not own:
            raise ValueError(f"{override} with run={run.path}; the run decides that: leave it out")
    return [one for one in overrides if _key(one) not in OF_RUN] + [f"{key}={run.manifest[key]}" for key in OF_RUN]


def _identity(
    cfg: DictConfig, base: DictConfig, configs: dict[str, DictConfig], run: RunRecord | None, device: torch.device
) -> dict[str, Any]:
    """Everything that decides a record's numbers."""
    return {
        "version": CREDIT_VERSION,
        "recipe": RECIPE,
        "device": device.type,
        "seed": cfg.seed,
        "model_seed": base.model_seed,
        "scale": base.scale,
        "source": _describe_source(cfg, base, run),
        **task_settings(plain(base.task)),
        "models": model_settings(plain(base.models)),
        "methods": {label: credit_settings(plain(one), class_name) for label, one in configs.items()},
    }


def _describe_source(cfg: DictConfig, base: DictConfig, run: RunRecord | None) -> dict[str, Any]:
    if run is not None:
        names = ("method", "seed", "fingerprint")
        return {"kind": "run", "sample": cfg.sample, "items": cfg["items"]} | {key: run.manifest[key] for key in names}
    if cfg.source == "text":
        return {"kind": "text", "prompt": cfg.prompt, "response": cfg.response}
    return {
        "kind": "sft",
        "items": cfg["items"],
        "batch_size": base.evaluation.batch_size,
        "seed": base.evaluation.seed,
    }


def _name(cfg: DictConfig, run: RunRecord | None) -> str:
    return cfg.source if run is None else f"{run.manifest['method']}-seed{run.manifest['seed']}"


def _assigner(parts: Parts, cfg: DictConfig) -> Assigner:
    method, _ = parts.method(cfg)
    if not method.needs_units:
        return Assigner(method)
    segmenter = parts.segmenter(cfg)
    segmenter.load()
    return Assigner(method, segmenter, segmenter.trees if isinstance(segmenter, SpanSegmenter) else None)


def _sft_sampler(parts: Parts) -> Sampler:
    policy = parts.policy()
    return parts.sampler(policy, policy)


def _samples(
    cfg: DictConfig, base: DictConfig, parts: Parts, run: RunRecord | None
) -> list[tuple[int, dict[str, Any]]]:
    """The samples with their numbers, in the form of samples.jsonl."""
    if run is not None:
        stored = list(enumerate(run.samples))
        if cfg.sample is None:
            return stored[: cfg["items"]]
        require(cfg.sample < len(stored), f"sample={cfg.sample}", f"0 to {len(stored) - 1}, the samples of {run.path}")
        return [stored[cfg.sample]]
    if cfg.source == "sft":
        config = EvaluationConfig(cfg["items"], base.evaluation.batch_size, base.evaluation.seed)
        return list(enumerate(parts.evaluate(_sft_sampler(parts), config)[1]))
    prompt_ids, response_ids = (
        parts.tokenizer.encode(text, add_special_tokens=False) for text in (cfg.prompt, cfg.response)
    )
    sample = {"prompt": cfg.prompt, "reward_prompt": None, "response": cfg.response, "reward": None}
    return [(0, sample | {"prompt_ids": prompt_ids, "response_ids": [*response_ids, parts.tokenizer.eos_token_id]})]
