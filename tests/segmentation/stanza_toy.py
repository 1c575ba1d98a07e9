"""A constituency model of stanza's, trained here on sentences of a toy grammar: no network, no Java."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nltk.tree import Tree

GRAMMAR: dict[str, list[tuple[int, list[str]]]] = {
    "S": [(4, ["NP", "VP"]), (1, ["PP", "NP", "VP"])],
    "NP": [(5, ["DT", "NN"]), (2, ["DT", "JJ", "NN"]), (2, ["NP", "OF"]), (1, ["NP", "SBAR"]), (1, ["NP", "CC", "NP"])],
    "OF": [(1, ["INOF", "NP"])],
    "SBAR": [(1, ["WDT", "VP"])],
    "VP": [(4, ["VBD", "NP"]), (2, ["VBD", "NP", "PP"]), (1, ["VBD", "PP"]), (1, ["MD", "VP"])],
    "PP": [(1, ["IN", "NP"])],
}
"""Weights and right-hand sides. "of" belongs to the noun, "in" to the verb, so that words decide attachment."""
WORDS = {
    "DT": ["the", "a", "this"],
    "NN": ["film", "dog", "park", "plot", "scene", "cat", "actor", "end"],
    "JJ": ["old", "good", "slow", "red"],
    "INOF": ["of", "without"],
    "IN": ["in", "with", "before"],
    "CC": ["and", "or"],
    "WDT": ["that", "which"],
    "VBD": ["saw", "loved", "made", "left"],
    "MD": ["will", "may"],
}


def toy_trees(count: int, seed: int, max_words: int = 18) -> list[Tree]:
    """`count` trees of at most `max_words` words."""
    drawn = random.Random(seed)

    def grown(symbol: str, depth: int) -> Tree:
        if symbol in WORDS:
            return Tree(symbol, [drawn.choice(WORDS[symbol])])
        rules = GRAMMAR[symbol][: 1 if depth > 8 else None]  # the first rule of each does not recurse
        chosen = drawn.choices([right for _, right in rules], [weight for weight, _ in rules])[0]
        return Tree(symbol, [grown(part, depth + 1) for part in chosen])

    trees: list[Tree] = []
    while len(trees) < count:
        tree = grown("S", 0)
        if len(tree.leaves()) <= max_words:
            trees.append(tree)
    return trees


class PlainScorer:
    """What stanza's trainer asks of a scorer; its own starts Java. The share of gold trees that were found exactly."""

    def __init__(self, *args: Any, **options: Any) -> None: ...

    def __enter__(self) -> PlainScorer:
        return self

    def __exit__(self, *error: object) -> None: ...

    def process(self, results: Sequence[Any]) -> Any:
        exact = [float(str(result.gold) == str(result.predictions[0].tree)) for result in results]
        return SimpleNamespace(f1=sum(exact) / len(exact), treeF1=exact, kbestF1=None, HasField=lambda name: False)


def train_toy_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, trees: int = 600, epochs: int = 4
) -> dict[str, Any]:
    """Train in `folder` and return the options with which `stanza.Pipeline` takes the model."""
    from stanza.models import constituency_parser
    from stanza.models.common.pretrain import Pretrain
    from stanza.models.constituency import parser_training

    for name, gold in (("train", toy_trees(trees, 1)), ("dev", toy_trees(40, 2))):
        text = "\n".join(Tree("ROOT", [tree]).pformat(margin=10**9) for tree in gold)
        (folder / f"{name}.mrg").write_text(text + "\n", encoding="utf-8")
    vectors = np.random.default_rng(0)
    rows = [
        f"{word} " + " ".join(f"{x:.4f}" for x in vectors.normal(size=20)) for words in WORDS.values() for word in words
    ]
    (folder / "vectors.txt").write_text(f"{len(rows)} 20\n" + "\n".join(rows) + "\n", encoding="utf-8")
    Pretrain(str(folder / "vectors.pt"), str(folder / "vectors.txt")).emb  # noqa: B018  # reading it writes the file
    monkeypatch.setattr(parser_training, "EvaluateParser", PlainScorer)
    files = f"--train_file {folder}/train.mrg --eval_file {folder}/dev.mrg --save_dir {folder} --save_name toy.pt "
    size = f"--epochs {epochs} --epoch_size {trees} --hidden_size 64 --num_lstm_layers 1 --tag_embedding_dim 0 "
    plain = f"--no_retag --no_multistage --no_checkpoint --wordvec_pretrain_file {folder}/vectors.pt "
    options = "--mode train --lang en --shorthand en_toy --optim adamw --learning_rate 0.002 --device cpu"
    constituency_parser.main((files + size + plain + options).split())
    resources = {"en": {"lang_name": "English", "packages": {"default": {}}, "default_processors": {}}}
    (folder / "resources.json").write_text(json.dumps(resources), encoding="utf-8")
    return {
        "processors": "tokenize,constituency",
        "constituency_pretagged": True,  # there is no toy tagger, and the toy model reads no tags
        "constituency_model_path": str(folder / "toy.pt"),
        "constituency_pretrain_path": str(folder / "vectors.pt"),
        "use_gpu": False,
    }
