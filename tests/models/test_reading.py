"""What the reward model reads: its own tokens of the sampled text, each tied to the policy tokens that it stands for."""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from scar.models.loading import train_tokenizer
from scar.models.reading import RewardReader, as_sampled, same_tokenizer
from scar.segmentation.offsets import token_offsets
from scar.types import RewardInputs
from tests.builders import EOS, make_rollout
from tests.models.vocabularies import (
    ENGLISH,
    RESPONSES,
    REWARD_TOKENIZERS,
    encode,
    long_tokenizer,
    metaspace_tokenizer,
    policy_bytes,
    policy_tokenizer,
    real,
    sampled,
    word_piece_tokenizer,
)

BROKEN = "\ufffd"


def reader_of(kind: str, *, reads_eos: bool = False, max_tokens: int = 10_000) -> RewardReader:
    return RewardReader(policy_tokenizer(), REWARD_TOKENIZERS[kind](), reads_eos=reads_eos, max_tokens=max_tokens)


def rows_of(inputs: RewardInputs) -> list[dict[str, list[Any]]]:
    """Everything that is read of each response, without padding."""
    rows = []
    for row, mask in enumerate(inputs.mask):
        assert inputs.overlap is not None
        found = {"overlap": inputs.overlap[row, mask].tolist()}
        for name in ("ids", "step", "end_step"):
            found[name] = getattr(inputs, name)[row, mask].tolist()
        rows.append(found)
    return rows


def holders(policy_ids: list[int]) -> list[tuple[int, int]]:
    """For each character of the text the policy tokens that have its first bad byte and its last byte; for a whole
    character only the one that has its last byte."""
    data = b"".join(policy_bytes()[token] for token in policy_ids)
    owner = [number for number, token in enumerate(policy_ids) for _ in policy_bytes()[token]]
    found, place = [], 0
    while place < len(data):
        whole = next((n for n in (1, 2, 3, 4) if _is_one_character(data[place : place + n])), None)
        size = whole or _bad_bytes(data[place:])
        found.append((owner[place if whole is None else place + size - 1], owner[place + size - 1]))
        place += size
    return found


