"""The policy's distribution against a direct computation on unpadded rows, and what padding must not change."""

from __future__ import annotations

import math

import pytest
import torch

from scar.interfaces import PolicyOutput
from scar.models.policy import CachedDecoder, CausalPolicy, new_value_head, positions
from tests.models.tiny import (
    ARCHITECTURES,
    EOS,
    PAD,
    PROMPTS,
    RESPONSES,
    VOCABULARY,
    left_padded,
    right_padded,
    tiny_policy,
)

CLOSE = {"rtol": 0.0, "atol": 1e-5}


@torch.no_grad()
def evaluated(
    policy: CausalPolicy, *, left: int = 0, right: int = 0, fill: int = PAD, rows: list[int] | None = None
) -> PolicyOutput:
    """`policy` on PROMPTS and RESPONSES with extra padding; `fill` stands under the masks."""
    rows = [0, 1, 2] if rows is None else rows
    ids, mask = right_padded([RESPONSES[i] for i in rows], extra=right, fill=fill)
    return policy.evaluate(left_padded([PROMPTS[i] for i in rows], extra=left, fill=fill), ids, mask)


@torch.no_grad()
def by_hand(policy: CausalPolicy, row: int) -> dict[str, list[float]]:
    """Log-probabilities, entropies and values of one unpadded row, token by token, from the raw model."""
    ids = PROMPTS[row] + RESPONSES[row]
    out = policy.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    result: dict[str, list[float]] = {"logprobs": [], "entropy": [], "values": []}
    for step, token in enumerate(RESPONSES[row]):
        place = len(PROMPTS[row]) + step - 1
        logits = [float(x) / policy.temperature for x in out.logits[0, place]]
        if step < policy.min_new_tokens:
            logits[EOS] = -math.inf
        total = math.log(sum(math.exp(x) for x in logits))
        result["logprobs"].append(logits[token] - total)
        result["entropy"].append(-sum(math.exp(x - total) * (x - total) for x in logits if x > -math.inf))
        assert policy.value_head is not None
        hidden = out.hidden_states[-1][0, place]
        result["values"].append(float(hidden @ policy.value_head.weight[0] + policy.value_head.bias))
    return result


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("temperature", "min_new_tokens"), [(0.7, 3), (1.0, 1), (1.6, 5)])
def test_outputs_equal_a_direct_computation(architecture: str, temperature: float, min_new_tokens: int) -> None:
    policy = tiny_policy(architecture, temperature=temperature, min_new_tokens=min_new_tokens)
    out = evaluated(policy)
    for row, response in enumerate(RESPONSES):
        expected = by_hand(policy, row)
        for name, values in expected.items():
            got = getattr(out, name)[row]
            torch.testing.assert_close(got[: len(response)], torch.tensor(values), rtol=1e-5, atol=2e-5)
            assert (got[len(response) :] == 0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("left", "right"), [(3, 0), (0, 4), (9, 2)])
