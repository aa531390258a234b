"""Reconstructions against dense solutions, optimality conditions and limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys import InputError, reconstruct
from mrphys.encoding import Encoding, RigidMotion
from mrphys.reconstruction import STOPPED, UNREACHED, L1Wavelet, LowRank, TotalVariation
from mrphys.reconstruction.discrepancy import find_weight
from mrphys.reconstruction.low_rank import shrink_singular
from mrphys.reconstruction.wavelets import transform
from tests.laws import check_gradient

RNG = np.random.default_rng(2)
SHAPE, FRAMES = (8, 6), 4


def random(*shape):
    return RNG.normal(size=shape) + 1j * RNG.normal(size=shape)


def smooth_coils(count, shape):
    """Sensitivities whose squares sum to 1."""
    r = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    angle = 2 * np.pi * np.arange(count) / count
    away = (r[0] - np.cos(angle)[:, None, None]) ** 2 + (r[1] - np.sin(angle)[:, None, None]) ** 2
    maps = np.exp(-away / 2 + 1j * (r[0] * np.cos(angle)[:, None, None] + angle[:, None, None]))
    return maps / np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))


COILS = smooth_coils(3, SHAPE)
MASK = np.zeros((8, 1), bool)
MASK[::2] = MASK[3:5] = True
A = Encoding.cartesian(MASK, COILS)
FULL = Encoding.cartesian(np.ones(SHAPE, bool), COILS)
X = np.zeros(SHAPE, complex)
X[2:6, 1:5] = 1.0 + 0.5j
X[3:5, 2:3] = 2.0
SD = 0.03
NOISE = SD * random(3, *SHAPE) * MASK
Y = np.asarray(A(X)) + NOISE
SERIES = X * np.exp(-0.4 * np.arange(FRAMES))[:, None, None]
MASKS = np.stack([np.roll(MASK, t, axis=0) for t in range(FRAMES)])
AT = Encoding.cartesian(MASKS, COILS)
TWO = Encoding.cartesian(MASKS[:2], COILS)
YT = np.asarray(AT(SERIES)) + SD * random(FRAMES, 3, *SHAPE) * MASKS[:, None]


@functools.cache
def dense():
    """AᴴA, by columns."""
    n = int(np.prod(SHAPE))
    return np.asarray(A.normal(jnp.eye(n).reshape(n, *SHAPE))).reshape(n, n).T


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_conjugate_gradients_solve_the_normal_equations(weight):
    found = reconstruct(A, Y, "cg-sense", regularisation=weight, iterations=60, tolerance=1e-12)
    b = np.asarray(A.H(Y)).ravel()
    x = np.linalg.solve(dense() + weight * np.eye(b.size), b).reshape(SHAPE)
    np.testing.assert_allclose(found.image, x, atol=1e-10)
    assert found.converged
    assert found.history[found.iterations - 1] <= 1e-12
    left = np.sqrt(np.sum(np.abs(A(x) - Y) ** 2) / (2 * 3 * MASK.sum() * 6))
    np.testing.assert_allclose(found.residual, left, rtol=1e-8)


@pytest.mark.parametrize("method", ["adjoint", "cg-sense", "l1-wavelet", "tv"])
def test_what_is_fully_sampled_comes_back(method):
    """Also from real data with nothing between."""
    less = {} if method in ("adjoint", "cg-sense") else {"regularisation": 0.0}
    found = reconstruct(FULL, FULL(X), method, **less)
    np.testing.assert_allclose(found.image, X, atol=1e-3 if method == "tv" else 1e-10)


def test_wavelets_are_optimal():
    """W(AᴴA x - b) = -λ c / |c| where details c are, no more than λ elsewhere, 0 of averages."""
    weight = 0.05
    settings = {"wavelet": "db2", "levels": 2}
    found = reconstruct(
        A, Y, "l1-wavelet", regularisation=weight, iterations=3000, tolerance=1e-13, **settings
    )
    assert found.converged
    c = np.asarray(transform(found.image, 2, "db2", 2))
    slope = np.asarray(transform(A.normal(found.image) - A.H(Y), 2, "db2", 2))
    details = np.ones(SHAPE, bool)
    details[:2, :2] = False
    there = details & (np.abs(c) > 1e-9)
    assert 5 < there.sum() < 40
    np.testing.assert_allclose(slope[there], -weight * (c / np.abs(c))[there], atol=1e-8)
    assert np.abs(slope[details & ~there]).max() < weight * (1 + 1e-8)
    np.testing.assert_allclose(slope[:2, :2], 0, atol=1e-8)


def gap(found, weight, scales=(1.0, 1.0)):
    """Of the primal value at x and a dual value that another algorithm finds: projected gradients
    on the dual, in dense numbers."""
    shape = found.image.shape
    n = found.image.size
    columns = []
    for axis, scale in enumerate(scales):
        step = scale * np.diff(np.eye(shape[axis]), axis=0, append=np.eye(shape[axis])[-1:])
        sides = [np.eye(m) for m in shape]
        sides[axis] = step
        columns.append(functools.reduce(np.kron, sides))
    D = np.concatenate(columns)
    operator, data = (A, Y) if len(shape) == 2 else (TWO, YT[:2])
    b = np.asarray(operator.H(data)).ravel()
    N = np.asarray(operator.normal(jnp.eye(n).reshape(n, *shape))).reshape(n, n).T
    inverse = np.linalg.inv(N)
    both, seen = D @ inverse @ D.T, D @ (inverse @ b)
    step = 1 / np.linalg.norm(both, 2)
    p = z = np.zeros(D.shape[0], complex)
    t = 1.0
    for _ in range(1000):
        q = z + step * (seen - both @ z)
        size = np.linalg.norm(q.reshape(len(scales), -1), axis=0)
        q = (q.reshape(len(scales), -1) * np.minimum(1, weight / np.maximum(size, 1e-30))).ravel()
        after = (1 + np.sqrt(1 + 4 * t**2)) / 2
        p, z, t = q, q + (t - 1) / after * (q - p), after
    left = b - D.T @ p
    dual = -0.5 * np.vdot(left, inverse @ left).real
    x = np.asarray(found.image).ravel()
    rough = np.linalg.norm((D @ x).reshape(len(scales), -1), axis=0).sum()
    primal = 0.5 * np.vdot(x, N @ x).real - np.vdot(x, b).real + weight * rough
    return primal - dual, abs(dual)


def test_total_variation_is_optimal():
    found = reconstruct(A, Y, "tv", regularisation=0.05, iterations=4000, tolerance=1e-9)
    difference, scale = gap(found, 0.05)
    assert -1e-9 * scale < difference < 1e-6 * scale
    assert np.isclose(TotalVariation().energy(jnp.asarray(X), 2), 14 * abs(1 + 0.5j), rtol=0.5)


def test_total_variation_over_time_is_optimal():
    method = TotalVariation(over_time=0.7)
    found = reconstruct(TWO, YT[:2], method, regularisation=0.05, iterations=4000, tolerance=1e-9)
    difference, scale = gap(found, 0.05, (0.7, 1.0, 1.0))
    assert -1e-9 * scale < difference < 1e-6 * scale


def test_total_variation_of_a_constant_is_nothing():
    """A plane's is its slope times its voxels; much of it leaves the mean of what was seen."""
    plane = jnp.arange(6.0)[None] * jnp.ones((4, 1)) + 0j
    np.testing.assert_allclose(TotalVariation().energy(plane, 2), 4 * 5)
    found = reconstruct(FULL, FULL(X), "tv", regularisation=1e3, iterations=3000, tolerance=1e-10)
    np.testing.assert_allclose(found.image, X.mean(), atol=1e-6)


