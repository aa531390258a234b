"""A forecast as others read it: scores beside persistence, JSON, HDF5, NIfTI and the page."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mrphys.io.nifti import write_nifti
from mrphys.io.output import prepare_output_folder, whole_file, write_text
from mrphys.io.results import write_results
from mrphys.volume import Volume
from oncology import scores
from oncology.calibration import Calibrated, observation_of
from oncology.cohort import Patient, Visit
from oncology.figures import Band, Curve, Pictures, VisitPicture
from oncology.forecast import TOTAL, VOLUME, Forecast
from oncology.inverse import interval
from oncology.observe import CellularityMap, Observation
from oncology.priors import GROWTH_MAP_SD_PER_DAY

EQUATION = "∂u/∂t = ∇·(D(x) ∇u) + k u (1 − u) − κ(x, t) u"


def parameters(calibrated: Calibrated, truth: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Every parameter with its mean, sd and 95 % interval; truth beside it where it is known."""
    found = calibrated.posterior
    sd = np.sqrt(np.diag(np.asarray(found.covariance)))
    rows: dict[str, Any] = {
        name: interval(prior, float(found.z[i]), float(sd[i]))
        for i, (name, prior) in enumerate(found.inverse.priors.items())
    }
    for name, value in (truth or {}).items():
        rows[name]["truth"] = value
    return rows


def _shown(seen: Observation, voxel_mm3: float) -> tuple[np.ndarray | None, np.ndarray, dict]:
    """Map and mask of a visit on the model's grid, and its totals as the JSON names them."""
    mask = np.asarray(seen.mask)
    row = {TOTAL: None, VOLUME: float(mask.sum() * voxel_mm3)}
    if not isinstance(seen, CellularityMap):
        return None, mask, row
    value = np.where(mask, np.asarray(seen.value), 0.0)
    return value, mask, {**row, TOTAL: float(value.sum() * voxel_mm3)}


def _score(
    seen: Observation,
    mean: np.ndarray,
    mask: np.ndarray,
    persisted: np.ndarray,
    habitable: np.ndarray,
    spacing_mm: tuple[float, ...],
) -> dict[str, float | None]:
    """Scores of one map against one visit, over tissue within 10 mm of seen or persisted tumour."""
    voxel = float(np.prod(spacing_mm))
    value, drawn, shown = _shown(seen, voxel)
    row: dict[str, float | None] = dict.fromkeys(("ccc", "pearson", "total_error_percent"))
    row["dice"] = scores.dice(mask, drawn)
    row["volume_error_percent"] = scores.percent_error(float(mask.sum() * voxel), shown[VOLUME])
    if value is not None:
        region = scores.scored_region((drawn, persisted), habitable, spacing_mm)
        row["ccc"] = scores.concordance(mean[region], value[region])
        row["pearson"] = scores.pearson(mean[region], value[region])
        row["total_error_percent"] = scores.percent_error(
            float(mean[mask].sum() * voxel), shown[TOTAL]
        )
    return row


def _three(samples: np.ndarray) -> dict[str, float]:
    low, high = np.percentile(samples, [2.5, 97.5])
    return {"mean": float(samples.mean()), "low95": float(low), "high95": float(high)}


