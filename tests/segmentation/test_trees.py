"""The span cut and its hierarchy: by hand, and within the bounds whatever the tree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.tree import Tree

from scar.segmentation.hierarchies import balanced_hierarchy, coalition_count, hierarchy_of
from scar.segmentation.trees import Clause, Cut, bounded_hierarchy, check_bounds, cut_trees, word_count
from tests.builders import check_hierarchy
from tests.segmentation.samples import left_branching, right_branching
from tests.segmentation.span_measures import cut_sentence

BOUNDS = {"max_units": 16, "max_coalitions": 256}
TWELVE = {"max_units": 12, "max_coalitions": 256}


def cut(*brackets: str, max_words: int = 4) -> Cut:
    return cut_trees([Tree.fromstring(tree) for tree in brackets], max_words=max_words)


def words(count: int) -> list[str]:
    return [f"w{k}" for k in range(count)]


@st.composite
def random_trees(draw: st.DrawFn) -> Any:
    """Nested lists over 1 to 200 words: nodes of any width, nodes with one child, nodes without a word."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lean = draw(st.sampled_from([0.0, 0.5, 0.95]))

    def grow(count: int) -> Any:
        if count == 1:
            return "w" if rng.random() < 0.5 else ["w", [], *'("),'[rng.integers(4) :][: rng.integers(2)]]
        arity = int(rng.integers(2, min(count, 6) + 1))
        cuts = np.sort(rng.choice(np.arange(1, count), arity - 1, replace=False))
        if rng.random() < lean:
            cuts = np.array([1])
        sizes = np.diff([0, *cuts, count])
        node = [grow(int(size)) for size in sizes]
        return [node] if rng.random() < 0.2 else node

    return grow(draw(st.integers(1, 200)))


def leaves_of(tree: Any) -> list[int]:
    return [tree] if isinstance(tree, int) else [leaf for child in tree for leaf in leaves_of(child)]


# The cut. Sentences: test_span_goals.py.


@pytest.mark.parametrize(
    ("brackets", "starts", "tree"),
    [
        ("(S (NP a b) (VP c d))", [0], 0),  # up to four words
        ("(X a)", [0], 0),
        ("(S (NP a b) (, ,) (VP c (NP d)) (. .))", [0], 0),  # marks do not count
        ("(S (A a) (B b) (C c) (D d) (E e) (F f) (G g))", [0], 0),  # single words wait to the end
        ("(S a b c d e f)", [0], 0),  # or no pre-terminals at all
        ("(S (NP (DT a)) (VP (VB b)) (X (Y (Z c))) (W d) (V e))", [0], 0),  # chains down to a word count as one
        ("(S (NP a b) (VP c (NP d e)))", [0, 2], [0, 1]),
        ("(S a b (NP c d) (VP e f))", [0, 4], [0, 1]),  # a b join c d
        ("(S a b (NP c d e) (VP f g))", [0, 2, 5], [0, 1, 2]),  # too many together
        ("(S (NP a b) c (VP d e))", [0, 2], [0, 1]),  # never to the left
        ("(S (NP a b) (VP c d) e)", [0, 2], [0, 1]),  # but at the end, if the last sister is one unit
        ("(S (NP a b c) (VP d e f g) h)", [0, 3, 7], [0, 1, 2]),  # too many together
        ("(S a (NP (X b c) (Y d e f)) g)", [0, 3, 6], [[0, 1], 2]),  # the last sister is two units
        ("(S a (NP (X b c) (Y d e f)))", [0, 3], [0, 1]),  # a joins the first unit inside
        ("(ROOT (S (S (X (NP a b) (VP c d e)))))", [0, 2], [0, 1]),  # chains of nodes fall away
        ("(S (NP (X a b) (Y c d) (P e)) (Q f) (VP g h))", [0, 2, 5], [[0, 1], 2]),
        # Marks: to the word before, opening ones to the word behind; closing ones end the wait.
        ("(S (NP a b) (, ,) (VP c d e))", [0, 3], [0, 1]),
        ("(S (NP a b) (VP (, ,) c d e))", [0, 3], [0, 1]),
        ("(S (`` ``) (X a) (NP b c) ('' '') (-LRB- \\() (VP d e) (-RRB- \\)))", [0, 5], [0, 1]),
        ("(S (X a) (, ,) (NP b c) (VP d e))", [0, 2, 4], [0, 1, 2]),
        ("(S (NP a b) (VP c d) (, ,) e)", [0, 2, 5], [0, 1, 2]),
        ('(S (X a) (Q ") (NP b c) (Q ") (VP d e))', [0, 5], [0, 1]),  # the first straight quote opens
        ("(S (. .) (. .) (. .))", [0], 0),  # nothing but marks
    ],
)
def test_cuts_by_hand(brackets: str, starts: list[int], tree: Any) -> None:
    assert cut(brackets) == Cut(starts, tree)


