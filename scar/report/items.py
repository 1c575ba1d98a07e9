"""What there is to report: each table and figure with its title, the command that makes its runs, its files; what is asked for."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scar.identity import name_now
from scar.report.claims import (
    Verdict,
    critic_verdicts,
    kl_verdict,
    reward_verdicts,
    time_verdicts,
    units_verdicts,
    verdicts_markdown,
)
from scar.report.comparisons import comparisons_csv, comparisons_markdown
from scar.report.costs import costs_csv, costs_markdown
from scar.report.credit_items import CREDIT_ITEMS, credit_verdicts
from scar.report.figures import FIGURES, Variants, figure2, figure2_curves, line_numbers, select_variants
from scar.report.files import Files, as_json, identities
from scar.report.page import Section, page
from scar.report.released import COMMAND, released_files
from scar.report.selection import FLAGS, FOLDERS, Cells, NoRunError, Sources, select_cells
from scar.report.style import image_files
from scar.report.sweeps import frontier_figure, paired_markdown, sweep_csv, sweep_markdown
from scar.report.table2 import judged_verdicts, table2_csv, table2_markdown
from scar.report.tables import table1_csv, table1_markdown
from scar.tracking.judgements import JudgementRecord, find_judgements
from scar.tracking.records import RunRecord


@dataclass(frozen=True)
class Item:
    """A table or figure: `command` makes what it needs, `build` turns records into its files."""

    title: str
    command: str
    build: Callable[[Sources], Files]


def _table1(sources: Sources) -> Files:
    return table1_files(sources.cells())


def _costs(sources: Sources) -> Files:
    """Table 1's runs and, where there are any, those of other units."""
    runs = sources.runs()
    with suppress(NoRunError):
        runs += sources.runs(sources.units)
    return cost_files(runs, scale=sources.scale)


def _variants(name: str, sources: Sources) -> Variants:
    """The runs of Figure 3, 4 or 5: Table 1's, and those of other units where the figure has several."""
    figure = FIGURES[name]
    several_units = len({variant.units for variant in figure.variants if variant.units}) > 1
    own = sources.of_task(figure.task)
    records = own.runs(*([sources.records, sources.units] if several_units else [sources.records]))
    return select_variants(records, figure.task, figure.variants_in(records), seeds=sources.seeds)


def _curves(name: str, sources: Sources) -> Files:
    return curve_files(name, _variants(name, sources))


def _judgements(sources: Sources) -> list[JudgementRecord]:
    """The judgings that fit what was asked for; NoRunError if there is none."""
    wanted: dict[str, Any] = {"scale": sources.scale, "seed": list(sources.seeds)}
    wanted |= {"task": list(sources.tasks)} if sources.tasks else {}
    wanted |= {"model_seed": sources.model_seed} if sources.model_seed is not None else {}
    wanted |= {"judge": sources.judge} if sources.judge else {}
    judgements = find_judgements(sources.judgements, **wanted)
    if not judgements:
        raise NoRunError(
            f"no judgement in {sources.judgements} of scale={sources.scale}; make reproduce-table2 makes them"
        )
    return judgements


def _table2(sources: Sources) -> Files:
    return table2_files(_judgements(sources), wanted_seeds=len(sources.seeds))


ITEMS = {
    "table1": Item("Table 1 and Figure 2: rewards of all methods", "make reproduce-table1", _table1),
    "table2": Item("Table 2: pairwise preference", "make reproduce-table2", _table2),
    "figure3": Item("Figure 3: reward and KL", "make reproduce-fig3", partial(_curves, "figure3")),
    "figure4": Item("Figure 4: reward and device time", "make reproduce-fig4", partial(_curves, "figure4")),
    "figure5": Item("Figure 5: token and span units", "make reproduce-fig5", partial(_curves, "figure5")),
    "released": Item("As written and as released: what makes the paper's numbers", COMMAND, released_files),
    "costs": Item("What runs cost", "make reproduce-table1", _costs),
    **{name: Item(title, "make reproduce-fig1", build) for name, (title, build) in CREDIT_ITEMS.items()},
}
"""Every item by the name of its target, in the order of the page."""


def report(target: str, sources: Sources, *, name: str = "sweep") -> Files:
    """The files of one target: a key of `ITEMS`, "sweep" (all runs in `sources.records`, as files called `name`) or "all"."""
    if target == "all":
        return _everything(sources)
    if target == "sweep":
        return sweep_files(sources.runs(), name=name)
    return ITEMS[target].build(sources)


