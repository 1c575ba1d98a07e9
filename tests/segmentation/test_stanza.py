"""StanzaParser with stand-ins for stanza, and once with the real Pipeline on a small model that is trained here."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nltk.tree import Tree

from scar.segmentation import parsers
from scar.segmentation.parsers import StanzaParser
from tests.segmentation.brackets import bracket_f1
from tests.segmentation.stanza_toy import toy_trees, train_toy_model


class Node:
    """The part of a stanza tree that the conversion reads."""

    def __init__(self, label: str, children: Sequence[Node] = ()) -> None:
        self.label, self.children = label, children

    def is_leaf(self) -> bool:
        return not self.children

    def leaf_labels(self) -> list[str]:
        return [label for child in self.children for label in child.leaf_labels()] if self.children else [self.label]


def node(tree: Tree | str) -> Node:
    return Node(tree) if isinstance(tree, str) else Node(tree.label(), [node(child) for child in tree])


class FakeStanza(ModuleType):
    """`stanza` with a Pipeline that records its options and answers with given trees, or raises."""

    def __init__(self, trees: Sequence[str] = (), error: Exception | None = None) -> None:
        super().__init__("stanza")
        self.trees, self.error = trees, error
        self.options: list[dict[str, Any]] = []
        self.asked: list[list[list[str]]] = []

    def Pipeline(self, language: str, **options: Any) -> Any:  # noqa: N802
        self.options.append({"lang": language, **options})
        random.random(), np.random.random(), torch.rand(1)
        if self.error is not None:
            raise self.error
        return self.answer

    def answer(self, sentences: list[list[str]]) -> Any:
        self.asked.append(sentences)
        return SimpleNamespace(
            sentences=[SimpleNamespace(constituency=node(Tree.fromstring(tree))) for tree in self.trees]
        )


def installed(monkeypatch: pytest.MonkeyPatch, fake: FakeStanza) -> FakeStanza:
    monkeypatch.setitem(sys.modules, "stanza", fake)
    monkeypatch.setattr(parsers, "find_spec", lambda name: fake)
    return fake


def test_trees_over_the_given_words(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = installed(monkeypatch, FakeStanza(["(ROOT (S (NP (PRP It)) (VP (VBD -LRB-))))", "(ROOT (INTJ (UH Yes)))"]))
    trees = StanzaParser().parse([["It", "("], [], ["Yes"]])
    assert trees[0] == Tree("S", [Tree("NP", [Tree("PRP", ["It"])]), Tree("VP", [Tree("VBD", ["("])])])
    assert trees[1:] == [None, Tree("INTJ", [Tree("UH", ["Yes"])])]
    assert fake.asked == [[["It", "("], ["Yes"]]]


def test_another_number_of_leaves_is_no_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, FakeStanza(["(ROOT (S (MD can) (RB not)))"]))
    assert StanzaParser().parse([["cannot"]]) == [None]


def test_pipeline_is_made_once_without_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = installed(monkeypatch, FakeStanza(["(ROOT (UH Yes))"]))
    parser = StanzaParser("models", "default_accurate", pipeline_options={"use_gpu": False, "verbose": True})
    assert fake.options == []
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    parser.parse([["Yes"]])
    parser.parse([["Yes"]])
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert fake.options == [
        {
            "lang": "en",
            "dir": "models",
            "package": "default_accurate",
            "processors": "tokenize,pos,constituency",
            "tokenize_pretokenized": True,
            "download_method": None,
            "verbose": True,
            "use_gpu": False,
        }
    ]


@pytest.mark.parametrize("error", [FileNotFoundError("Resources file not found"), ConnectionError("no network")])
def test_missing_models_name_the_command(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    installed(monkeypatch, FakeStanza(error=error))
    with pytest.raises(FileNotFoundError) as raised:
        StanzaParser().load()
    assert "python -c \"import stanza; stanza.download('en', processors='tokenize,pos,constituency')\"" in str(
        raised.value
    )
    assert str(error) in str(raised.value)
    with pytest.raises(FileNotFoundError) as raised:
        StanzaParser(Path("my models"), "default_accurate").load()
    arguments = "'en', model_dir='my models', processors='tokenize,pos,constituency', package='default_accurate'"
    assert f'"import stanza; stanza.download({arguments})"' in str(raised.value)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsers, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="python -m pip install stanza==1"):
        StanzaParser()


def plain(tree: Tree) -> str:
    """Brackets with labels over the words; the toy model has no tagger, so its pre-terminals have no labels."""
    return tree[0] if tree.height() == 2 else f"({tree.label()} {' '.join(map(plain, tree))})"


@pytest.mark.slow
def test_real_pipeline_on_a_small_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stanza")
    options = train_toy_model(tmp_path, monkeypatch)
    gold = toy_trees(100, 3)
    sentences = [tree.leaves() for tree in gold]
    parser = StanzaParser(tmp_path, None, pipeline_options=options)
    torch.manual_seed(5)
    before = torch.get_rng_state().tolist()
    trees = parser.parse(sentences)
    assert torch.get_rng_state().tolist() == before
    assert [tree.leaves() if tree else None for tree in trees] == sentences
    assert bracket_f1(list(zip(gold, trees, strict=True)), whole_sentence=False) > 0.85
    exact = [plain(tree) == plain(wanted) for tree, wanted in zip(trees, gold, strict=True)]
    assert sum(exact) > 50  # of 100, labels and all
    assert [parser.parse([words])[0] for words in sentences[:10]] == trees[:10]
    odd = [["😀"], ["film"] * 60, ["(", "unknownword", ")"]]
    assert [tree.leaves() if tree else None for tree in parser.parse(odd)] == odd
