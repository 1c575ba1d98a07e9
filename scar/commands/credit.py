"""Credit of given texts under several methods, from a config to the credit record that it ends in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from hydra import compose
from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from scar.commands.build import Parts, credit_needs, load_parts, setup_process
from scar.commands.settings import Count, Text, check_variant, prepared
from scar.commands.targets import plain
from scar.commands.train import class_name
from scar.config import EvaluationConfig, fingerprint, require
from scar.credit.methods import readable_units
from scar.identity import credit_settings, first_name, model_settings, name_now, task_settings, without_later
from scar.interfaces import CreditMethod, Segmenter
from scar.ppo.evaluation import rollout_of_samples
from scar.ppo.rollout import ResponseScoring, Sampler
from scar.seeding import numpy_generator
from scar.segmentation.offsets import token_offsets
from scar.segmentation.segmenters import SpanSegmenter
from scar.supervised.store import RECIPE, StartProgress
from scar.tracking.credit_records import CREDIT_VERSION, CreditWriter
from scar.tracking.provenance import code_state, device_description, versions
from scar.tracking.records import RunRecord
from scar.types import Credit, Rollout, Scores, Units

SETTINGS = {
    "source": Literal["text", "run", "sft"],
    "prompt": Text,
    "response": Text,
    "run": str | None,
    "sample": Annotated[int, Field(ge=0)] | None,
    "items": Count,
    "methods": Annotated[list[str], Field(min_length=1)],
    "segmentations": Annotated[list[Literal["token", "span", "punctuation", "sentence"]], Field(min_length=1)],
    "paths": {"credit": Text, "results": Text},
}
"""What conf/credit.yaml adds to the settings of a run."""
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
    assigners = {label: _assigner(parts, config) for label, config in configs.items()}
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
    require(cfg.sample is None or cfg.source == "run", f"sample={cfg.sample} with source={cfg.source}", "source=run")
    require(
        (cfg.run is not None) == (cfg.source == "run"),
        f"run={cfg.run} with source={cfg.source}",
        "run=<folder> with source=run",
    )


def _configs(cfg: DictConfig, overrides: list[str], run: RunRecord | None) -> dict[str, DictConfig]:
    """The config of each method, by its label: what experiments/train.py would use for it. `scar:span` is scar on spans."""
    if run is not None:
        overrides = _overrides_of_run(overrides, run)
    typed = {_key(override).split(".")[0] for override in overrides}
    others = [override for override in overrides if not _key(override).startswith("shaping")]
    methods = list(dict.fromkeys(map(name_now, cfg.methods)))
    if run is not None and "methods" not in typed and run.manifest["method"] not in methods:
        methods.append(run.manifest["method"])  # a run's own method is never left out
    units_shown = list(cfg.segmentations)
    if run is not None and "segmentations" not in typed and run.manifest["segmentation"] not in (None, *units_shown):
        units_shown.append(run.manifest["segmentation"])
    configs = {}
    for method in methods:
        check_variant([*overrides, f"shaping={method}"])
        config = _compose([*others, f"shaping={method}"], run, typed)
        if "units" not in credit_needs(config):
            configs[method] = config
            continue
        for units in units_shown:
            with_units = [*overrides, f"shaping={method}", f"segmentation={units}"]
            configs[f"{method}:{units}"] = _compose(with_units, run, typed)
    return configs


def _compose(overrides: list[str], run: RunRecord | None, typed: set[str]) -> DictConfig:
    """The config of some overrides. A run's own settings take the place of what was not typed: its task and models, and
    those of its credit where it is the same method (and the same units)."""
    cfg = prepared(compose("credit", overrides), SETTINGS)
    if run is None:
        return cfg
    settings, keys = run.manifest["settings"], []
    if run.manifest["method"] == cfg.shaping.name:
        keys.append("method")
        if settings["units"] and settings["units"]["name"] == class_name(cfg.segmentation._target_):
            keys += ["units", *(key for key in ("parser", "estimator", "coalitions") if settings[key])]
    nodes = {"method": "shaping.method", "units": "segmentation"}
    keys = [key for key in keys if nodes.get(key, key).split(".")[0] not in typed]
    named = [f"{key}={settings[key]['name']}" for key in ("parser", "estimator") if key in keys]
    cfg = prepared(compose("credit", [*overrides, *named]), SETTINGS) if named else cfg
    source = settings["data"]["source"]
    values = {"models": settings["models"], f"task.sources.{source}": settings["data"]}
    values |= {f"task.{key}": settings[key] for key in ("prompt", "generation", "scoring")}
    values |= {nodes.get(key, key): settings[key] for key in keys}
    where = {"data_dir": settings["data"]["path"]} if source == "folder" else {"data_dir": None, "source": source}
    values["task"] = settings["task"] | where
    OmegaConf.resolve(cfg.task)
    OmegaConf.resolve(cfg.models)
    for node, values_of_node in values.items():
        plain_settings = {
            key: value for key, value in values_of_node.items() if node in ("models", "task") or key not in NAMES
        }
        OmegaConf.update(cfg, node, plain_settings, merge=True, force_add=True)
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
    return [override for override in overrides if _key(override) not in OF_RUN] + [
        f"{key}={run.manifest[key]}" for key in OF_RUN
    ]


def _identity(
    cfg: DictConfig, base: DictConfig, configs: dict[str, DictConfig], run: RunRecord | None, device: torch.device
) -> dict[str, Any]:
    """Everything that decides a record's numbers."""
    return without_later(
        {
            "version": CREDIT_VERSION,
            "recipe": RECIPE,
            "device": device.type,
            "seed": cfg.seed,
            "model_seed": base.model_seed,
            "scale": base.scale,
            "source": _describe_source(cfg, base, run),
            **task_settings(plain(base.task)),
            "models": model_settings(plain(base.models)),
            "methods": {
                first_name(label): credit_settings(plain(config), class_name, credit_needs(config))
                for label, config in configs.items()
            },
        }
    )


