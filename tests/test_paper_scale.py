"""scale=paper is real code: the same run with hub-shaped data and small random checkpoints of the same architectures."""

import json
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from scar.models.loading import train_tokenizer
from scar.run import train_run

CONF = Path(__file__).parents[1] / "conf"
REVIEW = "Film {} is long. " + "It is a winding story of people who meet, quarrel, and part again. " * 4


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A folder with data in the schema of stanfordnlp/imdb and two checkpoints in the hub's layout."""
    root = tmp_path_factory.mktemp("hub")
    for split in ("train", "test"):
        rows = [{"text": (split + " " + REVIEW).format(i), "label": i % 2} for i in range(40)]
        pd.DataFrame(rows).to_parquet(root / f"{split}-00000-of-00001.parquet")
    tokenizer = train_tokenizer([REVIEW.format(i) for i in range(40)], vocab_size=300)
    tokenizer.pad_token = None  # GPT-2 has no padding token
    config = {
        "vocab_size": len(tokenizer),
        "n_positions": 64,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "pad_token_id": None,
    }
    for name, model in {
        "policy": GPT2LMHeadModel(GPT2Config(**config)),
        "reward": GPT2ForSequenceClassification(GPT2Config(**config, num_labels=2)),
    }.items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root


@pytest.mark.parametrize("method", ["scar", "abc"])
def test_a_run_on_hub_models_and_data(hub, tmp_path, method):
    overrides = [
        "scale=paper",
        f"shaping={method}",
        "tracker=jsonl",
        "device=cpu",
        f"paths.runs={tmp_path}",
        f"task.sources.hub.path={hub}",
        f"models.policy.name={hub}/policy",
        f"models.reward.name={hub}/reward",
        "ppo.updates=1",
        *(f"ppo.{name}=4" for name in ("batch_size", "minibatch_size", "microbatch_size")),
        "evaluation.prompts=4",
        "evaluation.batch_size=4",
    ]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        folder = train_run(compose("config", overrides=overrides))
    row = json.loads((folder / "metrics.jsonl").read_text())
    assert row["kl/seq_sum_mean"] == pytest.approx(0, abs=1e-4)
    if method == "scar":  # the paper's estimator: Owen over 16-24 tokens costs hundreds of coalitions
        assert row["scar/evals_mean"] > 150
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["coalitions"] or {}).get("backend") == ("fused" if method == "scar" else None)
    assert manifest["scale"] == "paper"
    assert manifest["models"]["policy"] == {"name": f"{hub}/policy"}
