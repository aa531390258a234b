import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys import InputError
from mrphys.field_maps import (
    AT_BOUNDARY,
    CONVERGED,
    FAILED,
    ILL_DETERMINED,
    MASKED,
    actual_flip,
    bloch_siegert,
    bloch_siegert_phase,
    double_angle,
    static_field,
)
from tests.laws import check_gradient

VOXELS = 10_000
B1 = jnp.linspace(0.6, 1.3, VOXELS)
TE_S = np.array([0.003, 0.0055, 0.008, 0.013])


def noise(shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape))


def score(value, truth, sd, status):
    good = np.asarray(status) == CONVERGED
    assert good.mean() > 0.95
    z = ((value - truth) / sd)[good]
    return float(z.mean()), float(z.std())


def two_angles(flip, b1=B1, m0=0.7):
    return m0 * jnp.sin(b1 * flip), m0 * jnp.sin(2 * b1 * flip)


def two_repetitions(flip, tr_s, b1=B1, t1_s=1.0):
    """Yarnykh's steady state, exact."""
    e1, e2, c = np.exp(-tr_s[0] / t1_s), np.exp(-tr_s[1] / t1_s), jnp.cos(b1 * flip)
    below = jnp.sin(b1 * flip) / (1 - e1 * e2 * c**2)
    return below * (1 - e2 + (1 - e1) * e2 * c), below * (1 - e1 + (1 - e2) * e1 * c)


@pytest.mark.core
def test_double_angle_is_exact_and_calibrated(rtol):
    for dress in (jnp.abs, lambda x: x * jnp.exp(0.3j)):
        single, double = (dress(x) for x in two_angles(1.0))
        est = double_angle(1.0, single, double, 1e-3)
        np.testing.assert_allclose(est.b1, B1, rtol=rtol(1e-9, 1e-5))
        y = [x + 0.02 * noise(VOXELS, i) for i, x in enumerate((single, double))]
        y = [abs(part) for part in y] if not jnp.iscomplexobj(single) else y
        est = double_angle(1.0, *y, 0.02)
        mean, sd = score(est.b1, B1, est.b1_sd, est.status)
        assert abs(mean) < 0.1 and abs(sd - 1) < 0.05


def test_double_angle_is_that_of_the_simulated_scan():
    theta = mr.sequence.spoiled_gradient_echo([1.0, 2.0], te_s=0.003, tr_s=15.0)
    x = mr.simulate(theta, mr.Tissue(t1_s=1.0, t2_s=0.08, b1=[0.8, 1.1]))
    est = double_angle(1.0, x[:, 0], x[:, 1], 1e-3)
    np.testing.assert_allclose(est.b1, [0.8, 1.1], rtol=1e-6)


def test_actual_flip_errs_to_first_order_in_tr_over_t1():
    errors = []
    for scale in (1.0, 0.5, 0.25):
        tr = (0.02 * scale, 0.1 * scale)
        est = actual_flip(1.0, tr, *two_repetitions(1.0, tr), 1e-3)
        errors.append(float(jnp.abs(est.b1 / B1 - 1).max()))
    assert errors[0] < 0.01
    np.testing.assert_allclose(errors[0] / errors[1], 2, rtol=0.15)
    np.testing.assert_allclose(errors[1] / errors[2], 2, rtol=0.15)


def test_actual_flip_is_that_of_the_simulated_scan():
    tr = (0.02, 0.1)
    pulses = [mr.sequence.block(1.0, [1e-6, t], reads=[True, False], spoil=True) for t in tr]
    theta = mr.sequence.repeated(tuple(pulses))
    x = mr.simulate(theta, mr.Tissue(t1_s=1.0, t2_s=0.08, b1=[0.8, 1.1]))
    expected = jnp.stack(two_repetitions(1.0, tr, jnp.array([0.8, 1.1])), axis=-1)
    np.testing.assert_allclose(jnp.abs(x), expected, rtol=1e-3)


def test_actual_flip_is_calibrated():
    tr = (0.002, 0.01)
    x = two_repetitions(1.0, tr)
    sd = float(x[0].mean()) / 50
    y = [jnp.abs(part + sd * noise(VOXELS, i)) for i, part in enumerate(x)]
    est = actual_flip(1.0, tr, *y, sd)
    mean, spread = score(est.b1, B1, est.b1_sd, est.status)
    assert abs(mean) < 0.1 and abs(spread - 1) < 0.05


