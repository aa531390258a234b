"""What a visit shows: closed forms, recovered noise, volumes, tails and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from oncology.observe import (
    FULL,
    SOFTNESS,
    CellularityMap,
    VisibleMask,
    above_zero,
    below_full,
    cellularity,
    filled,
    front,
    infiltration_length_mm,
    noise_sd,
    visible_cellularity_mm3,
    visible_volume_mm3,
)
from tests.laws import check_gradient
from tests.oncology.virtual import lump

P = {"diffusivity_mm2_per_day": 0.1, "growth_rate_per_day": 0.03}
SHAPE, SPACING_MM = (17, 15, 9), (2.0, 2.0, 3.0)


@pytest.fixture(scope="module")
def tumor():
    return lump(SHAPE, SPACING_MM, 8.0)


@pytest.fixture(scope="module")
def seen(tumor):
    noisy = tumor + 0.03 * np.random.default_rng(0).standard_normal(SHAPE)
    return CellularityMap(noisy, 0.03, tumor > 0.2, np.ones(SHAPE, bool), SPACING_MM)


def test_cellularity_at_its_ends_and_beyond_them():
    adc = np.array([3e-3, 0.7e-3, 3.5e-3, 0.2e-3])
    found = cellularity(adc, 3e-3, 0.7e-3)
    np.testing.assert_allclose(found, [0, 1, -0.5 / 2.3, 2.8 / 2.3], atol=1e-12)


def test_cellularity_gradient():
    scale = {"adc": jnp.array([0.9e-3, 2.9e-3]), "w": 3e-3, "least": 0.7e-3}
    check_gradient(lambda s: cellularity(s["adc"], s["w"], s["least"]), scale)


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [((80, 80, 1), (1.0, 1.0, 5.0)), ((24, 24, 12), (1.0, 1.0, 1.0)), ((40, 40, 6), (1, 1, 6))],
)
def test_noise_sd_on_a_smooth_background(shape, spacing_mm):
    rng = np.random.default_rng(0)
    x, y = np.indices(shape)[:2]
    smooth = np.sin(x / 9) * np.cos(y / 11)
    mask = np.hypot(x - shape[0] / 2, y - shape[1] / 2) < 0.48 * shape[0]
    found = noise_sd(smooth + 0.04 * rng.standard_normal(shape), mask, spacing_mm)
    assert found == pytest.approx(0.04, rel=0.05)


def test_noise_sd_looks_along_the_finest_axes_alone():
    """Slices that differ wildly, as thick ones do, are not noise."""
    rng = np.random.default_rng(0)
    value = 0.04 * rng.standard_normal((40, 40, 6)) + rng.standard_normal(6)
    found = noise_sd(value, np.ones(value.shape, bool), (1.0, 1.0, 6.0))
    assert found == pytest.approx(0.04, rel=0.05)


def test_noise_sd_passes_over_voxels_without_a_value():
    value = 0.04 * np.random.default_rng(0).standard_normal((60, 60, 1))
    value[30, 30] = np.nan
    found = noise_sd(value, np.ones(value.shape, bool), (1.0, 1.0, 1.0))
    assert found == pytest.approx(0.04, rel=0.05)


def test_filled_closes_rings_and_shells_and_keeps_the_rest():
    x, y, z = np.indices((21, 21, 15)) - np.array([10, 10, 7])[:, None, None, None]
    r = np.sqrt(x**2 + y**2 + z**2)
    ball = r < 6
    np.testing.assert_array_equal(filled(ball & (r > 3)), ball)
    ring = ball & (np.hypot(x, y) > 2) & (z == 0)
    np.testing.assert_array_equal(filled(ring), ball & (z == 0))
    np.testing.assert_array_equal(filled(ball), ball)


def test_front_is_a_travelling_wave_of_the_model():
    """u(x - ct) of speed c = 5 √(D k / 6) satisfies D u'' + c u' + k u (1 - u) = 0."""
    d, k = 0.1, 0.03
    speed, length = 5 * np.sqrt(d * k / 6), np.sqrt(d / k)

    def u(x):
        return front(x, 0.3, length)

    x = jnp.linspace(-8.0, 12.0, 41)
    slope = jax.vmap(jax.grad(u))(x)
    bend = jax.vmap(jax.grad(jax.grad(u)))(x)
    balance = d * bend + speed * slope + k * u(x) * (1 - u(x))
    np.testing.assert_allclose(balance, 0, atol=1e-12)
    assert float(u(jnp.array(0.0))) == pytest.approx(0.3)


