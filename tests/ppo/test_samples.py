from __future__ import annotations

import pytest
import torch

from scar.ppo.evaluation import rollout_of_samples

ROWS = [
    {"prompt": "a b", "reward_prompt": None, "response": "c", "prompt_ids": [5, 6], "response_ids": [7, 0]},
    {"prompt": "a", "reward_prompt": None, "response": "c d e", "prompt_ids": [5], "response_ids": [7, 8, 9]},
]


def test_rows_become_the_rollout_that_they_were() -> None:
    found = rollout_of_samples(ROWS, pad_id=1, eos_id=0)
    assert found.prompts.prompt_ids.tolist() == [[5, 6], [1, 5]]
    assert found.prompts.prompt_mask.tolist() == [[True, True], [False, True]]
    assert found.response_ids.tolist() == [[7, 0, 1], [7, 8, 9]]
    assert found.response_mask.tolist() == [[True, True, False], [True, True, True]]
    assert found.finished.tolist() == [True, False]
    assert found.texts == ["c", "c d e"]
    assert found.prompts.reward_texts is None
    assert torch.equal(found.logprobs, torch.zeros(2, 3))


def test_prompts_that_the_reward_model_reads_otherwise_are_kept() -> None:
    rows = [row | {"reward_prompt": f"### {row['prompt']}"} for row in ROWS]
    assert rollout_of_samples(rows, pad_id=1, eos_id=0).prompts.reward_texts == ["### a b", "### a"]


@pytest.mark.parametrize("key", ["prompt_ids", "response_ids"])
def test_samples_of_earlier_versions_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"samples without {key}: .* run that run again"):
        rollout_of_samples([{k: v for k, v in ROWS[0].items() if k != key}], pad_id=1, eos_id=0)


def test_samples_of_two_kinds_of_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="some samples have a reward_prompt"):
        rollout_of_samples([ROWS[0], ROWS[1] | {"reward_prompt": "x"}], pad_id=1, eos_id=0)
