"""Which scorer is chosen, that a wrong one is found out at start-up, and that choosing leaves no traces."""

from __future__ import annotations

import copy
import logging
import random
from typing import Any

import numpy as np
import pytest
import torch

from scar.coalitions import architectures
from scar.coalitions.backends import CachedScorer, PlainScorer, ScorerReport, make_scorer
from scar.coalitions.fused import FusedScorer
from scar.interfaces import CoalitionScorer
from scar.models.reward import SequenceRewardModel
from scar.types import CoalitionRows
from tests.coalitions import tiny_scorers as tiny
from tests.coalitions.tiny_scorers import CPU, check_scores, mixed_batch

KINDS: dict[str, type] = {"fused": FusedScorer, "generic": CachedScorer, "plain": PlainScorer}
KNOWN = ("gpt2", "gpt_neox", "llama")
TOLERANCES = {"float32": 1e-5, "bfloat16": 0.15}
CAN_USE = [(name, "opt" if name == "generic" else "gpt2") for name in KINDS]


def make(
    reward: Any, *, backend: str = "auto", dtype: str = "float32", memory_mib: int = 64
) -> tuple[CoalitionScorer, ScorerReport]:
    return make_scorer(reward, backend=backend, dtype=dtype, memory_mib=memory_mib, device=CPU)


