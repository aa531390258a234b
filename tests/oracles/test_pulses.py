"""Sampled pulses and Shinnar-Le Roux designs against SigPy."""

import numpy as np
import pytest

from mrphys import rf

pytestmark = pytest.mark.oracle
PULSES = {
    "sinc": rf.sinc(np.pi / 2, 3e-3),
    "refocusing": rf.slr("refocusing", 4e-3, 6.0),
    "adiabatic": rf.hyperbolic_secant(8e-3, 800.0),
    "composite": rf.Pulse(rf.hard(1.7, 1e-3, 64).b1_hz * np.exp(1j * np.linspace(0, 2, 64)), 1e-5),
}


@pytest.mark.parametrize("name", PULSES)
def test_magnetisation_of_spinors(rival, name):
    """SigPy turns counter-clockwise: our turn about w is its about -w, and M+ = 2 a* b. Both
    rotate in float64 sample by sample: only rounding differs."""
    pulse = PULSES[name]
    dt, samples = float(pulse.dt_s), pulse.b1_hz.size
    turns = np.linspace(-12.0, 12.0, 241)  # that the gradient makes in the whole pulse
    turn_rad = 2 * np.pi * np.asarray(pulse.b1_hz) * dt
    found = rival("ask_sigpy", turn_rad=-turn_rad, turns=-turns)
    a, b = found["a"], found["b"]
    theirs = np.stack([(2 * a.conj() * b).real, (2 * a.conj() * b).imag, abs(a) ** 2 - abs(b) ** 2])
    ours = np.asarray(rf.slice_profile(pulse, 1.0, turns / (dt * samples)))
    print(f"{name}: {np.abs(ours - theirs.T).max():.1e} of m0")
    np.testing.assert_allclose(ours, theirs.T, atol=1e-12)


KINDS = {"small_tip": "st", "refocusing": "se", "inversion": "inv", "excitation": "ex"}


def profile(kind: str, flip: float, m: np.ndarray) -> np.ndarray:
    """What ripples are of, relative to its height."""
    if kind in ("small_tip", "excitation"):
        return np.hypot(m[:, 0], m[:, 1]) / np.sin(flip)
    return (1 - m[:, 2]) / 2 if kind == "refocusing" else 1 - (1 + m[:, 2]) / 2


SPECIFICATION = {"samples": 200, "time_bandwidth": 8.0, "pass_ripple": 0.01, "stop_ripple": 0.01}


@pytest.mark.parametrize("kind", KINDS)
def test_designs_of_one_specification(rival, kind):
    """Both are equiripple filters through the same transform, and meet the ripples of the profile
    well inside the edges, where Pauly's transition is theirs and nearly ours. SigPy takes the d1 of
    an excitation for sqrt(d1 / 2), which it then exceeds; ours is derived from the profile."""
    flip = {"small_tip": 0.1, "excitation": np.pi / 2}.get(kind, np.pi)
    scale = flip if kind == "small_tip" else 1.0
    pulse = rf.slr(kind, 4e-3, flip_rad=flip, **SPECIFICATION)
    turns = np.linspace(-16.0, 16.0, 1281)
    found = rival("ask_sigpy", kind=KINDS[kind], scale=scale, turns=turns, **SPECIFICATION)
    a, b = found["a"], found["b"]
    theirs = np.stack([abs(2 * a.conj() * b), 0 * turns, abs(a) ** 2 - abs(b) ** 2], axis=1)
    ours = np.asarray(rf.slice_profile(pulse, 1.0, turns / 4e-3))
    mine, other = (profile(kind, flip, m) for m in (ours, theirs))
    # half of one transition, which is D / time-bandwidth of the slice wide, inside and outside
    bands = {"pass": (abs(turns) < 0.72 * 4.0, 1.0), "stop": (abs(turns) > 1.3 * 4.0, 0.0)}
    for name, (band, height) in bands.items():
        worst = [np.abs(p[band] - height).max() for p in (mine, other)]
        apart = np.abs(mine - other)[band].max()
        print(f"{kind} {name}: ripples {worst[0]:.4f}, theirs {worst[1]:.4f}, apart {apart:.4f}")
        assert worst[0] < 1.1 * 0.01
        assert apart < sum(worst)
    edges = [np.interp(0.5, p[:641], turns[:641]) for p in (mine, other)]
    print(f"{kind}: edges at {edges[0]:.3f}, theirs {edges[1]:.3f} turns")
    np.testing.assert_allclose(edges[0], edges[1], atol=0.02)
