"""Every option of every config group composes and builds what it names; sizes, sources and precedence are as stated."""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from scar.commands.build import credit_needs
from scar.commands.cli import sweep_size
from scar.commands.targets import MOVED, build_settings, construct
from scar.commands.train import class_name, run_folder, run_identity
from scar.config import EvaluationConfig, GenerationConfig, PPOConfig
from scar.credit.estimators import ExactEstimator, OwenEstimator, PermutationEstimator, SequentialEstimator
from scar.credit.partition import PartitionEstimator
from scar.credit.shap_oracle import ShapEstimator
from scar.credit.texts import UnitTexts
from scar.judging.prompts import Summaries
from scar.supervised.training import TrainingConfig
from tests.builders import FakeRewardModel, FakeScorer
from tests.smoke_scale import CONF, REPOSITORY, composed

OPTIONS = sorted(
    {(file.parent.name, file.stem) for file in CONF.glob("*/*.yaml") if file.parent.name != "tools"}
    - {("models", "smollm2")}
)
EXPERIMENT_RUNS = {
    "table1": 75,
    "lengths": 9,
    "units": 5,
    "models": 9,
    "gold": 3,
    "ablation_segmentation": 27,
    "ablation_fill": 6,
    "ablation_empty": 9,
    "ablation_value_net": 36,
    "ablation_gae_lambda": 18,
    "ablation_alpha": 18,
    "released": 60,
}
"""Runs of each experiment file with nothing narrowed: table1 is 5 methods x 5 seeds of one task."""

RUN_TIME: dict[str, Any] = {
    "source": None,
    "tokenizer": None,
    "reward_model": FakeRewardModel(lambda ids: 0.0),
    "scorer": FakeScorer(lambda ids: 0.0),
    "estimator": ExactEstimator(max_units=4),
    "texts": UnitTexts(None, None, max_tokens=1),
    "folder": Path("unused"),
    "name": "seed1-f00d",
    "config": {},
    "cache": Path("unused"),
    "questions": Summaries(prompt_file=None),
    "key": "unused",
    "settings": {},
    "task": None,
    "model_seed": 1,
    "device": torch.device("cpu"),
}
"""Stand-ins for what scar/commands/build.py passes to constructors beside their config."""


def composed_with_hydra(*overrides: str, root: str = "config") -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose(root, overrides=list(overrides), return_hydra_config=True)


def targets(node: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Every node with `_target_`, and its path."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield path, node
        for key in node:
            if not OmegaConf.is_missing(node, key):
                yield from targets(node[key], f"{path}.{key}".lstrip("."))


def build(node: DictConfig) -> Any:
    """What the node names, with stand-ins for the run-time arguments that it does not give."""
    parameters = inspect.signature(get_object(node["_target_"])).parameters
    return construct(node, **{name: RUN_TIME[name] for name in parameters if name in RUN_TIME and name not in node})


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_its_targets_build(group: str, option: str) -> None:
    scale = ["scale=paper"] if group == "models" else []
    cfg = composed_with_hydra(f"{group}={option}", *scale, root="judging" if group == "judge" else "config")
    settings = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    OmegaConf.to_container(settings, resolve=True)
    nodes = dict(targets(settings)) | dict(targets(cfg.hydra.callbacks))
    assert {"task", "shaping.method", "segmentation", "tracker", "watch"} <= set(nodes)
    with mock.patch("wandb.init"):
        for path, node in nodes.items():
            if node["_target_"] is None:  # tracker=jsonl: nothing beside the record
                assert path == "tracker"
            elif path not in ("task", "models.recipe", "models.stated"):  # made of more than their node
                assert build(node) is not None, path


def test_the_groups_and_options_that_users_type_are_there() -> None:
    for pair in (
        ("task", "imdb"),
        *(("shaping", name) for name in ("sparse", "uniform", "abc", "scar", "red", "prefix")),
        *(("scale", name) for name in ("smoke", "local", "paper")),
        ("segmentation", "token"),
        *(("estimator", name) for name in ("owen", "exact", "partition", "permutation", "sequential", "shap")),
        *(("tracker", name) for name in ("jsonl", "wandb")),
        ("experiment", "table1"),
    ):
        assert pair in OPTIONS


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("owen", OwenEstimator),
        ("exact", ExactEstimator),
        ("permutation", PermutationEstimator),
        ("sequential", SequentialEstimator),
        ("shap", ShapEstimator),
        ("partition", PartitionEstimator),
    ],
)
def test_estimators_build_with_their_settings(name: str, kind: type) -> None:
    node = composed(f"estimator={name}").estimator
    estimator = build(node)
    assert type(estimator) is kind
    assert {field.name: getattr(estimator, field.name) for field in fields(kind)} == {
        key: value for key, value in node.items() if key != "_target_"
    }