def test_infiltration_length():
    assert float(infiltration_length_mm(P)) == pytest.approx(1 / np.sqrt(0.3 + 1 / 100), rel=1e-12)
    still = {"diffusivity_mm2_per_day": 0.1, "growth_rate_per_day": 0.0}
    assert float(infiltration_length_mm(still)) == pytest.approx(10.0)
    shrinking = {"diffusivity_mm2_per_day": 0.1, "growth_rate_per_day": -0.1}
    assert float(infiltration_length_mm(shrinking)) == pytest.approx(10.0)
    wide = float(infiltration_length_mm({**P, "infiltration_ratio": 1.7}))
    assert wide == pytest.approx(1.7 * float(infiltration_length_mm(P)))


def test_state_lives_between_nothing_and_full(seen):
    value = seen.value.at[8, 7, 4].set(5.0).at[8, 8, 4].set(-5.0)
    wild = CellularityMap(value, 0.03, seen.mask, seen.habitable, SPACING_MM)
    u = np.asarray(wild.state(P, jnp.zeros(SHAPE)))
    assert u.min() >= 0
    assert u.max() <= 1
    assert u[8, 7, 4] == pytest.approx(FULL, abs=2 * SOFTNESS**2)
    assert u[8, 8, 4] == 0


def test_state_is_the_map_inside_and_the_front_of_its_nearest_voxel_outside():
    mask = np.zeros((30, 1, 1), bool)
    mask[:6] = True
    value = np.where(mask, 0.4, 0.9)
    habitable = np.ones_like(mask)
    habitable[-3:] = False
    seen = CellularityMap(value, 0.03, mask, habitable, (0.5, 1.0, 1.0))
    u = np.asarray(seen.state(P, jnp.full(mask.shape, 0.1)))[:, 0, 0]
    np.testing.assert_allclose(u[:6], 0.3, atol=SOFTNESS**2 / 0.3)
    distance = 0.5 * jnp.arange(1, 22)
    ahead = front(distance, float(u[5]), infiltration_length_mm(P))
    np.testing.assert_allclose(u[6:27], ahead)
    np.testing.assert_array_equal(u[27:], 0)


def test_the_truth_leaves_no_residual(tumor):
    exact = CellularityMap(tumor, 0.03, tumor > 0.2, np.ones(SHAPE, bool), SPACING_MM)
    u = exact.state(P, jnp.zeros(SHAPE))
    np.testing.assert_allclose(exact.residual(u), 0, atol=SOFTNESS**2 / 0.2 / 0.03)


def test_limits_are_rounded_over_their_softness_alone():
    x = jnp.linspace(-0.2, 1.3, 301)
    limited = np.clip(x, 0.0, FULL)
    rounded = np.asarray(above_zero(below_full(x)))
    assert np.all((rounded >= 0) & (rounded <= FULL))
    assert np.abs(rounded - limited).max() <= SOFTNESS
    away = (np.abs(x) > 10 * SOFTNESS) & (np.abs(x - FULL) > 10 * SOFTNESS)
    np.testing.assert_allclose(rounded[away], limited[away], atol=0.1 * SOFTNESS)
    np.testing.assert_array_equal(rounded[np.asarray(x) < 0], rounded[0])


def test_the_rounding_has_a_continuous_slope_and_curvature():
    slope = jax.grad(lambda x: above_zero(x))
    curvature = jax.grad(slope)
    assert slope(0.0) == curvature(0.0) == 0.0
    assert float(curvature(1e-8)) == pytest.approx(6e-8 / SOFTNESS**2, rel=1e-3)
    check_gradient(above_zero, jnp.array([-0.01, 0.003, 0.02]), scale=1e-3)


