from __future__ import annotations

import csv
import io

import pandas as pd
import pytest

from scar.report.frames import first_update_at, runs_frame, trailing_mean
from scar.report.selection import check_fairness, narrow, select_cells
from scar.report.style import PAPER_METHODS
from scar.report.tables import paper_results, table1_csv, table1_markdown, table1_rows


def cells_of(markdown: str, first: str) -> list[list[str]]:
    """The cells of each table line that starts with the cell `first`."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|"]
    return [line for line in lines if line[0] == first]


def markdown_of(runs, **which):
    return table1_markdown(select_cells(runs, **which))


def rows_of(runs, **which):
    return table1_rows(select_cells(runs, **which))


def csv_of(runs, **which):
    return table1_csv(select_cells(runs, **which))


def row_of(rows, method, task="imdb"):
    (row,) = (row for row in rows if (row["task"], row["method"]) == (task, method))
    return row


# --- block A: final rewards ---------------------------------------------------------------------------------------


def test_cell_is_mean_and_sample_std_over_seeds_with_n(make_run):
    runs = [make_run("scar", seed, final=float(seed)) for seed in (1, 2, 3)]  # 1, 2, 3: mean 2, sample std 1
    (line,) = cells_of(markdown_of(runs, methods=["scar"]), "IMDB")
    assert line == ["IMDB", "0.50", "2.00 ± 1.00 (n=3)"]


def test_incomplete_and_empty_cells_show_their_n_and_are_listed(make_run):
    runs = [make_run("scar", seed, final=2.0) for seed in (1, 2, 3)] + [make_run("abc", 2, final=1.0)]
    markdown = markdown_of(runs, methods=["uniform", "abc", "scar"], seeds=[1, 2, 3])
    assert cells_of(markdown, "IMDB")[0][2:] == ["n=0/3", "1.00 ± - (n=1/3)", "2.00 ± 0.00 (n=3)"]
    assert "No finished run for: imdb uniform (seed 1, 2, 3); imdb abc (seed 1, 3)." in markdown
    assert cells_of(markdown, "Uniform")[0][2] == "n=0/3"


@pytest.mark.parametrize("name", ["red", "prefix"])  # "prefix" in records of before
def test_columns_are_the_papers_and_red_says_that_it_is_not(make_run, name):
    header = cells_of(markdown_of([make_run("scar"), make_run(name)]), "final test reward")[0]
    assert header[1:] == ["SFT policy", "Sparse RLHF", "Uniform", "ABC", "SCAR", "RED (not in the paper)"]


def test_paper_results_are_those_of_table_1():
    table = paper_results()["table1"]
    found = {task: [(table[task][m]["mean"], table[task][m]["std"]) for m in PAPER_METHODS] for task in table}
    assert found == {
        "imdb": [(6.86, 0.86), (7.73, 0.02), (8.48, 1.60), (9.27, 0.00)],
        "tldr": [(1.60, 0.11), (1.68, 0.02), (2.85, 0.21), (4.35, 0.11)],
        "hh": [(6.93, 0.00), (6.17, 0.00), (6.59, 0.01), (7.31, 0.01)],
    }
    assert "Table 1" in paper_results()["source"]


def test_sft_policy_shows_a_range_when_its_evaluations_differ(make_run):
    runs = [make_run("scar", 1, initial=0.4), make_run("scar", 2, initial=0.6)]
    assert cells_of(markdown_of(runs, methods=["scar"]), "IMDB")[0][1] == "0.50 (0.40 to 0.60)"


# --- caption ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "warned"), [("smoke", True), ("local", True), ("paper", False)])
def test_only_the_paper_scale_is_compared_with_the_papers_numbers(make_run, scale, warned):
    assert ("not comparable with the paper's" in markdown_of([make_run("scar", scale=scale)])) == warned


# --- block B: what it took ----------------------------------------------------------------------------------------


def test_trailing_mean_uses_what_exists_at_the_start():
    assert trailing_mean(pd.Series([2.0, 4.0, 9.0, 2.0]), 3).tolist() == [2.0, 3.0, 5.0, 5.0]


def test_first_update_at_ignores_one_lucky_first_batch():
    lucky = pd.Series([4.0, 0.0, 0.0, 0.0, 0.0, 0.0])  # the only full windows average 0.8 and 0
    assert first_update_at(lucky, 1.0) is None
    assert first_update_at(lucky, 0.8) == 5
    assert first_update_at(pd.Series([1.0, 3.0]), 2.0) == 2  # shorter than the window: its whole length


def test_updates_to_sparse_end_is_paired_by_seed_and_counts_who_got_there(make_run):
    steps = (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0)  # the last five average 1.0
    early = (0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)  # updates 3 to 7 are the first five to average 1.0
    first = (0.0,) + (1.0,) * 9  # updates 2 to 6
    runs = [make_run("sparse", s, rewards=tuple(r * scale for r in steps)) for s, scale in ((1, 1), (2, 3), (3, 1))]
    # Seed 2 never reaches its sparse run's 3.0; the median of the others' 7 and 6 is 6.5.
    runs += [make_run("scar", seed, rewards=rewards) for seed, rewards in ((1, early), (2, early), (3, first))]
    rows = rows_of(runs)
    scar, sparse = row_of(rows, "scar"), row_of(rows, "sparse")
    assert (scar["updates_to_sparse_end_median"], scar["reached_sparse_end"], scar["pairs"]) == (6.5, 2, 3)
    assert (sparse["updates_to_sparse_end_median"], sparse["reached_sparse_end"]) == (10.0, 3)
    assert cells_of(markdown_of(runs), "SCAR")[0][7] == "6.5 (2 of 3 seeds)"


def test_seeds_above_sparse_are_paired_and_missing_pairs_show(make_run):
    runs = [make_run("sparse", seed, final=final) for seed, final in ((1, 0.0), (2, 3.0), (3, 3.0))]
    runs += [make_run("scar", seed, final=final) for seed, final in ((1, 1.0), (2, 3.5), (3, 2.0), (4, 9.0))]
    assert row_of(rows_of(runs), "scar")["above_sparse"] == 2
    markdown = markdown_of(runs)
    assert cells_of(markdown, "SCAR")[0][8] == "2 of 3, pairs=3/4"
    assert cells_of(markdown, "Sparse RLHF")[0][8] == "-"


def test_row_of_a_method_by_hand(make_run):
    timed = {"credit_seconds": (0.1, 0.3), "rewards": (1.0, 2.0)}  # area 1.5; 0.4 of 2 seconds; queries 2 and 4
    runs = [make_run("scar", 1, kl=4.0, seconds=10.0, **timed), make_run("scar", 2, kl=6.0, seconds=14.0, **timed)]
    markdown = markdown_of(runs, methods=["scar"])
    (line,) = cells_of(markdown, "SCAR")
    assert line[1:7] == ["token, owen, alpha 0.8", "n=2", "1.00 ± 0.00", "-", "5.00 ± 1.41", "1.50 ± 0.00"]
    assert line[9:] == ["13.0 ± 0.0", "3.0", "12.0 ± 2.8", "20%"]
    assert cells_of(markdown, "method")[0][11] == "CPU-seconds per run"
    assert cells_of(markdown, "SFT policy")[0][9] == "16.0"


def test_runs_of_one_method_on_cpu_and_gpu_are_not_averaged(make_run):
    runs = [make_run("sparse", 1), make_run("sparse", 2, device={"kind": "cuda", "name": "a card"})]
    with pytest.raises(ValueError, match="narrow with device=cpu or device=cuda"):
        select_cells(runs)
    assert narrow(runs, device="cuda") == runs[1:]


def test_csv_holds_unrounded_numbers_and_empty_fields(make_run):
    runs = [make_run("scar", 1, final=1.0), make_run("scar", 2, final=2.0)]
    rows = list(csv.DictReader(io.StringIO(csv_of(runs, methods=["uniform", "scar"]))))
    assert [(row["method"], row["n"], row["n_wanted"]) for row in rows] == [
        ("sft", "2", ""),
        ("uniform", "0", "2"),
        ("scar", "2", "2"),
    ]
    assert (rows[1]["final_reward_mean"], rows[1]["paper_mean"]) == ("", "7.73")
    assert float(rows[2]["final_reward_std"]) == pytest.approx(0.5**0.5, abs=1e-15)


# --- which runs may stand together --------------------------------------------------------------------------------


def test_two_settings_in_one_cell_are_refused_with_the_flag_that_separates_them(make_run):
    runs = [make_run("scar", 1, folder="one", alpha=0.5), make_run("scar", 1, folder="two", alpha=0.8)]
    with pytest.raises(ValueError) as error:
        select_cells(runs)
    for part in (str(runs[0].path), str(runs[1].path), "alpha: 0.5 / 0.8", "alpha=0.5 or alpha=0.8"):
        assert part in str(error.value)


def test_settings_may_not_differ_between_seeds_of_a_method_either(make_run):
    with pytest.raises(ValueError, match=r"segmentation: token / span; .*segmentation=token or segmentation=span"):
        select_cells([make_run("scar", 1), make_run("scar", 2, segmentation="span")])


def test_a_table_takes_the_runs_of_its_own_experiment_and_names_the_others(make_run):
    # What README's first example leaves behind, beside Table 1's own runs.
    typed = make_run("scar", 3, task="tldr", folder="typed", alpha=0.5, final=9.0)
    runs = [make_run("scar", s, task="tldr", folder=f"{s}", experiment="table1", final=1.0) for s in (1, 3)]
    cells = select_cells([typed, *runs, make_run("sparse", 1, task="tldr")])
    assert [record.path.name for record in cells.records] == ["tldr-sparse-1", "1", "3"]
    text = table1_markdown(cells)
    assert f"Left out, runs of other settings: {typed.path} (alpha: 0.5 / 0.8)." in text
    assert "1.00 ± 0.00 (n=2)" in text


def test_without_a_run_made_for_the_table_the_settings_with_most_seeds_are_taken(make_run):
    runs = [make_run("scar", s, folder=f"{s}") for s in (1, 2)]
    cells = select_cells([make_run("scar", 3, folder="typed", alpha=0.5), *runs])
    assert cells.records == runs
    assert len(cells.left_out) == 1


def test_the_same_run_twice_is_refused(make_run):
    runs = [make_run("scar", 1, folder="one"), make_run("scar", 1, folder="two")]
    with pytest.raises(ValueError, match=r"two records of one run.*one.*two"):
        select_cells(runs)


def test_narrowing_by_alpha_is_strict_for_scar_and_keeps_uniforms_own_alpha(make_run):
    scar = [make_run("scar", 1, folder=f"scar{alpha}", alpha=alpha) for alpha in (0.5, 0.8)]
    uniform = make_run("uniform", 1, alpha=1.0)
    sparse = [make_run("sparse", 1, folder=f"sparse{alpha}", alpha=alpha) for alpha in (0.5, 0.8)]
    abc = make_run("abc", 1, alpha=0.5)
    records = [*scar, uniform, *sparse, abc]
    assert narrow(records, alpha=0.8, estimator=None) == [scar[1], uniform, sparse[1]]
    assert narrow(records, alpha=None) == records
    assert narrow([*scar, uniform], alpha=0.3) == [uniform]


def test_estimators_are_told_apart_by_name_and_budget(make_run):
    estimators = [
        {"name": "permutation", "permutations": 2},
        {"name": "permutation", "permutations": 4},
        {"name": "owen"},
    ]
    scar = [make_run("scar", 1, folder=f"scar{i}", estimator=found) for i, found in enumerate(estimators)]
    sparse = make_run("sparse", 1)
    with pytest.raises(ValueError, match=r"estimator='permutation\(permutations=2\)' or estimator=owen"):
        select_cells([scar[0], scar[2]])
    assert narrow([*scar, sparse], estimator="permutation") == [*scar[:2], sparse]
    assert narrow([*scar, sparse], estimator="permutation(permutations=4)") == [scar[1], sparse]
    assert narrow([*scar, sparse], estimator="owen") == [scar[2], sparse]
    line = cells_of(markdown_of(scar[:1]), "SCAR")[0]
    assert line[1] == "token, permutation(permutations=2), alpha 0.8"


@pytest.mark.parametrize("key", ["ppo.kl_coef", "models.policy", "generation.temperature", "evaluation.prompts"])
def test_methods_that_do_not_share_their_settings_are_refused(make_run, key):
    runs = [make_run("sparse", 1), make_run("scar", 1, config={key: 9})]
    with pytest.raises(ValueError) as error:
        markdown_of(runs)
    for part in ("unfair", str(runs[0].path), str(runs[1].path), f"{key}: "):
        assert part in str(error.value)


def test_methods_that_start_from_other_models_are_refused(make_run):
    with pytest.raises(ValueError, match="model_seed: 1 / 2"):
        check_fairness([make_run("sparse", 1), make_run("scar", 1, model_seed=2)])


def test_alpha_may_differ_between_methods_and_everything_between_tasks(make_run):
    check_fairness([make_run("uniform", 1, alpha=1.0, config={}), make_run("scar", 1)])
    check_fairness([make_run("scar", 2), make_run("scar", 1, task="tldr", config={"ppo.kl_coef": 0.05})])


def test_no_fitting_record_is_an_error(make_run):
    with pytest.raises(ValueError, match="no record fits"):
        select_cells([make_run("scar", 1)], seeds=[2])


def test_a_record_with_a_lost_row_or_key_is_named(make_run):
    run = make_run("scar", 1)
    rows = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run.path / "metrics.jsonl").write_text("".join(rows[:2] + rows[3:]))
    with pytest.raises(ValueError, match=r"imdb-scar-1/metrics\.jsonl does not hold updates 1 to 5"):
        runs_frame([run])
    other = make_run("scar", 2)
    (other.path / "evaluation.json").write_text('{"initial": {"reward_mean": 0.0}, "final": {}}')
    with pytest.raises(ValueError, match="imdb-scar-2 has no 'distinct_bigrams_mean'"):
        runs_frame([other])
