from dataclasses import replace
from functools import cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import mrphys as mr
from mrphys import InputError, joint
from mrphys.mapping import AT_BOUNDARY, CONVERGED, MASKED, fit
from tests.laws import QUICKLY, check_gradient
from tests.mrphys.decay import Decay

SHAPE, NOISE_SD = (6, 8), 0.02
FREE = ("t2_s", "m0")


ECHOES = Decay(0.02 * jnp.arange(1.0, 7.0), jnp.ones(6))
GRID = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
COILS = jnp.stack(
    [np.exp(-((GRID[0] - a) ** 2) - (GRID[1] - b) ** 2 + 1j * a * GRID[1])
     for a, b in ((-1, -1), (-1, 1), (1, -1), (1, 1))], axis=-1
)[..., None, :]  # fmt: skip
LINES = (np.arange(8)[:, None] + np.arange(6)) % 2 == 0


def undersampled(x):
    """Every second line of each coil, others at every other echo."""
    k = jnp.fft.fft2(x[..., None] * COILS, axes=(0, 1), norm="ortho")
    return k * jnp.asarray(LINES)[None, :, :, None]


def whole(x):
    return jnp.fft.fft2(x, axes=(0, 1), norm="ortho")


@cache
def phantom():
    """A disc in a square, and its signals."""
    inside = GRID[0] ** 2 + GRID[1] ** 2 < 0.5
    q = mr.Tissue(t1_s=1.0, t2_s=np.where(inside, 0.09, 0.05), m0=1 + 0.2 * GRID[0])
    return q, mr.simulate(ECHOES, q) * np.exp(0.4j + 0.5j * GRID[1])[..., None]


def noise(shape, seed=0):
    rng = np.random.default_rng(seed)
    return NOISE_SD * (rng.normal(size=shape) + 1j * rng.normal(size=shape))


KNOWN = mr.Tissue(t1_s=jnp.ones(SHAPE), t2_s=0.1)
FULL: dict[str, Any] = {"known": KNOWN, "mask": np.ones(SHAPE, bool)}


def cost(y, operator, prior=lambda t2_s: 0.0):
    """Independent of the fit's: of T2 and complex m0 of all voxels."""

    def f(p):
        t2_s, re, im = p.reshape(3, *SHAPE)
        x = (re + 1j * im)[..., None] * jnp.exp(-ECHOES.te_s[None, None] / t2_s[..., None])
        return jnp.sum(jnp.abs(operator(x) - y) ** 2) / (2 * NOISE_SD**2) + prior(t2_s)

    return f


def of(est):
    m0 = est.value.m0 * jnp.exp(1j * est.phase_rad["m0"])
    return jnp.stack([est.value.t2_s, m0.real, m0.imag]).reshape(-1)


def assert_least(f, est):
    """No slope left: a Newton's step would move no number by a hundredth of its deviation."""
    p = of(est)
    slope, bend = jax.grad(f)(p), jax.hessian(f)(p)
    spread = jnp.sqrt(jnp.diagonal(jnp.linalg.inv(bend)))
    assert (jnp.abs(jnp.linalg.solve(bend, slope)) < 0.01 * spread).all()
    return spread.reshape(3, *SHAPE)


@pytest.mark.long
def test_an_operator_that_mixes_nothing_up_changes_nothing():
    _, x = phantom()
    y = x + noise(x.shape)
    alone = fit(ECHOES, y, FREE, NOISE_SD)
    for operator, data in ((lambda x: x, y), (whole, whole(y))):
        est = fit(ECHOES, data, FREE, NOISE_SD, operator=operator, **FULL)
        assert (est.status == CONVERGED).all()
        for name in FREE:
            for a, b in ((est.value, alone.value), (est.sd, alone.sd)):
                np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-4)
        np.testing.assert_allclose(est.phase_rad["m0"], alone.phase_rad["m0"], atol=1e-5)
    free_noise = fit(ECHOES, whole(y), FREE, operator=whole, **FULL)
    np.testing.assert_allclose(free_noise.residual, NOISE_SD, rtol=0.1)
    np.testing.assert_allclose(
        free_noise.sd.t2_s, alone.sd.t2_s * free_noise.noise_sd / NOISE_SD, rtol=1e-3
    )