def _describe_source(cfg: DictConfig, base: DictConfig, run: RunRecord | None) -> dict[str, Any]:
    if run is not None:
        names = ("method", "seed", "fingerprint")
        described = {key: run.manifest[key] for key in names} | {"method": first_name(run.manifest["method"])}
        return {"kind": "run", "sample": cfg.sample, "items": cfg["items"]} | described
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
    if "units" not in credit_needs(cfg):
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
        batch_size, seed = base.evaluation.batch_size, base.evaluation.seed
        config = EvaluationConfig(cfg["items"], batch_size, seed, temperature=None)  # as training draws them
        return list(enumerate(parts.evaluate(_sft_sampler(parts), config)[1]))
    prompt_ids, response_ids = (
        parts.tokenizer.encode(text, add_special_tokens=False) for text in (cfg.prompt, cfg.response)
    )
    sample = {"prompt": cfg.prompt, "reward_prompt": None, "response": cfg.response, "reward": None}
    return [(0, sample | {"prompt_ids": prompt_ids, "response_ids": [*response_ids, parts.tokenizer.eos_token_id]})]


# The credit of single responses under several methods, in plain numbers and text that need no model to be shown.


DIGITS = 7
"""Significant digits of stored numbers, those of float32."""


@dataclass(frozen=True)
class Assigner:
    """A credit method, the segmenter of one that needs units, and where its units come from parse trees, what finds those."""

    method: CreditMethod
    segmenter: Segmenter | None = None
    trees: Callable[[Rollout], list[list[Any]]] | None = None


