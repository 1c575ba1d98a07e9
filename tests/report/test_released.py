"""What makes the paper's numbers: every cell of the table from runs whose differences are worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest

from scar.report.released import released_figure, released_markdown, released_rows, select_released, variant_of
from scar.report.selection import NoRunError, Sources
from tests.report.conftest import updates_of

SETTINGS = {
    "sparse": ("sparse", {}),
    "sparse_twice": ("sparse", {"alpha": 0.0, "sparse_weight": 2.0}),
    "sparse_half_kl": ("sparse", {"alpha": 0.0, "ppo.kl_scale": 0.5}),
    "uniform": ("uniform", {}),
    "abc": ("abc", {}),
    "abc_released": ("abc", {"sparse_weight": 1.0, "alpha": 1.0}),
    "scar": ("scar", {"method.empty": "uniform"}),
    "scar_released": (
        "scar",
        {
            "sparse_weight": 1.0,
            "alpha": 1.0,
            "method.empty": "drop",
            "method.one_unit": "none",
            "method.fill": "dots",
            "estimator": {"name": "partition"},
        },
    ),
}
# Final rewards on seed 1, and how much more each seed after it has.
FINALS = {
    "sparse": (1.0, 0.0),
    "sparse_twice": (1.5, 0.01),
    "sparse_half_kl": (1.4, 0.0),
    "uniform": (0.8, -0.01),
    "abc": (0.99, 0.01),
    "abc_released": (1.518, 0.02),
    "scar": (1.5, 0.01),
    "scar_released": (3.0, 0.03),
}
# Square root of KL at each update, and the training reward there.
CURVES = {
    "sparse": ((0, 1, 2), (0, 1, 2)),
    "scar": ((0, 1, 2), (0, 2, 4)),
    "abc_released": ((0, 1, 2), (0, 1, 2)),
    "sparse_twice": ((3, 4, 5), (3, 4, 5)),
    "scar_released": ((3, 4, 5), (4, 5, 6)),
}


@pytest.fixture
def sources(tmp_path):
    return Sources(scale="local", records=tmp_path / "runs", released=tmp_path / "released", seeds=[1, 2, 3])


@pytest.fixture
def make_variant(make_run):
    """A run of a variant, in the folder where its experiment puts it."""

    def build(key, seed, *, task="imdb", folder="", config=None, **given):
        method, own = SETTINGS[key]
        experiment = "table1" if key == method else "released"
        first, step = FINALS[key]
        roots, rewards = CURVES.get(key, CURVES["sparse"])
        # SCAR's curve is 1 % higher on each further seed, SCAR's as released 0.01 higher.
        grown = [r * (1 + 0.01 * (seed - 1)) if key == "scar" else r for r in rewards]
        grown = [r + 0.01 * (seed - 1) if key == "scar_released" else r for r in grown]
        given = {"final": first + step * (seed - 1), "experiment": experiment} | given
        return make_run(
            method,
            seed,
            task=task,
            folder=f"../{'runs' if experiment == 'table1' else 'released'}/{task}-{key}-{seed}{folder}",
            kls=updates_of([root**2 for root in roots]),
            rewards=updates_of(grown),
            config={key: value for key, value in own.items() if key != "alpha"} | (config or {}),
            alpha=own.get("alpha", 0.8),
            **given,
        )

    return build


@pytest.fixture
def whole(make_variant):
    return {(key, seed): make_variant(key, seed) for key in SETTINGS for seed in (1, 2, 3)}


def table_of(text, first):
    """The cells of the table whose header begins with `first`, by their row's first cell."""
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if "|" in line]
    start = next(n for n, line in enumerate(lines) if line[0] == first)
    rows = {}
    for line in lines[start + 2 :]:
        if len(line) != len(lines[start]):
            break
        rows[line[0]] = line[1:]
    return rows