def test_bloch_siegert_phase_is_that_of_the_spins():
    """A spin turned about the field of the pulse, sample by sample."""
    time = np.arange(-0.004, 0.004, 2e-6)
    envelope, offset = 150 * np.exp(-(time**2) / (2 * 0.0013**2)), 4000.0
    turned = {}
    for sign in (1, -1):
        m = np.array([1.0, 0.0, 0.0])
        for t, b1 in zip(time, envelope, strict=True):
            # The pulse precesses as a spin whose frequency is sign * offset, clockwise.
            angle = -2 * np.pi * sign * offset * (t + 1e-6)
            field = 2 * np.pi * b1 * np.array([np.cos(angle), np.sin(angle), 0.0])
            size = np.linalg.norm(field)
            axis, by = field / size, -size * 2e-6
            m = (
                m * np.cos(by) + np.cross(axis, m) * np.sin(by)
                + axis * (axis @ m) * (1 - np.cos(by))
            )  # fmt: skip
        turned[sign] = np.angle(m[0] + 1j * m[1])
    expected = float(bloch_siegert_phase(envelope, offset, 2e-6))
    np.testing.assert_allclose((turned[1] - turned[-1]) / 2, expected, rtol=5e-3)


def test_bloch_siegert_is_exact_and_calibrated():
    phase = 1.2 * B1**2
    x = [0.8 * jnp.exp(1j * (0.4 + sign * phase)) for sign in (1, -1)]
    est = bloch_siegert(1.2, *x, 1e-3)
    np.testing.assert_allclose(est.b1, B1, rtol=1e-9)
    y = [part + 0.04 * noise(VOXELS, i) for i, part in enumerate(x)]
    est = bloch_siegert(1.2, *y, 0.04)
    mean, sd = score(est.b1, B1, est.b1_sd, est.status)
    assert abs(mean) < 0.1 and abs(sd - 1) < 0.05


def head(shape=(40, 50)):
    """A field that runs over several turns between echoes."""
    a, b = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return jnp.asarray(400 * a + 500 * b**2 - 150)


@pytest.mark.core
def test_static_field_of_the_simulated_scan_is_found(rtol):
    theta = mr.sequence.multi_echo_gradient_echo(TE_S)
    q = mr.Tissue(t1_s=1.0, t2_s=0.03, b0_hz=head())
    x = mr.simulate(theta, q) * jnp.exp(0.5j)
    est = static_field(TE_S, x, 1e-3)
    turn = jnp.rint((est.b0_hz[0, 0] - q.b0_hz[0, 0]) * 0.0025) / 0.0025
    assert abs(turn) <= 400
    np.testing.assert_allclose(est.b0_hz - turn, q.b0_hz, rtol=1e-9, atol=rtol(1e-9, 0.05))
    near = np.abs(q.b0_hz) < 190
    once = static_field(TE_S, x, 1e-3, unwrap=False)
    np.testing.assert_allclose(once.b0_hz[near], q.b0_hz[near], rtol=1e-9, atol=rtol(1e-9, 0.05))
    expected = np.angle(np.exp(1j * (np.angle(x[0, 0, 0]) + 2 * np.pi * q.b0_hz[0, 0] * TE_S[0])))
    np.testing.assert_allclose(
        jnp.cos(once.phase_rad[near]), np.cos(expected), atol=rtol(1e-9, 1e-3)
    )


@pytest.mark.core
@pytest.mark.parametrize("told", [True, False])
def test_static_field_is_calibrated(told):
    b0 = jnp.asarray(100 * head((100, 100)) / 900)
    x = jnp.exp(-jnp.multiply.outer(b0, 2j * np.pi * TE_S)) * np.exp(-TE_S / 0.02)[None, None]
    y = x + 0.05 * noise(x.shape)
    est = static_field(TE_S, y, 0.05 if told else None)
    common = jnp.sqrt(jnp.mean(est.noise_sd**2))
    np.testing.assert_allclose(common, 0.05, rtol=0.03)
    sd = est.b0_sd_hz * common / est.noise_sd
    mean, spread = score(est.b0_hz, b0, sd, est.status)
    assert abs(mean) < 0.05 and abs(spread - 1) < 0.04