def _everything(sources: Sources) -> Files:
    """Every item that has what it needs, the verdicts, and a page of all, which says what is missing and why."""
    files: Files = {}
    sections = []
    for item in ITEMS.values():
        try:
            own = item.build(sources)
        except (ValueError, OSError) as error:
            sections.append(Section(item.title, {}, f"{error} ({item.command} SCALE={sources.scale})"))
            continue
        files |= own
        sections.append(Section(item.title, own, None))
    if not files:
        raise ValueError(f"nothing to report: {sections[0].missing}")
    results = verdicts(sources)
    title = f"The paper's claims, scale {sources.scale}"
    files["verdicts.md"] = verdicts_markdown(results, title=title).encode()
    first = Section(title, {"verdicts.md": files["verdicts.md"]}, None)
    unfinished = [str(path) for path in sources.unfinished()]
    return files | {"report.html": page(sources.scale, [first, *sections], unfinished)}


def verdicts(sources: Sources) -> list[Verdict]:
    """A verdict on every claim, taken alone (`verdicts_markdown` corrects them): "not run" where its runs are missing, "cannot
    be said" where they cannot be compared."""
    curves = {name: partial(_variants_or_none, name, sources) for name in FIGURES}
    groups: list[tuple[str, Callable[[], list[Verdict]]]] = [
        ("Table 1", lambda: reward_verdicts(_cells_or_none(sources))),
        ("Figure 3", lambda: [kl_verdict(curves["figure3"]())]),
        ("Figure 4", lambda: time_verdicts(curves["figure4"]())),
        ("Figure 5", lambda: units_verdicts(curves["figure5"]())),
        ("Table 2", lambda: judged_verdicts(_judgements_or_none(sources))),
        ("Figure 1", lambda: credit_verdicts(sources)),
        ("value function", lambda: _critic(sources)),
    ]
    results: list[Verdict] = []
    for source, make in groups:
        try:
            results += make()
        except ValueError as error:
            results.append(Verdict(f"the claims of {source}", source, "cannot be said", str(error)))
    return results


def _cells_or_none(sources: Sources) -> Cells:
    """Table 1's runs; cells without any where there is none."""
    try:
        return sources.cells()
    except NoRunError:
        return sources.no_cells()


def _variants_or_none(name: str, sources: Sources) -> Variants:
    try:
        return _variants(name, sources)
    except NoRunError:
        return Variants(FIGURES[name].task, list(sources.seeds), {})


def _judgements_or_none(sources: Sources) -> list[JudgementRecord]:
    try:
        return _judgements(sources)
    except NoRunError:
        return []


def _critic(sources: Sources) -> list[Verdict]:
    """What a better value function leaves of the main claim, where that ablation was run."""
    try:
        runs = sources.runs(sources.critic, method=["sparse", "scar"])
    except NoRunError:
        return []
    separate = [record for record in runs if record.manifest["settings"]["ppo"]["value_net"] == "separate"]
    if not separate:
        return []
    cells = select_cells(separate, methods=["sparse", "scar"], seeds=sources.seeds, experiment="ablation_value_net")
    return critic_verdicts(_cells_or_none(sources), cells)


TARGETS: Sequence[str] = (*ITEMS, "sweep", "all")


# The files of tables and figures of runs, as bytes by name, and how they reach a folder whole.


def table1_files(cells: Cells) -> Files:
    """Table 1, Figure 2 and the comparisons of methods, which rest on the same runs; a .json beside each names those runs."""
    origin = {"records": identities(cells.records), "missing": _missing(cells), "left_out": cells.left_out}
    verdicts = verdicts_markdown(reward_verdicts(cells), title="Claims of Table 1 and Figure 2")
    return {
        "table1.md": table1_markdown(cells).encode(),
        "table1.csv": table1_csv(cells).encode(),
        "table1.json": as_json(origin),
        **image_files("figure2", figure2(cells)),
        "figure2.json": as_json(origin | figure2_curves(cells)),
        "comparisons.md": f"{verdicts}\n## Comparisons\n\n{comparisons_markdown(cells)}".encode(),
        "comparisons.csv": comparisons_csv(cells).encode(),
    }


def curve_files(name: str, chosen: Variants) -> Files:
    """Figure 3, 4 or 5 (`name` is a key of `FIGURES`), and a .json with its numbers and runs."""
    figure = FIGURES[name]
    origin = {"records": identities(chosen.records), "missing": chosen.missing, "left_out": chosen.left_out}
    files = image_files(name, figure.draw(chosen))
    return files | {f"{name}.json": as_json(origin | {"curves": line_numbers(chosen, figure.x)})}


