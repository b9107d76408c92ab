"""The metrics as a table on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def show(values: dict[str, Any]) -> None:
    """Print the metrics as a table."""
    table = Table("metric", "value")
    for name, value in values.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