def test_derivatives_are_right():
    def angles(p):
        return [
            double_angle(p["flip"], p["a"], p["b"], p["noise"]),
            actual_flip(p["flip"], (0.002, 0.01), p["a"], 0.3 * p["b"], p["noise"]),
            bloch_siegert(p["flip"], jnp.exp(1j * p["a"]), p["b"] + 0j, p["noise"]),
        ]

    def field(p):
        x = jnp.exp(1j * (jnp.multiply.outer(p["phase"], jnp.ones(4)))) * jnp.asarray(ECHOES)
        est = static_field(p["te"], x, p["noise"])
        return est.b0_hz, est.b0_sd_hz, est.phase_rad, est.residual

    numbers = {"a": jnp.array([0.7, 0.8]), "b": jnp.array([1.1, 0.9]), "noise": jnp.asarray(0.01)}

    def maps(p):
        return [(est.b1, est.b1_sd) for est in angles(p)]

    check_gradient(maps, numbers | {"flip": jnp.asarray(0.9)}, rtol=1e-6)
    echoes = {"te": jnp.asarray(TE_S), "phase": jnp.array([0.1, 0.4]), "noise": jnp.asarray(0.01)}
    check_gradient(field, echoes, rtol=1e-6, atol=1e-7)


ECHOES = np.array([1.0, 0.8, 0.7, 0.5]) * np.exp(-2j * np.pi * 90 * TE_S + [[0.02j, 0, -0.03j, 0]])


@pytest.mark.core
def test_a_voxel_says_what_became_of_it():
    a = jnp.array([0.5, 0.0, jnp.nan, 0.5, 0.01, 0.5])
    b = jnp.array([0.5, 0.5, 0.5, 1.2, 0.0199, 0.5])
    mask = np.arange(6) < 5
    est = double_angle(0.8, a, b, 0.01, mask)
    kinds = [CONVERGED, FAILED, FAILED, AT_BOUNDARY, ILL_DETERMINED, MASKED]
    np.testing.assert_array_equal(est.status, kinds)
    assert np.isfinite(est.b1_sd[0]) and np.isinf(est.b1_sd[1:]).all()
    assert np.isfinite(est.b1).all()
    gradient = jax.grad(lambda a: double_angle(0.8, a, b, 0.01, mask).b1.sum())(a)
    assert np.isfinite(gradient).all()
    x = jnp.multiply.outer(a, jnp.exp(-2j * np.pi * 30 * TE_S))
    est = static_field(TE_S, x, 0.02, mask, unwrap=False)
    kinds = [CONVERGED, FAILED, FAILED, CONVERGED, ILL_DETERMINED, MASKED]
    np.testing.assert_array_equal(est.status, kinds)
    np.testing.assert_allclose(est.b0_hz[jnp.array([0, 3])], 30, rtol=1e-3)

    def total(x):
        est = static_field(TE_S, x.astype(complex), None, mask)
        return est.b0_hz.sum() + (1 / est.b0_sd_hz).sum()

    assert np.isfinite(jax.grad(total)(x.real)).all()


def test_bad_input_is_refused():
    a, x = jnp.ones(4), jnp.ones((4, 4)) + 0j
    for says, call in (
        ("degrees", lambda: double_angle(60.0, a, a, 0.1)),
        ("another image", lambda: double_angle(1.0, a, a[:3], 0.1)),
        ("one kind", lambda: double_angle(1.0, a, a + 0j, 0.1)),
        ("noise_sd", lambda: double_angle(1.0, a, a, 0.0)),
        ("interchanged", lambda: actual_flip(1.0, (0.1, 0.02), a, a, 0.1)),
        ("complex images", lambda: bloch_siegert(1.0, a, a, 0.1)),
        ("degrees, or a sign", lambda: bloch_siegert(60.0, a + 0j, a + 0j, 0.1)),
        ("rising", lambda: static_field(TE_S[::-1], x, 0.1)),
        ("milliseconds", lambda: static_field(1e3 * TE_S, x, 0.1)),
        ("last axis", lambda: static_field(TE_S, x[:, :3], 0.1)),
        ("complex ones", lambda: static_field(TE_S, x.real, 0.1)),
        ("two echoes", lambda: static_field(TE_S[:2], x[:, :2])),
        ("another image", lambda: static_field(TE_S, x, 0.1, np.ones(3, bool))),
    ):
        with pytest.raises(InputError, match=says):
            call()