def visit_rows(forecast: Forecast, target: Visit | None) -> tuple[list[dict], list[dict]]:
    """The JSON's `visits` and `persistence`: calibrated visits, then the one forecast."""
    calibrated = forecast.calibrated
    inverse, found = calibrated.inverse, calibrated.posterior
    spacing, habitable = inverse.model.spacing_mm, np.asarray(inverse.model.habitable)
    voxel = float(np.prod(spacing))
    rows = []
    states = (None, *found.states)
    given = zip(calibrated.visits, inverse.observations, states, strict=True)
    for visit, seen, state in given:
        row = {"day": visit.day, "session": visit.session}
        _, drawn, row["observed"] = _shown(seen, voxel)
        samples = forecast.at(visit.day)
        row["forecast"] = {name: _three(samples[name]) for name in (TOTAL, VOLUME)}
        row |= dict.fromkeys(
            ("ccc", "pearson", "dice", "crps", "volume_error_percent", "total_error_percent")
        )
        if state is not None:
            u = np.asarray(state)
            row |= _score(seen, u, u > forecast.threshold, drawn, habitable, spacing)
            row["crps"] = _crps(samples, row["observed"])
        rows.append(row)
    row = {
        "day": forecast.day,
        "session": target.session if target else None,
        "observed": None,
        "forecast": {name: _three(forecast.samples[name]) for name in (TOTAL, VOLUME)},
    }
    empty = dict.fromkeys(
        ("ccc", "pearson", "dice", "crps", "volume_error_percent", "total_error_percent")
    )
    if target is None or target.planned:
        return [*rows, row | empty], []
    seen = observation_of(target, inverse.model, calibrated.crop, calibrated.scale)
    value, _, row["observed"] = _shown(seen, voxel)
    last = inverse.observations[-1]
    last_value, last_mask, last_shown = _shown(last, voxel)
    score = (seen, forecast.mean, forecast.mask, last_mask, habitable, spacing)
    row |= _score(*score) | {"crps": _crps(forecast.samples, row["observed"])}
    if value is not None and isinstance(seen, CellularityMap):
        region = scores.scored_region((np.asarray(seen.mask), last_mask), habitable, spacing)
        expected = np.sqrt(forecast.sd**2 + np.asarray(seen.sd) ** 2)
        inside = np.abs(value - forecast.mean) <= 1.96 * expected
        row["coverage95"] = float(inside[region].mean())
    stays = last_value if last_value is not None else last_mask.astype(float)
    kept = _score(seen, stays, last_mask, last_mask, habitable, spacing)
    point = {name: np.array([v]) for name, v in last_shown.items() if v is not None}
    persistence = {
        "day": forecast.day,
        "session": target.session,
        **kept,
        "crps": _crps(point, row["observed"]),
    }
    return [*rows, row], [persistence]


def _crps(samples: Mapping[str, np.ndarray], observed: Mapping[str, float | None]) -> float | None:
    """CRPS of the logarithm of the visible volume; none where nothing was seen."""
    volume = observed[VOLUME]
    if not volume:
        return None
    logarithms = np.log(np.maximum(samples[VOLUME], 1e-3))
    return scores.crps(logarithms, float(np.log(volume)))


