"""What tissue does with a tracer, what brings it there, and what the scanner sees of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import mrphys as mr
from mrphys import InputError, perfusion
from mrphys.perfusion import (
    ArterialInput,
    ExtendedTofts,
    Patlak,
    SpoiledEcho,
    Tofts,
    TwoCompartmentExchange,
    TwoCompartmentUptake,
    concentration,
    dynamic_series,
)
from mrphys.perfusion.convolution import Washout, washed_out
from tests.laws import check_gradient, order_of_convergence

TIMES = np.sort(np.r_[np.linspace(0, 240, 61), 31.0, 33.0, 61.5])  # unevenly spaced
ARTERY = perfusion.arterial_input(TIMES, perfusion.parker_2006(TIMES, 20.0))
SERIES = dynamic_series(TIMES, ARTERY)
INPUT = np.asarray(ARTERY.plasma_mmol_per_l)
INTEGRAL = np.r_[0, np.cumsum(np.diff(TIMES) * (INPUT[1:] + INPUT[:-1]) / 2)]


@pytest.mark.core
@pytest.mark.parametrize("rate", [0.0, 1e-6, 1e-3, 0.24, 0.26, 3.0, 1e4])
def test_a_constant_and_a_ramp_wash_out_as_in_closed_form(rate, rtol):
    t = np.linspace(0, 100, 26)
    one = jnp.ones(1)
    found = [washed_out(Washout(2 * one, rate * one, one), jnp.asarray(t), jnp.asarray(c))[:, 0]
             for c in (np.ones(26), t)]  # fmt: skip
    constant, ramp = 2 * t, t**2
    if rate:
        constant = -2 * np.expm1(-rate * t) / rate
        ramp = (2 * t - constant) / rate
        if rate < 1e-5:
            ramp = t**2 - rate * t**3 / 3
    np.testing.assert_allclose(found[0], constant, rtol=rtol(1e-12, 1e-5))
    np.testing.assert_allclose(found[1], ramp, rtol=rtol(1e-8, 1e-5), atol=1e-12)


def test_an_exponential_input_is_met_with_second_order():
    k, loss, steps, errors = 0.02, 0.1, [4.0, 2.0, 1.0, 0.5], []
    for step in steps:
        t = np.arange(0, 100.1, step)
        q = Tofts(ktrans_per_s=0.2 * k, ve=0.2)
        found = concentration(dynamic_series(t, ArterialInput(t, 5 * np.exp(-loss * t))), q)
        expected = 5 * 0.2 * k * (np.exp(-loss * t) - np.exp(-k * t)) / (k - loss)
        errors.append(np.abs(found - expected).max())
    assert order_of_convergence(errors, steps) > 1.9


@pytest.mark.parametrize("fp, ps, ve, vp", [(0.01, 0.002, 0.2, 0.05), (0.002, 0.02, 0.03, 0.3)])
def test_exchange_solves_the_balances_of_its_compartments(fp, ps, ve, vp):
    def balance(t, c):
        inflow = np.interp(t, TIMES, ARTERY.plasma_mmol_per_l)
        return [(fp * (inflow - c[0]) + ps * (c[1] - c[0])) / vp, ps * (c[0] - c[1]) / ve]

    solved = solve_ivp(balance, (0, 240), [0, 0], t_eval=TIMES, max_step=0.5, rtol=1e-9, atol=1e-12)
    expected = vp * solved.y[0] + ve * solved.y[1]
    found = concentration(SERIES, TwoCompartmentExchange(fp, ps, ve, vp))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.core
def test_models_are_limits_of_each_other(rtol):
    fp, ps, ve, vp = 0.01, 0.004, 0.2, 0.05
    tight = {"rtol": rtol(1e-9, 1e-5), "atol": 1e-7}

    def of(q):
        return concentration(SERIES, q)

    exchange = TwoCompartmentExchange
    same = [
        (exchange(fp, ps, ve, 0.0), Tofts(fp * ps / (fp + ps), ve)),
        (exchange(fp, 0.0, ve, vp), Tofts(fp, vp)),
        (exchange(fp, ps, 0.0, vp), Tofts(fp, vp)),
        (ExtendedTofts(ps, ve, 0.0), Tofts(ps, ve)),
    ]
    for general, special in same:
        np.testing.assert_allclose(of(general), of(special), **tight)
    np.testing.assert_allclose(of(Patlak(ps, vp)), ps * INTEGRAL + vp * INPUT, **tight)
    nearly = [
        (exchange(1e3, ps, ve, vp), ExtendedTofts(ps, ve, vp)),
        (exchange(fp, ps, 1e4, vp), TwoCompartmentUptake(fp, ps, vp)),
        (TwoCompartmentUptake(1e3, ps, vp), Patlak(ps, vp)),
    ]
    for general, special in nearly:
        np.testing.assert_allclose(of(general), of(special), rtol=1e-3, atol=2e-3)


@pytest.mark.core
def test_nothing_is_lost_where_nothing_leaves():
    """d/dt C = F_p (c_a - c_v): over a short bolus all that came in is in the tissue or left."""
    q = TwoCompartmentUptake(fp_per_s=0.01, ps_per_s=0.003, vp=0.05)
    t = np.linspace(0, 2000, 4001)
    bolus = np.where(t < 10, 5.0, 0.0)
    found = concentration(dynamic_series(t, ArterialInput(t, bolus)), q)
    extraction = 0.003 / 0.013
    np.testing.assert_allclose(found[-1], 0.01 * extraction * np.trapezoid(bolus, t), rtol=1e-4)


EDGES = {
    "tofts": (Tofts, [[0.0, 0.002], [0.2, 0.0]]),
    "extended tofts": (ExtendedTofts, [[0.003], [0.25], [0.0]]),
    "patlak": (Patlak, [[0.0], [0.05]]),
    "uptake": (TwoCompartmentUptake, [[0.01], [0.0], [0.05]]),
    "exchange": (TwoCompartmentExchange, [[0.01, 0.01, 0.01, 0.01], [0.003, 0.0, 0.003, 0.003],
                                          [0.2, 0.2, 0.2, 0.0], [0.05, 0.05, 0.0, 0.05]]),
}  # fmt: skip
"""Fields of voxels: without flow, permeability, volume, plasma, interstitium."""


def test_gradients_also_where_flows_and_volumes_vanish():
    def f(p):
        return [SERIES.signals(EDGES[name][0](*values))[:, ::8] for name, values in p.items()]

    p = {name: [jnp.asarray(value) for value in values] for name, (_, values) in EDGES.items()}
    scale = jax.tree.map(lambda v: jnp.where((v < 0.02) & (v > 0), 1e-3, 1e-2), p)
    check_gradient(f, p, scale=scale, rtol=1e-5, atol=1e-7, directions=8)


def test_gradients_where_nothing_flows_at_all():
    def f(p):
        return SERIES.signals(TwoCompartmentExchange(p[0], p[1], 0.2, 0.05))[0]

    slope = jax.jit(jax.jacfwd(f))(jnp.zeros(2))
    np.testing.assert_allclose(slope[:, 0], INTEGRAL, rtol=1e-9)
    np.testing.assert_allclose(slope[:, 1], 0.0, atol=1e-12)
    assert np.isfinite(jax.jit(jax.grad(lambda p: f(p)[-1]))(jnp.zeros(2))).all()


def test_gradients_in_the_input_its_delay_and_times_between_its_samples():
    def f(p):
        artery = ArterialInput(TIMES, p["c"])
        series = dynamic_series(TIMES[:-1:6] + 0.3, artery)
        q = TwoCompartmentExchange(0.01, 0.003, 0.2, 0.05, delay_s=p["delay"])
        return series.signals(q)[0]

    p = {"c": ARTERY.plasma_mmol_per_l, "delay": jnp.asarray(1.7)}
    check_gradient(f, p, scale={"c": jnp.full(TIMES.size, 0.1), "delay": 0.01}, rtol=1e-6)


@pytest.mark.core
def test_a_delay_moves_the_curve(rtol):
    t = np.arange(0, 200.0, 2.0)
    artery = perfusion.arterial_input(t, perfusion.parker_2006(t, 10.0))
    still, moved = dynamic_series(t, artery), dynamic_series(t, artery, delay_s=6.0)
    q = ExtendedTofts(0.003, 0.2, 0.05)
    late = concentration(still, ExtendedTofts(0.003, 0.2, 0.05, delay_s=6.0))
    near = {"rtol": rtol(1e-10, 1e-4), "atol": 1e-6}
    np.testing.assert_allclose(
        late[3:], concentration(still, q)[:-3], rtol=rtol(1e-10, 1e-4), atol=1e-6
    )
    np.testing.assert_allclose(concentration(moved, q), late, rtol=rtol(1e-10, 1e-4), atol=1e-6)
    between = np.sort(np.r_[t, t[:-1] + 0.7])
    fine = ArterialInput(between, artery.at(jnp.asarray(between, artery.times_s.dtype)))
    found = concentration(dynamic_series(between, artery), q)
    np.testing.assert_allclose(found, concentration(dynamic_series(between, fine), q), **near)


def test_population_inputs_arrive_and_clear():
    t = jnp.linspace(0, 1200, 4801)
    for f in (perfusion.parker_2006, perfusion.georgiou_2019):
        c = f(t, 30.0)
        assert (c[t < 30] == 0).all() and 5 < c.max() < 9
        assert 4 < t[jnp.argmax(c)] - 30 < 14
        assert (jnp.diff(c[t > 240]) < 0).all()
        np.testing.assert_allclose(f(t + 7, 37.0), c, rtol=1e-9, atol=1e-12)


ECHO = SpoiledEcho(
    flip_rad=0.3, tr_s=0.004, t1_s=jnp.array([0.8, 1.5]), relaxivity_l_per_mmol_s=4.0
)
CURVES = jnp.linspace(0, 6, 20)[None] * jnp.array([[1.0], [0.3]])


@pytest.mark.core
def test_signals_are_those_of_the_engine_and_invert(rtol):
    s = perfusion.signal_of_concentration(ECHO, CURVES, jnp.array([30.0, 50.0]))
    rates = 1 / ECHO.t1_s[:, None] + 4.0 * CURVES
    theta = mr.sequence.spoiled_gradient_echo(0.3, te_s=0.0, tr_s=0.004)
    q = mr.Tissue(t1_s=1 / rates, t2_s=0.01, m0=1.0)
    engine = jnp.abs(mr.simulate(theta, q))[..., 0]
    np.testing.assert_allclose(s / s[:, :1], engine / engine[:, :1], rtol=rtol(1e-9, 1e-4))
    c = perfusion.concentration_of_signal(ECHO, s, slice(0, 1))
    np.testing.assert_allclose(c, CURVES, rtol=rtol(1e-9, 1e-3), atol=rtol(1e-10, 1e-4))
    beyond = perfusion.concentration_of_signal(ECHO, s.at[0, 3].set(1e4), slice(0, 1))
    assert jnp.isnan(beyond[0, 3]) and jnp.isfinite(beyond).sum() == c.size - 1
    decay = 80.0 * jnp.exp(-0.03 * 5.0 * CURVES)
    np.testing.assert_allclose(perfusion.relaxation_change_per_s(decay, 0.03, slice(0, 1)),
                               5 * CURVES, rtol=rtol(1e-9, 1e-4), atol=1e-4)  # fmt: skip


def test_gradients_between_signal_and_concentration():
    def f(p):
        echo = ECHO._replace(t1_s=p["t1"], flip_rad=p["flip"])
        s = perfusion.signal_of_concentration(echo, p["c"], 30.0)
        other = ECHO._replace(t1_s=1.1 * p["t1"])
        return s, perfusion.concentration_of_signal(other, s, slice(0, 2))

    p = {"t1": ECHO.t1_s, "flip": jnp.array([0.3, 0.2]), "c": CURVES[:, :4]}
    check_gradient(f, p, scale=0.1, rtol=1e-6)


def test_errors_of_concentrations_are_their_derivatives():
    s = perfusion.signal_of_concentration(ECHO, CURVES, 30.0)
    errors = perfusion.concentration_errors(ECHO, s, slice(0, 2), 0.01, 0.02, -2.0)

    def moved(s=s, **echo):
        new = perfusion.concentration_of_signal(ECHO._replace(**echo), s, slice(0, 2))
        return new - perfusion.concentration_of_signal(ECHO, s0, slice(0, 2))

    s0 = s
    step = 1e-4
    near = {"rtol": 2e-3, "atol": 1e-6}
    t1 = moved(t1_s=ECHO.t1_s + step * 0.01)
    b1 = moved(t1_s=ECHO.t1_s - 2 * step * 0.02, flip_rad=ECHO.flip_rad * (1 + step * 0.02))
    np.testing.assert_allclose(errors.modes, np.stack([t1, b1]) / step, **near)
    for image in (0, 7):
        found = moved(s.at[:, image].add(step)) / step
        expected = errors.shift * errors.share[image]
        expected = expected.at[:, image].add(errors.gain[:, image]) * errors.scale[:, None]
        np.testing.assert_allclose(found, expected, **near)


@pytest.mark.core
def test_enhancement_of_straight_lines(rtol):
    t = np.arange(0, 200.0, 5.0)
    rise, fall = 0.02, -0.005
    curve = np.where(t < 30, 0, np.where(t <= 60, rise * (t - 30), rise * 30 + fall * (t - 60)))
    found = perfusion.enhancement(t, curve[None], arrival_s=30.0, window_s=42.0)
    area = rise * 30**2 / 2 + 0.6 * 12 + fall * 12**2 / 2
    expected = {"auc": area, "peak": 0.6, "time_to_peak_s": 30, "wash_in_per_s": rise,
                "wash_out_per_s": fall}  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(found, name), [value], rtol=rtol(1e-9, 1e-4))
    np.testing.assert_allclose(
        perfusion.bolus_arrival_s(t, curve[None]), [33.0], rtol=rtol(1e-9, 1e-5)
    )


BAD = {
    "minutes given": lambda: ArterialInput(TIMES / 60, TIMES),
    "milliseconds": lambda: ArterialInput(TIMES * 1000, TIMES),
    "not by time": lambda: ArterialInput(TIMES[::-1], TIMES),
    "mol/l": lambda: ArterialInput(TIMES, ARTERY.plasma_mmol_per_l * 1e-3),
    "a sign": lambda: ArterialInput(TIMES, -ARTERY.plasma_mmol_per_l),
    "one concentration": lambda: ArterialInput(TIMES, ARTERY.plasma_mmol_per_l[:-1]),
    "per cent": lambda: perfusion.arterial_input(TIMES, TIMES, haematocrit=45.0),
    "as long as the series": lambda: dynamic_series(np.r_[TIMES, 260.0, 280.0], ARTERY),
    "degrees for radians": lambda: perfusion.concentration_of_signal(
        ECHO._replace(flip_rad=15.0), CURVES, slice(0, 1)),
    "milliseconds given": lambda: perfusion.concentration_of_signal(
        ECHO._replace(t1_s=1400.0), CURVES, slice(0, 1)),
    "before the bolus": lambda: perfusion.concentration_of_signal(ECHO, CURVES, slice(20, 30)),
    "into the bolus": lambda: perfusion.concentration_of_signal(ECHO, 1 + CURVES, slice(0, 12)),
    "within the series": lambda: perfusion.enhancement(TIMES, TIMES, 20.0, 600.0),
}  # fmt: skip


@pytest.mark.parametrize("cause", BAD)
def test_bad_input_is_named(cause):
    with pytest.raises(InputError, match=cause):
        BAD[cause]()
