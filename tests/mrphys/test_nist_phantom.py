"""Certified spheres, measured by others: T1 by inversion recovery, T2 by spin echoes, ADC.

The mean absolute error relative to the certified values is no worse than that of the fits in the
files (mrbias, Korte et al. 2023, doi:10.1002/mrm.29844), sphere by sphere of the same points: those
the files call included, that is not clipped. No number here comes from the certified values.

What remains, in the sessions of 2019 at 3 T, in per cent, ours and the files':

    T1, spheres 1-10    1.6   5.3      11-14   65   65
    T2, spheres 2-10    4.3  13.7      11-14   68   78
    ADC, three sessions 7.0 7.0 7.2    7.0 7.0 7.2

Temperature  certified values are of 20 °C, that of the scan is not told. T2 of manganese rises by
             1.7 % a degree, the longest T1 by 1.4 %, short ones not at all.
T1           m0 |1 - f exp(-TI/T1)|, f free: it takes up TR, and the angle and duration of the
             inversion. f = 2.10 at T1 87 ms and 2.03 at 246 ms is 2 exp(4 ms/T1): TI counted 4 ms
             too long, which leaves T1 alone. The file's 1161 ms of sphere 1 is another minimum.
Labels       the inner spheres, 11-14, are not those of their labels: what is called 14 has the T1
             and T2 certified for 11, what is called 11 those of 12. T2-5 is certified 167 ms,
             between neighbours of 175 and 89; it alone errs by 22 %.
T2           stimulated echoes: odd echoes are weaker than even ones. Pulses even across the slice
             leave T2 12 % too long whatever B1, as do mere exponentials: the slice's edges, turned
             by less, live on T1. Their profile is not told; it is here what a product sequence
             plays, sinc pulses of time-bandwidth 4 that refocus 1.2 times the excited thickness.
             Of time-bandwidth 2 and equal thickness T2 is 8 % shorter and the residual twice.
Floor        means over a region of magnitudes keep the mean of Rice's distribution, so noise is a
             parameter of the mean, not of the likelihood: 0.3 % of m0.
ADC          errors are of one sign, from 1 % at 1109 to 10 and 23 % at 110 µm²/s: not noise, but
             b-values or temperature, which are not told. The files' fit is of logarithms.
"""

import csv
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import mrphys as mr
from mrphys.mapping import CONVERGED, FAILED, fit
from mrphys.noise import rician_mean

SLACK = 1e-3
"""Of relative error: what optima of the same function may differ by."""


