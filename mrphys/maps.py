"""Maps of a series of images: every voxel fitted, with noise found from the images themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy.stats import chi2

from mrphys.errors import InputError, Problem
from mrphys.mapping import (
    AT_BOUNDARY,
    CONVERGED,
    FAILED,
    ILL_DETERMINED,
    MASKED,
    fit,
)
from mrphys.noise import background_sd
from mrphys.protocols import Output, Plan, Protocol
from mrphys.series import Series
from mrphys.volume import Volume

STATUS = {
    CONVERGED: "fitted",
    AT_BOUNDARY: "at a bound: the value stands for all beyond it",
    ILL_DETERMINED: "ill-determined: the sd is infinite",
    MASKED: "not fitted",
    FAILED: "no convergence",
}
PIECE = 16384
"""Voxels between two reports of progress."""
PILOT = 2048
"""Voxels from which the noise is found."""
LEAST_SNR = 4.0
"""Of the brightest readout, for a voxel to be fitted where no mask says so."""
RAYLEIGH = 0.5227
"""sd over mean of the magnitude of noise alone."""


@dataclass(frozen=True, eq=False)
class Maps:
    """The maps of a series; values are 0 where nothing was fitted.

    values, sds    by output, in its unit; sd infinite where fitted but not determined, 0 where not
                   fitted
    residual       sd of what the model leaves over, near `noise_sd` where it holds
    status         of each voxel, as of `mrphys.mapping`
    noise_sd       of the real part of one readout, and where it is from
    counts         voxels by what became of them
    spare          numbers measured beyond unknowns, in each voxel
    """

    series: Series
    protocol: Protocol
    values: dict[Output, Float[np.ndarray, "x y z"]]
    sds: dict[Output, Float[np.ndarray, "x y z"]]
    residual: Float[np.ndarray, "x y z"]
    status: Integer[np.ndarray, "x y z"]
    noise_sd: float
    noise_from: str
    counts: dict[str, int]
    spare: int

    @property
    def determined(self) -> Bool[np.ndarray, "x y z"]:
        """Voxels whose values and sds stand."""
        return np.isin(self.status, _standing(self.protocol))

    @property
    def levels(self) -> dict[int, str]:
        """What each status means."""
        return STATUS | dict(self.protocol.status)

    @property
    def misfit(self) -> float | None:
        """Residual over noise of the median voxel, 1 where the model holds; None without spare."""
        if self.spare < 1 or not self.determined.any():
            return None
        return _typical_sd(self.residual[self.determined], self.spare) / self.noise_sd


def make_maps(
    series: Series,
    protocol: Protocol,
    *,
    mask: Volume | None = None,
    b1: Volume | None = None,
    noise_sd: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Maps:
    """Fit every voxel of a series.

    mask      nonzero where to fit, on the grid of the images; all that is above the noise when None
    b1        transmit field relative to nominal, or in per cent, on any grid that covers the mask
    noise_sd  of the real part of one readout; found when None: from what fits leave over, or where
              there are no more readouts than unknowns from the air in the corners of the image
    progress  is told how many voxels are done, and of how many

    Voxels that are 0 throughout or not finite are left out and counted. Raises InputError for a
    mask or b1 that do not fit, nothing to map, settings that make no sense or too few readouts.
    """
    plan = protocol.plan(series)
    data = np.asarray(plan.series.images.data)
    inside, counts = _inside(plan, data, mask)
    for name, without in plan.lacking.items():
        counts[name] = int((inside & without).sum())
        inside = inside & ~without
    if b1 is not None:
        plan, inside = _with_b1(plan, protocol, b1, inside, counts)
    _check_some(plan, inside, counts)
    if noise_sd is None:
        noise_sd, source = _noise(plan, data, inside)
    else:
        source = "given"
        if not 0 < noise_sd < np.inf:
            raise InputError(Problem("noise_sd", f"{noise_sd:g}", "above 0, in image units"))
    if mask is None and not plan.ratio:
        dark = inside & (np.abs(data).max(axis=-1) < LEAST_SNR * noise_sd)
        counts["below the noise"] = int(dark.sum())
        inside = inside & ~dark
    _check_some(plan, inside, counts)
    flat = np.flatnonzero(inside)
    written = [output for output in protocol.outputs if output.field in plan.free]
    found = _fitted(plan, written, data.reshape(-1, data.shape[-1]), flat, noise_sd, progress)

    def image(rows, dtype=np.float32) -> np.ndarray:
        whole = np.zeros(inside.size, dtype)
        whole[flat] = np.asarray(rows)
        return whole.reshape(inside.shape)

    status = np.full(inside.size, MASKED, np.uint8)
    status[flat] = found.status
    values, sds = (
        {o: image(value) for o, value in zip(written, rows, strict=True)}
        for rows in (found.values, found.sds)
    )
    if plan.whole is not None:
        by_field = [{o.field: v for o, v in each.items()} for each in (values, sds)]
        good = np.isin(status, _standing(protocol)).reshape(inside.shape)
        changed = plan.whole(by_field[0], by_field[1], good)
        values = {o: changed.get(o.field, value) for o, value in values.items()}
    for code, text in (STATUS | dict(protocol.status)).items():
        if code != MASKED:
            counts[text.partition(":")[0]] = int((status == code).sum())
    return Maps(
        plan.series,
        protocol,
        {o: np.float32(o.scale) * value for o, value in values.items()},
        {o: np.float32(o.scale) * sd for o, sd in sds.items()},
        image(found.residual),
        status.reshape(inside.shape),
        float(noise_sd),
        source,
        counts,
        _spare(plan),
    )


def _check_some(plan: Plan, inside: np.ndarray, counts: dict[str, int]) -> None:
    """Raise InputError where there is nothing to fit, or too little for the unknowns."""
    where, spare = plan.series.where, _spare(plan)
    if spare < 0:
        measured = plan.series.readouts * (1 + plan.series.is_complex)
        found = f"{measured} numbers in each voxel for {measured - spare} unknowns"
        cause = "images left out, or a model for more of them"
        raise InputError(Problem(where, found, "as many measurements as unknowns, or more", cause))
    if not inside.any():
        found = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        cause = "images that are empty, a mask of another image, or a noise sd in other units"
        raise InputError(Problem(where, f"no voxel to fit: {found}", "some", cause))


def _standing(protocol: Protocol) -> list[int]:
    """Statuses of voxels whose values stand."""
    return [CONVERGED, *dict(protocol.status)]


def _spare(plan: Plan) -> int:
    """Real numbers measured beyond those to be found."""
    series = plan.series
    unknowns = len(plan.free) + series.is_complex if plan.unknowns is None else plan.unknowns
    return series.readouts * (1 + series.is_complex) - unknowns


def _typical_sd(residual: np.ndarray, spare: int) -> float:
    """σ of residuals σ² χ²_ν / ν by their median: half of the voxels may be no such tissue."""
    return float(np.median(residual) * np.sqrt(spare / chi2.median(spare)))


def _inside(plan: Plan, data: np.ndarray, mask: Volume | None):
    """Where there is something to fit, and how many voxels there were."""
    series = plan.series
    grid = series.images
    counts = {"in the image": int(np.prod(grid.shape))}
    inside = np.ones(grid.shape, bool)
    if mask is not None:
        if mask.data.ndim != 3 or not mask.same_grid(grid):
            found = mask.placed if mask.data.ndim == 3 else f"shape {mask.data.shape}"
            cause = "a mask of another image, or not resampled to this one"
            raise InputError(Problem("mask", found, f"the images' grid: {grid.placed}", cause))
        inside = np.nan_to_num(np.asarray(mask.data)) > 0
        counts["outside the mask"] = int((~inside).sum())
        if not inside.any():
            raise InputError(Problem("mask", "no voxel above 0", "voxels to fit"))
    broken = inside & ~np.isfinite(data).all(axis=-1)
    empty = inside & ~broken & (data == 0).all(axis=-1)
    counts |= {"NaN or infinite": int(broken.sum()), "zero in every image": int(empty.sum())}
    inside = inside & ~broken & ~empty
    if not (series.is_complex or plan.ratio) and (np.where(inside[..., None], data, 0.0) < 0).any():
        cause = "real images with their sign, or a phase image"
        low = float(data[inside].min())
        raise InputError(Problem(series.where, f"a magnitude of {low:g}", "0 or more", cause))
    return inside, counts


def _with_b1(plan: Plan, protocol: Protocol, b1: Volume, inside: np.ndarray, counts: dict):
    """The plan with a known transmit field, and where that is known."""
    if not protocol.b1:
        cause = "--model epg takes one for spin-echo trains"
        raise InputError(Problem("b1", "a map", "none: this model has no use for it", cause))
    grid = plan.series.images
    if b1.data.ndim != 3:
        raise InputError(Problem("b1", f"shape {b1.data.shape}", "one number in each voxel"))
    values = np.nan_to_num(np.asarray(b1.data, np.float32))
    lit = values[values > 0]
    typical = float(np.median(lit)) if lit.size else 0.0
    scale = 1.0 if 0.2 <= typical <= 3.0 else 0.01 if 20.0 <= typical <= 300.0 else None
    if scale is None:
        found = f"a median of {typical:g}"
        cause = "angles or volts; divide by the nominal value"
        expected = "about 1, relative to nominal, or about 100 per cent"
        raise InputError(Problem("b1", found, expected, cause))
    values = values * scale
    if not b1.same_grid(grid):
        values = _moved(b1.with_data(values), grid)
    unknown = inside & ~((values > 0.05) & (values <= 5.0))
    counts["without b1"] = int(unknown.sum())
    if unknown.sum() > 0.5 * inside.sum():
        found = f"no b1 in {unknown.sum() / inside.sum():.0%} of the voxels: {b1.placed}"
        expected = f"a map that covers {grid.placed}"
        raise InputError(Problem("b1", found, expected, "a map of another session or position"))
    field = jnp.asarray(np.where(unknown, 1.0, values).reshape(-1))
    known = eqx.tree_at(lambda q: q.b1, plan.known, field)
    free = tuple(name for name in plan.free if name != "b1")
    return plan._replace(known=known, free=free), inside & ~unknown


def _moved(b1: Volume, grid: Volume) -> np.ndarray:
    """At the voxels of another grid, of the voxels where it is known; 0 where these are few."""
    known = b1.with_data((np.asarray(b1.data) > 0).astype(np.float32))
    place = (grid.affine, grid.shape)
    total, share = (np.asarray(v.resample_to(place).data) for v in (b1, known))
    return np.where(share > 0.25, total / np.maximum(share, 0.25), 0.0)


def _rows(plan: Plan, taken: np.ndarray) -> eqx.Module:
    """What is known of some voxels."""
    return jax.tree.map(lambda v: v[taken] if jnp.ndim(v) else v, plan.known)


def _fit(plan: Plan, x: np.ndarray, taken: np.ndarray, noise_sd, rician=None) -> Any:
    if plan.fit is not None:
        known = (_rows(plan, taken),) if plan.told else ()
        return plan.fit(plan.theta, jnp.asarray(x), noise_sd, *known)
    return fit(
        plan.theta,
        jnp.asarray(x),
        plan.free,
        noise_sd,
        known=_rows(plan, taken),
        bounds=plan.bounds,
        rician=rician,
        posterior=plan.posterior,
    )


class _Found(NamedTuple):
    """Of a row of voxels: values and sds of each output."""

    values: tuple[np.ndarray, ...]
    sds: tuple[np.ndarray, ...]
    residual: np.ndarray
    status: np.ndarray


def _fitted(plan, outputs, rows, flat, noise_sd, progress) -> _Found:
    """All voxels, piece by piece; pieces are of one size, so that one program serves all."""
    size = min(PIECE, flat.size)
    pieces, done = [], 0
    if progress is not None:
        progress(0, flat.size)
    for start in range(0, flat.size, size):
        taken = flat[start : start + size]
        padded = np.concatenate([taken, flat[: size - taken.size]])
        made = _fit(plan, rows[padded], padded, noise_sd)
        values, sds = (
            tuple(np.asarray(attrgetter(output.field)(q))[: taken.size] for output in outputs)
            for q in (made.value, made.sd)
        )
        left, status = (np.asarray(v)[: taken.size] for v in (made.residual, made.status))
        pieces.append(_Found(values, sds, left, status))
        done += taken.size
        if progress is not None:
            progress(done, flat.size)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *pieces)


def _noise(plan: Plan, data: np.ndarray, inside: np.ndarray) -> tuple[float, str]:
    """The sd of noise, and where it is from."""
    series, spare = plan.series, _spare(plan)
    cause = "nothing is left over from which the noise could be told"
    if plan.noise is not None and (told := plan.noise(data, inside)):
        return told
    bright = np.where(inside, np.abs(data).max(axis=-1), 0.0)
    if spare > 0:
        lit = bright[bright > 0]
        level = 0.3 * np.percentile(lit, 99) if lit.size else 0.0
        taken = np.flatnonzero(bright >= max(level, np.finfo(np.float32).tiny))
        if taken.size:
            size = min(PILOT, taken.size)
            taken = np.random.default_rng(0).choice(taken, size, replace=False)
            rows = data.reshape(-1, data.shape[-1])[taken]
            pilot = _fit(plan, rows, taken, None, rician=False)
            astray = np.isin(np.asarray(pilot.status), (AT_BOUNDARY, ILL_DETERMINED, FAILED))
            left = np.asarray(pilot.residual)[~astray]
            if left.size and (sd := _typical_sd(left, spare)):
                return sd, f"what fits of {left.size} voxels leave over"
            cause = f"settings that are not of these images: the model fits none of {size} voxels"
    corners = _corners(np.abs(data))
    if corners.size > 100 and abs(corners.std() / corners.mean() - RAYLEIGH) < 0.08:
        sd = float(background_sd(jnp.asarray(corners)))
        if not series.is_complex:
            return sd, f"{corners.size} values of air in the corners"
    measured = series.readouts * (1 + series.is_complex)
    found = f"{measured} numbers in each voxel for {measured - spare} unknowns"
    expected = "more readouts, air in the corners of the image, or --noise-sd with a number"
    raise InputError(Problem(f"{series.where}: noise", found, expected, cause))


def _corners(images: np.ndarray) -> np.ndarray:
    """Nonzero values of the eight corners, an eighth of each axis wide."""
    edge = [np.minimum(np.arange(n), np.arange(n)[::-1]) < max(1, n // 8) for n in images.shape[:3]]
    if images.shape[2] < 8:
        edge[2][:] = True
    values = images[np.ix_(*edge)]
    return values[np.isfinite(values) & (values > 0)]


__all__ = ["STATUS", "Maps", "make_maps"]
