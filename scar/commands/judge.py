"""Table 2: a judge compares the responses of two runs, prompt by prompt; its verdicts become a judgement record."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from scar.commands.build import (
    ModelNames,
    build_scoring,
    build_task,
    load_reward_model,
    local_models,
    resolve_device,
    setup_process,
)
from scar.commands.settings import Target, Text
from scar.commands.targets import build_settings, construct, plain
from scar.config import fingerprint, require
from scar.identity import first_name, judge_settings, name_now
from scar.judging.judge import AnswerCache
from scar.judging.pairs import Answer, Judge, Pair
from scar.models import loading
from scar.models.reward import SequenceRewardModel
from scar.ppo.evaluation import rollout_of_samples
from scar.seeding import numpy_generator
from scar.supervised.training import ProgressCallback
from scar.tracking.judgements import write_judgement
from scar.tracking.provenance import code_state
from scar.tracking.records import RunRecord, find_records

FIRST_OF = {True: {"A": "win", "B": "loss", "C": "tie"}, False: {"A": "loss", "B": "win", "C": "tie"}}
"""The verdict on the method by whether its response was shown first, and the answer."""


@dataclass(frozen=True)
class JudgingConfig:
    """`method` against each of `baselines`, seed by seed, on at most `items` prompts of a pair of runs. The order in which two
    responses are shown comes from the stream of `order_seed`; with `both_orders` each pair is asked about in both. `pay`: go
    on where that costs money."""

    method: str
    baselines: list[str]
    seeds: list[int]
    items: int
    order_seed: int
    both_orders: bool
    pay: bool

    def __post_init__(self) -> None:
        require(bool(self.baselines), f"judging.baselines={self.baselines}", "one method or more")
        require(self.method not in self.baselines, f"judging.baselines={self.baselines}", "others than judging.method")
        require(bool(self.seeds), f"judging.seeds={self.seeds}", "one seed or more")
        require(self.items >= 1, f"judging.items={self.items}", "1 or more")


SETTINGS = {
    "judge": Target(("scorer", "key", "cache")),
    "judging": JudgingConfig,
    "paths": {"judgements": Text},
}
"""What conf/judging.yaml adds to the settings of a run."""


@dataclass(frozen=True)
class Match:
    """Two runs, the rows of their samples that are compared, and for each whether the method's is shown first."""

    method: RunRecord
    baseline: RunRecord
    rows: list[int]
    method_first: list[bool]

    def pairs(self, *, both_orders: bool) -> list[Pair]:
        """The questions: a pair per item; with `both_orders` each followed by its reverse."""
        pairs = []
        for row, first in zip(self.rows, self.method_first, strict=True):
            sides = self.method.samples[row], self.baseline.samples[row]
            pair = Pair(*(sides if first else sides[::-1]))
            pairs += [pair, Pair(pair.second, pair.first)] if both_orders else [pair]
        return pairs


def make_match(method: RunRecord, baseline: RunRecord, config: JudgingConfig) -> Match:
    """Pair two runs of one task and seed; ValueError names both folders unless they answer the same prompts in the same order."""
    prompts = [[sample["prompt"] for sample in record.samples] for record in (method, baseline)]
    if prompts[0] != prompts[1]:
        raise ValueError(
            f"{method.path} / {baseline.path} do not answer the same prompts in the same order; run both again with one "
            "evaluation protocol"
        )
    seed, count = method.manifest["seed"], len(prompts[0])
    rows = list(range(count))
    if config.items < count:
        draws = numpy_generator(config.order_seed, "judge_items", seed)
        rows = sorted(draws.choice(count, size=config.items, replace=False).tolist())
    first = numpy_generator(config.order_seed, "judge_order", seed).random(count) < 0.5
    return Match(method, baseline, rows, [bool(first[row]) for row in rows])


def verdict_rows(match: Match, answers: Sequence[Answer], *, both_orders: bool) -> list[dict[str, Any]]:
    """A row per item. With both orders a verdict counts where both agree, else it is a tie; one unread answer makes it unread."""
    rows, per_item = [], 2 if both_orders else 1
    for number, (row, first) in enumerate(zip(match.rows, match.method_first, strict=True)):
        own = answers[per_item * number : per_item * (number + 1)]
        orders = [first, not first][:per_item]
        verdicts = [_verdict(answer, shown_first) for answer, shown_first in zip(own, orders, strict=True)]
        verdict = "unparsed" if "unparsed" in verdicts else verdicts[0] if len(set(verdicts)) == 1 else "tie"
        records = [{"method_first": order} | asdict(answer) for order, answer in zip(orders, own, strict=True)]
        rows.append({"item": row, "verdict": verdict, "by_order": verdicts, "answers": records})
        rows[-1]["preference"] = _preference(own, orders)
    return rows