def test_residual_of_noise_is_chi_squared(seen, tumor):
    state = seen.state(P, seen.value - jnp.asarray(tumor))
    squares = np.asarray(seen.residual(state)) ** 2
    n = seen.inside.size
    assert squares.sum() == pytest.approx(n, abs=5 * np.sqrt(2 * n))


def test_density_outside_the_mask_counts_only_above_its_edge(seen):
    outside = np.asarray(~seen.mask)
    below = jnp.where(seen.mask, seen.value, 0.9 * seen.edge)
    np.testing.assert_allclose(seen.residual(below), 0, atol=1e-3)
    above = jnp.where(seen.mask, seen.value, seen.edge + 0.06)
    assert float(jnp.sum(seen.residual(above) ** 2)) == pytest.approx(
        4 * outside.sum(), rel=2.1 * (SOFTNESS / 0.06) ** 2
    )


def test_a_model_error_widens_what_is_expected_but_not_the_noise(seen):
    wider = seen.with_model_error(jnp.full(SHAPE, 0.04**2))
    u = jnp.zeros(SHAPE)
    np.testing.assert_allclose(wider.residual(u), np.asarray(seen.residual(u)) * 0.6)
    np.testing.assert_allclose(wider.noise_share, 0.6)
    np.testing.assert_array_equal(seen.noise_share, 1)
    np.testing.assert_allclose(wider.for_noise_alone().expected_sd, seen.sd)
    np.testing.assert_array_equal(wider.error_sd, np.where(seen.mask, 0.03, 0.0))


def test_cellularity_map_gradients(seen):
    u0, error = seen.state(P, jnp.zeros(SHAPE)), 0.01 * jnp.ones(SHAPE)
    p = {**P, "infiltration_ratio": 0.8}
    check_gradient(lambda p: seen.state(p, error), p)
    check_gradient(lambda e: seen.state(P, e), error, scale=0.01, rtol=1e-5)
    check_gradient(seen.residual, u0, scale=0.03)

    def of_value(value):
        map_ = CellularityMap(value, 0.03, seen.mask, seen.habitable, SPACING_MM)
        return map_.state(P, error), map_.residual(u0)

    moved = jax.jvp(of_value, (seen.value,), (jnp.ones(SHAPE),))[1]
    assert all(np.all(np.isfinite(part)) for part in moved)


@pytest.mark.parametrize(
    "value", [0.0, 1.0, -3.0, 1e3], ids=["empty", "full", "far below", "far above"]
)
@pytest.mark.parametrize("p", [P, {**P, "growth_rate_per_day": 0.0}], ids=["growing", "still"])
def test_gradients_stay_finite_at_extremes(value, p):
    mask = np.zeros((9, 9, 1), bool)
    mask[4, 4] = True
    map_ = CellularityMap(np.full(mask.shape, value), 0.03, mask, ~mask | mask, (2.0, 2.0, 2.0))

    def loss(p, error):
        u = map_.state(p, error)
        return jnp.sum(u) + jnp.sum(map_.residual(u) ** 2)

    by_p, by_error = jax.grad(loss, argnums=(0, 1))(p, jnp.zeros(mask.shape))
    assert all(np.all(np.isfinite(g)) for g in (*by_p.values(), by_error))


def test_a_mask_over_the_whole_grid_has_no_outside(tumor):
    everywhere = np.ones(SHAPE, bool)
    seen = CellularityMap(tumor, 0.03, everywhere, everywhere, SPACING_MM)
    assert seen.outside.size == 0
    assert np.all(np.isfinite(seen.edge))
    np.testing.assert_allclose(seen.residual(jnp.asarray(tumor)), 0)


