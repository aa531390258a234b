"""One patient, one page: a forecast as a self-contained HTML file that opens offline and prints.

The page holds its pictures and style inside itself, loads nothing and runs no script. It says what
was forecast and how sure the model is, shows it in slices and in time, sets every score beside that
of "the last observed map stays", and lists warnings and provenance. Same input, same bytes.
"""

import io
import math
import os
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from mrphys.errors import InputError, Problem
from oncology import figures
from oncology.figures import FORECAST, FORECAST_LINE, OBSERVED, Curve, Pictures

SCORES = {
    "ccc": ("Concordance correlation, CCC", "", "higher"),
    "pearson": ("Pearson correlation", "", "higher"),
    "dice": ("Dice overlap", "", "higher"),
    "crps": ("Continuous ranked probability score, CRPS", "", "lower"),
    "volume_error_percent": ("Volume error", " %", "nearer 0"),
    "total_error_percent": ("Total cellularity error", " %", "nearer 0"),
}
QUANTITIES = {"volume_mm3": "Tumour volume", "total_cellularity_mm3": "Total cellularity"}


def render(summary: dict, pictures: Pictures) -> str:
    """The page for one forecast.

    `summary` is the content of the forecast's JSON file: subject, model, calibrated_on, predicted,
    parameters, observation, visits, persistence, warnings, provenance; null, NaN and missing
    scores print as a dash. Volumes print in cm³ where any reaches 1000 mm³.
    """
    subject = escape(str(summary["subject"]))
    parts = (
        _headline(summary, pictures),
        _slices(summary, pictures),
        _in_time(summary, pictures),
        _scores(summary),
        _parameters(summary),
        _warnings(summary),
        _provenance(summary),
    )
    return _PAGE.format(subject=subject, style=_STYLE, body="\n".join(parts))


def write_report(path: str | os.PathLike, summary: dict, pictures: Pictures) -> None:
    """Write the page to `path` at once or not at all; InputError where that is not possible."""
    page = render(summary, pictures)
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        found = error.strerror or str(error)
        raise InputError(
            Problem(str(path), found, "a file in a folder that exists and can be written")
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def number(value: float | None, scale: float = 1.0, signed: bool = False) -> str:
    """`scale * value` to three significant digits, as HTML; a dash for what is missing.

    >>> number(0.04567), number(12345.6, scale=1e-3), number(None), number(-0.5, signed=True)
    ('0.0457', '12.3', '–', '−0.500')
    >>> number(2.5e-5), number(3.0, signed=True), number(float("inf"))
    ('2.50 × 10<sup>−5</sup>', '+3.00', '∞')
    """
    if not _known(value):
        return "–"
    sign = "−" if value < 0 else "+" if signed and value > 0 else ""
    size = abs(scale * value)
    if math.isinf(size):
        return f"{sign}∞"
    mantissa, _, exponent = f"{size:.2e}".partition("e")
    power = int(exponent)
    if -4 <= power <= 5:
        return f"{sign}{size:,.{max(0, 2 - power) if size else 0}f}"
    return f"{sign}{mantissa} × 10<sup>{str(power).replace('-', '−')}</sup>"


def volume_unit(volumes_mm3: Iterable[float | None]) -> tuple[float, str]:
    """Factor from mm³, and its unit: cm³ where any volume reaches 1000 mm³, else mm³."""
    known = [v for v in volumes_mm3 if _known(v) and math.isfinite(v)]
    return (1e-3, "cm³") if max(known, default=0.0) >= 1000 else (1.0, "mm³")


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)


def _text(value: object) -> str:
    return escape(str(value))


def _visit_name(session: str | None, day: float) -> str:
    return f"{_text(session)}, day {day:g}" if session else f"day {day:g}"


def _observed(visit: dict, quantity: str) -> float | None:
    return (visit.get("observed") or {}).get(quantity)


def _estimate(visit: dict, quantity: str) -> dict:
    return (visit.get("forecast") or {}).get(quantity) or {}


def _units(summary: dict, pictures: Pictures) -> dict[str, tuple[float, str]]:
    """One unit for each quantity in tiles, tables and curves alike."""
    units = {}
    for quantity in QUANTITIES:
        volumes_mm3 = [float(value) for value in getattr(pictures.curve, quantity).high95]
        for visit in summary["visits"]:
            volumes_mm3 += [_observed(visit, quantity), _estimate(visit, quantity).get("high95")]
        units[quantity] = volume_unit(volumes_mm3)
    return units