def test_singular_values_are_shrunk():
    """By those of a matrix itself; wide, tall, and of low rank."""
    for frames, voxels in ((3, 7), (7, 3)):
        m = random(2, frames, voxels)
        m[1] = m[1][:, :1] @ m[1][:1]
        u, s, v = np.linalg.svd(m, full_matrices=False)
        expected = (u * np.maximum(s - 0.8, 0)[:, None]) @ v
        np.testing.assert_allclose(
            shrink_singular(jnp.asarray(m), jnp.asarray(0.8)), expected, atol=1e-10
        )


@pytest.mark.parametrize("block", [None, 4])
def test_low_rank_is_optimal(block):
    """G = AᴴA x - b in each block: -λ on the directions of x, no more than λ elsewhere."""
    weight = 0.3
    found = reconstruct(
        AT, YT, "low-rank", block=block, shifts=False, regularisation=weight,
        iterations=3000, tolerance=1e-13,
    )  # fmt: skip
    method = LowRank(block=block)
    slopes = np.asarray(method._blocks(AT.normal(found.image) - AT.H(YT), 2))
    images = np.asarray(method._blocks(found.image, 2))
    assert slopes.shape[0] == (1 if block is None else 4)
    for slope, image in zip(slopes, images, strict=True):
        u, s, v = np.linalg.svd(image, full_matrices=False)
        u, v = u[:, s > 1e-6], v[s > 1e-6]
        assert 0 < u.shape[1] < FRAMES
        np.testing.assert_allclose(u.conj().T @ slope @ v.conj().T, -weight * np.eye(u.shape[1]),
                                   atol=1e-6)  # fmt: skip
        assert np.linalg.norm(slope, 2) < weight * (1 + 1e-6)


