"""Every setting is known: names, types and bounds of every node, the nearest known key, and where each value comes from."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from scar.commands import credit, judge, models
from scar.commands.build import check_settings
from scar.commands.cli import one_line
from scar.commands.explain import explain
from scar.commands.settings import check_variant, prepared
from scar.commands.targets import keys, nearest
from tests.smoke_scale import CONF, REPOSITORY, composed

REFUSED = {
    # no such setting, with and without +, in every group and at the root
    "+learning_rate=7e-3": "learning_rate: no such setting; did you mean ppo.learning_rate?",
    "+ppo_epochs=1": "ppo_epochs: no such setting; did you mean ppo.ppo_epochs?",
    "+task.top_p=0.9": "task.top_p: no such setting; allowed in task: _target_, name, min_characters, alpha",
    "+shaping.alhpa=0.3": "shaping.alhpa: no such setting; did you mean shaping.alpha?",
    "+bogus=1": "bogus: no such setting; allowed: seed, model_seed",
    "+sweeper.seed=1": "sweeper: no such setting",
    "+ppo.betta=1": "ppo.betta: no such setting",
    "+task.sources.package.sha=1": "task.sources.package.sha: no such setting",
    "+task.generation.top_k=5": "task.generation.top_k: no such setting",
    "+task.scoring.penalty=1": "task.scoring.penalty: no such setting",
    "+task.prompt.tokens=3": "task.prompt.tokens: no such setting",
    "+shaping.method.colour=1": "shaping.method.colour: no such setting",
    "shaping=abc +shaping.method.fill=space": "shaping.method.fill: no such setting",
    "estimator=owen +estimator.permutations=2": "estimator.permutations: no such setting",
    "+estimator.permutations=2": "estimator.permutations: no such setting; did you mean estimator.unbounded.permutations?",
    "segmentation=span +segmentation.build.max_units=3": "segmentation.build: no such setting",
    "+parser.size=1": "parser.size: no such setting",
    "+coalitions.colour=red": "coalitions.colour: no such setting; allowed in coalitions: backend, dtype, memory_mib",
    "+memory.pin=true": "memory.pin: no such setting",
    "+checkpoint.every=1": "checkpoint.every: no such setting",
    "+evaluation.size=1": "evaluation.size: no such setting",
    "+paths.results=x": "paths.results: no such setting",
    "+engine.zero_stage=1": "engine.zero_stage: no such setting",
    "+tracker.entity=x": "tracker.entity: no such setting; allowed in tracker: _target_, mode, project",
    "tracker=jsonl +tracker.mode=online": "tracker.mode: no such setting",
    "+models.policy.trianing.epochs=1": "models.policy.trianing: no such setting; did you mean models.policy.training?",
    "+models.policy.training.epoch=1": "models.policy.training.epoch: no such setting",
    "+models.gold.reward.training.epoch=1": "models.gold.reward.training.epoch: no such setting",
    "+models.reward.center=true": "models.reward.center: no such setting; did you mean ",
    "scale=paper +models.reward.training.epochs=1": "models.reward.training: no such setting",
    # types
    "ppo.updates=many": "ppo.updates='many'; allowed: a whole number",
    "ppo.updates=1.5": "ppo.updates=1.5; allowed: a whole number",
    "ppo.updates=true": "ppo.updates=True; allowed: a whole number",
    "ppo.learning_rate='3e-6'": "ppo.learning_rate='3e-6'; allowed: a number",
    "ppo.learning_rate=null": "ppo.learning_rate=None; allowed: a number",
    "ppo.learning_rate=inf": "ppo.learning_rate=inf; allowed: a finite number",
    "ppo.max_grad_norm=nan": "ppo.max_grad_norm=nan; allowed: a finite number or null",
    "ppo.kl_control=off": "ppo.kl_control='off'; allowed: 'adaptive' or 'fixed'",
    "ppo=imdb": "ppo='imdb'; allowed: a group of settings: updates, batch_size",
    "force=1": "force=1; allowed: true or false",
    "device=tpu": "device='tpu'; allowed: 'auto', 'cpu' or 'cuda'",
    "task.scoring.reads_eos=1": "task.scoring.reads_eos=1; allowed: true or false",
    "task.min_characters=abc": "task.min_characters='abc'; allowed: a whole number",
    "task.sources.package.version=3": "task.sources.package.version=3; allowed: a text",
    "coalitions.backend=magic": "coalitions.backend='magic'; allowed: 'auto', 'fused', 'generic' or 'plain'",
    "coalitions.dtype=float16": "coalitions.dtype='float16'; allowed: 'float32' or 'bfloat16'",
    "shaping.method.fill=blanks": "shaping.method.fill='blanks'; allowed: 'space', 'delete', 'collapse' or 'dots'",
    "shaping.method.empty=none": "shaping.method.empty='none'; allowed: 'uniform', 'zero', 'terminal' or 'drop'",
    "memory.offload=1": "memory.offload=1; allowed: true or false",
    "tracker.mode=on": "tracker.mode='on'; allowed: 'offline' or 'online'",
    "models.policy.training.epochs=two": "models.policy.training.epochs='two'; allowed: a whole number",
    "models.policy.architecture.width=1.5": "models.policy.architecture.width=1.5; allowed: a whole number",
    "scale=paper models.policy.load.weights=int8": "models.policy.load.weights='int8'; allowed: 'float32', 'bfloat16' or 'nf4'",
    "paths.runs=3": "paths.runs=3; allowed: a text",
    "paths.runs=": "paths.runs=''; allowed: at least 1 character",
    # bounds
    "seed=-1": "seed=-1; allowed: 0 or more",
    "threads=0": "threads=0; allowed: 1 or more",
    "checkpoint.updates=0": "checkpoint.updates=0; allowed: 1 or more or null",
    "shaping.alpha=1.5": "shaping.alpha=1.5; allowed: 1 or less",
    "ppo.updates=0": "ppo.updates=0; allowed: 1 or more",
    "task.generation.min_new_tokens=25": "task.generation.min_new_tokens=25; allowed: 1 to ",
    "evaluation.prompts=0": "evaluation.prompts=0; allowed: 1 or more",
    "coalitions.memory_mib=0": "coalitions.memory_mib=0; allowed: 1 or more",
    "estimator=permutation estimator.permutations=3": "estimator.permutations=3; allowed: an even number",
    "segmentation=span segmentation.max_units=1": "segmentation.max_units=1; allowed: 2 or more",
    "task.prompt.min_tokens=0": "task.prompt.min_tokens=0, max_tokens=8; allowed: ",
    "models.policy.training.epochs=0": "models.policy.training.epochs=0; allowed: a number above 0",
    "models.reward.augmentation.max_masked_fraction=2": "models.reward.augmentation.max_masked_fraction=2; allowed: ",
    "models.reward.rows_a_batch=0": "models.reward.rows_a_batch=0; allowed: 1 or more",
    "~parser": "parser: not set",
}
"""What is typed, and what is said."""


@pytest.mark.parametrize(("typed", "says"), REFUSED.items())
def test_setting_that_would_do_nothing_or_cannot_be_is_refused(typed: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        composed(*typed.split())
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize("scale", ["local", "smoke", "small", "paper"])
@pytest.mark.parametrize("task", ["imdb", "tldr", "hh"])
def test_every_setting_of_conf_is_known(scale: str, task: str) -> None:
    for units in ("token", "span", "punctuation", "sentence"):
        composed(f"scale={scale}", f"task={task}", f"segmentation={units}")


def node(cfg: Any, path: str) -> Any:
    return OmegaConf.select(cfg, path) if path else cfg


@pytest.mark.parametrize("scale", ["local", "small", "paper"])
@pytest.mark.parametrize("task", ["imdb", "tldr", "hh"])
def test_no_group_of_a_run_takes_an_unknown_key(scale: str, task: str) -> None:
    cfg = composed(f"scale={scale}", f"task={task}")
    whole = OmegaConf.to_container(cfg)
    assert isinstance(whole, dict)
    groups = [path for path in ["", *keys(whole)] if OmegaConf.is_dict(node(cfg, path))]
    free = re.compile(
        r".*\.(shape|members|kinds|lora)$|models\.lengths$|task\.sources\.package\.package"
    )  # others say what they hold
    assert len(groups) > 25
    for path in groups:
        if free.fullmatch(path) or OmegaConf.is_interpolation(*_parent(cfg, path)):
            continue
        changed = cfg.copy()
        OmegaConf.update(changed, f"{path}.no_such_key".lstrip("."), 1, force_add=True)
        with pytest.raises(ValueError, match=rf"{re.escape(f'{path}.no_such_key'.lstrip('.'))}: no such setting"):
            prepared(changed)


def _parent(cfg: Any, path: str) -> tuple[Any, str]:
    group, _, name = path.rpartition(".")
    return (node(cfg, group), name) if name else (OmegaConf.create({"": 1}), "")


@pytest.mark.parametrize(
    ("script", "more", "typed", "says"),
    [
        ("credit", credit.SETTINGS, "items=0", "items=0; allowed: 1 or more"),
        ("credit", credit.SETTINGS, "source=nowhere", "source='nowhere'; allowed: 'text', 'run' or 'sft'"),
        ("credit", credit.SETTINGS, "response=''", "response=''; allowed: at least 1 character"),
        ("credit", credit.SETTINGS, "methods=[]", "methods=[]; allowed: at least 1 item"),
        ("credit", credit.SETTINGS, "+itmes=3", "itmes: no such setting; did you mean items?"),
        ("judging", judge.SETTINGS, "judging.items=0", "judging.items=0; allowed: 1 or more"),
        ("judging", judge.SETTINGS, "judge=gemini judge.attempts=x", "judge.attempts='x'; allowed: a whole number"),
        ("judging", judge.SETTINGS, "judge=gemini +judge.build.model=x", "judge.build: no such setting"),
        ("judging", judge.SETTINGS, "+judging.seed=1", "judging.seed: no such setting; did you mean "),
        (
            "models",
            models.SETTINGS,
            "model=rewad",
            "model='rewad'; allowed: 'base', 'policy', 'reward' or 'gold' or null",
        ),
    ],
)
def test_settings_of_the_other_scripts_are_known_too(script: str, more: Any, typed: str, says: str) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        prepared(compose(script), more)
        wrong = compose(script, typed.split())
    with pytest.raises(ValueError) as caught:
        prepared(wrong, more)
    assert str(caught.value).startswith(says)


def test_experiment_that_would_do_nothing_is_refused(tmp_path: Path) -> None:
    """Without its first line an experiment's settings land below `experiment`."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("ppo:\n  updates: 1\n")
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("config", [f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"])
    with pytest.raises(ValueError, match=r"does not begin with the line `# @package _global_`"):
        prepared(cfg)


@pytest.mark.parametrize(("units", "chosen"), [("token", "permutation"), ("span", "owen"), ("punctuation", "owen")])
@pytest.mark.parametrize("scale", ["local", "smoke"])
def test_estimator_is_chosen_by_the_units(units: str, chosen: str, scale: str) -> None:
    named = composed(f"scale={scale}", f"segmentation={units}", f"estimator={chosen}").estimator
    assert composed(f"scale={scale}", f"segmentation={units}").estimator == named
    assert composed(f"scale={scale}", f"segmentation={units}", "estimator=auto").estimator == named


KNOWN = [
    "models.policy.training.learning_rate",
    "checkpoint.updates",
    "ppo.updates",
    "ppo.learning_rate",
    "task",
    "seed",
]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("learning_rate", "ppo.learning_rate"),
        ("task.updates", "ppo.updates"),
        ("tsak", "task"),
        ("ppo.learning_rat", "ppo.learning_rate"),
        ("learningrate", "ppo.learning_rate"),
        ("bogus", None),
    ],
)
def test_nearest_setting(typed: str, meant: str | None) -> None:
    assert nearest(typed, KNOWN) == meant


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("task.updates=300", "task.updates: no such setting; did you mean ppo.updates?"),
        ("tsak=hh", "tsak: no such setting; did you mean task?"),
        ("models=tldr", "models: nothing to choose at this scale"),
    ],
)
def test_what_hydra_refuses_is_said_in_the_same_words(typed: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", typed])
    with pytest.raises(Exception) as caught:
        composed(typed)
    assert one_line(caught.value).startswith(says)


# Where values come from.


def origin(key: str, *overrides: str) -> str:
    rows = {row.key: str(row) for row in explain(overrides, CONF)}
    return rows[key]


def test_origin_of_a_value_is_the_last_file_that_sets_it() -> None:
    line = origin("ppo.learning_rate", "task=imdb")
    assert re.match(r"ppo\.learning_rate = 0\.0001  \[conf/scale/local/imdb\.yaml:\d+\]  chosen by us: ", line)
    assert re.search(r"; over 1\.41e-05 of conf/task/imdb\.yaml:\d+$", line)
    number = int(line.partition("imdb.yaml:")[2].partition("]")[0])
    text = (CONF / "scale/local/imdb.yaml").read_text(encoding="utf-8").splitlines()[number - 1]
    assert text.startswith("  learning_rate: 1.0e-4")


def test_origin_of_what_is_typed_is_the_command_line() -> None:
    assert origin("seed", "seed=3") == "seed = 3  [command line]; over 1 of conf/config.yaml:" + str(line_of("seed:"))
    assert "[command line]" in origin("estimator.permutations", "estimator.unbounded.permutations=4")
    assert "[conf/estimator/permutation.yaml:" in origin("estimator.permutations", "scale=local")
    assert "[conf/scale/smoke/shared.yaml:" in origin("ppo.updates", "scale=smoke")
    assert "[conf/models/tldr.yaml:" in origin("models.reward.pairs", "scale=paper", "task=tldr")


def line_of(start: str) -> int:
    lines = (CONF / "config.yaml").read_text(encoding="utf-8").splitlines()
    return 1 + next(number for number, line in enumerate(lines) if line.startswith(start))


@pytest.mark.parametrize(
    ("task", "units", "fill"),
    [
        ("imdb", "TokenSegmenter", "dots"),
        ("tldr", "PunctuationSegmenter", "collapse"),
        ("hh", "PunctuationSegmenter", "collapse"),
    ],
)
def test_scar_as_released_sets_what_the_table_of_the_page_says(task: str, units: str, fill: str) -> None:
    """docs/released.md#what-differs."""
    cfg = prepared(composed("scale=paper", f"task={task}", "variant=scar_released"))
    shaping = OmegaConf.to_container(cfg.shaping)
    assert isinstance(shaping, dict)
    assert (shaping["name"], shaping["alpha"], shaping["sparse_weight"]) == ("scar", 1.0, 1.0)
    assert {key: shaping["method"][key] for key in ("fill", "empty", "one_unit")} == {
        "fill": fill,
        "empty": "drop",
        "one_unit": "none",
    }
    assert cfg.segmentation._target_.endswith(units)
    assert (cfg.estimator._target_.rpartition(".")[2], cfg.estimator.max_evals) == ("PartitionEstimator", 500)


def test_variant_beside_a_method_is_refused() -> None:
    """Hydra would take the method that is typed, and of the variant what is left."""
    with pytest.raises(ValueError, match="variant=sparse_twice with shaping=scar: a variant chooses its method"):
        explain(["variant=sparse_twice", "shaping=scar"], CONF)
    with pytest.raises(ValueError, match="a variant chooses its method"):
        check_variant(["task=imdb", "shaping=scar", "variant=abc_released"])
    check_variant(["task=imdb", "variant=abc_released", "shaping.alpha=0.5"])
    check_variant(["shaping=scar", "variant=null"])


def test_one_unit_that_would_be_paid_nothing_is_refused() -> None:
    none = "shaping.method.one_unit=none"
    with pytest.raises(ValueError, match="a response of one unit is paid nothing"):
        check_settings(composed("task=tldr", none))  # alpha is 1, so the end has no weight
    check_settings(composed("task=tldr", none, "shaping.sparse_weight=1.0"))
    check_settings(composed("task=imdb", none))  # alpha is 0.8


def test_variants_lie_apart_from_the_runs_of_table_1() -> None:
    for variant in ("sparse_twice", "sparse_half_kl", "abc_released", "scar_released"):
        assert composed(f"variant={variant}").paths.runs == "sweeps/released"


@pytest.mark.parametrize("overrides", [("scale=paper", "task=hh"), ("scale=local", "task=tldr", "segmentation=span")])
def test_every_setting_has_an_origin(overrides: tuple[str, ...]) -> None:
    rows = explain(overrides, CONF)
    assert len(rows) > 90
    assert [row.key for row in rows if not row.origins] == []
    assert [
        row.key for row in rows if row.value != row.origins[-1].value and "${" not in str(row.origins[-1].value)
    ] == []


@pytest.mark.parametrize("scale", ["local", "small", "paper"])
@pytest.mark.parametrize("task", ["imdb", "tldr", "hh"])
def test_every_hyperparameter_names_its_source(scale: str, task: str) -> None:
    """CONTRIBUTING.md: the comment beside a value of PPO, of the method or of sampling says where it comes from."""
    rows = explain((f"scale={scale}", f"task={task}"), CONF)
    groups = ("ppo.", "evaluation.", "shaping.method.", "task.generation.", "task.scoring.", "task.prompt.")
    silent = [
        str(row)
        for row in rows
        if row.key.startswith(groups) and not row.origins[-1].note and "_target_" not in row.key
    ]
    assert silent == []


@pytest.mark.slow
def test_explain_script_prints_a_line_per_setting() -> None:
    command = [sys.executable, str(REPOSITORY / "experiments" / "explain.py"), "task=hh", "seed=7"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY, timeout=120)
    assert "seed = 7  [command line]" in done.stdout
    assert "task.generation.temperature = 1.0  [conf/task/hh.yaml:" in done.stdout