def _interval(estimate: dict, scale: float = 1.0, unit: str = "") -> str:
    low, high = estimate.get("low95"), estimate.get("high95")
    if not (_known(low) and _known(high)):
        return "–"
    return f"{number(low, scale)} to {number(high, scale)}{unit}"


def _scored_pairs(summary: dict) -> list[tuple[dict, dict]]:
    """Visits with at least one score, each beside persistence's scores for the same day."""
    rivals = {visit["day"]: visit for visit in summary.get("persistence") or []}
    return [
        (visit, rivals.get(visit["day"], {}))
        for visit in summary["visits"]
        if any(_known(visit.get(score)) for score in SCORES)
    ]


def _winner(score: str, forecast: dict, persistence: dict) -> str:
    ours, theirs = forecast.get(score), persistence.get(score)
    if not (_known(ours) and _known(theirs)):
        return ""
    loss = {"higher": lambda v: -v, "lower": lambda v: v, "nearer 0": abs}[SCORES[score][2]]
    ours, theirs = loss(ours), loss(theirs)
    return "tie" if ours == theirs else "forecast" if ours < theirs else "persistence"


def _headline(summary: dict, pictures: Pictures) -> str:
    session, day = summary["predicted"]["session"], summary["predicted"]["day"]
    visit = next((v for v in summary["visits"] if v["day"] == day), {})
    tiles = []
    for quantity, (scale, unit) in _units(summary, pictures).items():
        estimate, observed = _estimate(visit, quantity), _observed(visit, quantity)
        low, high = estimate.get("low95"), estimate.get("high95")
        if _known(observed) and _known(low) and _known(high):
            verdict = f"{'inside' if low <= observed <= high else 'outside'} the 95 % interval"
        else:
            verdict = "no forecast to compare with" if _known(observed) else "not observed"
        for kind, value, note in (
            (
                "forecast",
                estimate.get("mean"),
                f"95 % interval {_interval(estimate, scale, f' {unit}')}",
            ),
            ("observed", observed, verdict),
        ):
            shown = number(value, scale) + (f" <small>{unit}</small>" if _known(value) else "")
            label = f"{QUANTITIES[quantity]}, {kind}"
            tiles.append(f'<div><p>{label}</p><p class="big">{shown}</p><p>{note}</p></div>')
    pairs = [pair for pair in _scored_pairs(summary) if pair[0] is visit]
    winners = [winner for pair in pairs for score in SCORES if (winner := _winner(score, *pair))]
    verdict = (
        "Against “nothing changes after the last scan” (persistence) the forecast is better on "
        f"{winners.count('forecast')} of {len(winners)} scores."
        if winners
        else "There is no observation on that day, or no rival, to score the forecast against."
    )
    count = len(summary["warnings"])
    flag = f'<a class="flag" href="#warnings">{count} warning{"s" * (count > 1)}</a>'
    calibrated = ", ".join(map(_text, summary["calibrated_on"])) or "no visit"
    return f"""<header>
<p class="kicker">Tumour forecast</p>
<h1>{_text(summary["subject"])}: {_visit_name(session, day)}</h1>
<p>Calibrated on {calibrated}. {verdict} {flag if count else "No warnings."}</p>
<p class="model">{_text(summary["model"])}</p>
</header>
<div class="tiles">{"".join(tiles)}</div>
<p class="caveat"><strong>Research tool. Not a medical device; not for clinical decisions.</strong>
A forecast holds only as far as its model does: the intervals describe what the model does not know
about this patient, not what the model leaves out.</p>"""