def test_every_cell_of_the_claims(sources, whole):
    (chosen,) = select_released(sources)
    found = table_of(released_markdown([chosen]), "claim")
    # Student's t is 4.3027 for three seeds: d, d + e, d + 2e have the mean d + e, +- 2.4842 e.
    assert found == {
        "SCAR > ABC, final test reward": [
            "Table 1",
            "**not shown**: +0.51, n=3",  # alike on all seeds
            "**leans yes**: +1.49 [+1.47, +1.52], n=3",  # 1.482, e 0.01
            "-",
            "ranges do not meet",
        ],
        "SCAR > Uniform, final test reward": ["Table 1", "**leans yes**: +0.72 [+0.67, +0.77], n=3", "-", "-", "-"],
        "SCAR > Sparse RLHF, final test reward": [
            "Table 1",
            "**leans yes**: +0.51 [+0.49, +0.53], n=3",
            "**leans yes**: +2.03 [+1.96, +2.10], n=3",  # 2.00, e 0.03
            "**leans yes**: +1.52 [+1.47, +1.57], n=3",  # 3.00 - 1.50, e 0.02
            "ranges do not meet",
        ],
        "ABC > Uniform, final test reward": ["Table 1", "**leans yes**: +0.21 [+0.16, +0.26], n=3", "-", "-", "-"],
        "ABC > Sparse RLHF, final test reward": [
            "Table 1",
            "**not shown**: +0.00 [-0.02, +0.02], n=3",
            "**leans yes**: +0.54 [+0.49, +0.59], n=3",  # 0.518, e 0.02
            # 0.018, 0.028, 0.038: alone p = 0.04; of twelve comparisons one has a larger p: 0.08.
            "**not shown**: +0.03 [+0.00, +0.05], n=3",
            "**not shown**: +0.00, n=3",  # the same curve
        ],
        "Uniform > Sparse RLHF, final test reward": [
            "Table 1",
            "**leans no**: -0.21 [-0.23, -0.19], n=3",
            "-",
            "-",
            "-",
        ],
        # SCAR's reward grows by 2, 2.02, 2.04 a unit of sqrt(KL), sparse's by 1: over 0 to 2 the mean gap is 1, 1.02, 1.04.
        "SCAR > Sparse RLHF, training reward at equal KL": [
            "Figure 3",
            "**leans yes**: +1.02 [+0.97, +1.07], n=3",
            "ranges do not meet",
            "**leans yes**: +1.01 [+0.99, +1.03], n=3",
            "-",
        ],
    }
    rows = released_rows(chosen)
    assert len(rows) == 6 + 3 + 2 + 3 + 3
    (row,) = (row for row in rows if row["pay"] == "equal_pay" and row["claim"].startswith("ABC"))
    assert (row["one"], row["other"], row["measure"], row["above"]) == (
        "abc_released",
        "sparse_twice",
        "final_reward",
        3,
    )
    # t = 0.028 sqrt(3) / 0.01, two degrees of freedom: p = 1 - t / sqrt(2 + t^2).
    t = 2.8 * 3**0.5
    assert row["p"] == pytest.approx(1 - t / (2 + t * t) ** 0.5)


def test_the_variants_stand_above_with_their_pay(sources, whole):
    text = released_markdown(select_released(sources))
    found = table_of(text, "variant")
    assert {name: row[0] for name, row in found.items()} == {
        "Sparse": "r",
        "Sparse, paid twice": "2r",
        "Sparse, half KL price": "r",
        "Uniform": "r",
        "ABC, as written": "r",
        "ABC, as released": "2r",
        "SCAR, as written": "r",
        "SCAR, as released": "2r - v(empty)",
    }
    assert found["SCAR, as released"][2:] == ["3", "3.03 ± 0.03", "-", "5.00 ± 0.00"]
    assert "## IMDB (as released: carried over from TL;DR)" in text
    assert "No finished run" not in text


def test_what_is_missing_is_named_with_its_command(sources, make_variant):
    for key in ("sparse", "scar", "scar_released"):
        for seed in (1, 2, 3)[: 3 - (key == "scar_released")]:
            make_variant(key, seed)
    (chosen,) = select_released(sources)
    text = released_markdown([chosen])
    everything = "(seed 1, 2, 3)"
    missing = f"Sparse, paid twice {everything}; Sparse, half KL price {everything}; ABC, as written {everything}; "
    missing += f"ABC, as released {everything}; SCAR, as released (seed 3)"
    assert f"No finished run for: {missing} (make reproduce-released TASKS=imdb SCALE=local)." in text
    found = table_of(text, "claim")
    assert found["SCAR > Sparse RLHF, final test reward"][2:4] == [
        "**leans yes**: +2.01 [+1.82, +2.21], n=2/3",  # 2.015 +- 12.7062 * 0.015
        "not run",
    ]
    assert found["SCAR > ABC, final test reward"][1:] == ["not run", "not run", "-", "not run"]
    assert "SCAR > Uniform, final test reward" not in found
    assert chosen.missing == [
        "Sparse, paid twice",
        "Sparse, half KL price",
        "ABC, as written",
        "ABC, as released",
    ]


def test_only_methods_that_were_asked_for_are_missing(sources, make_variant):
    for key in ("sparse", "scar", "scar_released"):
        make_variant(key, 1)
    (chosen,) = select_released(Sources(**{**vars(sources), "methods": ["sparse", "scar"]}))
    assert chosen.missing == ["Sparse, paid twice", "Sparse, half KL price"]


