"""The fused scorer, and the generic and plain ones beside it, against whole sequences scored one length at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scar.coalitions import fused
from scar.coalitions import trie_attention as attention
from scar.coalitions.backends import CachedScorer
from scar.coalitions.fused import FusedScorer
from scar.coalitions.trie import Trie
from scar.interfaces import CoalitionScorer
from scar.types import CoalitionRows
from tests.coalitions import tiny_scorers as tiny
from tests.coalitions.tiny_scorers import SCORERS, SPACE, VARIANTS, VOCABULARY, blanked, check_scores, mixed_batch

LONG, SHORT = 40, 9
ARCHITECTURES = ("gpt2", "gpt_neox", "llama")

BATCHES: dict[str, list[CoalitionRows]] = {
    "short prompts": [blanked(n, [12, 12, 12, 7, 9], seed=n) for n in (3, 17, 32, 8)],
    "short prompts of one length": [blanked(SHORT, [12, 12, 12, 7, 9], seed=n) for n in range(3)],
    "long prompts": [blanked(n, [12, 12, 12, 7, 9], seed=n) for n in (45, 33, 38, 33)],
    "long prompts of one length": [blanked(LONG, [12, 12, 12, 7, 9], seed=n) for n in range(3)],
    "both, in no order": mixed_batch(),
    "rows of many widths": [blanked(n, [w, w, w - 1], seed=w) for n, w in ((5, 18), (40, 2), (6, 3), (41, 17), (7, 7))],
    "one column": [blanked(n, [1, 1, 1], seed=n) for n in (4, 36)],
    "one row": [blanked(40, [13])],
    "one short row": [blanked(1, [1]), blanked(2, [2])],
    "rows without a token beside others": [blanked(n, [0, 6, 0, 6, 1], seed=n) for n in (2, 33, 31, 39)],
    "only rows without a token": [blanked(n, [0, 0], width=6, seed=n) for n in (4, 9, 35, 44)],
    "no column": [blanked(n, [0, 0], seed=n) for n in (3, 40)],
    "up to the last position": [blanked(n, [w, w, w - 1]) for n, w in ((60, 4), (33, 20), (3, 61), (32, 32), (44, 20))],
    "wider than its longest row": [blanked(n, [3, 8, 5], width=15, seed=n) for n in (6, 37)],
}


@pytest.mark.parametrize(
    ("variant", "labels", "scorer"),
    [
        *((variant, 1 + number % 2, "fused") for number, variant in enumerate(VARIANTS)),
        *(
            (variant, labels, scorer)
            for variant, labels in (("gpt2", 2), ("llama", 1))
            for scorer in ("generic", "plain")
        ),
    ],
)
def test_scores_equal_those_of_whole_sequences(variant: str, labels: int, scorer: str) -> None:
    reward, batch = tiny.shared_reward_model(variant, labels), mixed_batch()
    check_scores(SCORERS[scorer](reward).score(batch), tiny.whole_sequences(reward, batch))


@pytest.mark.parametrize(
    ("architecture", "scorer"), [*((one, "fused") for one in ARCHITECTURES), ("gpt2", "generic"), ("gpt2", "plain")]
)
@pytest.mark.parametrize("name", BATCHES)
def test_every_shape_of_batch_is_scored(name: str, architecture: str, scorer: str) -> None:
    reward, batch = tiny.shared_reward_model(architecture), BATCHES[name]
    spread = 0.2 if sum(len(rows.ids) for rows in batch) > 8 else 0.0
    check_scores(SCORERS[scorer](reward).score(batch), tiny.whole_sequences(reward, batch), spread=spread)


tokens = st.sampled_from([SPACE, 5, 9])
texts = st.lists(st.lists(tokens, max_size=14), min_size=1, max_size=7).filter(lambda rows: any(rows))
prompts = st.one_of(st.integers(1, 8), st.integers(29, 36), st.integers(37, 48))


def rows_behind(prompt_length: int, rows: list[list[int]], seed: int) -> CoalitionRows:
    width = max(map(len, rows))
    ids = np.array([row + [7] * (width - len(row)) for row in rows])
    prompt = np.random.default_rng(seed).integers(0, VOCABULARY, prompt_length)
    return CoalitionRows(prompt, ids, np.array([len(row) for row in rows]))


@given(st.lists(st.builds(rows_behind, prompts, texts, st.integers(0, 3)), min_size=1, max_size=5))
def test_any_rows_behind_any_prompts_are_scored_as_whole_sequences(batch: list[CoalitionRows]) -> None:
    reward = tiny.shared_reward_model("gpt2")
    found = tiny.fused(reward).score(batch)
    check_scores(found, tiny.whole_sequences(reward, batch), spread=0.0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_pytorchs_kernel_the_scores_are_the_same(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_FLASH", None)
    reward, batch = tiny.shared_reward_model(architecture), mixed_batch()
    check_scores(tiny.fused(reward).score(batch), tiny.whole_sequences(reward, batch))


@pytest.mark.parametrize("scorer", SCORERS)
def test_the_order_of_prompts_changes_nothing(scorer: str) -> None:
    batch = mixed_batch()
    score = SCORERS[scorer](tiny.shared_reward_model()).score
    expected = score(batch)
    for order in ([5, 4, 3, 2, 1, 0], [2, 0, 4, 1, 5, 3]):
        for place, found in zip(order, score([batch[i] for i in order]), strict=True):
            np.testing.assert_allclose(found, expected[place], rtol=0, atol=1e-6)


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("prompt_length", [SHORT, LONG])
def test_equal_rows_get_equal_scores(prompt_length: int, scorer: str) -> None:
    rows = blanked(prompt_length, [8, 8, 5])
    twice = CoalitionRows(rows.prompt_ids, np.tile(rows.ids, (3, 1)), np.tile(rows.lengths, 3))
    batch = [twice, rows, twice]  # one prompt three times
    expected = tiny.whole_sequences(tiny.shared_reward_model(), [rows])[0]
    found = SCORERS[scorer](tiny.shared_reward_model()).score(batch)
    np.testing.assert_allclose(np.concatenate(found), np.tile(expected, 7), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scorer", SCORERS)
def test_prompts_that_nothing_is_asked_of_get_empty_answers(scorer: str) -> None:
    """The shap estimator asks for v(all) alone, which the game knows without a query."""
    none = {n: blanked(n, [], width=6) for n in (4, 40)}
    some = [blanked(5, [6, 6]), blanked(41, [6, 6])]
    reward = tiny.shared_reward_model()
    score = SCORERS[scorer](reward).score
    assert [found.shape for found in score([none[4]])] == [(0,)]
    assert [found.shape for found in score([none[40]])] == [(0,)]
    found = score([some[0], none[40], none[4], some[1]])
    assert [len(scores) for scores in found] == [2, 0, 0, 2]
    check_scores([found[0], found[3]], tiny.whole_sequences(reward, some))


@pytest.mark.parametrize("scorer", SCORERS)
def test_inputs_are_not_changed_and_the_space_token_is_handed_on(scorer: str) -> None:
    batch = mixed_batch()
    made: CoalitionScorer = SCORERS[scorer](tiny.shared_reward_model())
    made.score(batch)
    assert made.space_id == SPACE
    for rows, again in zip(batch, mixed_batch(), strict=True):
        for name in ("prompt_ids", "ids", "lengths"):
            np.testing.assert_array_equal(getattr(rows, name), getattr(again, name))


class Passes:
    """Keeps the tries that fused scorers run and the lengths of the prompts that they run before them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tries: list[Trie] = []
        self.prefills: list[list[int]] = []
        score_trie, prefill = FusedScorer._score_trie, FusedScorer._prefill

        def spy(scorer: FusedScorer, trie: Trie, shared: Any) -> np.ndarray:
            self.tries.append(trie)
            return score_trie(scorer, trie, shared)

        def spy_prefill(scorer: FusedScorer, prompt_ids: list[np.ndarray]) -> Any:
            self.prefills.append([len(ids) for ids in prompt_ids])
            return prefill(scorer, prompt_ids)

        monkeypatch.setattr(FusedScorer, "_score_trie", spy)
        monkeypatch.setattr(FusedScorer, "_prefill", spy_prefill)