def spheres(path, axis: str, estimate: str):
    """By sphere: readouts' settings, signals, which count; certified values and the file's fits."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(dict.fromkeys(row["RoiLabel"] for row in rows))
    at = np.unique([float(row[axis]) for row in rows])
    x, used = np.zeros((len(names), at.size)), np.zeros((len(names), at.size), bool)
    certified, theirs = np.zeros(len(names)), np.full(len(names), np.nan)
    for row in rows:
        i, j = names.index(row["RoiLabel"]), np.searchsorted(at, float(row[axis]))
        x[i, j], used[i, j] = float(row["VoxelSignal"]), row["Included"] == "True"
        certified[i] = float(row[f"{estimate}_reference"])
        theirs[i] = float(row[estimate] or np.nan)
    some = used.any(axis=1)
    return at, x[some], used[some], certified[some], theirs[some]


def assert_no_worse(ours, theirs, certified):
    error, rival = np.abs(ours / certified - 1), np.abs(theirs / certified - 1)
    assert error.mean() <= rival.mean() + SLACK
    assert np.median(error) <= np.median(rival) + SLACK


class Recovery(eqx.Module):
    t1_s: Float[Array, "..."]
    inversion: Float[Array, "..."]
    m0: Float[Array, "..."]


class InversionRecovery(eqx.Module):
    """m0 |1 - f exp(-TI / T1)|"""

    ti_s: Float[Array, " readouts"]
    averages: Float[Array, " readouts"]

    def signals(self, rows):
        x = 1 - rows.inversion[:, None] * jnp.exp(-self.ti_s[None] / rows.t1_s[:, None])
        return jax.lax.complex(rows.m0[:, None] * x, jnp.zeros_like(x))


def test_t1_by_inversion_recovery(shared_data):
    ti_ms, x, used, certified, theirs = spheres(
        shared_data / "nist_phantom" / "t1-vir_voxel_data.csv", "inversion time (ms)", "T1"
    )
    est = fit(
        InversionRecovery(jnp.asarray(ti_ms / 1e3), jnp.ones(ti_ms.size)),
        x,
        ("t1_s", "inversion", "m0"),
        known=Recovery(*[jnp.ones(())] * 3),
        bounds={"t1_s": (5e-3, 6.0), "inversion": (1.0, 2.6)},
        mask=used,
        rician=False,
    )
    assert (est.status == CONVERGED).all()
    assert (est.residual < 0.02).all()
    assert_no_worse(1e3 * est.value.t1_s, theirs, certified)


class Echoes(eqx.Module):
    t2_s: Float[Array, "..."]
    b1: Float[Array, "..."]
    floor: Float[Array, "..."]
    m0: Float[Array, "..."]


class EchoTrainOverFloor(eqx.Module):
    """The mean of magnitudes whose noise is `floor` m0 in each voxel of a region."""

    theta: Any
    averages: Float[Array, " readouts"]

    def signals(self, rows):
        q = mr.Tissue(t1_s=1.0, t2_s=rows.t2_s, b1=rows.b1).broadcast()
        x = self.theta.signals(q).imag
        return rows.m0[:, None] * rician_mean(x, jnp.broadcast_to(rows.floor[:, None], x.shape))


def product_pulses():
    """Of a slice 5 mm thick, half of it: refocusing, excitation."""
    z = np.linspace(-8, 8, 21)
    half, weight = slice(10, None), np.where(np.arange(11) > 0, 2.0, 1.0)
    for flip_rad, thicker in ((np.pi, 1.2), (np.pi / 2, 1.0)):
        pulse = mr.rf.sinc(flip_rad, 3e-3, 4.0)
        flips, weights = mr.rf.flip_profile(pulse, 4.0 / 3e-3 / (5 * thicker), z, 5.0)
        yield np.asarray(flips)[half], np.asarray(weights)[half] * weight


def test_t2_by_spin_echoes(shared_data):
    te_ms, x, used, certified, theirs = spheres(
        shared_data / "nist_phantom" / "t2-mse_voxel_data.csv", "echo time (ms)", "T2"
    )
    spacing_s = te_ms[0] / 1e3
    np.testing.assert_allclose(te_ms, 1e3 * spacing_s * np.arange(1, te_ms.size + 1))
    refocusing, excitation = product_pulses()
    train = mr.sequence.spin_echo_train(
        np.full(te_ms.size, np.pi), spacing_s, profile=refocusing, excitation_profile=excitation
    )
    model = EchoTrainOverFloor(train, jnp.ones(te_ms.size))
    log = np.log(np.maximum(x, 1e-6))
    weight = used * x**2
    mean = np.sum(weight * te_ms, axis=1) / weight.sum(axis=1)
    gap = te_ms - mean[:, None]
    rate = -np.sum(weight * gap * log, axis=1) / np.sum(weight * gap**2, axis=1)
    found = []
    for b1 in (0.7, 1.1):
        start = Echoes(jnp.asarray(1e-3 / rate), jnp.asarray(b1), jnp.asarray(0.01), jnp.ones(()))
        found.append(
            fit(
                model,
                x,
                ("t2_s", "b1", "floor", "m0"),
                known=start,
                bounds={"t2_s": (2e-3, 3.0), "b1": (0.4, 1.4), "floor": (1e-5, 0.3)},
                mask=used,
                rician=False,
                start=start,
            )
        )
    left = np.stack([np.where(e.status == FAILED, np.inf, e.residual) for e in found])
    ours = np.choose(left.argmin(axis=0), [1e3 * e.value.t2_s for e in found])
    assert (left.min(axis=0) < 0.02).all()
    assert_no_worse(ours, theirs, certified)


def test_adc(shared_data):
    files = sorted((shared_data / "nist_phantom").glob("dw_*_voxel_data.csv"))
    assert files
    for path in files:
        b, x, used, certified, theirs = spheres(path, "b-value (s/µm²)", "D")
        theta = mr.sequence.diffusion_weighted(1e6 * b, te_s=0.08)
        est = fit(theta, x, ("adc_mm2_per_s", "m0"), mask=used, rician=False)
        assert (est.status == CONVERGED).all()
        assert_no_worse(1e6 * est.value.adc_mm2_per_s, theirs, certified)