def _verdict(answer: Answer, method_first: bool) -> str:
    return "unparsed" if answer.choice is None else FIRST_OF[method_first][answer.choice]


def _preference(answers: Sequence[Answer], orders: Sequence[bool]) -> float | None:
    """The probability that the method's response is better, mean over orders; None where the judge gives none."""
    probabilities = [
        answer.preference if first else 1 - answer.preference
        for answer, first in zip(answers, orders, strict=True)
        if answer.preference is not None
    ]
    return sum(probabilities) / len(probabilities) if len(probabilities) == len(answers) else None


def judge_runs(
    cfg: DictConfig, select: Callable[..., Any], start_progress: Callable[[str], ProgressCallback]
) -> list[Path]:
    """Judge every pair of runs that was not judged yet; returns the folders of all. `select` sorts runs into cells and refuses
    those that may not be compared (`select_cells` of the reports).

    Raises ValueError before anything is spent: no such runs, no key, or a cost that was not agreed to.
    """
    config = build_settings(JudgingConfig, cfg.judging)
    config = replace(config, method=name_now(config.method), baselines=list(map(name_now, config.baselines)))
    matches = _matches(cfg, config, select)
    judge, extra = build_judge(cfg)
    folders = {_folder(cfg, config, match, extra): match for match in matches}
    todo = {folder: match for folder, match in folders.items() if not folder.exists()}
    pairs = {folder: match.pairs(both_orders=config.both_orders) for folder, match in todo.items()}
    _agree(judge, [pair for pairs_of_match in pairs.values() for pair in pairs_of_match], pay=config.pay)
    total, done = sum(map(len, pairs.values())), 0
    advance = start_progress(f"judge {cfg.task.name}") if total else None
    for folder, match in todo.items():
        started, before = datetime.now(UTC), done

        def report(now: int, _: int, before: int = before) -> None:
            if advance is not None:
                advance(before + now, total, {})

        rows = verdict_rows(match, judge.answer(pairs[folder], report), both_orders=config.both_orders)
        done += len(pairs[folder])
        manifest = _manifest(cfg, config, match, extra) | {"started": started.isoformat(timespec="seconds")}
        write_judgement(folder, manifest, rows)
    return list(folders)


def _matches(cfg: DictConfig, config: JudgingConfig, select: Callable[..., Any]) -> list[Match]:
    methods = [config.method, *config.baselines]
    filters = {"scale": cfg.scale, "task": cfg.task.name, "model_seed": cfg.model_seed}
    records = find_records(Path(cfg.paths.runs), **filters, method=methods, seed=config.seeds)
    matches = []
    if records:
        cells = select(records, methods=methods, seeds=config.seeds)
        for baseline in config.baselines:
            own, other = (cells.of(cfg.task.name, name) for name in (config.method, baseline))
            matches += [make_match(own[seed], other[seed], config) for seed in sorted(own.keys() & other.keys())]
    if not matches:
        raise ValueError(
            f"no runs in {cfg.paths.runs} to compare: scale={cfg.scale} task={cfg.task.name} needs {config.method} and one of "
            f"{', '.join(config.baselines)} with a common seed; make reproduce-table1 TASKS={cfg.task.name} makes them"
        )
    return matches


def _agree(judge: Judge, pairs: Sequence[Pair], *, pay: bool) -> None:
    """Raise ValueError with the estimate unless judging is free, or was agreed to."""
    estimate = judge.estimate(pairs)
    if estimate.requests and not pay:
        raise ValueError(
            f"{judge.label} would be asked {estimate.requests:,} times ({estimate.cached:,} answers are there already): about "
            f"{estimate.input_tokens:,} tokens in and {estimate.output_tokens:,} out, ${estimate.dollars:,.2f} at the prices of "
            "judge.price; nothing was spent; add judging.pay=true to go on"
        )