def test_on_hh_the_papers_order_is_another(sources, make_variant):
    for key in SETTINGS:
        make_variant(key, 1, task="hh")
    rows = released_rows(*select_released(sources))
    (row,) = (
        row for row in rows if row["claim"] == "Sparse RLHF > ABC, final test reward" and row["pay"] == "equal_pay"
    )
    assert (row["one"], row["other"], row["verdict"]) == ("sparse_twice", "abc_released", "not shown")
    assert {row["source"] for row in rows} == {"Table 1", "not in the paper"}


def test_nothing_released_has_run(sources, make_variant):
    make_variant("scar", 1)
    with pytest.raises(NoRunError, match=r"no run in .*released of scale=local; make reproduce-released makes them"):
        select_released(sources)


def test_another_pay_or_price_is_no_variant(sources, make_variant):
    assert {key: variant_of(make_variant(key, 1)).key for key in SETTINGS} == {key: key for key in SETTINGS}
    changes = [
        ("sparse_twice", {"sparse_weight": 3.0}),
        ("sparse_twice", {"ppo.kl_scale": 0.5}),
        ("sparse_half_kl", {"ppo.kl_scale": 0.25}),
        ("abc_released", {"alpha": 0.5}),
        ("sparse_twice", {"alpha": 0.8}),
        ("scar_released", {"method.empty": "uniform"}),
        ("scar_released", {"method.one_unit": "score"}),
        ("scar_released", {"method.fill": "space"}),
        ("scar_released", {"estimator": {"name": "owen"}}),
        ("scar_released", {"ppo.kl_scale": 0.5}),
    ]
    others = [make_variant(key, 2, config=config, folder=f"-{n}") for n, (key, config) in enumerate(changes)]
    assert [variant_of(run) for run in others] == [None] * len(others)
    (chosen,) = select_released(sources)
    assert sorted(path.partition("/imdb-")[2] for path in chosen.left_out) == sorted(
        f"{run.path.name.removeprefix('imdb-')} (none of the variants)" for run in others
    )


def test_all_runs_may_lie_in_one_folder(sources, make_variant):
    make_variant("sparse", 1)
    run = make_variant("sparse_twice", 1)
    together = dataclasses.replace(sources, records=run.path.parent, released=run.path.parent)
    (chosen,) = select_released(together)
    assert [record.path for record in chosen.records] == [run.path]


def test_two_settings_of_one_variant_are_refused(sources, make_variant):
    make_variant("scar_released", 1, segmentation="token")
    make_variant("scar_released", 2, segmentation="punctuation")
    with pytest.raises(ValueError, match=r"different settings .*segmentation: token / punctuation"):
        select_released(sources)


def test_variants_share_everything_but_the_price_of_kl(sources, make_variant):
    make_variant("sparse_half_kl", 1)
    make_variant("sparse", 1)
    select_released(sources)
    make_variant("sparse_twice", 1, config={"ppo.kl_coef": 9.0})
    with pytest.raises(ValueError, match=r"unfair comparison on task imdb: .* differ in ppo.kl_coef: 0.2 / 9.0"):
        select_released(sources)


def test_a_model_seed_is_chosen(sources, make_variant):
    for seed in (1, 2):
        make_variant("sparse_twice", 1, model_seed=seed, folder=f"-{seed}")
    with pytest.raises(ValueError, match="model_seed=1 or model_seed=2"):
        select_released(sources)
    (chosen,) = select_released(Sources(**{**vars(sources), "model_seed": 2}))
    assert [record.manifest["model_seed"] for record in chosen.records] == [2]


def test_the_figure_has_a_line_and_an_end_a_variant_all_told_apart(sources, whole, make_variant):
    make_variant("sparse_twice", 1, task="tldr")
    figure = released_figure(select_released(sources))
    assert [axes.get_title() for axes in figure.axes] == ["IMDB, carried over", "TL;DR"]
    lines = {line.get_label(): line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 3}
    assert list(lines) == [  # Uniform is not drawn
        "Sparse",
        "Sparse, paid twice",
        "Sparse, half KL price",
        "ABC, as written",
        "ABC, as released",
        "SCAR, as written",
        "SCAR, as released",
    ]
    assert lines["SCAR, as written"].get_xdata() == pytest.approx([0, 1, 2])
    assert lines["SCAR, as written"].get_ydata() == pytest.approx([0, 2.02, 4.04])  # mean over seeds of 2, 2.02, 2.04
    ends = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 1]
    assert len({(line.get_marker(), line.get_markerfacecolor()) for line in ends}) == 7
    assert (ends[-1].get_xdata()[0], ends[-1].get_ydata()[0]) == (pytest.approx(5**0.5), pytest.approx(3.03))
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert "Sparse, paid twice (2r), n=3, 1/3" in names
    assert "SCAR, as released (2r - v(empty)), n=3, 0/3" in names
