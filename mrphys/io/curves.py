"""Curves of concentration in tables, as measured arterial inputs come."""

import csv
from pathlib import Path

import numpy as np

from mrphys.errors import InputError, Problem
from mrphys.perfusion import HAEMATOCRIT, ArterialInput, arterial_input

COLUMNS = ("blood_mmol_per_l", "plasma_mmol_per_l")


def read_arterial_input(path: str | Path, haematocrit: float = HAEMATOCRIT) -> ArterialInput:
    """A measured input of a table (TSV) with the columns time_s, after the first image, and one of
    blood_mmol_per_l, which the haematocrit makes plasma, or plasma_mmol_per_l.

    Raises InputError for a file that cannot be read, columns that are missing, what is no number,
    and as `arterial_input`.
    """
    where = str(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, ValueError) as error:
        found = f"a file that cannot be read ({error})"
        raise InputError(Problem(where, found, "a table of tab-separated values")) from error
    there = [name for name in rows[0] if name] if rows else []
    kind = next((name for name in COLUMNS if name in there), None)
    if kind is None or "time_s" not in there:
        found = f"columns {', '.join(there) or 'none'}"
        expected = f"time_s and {' or '.join(COLUMNS)}"
        raise InputError(Problem(where, found, expected, "commas for tabs, or no header"))
    try:
        times, values = (np.array([row[name] for row in rows], float) for name in ("time_s", kind))
    except (TypeError, ValueError) as error:
        raise InputError(Problem(where, str(error), "a number in every row")) from error
    return arterial_input(times, values, haematocrit if kind == COLUMNS[0] else 0.0)