def test_shap_and_owen_have_the_same_budget() -> None:
    assert composed("estimator=shap").estimator.max_evals == composed("estimator=owen").estimator.max_coalitions


@pytest.mark.parametrize("override", ["coalitions.backend=plain", "coalitions.dtype=bfloat16"])
def test_coalition_settings_name_the_runs_that_ask_for_coalitions_and_no_others(override: str) -> None:
    def folder(*overrides: str) -> Path:
        cfg = composed(*overrides)
        return run_folder(cfg, run_identity(cfg, torch.device("cpu")))

    assert folder("shaping=scar") != folder("shaping=scar", override)
    assert folder("shaping=abc") == folder("shaping=abc", override)


def test_identity_of_a_run_without_coalitions_holds_no_coalition_settings() -> None:
    scar, sparse = (run_identity(composed(f"shaping={name}"), torch.device("cpu")) for name in ("scar", "sparse"))
    assert scar["coalitions"] == {"backend": "auto", "dtype": "float32"}
    assert sparse["coalitions"] is sparse["estimator"] is sparse["units"] is sparse["parser"] is None


@pytest.mark.parametrize(("shaping", "scale"), itertools.product(("sparse", "scar"), ("smoke", "local", "paper")))
def test_every_scale_gives_valid_settings(shaping: str, scale: str) -> None:
    cfg = composed(f"scale={scale}", f"shaping={shaping}")
    assert isinstance(build_settings(PPOConfig, cfg.ppo), PPOConfig)
    GenerationConfig(**OmegaConf.to_container(cfg.task.generation, resolve=True))
    evaluation = EvaluationConfig(**OmegaConf.to_container(cfg.evaluation, resolve=True))
    assert evaluation.prompts >= 32


@pytest.mark.parametrize("name", [option for group, option in OPTIONS if group == "experiment"])
def test_experiments_have_their_number_of_runs(name: str) -> None:
    cfg = composed_with_hydra(f"experiment={name}")
    assert cfg.hydra.mode.name == "MULTIRUN"
    assert sweep_size([f"{key}={value}" for key, value in cfg.hydra.sweeper.params.items()]) == EXPERIMENT_RUNS[name]


def test_table1_can_be_narrowed_on_the_command_line() -> None:
    params = composed_with_hydra("experiment=table1").hydra.sweeper.params
    overrides = [f"{key}={value}" for key, value in params.items()]
    assert sweep_size([*overrides, "task=imdb", "shaping=sparse,scar", "seed=1,2"]) == 4


@pytest.mark.parametrize(
    ("node", "settings"),
    [("ppo", PPOConfig), ("task.generation", GenerationConfig), ("evaluation", EvaluationConfig)],
)
@pytest.mark.parametrize("scale", ["smoke", "local", "paper"])
def test_settings_have_a_key_for_each_field_and_no_other(node: str, settings: Any, scale: str) -> None:
    keys = set(OmegaConf.select(composed(f"scale={scale}"), node)) - {"_target_"}
    assert keys == {field.name for field in fields(settings)}


def test_the_tracker_that_did_nothing_is_null_now() -> None:
    old = "scar.tracking.trackers.NoTracker"
    with pytest.raises(ValueError, match=rf"_target_: {old} is no longer there; write null"):
        construct(OmegaConf.create({"_target_": old}))
    assert composed("tracker=jsonl").tracker == {"_target_": None}