def _is_one_character(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


def _bad_bytes(data: bytes) -> int:
    """How many bytes at the start of `data`, which start no character, become one U+FFFD."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.end
    raise AssertionError


# Other tokens.


@pytest.mark.parametrize("kind", REWARD_TOKENIZERS)
@given(contents=RESPONSES, finished=st.booleans(), reads_eos=st.booleans())
def test_ids_are_the_reward_tokenizers_own_of_the_text_and_eos_only_of_a_finished_response(
    kind: str, contents: list[int], finished: bool, reads_eos: bool
) -> None:
    tokenizer = REWARD_TOKENIZERS[kind]()
    rollout = sampled([contents], [finished])
    inputs = reader_of(kind, reads_eos=reads_eos).read(rollout)
    own = tokenizer.encode(policy_tokenizer().decode(contents), add_special_tokens=False)
    closed = reads_eos and bool(rollout.finished[0])
    assert real(inputs.ids, inputs.mask) == [own + [tokenizer.eos_token_id] * closed]
    assert (inputs.step[0, : len(own)] >= 0).all()
    assert (inputs.step[0, len(own) :] == -1).all()
    if closed:
        assert inputs.end_step[0, len(own)] == rollout.last_step[0]


@pytest.mark.parametrize("kind", REWARD_TOKENIZERS)
@given(contents=RESPONSES)
def test_each_token_stands_for_the_policy_token_of_its_first_solid_character_and_ends_with_its_last(
    kind: str, contents: list[int]
) -> None:
    [row] = rows_of(reader_of(kind).read(sampled([contents])))
    text = policy_tokenizer().decode(contents)
    places = holders(contents)
    assert len(places) == len(text)
    spans = REWARD_TOKENIZERS[kind]()(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    for (start, end), step, end_step in zip(spans, row["step"], row["end_step"], strict=True):
        assert 0 <= step <= end_step < len(contents)
        if start == end:  # a mark of the tokenizer's own
            continue
        solid = [c for c in range(start, end) if not text[c].isspace()] or list(range(start, end))
        assert places[solid[0]][0] <= step <= places[solid[0]][1]
        assert places[solid[-1]][0] <= end_step <= places[solid[-1]][1]


@pytest.mark.parametrize("kind", REWARD_TOKENIZERS)
@given(contents=RESPONSES)
def test_overlap_is_the_share_of_each_tokens_characters_in_each_policy_token(kind: str, contents: list[int]) -> None:
    rollout = sampled([contents], response_padding=2)
    inputs = reader_of(kind).read(rollout)
    [row] = rows_of(inputs)
    text, ranges = token_offsets(contents, policy_tokenizer())
    spans = REWARD_TOKENIZERS[kind]()(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert inputs.overlap is not None
    assert inputs.overlap.shape[2] == rollout.response_ids.shape[1]
    for (start, end), shares in zip(spans, row["overlap"], strict=True):
        assert sum(shares) == pytest.approx(1)
        if start < end:
            owners = Counter(number for c in range(start, end) for number, (a, b) in enumerate(ranges) if a <= c < b)
            assert shares == pytest.approx([owners[number] / (end - start) for number in range(len(shares))])


@pytest.mark.parametrize("kind", REWARD_TOKENIZERS)
@given(batch=st.lists(RESPONSES, min_size=1, max_size=4), padding=st.integers(0, 3), reads_eos=st.booleans())
def test_neighbours_and_padding_change_nothing_that_is_read(
    kind: str, batch: list[list[int]], padding: int, reads_eos: bool
) -> None:
    reader = reader_of(kind, reads_eos=reads_eos)
    finished = [number % 2 == 0 for number in range(len(batch))]
    prompts = ["The prompt:", "naïve", "x 🙂", "don't they?"][: len(batch)]
    together = reader.read(sampled(batch, finished, prompts=prompts, response_padding=padding, prompt_padding=padding))
    assert together.prompt_mask[:, -1].all()
    for number, row in enumerate(rows_of(together)):
        alone = reader.read(sampled([batch[number]], [finished[number]], prompts=[prompts[number]]))
        [expected] = rows_of(alone)
        width = alone.overlap.shape[2] if alone.overlap is not None else 0
        assert all(not any(shares[width:]) for shares in row["overlap"])
        row["overlap"] = [shares[:width] for shares in row["overlap"]]
        assert row == expected
        mine = together.prompt_ids[number, together.prompt_mask[number]]
        assert torch.equal(mine, alone.prompt_ids[0])
        off = ~together.mask[number]
        assert together.overlap is not None
        assert (together.step[number, off] == -1).all()
        assert (together.overlap[number, off] == 0).all()
        assert (together.ids[number, off] == REWARD_TOKENIZERS[kind]().pad_token_id).all()


def test_tokens_that_span_several_policy_tokens_by_hand() -> None:
    policy = [encode(part)[0] for part in "ab c de"]  # one token a character
    assert policy_tokenizer().decode(policy) == "ab c de"
    tokenizer = word_tokenizer({"[PAD]": 0, "</s>": 1, "ab ": 2, "c": 3, " de": 4}, "ab |c| de")
    reader = RewardReader(policy_tokenizer(), tokenizer, reads_eos=True, max_tokens=64)
    inputs = reader.read(sampled([policy], [True], prompts=["c"]))
    assert inputs.ids.tolist() == [[2, 3, 4, 1]]
    # Solid characters of "ab " are a and b, of " de" d and e; the spaces count in the overlap all the same.
    assert inputs.step.tolist() == [[0, 3, 5, -1]]
    assert inputs.end_step.tolist() == [[1, 3, 6, 7]]
    assert inputs.overlap is not None
    third = 1 / 3
    expected = [
        [third, third, third, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, third, third, third, 0],
        [0.0] * 8,
    ]
    torch.testing.assert_close(inputs.overlap, torch.tensor([expected]))


def word_tokenizer(vocabulary: dict[str, int], pattern: str) -> PreTrainedTokenizerFast:
    """Each match of `pattern` is a token of `vocabulary`."""
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[PAD]"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="[PAD]")


@pytest.mark.parametrize("reads_eos", [False, True])
@pytest.mark.parametrize("kind", REWARD_TOKENIZERS)
def test_empty_white_and_broken_responses_are_read_as_what_is_left_of_them(kind: str, reads_eos: bool) -> None:
    tokenizer = REWARD_TOKENIZERS[kind]()
    half = encode("🙂 x")[:1]
    assert policy_tokenizer().decode(half) == BROKEN
    rows = [[], encode(" \n"), half, encode("x")]
    inputs = reader_of(kind, reads_eos=reads_eos).read(sampled(rows, [True, True, False, False]))
    texts = ["", " \n", BROKEN, "x"]
    ends = [[tokenizer.eos_token_id] * reads_eos] * 2 + [[], []]
    own = [tokenizer.encode(text, add_special_tokens=False) + end for text, end in zip(texts, ends, strict=True)]
    assert real(inputs.ids, inputs.mask) == own
    assert inputs.step.shape == inputs.ids.shape == inputs.mask.shape


def test_a_policy_with_a_mark_before_each_word_is_read_too() -> None:
    # Decoding drops the first mark: the text is "naïve café", and its second token is " café" and not "café".
    policy = metaspace_tokenizer()
    ids = policy.encode("naïve café", add_special_tokens=False)
    rollout = make_rollout([len(ids)])
    rollout.response_ids[0] = torch.tensor(ids)
    reader = RewardReader(policy, long_tokenizer(), reads_eos=False, max_tokens=64)
    inputs = reader.read(rollout)
    assert real(inputs.ids, inputs.mask) == [long_tokenizer().encode("naïve café", add_special_tokens=False)]
    ends, reached = [], 0
    for piece in policy.convert_ids_to_tokens(ids):
        reached += len(piece) - (piece.startswith("▁") and reached == 0)
        ends.append(reached)
    assert reached == len("naïve café")
    spans = long_tokenizer()("naïve café", add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    first_solid = [start + ("naïve café"[start] == " ") for start, _ in spans]
    assert inputs.step[0].tolist() == [next(n for n, end in enumerate(ends) if end > c) for c in first_solid]


def test_white_space_tokens_of_a_tokenizer_that_trims_its_offsets_stay_with_the_white_space() -> None:
    # GPT-NeoX's post-processor gives a token of white space the empty range behind it: (2, 2) and (3, 3) here.
    trimming = copy.deepcopy(long_tokenizer())
    trimming.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True, add_prefix_space=False)
    text = "a  b"
    assert trimming(text, return_offsets_mapping=True)["offset_mapping"] == [(0, 1), (2, 2), (3, 3), (3, 4)]
    assert len(encode(text)) == 4
    reader = RewardReader(policy_tokenizer(), trimming, reads_eos=False, max_tokens=64)
    inputs = reader.read(sampled([encode(text)], [False]))
    assert inputs.step.tolist() == [[0, 1, 2, 3]]
    assert inputs.end_step.tolist() == [[0, 1, 2, 3]]
    assert inputs.overlap is not None
    assert torch.equal(inputs.overlap[0], torch.eye(4))


# Prompts.


@pytest.mark.parametrize("kind", REWARD_TOKENIZERS)
def test_prompts_are_read_from_their_text_with_bos_but_without_a_closing_eos(kind: str) -> None:
    tokenizer = REWARD_TOKENIZERS[kind]()
    prompts = ["The film", "naïve\n\n", "x"]
    inputs = reader_of(kind).read(sampled([encode("a")] * 3, prompts=prompts))
    start = {"metaspace": ["<s>"]}.get(kind, [])
    own = [tokenizer.convert_tokens_to_ids(start) + tokenizer.encode(t, add_special_tokens=False) for t in prompts]
    assert real(inputs.prompt_ids, inputs.prompt_mask) == own
    assert inputs.prompt_mask[:, -1].all()
    assert (inputs.prompt_ids[~inputs.prompt_mask] == tokenizer.pad_token_id).all()


@pytest.mark.parametrize("kind", ["bytes", "same"])
def test_reward_texts_take_the_place_of_the_prompts(kind: str) -> None:
    tokenizer = policy_tokenizer() if kind == "same" else REWARD_TOKENIZERS[kind]()
    reader = RewardReader(policy_tokenizer(), copy.deepcopy(tokenizer), reads_eos=False, max_tokens=64)
    wanted = ["###Human: one", "###Human: two and more"]
    rollout = sampled([encode("a"), encode("the")], prompts=["one", "two"], reward_texts=wanted)
    inputs = reader.read(rollout)
    assert real(inputs.prompt_ids, inputs.prompt_mask) == [tokenizer.encode(text) for text in wanted]
    if kind == "same":
        assert torch.equal(inputs.ids, rollout.response_ids)
        assert inputs.overlap is None


def test_a_prompt_of_which_nothing_is_read_is_refused() -> None:
    with pytest.raises(ValueError, match="a prompt is empty for the reward model; give it at least one character"):
        reader_of("word pieces").read(sampled([encode("a")] * 2, prompts=["fine", " \n"]))


# The reward model's context.


@pytest.mark.parametrize("kind", [*REWARD_TOKENIZERS, "same"])
@pytest.mark.parametrize("reads_eos", [False, True])
def test_context_is_checked_to_the_token_over_the_longest_row(kind: str, reads_eos: bool) -> None:
    tokenizer = policy_tokenizer() if kind == "same" else REWARD_TOKENIZERS[kind]()
    rollout = sampled(
        [encode("The film was"), encode("a"), encode("so")],
        [True, True, False],
        prompts=["x", "The unbelievable film cost 3.50", "y"],
        response_padding=9,
        prompt_padding=9,
    )
    wide = RewardReader(policy_tokenizer(), tokenizer, reads_eos=reads_eos, max_tokens=10_000).read(rollout)
    longest = max(
        len(prompt) + len(response)
        for prompt, response in zip(real(wide.prompt_ids, wide.prompt_mask), real(wide.ids, wide.mask), strict=True)
    )
    RewardReader(policy_tokenizer(), tokenizer, reads_eos=reads_eos, max_tokens=longest).read(rollout)
    short = RewardReader(policy_tokenizer(), tokenizer, reads_eos=reads_eos, max_tokens=longest - 1)
    with pytest.raises(
        ValueError, match=rf"take {longest} tokens of the reward model, which reads {longest - 1}"
    ) as caught:
        short.read(rollout)
    assert "\n" not in str(caught.value)
    assert "lower task.generation.max_new_tokens" in str(caught.value)


# The same tokens.


@given(batch=st.lists(RESPONSES, min_size=1, max_size=3), finished=st.booleans(), reads_eos=st.booleans())
def test_one_tokenizer_passes_the_sampled_ids_on_whatever_they_decode_to(
    batch: list[list[int]], finished: bool, reads_eos: bool
) -> None:
    other = train_tokenizer([ENGLISH] * 3, vocab_size=300)  # the same one, made again
    rollout = sampled(batch, [finished] * len(batch), prompt_padding=1, response_padding=1)
    inputs = RewardReader(policy_tokenizer(), other, reads_eos=reads_eos, max_tokens=10_000).read(rollout)
    ends = [[EOS] * (reads_eos and bool(done)) for done in rollout.finished]
    assert real(inputs.ids, inputs.mask) == [[*ids, *end] for ids, end in zip(batch, ends, strict=True)]
    assert torch.equal(inputs.prompt_ids, rollout.prompts.prompt_ids)
    assert torch.equal(inputs.prompt_mask, rollout.prompts.prompt_mask)
    assert inputs.overlap is None


def test_a_word_spelt_out_is_not_tokenised_again_where_both_have_one_tokenizer() -> None:
    spelt = [encode(letter)[0] for letter in "film"]
    assert encode("film") != spelt
    reader = RewardReader(policy_tokenizer(), policy_tokenizer(), reads_eos=False, max_tokens=64)
    assert real(*_ids_and_mask(reader.read(sampled([spelt])))) == [spelt]
    # Another tokenizer with the same ids would merge it.
    assert real(*_ids_and_mask(reader_of("bytes").read(sampled([spelt])))) != [spelt]


def _ids_and_mask(inputs: RewardInputs) -> tuple[torch.Tensor, torch.Tensor]:
    return inputs.ids, inputs.mask


@pytest.mark.parametrize("reads_eos", [False, True])
def test_as_sampled_by_hand(reads_eos: bool) -> None:
    rollout = make_rollout([3, 2, 1], finished=[True, False, True], response_padding=1)
    inputs = as_sampled(rollout, reads_eos=reads_eos)
    assert inputs.ids is rollout.response_ids
    closed, open_, alone = [[1, 1, reads_eos, 0], [1, 1, 0, 0], [reads_eos, 0, 0, 0]]
    assert inputs.mask.tolist() == [[bool(x) for x in row] for row in (closed, open_, alone)]
    assert inputs.step.tolist() == [[0, 1, -1, -1], [0, 1, -1, -1], [-1, -1, -1, -1]]
    assert inputs.end_step.tolist() == [[0, 1, 2, 3]] * 3
    assert inputs.overlap is None


def test_tokenizers_are_told_apart_by_vocabulary_and_by_how_they_cut() -> None:
    again = train_tokenizer([ENGLISH] * 3, vocab_size=300)
    assert same_tokenizer(policy_tokenizer(), again)
    grown = copy.deepcopy(again)
    grown.add_tokens(["never in the probe"])
    assert not same_tokenizer(policy_tokenizer(), grown)
    spelling = json.loads(again.backend_tokenizer.to_str())
    assert spelling["model"]["merges"]
    spelling["model"]["merges"] = []
    letters = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(spelling)))
    assert letters.get_vocab() == again.get_vocab()
    assert not same_tokenizer(again, letters)
    for make in REWARD_TOKENIZERS.values():
        assert same_tokenizer(make(), make())
        assert not same_tokenizer(policy_tokenizer(), make())
    assert not same_tokenizer(metaspace_tokenizer(), word_piece_tokenizer())