@pytest.mark.parametrize("radius_mm", [5.0, 9.0, 14.0])
@pytest.mark.parametrize("threshold", [0.16, 0.8])
def test_state_of_a_mask_is_visible_over_the_drawn_volume(radius_mm, threshold):
    mask = lump((40, 40, 8), (1.0, 1.0, 5.0), radius_mm, 1.0) > 0.5
    seen = VisibleMask(mask, np.ones_like(mask), (1.0, 1.0, 5.0), threshold)
    u = seen.state(P, jnp.zeros(()))
    np.testing.assert_array_equal(np.asarray(u) > threshold, mask)
    volume = visible_volume_mm3(u, threshold, 5.0)
    softening = 0.12 if radius_mm < 6 else 0.05
    assert float(volume) == pytest.approx(5.0 * mask.sum(), rel=softening)


def test_error_of_a_mask_moves_its_log_volume_by_as_much():
    mask = lump((60, 60, 40), (1.0, 1.0, 1.5), 14.0, 1.0) > 0.5
    seen = VisibleMask(mask, np.ones_like(mask), (1.0, 1.0, 1.5), 0.5)

    def log_volume(error):
        return jnp.log(visible_volume_mm3(seen.state(P, error), 0.5, 1.5))

    errors = np.array([-0.3, 0.3])
    low, high = (float(log_volume(jnp.array(error))) for error in errors)
    assert (high - low) / np.diff(errors)[0] == pytest.approx(-1, abs=0.15)


def test_residual_of_a_mask_is_the_log_of_the_volumes_ratio():
    mask = np.zeros((20, 20, 1), bool)
    mask[5:15, 5:15] = True
    seen = VisibleMask(mask, np.ones_like(mask), (2.0, 2.0, 2.0), 0.5, log_volume_sd=0.1)
    half = jnp.asarray(mask.astype(float)).at[10:].set(0.0)
    assert float(seen.residual(half)[0]) == pytest.approx(np.log(0.5) / 0.1, rel=1e-3)
    assert float(seen.error_sd) == pytest.approx(0.1)


def test_a_ring_shows_a_whole_tumour():
    x, y = np.indices((30, 30)) - 15
    disc = (np.hypot(x, y) < 9)[..., None]
    ring = disc & (np.hypot(x, y) > 5)[..., None]
    both = (VisibleMask(m, np.ones_like(m), (1.0, 1.0, 5.0), 0.8) for m in (ring, disc))
    of_ring, of_disc = (np.asarray(m.state(P, jnp.zeros(()))) for m in both)
    np.testing.assert_array_equal(of_ring, of_disc)
    assert of_ring[15, 15, 0] > 0.9


def test_visible_mask_gradients():
    mask = lump((20, 20, 1), (2.0, 2.0, 2.0), 9.0, 1.0) > 0.5
    seen = VisibleMask(mask, np.ones_like(mask), (2.0, 2.0, 2.0), 0.8)
    p = {**P, "infiltration_ratio": 0.8}
    check_gradient(lambda p: seen.state(p, jnp.array(0.1)), p)
    check_gradient(lambda e: seen.residual(seen.state(P, e)), jnp.array(0.05), scale=0.02)


def test_visible_totals_of_an_empty_and_a_full_grid():
    empty, full = jnp.zeros((5, 5, 2)), jnp.ones((5, 5, 2))
    assert float(visible_volume_mm3(full, 0.5, 3.0)) == pytest.approx(150, rel=1e-3)
    assert 0 < float(visible_volume_mm3(empty, 0.5, 3.0)) < 0.01
    assert float(visible_cellularity_mm3(0.8 * full, 0.5, 3.0)) == pytest.approx(120, rel=1e-3)
    for u in (empty, full):
        slope = jax.grad(lambda u: jnp.log(visible_volume_mm3(u, 0.5, 3.0)))(u)
        assert np.all(np.isfinite(np.asarray(slope)))


@pytest.mark.parametrize("kind", [CellularityMap, VisibleMask])
def test_an_empty_mask_is_refused(kind):
    nothing = np.zeros((4, 4, 1), bool)
    further = (0.5,) if kind is VisibleMask else ()
    given = (nothing,) if kind is VisibleMask else (np.zeros((4, 4, 1)), 0.03, nothing)
    with pytest.raises(InputError, match="an empty tumour mask"):
        kind(*given, ~nothing, (1.0, 1.0, 1.0), *further)