def check_choice(made: tuple[CoalitionScorer, ScorerReport], name: str) -> None:
    scorer, report = made
    assert type(scorer) is KINDS[name]
    assert report.backend == name


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("architecture", KNOWN)
def test_auto_takes_the_fused_scorer_for_a_known_architecture(
    architecture: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = make(tiny.shared_reward_model(architecture))
    check_choice(made, "fused")
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("architecture", KNOWN)
def test_a_reward_model_held_in_bfloat16_is_scored_in_it_by_the_fused_scorer(
    architecture: str, caplog: pytest.LogCaptureFixture
) -> None:
    reward = copy.deepcopy(tiny.shared_reward_model(architecture))
    reward.model.to(torch.bfloat16)
    scorer, report = make(reward)
    check_choice((scorer, report), "fused")
    assert warnings_of(caplog) == []
    assert report.dtype == "bfloat16"
    assert 0 < report.largest_difference < 0.15
    batch = mixed_batch()
    whole = PlainScorer(reward, device=CPU).score(batch)
    check_scores(scorer.score(batch), whole, tolerance=TOLERANCES["bfloat16"])
    assert make(reward, dtype="bfloat16")[0]._trunk.model is reward.model.base_model  # no second copy


def test_auto_takes_the_generic_scorer_for_another_causal_model(caplog: pytest.LogCaptureFixture) -> None:
    reward = tiny.shared_reward_model("opt")
    made = make(reward)
    check_choice(made, "generic")
    assert warnings_of(caplog) == []
    check_scores(made[0].score(mixed_batch()), tiny.whole_sequences(reward, mixed_batch()))


@pytest.mark.parametrize("name", KINDS)
def test_a_backend_can_be_asked_for(name: str) -> None:
    reward = tiny.shared_reward_model()
    made = make(reward, backend=name)
    check_choice(made, name)
    check_scores(made[0].score(mixed_batch()), tiny.whole_sequences(reward, mixed_batch()))


@pytest.mark.parametrize("room", [4, 10, 13, 30])
def test_the_probe_fits_a_model_of_few_positions(room: int) -> None:
    model = tiny.classifier("gpt2", max_position_embeddings=room)
    check_choice(make(SequenceRewardModel(model, space_id=tiny.SPACE)), "fused")


# A wrong scorer is found out.


def break_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = architectures.GPT2Trunk.finish
    monkeypatch.setattr(architectures.GPT2Trunk, "finish", lambda *given: finish(*given) * 1.5)


def break_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    score_chunk = CachedScorer._score_chunk
    monkeypatch.setattr(CachedScorer, "_score_chunk", lambda *given: score_chunk(*given) + 0.25)


def test_a_wrong_fused_pass_is_told_and_the_generic_scorer_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    break_fused(monkeypatch)
    reward = tiny.shared_reward_model()
    made = make(reward)
    check_choice(made, "generic")
    (told,) = warnings_of(caplog)
    assert told.startswith("coalitions.backend=fused differs by 0.")
    assert "gpt2" in told
    check_scores(made[0].score(mixed_batch()), tiny.whole_sequences(reward, mixed_batch()))


@pytest.mark.parametrize("backend", ["auto", "fused"])
def test_both_wrong_leave_the_plain_scorer(
    backend: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    break_fused(monkeypatch)
    break_cached(monkeypatch)
    made = make(tiny.shared_reward_model(), backend=backend)
    check_choice(made, "plain")
    assert [told.split(" differs by ")[0][-7:] for told in warnings_of(caplog)] == ["d=fused", "generic"]


@pytest.mark.parametrize("error", [TypeError, AttributeError, RuntimeError, IndexError])
def test_a_pass_that_cannot_run_is_told_and_passed_over(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*given: Any) -> Any:
        raise error("no such module")

    monkeypatch.setattr(architectures.GPT2Trunk, "finish", fails)
    check_choice(make(tiny.shared_reward_model()), "generic")
    assert "FusedScorer cannot run this model: no such module" in warnings_of(caplog)[0]


def test_scores_that_are_no_numbers_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = architectures.GPT2Trunk.finish
    monkeypatch.setattr(architectures.GPT2Trunk, "finish", lambda *given: finish(*given) * torch.nan)
    check_choice(make(tiny.shared_reward_model()), "generic")


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("architecture", ["gpt2", "opt"])
def test_a_bidirectional_transformer_gets_whole_sequences(
    architecture: str, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A cache holds what the prompt saw without the response, and a bidirectional prompt sees the response."""
    reward = tiny.reward_model(architecture)
    reward.model.config.is_causal = False
    first, second = torch.tensor([[4, 7, 9]]), torch.tensor([[4, 7, 5]])
    mask = torch.ones_like(first, dtype=torch.bool)
    changed = (reward.score_prefixes(first, mask) - reward.score_prefixes(second, mask))[0, 0]
    assert abs(float(changed)) > 1e-3  # later tokens change what is read at the first one
    made = make(reward, dtype=dtype)
    check_choice(made, "plain")
    assert len(warnings_of(caplog)) == (2 if architecture == "gpt2" else 1)
    expected = tiny.whole_sequences(reward, mixed_batch())
    check_scores(made[0].score(mixed_batch()), expected, tolerance=TOLERANCES[dtype])


# Narrower weights.


@pytest.mark.parametrize(("name", "architecture"), CAN_USE)
def test_bfloat16_is_close_and_its_difference_is_reported(name: str, architecture: str) -> None:
    reward = tiny.reward_model(architecture)
    scorer, report = make(reward, backend=name, dtype="bfloat16")
    assert (report.backend, report.dtype) == (name, "bfloat16")
    assert 0 < report.largest_difference < 0.1
    found, expected = scorer.score(mixed_batch()), tiny.whole_sequences(reward, mixed_batch())
    check_scores(found, expected, tolerance=TOLERANCES["bfloat16"])
    assert np.abs(np.concatenate(found) - np.concatenate(expected)).max() > 1e-5  # it was computed in bfloat16


@pytest.mark.parametrize(("name", "architecture"), CAN_USE)
def test_bfloat16_leaves_the_reward_model_as_it_was(name: str, architecture: str) -> None:
    reward = tiny.reward_model(architecture)
    before, expected = copy.deepcopy(reward.state_dict()), tiny.whole_sequences(reward, mixed_batch())
    scorer, _ = make(reward, backend=name, dtype="bfloat16")
    scorer.score(mixed_batch())
    assert {parameter.dtype for parameter in reward.parameters()} == {torch.float32}
    for key, tensor in reward.state_dict().items():
        assert torch.equal(tensor, before[key]), key
    for found, wanted in zip(tiny.whole_sequences(reward, mixed_batch()), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama"])
def test_rotary_frequencies_are_not_rounded(architecture: str) -> None:
    """In bfloat16 they would turn far tokens by wrong angles, which a probe of few tokens does not show."""
    reward = tiny.reward_model(architecture)
    scorer = make(reward, dtype="bfloat16")[0]
    assert isinstance(scorer, FusedScorer)
    frequencies = scorer._trunk.model.rotary_emb.inv_freq
    assert torch.equal(frequencies, reward.model.base_model.rotary_emb.inv_freq)
    assert frequencies.dtype == torch.float32


# Wrong settings.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "fast"}, "coalitions.backend=fast; allowed: auto, fused, generic, plain"),
        ({"dtype": "float16"}, "coalitions.dtype=float16; allowed: float32, bfloat16"),
        ({"memory_mib": 0}, "coalitions.memory_mib=0; allowed: a whole number of MiB, 1 or more"),
        ({"memory_mib": -4}, "coalitions.memory_mib=-4; allowed: a whole number"),
        ({"memory_mib": 1.5}, "coalitions.memory_mib=1.5; allowed: a whole number"),
        ({"memory_mib": True}, "coalitions.memory_mib=True; allowed: a whole number"),
        ({"memory_mib": "64"}, "coalitions.memory_mib=64; allowed: a whole number"),
    ],
)
def test_settings_that_do_not_exist_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tiny.shared_reward_model(), **changes)


def test_the_fused_scorer_cannot_be_asked_for_with_another_architecture() -> None:
    with pytest.raises(ValueError, match="backend=fused for a opt model; allowed: gpt2, gpt_neox, llama"):
        make(tiny.shared_reward_model("opt"), backend="fused")


# No traces.


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "architecture"), CAN_USE)
def test_no_global_generator_is_touched(name: str, architecture: str, dtype: str) -> None:
    reward = tiny.reward_model(architecture)
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    make(reward, backend=name, dtype=dtype)[0].score(mixed_batch())
    assert torch.equal(torch.get_rng_state(), before[0])
    for now, then in zip(np.random.get_state(), before[1], strict=True):
        np.testing.assert_array_equal(now, then)
    assert random.getstate() == before[2]


@pytest.mark.parametrize(("name", "architecture"), [*CAN_USE, ("fused", "gpt_neox"), ("fused", "llama")])
def test_the_reward_model_is_left_as_it_was(name: str, architecture: str) -> None:
    reward = tiny.reward_model(architecture)
    config, kernel = reward.model.config.to_dict(), reward.model.config._attn_implementation
    tensors = {key: tensor.clone() for key, tensor in [*reward.named_parameters(), *reward.named_buffers()]}
    make(reward, backend=name)[0].score(mixed_batch())
    assert (reward.model.config.to_dict(), reward.model.config._attn_implementation) == (config, kernel)
    assert not any(module.training for module in reward.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in reward.parameters())
    after = dict([*reward.named_parameters(), *reward.named_buffers()])
    assert after.keys() == tensors.keys()
    assert all(torch.equal(after[key], tensor) for key, tensor in tensors.items())


class _TokenSum:
    """A reward model by the protocol alone: no Hugging Face model inside."""

    space_id = 2

    def score(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (ids * mask).sum(1).float()


def test_any_reward_model_is_asked_for_whole_sequences() -> None:
    settings = {"memory_mib": 64, "device": torch.device("cpu")}
    scorer, report = make_scorer(_TokenSum(), backend="auto", dtype="float32", **settings)  # type: ignore[arg-type]
    assert report.backend == "plain"
    rows = CoalitionRows(np.array([5, 6]), np.array([[1, 2], [3, 9]]), np.array([2, 1]))
    assert scorer.score([rows])[0].tolist() == [14.0, 14.0]
    with pytest.raises(ValueError, match=r"coalitions\.backend=fused dtype=float32 for _TokenSum; allowed: plain"):
        make_scorer(_TokenSum(), backend="fused", dtype="float32", **settings)  # type: ignore[arg-type]