def summarise(
    forecast: Forecast,
    target: Visit | None,
    warnings: Sequence[str],
    provenance: Mapping[str, Any],
    truth: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The content of the JSON file."""
    calibrated = forecast.calibrated
    inverse = calibrated.inverse
    rows, persistence = visit_rows(forecast, target)
    last = inverse.observations[-1]
    noise = None
    if isinstance(last, CellularityMap):
        noise = float(jnp.sqrt(jnp.mean(last.sd[last.mask] ** 2)))
    scale = calibrated.scale
    equation = EQUATION
    if inverse.model.growth_map is not None:
        equation = EQUATION.replace("k u", "k(x) u")
    return {
        "subject": calibrated.patient.subject,
        "model": equation,
        "calibrated_on": [visit.session for visit in calibrated.visits],
        "predicted": {"session": target.session if target else None, "day": forecast.day},
        "parameters": parameters(calibrated, truth),
        "growth": {
            "kind": "global" if inverse.model.growth_map is None else "local",
            "map_sd_per_day": None if inverse.model.growth_map is None else GROWTH_MAP_SD_PER_DAY,
        },
        "observation": {
            "adc_w_mm2_per_s": scale.adc_w_mm2_per_s if scale else None,
            "adc_min_mm2_per_s": scale.adc_min_mm2_per_s if scale else None,
            "noise_sd_cellularity": noise,
            "threshold": forecast.threshold,
        },
        "model_error": float(calibrated.posterior.model_error),
        "visits": rows,
        "persistence": persistence,
        "warnings": [*warnings, *calibrated.warnings],
        "provenance": dict(provenance),
    }


def pictures_of(forecast: Forecast, target: Visit | None) -> Pictures:
    """What the report draws, on the model's grid."""
    calibrated = forecast.calibrated
    inverse, crop = calibrated.inverse, calibrated.crop
    voxel = float(np.prod(inverse.model.spacing_mm))
    views = [
        VisitPicture(visit.day, visit.session, *_shown(seen, voxel)[:2], role="calibration")
        for visit, seen in zip(calibrated.visits, inverse.observations, strict=True)
    ]
    if target is not None:
        value = mask = None
        if not target.planned:
            seen = observation_of(target, inverse.model, crop, calibrated.scale)
            value, mask, _ = _shown(seen, voxel)
        views.append(VisitPicture(target.day, target.session, value, mask, role="forecast"))
    shown = [target, *reversed(calibrated.visits)] if target else [*reversed(calibrated.visits)]
    anatomy = next((image for visit in shown for image in visit.anatomy.values()), None)
    bands = {}
    for name, values in forecast.course.items():
        low, high = np.percentile(values, [2.5, 97.5], axis=0)
        bands[name] = Band(values.mean(axis=0), low, high)
    return Pictures(
        spacing_mm=inverse.model.spacing_mm,
        anatomy=None if anatomy is None else crop.cut(anatomy),
        tissue=np.asarray(inverse.model.habitable),
        visits=tuple(views),
        forecast_mean=forecast.mean,
        forecast_sd=forecast.sd,
        forecast_mask=forecast.mask,
        curve=Curve(forecast.days, bands[VOLUME], bands[TOTAL]),
        treatments=tuple((t.day, t.kind, t.dose, t.agent) for t in calibrated.patient.treatments),
    )


def write_forecast(
    out: str | Path, forecast: Forecast, target: Visit | None, summary: Mapping[str, Any]
) -> dict[str, Path]:
    """Every file of a forecast into a folder; the paths by what they hold.

    Raises InputError when the folder cannot be written.
    """
    from oncology.figures import forecast_sheet
    from oncology.report import write_report

    folder = prepare_output_folder(out)
    patient, crop = forecast.calibrated.patient, forecast.calibrated.crop
    session = target.session if target else f"ses-day{forecast.day:g}"
    stem = folder / f"{patient.subject}_{session}_desc-forecast"
    grid = patient.scanned[0].tumor
    paths = {
        "mean": Path(f"{stem}_cellularity.nii.gz"),
        "sd": Path(f"{stem}sd_cellularity.nii.gz"),
        "mask": Path(f"{stem}_label-tumor_mask.nii.gz"),
        "hdf5": folder / f"{patient.subject}_forecast.h5",
        "json": folder / f"{patient.subject}_forecast.json",
        "report": folder / f"{patient.subject}_forecast.html",
        "figure": folder / f"{patient.subject}_forecast.png",
    }
    day = f"day {forecast.day:g}"
    maps = {"mean": forecast.mean.astype(np.float32), "sd": forecast.sd.astype(np.float32)}
    for name, values in maps.items():
        full = Volume(crop.paste(values), grid.affine)
        write_nifti(paths[name], full, description=f"forecast {name}, {day}")
    mask = Volume(crop.paste(forecast.mask.astype(np.uint8)), grid.affine)
    write_nifti(paths["mask"], mask, description=f"forecast mask, {day}")
    rows = summary["parameters"]
    tree = {
        "cellularity": maps,
        "mask": forecast.mask.astype(np.uint8),
        "crop_start": np.array([start for start, _ in crop.box]),
        "affine": grid.affine,
        "days": forecast.days,
        "draws": forecast.course,
        "parameters": {
            name: {key: row[key] for key in ("mean", "sd", "low95", "high95")}
            for name, row in rows.items()
        },
    }
    units = {"days": "day", "affine": "mm", f"draws/{VOLUME}": "mm3", f"draws/{TOTAL}": "mm3"}
    for name, row in rows.items():
        units |= {f"parameters/{name}/{key}": row["unit"] for key in tree["parameters"][name]}
    local = forecast.calibrated.inverse.model.growth_map
    if local is not None:
        coefficients = forecast.calibrated.posterior.z[len(rows) :] * GROWTH_MAP_SD_PER_DAY
        tree["growth_map"] = np.asarray(local(coefficients))
        units["growth_map"] = "1/day"
    write_results(paths["hdf5"], tree, units, summary["provenance"])
    write_text(paths["json"], json.dumps(plain(summary), indent=2, ensure_ascii=False) + "\n")
    pictures = pictures_of(forecast, target)
    with whole_file(paths["figure"]) as draft:
        draft.write_bytes(base64.b64decode(forecast_sheet(pictures).uri.partition(",")[2]))
    write_report(paths["report"], dict(summary), pictures)
    return paths


def plain(value: Any) -> Any:
    """JSON has no NaN or infinity: null instead."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def unmodelled(patient: Patient) -> list[str]:
    """What the folder holds that the model does not know, in plain words."""
    told = []
    if patient.earliest("tissue") is None and patient.earliest("white_matter") is None:
        told.append("There is no tissue mask: the model lets cells go anywhere in the image.")
    return told
