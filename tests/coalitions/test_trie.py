"""The trie of coalition rows against Python's sets and sorted lists: each row is walked back to its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scar.coalitions.trie import (
    PAD,
    SortedRows,
    Trie,
    build_trie,
    chunks,
    cut_columns,
    new_tokens,
    padded,
    row_keys,
    sort_rows,
)
from scar.credit.plans import owen_plan
from scar.segmentation.hierarchies import balanced_hierarchy
from scar.types import CoalitionRows

BEHIND = 77
"""Stands in `ids` behind the ends of rows; must never be seen."""


def rows_of(prompt: Sequence[int], texts: Sequence[Sequence[int]], *, extra: int = 0) -> CoalitionRows:
    width = max((len(text) for text in texts), default=0) + extra
    ids = [[*text, *[BEHIND] * (width - len(text))] for text in texts]
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    return CoalitionRows(np.array(prompt), np.array(ids, dtype=np.int64).reshape(len(texts), width), lengths)


@dataclass(frozen=True)
class Case:
    """Rows behind several prompts, a number of stages and a part of the sorted rows, given as two shares of them."""

    batch: list[CoalitionRows]
    stages: int
    shares: tuple[float, float]

    def part(self) -> slice:
        count = sum(len(rows.ids) for rows in self.batch)
        start, end = sorted(int(share * count) for share in self.shares)
        return slice(min(start, count - 1), max(end, min(start, count - 1) + 1))


# Few token ids and few lengths, so that prefixes, duplicates and rows without a token are common.
texts = st.lists(st.lists(st.integers(0, 2), max_size=9), min_size=1, max_size=9)
prompts = st.lists(st.integers(0, 50), min_size=1, max_size=5)
batches = st.lists(st.builds(rows_of, prompts, texts, extra=st.integers(0, 2)), min_size=1, max_size=4)
shares = st.tuples(st.floats(0, 1), st.floats(0, 1))
cases = st.builds(Case, batches, st.integers(1, 9), st.one_of(st.just((0.0, 1.0)), shares))

ONE_COLUMN = Case([rows_of([5], [[1], [], [1], [0]])], 3, (0.0, 1.0))
NO_COLUMN = Case([rows_of([5], [[], []]), rows_of([5, 6], [[]])], 3, (0.0, 1.0))
ONE_ROW = Case([rows_of([5, 6], [[2, 0, 1, 1, 2]])], 2, (0.0, 1.0))
RAGGED = Case([rows_of([5, 6, 7], [[1, 1], [1], []]), rows_of([4], [[1, 1, 1], [1, 1], [1, 1]])], 2, (0.2, 1.0))


def texts_of(rows: SortedRows) -> list[tuple[int, ...]]:
    return [tuple(ids[:length].tolist()) for ids, length in zip(rows.ids, rows.lengths, strict=True)]


def make(case: Case, *, with_prompts: bool) -> tuple[SortedRows, list[tuple[int, int]], Trie]:
    rows = sort_rows(case.batch)
    cuts = cut_columns(rows.ids.shape[1], case.stages)
    prompt_ids = [one.prompt_ids for one in case.batch]
    return rows, cuts, build_trie(rows, case.part(), cuts, prompt_ids, with_prompts=with_prompts)


def walk_up(trie: Trie, row: int) -> tuple[list[int], list[int]]:
    """Tokens and positions from the place where a row is read up to the first stage, in reading order."""
    stage, node, offset = int(trie.read_stage[row]), int(trie.read_node[row]), int(trie.read_offset[row])
    tokens: list[int] = []
    places: list[int] = []
    while stage >= 0:
        here = trie.stages[stage]
        assert here.owner[node] == trie.owner[row]
        end = here.tokens.shape[1] if offset < 0 else offset + 1
        if stage == 0 and trie.prompt_lengths is not None:
            end = int(trie.prompt_lengths[node])
        tokens = here.tokens[node, :end].tolist() + tokens
        places = here.positions[node, :end].tolist() + places
        stage, node, offset = stage - 1, int(here.parent[node]), -1
    return tokens, places


@given(cases)
@example(NO_COLUMN)
@example(ONE_COLUMN)
@example(ONE_ROW)
@example(RAGGED)
def test_walking_up_from_the_read_token_gives_prompt_and_row_when_prompts_are_the_first_stage(case: Case) -> None:
    rows, _, trie = make(case, with_prompts=True)
    wanted = texts_of(rows)[case.part()]
    assert len(trie.owner) == len(wanted)
    for row, text in enumerate(wanted):
        prompt = case.batch[trie.owner[row]].prompt_ids.tolist()
        tokens, places = walk_up(trie, row)
        assert tokens == [*prompt, *text]
        assert places == list(range(len(tokens)))


@given(cases)
@example(NO_COLUMN)
@example(ONE_COLUMN)
@example(ONE_ROW)
@example(RAGGED)
def test_walking_up_gives_the_row_behind_its_prompt_when_prompts_are_apart(case: Case) -> None:
    rows, _, trie = make(case, with_prompts=False)
    assert trie.prompt_lengths is None
    for row, text in enumerate(texts_of(rows)[case.part()]):
        before = len(case.batch[trie.owner[row]].prompt_ids)
        if not text:
            assert (trie.read_stage[row], trie.read_offset[row]) == (-1, before - 1)
            continue
        tokens, places = walk_up(trie, row)
        assert tokens == list(text)
        assert places == list(range(before, before + len(text)))


@given(cases, st.booleans())
def test_a_row_is_read_at_the_last_token_of_its_prompt_or_of_itself(case: Case, with_prompts: bool) -> None:
    rows, cuts, trie = make(case, with_prompts=with_prompts)
    for row, text in enumerate(texts_of(rows)[case.part()]):
        stage = int(trie.read_stage[row])
        if not text:
            assert stage == with_prompts - 1
            assert trie.read_offset[row] == len(case.batch[trie.owner[row]].prompt_ids) - 1
        else:
            start, end = cuts[stage - with_prompts]
            assert start < len(text) <= end
            assert trie.read_offset[row] == len(text) - 1 - start


@given(cases, st.booleans())
def test_nodes_are_the_distinct_prefixes_at_each_cut(case: Case, with_prompts: bool) -> None:
    rows, cuts, trie = make(case, with_prompts=with_prompts)
    part = case.part()
    present = list(zip(rows.owner[part].tolist(), texts_of(rows)[part], strict=True))
    wanted = [len({(owner, text[:end]) for owner, text in present if len(text) > start}) for start, end in cuts]
    if with_prompts:
        first, last = present[0][0], present[-1][0]
        assert len(trie.stages[0].tokens) == last - first + 1
        np.testing.assert_array_equal(trie.prompt_lengths, [len(r.prompt_ids) for r in case.batch[first : last + 1]])
    found = [len(stage.tokens) for stage in trie.stages[int(with_prompts) :]]
    assert found == [count for count in wanted if count]


@given(cases, st.booleans())
def test_padding_holds_neither_what_stands_behind_an_end_nor_a_position_that_no_text_has(
    case: Case, with_prompts: bool
) -> None:
    rows, _, trie = make(case, with_prompts=with_prompts)
    longest_prompt = max(len(case.batch[owner].prompt_ids) for owner in trie.owner)
    behind = zip(rows.owner[case.part()], rows.lengths[case.part()], strict=True)
    longest = max(len(case.batch[owner].prompt_ids) + length for owner, length in behind)
    for stage in trie.stages:
        assert stage.tokens.min() >= 0
        assert not (stage.tokens == BEHIND).any()
        assert stage.positions.shape == stage.tokens.shape
        assert 0 <= stage.positions.min() <= stage.positions.max() < max(longest, longest_prompt)
        assert (np.diff(stage.owner) >= 0).all()


@given(cases)
def test_new_tokens_count_the_tokens_of_a_built_trie(case: Case) -> None:
    rows, cuts, trie = make(case, with_prompts=False)
    part = case.part()
    added, alone = (new_tokens(rows, cuts, alone=alone) for alone in (False, True))
    counted = alone[part][0] + added[part][1:].sum()
    assert counted == sum(stage.tokens.size for stage in trie.stages)


@given(batches)
def test_rows_are_sorted_by_prompt_and_then_as_python_sorts_them(batch: list[CoalitionRows]) -> None:
    given_rows = [
        (owner, tuple(ids[:length].tolist()))
        for owner, rows in enumerate(batch)
        for ids, length in zip(rows.ids, rows.lengths, strict=True)
    ]
    rows = sort_rows(batch)
    order = sorted(range(len(given_rows)), key=lambda place: given_rows[place])
    assert rows.order.tolist() == order
    assert list(zip(rows.owner.tolist(), texts_of(rows), strict=True)) == [given_rows[place] for place in order]
    width = max(one.ids.shape[1] for one in batch)
    behind = np.arange(width) >= rows.lengths[:, None]
    assert rows.ids.shape[1] == width
    np.testing.assert_array_equal(rows.ids == PAD, behind)


def first_difference(above: Sequence[int], row: Sequence[int], width: int) -> int:
    for column in range(width):
        if above[column : column + 1] != row[column : column + 1]:
            return column
    return width


@given(batches)
def test_first_difference_is_the_first_column_that_differs_from_the_row_above(batch: list[CoalitionRows]) -> None:
    rows = sort_rows(batch)
    sorted_texts, width = texts_of(rows), rows.ids.shape[1]
    for row in range(1, len(sorted_texts)):
        same_prompt = rows.owner[row] == rows.owner[row - 1]
        wanted = first_difference(sorted_texts[row - 1], sorted_texts[row], width) if same_prompt else 0
        assert rows.first_difference[row] == wanted
    assert rows.first_difference[0] == 0


@given(
    st.integers(0, 4).flatmap(
        lambda width: st.lists(
            st.lists(st.sampled_from([PAD, 0, 1, 254, 255, 256, 65535, 2**24]), min_size=width, max_size=width),
            min_size=1,
            max_size=12,
        )
    )
)
def test_row_keys_sort_as_the_rows_do(rows: list[list[int]]) -> None:
    keys = row_keys(np.array(rows, dtype=np.int64).reshape(len(rows), -1))
    order = sorted(range(len(rows)), key=lambda place: rows[place])
    assert np.argsort(keys, kind="stable").tolist() == order
    assert len(np.unique(keys)) == len({tuple(row) for row in rows})


def test_padding_hides_what_stands_behind_the_end() -> None:
    rows = rows_of([5], [[3, 4], [], [6]])
    assert padded(rows, 3).tolist() == [[3, 4, PAD], [PAD] * 3, [6, PAD, PAD]]


@given(st.integers(0, 90), st.integers(1, 12))
def test_cuts_cover_all_columns_once_in_about_equal_ranges(width: int, stages: int) -> None:
    cuts = cut_columns(width, stages)
    assert [column for start, end in cuts for column in range(start, end)] == list(range(width))
    assert len(cuts) == min(stages, width)
    sizes = [end - start for start, end in cuts]
    assert not sizes or max(sizes) - min(sizes) <= 1


costs_and_more = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30)


@given(costs_and_more, st.integers(0, 25))
def test_chunks_cover_all_rows_in_order_within_the_limit_and_as_few_as_possible(
    both: list[tuple[int, int]], over: int
) -> None:
    costs = np.array([cost for cost, _ in both])
    first_costs = costs + np.array([more for _, more in both])
    limit = int(first_costs.max()) + over
    parts = list(chunks(costs, first_costs, limit))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(len(costs)))
    for part in parts:
        total = first_costs[part.start] + costs[part.start + 1 : part.stop].sum()
        assert total <= limit
        assert part.stop == len(costs) or total + costs[part.stop] > limit


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_row_over_the_limit_is_refused(place: int) -> None:
    costs = np.array([4, 4, 4])
    costs[place] = 11
    with pytest.raises(ValueError, match="one row needs 11 bytes, the limit is 10; raise coalitions"):
        list(chunks(costs, costs, 10))


def test_a_row_may_fill_a_chunk_to_the_last_byte() -> None:
    costs = np.array([3, 7, 10, 1])
    assert list(chunks(costs, costs, 10)) == [slice(0, 2), slice(2, 3), slice(3, 4)]


def test_the_trie_of_a_balanced_hierarchy_over_53_tokens_keeps_at_most_46_percent_of_the_tokens() -> None:
    coalitions = owen_plan(balanced_hierarchy(53)).coalitions
    ids = np.where(coalitions, np.arange(100, 153), 2)
    batch = [CoalitionRows(np.arange(40), ids, np.full(len(ids), 53))]
    rows, cuts = sort_rows(batch), cut_columns(53, 8)
    trie = build_trie(rows, slice(0, len(ids)), cuts, [batch[0].prompt_ids], with_prompts=False)
    kept = sum(stage.tokens.size for stage in trie.stages)
    assert 0.3 < kept / ids.size <= 0.46
    assert kept == new_tokens(rows, cuts, alone=False).sum()
