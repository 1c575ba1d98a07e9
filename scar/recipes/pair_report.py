"""How good a reward model is on held-out pairs: accuracy with its interval, beside that of length alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scar.recipes.pairwise import Group, margins, score_groups


def wilson_interval(successes: int, trials: int, *, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share (95 % for z = 1.96). ValueError without trials."""
    if trials < 1:
        raise ValueError("an interval needs at least one trial")
    share, spread = successes / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return middle - half, middle + half


def compare(model: Any, by_kind: Mapping[str, Sequence[Group]], *, name: str, pad_id: int) -> dict[str, Any]:
    """`name`: the share of pairs whose better response scores higher (ties count as wrong), with `name`_interval,
    `name`_by_kind (share and pairs), and `name`_by_length: the share that the longer, and the shorter, of two would get."""
    correct: dict[str, np.ndarray] = {}
    lengths: list[tuple[int, int]] = []
    for kind, groups in by_kind.items():
        if not groups:
            continue
        found = margins(score_groups(model, groups, pad_id=pad_id), groups)
        correct[kind] = (found > 0).cpu().numpy()
        lengths += [(len(group.responses[0]), len(worse)) for group in groups for worse in group.responses[1:]]
    every = np.concatenate(list(correct.values()))
    better, worse = np.array(lengths).T
    return {
        name: float(every.mean()),
        f"{name}_interval": wilson_interval(int(every.sum()), len(every)),
        f"{name}_by_kind": {kind: {"share": float(c.mean()), "pairs": len(c)} for kind, c in correct.items()},
        f"{name}_by_length": {"longer": float((better > worse).mean()), "shorter": float((better < worse).mean())},
    }