def test_a_series_of_low_rank_is_recovered():
    """From fewer samples than voxels, where least squares cannot."""
    few = Encoding.cartesian(RNG.uniform(size=(12, *SHAPE)) < 0.5, axes=2)
    series = X * np.exp(-0.1 * np.arange(12))[:, None, None]
    y = few(series)
    off = {
        method: np.linalg.norm(reconstruct(few, y, method, **settings).image - series)
        for method, settings in (
            ("low-rank", {"regularisation": 1e-3, "block": None, "iterations": 2000,
                          "tolerance": 1e-9}),
            ("cg-sense", {}),
        )
    }  # fmt: skip
    size = np.linalg.norm(series)
    assert off["low-rank"] < 1e-2 * size < 0.3 * size < off["cg-sense"]


@pytest.mark.parametrize("method", ["cg-sense", "l1-wavelet", "tv", "low-rank"])
def test_the_discrepancy_is_met(method):
    operator, data = (AT, YT) if method == "low-rank" else (A, Y)
    found = reconstruct(operator, data, method, noise_sd=SD)
    assert found.status in (0, STOPPED)
    assert found.regularisation > 0
    assert 0.95 < (found.residual / SD) ** 2 < 1.05


def test_conjugate_gradients_stop_at_the_discrepancy():
    early = reconstruct(A, Y, "cg-sense", noise_sd=SD, regularisation=0)
    assert early.converged
    assert early.residual < SD
    before = reconstruct(A, Y, "cg-sense", iterations=int(early.iterations) - 1, tolerance=0.0)
    assert before.residual > SD
    assert before.status == STOPPED


def test_a_noise_that_no_weight_leaves_is_said():
    y = random(3, *SHAPE)
    assert reconstruct(FULL, y, "cg-sense", noise_sd=1e-4).status == UNREACHED
    assert reconstruct(FULL, y, "cg-sense", noise_sd=1e3).status == UNREACHED


def test_weights_are_found_on_any_curve():
    for curve in (lambda w: w**0.2 / 3, lambda w: 0.2 + w**2, lambda w: 4 * w / (1 + w)):
        seen = []

        def ratio(weight, near, curve=curve, seen=seen):
            seen.append(weight)
            return curve(weight), near

        weight, _, found = find_weight(ratio, 1e-2)
        assert found
        assert abs(curve(weight) - 1) < 0.021
        assert len(seen) < 15
    assert not find_weight(lambda weight, near: (0.5, None), 1.0)[2]


def test_starts_batches_and_products():
    """From the answer there is little to do; two images at once; a moving object."""
    options = {"iterations": 60, "tolerance": 1e-12}
    found = reconstruct(A, Y, "cg-sense", **options)
    again = reconstruct(A, Y, "cg-sense", start=found.image, iterations=60, tolerance=1e-10)
    assert again.iterations <= 1
    both = reconstruct(A, np.stack([Y, 2 * Y]), "cg-sense", **options)
    np.testing.assert_allclose(both.image[1], 2 * found.image, atol=1e-9)
    shots = A.shots(np.arange(8)[:, None] % 2, 2)
    moving = shots @ RigidMotion([0.0, 0.1], [[0.0, 0.0], [1.0, 0.0]], (1.0, 1.0))
    seen = reconstruct(moving, moving(X), "cg-sense", **options)
    np.testing.assert_allclose(seen.image, X, atol=1e-6)