def _figure(sheet: "figures.Sheet | None", alt: str, caption: str) -> str:
    if sheet is None:
        return ""
    width = f"{sheet.width_percent:.1f}%"
    return (
        f'<figure><img src="{sheet.uri}" alt="{_text(alt)}" style="--share:{width}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _slices(summary: dict, pictures: Pictures) -> str:
    day = f"day {summary['predicted']['day']:g}"
    seen, last = pictures.predicted, pictures.last_outlined
    legend = '<span class="key forecast"></span> forecast'
    if seen is not None and seen.mask is not None:
        legend = f'<span class="key observed"></span> observed on {day}, {legend}'
    elif last is not None:
        legend = f'<span class="key last"></span> last observed, day {last.day:g}, {legend}'
    if not np.any(pictures.forecast_mask):
        legend += " (empty: no voxel of the mean is above the threshold)"
    background = "" if pictures.anatomy is not None else " No anatomical image was given."
    if background and pictures.tissue is not None:
        background += " The grey background is the tissue mask."
    measured = (
        f" Colour: measured cellularity within {figures.MEASURED_RIM_MM:g} mm of the outline, "
        "fading out below 0.2."
        if any(visit.cellularity is not None for visit in pictures.earlier)
        else ""
    )
    visits = _figure(
        figures.visits_sheet(pictures),
        "The same slice at each earlier visit with the observed tumour outlined",
        'Visits before the predicted day, same slice. <span class="key observed"></span> observed '
        f"tumour.{measured}",
    )
    forecast = _figure(
        figures.forecast_sheet(pictures),
        f"Slices on {day}: outlines of observed and forecast tumour, forecast mean cellularity and "
        "its standard deviation",
        f"Prediction for {day}. Outlines: {legend}. The slices cut the most tumour. The sd map "
        f"holds parameter, initial-map, model and step uncertainty, without observation noise.",
    )
    further = _figure(
        figures.further_sheet(pictures),
        f"Outlines on {day} in other slices through the tumour",
        f"The same outlines on {day} in further slices, by their distance from the first.",
    )
    return f"""<section><h2>In the images</h2>
<p class="note">Radiological convention: the patient’s right (R) is on the left of axial and coronal
slices; A anterior, P posterior, S superior, I inferior.{background}</p>
{visits}{forecast}{further}</section>"""


def _in_time(summary: dict, pictures: Pictures) -> str:
    courses: dict[tuple, list[float]] = {}
    for day, kind, dose, agent in pictures.treatments:
        courses.setdefault((kind, agent, dose), []).append(day)
    given = []
    for (kind, agent, dose), days in courses.items():
        unit = " Gy" if kind in ("radiotherapy", "radionuclide") else " (relative)"
        amount = f", {len(days)} × {dose:g}{unit}" if _known(dose) else f", {len(days)} ×"
        when = f"day {days[0]:g}" if len(days) == 1 else f"days {min(days):g} to {max(days):g}"
        given.append(f"{_text(kind)}{f' {_text(agent)}' if agent else ''}{amount}, {when}")
    treatments = f" Treatment: {'; '.join(given)}." if given else " No treatment is recorded."
    units = _units(summary, pictures)
    rows = []
    for visit in summary["visits"]:
        used = visit["session"] in summary["calibrated_on"]
        use = "calibration" if used else "predicted" if visit.get("forecast") else "–"
        cells = [_text(visit["session"] or "–"), use, f"{visit['day']:g}"]
        for quantity, (scale, _) in units.items():
            estimate = _estimate(visit, quantity)
            forecast = f"{number(estimate.get('mean'), scale)} ({_interval(estimate, scale)})"
            cells += [number(_observed(visit, quantity), scale), forecast if estimate else "–"]
        rows.append(cells)
    heads = ["Session", "Use", "Day"]
    for quantity, label in QUANTITIES.items():
        short, unit = label.removeprefix("Tumour ").capitalize(), units[quantity][1]
        heads += [f"{short}, observed [{unit}]", f"{short}, forecast (95 %) [{unit}]"]
    return f"""<section><h2>In time</h2>
<figure class="curves">{_curves(summary, pictures, units)}<figcaption>
Total cellularity is the integral of the fraction of carrying capacity over the tissue: the volume
the cells would fill if packed as densely as they can be.{treatments}</figcaption></figure>
{_table(heads, rows, numeric_from=2)}</section>"""


def _table(heads: list[str], rows: list[list[str]], numeric_from: int, kind: str = "") -> str:
    def line(cells, tag):
        return "".join(
            f"<{tag}{' class=n' if i >= numeric_from else ''}>{cell}</{tag}>"
            for i, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return (
        f'<table class="{kind}"><thead><tr>{line(heads, "th")}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _scores(summary: dict) -> str:
    tables = []
    for visit, rival in _scored_pairs(summary):
        rows = []
        for score, (label, unit, wanted) in SCORES.items():
            winner = _winner(score, visit, rival)
            cells = []
            for name, value in (("forecast", visit.get(score)), ("persistence", rival.get(score))):
                shown = number(value, signed=bool(unit)) + (unit if _known(value) else "")
                cells.append(f"<strong>✓ {shown}</strong>" if winner == name else shown)
            rows.append([label, *cells, wanted])
        if _known(visit.get("coverage95")):
            share = f"{100 * visit['coverage95']:.0f} %"
            rows.append(["Voxels inside their 95 % interval", share, "–", "nearer 95 %"])
        name = _visit_name(visit["session"], visit["day"])
        heads = [name, "Forecast", "Persistence", "Better is"]
        tables.append(_table(heads, rows, numeric_from=1, kind="scores"))
    absent = "" if summary.get("persistence") else " Persistence was not scored."
    note = f"""<p class="note">Persistence means that the last observed map stays as it is: the
rival every forecast must beat. ✓ marks the better of the two.{absent}</p>"""
    nothing = "<p>No observation on a predicted day: nothing to score.</p>"
    body = "".join(tables) + note if tables else nothing
    return f"<section><h2>Against what was seen</h2>{body}</section>"


def _parameters(summary: dict) -> str:
    parameters = summary["parameters"]
    ratios = {name: _ratios(estimate) for name, estimate in parameters.items()}
    far = [abs(math.log(r)) for known in ratios.values() for r in known.values()]
    reach = min(max([*far, math.log(1.05)]), math.log(10.0))
    known_truth = any(_known(p.get("truth")) for p in parameters.values())
    heads = ["Parameter", "Unit", "Mean", "sd", "95 % interval", *["Truth"] * known_truth]
    heads.append(f"÷{math.exp(reach):.3g} … mean … ×{math.exp(reach):.3g}")
    rows = [
        [
            f"<code>{_text(name)}</code>",
            _text(estimate["unit"]) or "1",
            number(estimate["mean"]),
            number(estimate["sd"]),
            _interval(estimate),
            *[number(estimate.get("truth"))] * known_truth,
            _whisker(ratios[name], reach),
        ]
        for name, estimate in parameters.items()
    ]
    observation = summary["observation"]
    seen = "; ".join(
        f"{label} {number(observation.get(key), scale)}{unit}"
        for key, label, scale, unit in (
            ("adc_w_mm2_per_s", "ADC of free water", 1e3, " × 10⁻³ mm²/s"),
            ("adc_min_mm2_per_s", "ADC of the densest tissue", 1e3, " × 10⁻³ mm²/s"),
            ("noise_sd_cellularity", "noise sd of a voxel’s cellularity", 1.0, " of capacity"),
            ("threshold", "tumour is where cellularity exceeds", 1.0, " of carrying capacity"),
        )
        if _known(observation.get(key))
    )
    truth = " ◇ truth (virtual patient)." if known_truth else ""
    return f"""<section><h2>Parameters</h2>
{_table(heads, rows, numeric_from=2, kind="parameters")}
<p class="note">Whiskers: 95 % interval relative to the mean, on one logarithmic axis; an arrow
leaves the axis, nothing is drawn where the interval reaches zero or is unknown.{truth}</p>
<p class="note">Observation: {seen or "not stated"}.</p></section>"""


def _ratios(estimate: dict) -> dict[str, float]:
    """Interval ends and truth relative to the mean; empty where a logarithm has no meaning."""
    known = {
        key: estimate[key]
        for key in ("mean", "low95", "high95", "truth")
        if _known(estimate.get(key)) and 0 < estimate[key] < math.inf
    }
    if not {"mean", "low95", "high95"} <= known.keys():
        return {}
    return {key: value / known["mean"] for key, value in known.items() if key != "mean"}


def _whisker(ratios: dict[str, float], reach: float) -> str:
    """A dot at the mean, a bar over the interval, a diamond at the truth; arrows leave the axis."""
    if not ratios:
        return "–"
    logs = {name: math.log(ratio) / reach for name, ratio in ratios.items()}
    at = {name: 90 + 80 * max(-1.0, min(1.0, log)) for name, log in logs.items()}
    bar = f"M{at['low95']:.1f} 9 H{at['high95']:.1f}"
    for end, inward in (("low95", 5), ("high95", -5)):
        tip = inward if abs(logs[end]) > 1 + 1e-9 else 0
        bar += f" M{at[end] + tip:.1f} 5 L{at[end]:.1f} 9 L{at[end] + tip:.1f} 13"
    truth = ""
    if "truth" in at:
        truth = f'<path class="truth" d="M{at["truth"]:.1f} 3.5 l5 5.5 l-5 5.5 l-5 -5.5 Z"/>'
    return (
        '<svg class="whisker" viewBox="0 0 180 18" role="img" aria-label="interval relative to the '
        'mean"><path class="axis" d="M10 9 H170 M90 2 V16"/>'
        f'<path d="{bar}"/><circle cx="90" cy="9" r="3.4"/>{truth}</svg>'
    )


def _warnings(summary: dict) -> str:
    items = "".join(f"<li>{_text(warning)}</li>" for warning in summary["warnings"])
    body = f"<ul>{items}</ul>" if items else "<p>No warnings.</p>"
    return f'<section id="warnings"><h2>Warnings</h2>{body}</section>'


def _provenance(summary: dict) -> str:
    provenance = summary["provenance"]
    versions = [[_text(k), _text(v)] for k, v in (provenance.get("versions") or {}).items()]
    inputs = [
        [_text(k), f"<code>{_text(v)}</code>"] for k, v in (provenance.get("inputs") or {}).items()
    ]
    seed, seconds = provenance.get("seed"), provenance.get("seconds")
    took = f" Computed in {number(seconds)} s." if _known(seconds) else ""
    return f"""<details><summary>Provenance: versions, input files, seed</summary>
<p>Random seed: {"none" if seed is None else _text(seed)}.{took}</p>
{_table(["Software", "Version"], versions, numeric_from=2)}
{_table(["Input file", "SHA-256"], inputs, numeric_from=2, kind="hashes")}</details>"""


def _curves(summary: dict, pictures: Pictures, units: dict[str, tuple[float, str]]) -> str:
    """Volume and total cellularity in time with 95 % bands, observations and treatment days."""
    import matplotlib
    from matplotlib.figure import Figure

    groups: dict[str, list[float]] = {}
    for day, kind, _, agent in pictures.treatments:
        groups.setdefault(str(agent or kind)[:22], []).append(day)
    strip_in = 0.15 * len(groups)
    with matplotlib.rc_context(_SVG_STYLE):
        figure = Figure(figsize=(7.6, 2.9 + strip_in), layout="constrained")
        rows = figure.subplots(2, 2, sharex=True, height_ratios=(max(strip_in, 0.01), 2.5))
        for axes, quantity in zip(rows[1], QUANTITIES, strict=True):
            _time_course(axes, summary, pictures.curve, quantity, *units[quantity])
        for column, axes in enumerate(rows[0]):
            axes.set(yticks=[], ylim=(len(groups) - 0.5, -0.5) if groups else None)
            axes.spines[:].set_visible(False)
            axes.tick_params(bottom=False, left=False, labelbottom=False)
            for row, days in enumerate(groups.values()):
                axes.vlines(days, row - 0.36, row + 0.36, color="#333333", lw=0.9)
            if column == 0 and groups:
                axes.set_yticks(range(len(groups)), groups, fontsize=7, parse_math=False)
        figure.legend(*rows[1, 0].get_legend_handles_labels(), loc="outside lower center",
                      ncols=6, frameon=False, fontsize=7.5, handlelength=1.8)  # fmt: skip
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    drawing = buffer.getvalue()
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", drawing[drawing.index("<svg") :])


def _time_course(axes, summary: dict, curve: Curve, quantity: str, scale: float, unit: str) -> None:
    band = getattr(curve, quantity)
    seen = [
        (visit["day"], value, visit["session"] in summary["calibrated_on"])
        for visit in summary["visits"]
        if _known(value := _observed(visit, quantity))
    ]
    axes.fill_between(curve.days, scale * band.low95, scale * band.high95, color=FORECAST,
                      alpha=0.35, lw=0, label="95 % interval")  # fmt: skip
    axes.plot(curve.days, scale * band.mean, color=FORECAST_LINE, lw=1.6, label="forecast mean")
    calibration = [(day, scale * value) for day, value, used in seen if used]
    held_out = [(day, scale * value) for day, value, used in seen if not used]
    last = summary["predicted"]["day"]
    if calibration:
        day, value = max(calibration)
        axes.plot([day, max(last, day)], [value] * 2, color="#666666", lw=1, ls=(0, (1, 1.5)),
                  label="persistence")  # fmt: skip
    marker = {"ls": "", "mec": "black", "mew": 0.8, "zorder": 4, "clip_on": False}
    for points, style, name in (
        (calibration, {"marker": "o", "mfc": OBSERVED, "ms": 5.5}, "observed, calibration"),
        (held_out, {"marker": "D", "mfc": "white", "ms": 5}, "observed, held out"),
    ):
        if points:
            axes.plot(*zip(*points, strict=True), label=name, **style, **marker)
    axes.axvline(last, color="#999999", lw=0.8, ls="--", zorder=0, label="predicted day")
    axes.set(xlabel="Days since the first scan", ylim=(0, None))
    axes.set_title(f"{QUANTITIES[quantity]} ({unit})", loc="left")


_SVG_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mrphys",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.titlesize": 8.5,
    "axes.linewidth": 0.7,
}
_STYLE = f"""
@page {{ size: A4; margin: 14mm }}
* {{ box-sizing: border-box }}
body {{ font: 15px/1.5 "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif;
  color: #1c1c1c; background: #fff; max-width: 1040px; margin: 0 auto; padding: 28px 32px 48px }}
h1 {{ font-size: 27px; line-height: 1.2; margin: 0 0 8px }}
h2 {{ font-size: 18px; margin: 34px 0 8px; padding-top: 10px; border-top: 1px solid #c8c8c8;
  break-after: avoid }}
p {{ margin: 6px 0 }}
.kicker {{ color: #666; margin: 0; letter-spacing: .04em }}
.model {{ font: italic 16px/1.4 Georgia, "Times New Roman", "Liberation Serif", serif }}
.tiles {{ display: grid; grid-template-columns: repeat(4, 1fr); gap: 0 24px; margin: 18px 0 }}
.tiles div {{ border-top: 2px solid #1c1c1c; padding-top: 6px }}
.tiles p {{ margin: 0; font-size: 13px; color: #555 }}
.tiles .big {{ font-size: 27px; line-height: 1.3; color: #1c1c1c }}
.big small {{ font-size: 15px }}
.caveat {{ border-left: 3px solid #a33; padding: 2px 0 2px 12px; font-size: 14px }}
.flag, .flag:visited {{ color: #a33; font-weight: 600 }}
.note, figcaption {{ font-size: 13px; color: #555 }}
figure {{ margin: 14px 0 20px; break-inside: avoid }}
figure img {{ display: block; width: var(--share) }}
figcaption {{ margin-top: 5px }}
.curves svg {{ width: 100%; height: auto }}
.curves svg text {{ font-family: inherit !important }}
.key {{ display: inline-block; width: 22px; border-top: 3px solid; margin: 0 3px 4px 0 }}
.key.observed {{ border-color: {OBSERVED} }}
.key.last {{ border-top-style: dotted; border-color: {OBSERVED} }}
.key.forecast {{ border-top-style: dashed; border-color: {FORECAST} }}
table {{ border-collapse: collapse; width: 100%; margin: 10px 0; font-size: 14px;
  font-variant-numeric: tabular-nums; break-inside: avoid }}
th {{ text-align: left; vertical-align: bottom; border-bottom: 1.5px solid #1c1c1c }}
th, td {{ padding: 4px 12px 4px 0 }}
td {{ border-bottom: 1px solid #e2e2e2 }}
.n {{ text-align: right }}
td.n {{ white-space: nowrap }}
.parameters :is(td, th):last-child {{ text-align: center; width: 190px; padding: 4px 0 }}
.whisker {{ width: 180px; height: 18px; vertical-align: middle }}
.whisker path {{ fill: none; stroke: {FORECAST_LINE}; stroke-width: 1.6 }}
.whisker .axis {{ stroke: #ccc; stroke-width: 1 }}
.whisker circle {{ fill: {FORECAST_LINE} }}
.whisker .truth {{ stroke: #1c1c1c; stroke-width: 1.3 }}
code {{ font: 13px Menlo, Consolas, "Liberation Mono", monospace }}
.hashes code {{ font-size: 11px; word-break: break-all }}
details {{ margin-top: 34px; border-top: 1px solid #c8c8c8; padding-top: 10px; font-size: 13px }}
summary {{ cursor: pointer }}
@media print {{
  body {{ font-size: 11px; padding: 0; max-width: none }}
  h1, .tiles .big {{ font-size: 20px }}
  h2 {{ font-size: 14px; margin-top: 16px }}
  table, .caveat, .model {{ font-size: 11px }}
  code, .note, figcaption, .tiles p {{ font-size: 10px }}
  figure {{ margin: 8px 0 10px }}
  figure img {{ width: calc(0.88 * var(--share)) }}
}}
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{subject}: tumour forecast</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