def unmixed():
    q, x = phantom()
    y = undersampled(x)
    y = jnp.where(y != 0, y + noise(y.shape, 1), 0.0)
    return q, y, fit(ECHOES, y, FREE, NOISE_SD, operator=undersampled, **FULL)


def test_undersampled_data_of_coils_are_unmixed():
    q, y, est = unmixed()
    assert (est.status == CONVERGED).all()
    spread = assert_least(cost(y, undersampled), est)
    np.testing.assert_allclose(est.sd.t2_s, spread[0], rtol=0.2)  # expected, not found, curvature
    score = np.asarray((est.value.t2_s - q.t2_s) / est.sd.t2_s)
    assert abs(score.std() - 1) < 0.3 and abs(score.mean()) < 0.4


@pytest.mark.long
def test_deviations_drawn_are_those_of_the_whole_matrix(monkeypatch):
    _, y, est = unmixed()
    monkeypatch.setattr(joint, "EXACT", 10)
    monkeypatch.setattr(joint, "DRAWS", 101)
    jax.clear_caches()
    drawn = fit(ECHOES, y, FREE, NOISE_SD, operator=undersampled, **FULL)
    off = np.asarray(drawn.sd.t2_s / est.sd.t2_s) - 1
    assert np.abs(off).max() > 0 and np.sqrt(np.mean(off**2)) < 0.1


@pytest.mark.parametrize("kind", ["quadratic", "total variation"])
@pytest.mark.long
def test_neighbours_alike_are_less_uncertain(kind):
    q, x = phantom()
    y = x + 2 * noise(x.shape, 2)
    width = 0.1
    prior: Any = {"quadratic": joint.Quadratic, "total variation": joint.TotalVariation}[kind](
        width
    )
    est = fit(ECHOES, y, FREE, NOISE_SD, prior={"t2_s": prior})
    alone = fit(ECHOES, y, FREE, NOISE_SD)

    def energy(t2_s):
        log = jnp.log(t2_s)
        squares = jnp.zeros(SHAPE).at[:-1].add(jnp.diff(log, axis=0) ** 2)
        squares = squares.at[:, :-1].add(jnp.diff(log, axis=1) ** 2)
        if kind == "quadratic":
            return jnp.sum(squares) / (2 * width**2)
        return jnp.sum(jnp.sqrt(squares + (width / 10) ** 2)) / width

    assert_least(cost(y, lambda x: x, energy), est)
    assert (est.sd.t2_s < alone.sd.t2_s).all()

    def error(value):
        return float(jnp.sqrt(jnp.mean(jnp.log(value.t2_s / q.t2_s) ** 2)))

    assert error(est.value) < 0.9 * error(alone.value)


@pytest.mark.long
def test_what_is_masked_has_no_signal_and_is_no_neighbour():
    _, x = phantom()
    mask = np.ones(SHAPE, bool)
    mask[:, 3] = False
    y = whole(jnp.where(mask[..., None], x, 0.0)) + noise(x.shape, 3)
    prior = {"t2_s": joint.Quadratic(0.1)}
    est = fit(ECHOES, y, FREE, NOISE_SD, operator=whole, mask=mask, prior=prior)
    np.testing.assert_array_equal(est.status == MASKED, ~mask)
    np.testing.assert_array_equal(est.value.m0 == 0, ~mask)
    np.testing.assert_array_equal(np.isinf(est.sd.t2_s), ~mask)
    other = jnp.fft.ifft2(y, axes=(0, 1), norm="ortho")[:, 4:]
    right = fit(ECHOES, other, FREE, NOISE_SD, prior=prior)
    np.testing.assert_allclose(est.value.t2_s[:, 4:], right.value.t2_s, rtol=1e-3)
    np.testing.assert_allclose(est.sd.t2_s[:, 4:], right.sd.t2_s, rtol=1e-3)


class Flipped(Decay):
    """m0 sin(B1 α_i) exp(-TE_i / T2)."""

    flip_rad: Float[Array, " readouts"]

    def signal(self, tissue):
        return super().signal(tissue) * jnp.sin(tissue.b1 * self.flip_rad)