def test_wavelets_that_shift_come_near():
    still, moved = (
        reconstruct(A, Y, "l1-wavelet", regularisation=0.02, shifts=shifts, wavelet="db1", levels=2)
        for shifts in (False, True)
    )
    away = np.linalg.norm(still.image - moved.image) / np.linalg.norm(still.image)
    assert 1e-4 < away < 0.1


def whole(pair):
    return pair[0] + 1j * pair[1]


def pair(z):
    return np.stack([z.real, z.imag])


def test_derivatives_through_conjugate_gradients():
    """In data, coils, points of a trajectory and λ, both modes."""
    small = (4, 3)
    coils, k = smooth_coils(3, small), RNG.uniform(-1.4, 1.4, (9, 2))

    def image(v):
        A = Encoding.noncartesian(v["k"], whole(v["c"]), tolerance=1e-13)
        return reconstruct(
            A, whole(v["y"]), "cg-sense", regularisation=v["weight"], iterations=60, tolerance=1e-14
        ).image

    at = {"k": k, "c": pair(coils), "y": pair(random(3, 9)), "weight": np.asarray(0.2)}
    with jax.numpy_rank_promotion("allow"):
        check_gradient(image, at, rtol=2e-6, directions=4)


@pytest.mark.parametrize(
    ("operator", "y", "method"),
    [
        (A, Y, L1Wavelet(wavelet="db2", levels=2)),
        (A, Y, TotalVariation()),
        (AT, YT, LowRank(block=4, shifts=False)),
    ],
    ids=["wavelets", "tv", "low rank"],
)
def test_derivatives_through_unrolled_steps(operator, y, method):
    def image(v):
        return reconstruct(
            operator, whole(v["y"]), method, regularisation=v["weight"],
            iterations=4, tolerance=0.0, differentiable=True,
        ).image  # fmt: skip

    at = {"y": pair(y), "weight": np.asarray(0.07)}
    check_gradient(image, at, scale=0.02, rtol=1e-5, directions=2)


@pytest.mark.core
def test_single_precision(dtype, rtol):
    B = Encoding.cartesian(MASK, jnp.asarray(COILS, jnp.result_type(dtype, jnp.complex64)))
    y = B(jnp.asarray(X, jnp.result_type(dtype, jnp.complex64)))
    for method, settings in (("cg-sense", {}), ("l1-wavelet", {"regularisation": 1e-4})):
        found = reconstruct(B, y, method, **settings)
        assert found.image.dtype == y.dtype
        assert np.linalg.norm(found.image - X) < 0.02 * np.linalg.norm(X)


NAN = np.where(np.arange(6) == 2, np.nan, Y)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: reconstruct(A, Y[:, :7]), r"expected \(..., 3, 8, 6\)"),
        (lambda: reconstruct(A, NAN), "NaN"),
        (lambda: reconstruct(A, 0 * Y), "lines that were never filled"),
        (lambda: reconstruct(A, np.where(MASK, 0, 1.0 + 0 * Y)), "the mask of another scan"),
        (lambda: reconstruct(A, Y, noise_sd=0.0), "above 0"),
        (lambda: reconstruct(A, Y, noise_sd=np.nan), "above 0"),
        (lambda: reconstruct(A, Y, regularisation=-1.0), "at least 0"),
        (lambda: reconstruct(A, Y, "l1-wavelet"), "neither λ nor noise"),
        (lambda: reconstruct(A, Y, "low-rank", regularisation=0.1), "two frames"),
        (lambda: reconstruct(A, Y, "sense"), "one of adjoint"),
        (lambda: reconstruct(A, Y, start=X[:4]), "start"),
        (lambda: reconstruct(A, Y, "adjoint", density=np.ones(3)), "density"),
        (lambda: reconstruct(A, Y, iterations=0), "iterations"),
        (lambda: reconstruct(A, Y, replicas=8), "no noise_sd"),
        (lambda: reconstruct(A, Y, TotalVariation(), over_time=0.0), "settings in the object"),
        (lambda: jax.jit(lambda y: reconstruct(A, y, "tv", noise_sd=SD))(Y), "outside of jit"),
    ],
)
def test_bad_input_says_what_is_wrong(build, told):
    with pytest.raises(InputError, match=told):
        build()


def test_names_are_public():
    assert mr.reconstruct is reconstruct
    assert "STOPPED" in mr.reconstruction.__all__
