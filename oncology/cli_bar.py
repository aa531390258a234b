"""The bar that long commands show, on standard error."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)


def counted(*more: ProgressColumn) -> Progress:
    """What is done, how much of how much, whatever `more` says, and for how long."""
    counts = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*counts, *more, TimeElapsedColumn(), console=Console(stderr=True))