def test_padding_changes_nothing(architecture: str, left: int, right: int) -> None:
    policy = tiny_policy(architecture)
    plain, padded = evaluated(policy), evaluated(policy, left=left, right=right)
    width = plain.logprobs.shape[1]
    for name in ("logprobs", "entropy", "values"):
        torch.testing.assert_close(getattr(padded, name)[:, :width], getattr(plain, name), **CLOSE)
        assert (getattr(padded, name)[:, width:] == 0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ids_under_the_mask_change_nothing(architecture: str) -> None:
    policy = tiny_policy(architecture)
    usual = evaluated(policy, left=2, right=2)
    for fill in (EOS, 17):
        other = evaluated(policy, left=2, right=2, fill=fill)
        for name in ("logprobs", "entropy", "values"):
            torch.testing.assert_close(getattr(other, name), getattr(usual, name), **CLOSE)


def test_positions_count_real_tokens_from_zero() -> None:
    mask = torch.tensor([[False, False, True, True], [True, True, True, False], [True, False, True, True]])
    assert positions(mask)[mask].tolist() == [0, 1, 0, 1, 2, 0, 1, 2]
    assert (positions(mask) >= 0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_decoder_gives_the_distribution_that_evaluate_reads(architecture: str) -> None:
    policy = tiny_policy(architecture)
    out = evaluated(policy)
    ids, mask = right_padded(RESPONSES)
    decoder = CachedDecoder(policy, left_padded(PROMPTS))
    for step in range(ids.shape[1]):
        distribution = decoder.next_logits().log_softmax(-1)
        assert distribution.shape == (3, VOCABULARY)
        for row in range(3):
            if mask[row, step]:
                torch.testing.assert_close(distribution[row, ids[row, step]], out.logprobs[row, step], **CLOSE)
                entropy = torch.distributions.Categorical(logits=distribution[row].clamp(min=-1e30)).entropy()
                torch.testing.assert_close(entropy, out.entropy[row, step], rtol=1e-5, atol=1e-5)
        decoder.append(ids[:, step])


@torch.no_grad()
def test_eos_is_impossible_before_min_new_tokens_and_possible_after() -> None:
    policy = tiny_policy(min_new_tokens=2)
    decoder = CachedDecoder(policy, left_padded(PROMPTS))
    for step in range(4):
        eos_probability = decoder.next_logits().softmax(-1)[:, EOS]
        assert ((eos_probability > 0) == (step >= 2)).all()
        decoder.append(torch.tensor([4, 5, 6]))


@torch.no_grad()
def test_a_suppressed_eos_has_log_probability_minus_infinity_not_its_raw_one() -> None:
    policy = tiny_policy(min_new_tokens=3)
    ids, mask = right_padded([[4, EOS, 5]])
    logprobs = policy.evaluate(left_padded([[7]]), ids, mask).logprobs[0]
    assert logprobs[1] == -math.inf
    assert torch.isfinite(logprobs[[0, 2]]).all()


def test_gradients_stay_finite_when_the_padding_token_is_a_suppressed_eos() -> None:
    policy = tiny_policy(min_new_tokens=6, pad_id=EOS)  # GPT-2 pads with EOS, and EOS is suppressed in the padding
    ids, mask = right_padded([[4, 12, 6, 19], [13]], fill=EOS)
    out = policy.evaluate(left_padded([PROMPTS[0], PROMPTS[1]], fill=EOS), ids, mask)
    (out.logprobs.sum() + out.values.sum() + 0.01 * out.entropy.sum()).backward()
    gradients = [p.grad for p in policy.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_reference_says_the_same_has_no_gradient_and_no_value_head() -> None:
    policy = tiny_policy()
    reference = policy.reference()
    assert torch.equal(evaluated(reference).logprobs, evaluated(policy).logprobs)
    assert (evaluated(reference).values == 0).all()
    assert not any(p.requires_grad for p in reference.parameters())
    assert all(p.requires_grad for p in policy.parameters())
    assert policy.value_head is not None


def test_reference_stays_when_the_policy_is_trained() -> None:
    policy = tiny_policy()
    reference = policy.reference()
    before = evaluated(reference).logprobs
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    ids, mask = right_padded(RESPONSES)
    (-policy.evaluate(left_padded(PROMPTS), ids, mask).logprobs.sum()).backward()
    optimizer.step()
    assert torch.equal(evaluated(reference).logprobs, before)
    assert (evaluated(policy).logprobs - before).abs().max() > 0.01


def test_value_head_is_drawn_from_its_generator_within_torchs_bounds() -> None:
    first, second = (new_value_head(16, torch.Generator().manual_seed(seed)) for seed in (1, 1))
    other = new_value_head(16, torch.Generator().manual_seed(2))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
    assert not torch.equal(first.weight, other.weight)
    assert first.weight.abs().max() <= 0.25  # 1 / sqrt(16)
    assert first.bias.abs() <= 0.25
    assert first.weight.std() > 0.05