def activation_bytes(trie: Trie) -> int:
    """float32 of 8 hidden states (32) and 2 MLP activations (128) for each token of a trie of the tiny GPT-2."""
    return 4 * (8 * 32 + 2 * 128) * sum(stage.tokens.size for stage in trie.stages)


def key_bytes(trie: Trie, context: int) -> int:
    """float32 keys and values (32 each) of all that the last token of each row may see."""
    return 2 * 4 * 32 * context * len(trie.owner)


def many_rows(prompt_lengths: Sequence[int]) -> list[CoalitionRows]:
    return [blanked(n, [14] * 12 + [9, 0, 3, 14], seed=seed) for seed, n in enumerate(prompt_lengths)]


MEMORY_CASES = [([SHORT] * 5, 320 * 2**10), ([LONG] * 5, 320 * 2**10), ([SHORT, 30, LONG, 45, 3], 480 * 2**10)]


@pytest.mark.parametrize(("prompt_lengths", "memory"), MEMORY_CASES)
def test_little_memory_makes_more_passes_and_the_same_scores(
    prompt_lengths: list[int], memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward, batch, passes = tiny.shared_reward_model(), many_rows(prompt_lengths), Passes(monkeypatch)
    tiny.fused(reward).score(batch)
    few = len(passes.tries)
    found = tiny.fused(reward, memory_bytes=memory).score(batch)
    assert len(passes.tries) - few >= 5 * few
    check_scores(found, tiny.whole_sequences(reward, batch))


@pytest.mark.parametrize("memory", [2**18, 2**19, 2**21])
@pytest.mark.parametrize("prompt_length", [SHORT, LONG])
def test_no_pass_holds_more_than_its_share_of_the_memory(
    prompt_length: int, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Passes(monkeypatch)
    tiny.fused(tiny.shared_reward_model(), memory_bytes=memory).score(many_rows([prompt_length] * 5))
    context = 14 + (prompt_length if prompt_length == SHORT else 0)
    used = [fused.SLACK * (activation_bytes(trie) + key_bytes(trie, context)) for trie in passes.tries]
    assert max(used) <= memory * 3 / 4
    assert len(used) == 1 or max(used) >= memory / 2  # and it is not cut finer than need be


def test_a_cpu_pass_is_bounded_however_much_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "CPU_CHUNK_BYTES", 2**18)
    passes = Passes(monkeypatch)
    reward, batch = tiny.shared_reward_model(), many_rows([SHORT] * 5)
    check_scores(tiny.fused(reward, memory_bytes=2**40).score(batch), tiny.whole_sequences(reward, batch))
    assert len(passes.tries) > 1
    assert fused.SLACK * max(map(activation_bytes, passes.tries)) <= 2**18


@pytest.mark.parametrize("prompt_length", [SHORT, LONG])
def test_memory_for_less_than_one_row_is_refused(prompt_length: int) -> None:
    with pytest.raises(ValueError, match=r"needs \d+ bytes, the limit is \d+; raise coalitions.memory_mib"):
        tiny.fused(tiny.shared_reward_model(), memory_bytes=1000).score(many_rows([prompt_length]))


@pytest.mark.parametrize("architecture", ["gpt2", "opt"])
def test_the_generic_scorer_gives_the_same_scores_in_any_memory(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_a_pass: list[int] = []
    score_chunk = CachedScorer._score_chunk

    def spy(scorer: CachedScorer, ids: np.ndarray, *given: Any) -> Any:
        rows_a_pass.append(len(ids))
        return score_chunk(scorer, ids, *given)

    monkeypatch.setattr(CachedScorer, "_score_chunk", spy)
    reward, batch = tiny.shared_reward_model(architecture), many_rows([LONG, 45, SHORT])
    expected = tiny.whole_sequences(reward, batch)
    with_tokens = int((batch[0].lengths > 0).sum())
    for memory, largest in ((1, 1), (2**19, 5), (tiny.PLENTY, with_tokens)):
        rows_a_pass.clear()
        check_scores(tiny.generic(reward, memory_bytes=memory).score(batch), expected)
        assert 1 <= max(rows_a_pass) <= largest
        assert sum(rows_a_pass) == 2 * with_tokens  # the short prompt's rows are scored whole


def test_a_prompt_is_run_once_for_all_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes(monkeypatch)
    tiny.fused(tiny.shared_reward_model()).score(mixed_batch())
    assert [sorted(group) for group in passes.prefills] == [[33, 40, 45]]
    assert sorted(trie.prompt_lengths is not None for trie in passes.tries) == [False, True]


def test_a_row_above_the_usual_pass_is_scored_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scar.coalitions.fused.CPU_CHUNK_BYTES", 1000)
    reward = tiny.shared_reward_model("gpt2")
    batch = [blanked(SHORT, [13, 13, 12]), blanked(LONG, [13, 9])]
    check_scores(tiny.fused(reward).score(batch), tiny.whole_sequences(reward, batch), spread=0.0)