def build_judge(cfg: DictConfig) -> tuple[Judge, dict[str, Any]]:
    """The judge of a config, and what a record says of it beside its settings."""
    device = setup_process(cfg)
    if "key_variable" not in cfg.judge:
        scorer, described = gold_scorer(cfg, device)
        return construct(cfg.judge, scorer=scorer), {"gold": described}
    key = os.environ.get(cfg.judge.key_variable, "").strip()
    if not key:
        raise ValueError(
            f"judge={cfg.judge.name} needs a key: set the environment variable {cfg.judge.key_variable}, or use judge=reward_model"
        )
    cache = AnswerCache(Path(cfg.paths.judgements) / "answers" / f"{cfg.judge.name}.jsonl")
    return construct(cfg.judge, key=key, cache=cache), {}


def gold_scorer(
    cfg: DictConfig, device: Any
) -> tuple[Callable[[Sequence[Mapping[str, Any]]], list[float]], dict[str, Any]]:
    """Scores of stored samples by the gold reward model, read as the task's reward model would read them."""
    model, tokenizer, described = gold_reward_model(cfg)
    policy_tokenizer = loading.load_tokenizer(ModelNames(cfg, build_task(cfg), device)["policy"])
    scoring = build_scoring(cfg, policy_tokenizer, model, tokenizer)
    ids = {"pad_id": policy_tokenizer.pad_token_id, "eos_id": policy_tokenizer.eos_token_id}

    def score(rows: Sequence[Mapping[str, Any]]) -> list[float]:
        return scoring.score(rollout_of_samples(rows, **ids, device=device)).raw.tolist()

    return score, described


def _manifest(cfg: DictConfig, config: JudgingConfig, match: Match, extra: dict[str, Any]) -> dict[str, Any]:
    method, baseline = match.method.manifest, match.baseline.manifest
    sides = {"method": match.method, "baseline": match.baseline}
    return {
        **{key: method[key] for key in ("scale", "task", "method", "seed", "model_seed")},
        "baseline": baseline["method"],
        "judge": cfg.judge.name,
        "label": cfg.judge.label,
        "settings": judge_settings(plain(cfg.judge)),
        "items": len(match.rows),
        "order_seed": config.order_seed,
        "both_orders": config.both_orders,
        "runs": {
            side: {"path": r.path.as_posix(), **{key: r.manifest[key] for key in ("fingerprint", "commit")}}
            for side, r in sides.items()
        },
        **extra,
        **code_state(),
    }


def _folder(cfg: DictConfig, config: JudgingConfig, match: Match, extra: dict[str, Any]) -> Path:
    """Named by all that decides the verdicts, so that nothing is judged twice."""
    manifest = _manifest(cfg, config, match, extra)
    runs = {side: run["fingerprint"] for side, run in manifest["runs"].items()}
    gold = extra.get("gold", {})
    identity = {key: manifest[key] for key in ("settings", "items", "order_seed", "both_orders")}
    identity |= {"runs": runs, "gold": {key: gold[key] for key in ("fingerprint", "name") if key in gold}}
    folder = Path(cfg.paths.judgements) / manifest["scale"] / manifest["task"] / manifest["judge"]
    folder /= f"{first_name(manifest['method'])}-vs-{first_name(manifest['baseline'])}"
    return folder / f"seed{manifest['seed']}-{fingerprint(identity)}"


# The gold reward model of a config: it judges finished runs, and no policy was trained against it.
#
# At a local scale it is trained here, on rows that no other model learns from (scar/supervised/store.py); else it is a checkpoint
# that the config names.


def gold_reward_model(cfg: DictConfig) -> tuple[SequenceRewardModel, Any, dict[str, Any]]:
    """The gold reward model, its tokenizer, and what a record says of it: fingerprint and quality report, or name.

    Raises FileNotFoundError with the command that trains it when it is missing, ValueError when the config names none.
    """
    device = resolve_device(cfg.device)
    name, described = _find(cfg, device)
    model, tokenizer = load_reward_model(name, rows_a_batch=cfg.models.reward.rows_a_batch, device=device)
    return model, tokenizer, described


def _find(cfg: DictConfig, device: torch.device) -> tuple[str, dict[str, Any]]:
    if cfg.models.source == "scratch":
        models = local_models(cfg, build_task(cfg), device, gold=True)
        folder = models.folder("reward")
        return str(folder), {"fingerprint": models.fingerprint("reward"), "report": models.report("reward")}
    name = cfg.models.gold.name
    own = [cfg.models[kind].get("name") for kind in ("policy", "reward")]  # None: models that are trained here
    if not isinstance(name, str) or name in own:
        raise ValueError(
            f"models.gold.name={name}; allowed: a reward model on the hub, or its folder, that no policy was trained against "
            f"(not {own[1]}): it judges the runs of task={cfg.task.name}"
        )
    return name, {"name": name}