def test_settings_of_the_cut_by_hand() -> None:
    right = "(S a (S b (S c (S d (S e (S f g))))))"
    assert cut(right, max_words=2) == Cut([0, 1, 3, 5], [0, [1, [2, 3]]])  # f g; d e; b c; a
    assert cut(right) == Cut([0, 3], [0, 1])  # d e f g; a b c
    deep = "(S (X a b) (S (X c d) (S (X e f) (X g h))))"
    assert cut(deep, max_words=2) == Cut([0, 2, 4, 6], [0, [1, [2, 3]]])
    assert cut(deep, max_words=3) == Cut([0, 2, 4, 6], [0, [1, [2, 3]]])
    assert cut(deep) == Cut([0, 2, 4], [0, [1, 2]])


def test_words_are_counted_not_read() -> None:
    assert word_count(Tree("S", [Tree("-LRB-", ["-LRB-"]), Tree("NN", ["("]), Tree("X", [])])) == 2
    assert word_count(Tree("S", [])) == 0
    assert word_count("word") == 1
    assert word_count([("tagged", "NN"), ["a", "b"]]) == 3


@pytest.mark.parametrize("left", [True, False])
def test_depth_is_no_problem(left: bool) -> None:
    tree: Any = ["w"]
    for _ in range(3_000):
        tree = [tree, "w"] if left else ["w", tree]
    assert word_count(tree) == 3_001
    found = cut_trees([tree], max_words=4)
    # Four words are the innermost unit; a word to its right never joins it, words to its left join each other.
    assert len(found.starts) == (1 + 2_997 if left else 1 + 750)
    assert len(bounded_hierarchy(found.tree, **BOUNDS).hierarchy) == 15


@given(tree=random_trees(), max_words=st.integers(1, 6))
def test_units_are_constituents_or_begin_one(tree: Any, max_words: int) -> None:
    found = cut_trees([tree], max_words=max_words)
    assert found.starts[0] == 0
    assert found.starts == sorted(set(found.starts))
    assert found.starts[-1] < word_count(tree)
    assert leaves_of(found.tree) == list(range(len(found.starts)))
    leaves = leaves_in(tree)
    sentence = cut_sentence(tree, found.starts, [leaf == "w" for leaf in leaves])
    for unit in sentence.units:
        assert not sentence.over_a_closed_border(unit)
        # Over the cap are single words of one node in a row, and nothing else.
        inside = {place for place, _ in sentence.constituents if unit[0] <= place[0] and place[1] <= unit[1]}
        assert unit[1] - unit[0] <= max_words or inside <= {unit}


def leaves_in(tree: Any) -> list[Any]:
    return [tree] if not isinstance(tree, list) else [leaf for child in tree for leaf in leaves_in(child)]


def test_sentences_are_joined_by_hand() -> None:
    joined = cut("(S (NP a b) (VP c d e))", "(NP f)", "(. .)", "(S (S (X g h) (Y i j k)) (Z l m))")
    assert joined == Cut([0, 2, 5, 6, 7, 9, 12], [[0, 1], 2, 3, [[4, 5], 6]])
    # (0 1) = 7, with 2 = 8; (4 5) = 9, with 6 = 10; 3 with 10 = 11; both halves.
    assert hierarchy_of(joined.tree).tolist() == [[0, 1], [7, 2], [4, 5], [9, 6], [3, 10], [8, 11]]


# The bounds.


def right_chain(count: int) -> Any:
    return 0 if count == 1 else _right(list(range(count)))


def _right(leaves: list[int]) -> Any:
    return leaves[0] if len(leaves) == 1 else [leaves[0], _right(leaves[1:])]


def test_too_many_units_by_hand() -> None:
    # ((0 1) (2 (3 4))): the deepest pair is (3 4), then of (0 1) and (2 34) the left one.
    tree = [[0, 1], [2, [3, 4]]]
    four = bounded_hierarchy(tree, max_units=4, max_coalitions=256)
    assert four.group.tolist() == [0, 1, 2, 3, 3]
    assert four.hierarchy.tolist() == [[0, 1], [2, 3], [4, 5]]
    three = bounded_hierarchy(tree, max_units=3, max_coalitions=256)
    assert three.group.tolist() == [0, 0, 1, 2, 2]
    assert three.hierarchy.tolist() == [[1, 2], [0, 3]]


