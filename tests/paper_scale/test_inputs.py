"""What policy and reward model read at paper scale, token by token: prompts, where the score is read, padding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from scar.commands import build
from scar.types import PromptBatch, Rollout
from tests.paper_scale.conftest import Hub
from tests.paper_scale.hub import INSTRUCTIONS

CPU = torch.device("cpu")


def rollout_of(prompts: PromptBatch, responses: list[list[int]], *, eos: int, pad: int, extra: int = 0) -> Rollout:
    """The responses behind the prompts; one that ends with `eos` is finished."""
    width = max(map(len, responses)) + extra
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in responses])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in responses])
    zeros = torch.zeros(ids.shape)
    finished = torch.tensor([row[-1] == eos for row in responses])
    return Rollout(prompts, ids, mask, zeros, zeros, zeros, finished, [""] * len(ids))


def parts_of(hub: Hub, *overrides: str) -> Any:
    return build.load_parts(hub.config(*overrides), CPU)


def read(parts: Any, rollout: Rollout) -> list[list[int]]:
    """The token rows that the reward model reads."""
    inputs = parts.scoring._reader.read(rollout)
    ids, mask = inputs.sequence_ids(), inputs.sequence_mask()
    return [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]


def prompt_rows(prompts: PromptBatch) -> list[list[int]]:
    return [row[keep].tolist() for row, keep in zip(prompts.prompt_ids, prompts.prompt_mask, strict=True)]


def test_imdb_reads_the_sampled_tokens_and_the_last_one_before_eos(hubs: dict[str, Hub]) -> None:
    parts = parts_of(hubs["imdb"])
    prompts, eos = parts.prompts("train", 4, 1).batch(0), parts.tokenizer.eos_token_id
    own = prompt_rows(prompts)
    assert all(4 <= len(row) <= 8 for row in own)
    responses = [[20, 21, 22, eos], [30, 31], [40, eos], [50, 51, 52, 53, 54]]
    found = read(parts, rollout_of(prompts, responses, eos=eos, pad=parts.tokenizer.pad_token_id))
    assert found == [own[0] + [20, 21, 22], own[1] + [30, 31], own[2] + [40], own[3] + [50, 51, 52, 53, 54]]


@pytest.mark.slow
def test_tldr_reads_eos_too_and_the_whole_prompt_of_at_most_its_tokens(hubs: dict[str, Hub]) -> None:
    parts = parts_of(hubs["tldr"])
    prompts, eos = parts.prompts("train", 4, 1).batch(0), parts.tokenizer.eos_token_id
    text = prompts.texts[0]
    assert text.startswith("SUBREDDIT: r/AskReddit\n\nTITLE: Cat ")
    assert "\n\nPOST: I am " in text
    assert text.endswith("\n\nTL;DR:")
    own = prompt_rows(prompts)
    assert own[0] == parts.tokenizer.encode(text)
    assert all(len(row) <= 96 for row in own)
    responses = [[20, 21, eos], [30], [40, eos], [50, 51, 52]]
    found = read(parts, rollout_of(prompts, responses, eos=eos, pad=parts.tokenizer.pad_token_id))
    assert found == [prompt + response for prompt, response in zip(own, responses, strict=True)]


@pytest.mark.slow
def test_hh_policy_opens_with_bos_and_the_reward_model_reads_its_own_prompt(hubs: dict[str, Hub]) -> None:
    parts = parts_of(hubs["hh"])
    tokenizer = parts.tokenizer
    prompts, eos, bos = parts.prompts("train", 4, 1).batch(0), tokenizer.eos_token_id, tokenizer.bos_token_id
    text = prompts.texts[0]
    turn = text.split("### Instruction:\n")[1].removesuffix("\n\n### Response:")
    assert text == f"{INSTRUCTIONS}\n\n### Instruction:\n{turn}\n\n### Response:"
    assert turn.startswith("How do I bake bread number ")
    assert prompt_rows(prompts)[0] == [bos, *tokenizer.encode(text, add_special_tokens=False)]
    own = [bos, *tokenizer.encode(f"###Human: {turn} ###Assistant: ", add_special_tokens=False)]
    responses = [[320, 321, eos], [330], [340, eos], [350, 351, 352]]
    found = read(parts, rollout_of(prompts, responses, eos=eos, pad=tokenizer.pad_token_id))
    assert found[0] == [*own, 320, 321]
    assert found[1][-1:] == [330]
    assert found[2][-1:] == [340]


@pytest.mark.parametrize("task", ["imdb", *(pytest.param(task, marks=pytest.mark.slow) for task in ("tldr", "hh"))])
def test_padding_on_either_side_changes_no_score_and_no_log_probability(hubs: dict[str, Hub], task: str) -> None:
    wide = ["models.reward.weights=float32"]
    parts = parts_of(hubs[task], *wide, *(["models.policy.load.compute=float32"] if task == "tldr" else []))
    prompts, eos, pad = (
        parts.prompts("train", 4, 1).batch(0),
        parts.tokenizer.eos_token_id,
        parts.tokenizer.pad_token_id,
    )
    responses = [[20, 21, 22, eos], [30, 31], [40, eos], [50, 51, 52, 53, 54]]
    padded = replace(
        prompts,
        prompt_ids=torch.nn.functional.pad(prompts.prompt_ids, (5, 0), value=pad),
        prompt_mask=torch.nn.functional.pad(prompts.prompt_mask, (5, 0), value=False),
    )
    one = rollout_of(prompts, responses, eos=eos, pad=pad)
    other = rollout_of(padded, responses, eos=eos, pad=pad, extra=3)
    assert torch.allclose(parts.scoring.score(one).raw, parts.scoring.score(other).raw, atol=1e-4)
    policy = parts.policy()
    with torch.no_grad():
        usual, wider = (policy.evaluate(r.prompts, r.response_ids, r.response_mask) for r in (one, other))
    tolerance = 0.05 if task == "hh" else 1e-4  # its passes are bfloat16
    width = usual.logprobs.shape[1]
    assert torch.allclose(usual.logprobs, wider.logprobs[:, :width], atol=tolerance)
    assert torch.allclose(usual.values, wider.values[:, :width], atol=tolerance)