def test_class_that_was_renamed_is_named_as_it_is_called_now() -> None:
    with pytest.raises(
        ValueError, match=r"PrefixDifferenceMethod is no longer there; write scar.credit.methods.RedMethod"
    ):
        construct(OmegaConf.create({"_target_": "scar.credit.methods.PrefixDifferenceMethod"}))


@pytest.mark.parametrize(("old", "new"), [(old, new) for old, new in MOVED.items() if new.islower() and new != "null"])
def test_class_that_moved_is_named_where_it_is_now(old: str, new: str) -> None:
    importlib.import_module(new)
    with pytest.raises(ValueError, match=rf"_target_: {old}\.Some is no longer there; write {new}\.Some"):
        construct(OmegaConf.create({"_target_": f"{old}.Some"}))


def leaf_keys(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from leaf_keys(value)


@pytest.mark.parametrize("scale", ["smoke", "local", "paper"])
def test_every_key_is_named_in_the_code(scale: str) -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for file in (REPOSITORY / "scar").rglob("*.py"))
    words = set(re.findall(r"\w+", code))
    keys = {key for option in ("scar", "abc") for key in leaf_keys(as_dict(f"scale={scale}", f"shaping={option}"))}
    assert keys - words - {"_target_", "hub", "package"} == set()


def as_dict(*overrides: str) -> dict[str, Any]:
    plain = OmegaConf.to_container(composed(*overrides), resolve=True)
    assert isinstance(plain, dict)
    return plain


def test_paper_scale_has_the_values_of_table_3() -> None:
    cfg = composed("scale=paper")
    assert cfg.ppo.learning_rate == 1.41e-5
    assert cfg.ppo.batch_size == 128
    assert cfg.ppo.minibatch_size == 128
    assert cfg.ppo.minibatch_size // cfg.ppo.microbatch_size == 1  # gradient accumulation steps
    assert cfg.ppo.kl_coef == 0.2
    assert cfg.ppo.gamma == 1
    assert cfg.ppo.clip_range == 0.2
    assert cfg.shaping.alpha == 0.8
    assert cfg.task.generation.min_new_tokens == 16
    assert cfg.task.generation.max_new_tokens == 24
    assert cfg.task.generation.temperature == 0.7
    assert (cfg.task.prompt.min_tokens, cfg.task.prompt.max_tokens) == (4, 8)  # 4.1


def test_paper_scale_leaves_to_trl_what_the_paper_leaves_out() -> None:
    ppo = composed("scale=paper").ppo
    assert (ppo.ppo_epochs, ppo.gae_lambda, ppo.value_loss_coef, ppo.value_clip_range) == (4, 0.95, 0.1, 0.2)
    assert (ppo.kl_control, ppo.kl_target, ppo.kl_horizon) == ("adaptive", 6.0, 10_000)
    assert (ppo.adam_eps, ppo.weight_decay, ppo.max_grad_norm) == (1e-8, 0.0, None)
    assert ppo.learning_rate_schedule == "constant"


def test_paper_scale_uses_the_papers_models_data_units_and_estimator() -> None:
    cfg = composed("scale=paper")
    assert (cfg.models.policy.name, cfg.models.reward.name) == ("lvwerra/gpt2-imdb", "XanderJC/gpt2-rm-imdb")
    assert (cfg.task.source, cfg.task.sources.hub.path) == ("hub", "stanfordnlp/imdb")
    assert class_name(cfg.segmentation._target_) == "token"
    assert cfg.estimator._target_.endswith("OwenEstimator")


def test_paper_scale_has_the_values_of_tables_4_and_5() -> None:
    tldr, hh = (composed("scale=paper", f"task={task}") for task in ("tldr", "hh"))
    sizes = ("batch_size", "minibatch_size", "microbatch_size", "learning_rate", "kl_coef")
    assert [tldr.ppo[name] for name in sizes] == [64, 64, 16, 3e-6, 0.05]
    assert [hh.ppo[name] for name in sizes] == [16, 16, 2, 1.41e-5, 0.2]
    assert (tldr.shaping.alpha, hh.shaping.alpha) == (1.0, 0.8)
    assert (tldr.ppo.updates, tldr.ppo.kl_control, tldr.ppo.value_net) == (1000, "fixed", "separate")
    assert (tldr.task.generation.temperature, tldr.task.generation.max_new_tokens) == (0.7, 53)
    assert (hh.task.generation.temperature, hh.task.generation.max_new_tokens, hh.task.generation.min_new_tokens) == (
        1.0,
        256,
        8,
    )
    assert [class_name(cfg.segmentation._target_) for cfg in (tldr, hh)] == ["span", "sentence"]
    assert tldr.task.scoring.missing_eos_score == -1


