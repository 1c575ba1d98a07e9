"""Trees from hand-written dependency parses; the brackets are those of the Penn Treebank's guidelines, drawn by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.tree import Tree

from scar.segmentation.dependency import LABELS, MAX_HEIGHT, constituency_tree, projective

# word/tag/relation/head, heads from 1, 0 for a root
CASES = {
    "subject, verb, object, phrases behind a noun": (
        "The/DT/det/3 old/JJ/amod/3 man/NN/nsubj/4 saw/VBD/ROOT/0 dogs/NNS/dobj/4 in/IN/prep/5 parks/NNS/pobj/6 ././punct/4",
        "(S (NP (DT The) (JJ old) (NN man)) (VP (VBD saw) (NP (NNS dogs) (PP (IN in) (NNS parks)))) (. .))",
    ),
    "auxiliaries nest, with the adverbs between them": (
        "It/PRP/nsubj/6 will/MD/aux/6 not/RB/neg/6 have/VB/aux/6 been/VBN/auxpass/6 seen/VBN/ROOT/0",
        "(S (PRP It) (VP (MD will) (RB not) (VP (VB have) (VP (VBN been) (VBN seen)))))",
    ),
    "an object clause": (
        "I/PRP/nsubj/2 know/VBP/ROOT/0 that/IN/mark/5 he/PRP/nsubj/5 slept/VBD/ccomp/2",
        "(S (PRP I) (VP (VBP know) (SBAR (IN that) (S (PRP he) (VBD slept)))))",
    ),
    "a relative clause with a preposition": (
        "the/DT/det/2 man/NN/ROOT/0 to/IN/prep/6 whom/WP/pobj/3 I/PRP/nsubj/6 spoke/VBD/relcl/2",
        "(NP (NP (DT the) (NN man)) (SBAR (PP (IN to) (WP whom)) (S (PRP I) (VBD spoke))))",
    ),
    "single words are coordinated inside the noun phrase": (
        "the/DT/det/2 cats/NNS/ROOT/0 ,/,/punct/2 dogs/NNS/conj/2 and/CC/cc/4 mice/NNS/conj/4",
        "(NP (DT the) (NNS cats) (, ,) (NNS dogs) (CC and) (NNS mice))",
    ),
    "phrases are coordinated beside each other": (
        "the/DT/det/2 cats/NNS/ROOT/0 and/CC/cc/2 the/DT/det/5 dogs/NNS/conj/2 or/CC/cc/5 a/DT/det/8 mouse/NN/conj/5",
        "(NP (NP (DT the) (NNS cats)) (CC and) (NP (DT the) (NNS dogs)) (CC or) (NP (DT a) (NN mouse)))",
    ),
    "verbs under one auxiliary": (
        "I/PRP/nsubj/3 will/MD/aux/3 come/VB/ROOT/0 and/CC/cc/3 see/VB/conj/3 you/PRP/dobj/5",
        "(S (PRP I) (VP (MD will) (VP (VB come) (CC and) (VP (VB see) (PRP you)))))",
    ),
    "verb phrases with an auxiliary each": (
        "I/PRP/nsubj/3 will/MD/aux/3 come/VB/ROOT/0 and/CC/cc/3 may/MD/aux/6 see/VB/conj/3 you/PRP/dobj/6",
        "(S (PRP I) (VP (VP (MD will) (VB come)) (CC and) (VP (MD may) (VP (VB see) (PRP you)))))",
    ),
    "clauses": (
        "I/PRP/nsubj/3 will/MD/aux/3 come/VB/ROOT/0 and/CC/cc/3 you/PRP/nsubj/6 go/VBP/conj/3 ././punct/3",
        "(S (S (PRP I) (VP (MD will) (VB come))) (CC and) (S (PRP you) (VBP go)) (. .))",
    ),
    "an inverted subject": (
        "Is/VBZ/ROOT/0 the/DT/det/3 film/NN/nsubj/1 very/RB/advmod/5 good/JJ/acomp/1 ?/./punct/1",
        "(S (VBZ Is) (NP (DT the) (NN film)) (ADJP (RB very) (JJ good)) (. ?))",
    ),
    "names are flat and numbers stay with them": (
        "New/NNP/compound/2 England/NNP/compound/3 Journal/NNP/ROOT/0 12/CD/nummod/3",
        "(NP (NNP New) (NNP England) (NNP Journal) (CD 12))",
    ),
    "a participle before a noun": (
        "narrowly/RB/advmod/2 focused/VBN/amod/3 funds/NNS/ROOT/0",
        "(NP (ADJP (RB narrowly) (VBN focused)) (NNS funds))",
    ),
    "several roots": (
        "Yes/UH/ROOT/0 the/DT/det/3 film/NN/ROOT/0",
        "(S (UH Yes) (NP (DT the) (NN film)))",
    ),
    "one word": ("Yes/UH/ROOT/0", "(S (UH Yes))"),
    # "is" hangs on "hearing": an arc that crosses from "hearing" to "on" is lifted to the verb.
    "crossing arcs": (
        "A/DT/det/2 hearing/NN/nsubj/3 is/VBZ/ROOT/0 held/VBN/acomp/3 on/IN/prep/2 it/PRP/pobj/5",
        "(S (NP (DT A) (NN hearing)) (VP (VBZ is) (VBN held) (PP (IN on) (PRP it))))",
    ),
}


def parsed(text: str) -> tuple[list[str], list[str], list[int], list[str]]:
    rows = [row.split("/") for row in text.replace("./.", "DOT/DOT").replace("?/.", "?/DOT").split()]
    words, tags, relations, heads = zip(
        *[[("." if part == "DOT" else part) for part in row] for row in rows], strict=True
    )
    return (
        list(words),
        list(tags),
        [int(head) - 1 if head != "0" else i for i, head in enumerate(heads)],
        list(relations),
    )


@pytest.mark.parametrize("case", CASES)
def test_brackets(case: str) -> None:
    given_parse, expected = CASES[case]
    assert constituency_tree(*parsed(given_parse)) == Tree.fromstring(expected)


def test_the_shortest_crossing_arc_is_lifted_first() -> None:
    assert projective([1, 2, 2, 2, 1, 4]) == [1, 2, 2, 2, 2, 4]
    assert projective([1, 2, 2, 2, 3, 4]) == [1, 2, 2, 2, 3, 4]  # nothing crosses: nothing changes


def test_a_word_lifted_past_a_root_becomes_a_root() -> None:
    assert projective([0, 1, 0]) == [0, 1, 2]


def is_projective(heads: list[int]) -> bool:
    """The definition: no two arcs cross, and none goes over a root."""
    arcs = [(min(word, head), max(word, head)) for word, head in enumerate(heads) if word != head]
    over_root = any(a < root < b for a, b in arcs for root, head in enumerate(heads) if root == head)
    return not over_root and not any(a < c < b < d for a, b in arcs for c, d in arcs)


@st.composite
def forests(draw: st.DrawFn) -> tuple[list[str], list[str], list[int], list[str]]:
    size = draw(st.integers(1, 25))
    order = draw(st.permutations(range(size)))
    heads = list(range(size))
    for place in range(1, size):
        heads[order[place]] = order[draw(st.integers(0, place))]  # itself: another root
    tags = draw(st.lists(st.sampled_from([*LABELS, "VB", "MD", "CC", ",", "XX"]), min_size=size, max_size=size))
    names = [
        "nsubj",
        "aux",
        "mark",
        "conj",
        "cc",
        "punct",
        "compound",
        "prep",
        "det",
        "dobj",
        "amod",
        "preconj",
        "ROOT",
    ]
    relations = draw(st.lists(st.sampled_from(names), min_size=size, max_size=size))
    return [f"w{i}" for i in range(size)], tags, heads, relations


@given(forests())
def test_any_forest_gives_a_tree_over_its_words_in_order(
    parse: tuple[list[str], list[str], list[int], list[str]],
) -> None:
    words, tags, heads, _ = parse
    assert is_projective(projective(heads))
    tree = constituency_tree(*parse)
    assert tree.pos() == list(zip(words, tags, strict=True))
    phrases = list(tree.subtrees(lambda node: node.height() > 2))
    assert len(words) == 1 or all(len(node) > 1 for node in phrases)


def test_endless_nesting_is_cut_short() -> None:
    size = 600
    words, tags = ["very"] * size, ["RB"] * size
    tree = constituency_tree(words, tags, [*range(1, size), size - 1], ["advmod"] * size)
    assert tree.leaves() == words
    assert tree.height() <= MAX_HEIGHT + 10


@pytest.mark.parametrize(
    ("heads", "problem"),
    [([1, 0], "without cycles"), ([0, 2], "position in the sentence"), ([0, -1], "position in the sentence")],
)
def test_heads_that_are_no_forest(heads: list[int], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        constituency_tree(["a", "b"], ["NN", "NN"], heads, ["dep", "dep"])


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 words, 2 tags, 2 heads, 1 relations"):
        constituency_tree(["a", "b"], ["NN", "NN"], [0, 0], ["ROOT"])
    with pytest.raises(ValueError, match="at least one word"):
        constituency_tree([], [], [], [])
