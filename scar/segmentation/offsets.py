"""Which characters each sampled token stands for, from decoding the very ids that were sampled. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no character (yet)."""
WINDOW_TOKENS = 8


def token_offsets(ids: Sequence[int], tokenizer: Any) -> tuple[str, list[tuple[int, int]]]:
    """The text of `ids`, which is `tokenizer.decode(ids)`, and the character range [start, end) of each token in it.

    Ranges are ascending, adjacent and cover the text. A character belongs to the token that completes it; the tokens
    before, which complete none but perhaps the space in front of it, have an empty range. Bytes that never become a
    character (U+FFFD in the text, inside or at the end) belong to the last token that decodes to nothing else.
    """
    if not ids:
        return "", []
    text = tokenizer.decode(ids)
    steps = _decode_steps(ids, text, tokenizer, WINDOW_TOKENS)
    if steps[-1] != (len(text), len(text)):  # a decoder that looks further back than a window
        steps = _decode_steps(ids, text, tokenizer, len(ids))
    ends = _ends(steps, text)
    return text, list(zip([0, *ends[:-1]], ends, strict=True))


def _decode_steps(ids: Sequence[int], text: str, tokenizer: Any, window: int) -> list[tuple[int, int]]:
    """Of the first k tokens, k = 1..T: the length of their text, and how much of `text` it agrees with from the left.

    Decodes short stretches only: each begins `window` tokens or more before the ones of interest, so that a decoder that
    strips a leading space, or is in the middle of a character, says the same as if it had read everything. New stretches
    start where the text is settled; in a long run of broken bytes, every 2 * `window` tokens.
    """
    first = settled = 0  # the stretch starts at token `first`; its tokens before `settled` are done with
    offset = 0  # length of everything up to a token minus length of the stretch up to there
    done = 0  # characters of the stretch that need no look
    steps = []
    for stop in range(1, len(ids) + 1):
        stretch = tokenizer.decode(ids[first:stop])
        length = offset + len(stretch)
        agreed = offset + done + _agreement(stretch[done:], text[max(offset + done, 0) :])
        steps.append((length, agreed))
        fresh = stop - settled
        whole = agreed == length and not stretch.endswith(BROKEN)
        if (fresh >= window and whole) or fresh >= 2 * window:
            first, settled = settled, stop
            stretch = tokenizer.decode(ids[first:settled])
            offset, done = length - len(stretch), len(stretch.rstrip(BROKEN))
    return steps


def _agreement(left: str, right: str) -> int:
    """Length of the common prefix."""
    if right.startswith(left):
        return len(left)
    return next((index for index, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), len(right))


def _ends(steps: list[tuple[int, int]], text: str) -> list[int]:
    """The end of each token's range."""
    ends, reached = [], 0
    for length, agreed in steps:
        fresh = text[reached : max(reached, agreed)]
        if agreed == length or not fresh.isspace():  # else a space and the first bytes of the character behind it
            reached += len(fresh)
        ends.append(reached)
    ends[-1] = len(text)
    for k in range(len(ends) - 2, -1, -1):
        (length, agreed), (next_length, _) = steps[k], steps[k + 1]
        # Token k + 1 adds no character: it is a further byte of the broken one that token k ends in.
        if length == agreed == next_length and text[length - 1 : length] == BROKEN:
            ends[k] = length - 1
        ends[k] = min(ends[k], ends[k + 1])
    return ends