@dataclass(frozen=True)
class CreditRows:
    """Makes the rows of a credit record. Estimators that sample draw from the stream (seed, "credit_record", number of the
    sample), so a row depends on nothing but its sample."""

    assigners: Mapping[str, Assigner]
    scoring: ResponseScoring
    tokenizer: Any
    pad_id: int
    eos_id: int
    seed: int
    device: torch.device

    def row(self, number: int, sample: Mapping[str, Any]) -> dict[str, Any]:
        """The row of one sample (a row of samples.jsonl, whose `reward` may be None).

        Keys: number, prompt, reward_prompt, response, finished (the last token is EOS); reward (raw score), credited (what
        credit sums to, less what SCAR leaves out on request: the raw score, 0 where a rule replaced it); tokens (each with
        text and its characters [start, end) of response: together they are the response, EOS has none); methods, by name:
        per_token, sum, queries, diagnostics, and for methods with units: units (tokens [start, end), text, value), hierarchy
        (rows that join two nodes), trees (nested lists: label, then subtrees or words; None where units are no spans).
        ValueError if the sample was scored by another reward model.
        """
        rollout = rollout_of_samples([sample], pad_id=self.pad_id, eos_id=self.eos_id, device=self.device)
        scores = self.scoring.score(rollout)
        raw = float(scores.raw[0])
        _check_reward(number, sample["reward"], raw)
        content = int(rollout.content_mask.sum())
        text, offsets = token_offsets(rollout.response_ids[0, :content].tolist(), self.tokenizer)
        offsets += [(len(text), len(text))] * bool(rollout.finished[0])
        return {
            "number": number,
            "prompt": sample["prompt"],
            "reward_prompt": sample["reward_prompt"],
            "response": text,
            "finished": bool(rollout.finished[0]),
            "reward": _rounded(raw),
            "credited": _rounded(float(scores.credited[0])),
            "tokens": [{"text": text[start:end], "start": start, "end": end} for start, end in offsets],
            "methods": {
                name: self._credit(number, assigner, rollout, scores, text, offsets)
                for name, assigner in self.assigners.items()
            },
        }

    def _credit(
        self,
        number: int,
        assigner: Assigner,
        rollout: Rollout,
        scores: Scores,
        text: str,
        offsets: list[tuple[int, int]],
    ) -> dict[str, Any]:
        units = None
        if assigner.segmenter is not None:
            units = readable_units(assigner.segmenter.segment(rollout), scores.inputs)
        stream = numpy_generator(self.seed, "credit_record", number)
        options = {} if units is None else {"units": units}
        credit = assigner.method.assign(rollout, scores, **options, generator=stream)
        entry: dict[str, Any] = {
            "per_token": [_rounded(value) for value in credit.per_token[0].tolist()],
            "sum": _rounded(float(credit.per_token[0].double().sum())),
            "queries": int(credit.reward_queries[0]),
            "diagnostics": {key: _rounded(value) for key, value in credit.diagnostics.items()},
        }
        if units is not None:
            entry |= {"units": _units(units, credit, text, offsets), "hierarchy": units.hierarchies[0].tolist()}
            entry["trees"] = None if assigner.trees is None else [nested(tree) for tree in assigner.trees(rollout)[0]]
        return entry


def _units(units: Units, credit: Credit, text: str, offsets: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """The token ranges of one response's units, with their text and value."""
    assert credit.unit_values is not None
    unit_of_token = units.unit_index[0].tolist()
    rows = []
    for unit in range(int(units.count[0])):
        start, end = unit_of_token.index(unit), int(units.end_step[0, unit]) + 1
        words = text[offsets[start][0] : offsets[end - 1][1]]
        value = _rounded(float(credit.unit_values[0, unit]))
        rows.append({"start": start, "end": end, "text": words, "value": value})
    return rows


def nested(tree: Any) -> Any:
    """A parse tree as plain lists: its label, then its subtrees and words. A tree without labels gets empty ones."""
    if not isinstance(tree, list):
        return str(tree)
    label = tree.label() if hasattr(tree, "label") else ""
    return [label, *(nested(child) for child in tree)]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _check_reward(number: int, stored: float | None, computed: float) -> None:
    if stored is not None and abs(stored - computed) > 1e-2 * (1 + abs(stored)):
        raise ValueError(
            f"sample {number} was stored with reward {stored:.4g}, but the reward model here gives {computed:.4g}: it is not "
            "the run's reward model; use the cache that the run used (paths.cache=...)"
        )
