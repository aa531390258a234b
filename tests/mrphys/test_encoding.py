"""Encoding operators against the sum they stand for, term by term, and the laws of operators."""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys import InputError
from mrphys.encoding import Encoding, RigidMotion, fft, ifft, nonuniform
from mrphys.encoding.segments import segments
from tests.laws import check_adjoint, check_gradient

RNG = np.random.default_rng(0)
GRID = (6, 5)


def random(*shape):
    return RNG.normal(size=shape) + 1j * RNG.normal(size=shape)


def places(shape):
    each = [(np.arange(n) - n // 2) / n for n in shape]
    return np.stack(np.meshgrid(*each, indexing="ij"), axis=-1).reshape(-1, len(shape))


def waves(k, shape):
    """exp(-2πi k·r) / sqrt(voxels), (samples, *shape), as slow and plain as it gets."""
    kernel = np.exp(-2j * np.pi * k @ places(shape).T) / np.sqrt(np.prod(shape))
    return kernel.reshape(-1, *shape)


def grid_points(shape):
    return places(shape) * np.array(shape)


COILS, POINTS = random(3, *GRID), RNG.uniform(-2.5, 2.5, (17, 2))
MASK, MASKS = RNG.uniform(size=GRID) < 0.6, RNG.uniform(size=(4, *GRID)) < 0.6
FRAMES = RNG.uniform(-2.4, 2.4, (4, 7, 2))
LINE = np.arange(6)[:, None] % 2 * np.ones(GRID)
COLUMNS = RNG.uniform(size=(4, 1, 5)) < 0.6
BASIS, B0 = random(4, 2), RNG.uniform(-60, 60, GRID)
R2, TIMES = RNG.uniform(0, 40, GRID), np.linspace(0.0, 0.01, 17)
LINES = np.linspace(-0.004, 0.004, 5)[None]


def plain(k, x, coils=None):
    """Σ_r exp(-2πi k·r) c x."""
    maps = np.ones((1, *x.shape)) if coils is None else coils
    y = np.einsum("jxy,cxy,xy->cj", waves(k, x.shape), maps, x)
    return y[0] if coils is None else y


def on_grid(x, coils, mask):
    return mask * plain(grid_points(GRID), x, coils).reshape(-1, *GRID)


def exact_decay(k, times, x, coils):
    decay = np.exp(-(R2 + 2j * np.pi * B0)[None] * times[:, None, None])
    return np.einsum("jxy,jxy,cxy,xy->cj", waves(k, GRID), decay, coils, x)


def slices(x, coils, phase, k):
    return sum(np.exp(1j * phase[s]) * plain(k, x[s], coils[:, s]) for s in range(x.shape[0]))


TWO = random(3, 2, *GRID)
PHASE = RNG.uniform(-3, 3, (2, 17))
CAIPI = np.stack([np.zeros(GRID), np.pi * (np.arange(6) % 2)[:, None] * np.ones(GRID)])
SHOT = RNG.integers(0, 3, GRID)

along = Encoding.noncartesian(POINTS, COILS, tolerance=1e-13)
CASES = {
    "grid": (Encoding.cartesian(MASK), GRID,
             lambda x: MASK * plain(grid_points(GRID), x).reshape(GRID)),
    "coils": (Encoding.cartesian(MASK, COILS), GRID, lambda x: on_grid(x, COILS, MASK)),
    "series": (Encoding.cartesian(MASKS, COILS), (4, *GRID),
               lambda x: np.stack([on_grid(x[t], COILS, MASKS[t]) for t in range(4)])),
    "lines": (Encoding.cartesian(LINE, COILS), GRID, lambda x: on_grid(x, COILS, LINE)),
    "series of columns": (Encoding.cartesian(COLUMNS, COILS).subspace(BASIS), (2, *GRID),
                          lambda x: np.stack([on_grid(np.tensordot(BASIS[t], x, 1), COILS,
                                                      COLUMNS[t] * np.ones(GRID))
                                              for t in range(4)])),
    "all": (Encoding.cartesian(np.ones(GRID), COILS), GRID, lambda x: on_grid(x, COILS, 1)),
    "subspace": (Encoding.cartesian(MASKS, COILS).subspace(BASIS), (2, *GRID),
                 lambda x: np.stack([on_grid(np.tensordot(BASIS[t], x, 1), COILS, MASKS[t])
                                     for t in range(4)])),
    "shots": (Encoding.cartesian(MASK, COILS).shots(SHOT, 3), (3, *GRID),
              lambda x: sum(on_grid(x[s], COILS, MASK * (s == SHOT)) for s in range(3))),
    "caipi": (Encoding.cartesian(MASK, TWO, axes=2).slices_at_once(CAIPI), (2, *GRID),
              lambda x: sum(np.exp(1j * CAIPI[s]) * on_grid(x[s], TWO[:, s], MASK)
                            for s in range(2))),
    "along": (along, GRID, lambda x: plain(POINTS, x, COILS)),
    "along without coils": (Encoding.noncartesian(POINTS, shape=GRID, tolerance=1e-13), GRID,
                            lambda x: plain(POINTS, x)),
    "along series": (Encoding.noncartesian(FRAMES, COILS, tolerance=1e-13), (4, *GRID),
                     lambda x: np.stack([plain(FRAMES[t], x[t], COILS) for t in range(4)])),
    "along subspace": (Encoding.noncartesian(FRAMES, COILS, tolerance=1e-13).subspace(BASIS),
                       (2, *GRID),
                       lambda x: np.stack([plain(FRAMES[t], np.tensordot(BASIS[t], x, 1), COILS)
                                           for t in range(4)])),
    "along slices": (Encoding.noncartesian(POINTS, TWO, tolerance=1e-13).slices_at_once(PHASE),
                     (2, *GRID), lambda x: slices(x, TWO, PHASE, POINTS)),
    "off resonance": (along.off_resonance(B0, TIMES, r2star_per_s=R2, tolerance=1e-9), GRID,
                      lambda x: exact_decay(POINTS, TIMES, x, COILS)),
    "off resonance on lines": (
        Encoding.cartesian(MASK, COILS).off_resonance(B0, LINES, r2star_per_s=R2, tolerance=1e-9),
        GRID,
        lambda x: MASK * exact_decay(grid_points(GRID), np.tile(LINES[0], 6), x,
                                     COILS).reshape(-1, *GRID)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_encoding_is_the_sum_it_says(name):
    """In 10 digits, with the adjoint that belongs to it and AᴴA of both."""
    A, shape, expected = CASES[name]
    x = random(*shape)
    y = A(x)
    np.testing.assert_allclose(y, expected(x), atol=3e-8 if "off" in name else 1e-11)
    check_adjoint(A, A.H, jnp.asarray(x), jnp.asarray(random(*y.shape)), rtol=1e-12)
    np.testing.assert_allclose(A.normal(x), A.H(y), atol=1e-9)


def test_batches_go_before():
    for name in ("coils", "subspace", "along series", "along slices"):
        A, shape, _ = CASES[name]
        x = random(2, *shape)
        np.testing.assert_allclose(A(x), np.stack([A(x[0]), A(x[1])]), atol=1e-11)
        np.testing.assert_allclose(A.H(A(x))[1], A.H(A(x[1])), atol=1e-11)
        np.testing.assert_allclose(A.normal(x)[1], A.normal(x[1]), atol=1e-11)


def test_terms_of_several_kinds_multiply():
    """A subspace off resonance: each frame off resonance."""
    times = np.linspace(0, 0.01, 7)
    frames = Encoding.noncartesian(FRAMES, COILS, tolerance=1e-13)
    A = frames.subspace(BASIS).off_resonance(B0, times, tolerance=1e-9)
    B = frames.off_resonance(B0, times, tolerance=1e-9).subspace(BASIS)
    x = random(2, *GRID)
    series = np.tensordot(BASIS, x, 1)
    expected = [
        Encoding.noncartesian(FRAMES[t], COILS, tolerance=1e-13)
        .off_resonance(B0, times, tolerance=1e-9)(series[t])
        for t in range(4)
    ]  # fmt: skip
    np.testing.assert_allclose(A(x), np.stack(expected), atol=1e-9)
    np.testing.assert_allclose(B(x), A(x), atol=1e-9)
    np.testing.assert_allclose(A.normal(x), A.H(A(x)), atol=1e-9)


def test_transforms_are_centred_and_unitary():
    for shape in ((6, 5), (4, 3), (2, 7)):
        x = random(*shape)
        y = plain(grid_points(shape), x).reshape(shape)
        np.testing.assert_allclose(fft(jnp.asarray(x), 2), y, atol=1e-12)
        np.testing.assert_allclose(ifft(jnp.asarray(y), 2), x, atol=1e-12)


@pytest.mark.core
def test_single_precision_keeps_the_law(dtype):
    shape = (16, 12)
    complex_type = jnp.result_type(dtype, jnp.complex64)
    coils = jnp.asarray(random(4, *shape), complex_type)
    k = jnp.asarray(RNG.uniform(-5.5, 5.5, (80, 2)), dtype)
    mask = RNG.uniform(size=shape) < 0.4
    for A in (Encoding.cartesian(mask, coils), Encoding.noncartesian(k, coils)):
        x = jnp.asarray(random(*shape), complex_type)
        y = jnp.asarray(random(*A(x).shape), complex_type)
        assert A(x).dtype == complex_type
        check_adjoint(A, A.H, x, y, rtol=1e-10 if dtype == jnp.float64 else 1e-5)
        np.testing.assert_allclose(A.normal(x), A.H(A(x)), atol=2e-5 * float(jnp.abs(x).max()))


def test_derivatives_in_image_points_coils_and_field():
    small = (4, 3)
    coils, x, b0 = random(2, *small), random(*small), RNG.uniform(-30, 30, small)
    k, times = RNG.uniform(-1.4, 1.4, (6, 2)), np.linspace(0, 0.01, 6)

    def signal(v):
        A = Encoding.noncartesian(v["k"], v["c"][0] + 1j * v["c"][1], tolerance=1e-13)
        A = A.off_resonance(v["b0"], times, span=(-40.0, 40.0), tolerance=1e-9)
        y = A(v["x"][0] + 1j * v["x"][1])
        return jnp.concatenate([y.ravel(), A.normal(v["x"][0] + 0j).ravel()])

    at = {
        "k": k,
        "b0": b0,
        "c": np.stack([coils.real, coils.imag]),
        "x": np.stack([x.real, x.imag]),
    }
    with jax.numpy_rank_promotion("allow"):  # in the transform's own derivative
        check_gradient(signal, at, rtol=1e-6, directions=6)


def test_segments_keep_their_tolerance():
    b0 = np.linspace(-150, 150, 40)
    times = np.linspace(-0.005, 0.015, 64)
    exact = np.exp(-2j * np.pi * b0[None] * times[:, None])
    counts = []
    for tolerance in (1e-2, 1e-5):
        made = segments(jnp.asarray(b0), times, None, None, tolerance)
        counts.append(made.over_time.shape[0])
        approximate = np.einsum("lt,lv->tv", made.over_time, made.over_voxels)
        assert np.abs(approximate - exact).max() < 1.5 * tolerance
    assert counts[0] < counts[1] < 20


def test_motion_turns_and_shifts_and_comes_back():
    """A quarter turn moves voxels onto voxels; a whole shift rolls; the adjoint is the inverse."""
    x = np.zeros((9, 9), complex)
    x[4 + 2, 4 + 1] = 1.0
    turned = RigidMotion([np.pi / 2], [[0.0, 0.0]], (1.0, 1.0))(x)[0]
    assert abs(turned[4 - 1, 4 + 2] - 1) < 1e-10
    shifted = RigidMotion([0.0], [[2.0, -3.0]], (2.0, 1.0))(x)[0]
    np.testing.assert_allclose(shifted, np.roll(x, (1, -3), (0, 1)), atol=1e-12)
    smooth = np.exp(-4 * np.sum(places((15, 16)) ** 2 * 9, axis=1)).reshape(15, 16)
    T = RigidMotion([0.3, -0.2], [[0.5, 1.2], [-0.3, 0.0]], (1.0, 0.8))
    np.testing.assert_allclose(T.H(T(smooth)) / 2, smooth, atol=1e-12)
    check_adjoint(T, T.H, jnp.asarray(smooth + 0j), jnp.asarray(random(2, 15, 16)))


def test_motion_in_three_axes_is_the_rotation():
    """A Gaussian off centre is found where R takes it."""
    shape, voxel = (20, 18, 22), (1.0, 1.1, 0.9)
    r = places(shape) * np.array(shape) * np.array(voxel)
    at = np.array([2.5, -1.5, 2.0])
    blob = np.exp(-np.sum((r - at) ** 2, axis=1) / 5).reshape(shape)
    angles, shift = np.array([0.2, -0.15, 0.3]), np.array([0.7, 0.2, -1.0])
    cos, sin = np.cos(angles), np.sin(angles)
    rx = np.array([[1, 0, 0], [0, cos[0], -sin[0]], [0, sin[0], cos[0]]])
    ry = np.array([[cos[1], 0, sin[1]], [0, 1, 0], [-sin[1], 0, cos[1]]])
    rz = np.array([[cos[2], -sin[2], 0], [sin[2], cos[2], 0], [0, 0, 1]])
    now = rx @ ry @ rz @ at + shift
    expected = np.exp(-np.sum((r - now) ** 2, axis=1) / 5).reshape(shape)
    moved = RigidMotion(angles[None], shift[None], voxel)(blob)[0]
    np.testing.assert_allclose(moved, expected, atol=2e-3)


def test_motion_of_shots_is_seen_and_differentiable():
    A = Encoding.cartesian(np.ones(GRID, bool), COILS).shots(SHOT, 3)
    x, d = random(*GRID), np.array([[0.0, 0.0], [1.0, 0.0], [0.0, -1.0]])
    y = (A @ RigidMotion(np.zeros(3), d, (1.0, 1.0)))(x)
    expected = sum(
        on_grid(np.roll(x, d[s].astype(int), (0, 1)), COILS, s == SHOT) for s in range(3)
    )
    np.testing.assert_allclose(y, expected, atol=1e-11)
    check_gradient(
        lambda v: (A @ RigidMotion(v["turn"], v["shift"], (1.0, 1.0)))(jnp.asarray(x)),
        {"turn": np.array([0.0, 0.1, -0.2]), "shift": d + 0.1},
        rtol=1e-6,
        directions=4,
    )


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: Encoding.cartesian(np.ones((4, 5)), random(2, 5, 4)), "mask of another matrix"),
        (lambda: Encoding.cartesian(np.zeros((4, 5), bool)), "no sample in frame 0"),
        (lambda: Encoding.cartesian(MASK, np.full((2, *GRID), np.nan)), "NaN"),
        (lambda: Encoding.noncartesian(POINTS), "neither coils nor shape"),
        (lambda: Encoding.noncartesian(POINTS * 30, shape=(32, 32)), "1/m"),
        (lambda: Encoding.noncartesian(POINTS / 8, shape=(32, 32)), "cycles per voxel"),
        (lambda: Encoding.noncartesian(np.pi / 2.5 * POINTS, shape=(32, 32)), "radians"),
        (lambda: Encoding.noncartesian(POINTS, random(2, 4, 5), (5, 4)), "coils"),
        (lambda: along(random(5, 6)), r"expected \(..., 6, 5\)"),
        (lambda: along.H(random(2, 17)), r"expected \(..., 3, 17\)"),
        (lambda: along.subspace(BASIS), "a basis of 4 frames"),
        (lambda: along.off_resonance(B0 * 1e3, TIMES), "b0 in rad/s"),
        (lambda: along.off_resonance(B0, TIMES[:3]), "time_s"),
        (lambda: Encoding.cartesian(MASK).shots(SHOT, 2), "0 to 1"),
        (lambda: RigidMotion([5.0], [[0.0, 0.0]], (1.0, 1.0)), "degrees"),
    ],
)
def test_bad_input_says_what_is_wrong(build, told):
    with pytest.raises(InputError, match=told):
        build()


def test_jit_and_batches_of_operators():
    A = CASES["coils"][0]
    x = jnp.asarray(random(*GRID))
    np.testing.assert_allclose(
        eqx.filter_jit(lambda A, x: A.normal(x))(A, x), A.normal(x), atol=1e-12
    )
    masks = jnp.asarray(MASKS, float)
    ys = jax.vmap(lambda m: Encoding.cartesian(m, COILS)(x))(masks)
    np.testing.assert_allclose(ys[2], Encoding.cartesian(MASKS[2], COILS)(x), atol=1e-12)


def test_coils_by_thread_are_the_same(monkeypatch):
    """Two of five coils, then three: the sum of all."""
    coils = random(5, *GRID)
    A, x, y = Encoding.cartesian(MASK, coils), random(*GRID), random(5, *GRID)
    whole = A(x), A.H(y), A.normal(x)
    monkeypatch.setattr("mrphys.encoding.encoding.LARGE", 1)
    monkeypatch.setattr("mrphys.encoding.encoding.cores", lambda: 2)
    assert [which for _, which in A.by_thread()] == [slice(0, 2), slice(2, 5)]
    for found, expected in zip((A(x), A.H(y), A.normal(x)), whole, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_both_libraries_of_transforms_agree(monkeypatch):
    """Values, adjoint and the gradient in points; without the second an error that says so."""

    def found(tolerance):
        def power(k):
            A = Encoding.noncartesian(k, COILS, tolerance=tolerance)
            y = A(image)
            return jnp.sum(jnp.abs(y - samples) ** 2), (y, A.H(samples))

        with jax.numpy_rank_promotion("allow"):  # inside of the libraries
            slope, values = jax.jit(jax.grad(power, has_aux=True))(jnp.asarray(POINTS))
        return slope, *values

    image, samples = jnp.asarray(random(*GRID)), jnp.asarray(random(3, 17))
    expected = found(1e-12)
    monkeypatch.setattr(nonuniform, "finufft_serves", lambda: False)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "nufftax", None)
        with pytest.raises(InputError, match="accelerator"):
            found(1e-9)
    pytest.importorskip("nufftax")
    for one, other in zip(found(1e-9), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6 * np.max(np.abs(other)))
