"""Which architecture a config's models have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from scar.commands.build import plain
from scar.planning.models import policy_shape, reward_shape
from tests.planning.tiny import GPT2, LLAMA, models
from tests.smoke_scale import composed


def nodes(*overrides: str) -> dict[str, Any]:
    return plain(composed(*overrides).models)


def test_checkpoints_by_name_have_shapes_of_their_own() -> None:
    found = nodes("scale=paper", "task=hh")
    assert (policy_shape(found).hidden_size, reward_shape(found).hidden_size) == (4096, 3200)
    assert reward_shape(nodes("scale=paper", "task=imdb")).num_labels == 2


def test_models_trained_from_a_pretrained_one_share_its_shape() -> None:
    for scale, layers in (("paper", 16), ("small", 30)):
        found = nodes(f"scale={scale}", "task=tldr")
        assert policy_shape(found).num_hidden_layers == reward_shape(found).num_hidden_layers == layers


@pytest.mark.parametrize(("task", "policy", "reward"), [("imdb", 128, 64), ("tldr", 128, 128), ("hh", 128, 128)])
def test_models_trained_from_scratch(task: str, policy: int, reward: int) -> None:
    found = nodes("scale=local", f"task={task}")
    assert (policy_shape(found).n_embd, reward_shape(found).n_embd) == (policy, reward)
    assert policy_shape(found).vocab_size == found["tokenizer"]["vocab_size"]
    assert reward_shape(found).num_labels == 1


def test_a_local_folder_tells_its_own_shape(tmp_path: Path) -> None:
    AutoConfig.for_model("gpt2", n_embd=48, n_head=2).save_pretrained(tmp_path)
    found = models(GPT2, GPT2)
    found["policy"]["name"] = str(tmp_path)
    assert policy_shape(found).n_embd == 48
    assert reward_shape(found).n_embd == 32


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (None, "models.policy.shape is not there"),
        (LLAMA | {"model_type": "lama"}, "models.policy.shape.model_type=lama"),
        ({"n_layer": 2}, "models.policy.shape.model_type=None"),
        (GPT2 | {"n_layers": 2}, "models.policy.shape.n_layers: no such setting of a gpt2 model"),
    ],
)
def test_a_wrong_shape_is_one_error(shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy_shape(models(shape, GPT2))
