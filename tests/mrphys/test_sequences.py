"""Every family of sequences against closed forms, its own transient, and finite differences."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys import epg_real, steady_state
from mrphys import sequence as s
from mrphys.errors import InputError
from mrphys.sequence.base import Sequence
from tests.laws import check_gradient

T1, T2 = 0.9, 0.08
Q = mr.Tissue(t1_s=T1, t2_s=T2, b1=1.05, b0_hz=7.0, t2prime_s=0.2, adc_mm2_per_s=1e-3).broadcast()
PLAIN = mr.Tissue(t1_s=T1, t2_s=T2).broadcast()
FLIPS = np.linspace(0.3, 1.0, 5)
FAMILIES = {
    "cpmg": s.spin_echo_train(np.full(5, 2.1), 0.01, moment_rad_per_mm=10.0),
    "fse_phases": s.spin_echo_train(np.full(4, 2.1), 0.01, phase_rad=np.linspace(0, 1, 4)),
    "fse_profile": s.spin_echo_train(np.full(3, 2.1), 0.01, profile=([1.0, 0.5], [0.6, 0.4])),
    "fse_tr": s.spin_echo_train(np.full(4, 2.1), 0.01, tr_s=0.4, restore_rad=1.4),
    "fse_tr_phases": s.spin_echo_train([2.1, 1.9], 0.01, phase_rad=[1.0, 0.5], tr_s=0.4),
    "stimulated": s.stimulated_echo(0.02, 0.1, moment_rad_per_mm=40.0),
    "spgr_steady": s.spoiled_gradient_echo([0.1, 0.3], 0.003, 0.01),
    "spgr_transient": s.spoiled_gradient_echo(0.3, 0.003, 0.01, 4),
    "spgr_rf": s.spoiled_gradient_echo(0.3, 0.003, 0.01, 5, rf_spoiling_rad=2.04),
    "fisp": s.unbalanced_ssfp(0.5, 0.004, 0.01, 6, moment_rad_per_mm=10.0),
    "dess": s.dess(0.5, 0.004, 0.02, 3, moment_rad_per_mm=10.0),
    "megre": s.multi_echo_gradient_echo([0.002, 0.006, 0.02], 0.6),
    "bssfp_steady": s.balanced_ssfp(0.6, 0.006),
    "bssfp_transient": s.balanced_ssfp(0.6, 0.006, repetitions=5),
    "ir": s.inversion_recovery([0.1, 0.6], 2.0, te_s=0.01),
    "sr": s.saturation_recovery([0.1, 0.6], 2.0, te_s=0.01),
    "look_locker": s.look_locker(0.2, 0.02, 4, te_s=0.002, ti_s=0.05),
    "mprage": s.mprage(0.9, 0.15, 0.01, 6, 2.0, te_s=0.003),
    "mp2rage": s.mp2rage([0.7, 2.0], [0.1, 0.15], 0.01, 4, 4.0, te_s=0.003),
    "molli": s.molli(images=(1, 1), pauses=(1,), pulses=4),
    "t2prep": s.t2_prepared([0.04], 2.0),
    "mrf_fisp": s.fingerprinting_fisp(FLIPS, 0.012, 0.004),
    "mrf_fisp_any": s.fingerprinting_fisp(
        FLIPS, np.linspace(0.011, 0.013, 5), 0.004, phase_rad=FLIPS
    ),
    "mrf_balanced": s.fingerprinting_balanced(FLIPS, 0.01),
}


AT_ECHOES = {"fse_phases", "fse_tr_phases", "stimulated", "bssfp_transient", "molli", "t2prep"}
"""Net times of static dephasing are zero, where |τ| has a kink in each interval alone."""

FEW = {"cpmg", "fse_tr_phases", "spgr_rf", "dess", "bssfp_steady", "mprage", "mrf_fisp_any"}
"""One of each engine."""


signal_of = eqx.filter_jit(lambda theta, q: theta.signal(q))


def flat(theta: Sequence, q: mr.Tissue) -> np.ndarray:
    return np.asarray(signal_of(theta, q))


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_of_every_family(name):
    theta = FAMILIES[name]
    theta = dataclasses.replace(theta, orders=5) if name == "t2prep" else theta
    numbers = {f.name: getattr(Q, f.name) for f in dataclasses.fields(Q)}
    left_out = {"t2prime_s"} if name in AT_ECHOES else set()
    numbers = {k: v for k, v in numbers.items() if v is not None and k not in left_out}

    def signal(p):
        return p["theta"].signal(mr.Tissue(**p["q"]))

    check_gradient(signal, {"theta": theta, "q": numbers}, rtol=1e-6, atol=1e-7, directions=4)


@pytest.mark.core
@pytest.mark.parametrize(
    "name",
    [name if name in FEW else pytest.param(name, marks=pytest.mark.long) for name in FAMILIES],
)
def test_one_voxel_is_as_many(name):
    theta = FAMILIES[name]
    q = mr.Tissue(t1_s=[[0.9, 1.2]], t2_s=0.08, b0_hz=[[7.0, -20.0]])
    x = mr.simulate(theta, q)
    assert x.shape == (1, 2, theta.averages.size)
    assert np.all(np.isfinite(x))
    for i in range(2):
        one = jax.tree.map(lambda v, i=i: v[0, i], q.broadcast())
        np.testing.assert_allclose(x[0, i], signal_of(theta, one), atol=2e-5)
    assert float(theta.scan_time_s) > 0
    assert float(theta.pulse_energy_hz2_s) > 0


TE, TR = 0.003, 0.012
ANGLES = np.array([0.05, 0.3, 1.2])
DELAYS = np.array([0.05, 0.5, 1.5])
IMPERFECT = mr.Tissue(t1_s=T1, t2_s=T2, b1=0.9, b0_hz=7.0, t2prime_s=0.2).broadcast()
STAR = IMPERFECT.t2star_s
CLOSED = {
    "ernst": (
        s.spoiled_gradient_echo(ANGLES, TE, TR),
        steady_state.ernst(0.9 * ANGLES, TE, TR, T1, STAR, b0_hz=7.0),
    ),
    "freeman_hill": (
        s.balanced_ssfp(0.8, TR, TR / 2, advance_rad=np.pi - 2 * np.pi * 7.0 * TR),
        steady_state.freeman_hill(0.72, TR / 2, TR, T1, T2) * np.exp(-2j * np.pi * 7.0 * TR / 2),
    ),
    "balanced": (
        s.balanced_ssfp(0.8, TR, TR / 2, advance_rad=0.3),
        steady_state.balanced(0.72, TR / 2, TR, T1, T2, b0_hz=7.0, advance_rad=0.3),
    ),
    "dess": (
        s.dess(0.8, TE, TR),
        jnp.stack(
            [
                echo(0.72, TE, TR, T1, T2, b0_hz=7.0, t2prime_s=0.2)
                for echo in (steady_state.ssfp_fid, steady_state.ssfp_echo)
            ]
        ),
    ),
    "ir": (
        s.inversion_recovery(DELAYS, 2.5, TE),
        steady_state.inversion_recovery(
            DELAYS, TE, 2.5, T1, STAR, flip_rad=0.45 * np.pi, inversion_rad=0.9 * np.pi, b0_hz=7.0
        ),
    ),
    "sr": (
        s.saturation_recovery(DELAYS, 2.5, TE),
        steady_state.saturation_recovery(
            DELAYS, TE, 2.5, T1, STAR, flip_rad=0.45 * np.pi, saturation_rad=0.45 * np.pi, b0_hz=7.0
        ),
    ),
    "look_locker": (
        s.look_locker(0.2, 0.02, 30, TE, 0.05),
        steady_state.look_locker(
            np.arange(30), 0.18, TE, 0.02, T1, STAR, ti_s=0.05, inversion_rad=0.9 * np.pi, b0_hz=7.0
        ),
    ),
    "mprage": (
        s.mprage(0.4, 0.1, TR, 1, 2.5, TE),
        jnp.atleast_1d(
            steady_state.mprage(
                0.4, 0.09, TR, 1, TE, 2.5, T1, STAR, inversion_rad=0.9 * np.pi, b0_hz=7.0
            )
        ),
    ),
    "mp2rage": (
        s.mp2rage([0.4, 1.3], [0.1, 0.3], TR, 4, 2.5, TE),
        steady_state.mp2rage(
            np.array([0.4, 1.3]),
            np.array([0.09, 0.27]),
            *(TR, 4, TE, 2.5, T1, STAR),
            inversion_rad=0.9 * np.pi,
            b0_hz=7.0,
        ),
    ),
}


@pytest.mark.parametrize("name", CLOSED)
def test_phase_graphs_give_the_closed_forms(name):
    """Those of `mrphys.steady_state`, which long Bloch transients prove."""
    theta, expected = CLOSED[name]
    one_offset = dataclasses.replace(IMPERFECT, t2prime_s=jnp.asarray(jnp.inf))
    q = one_offset if name in ("freeman_hill", "balanced") else IMPERFECT
    found = flat(theta.within(q, 1e-12), q)
    found = found[[2, 6]] if name == "mp2rage" else found  # the middles of both trains
    np.testing.assert_allclose(found, expected, atol=1e-11)


def test_spoiled_transient_ends_in_its_steady_state():
    transient = flat(s.spoiled_gradient_echo(0.3, TE, TR, 1200), PLAIN)
    steady = flat(s.spoiled_gradient_echo(ANGLES, TE, TR), PLAIN)
    np.testing.assert_allclose(transient[-1], steady[1], rtol=1e-4)


def test_balanced_bands_repeat_with_one_over_tr():
    theta = s.balanced_ssfp(0.8, 0.005)
    shift = np.linspace(-200, 200, 9)
    x = np.abs(mr.simulate(theta, mr.Tissue(t1_s=T1, t2_s=T2, b0_hz=shift)))[:, 0]
    np.testing.assert_allclose(x[0], x[4], rtol=1e-6)
    np.testing.assert_allclose(x[2], x[6], rtol=1e-6)
    assert x[2] < 0.3 * x[4]


@pytest.mark.parametrize(
    ("steady", "transient"),
    [
        (s.balanced_ssfp(0.7, 0.01, 0.004), s.balanced_ssfp(0.7, 0.01, 0.004, 800)),
        (s.unbalanced_ssfp(0.7, 0.004, 0.02), s.unbalanced_ssfp(0.7, 0.004, 0.02, 400)),
        (s.dess(0.7, 0.004, 0.02), s.dess(0.7, 0.004, 0.02, 400)),
        (
            s.spoiled_gradient_echo(0.4, 0.004, 0.02, rf_spoiling_rad=2.04),
            s.spoiled_gradient_echo(0.4, 0.004, 0.02, 400, rf_spoiling_rad=2.04),
        ),
    ],
    ids=["balanced", "unbalanced", "dess", "rf_spoiled"],
)
def test_steady_states_are_where_transients_go(steady, transient):
    q = mr.Tissue(t1_s=0.6, t2_s=0.06, b0_hz=9.0).broadcast()
    end = flat(transient, q)[-steady.averages.size :]
    found = flat(steady.within(q, 1e-7), q)
    np.testing.assert_allclose(np.abs(found), np.abs(end), rtol=1e-5)
    turned = found / np.abs(found) * np.conj(end / np.abs(end))
    np.testing.assert_allclose(np.abs(turned - turned[0]), 0, atol=1e-5)


def test_unbalanced_steady_state_keeps_orders_for_its_tolerance():
    theta = s.unbalanced_ssfp(0.7, 0.004, 0.02)
    exact = flat(theta.within(PLAIN, 1e-10), PLAIN)
    for tolerance in (1e-2, 1e-4):
        cut = theta.within(PLAIN, tolerance)
        assert np.abs(flat(cut, PLAIN) - exact).max() < tolerance


def test_mp2rage_of_one_readout_is_two_look_lockers_deep():
    """With flip angles of zero weight the second train sees the first as never played."""
    both = s.mp2rage([0.7, 1.9], [0.0, 0.2], 0.01, 4, 4.0)
    alone = s.mprage(1.9, 0.2, 0.01, 4, 4.0)
    np.testing.assert_allclose(flat(both, PLAIN)[4:], flat(alone, PLAIN), atol=1e-12)
    np.testing.assert_allclose(flat(both, PLAIN)[:4], 0, atol=1e-15)


def test_t2_preparation_decays_by_t2():
    times = np.array([0.02, 0.05, 0.1])
    tr = 6.0
    q = mr.Tissue(t1_s=T1, t2_s=T2, b0_hz=31.0).broadcast()
    found = flat(s.t2_prepared(times, tr), q)
    recovered = 1 - np.exp(-(tr - times) / T1)
    decayed = np.exp(-times / T2)
    np.testing.assert_allclose(found, 1j * recovered * decayed, rtol=0.02)
    exact = mr.Tissue(t1_s=19.9, t2_s=T2, b0_hz=31.0).broadcast()
    ratio = flat(s.t2_prepared(times, 20.0), exact)
    ratio = ratio[1:].imag / ratio[0].imag
    np.testing.assert_allclose(ratio, np.exp(-(times[1:] - times[0]) / T2), rtol=6e-3)


def test_stimulated_echo_with_diffusion():
    te, mixing, moment, adc = 0.02, 0.1, 60.0, 1.2e-3
    q = mr.Tissue(t1_s=T1, t2_s=T2, adc_mm2_per_s=adc).broadcast()
    b = moment**2 * (mixing + te / 3)
    expected = 0.5 * np.exp(-mixing / T1 - te / T2 - b * adc)
    found = flat(s.stimulated_echo(te, mixing, moment_rad_per_mm=moment), q)
    np.testing.assert_allclose(found, [-1j * expected], atol=1e-12)


def test_hahn_echo_and_its_diffusion():
    te, moment, adc = 0.08, 50.0, 1.5e-3
    q = mr.Tissue(t1_s=T1, t2_s=T2, adc_mm2_per_s=adc).broadcast()
    theta = s.spin_echo_train([np.pi], te, moment_rad_per_mm=moment)
    b = moment**2 * te / 3
    np.testing.assert_allclose(flat(theta, q), [1j * np.exp(-te / T2 - b * adc)], atol=1e-12)
    half = s.spin_echo(te, refocusing_rad=2.0, excitation_rad=1.0)
    expected = np.sin(1.0) * np.sin(1.0) ** 2 * np.exp(-te / T2)
    np.testing.assert_allclose(flat(half, PLAIN), [1j * expected], atol=1e-12)


@pytest.mark.parametrize("restore", [None, 1.4])
def test_echo_train_in_its_steady_state_is_that_of_the_general_engine(restore):
    """Between crushers whose modulation along z diffuses in TR and hardly in a spacing."""
    q = mr.Tissue(t1_s=T1, t2_s=T2, b1=0.9, b0_hz=7.0, adc_mm2_per_s=1e-3, t2prime_s=0.05)
    given = {"tr_s": 1.0, "restore_rad": restore, "moment_rad_per_mm": 150.0}
    theta = s.spin_echo_train(np.linspace(1.5, 2.8, 4), 0.01, 1.3, **given)
    any_axis = s.spin_echo_train(np.linspace(1.5, 2.8, 4), 0.01, 1.3, np.pi / 2, **given)
    found = flat(theta, q.broadcast())
    np.testing.assert_allclose(flat(any_axis, q.broadcast()), found, atol=1e-14)
    steady = s.repeated(theta.blocks, moment_rad_per_mm=150.0)
    np.testing.assert_allclose(flat(steady, q.broadcast()), found, atol=1e-10)
    assert float(theta.scan_time_s) == pytest.approx(float(steady.scan_time_s))


def test_one_echo_in_its_steady_state_is_saturation_recovery():
    q = mr.Tissue(t1_s=T1, t2_s=T2, b1=0.85).broadcast()
    found = flat(s.spin_echo_train([np.pi], 0.05, tr_s=0.8), q)
    expected = flat(s.diffusion_weighted([0.0], 0.05, 0.8), q)
    np.testing.assert_allclose(found, 1j * expected, rtol=1e-12)
    restored = flat(s.spin_echo_train([np.pi], 0.05, tr_s=0.8, restore_rad=np.pi / 2), PLAIN)
    rest, e2 = np.exp(-0.75 / T1), np.exp(-0.05 / T2)
    np.testing.assert_allclose(restored, 1j * e2 * (1 - rest) / (1 - rest * e2), rtol=1e-12)


def test_gradient_echoes_dephase_by_t2star():
    q = mr.Tissue(t1_s=T1, t2_s=T2, t2prime_s=0.05, b0_hz=12.0).broadcast()
    times = np.array([0.002, 0.011, 0.03])
    rate = 1 / T2 + 1 / 0.05
    expected = 1j * np.sin(0.5) * np.exp(-times * rate - 2j * np.pi * 12.0 * times)
    np.testing.assert_allclose(
        flat(s.multi_echo_gradient_echo(times, 0.5), q), expected, atol=1e-12
    )


def test_molli_images_lie_on_the_inversion_recovery():
    """With pulses of next to no flip angle images see the undisturbed recovery at their TI."""
    theta = s.molli(flip_rad=1e-4, first_ti_s=(0.1, 0.2), images=(3, 2), pauses=(2,), pulses=20)
    x = flat(theta, PLAIN).imag / 1e-4
    first = 1 - 2 * np.exp(-(0.1 + np.arange(3)) / T1)
    # The second inversion comes 0.2 s before the fourth image's beat, three after the third image.
    before = 1 - 2 * np.exp(-(0.1 + 2 + 3 - 0.2) / T1)
    second = 1 - (1 + before) * np.exp(-(0.2 + np.arange(2)) / T1)
    found = x / x[2] * first[2]
    np.testing.assert_allclose(found, np.concatenate([first, second]), atol=2e-3)


@pytest.mark.parametrize(
    ("build", "cause"),
    [
        (lambda: s.spin_echo_train(np.full(4, 2.0), 10.0 * 7), "milliseconds"),
        (lambda: s.spin_echo_train(np.full(4, 2.0), 5e-4), "shorter than the pulses"),
        (lambda: s.spin_echo_train(np.full(4, 2.0), 0.01, phase_rad=np.zeros(3)), "one length"),
        (lambda: s.spin_echo_train(np.full(4, 2.0), 0.01, tr_s=0.04), "longer than TR"),
        (lambda: s.spin_echo_train(np.full(4, 2.0), 0.01, restore_rad=1.5), "a TR"),
        (lambda: s.spoiled_gradient_echo(0.2, 0.02, 0.01), "TE and TR interchanged"),
        (lambda: s.fingerprinting_fisp([0.1, np.nan], 0.01), "nan"),
        (lambda: s.fingerprinting_fisp([0.1, 0.2], [0.01] * 3), "one length"),
        (lambda: s.inversion_recovery([0.5, -0.1], 2.0), "sign"),
        (lambda: s.inversion_recovery([0.5, 3.0], 2.0), "TI and TR"),
        (lambda: s.mprage(0.1, 0.1, 0.01, 60, 2.0), "overlap"),
        (lambda: s.multi_echo_gradient_echo([0.01, 0.005]), "out of order"),
        (lambda: s.molli(pulses=600), "longer than its beat"),
    ],
)
def test_one_clear_error_each(build, cause):
    with pytest.raises(InputError, match=f"(?i){cause}"):
        build()


def test_degrees_for_radians_warn():
    with pytest.warns(UserWarning, match="degrees given for radians"):
        s.spoiled_gradient_echo(15.0, 0.002, 0.01)


def test_echo_train_gradients_where_users_stand():
    def echoes(p):
        q = mr.Tissue(t1_s=p["t1"], t2_s=p["t2"], b1=p["b1"], adc_mm2_per_s=p["adc"])
        q = jax.tree.map(jnp.atleast_1d, q.broadcast())
        return epg_real.echo_train(q, p["flips"], p["spacing"], p["moment"])

    p = {"t1": 1.0, "t2": 0.08, "b1": 1.1, "adc": 1e-3, "spacing": 0.01, "moment": 20.0,
         "flips": jnp.array([2.0, 0.0, 1.3, np.pi])}  # fmt: skip
    check_gradient(echoes, p)
