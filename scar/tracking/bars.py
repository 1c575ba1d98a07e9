"""How progress looks on a terminal."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from scar.printing import printing


class QuietProgress(Progress):
    """A display that ends no work where it cannot be drawn."""

    def stop(self) -> None:
        """Draw the last state and stop."""
        with printing():
            super().stop()

    def say(self, line: str) -> None:
        """Print a line above the display, or below it when it has stopped."""
        with printing():
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)


def progress_bar() -> QuietProgress:
    """The one look of all progress displays: what, bar, done/all, rate, elapsed, time left, last numbers.

    The last numbers get what width remains and are cut there, so that the rest stays readable on 80 columns.
    """

    def fixed(width: int) -> Column:
        return Column(no_wrap=True, min_width=width)

    return QuietProgress(
        TextColumn("{task.description}", table_column=fixed(4)),
        BarColumn(bar_width=10, table_column=fixed(10)),
        MofNCompleteColumn(table_column=fixed(5)),
        TextColumn("{task.fields[rate]}", table_column=fixed(8)),
        TextColumn("[dim]after[/]", table_column=fixed(5)),
        TimeElapsedColumn(table_column=fixed(7)),
        TextColumn("[dim]left[/]", table_column=fixed(4)),
        TimeRemainingColumn(table_column=fixed(7)),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        expand=True,
    )