def test_units_of_a_clause_are_merged_last_by_hand() -> None:
    # Clause (0, phrase (1, 2)) beside clause (phrase (3, 4), 5): the text's five pairs are (0 12), (1 2), (34 5), (3 4), both.
    def groups(max_units: int) -> list[int]:
        tree = Clause([Clause([0, [1, 2]]), Clause([[3, 4], 5])])
        return bounded_hierarchy(tree, max_units=max_units, max_coalitions=256).group.tolist()

    assert groups(5) == [0, 1, 1, 2, 3, 4]
    assert groups(4) == [0, 1, 1, 2, 2, 3]
    assert groups(3) == [0, 0, 0, 1, 1, 2]  # no pair below a clause is left: the deepest of the clauses' own
    # Below a clause also the less deep pair goes first.
    flat = Clause([Clause([0, Clause([1, 2])]), [3, 4]])
    assert bounded_hierarchy(flat, max_units=4, max_coalitions=256).group.tolist() == [0, 1, 2, 3, 3]


def test_clauses_are_known_by_their_labels() -> None:
    labels = "(S-TPC (NP (X a b) (Y c d e)) (SBAR=2 (NP f g) (FRAG (X h i) (Y j k l))))"
    tree = cut(labels).tree
    assert isinstance(tree, Clause)
    assert [type(child) for child in tree] == [list, Clause]
    assert not isinstance(tree[1][1], Clause)
    assert isinstance(cut("(NP a b)", "(NP c d)").tree, Clause)  # sentences


def test_too_dear_trees_by_hand() -> None:
    # A right-branching tree of 12 units costs 2^12 = 4096. Flattened from below as far as 1 + 11 mid-split it costs
    # 2 * 92 = 184, one step earlier, 1 + (1 + 10), 4 * 76 = 304.
    assert coalition_count(hierarchy_of(right_chain(12))) == 4096
    fitted = bounded_hierarchy(right_chain(12), **TWELVE)
    assert fitted.hierarchy.tolist() == hierarchy_of([0, list(range(1, 12))]).tolist()
    assert coalition_count(fitted.hierarchy) == 184
    looser = bounded_hierarchy(right_chain(12), max_units=12, max_coalitions=304)
    assert looser.hierarchy.tolist() == hierarchy_of([0, [1, list(range(2, 12))]]).tolist()
    tightest = bounded_hierarchy(right_chain(12), max_units=12, max_coalitions=108)
    assert tightest.hierarchy.tolist() == balanced_hierarchy(12).tolist()


@given(
    tree=st.one_of(
        random_trees(),
        st.tuples(st.integers(1, 200), st.sampled_from([right_branching, left_branching])).map(
            lambda t: t[1](words(t[0]))
        ),
    ),
    max_words=st.integers(1, 4),
    max_units=st.integers(2, 16),
    slack=st.integers(0, 200),
)
def test_hierarchies_are_valid_and_within_bounds(tree: Any, max_words: int, max_units: int, slack: int) -> None:
    max_coalitions = coalition_count(balanced_hierarchy(max_units)) + slack
    found = cut_trees([tree], max_words=max_words)
    bounded = bounded_hierarchy(found.tree, max_units=max_units, max_coalitions=max_coalitions)
    count = len(bounded.hierarchy) + 1
    check_hierarchy(bounded.hierarchy, count)
    assert count == min(len(found.starts), max_units)
    assert coalition_count(bounded.hierarchy) <= max_coalitions
    groups = bounded.group.tolist()
    assert groups == sorted(groups)  # contiguous
    assert sorted(set(groups)) == list(range(count))
    if count == len(found.starts) and coalition_count(hierarchy_of(found.tree)) <= max_coalitions:
        assert bounded.hierarchy.tolist() == hierarchy_of(found.tree).tolist()


@pytest.mark.parametrize("count", [1, 2, 3, 12, 13, 60, 200])
@pytest.mark.parametrize("lopsided", [right_branching, left_branching])
def test_lopsided_trees_of_long_sentences(lopsided: Any, count: int) -> None:
    """With pairs of words at every step, so that every branching is a player."""
    tree = lopsided([[f"a{k}", f"b{k}"] for k in range(count)])
    found = cut_trees([tree], max_words=2)
    assert word_count(tree) == 2 * count
    assert len(found.starts) == count
    bounded = bounded_hierarchy(found.tree, **BOUNDS)
    assert len(bounded.hierarchy) + 1 == min(count, 16)
    assert coalition_count(bounded.hierarchy) <= 256


def test_bounds_that_no_tree_fits() -> None:
    check_bounds(max_units=12, max_coalitions=108)
    with pytest.raises(ValueError, match="max_coalitions=107; max_units=12 units take 108"):
        check_bounds(max_units=12, max_coalitions=107)
    with pytest.raises(ValueError, match="max_units=1; allowed: 2"):
        check_bounds(max_units=1, max_coalitions=256)
    with pytest.raises(ValueError, match="max_coalitions=100"):
        bounded_hierarchy(right_chain(12), max_units=12, max_coalitions=100)