def test_paper_scale_trains_tldrs_models_by_the_papers_recipe() -> None:
    models = composed("scale=paper", "task=tldr").models
    policy, reward = models.policy, models.reward
    assert (models.pretrained.name, models.source) == ("EleutherAI/pythia-1b-deduped", "tuned")
    assert (policy.training.steps, policy.training.batch_size) == (2000, 64)  # paper 4.1
    assert reward.pairs == 92_832  # paper 4.1
    for training in (policy.training, reward.training):  # N+
        config = TrainingConfig(**training)
        assert (config.learning_rate, config.adam_eps, config.warmup, config.max_grad_norm) == (3e-6, 1e-5, 0.0, None)
    assert TrainingConfig(**policy.training).total_steps(116_722) == 2000
    assert TrainingConfig(**reward.training).total_steps(92_832) == 1450
    assert (policy.lengths.response_tokens, reward.lengths.response_tokens) == (53, 169)


def test_paper_scale_holds_hhs_policy_in_four_bits_with_adapters() -> None:
    models = composed("scale=paper", "task=hh").models
    assert dict(models.policy.load) == {"weights": "nf4", "compute": "bfloat16", "lora": {"rank": 32, "alpha": 32}}
    assert (models.policy.name, models.reward.name) == (
        "VMware/open-llama-7b-open-instruct",
        "weqweasdas/hh_rlhf_rm_open_llama_3b",
    )


@pytest.mark.parametrize(("shaping", "alpha"), [("sparse", 0.0), ("uniform", 1.0), ("abc", 0.8), ("scar", 0.8)])
def test_dense_share_of_each_method(shaping: str, alpha: float) -> None:
    assert composed(f"shaping={shaping}").shaping.alpha == alpha


def test_task_alpha_reaches_the_methods_that_use_it_only() -> None:
    changed = {
        name: composed("task.alpha=0.3", f"shaping={name}").shaping.alpha for name in ("sparse", "uniform", "scar")
    }
    assert changed == {"sparse": 0.0, "uniform": 1.0, "scar": 0.3}


def test_scale_wins_over_task() -> None:
    assert composed("scale=paper").ppo.updates == 200  # what conf/task/imdb.yaml says
    cfg = composed("scale=smoke")
    assert (cfg.ppo.updates, cfg.ppo.batch_size, cfg.task.source, cfg.models.source) == (3, 8, "package", "scratch")
    assert cfg.estimator._target_.endswith("PermutationEstimator")
    assert cfg.ppo.kl_coef == 0.2  # untouched by the scale


@pytest.mark.parametrize("order", [0, 1])
def test_command_line_wins_over_scale(order: int) -> None:
    typed = ["ppo.updates=77", "estimator=exact", "task.source=hub", "evaluation.prompts=5"]
    cfg = composed(*([*typed, "scale=smoke"] if order else ["scale=smoke", *typed]))
    assert (cfg.ppo.updates, cfg.evaluation.prompts, cfg.task.source) == (77, 5, "hub")
    assert cfg.estimator._target_.endswith("ExactEstimator")


def test_experiment_wins_over_scale_and_the_default_is_local() -> None:
    assert composed("experiment=table1", "scale=smoke").ppo.updates == 3  # it sets no size
    assert composed("experiment=lengths").models.policy.max_tokens == 96  # the scale: 63
    assert composed().scale == "local"


def test_needs_are_read_off_the_method() -> None:
    assert credit_needs(composed("shaping=scar")) == ("scorer", "estimator", "texts", "units")
