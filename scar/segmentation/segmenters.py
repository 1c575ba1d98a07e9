"""Segmenters: from sampled responses to units."""

from __future__ import annotations

from scar.interfaces import Tokenizer
from scar.segmentation.units import hierarchy_of, token_tree, token_units
from scar.types import Rollout, Units


class TokenSegmenter:
    """Each response token except EOS is a player; the hierarchy groups word pieces, words, clauses and sentences."""

    def __init__(self, *, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def segment(self, rollout: Rollout) -> Units:
        """Units of every response of the batch."""
        content = rollout.content_mask
        hierarchies = []
        for ids, mask in zip(rollout.response_ids.tolist(), content.tolist(), strict=True):
            pieces = [self._tokenizer.decode([token]) for token, real in zip(ids, mask, strict=True) if real]
            hierarchies.append(hierarchy_of(token_tree(pieces)))
        return token_units(content, hierarchies)
