"""scale=paper is real code: two PPO updates with every method on hub-shaped data and small random checkpoints of the same
architectures, in the hub's file formats, through the same loading code."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from scar.commands import build
from scar.commands import build as parts_module
from scar.commands.train import train_run
from scar.config import EvaluationConfig
from scar.models.precision import has_adapters
from tests.paper_scale.conftest import Hub
from tests.smoke_scale import composed
from tests.test_cli import run_in_process

PAIRS = [("tldr", "scar"), ("hh", "scar"), ("imdb", "abc"), ("tldr", "uniform"), ("hh", "sparse")]


@pytest.mark.parametrize(
    ("task", "method"), [("imdb", "scar"), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS)]
)
def test_two_updates(hubs: dict[str, Hub], task: str, method: str) -> None:
    record = hubs[task].train(f"shaping={method}")
    first, second = record.metrics
    # The reference is the policy, adapters or not, and the first ratio is 1, whatever the number types.
    assert first["kl/seq_sum_mean"] == pytest.approx(0, abs=1e-5)
    assert first["ppo/first_ratio_error"] == pytest.approx(0, abs=1e-5)
    assert second["kl/seq_sum_mean"] != 0  # the update moved the policy away from the reference
    assert record.manifest["models"]["policy"].keys() >= (
        {"fingerprint", "report"} if task == "tldr" else {"name", "revision", "commit"}
    )
    if method == "scar":
        assert record.manifest["coalitions"]["backend"] == "fused"
        assert first["scar/efficiency_err_max"] < 1e-3


def loaded(hub: Hub, *overrides: str) -> Any:
    cfg = hub.config(*overrides)
    return build.load_parts(cfg, torch.device("cpu"))


@pytest.mark.slow
def test_hh_policy_is_four_bits_and_trains_adapters_and_value_head_alone(hubs: dict[str, Hub]) -> None:
    policy = loaded(hubs["hh"]).policy()
    assert has_adapters(policy.model)
    attention = policy.model.model.layers[0].self_attn
    assert attention.q_proj.base_layer.weight.dtype == torch.uint8
    assert attention.q_proj.base_layer.quant_state.quant_type == "nf4"
    trained = {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}
    # 2 layers x (q_proj, v_proj) x (A [32,64], B [64,32]), and the head [1,64] with its bias
    assert sum(p.numel() for p in trained.values()) == 2 * 2 * 2 * 32 * 64 + 65
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert all("lora" in name or "value_head" in name for name in trained)


@pytest.mark.slow
def test_hh_run_leaves_the_four_bit_weights_alone_and_the_reference_with_them(hubs: dict[str, Hub]) -> None:
    hub = hubs["hh"]
    cfg = hub.config("shaping=sparse")
    run = build.Run(cfg, build.check_settings(cfg), torch.device("cpu"), _NoTracker())
    policy = run.trainer.updater.learner.policy
    frozen = {name: p.detach().clone() for name, p in policy.named_parameters() if not p.requires_grad}
    adapters = {name: p.detach().clone() for name, p in policy.named_parameters() if p.requires_grad}
    run.trainer.run_update(1)
    assert all(torch.equal(p, frozen[name]) for name, p in policy.named_parameters() if name in frozen)
    assert any(not torch.equal(p, adapters[name]) for name, p in policy.named_parameters() if name in adapters)


class _NoTracker:
    def log(self, row: dict[str, Any]) -> None: ...

    def finish(self, status: str) -> None: ...


@pytest.mark.slow
def test_evaluation_of_hh_takes_every_test_prompt_once(hubs: dict[str, Hub]) -> None:
    evaluation = composed("scale=paper", "task=hh").evaluation
    assert (evaluation.prompts, evaluation.batch_size) == (694, 16)  # all; the last batch has 6
    hub = hubs["hh"]  # 24 test prompts
    parts = loaded(hub)
    policy = parts.policy()
    sampler = parts.sampler(policy, policy.reference())
    summary, samples = parts.evaluate(sampler, EvaluationConfig(24, 16, 0, temperature=None))
    assert summary["prompts"] == len({sample["prompt"] for sample in samples}) == 24
    with pytest.raises(
        ValueError, match=r"evaluation\.prompts=25; allowed: at most 24, the test prompts that there are"
    ):
        parts.evaluate(sampler, EvaluationConfig(25, 16, 0, temperature=None))


def test_more_test_prompts_than_there_are_end_a_run_before_anything_is_loaded(tmp_path: Path) -> None:
    cfg = composed("scale=paper", "task=hh", "evaluation.prompts=1000", f"paths.runs={tmp_path}", "device=cpu")
    with pytest.raises(
        ValueError, match=r"task=hh evaluation\.prompts=1000; allowed: at most 694, the test prompts of"
    ):
        train_run(cfg)


def test_imdb_score_is_the_difference_of_two_logits(hubs: dict[str, Hub]) -> None:
    model = loaded(hubs["imdb"]).reward_model
    ids = torch.tensor([[5, 9, 14, 3, 0]])
    logits = model.model(input_ids=ids[:, :4]).logits[0]  # the position before the padding
    score = model.score(ids, ids > 0)
    assert float(score) == pytest.approx(float(logits[1] - logits[0]), abs=1e-5)


@pytest.mark.slow
def test_tldr_reward_model_gives_the_train_references_a_mean_of_zero(hubs: dict[str, Hub]) -> None:
    parts = loaded(hubs["tldr"])
    assert next(parts.reward_model.model.parameters()).dtype == torch.bfloat16
    tokenizer, found = parts.tokenizer, []
    rows = parts._task.source.demonstrations("train")
    for prompt, response in zip(rows["prompt"], rows["response"], strict=True):
        text = prompt.before + prompt.body + prompt.after
        ids = [*tokenizer.encode(text), *tokenizer.encode(response), tokenizer.eos_token_id]
        tokens = torch.tensor([ids])
        found.append(float(parts.reward_model.score(tokens, torch.ones_like(tokens, dtype=torch.bool))))
    assert parts.reward_model.offset != 0
    assert sum(found) / len(found) == pytest.approx(0, abs=0.02)  # bfloat16 weights


@pytest.mark.slow
def test_hh_score_is_the_raw_logit_behind_the_reward_models_own_prompt(hubs: dict[str, Hub]) -> None:
    parts = loaded(hubs["hh"], "models.reward.weights=float32")
    rollout_prompts = parts.prompts("train", 4, 1).batch(0)
    turn = rollout_prompts.texts[0].split("### Instruction:\n")[1].split("\n\n### Response:")[0]
    assert rollout_prompts.reward_texts is not None
    assert rollout_prompts.reward_texts[0] == f"###Human: {turn} ###Assistant: "
    ids = parts.tokenizer(rollout_prompts.reward_texts[0])["input_ids"]
    assert ids[0] == parts.tokenizer.bos_token_id
    tokens = torch.tensor([ids])
    wanted = parts.reward_model.model(input_ids=tokens).logits[0, 0]
    score = parts.reward_model.score(tokens, torch.ones_like(tokens, dtype=torch.bool))
    assert float(score) == pytest.approx(float(wanted), abs=1e-5)


def test_models_are_parked_after_all_that_needs_them_on_the_device(
    hubs: dict[str, Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def note(name: str, call: Any) -> Any:
        @functools.wraps(call)  # the config's keys are checked against its parameters
        def noting(*args: Any, **options: Any) -> Any:
            seen.append(name)
            return call(*args, **options)

        return noting

    for name in ("make_scorer", "HostParking"):
        monkeypatch.setattr(parts_module, name, note(name, getattr(parts_module, name)))
    cfg = hubs["imdb"].config("memory.offload=true", "shaping=scar")
    build.Run(cfg, build.check_settings(cfg), torch.device("cpu"), _NoTracker())
    assert seen == ["make_scorer", "HostParking"]


@pytest.mark.slow
def test_offloading_and_recomputing_change_no_number(hubs: dict[str, Hub]) -> None:
    rows = []
    for name, setting in (("usual", "false"), ("thrifty", "true")):
        both = [f"memory.{key}={setting}" for key in ("offload", "gradient_checkpointing")]
        record = hubs["imdb"].train("shaping=scar", "seed=3", f"paths.runs={hubs['imdb'].root}/{name}", *both)
        rows.append(
            [
                {k: v for k, v in row.items() if k.split("/")[0] in ("reward", "kl", "ppo", "scar")}
                for row in record.metrics
            ]
        )
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_the_papers_example_stands_beside_what_the_paper_prints(
    hubs: dict[str, Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = hubs["imdb"]
    where = [f"paths.{name}={tmp_path}/{name}" for name in ("credit", "results", "cache")]
    few = ["estimator.max_coalitions=64"]
    typed = ["source=text", "methods=[abc,scar]", "segmentations=[token]", "device=cpu", "scale=paper", "task=imdb"]
    outcome = run_in_process(
        "credit", "-m", "shaping.method.fill=space,delete", *few, *typed, *where, *hub.overrides, capsys=capsys
    )
    assert outcome.status in (0, None), outcome.err
    drawn = ["target=figure1", "scale=paper", f"credit={tmp_path}/credit", f"results={tmp_path}/results"]
    outcome = run_in_process("report", *drawn, capsys=capsys)
    assert outcome.status in (0, None), outcome.err
    lines = (tmp_path / "results" / "paper" / "figure1.md").read_text().splitlines()
    assert sum(line.startswith("| token units, owen, fill") for line in lines) == 2
    assert lines[-1].endswith("| +10.00 | +9.60 |")
