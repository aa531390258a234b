"""On which day what happens: the two tables of a patient folder, scans and treatments."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mrphys.errors import Problem

TREATMENT_UNITS = {
    "radiotherapy": "Gy",
    "radionuclide": "Gy",
    "chemotherapy": "relative",
    "immunotherapy": "relative",
    "resection": "relative",
}


@dataclass(frozen=True)
class Treatment:
    """One dose: Gy per fraction for radiation, relative to the standard dose for the rest."""

    day: float
    kind: str
    dose: float
    unit: str
    agent: str = ""


def _read_table(path: Path, columns: Sequence[str], problems: list[Problem]) -> list[dict]:
    """Rows of a tab-separated table as dictionaries, each with its place under "where"."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter="\t", restval="", restkey="beyond")
            rows = [{"where": f"{path}, line {reader.line_num}", **row} for row in reader]
            header = list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.append(Problem(str(path), str(error), "a tab-separated table", "a damaged file"))
        return []
    if not set(columns) <= set(header):
        cause = "columns parted by commas or spaces instead of tabs" if len(header) == 1 else ""
        found = f"columns {', '.join(header)}" if header else "an empty file"
        problems.append(Problem(str(path), found, f"columns {', '.join(columns)}", cause))
        return []
    if not rows:
        problems.append(Problem(str(path), "a header without rows", "at least one row"))
    return rows


def _number(row: dict, column: str, problems: list[Problem]) -> float:
    """A finite number from a table; NaN, and a problem, where there is none."""
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        cause = "a date instead of days since the first scan" if "-" in row[column][1:] else ""
        expected = f"a number in column {column}"
        problems.append(Problem(row["where"], repr(row[column]), expected, cause))
        return math.nan
    return value


def read_days(path: Path, problems: list[Problem]) -> list[tuple[str, float]]:
    """Sessions with their days, which must increase."""
    days = []
    for row in _read_table(path, ("session_id", "day"), problems):
        session = "ses-" + row["session_id"].strip().removeprefix("ses-")
        day = _number(row, "day", problems)
        if session in (earlier for earlier, _ in days) or session == "ses-":
            problems.append(Problem(row["where"], repr(session), "a session of its own"))
            continue
        if days and day <= days[-1][1]:
            expected = f"a day after {days[-1][1]:g}, that of {days[-1][0]}"
            cause = "two sessions on one date" if day == days[-1][1] else "rows out of order"
            problems.append(Problem(row["where"], f"day {day:g}", expected, cause))
        days.append((session, day))
    return days


def read_treatments(path: Path, problems: list[Problem]) -> list[Treatment]:
    """Doses in order of day; the column `agent` may be missing."""
    treatments = []
    for row in _read_table(path, ("day", "kind", "dose", "unit"), problems):
        day, dose = _number(row, "day", problems), _number(row, "dose", problems)
        kind = row["kind"].strip().lower()
        if dose < 0:
            problems.append(Problem(row["where"], f"dose {dose:g}", "zero or more", "a sign"))
        if kind not in TREATMENT_UNITS:
            expected = f"one of {', '.join(TREATMENT_UNITS)}"
            problems.append(Problem(row["where"], f"kind {row['kind']!r}", expected))
            continue
        unit = TREATMENT_UNITS[kind]
        if row["unit"].strip().lower() != unit.lower():
            expected = f"{unit} for {kind}"
            cause = "an absolute dose; divide by the standard one" if unit == "relative" else ""
            problems.append(Problem(row["where"], f"unit {row['unit']!r}", expected, cause))
        treatments.append(Treatment(day, kind, dose, unit, (row.get("agent") or "").strip()))
    return sorted(treatments, key=lambda treatment: treatment.day)


def write_table(path: Path, rows: Sequence[tuple]) -> None:
    """Write rows, the first of them the header, parted by tabs."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)