def cost_files(records: list[RunRecord], *, scale: str) -> Files:
    """What runs cost, and a .json with those runs."""
    return {
        "costs.md": costs_markdown(records, scale=scale).encode(),
        "costs.csv": costs_csv(records).encode(),
        "costs.json": as_json({"records": identities(records)}),
    }


def table2_files(judgements: Sequence[JudgementRecord], *, wanted_seeds: int) -> Files:
    """Table 2, and a .json with the judgements behind it."""
    names = ("task", "judge", "label", "method", "baseline", "seed", "runs")
    origin = [{"path": r.path.as_posix()} | {name: r.manifest[name] for name in names} for r in judgements]
    return {
        "table2.md": table2_markdown(judgements, wanted_seeds=wanted_seeds).encode(),
        "table2.csv": table2_csv(judgements).encode(),
        "table2.json": as_json({"judgements": origin}),
    }


def sweep_files(records: Sequence[RunRecord], *, name: str) -> Files:
    """The tables of a sweep as markdown, its rows as CSV and its figure of reward against KL; a .json beside them names its
    runs."""
    return {
        f"{name}.md": (sweep_markdown(records) + paired_markdown(records)).encode(),
        f"{name}.csv": sweep_csv(records).encode(),
        **image_files(name, frontier_figure(records)),
        f"{name}.json": as_json({"records": identities(records)}),
    }


def _missing(cells: Cells) -> list[dict[str, Any]]:
    return [{"task": t, "method": m, "seeds": seeds} for (t, m), seeds in cells.missing().items()]


# What conf/tools/report.yaml asks for.


@dataclass(frozen=True)
class Request:
    """What a user asks for. `records` is a folder, or names where in W&B the records are; `sources` holds the rest.
    `record`: the folder of the one credit record to draw; `item`: the response of it that Figure 1 shows."""

    target: str
    records: str
    sources: Sources
    results: Path
    name: str
    record: Path | None
    item: int | None


def read_request(settings: Mapping[str, Any]) -> Request:
    """From the settings of conf/tools/report.yaml; ValueError for a value that cannot be."""
    target, record, item = settings["target"], settings["record"], settings["item"]
    if target not in TARGETS:
        nearest = difflib.get_close_matches(str(target), TARGETS, n=1)
        hint = f"did you mean target={nearest[0]}? " if nearest else ""
        raise ValueError(f"target={target}: {hint}allowed: {' '.join(TARGETS)}")
    for names, kind in (("tasks", str), ("methods", str), ("seeds", int)):
        _check_list(names, settings[names], kind)
    for name, types in _TYPES.items():
        value = settings[name]
        if value is not None and (isinstance(value, bool) or not isinstance(value, types)):
            raise ValueError(f"{name}={value}; allowed: {' or '.join(kind.__name__ for kind in types)}")
    if (record is not None and target != "credit") or (item is not None and record is None):
        raise ValueError(
            "record=FOLDER is for target=credit, and item=NUMBER for a record: report.py target=credit record=FOLDER item=0"
        )
    methods = None if settings["methods"] is None else list(dict.fromkeys(map(name_now, settings["methods"])))
    folders: dict[str, Any] = {folder: Path(settings[folder]) for folder in FOLDERS}
    sources = Sources(
        **{name: settings[name] for name in ("scale", "tasks", "seeds", "model_seed", "judge")},
        methods=methods,
        settings={key: settings[key] for key in FLAGS},
        **folders,
    )
    folder = None if record is None else Path(record)
    return Request(target, settings["records"], sources, Path(settings["results"]), settings["name"], folder, item)


_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("model_seed", "item"), (int,)),
    "alpha": (int, float),
    **dict.fromkeys(("judge", "estimator", "segmentation", "device", "record"), (str,)),
}
"""Of the settings that may be null."""


def _check_list(name: str, values: Any, kind: type) -> None:
    if values is None and name != "seeds":
        return
    if not isinstance(values, list):
        raise ValueError(f'{name}={values}: write a list: "{name}=[{values}]"')
    if not values or not all(type(value) is kind for value in values) or len(set(values)) < len(values):
        what = "whole numbers" if kind is int else "names"
        raise ValueError(f"{name}=[{','.join(map(str, values))}]; allowed: different {what}, one or more")