class Coils(eqx.Module):
    """`undersampled`, by sensitivities that may move."""

    maps: Array

    def __call__(self, x):
        k = jnp.fft.fft2(x[..., None] * self.maps, axes=(0, 1), norm="ortho")
        return k * jnp.asarray(LINES)[None, :, :, None]


FLIPS = Flipped(ECHOES.te_s, ECHOES.averages, jnp.deg2rad(jnp.linspace(60.0, 100.0, 6)))
POINT = {"flip_rad": FLIPS.flip_rad, "b1": 0.9, "noise_sd": NOISE_SD, "width": 0.1, "coils": 0.1,
         "y": jnp.array([0.3, -0.2])}  # fmt: skip


def differentiable(p, prior, operator, rician=False):
    """Maps of noisy data, of which some move."""
    _, x = phantom()
    theta = replace(FLIPS, flip_rad=p["flip_rad"])
    x = x + noise(x.shape, 4) * (1 + p["y"][0]) + 0.1 * p["y"][1]
    options: dict[str, Any] = {"known": replace(KNOWN, b1=p["b1"])}
    if operator:
        maps = COILS * (1 + 1j * p["coils"] * jnp.asarray(GRID[0])[..., None, None])
        options |= {"operator": Coils(maps), "mask": np.ones(SHAPE, bool)}
        x = Coils(COILS)(x)
    if prior is not None:
        options["prior"] = {"t2_s": prior(p["width"])}
    x = jnp.abs(x) if rician else x
    est = fit(theta, x, FREE, p["noise_sd"], rician=rician, **options)
    phases = list(est.phase_rad.values())
    return est.value.t2_s, est.value.m0, phases, est.sd.t2_s, est.sd.m0, est.residual[0, 0]


@pytest.mark.long
@pytest.mark.parametrize(
    ("prior", "operator", "rician"),
    [
        (joint.TotalVariation, True, False),
        (None, True, False),
        (joint.Quadratic, True, False),
        (joint.TotalVariation, False, True),
        (joint.Quadratic, False, True),
    ],
)
def test_an_image_is_differentiable_in_all_it_is_made_of(prior, operator, rician):
    f = partial(differentiable, prior=prior, operator=operator, rician=rician)
    check_gradient(f, POINT, rtol=1e-5, atol=1e-6)


def test_a_map_from_k_space_knows_how_flip_angles_move_it():
    """One gradient; finite differences in the line of it."""
    _, x = phantom()
    y = undersampled(x) + noise((*x.shape, 4), 4) * (undersampled(x) != 0)
    options: dict[str, Any] = FULL | {"prior": {"t2_s": joint.TotalVariation(0.1)}}

    def mean(flip_rad):
        theta = replace(FLIPS, flip_rad=flip_rad)
        est = fit(theta, y, FREE, NOISE_SD, operator=undersampled, **options)
        return jnp.mean(est.value.t2_s)

    f = jax.jit(jax.value_and_grad(mean), compiler_options=QUICKLY)
    slope = f(FLIPS.flip_rad)[1]
    h = 1e-4 * slope / jnp.linalg.norm(slope)
    change = (f(FLIPS.flip_rad + h)[0] - f(FLIPS.flip_rad - h)[0]) / 2e-4
    np.testing.assert_allclose(change, jnp.linalg.norm(slope), rtol=1e-5)


@pytest.mark.long
def test_nothing_moves_a_value_at_its_bound_or_outside_the_mask():
    _, x = phantom()
    mask = np.ones(SHAPE, bool)
    mask[:, 3] = False

    def maps(shift):
        bounds = {"t2_s": (0.02, 0.07)}
        y = whole((x + noise(x.shape, 4)) * (1 + shift))
        est = fit(ECHOES, y, FREE, NOISE_SD, operator=whole, known=KNOWN, mask=mask, bounds=bounds)
        return est.value.m0, est.status

    (_, status), (slope, _) = jax.jvp(maps, (0.0,), (1.0,))
    assert (status == AT_BOUNDARY).any() and (status == CONVERGED).any()
    np.testing.assert_array_equal(slope == 0, status != CONVERGED)


