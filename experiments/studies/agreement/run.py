"""How far each credit method is from Shapley values on responses of the local imdb policy, and where prefix differences err.

`error`: mean |credit - Shapley| / mean |Shapley|; `last_quarter`: share of all |credit| on the last quarter of the tokens.
Correlations are means and standard deviations over responses of four units or more; `gae_pearson` is that of sums of the
tokens ahead with weights 0.95^k. `additive_r2`: how much of v an additive model explains; `prefix_to_game`: correlation of
prefix differences with what tokens add from left to right in the game; `blank_effect`: mean |change of the score| by one
blank more behind the response, over mean |Shapley|; `lag1`: correlation of a token's credit with the next one's;
`suffix_effect`: how much what a token adds in the game changes, relative to its size, if the text behind it is there.
`nearest_others`: words of like place and |Shapley| without a role.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.benchmarks.estimators import CONF, Advance, compose, initialize_config_dir
from experiments.studies.agreement.cases import Source, case_tables, given_texts
from experiments.studies.agreement.measures import GameRow, Row, measure
from experiments.studies.agreement.splits import Texts
from scar.coalitions.backends import make_scorer
from scar.commands.build import Run, build_task, check_settings, setup_process
from scar.commands.settings import prepared
from scar.models import loading
from scar.seeding import generator
from scar.segmentation.segmenters import TokenSegmenter
from scar.tracking.trackers import TrackerGroup
from scar.types import Rollout

LENGTHS = (16, 32, 64)
PERMUTATIONS = {16: 256, 32: 256, 64: 128}
"""Of the reference of single tokens, by length."""
MODEL_TOKENS = 96
"""The models were trained on texts of so many tokens, so that responses of 64 are no news to them."""
CASE_TOKENS = 32
CASE_SAMPLES = 512
PROMPT_TOKENS = 4
"""Of a review sentence: what is read before its response begins (the task's shortest prompt)."""


def run(*, quick: bool, cache: Path, advance: Advance, scale: str = "local") -> dict[str, list[Any]]:
    """All tables by title; needs the imdb models of `scale` of 96-token texts in `cache`."""
    responses, per_case = (8, 6) if quick else (32, 40)
    lengths = LENGTHS[:2] if quick else LENGTHS
    rows: list[Row] = []
    games: list[GameRow] = []
    for done, tokens in enumerate(lengths, start=1):
        local = LocalModels(tokens, responses=responses, cache=cache, scale=scale)
        texts = local.judged(local.sampled())
        permutations = 64 if quick else PERMUTATIONS[tokens]
        measured = measure(texts, local.spans(texts), local.tokens(texts), permutations=permutations)
        rows, games = rows + measured[0], games + measured[1]
        advance(done, len(lengths) + 1, {"tokens": tokens})
    sources = LocalModels(CASE_TOKENS, responses=CASE_SAMPLES, cache=cache, scale=scale).sources()
    tables = case_tables(sources, per_case=per_case, permutations=64)
    advance(len(lengths) + 1, len(lengths) + 1, {"cases": per_case})
    return {"Credit against Shapley values": rows, "The games": games, **tables}


class LocalModels:
    """The imdb models of a local scale, asked for responses of exactly `tokens` tokens."""

    def __init__(self, tokens: int, *, responses: int, cache: Path, scale: str) -> None:
        settings = {
            "scale": scale,
            "tracker": "jsonl",
            "segmentation": "span",
            "paths.cache": cache,
            "models.policy.max_tokens": MODEL_TOKENS,
            "models.reward.augmentation.max_tokens": MODEL_TOKENS,
            "task.generation.min_new_tokens": tokens,
            "task.generation.max_new_tokens": tokens,
            "task.generation.sample_length": "false",
            **dict.fromkeys(("ppo.batch_size", "ppo.minibatch_size", "ppo.microbatch_size"), responses),
        }
        with initialize_config_dir(str(CONF), version_base="1.3"):
            self._cfg = prepared(compose("config", [f"{key}={value}" for key, value in settings.items()]))
        device = setup_process(self._cfg)
        run = Run(self._cfg, check_settings(self._cfg), device, TrackerGroup([]))
        self._trainer, self._reward_model = run.trainer, run.reward_model
        self._scorer, _ = make_scorer(run.reward_model, **self._cfg.coalitions, device=device)
        self._tokenizer = loading.load_tokenizer(run.names["policy"])

    def sampled(self) -> Rollout:
        """Responses of the SFT policy."""
        stream = generator(self._cfg.seed, "bench")
        return self._trainer.sampler.sample(self._trainer.prompts.batch(0), generator=stream)

    def judged(self, rollout: Rollout) -> Texts:
        """The rollout with its scores."""
        return Texts(rollout, self._trainer.scoring.score(rollout), self._reward_model, self._scorer)

    def spans(self, texts: Texts) -> Any:
        """Units of segmentation=span."""
        assert self._trainer.segmenter is not None
        return self._trainer.segmenter.segment(texts.rollout)

    def tokens(self, texts: Texts) -> Any:
        """Units of segmentation=token."""
        return TokenSegmenter(tokenizer=self._tokenizer).segment(texts.rollout)

    def sources(self) -> list[Source]:
        """Responses of the policy, and sentences of held-out reviews in their place."""
        sentences = build_task(self._cfg).examples("test", origin="rotten_tomatoes")["text"].tolist()
        encoded = self._tokenizer(sentences, add_special_tokens=False)["input_ids"]
        given = given_texts(encoded, self._tokenizer, prompt_tokens=PROMPT_TOKENS, most_tokens=CASE_TOKENS)
        segmenter = TokenSegmenter(tokenizer=self._tokenizer, merge_subwords=True)
        return [
            Source(name, rollout, segmenter, self._tokenizer, self.judged)
            for name, rollout in (("policy sample", self.sampled()), ("review sentence", given))
        ]
