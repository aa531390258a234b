"""Refocusing trains that keep an image sharp."""

from collections.abc import Sequence as Many

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

import mrphys as mr
from learn.constraints import Constraint, pulse_energy_hz2_s, smooth
from learn.design import optimise_design
from learn.design_studies.study import Line, Panel, Progress, Row, Study, degrees, mean, silent
from mrphys.sequence import Sequence
from mrphys.units import check_range, check_time_s

TISSUES = ("white_matter", "grey_matter", "glioma")
FINE = 16
Echoes = Inexact[Array | np.ndarray, "*voxels readouts"]


def width_px(x: Echoes) -> Float[Array, "*voxels"]:
    """The equivalent width of the point spread of echoes that fill N lines, in pixels:

        ∫ |h|² / |h(0)|² = N Σ |x|² / |Σ x|²

    by Parseval's theorem; 1 where no echo has decayed, in whatever order the lines are filled.
    """
    return x.shape[-1] * jnp.sum(jnp.abs(x) ** 2, -1) / jnp.abs(jnp.sum(x, -1)) ** 2


def point_spread(x: Echoes) -> np.ndarray:
    """|h| of echoes that fill k-space from the centre out, `FINE` points a pixel, h(0) = 1 of
    undecayed echoes of size 1."""
    echoes = np.asarray(x)
    count = echoes.shape[-1]
    line = np.concatenate([np.arange(count)[1::2][::-1], np.arange(count)[::2]])
    padded = np.zeros((*echoes.shape[:-1], FINE * count), echoes.dtype)
    padded[..., :count] = echoes[..., line]
    return np.abs(np.fft.fftshift(np.fft.fft(padded), axes=-1)) / count


def fwhm_px(x: Echoes) -> np.ndarray:
    """Full width at half maximum of `point_spread`; 1.207 of undecayed echoes."""
    h = point_spread(x)
    h = h / h.max(-1, keepdims=True)
    widths = []
    for row in h.reshape(-1, h.shape[-1]):
        peak = int(row.argmax())
        right = peak + int(np.argmax(row[peak:] < 0.5))
        left = peak - int(np.argmax(row[peak::-1] < 0.5))
        rise = (0.5 - row[left]) / (row[left + 1] - row[left])
        fall = (row[right - 1] - 0.5) / (row[right - 1] - row[right])
        widths.append((right - 1 + fall - left - rise) / FINE)
    return np.array(widths).reshape(h.shape[:-1])


def fse(
    echoes: int = 64,
    echo_spacing_s: float = 0.005,
    start_deg: float = 120.0,
    *,
    tissues: Many[str] = TISSUES,
    signal: float = 1.0,
    energy: float = 1.0,
    step_deg: float = 20.0,
    steps: int = 200,
    starts: int = 1,
    progress: Progress = silent,
) -> Study:
    """Refocusing angles that make the point spread of the tissues (3 T) narrowest.

    Beside a train of constant `start_deg`: `energy` times its pulse energy at most, and `signal`
    times its signal, the peak of the point spread, at least, in every tissue; angles of 10° to
    180° that change by at most `step_deg` from one pulse to the next. The loss is the mean square
    width of `width_px` in excess of 1.

    Dang et al. 2023, MR-zero meets RARE MRI, doi:10.1002/mrm.29710. Raises InputError for values
    out of range, and constraints that cannot be kept together.
    """
    check_range("fse: echoes", echoes, 4.0, 1024.0, "echoes")
    check_range("fse: start_deg", start_deg, 20.0, 180.0, "°", "radians given for degrees")
    check_time_s("fse: echo_spacing_s", echo_spacing_s, low=1e-4, high=0.2)
    check_range("fse: step_deg", step_deg, 0.1, 180.0, "°", "radians given for degrees")
    for name, share in (("signal", signal), ("energy", energy)):
        check_range(f"fse: {name}", share, 1e-3, 100.0, "of the constant train's", "per cent")
    parts = [mr.tissue.literature(name, 3.0) for name in tissues]
    q = jax.tree.map(lambda *values: jnp.stack(values), *parts)
    q = mr.Tissue(t1_s=q.t1_s, t2_s=q.t2_s)

    def build(p):
        return mr.sequence.spin_echo_train(p["refocusing_rad"], echo_spacing_s)

    def peaks(theta: Sequence) -> Array:
        return jnp.abs(jnp.sum(mr.simulate(theta, q), -1)) / echoes

    def loss(theta: Sequence) -> Array:
        return jnp.mean(width_px(mr.simulate(theta, q)) - 1)

    start = {"refocusing_rad": np.full(echoes, np.deg2rad(start_deg))}
    first = build(start)
    peak = np.asarray(peaks(first))
    constraints = [
        pulse_energy_hz2_s(energy * float(first.pulse_energy_hz2_s)),
        Constraint(
            "signal beside the constant train's",
            lambda theta, p: peaks(theta) / peak, "at least", signal,
        ),
        smooth("flips", lambda p: p["refocusing_rad"], np.deg2rad(step_deg), "rad"),
    ]  # fmt: skip
    limits = {"refocusing_rad": (np.deg2rad(10.0), np.pi)}
    made = optimise_design(
        build, start, loss, limits=limits, constraints=constraints,
        steps=steps, starts=starts, progress=progress,
    )  # fmt: skip
    before, after = (mr.simulate(theta, q) for theta in (made.start, made.theta))
    rows = [
        Row("width of the point spread, mean", mean(width_px(before)), mean(width_px(after)), "px"),
        *(
            Row(f"FWHM, {name.replace('_', ' ')}", float(a), float(b), "px", float(ideal))
            for name, a, b, ideal in zip(
                tissues, fwhm_px(before), fwhm_px(after), fwhm_px(np.ones_like(before)), strict=True
            )
        ),
        *(
            Row(f"signal, {name.replace('_', ' ')}", float(a), float(b), "m0")
            for name, a, b in zip(tissues, peak, peaks(made.theta), strict=True)
        ),
        Row(
            "pulse energy",
            float(made.start.pulse_energy_hz2_s),
            float(made.theta.pulse_energy_hz2_s),
            "Hz² s",
        ),
    ]
    return Study("fse", "refocusing train for sharpness", made, rows, _panels(made, before, after))


def _panels(made, before: Array, after: Array) -> list[Panel]:
    number = np.arange(1, made.start.refocusing_rad.size + 1)
    flips, echoes, spread = [], [], []
    for when, theta, x in (("before", made.start, before), ("after", made.theta, after)):
        flips.append(Line(when, number, degrees(theta.refocusing_rad), when))
        h = point_spread(x)[0]
        pixels = (np.arange(h.size) - h.size // 2) / FINE
        near = np.abs(pixels) <= 4
        echoes += [
            Line(when if i == 0 else "", number, np.abs(row), when, style)
            for i, (row, style) in enumerate(zip(x, ("-", "--", ":", "-."), strict=False))
        ]
        spread.append(Line(when, pixels[near], h[near], when))
    return [
        Panel("refocusing", "echo", "flip [°]", flips),
        Panel("echoes of each tissue", "echo", "|signal| / m0", echoes),
        Panel("point spread, first tissue", "pixels", "|h|", spread),
    ]