def magnitudes(shape, m0, seed=0):
    """T2 60 ms, noise of sd 1."""
    q = mr.Tissue(t1_s=jnp.ones(shape), t2_s=0.06, m0=m0)
    x = mr.simulate(ECHOES, q)
    return q, jnp.abs(x + noise(x.shape, seed) / NOISE_SD)


@pytest.mark.long
def test_magnitudes_with_a_prior_that_says_nothing_are_those_of_each_voxel():
    _, m = magnitudes(SHAPE, 8.0)
    alone = fit(ECHOES, m, FREE, 1.0)
    est = fit(ECHOES, m, FREE, 1.0, prior={"t2_s": joint.Quadratic(1e4)})
    sure = np.asarray(alone.status == CONVERGED)
    assert sure.mean() > 0.9 and (np.asarray(est.status == CONVERGED) == sure).all()
    for name in FREE:
        for a, b in ((est.value, alone.value), (est.sd, alone.sd)):
            found, expected = (np.asarray(getattr(q, name))[sure] for q in (a, b))
            np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(est.residual, jnp.sqrt(jnp.mean(alone.residual**2)), rtol=0.02)


def test_magnitudes_of_little_signal_are_not_biased_by_their_floor():
    q, m = magnitudes((20, 20), 3.0)
    prior = {"t2_s": joint.Quadratic(0.02)}
    off = {}
    for rician in (True, False):
        est = fit(ECHOES, m, ("t2_s",), 1.0, known=q, prior=prior, rician=rician)
        assert (est.status == CONVERGED).all()
        off[rician] = float(jnp.mean(jnp.log(est.value.t2_s / 0.06)))
    assert abs(off[True]) < 0.06 and off[False] > 0.4


def test_a_transmit_field_scan_makes_flip_angles_right():
    rng = np.random.default_rng(4)
    q = mr.Tissue(
        t1_s=rng.uniform(0.6, 2.0, 1500), t2_s=0.08, b1=rng.uniform(0.8, 1.2, 1500)
    ).broadcast()
    gre = mr.sequence.spoiled_gradient_echo
    scans = (
        gre(np.deg2rad([2, 4, 10, 18]), te_s=0.002, tr_s=0.012, averages=50.0),
        gre(np.deg2rad([60, 120]), te_s=0.002, tr_s=10.0),
    )
    keys = jax.random.split(jax.random.key(0))
    y = [
        mr.noise.complex_gaussian(scan, mr.simulate(scan, q), 0.01, key)
        for scan, key in zip(scans, keys, strict=True)
    ]
    est = fit(scans, y, ("t1_s", "b1", "m0"), 0.01, known=replace(q, t1_s=1.0, b1=1.0))
    for name in ("t1_s", "b1", "m0"):
        known = est.status == CONVERGED
        assert known.mean() > 0.98
        score = np.asarray((getattr(est.value, name) - getattr(q, name)) / getattr(est.sd, name))
        score = score[np.asarray(known)]
        assert abs(score.std() - 1) < 0.07 and abs(score.mean()) < 0.1


def test_bad_input_is_named():
    _, x = phantom()
    prior: Any = {"t2_s": joint.Quadratic(0.1)}
    for options, words in (
        ({"operator": whole}, "shape"),
        ({"operator": lambda x: x[:2], **FULL}, "become"),
        ({"operator": lambda x: x + 1, **FULL}, "not linear"),
        ({"operator": lambda x: jnp.abs(x), **FULL}, "float"),
        ({"prior": {"m0": prior["t2_s"]}}, "'m0'"),
        ({"prior": prior, "noise_sd": None}, "no noise_sd"),
        ({"prior": prior, "noise_sd": jnp.ones(SHAPE)}, "one number"),
        ({"operator": whole, "rician": True, **FULL}, "Gaussian"),
    ):
        with pytest.raises(InputError, match=words):
            every: Any = {"noise_sd": NOISE_SD} | options
            fit(ECHOES, x, FREE, **every)
