"""Phase graphs event by event against sycomore, and against BART."""

import numpy as np
import pytest

import mrphys as mr
from mrphys import sequence as s
from mrphys.sequence.train import Train

pytestmark = pytest.mark.oracle
Q = mr.Tissue(t1_s=0.9, t2_s=0.08, b1=0.93, b0_hz=7.0).broadcast()
DIFFUSING = mr.Tissue(t1_s=0.9, t2_s=0.08, b1=0.93, adc_mm2_per_s=1.5e-3).broadcast()
FLIPS = np.linspace(0.3, 1.2, 40)
PHASES = np.linspace(0.0, 3.0, 40)
TRAINS = {
    "cpmg": (s.spin_echo_train(np.full(32, 2.1), 0.01), Q),
    "fse_phases": (s.spin_echo_train(FLIPS + 1.2, 0.01, phase_rad=PHASES), Q),
    "fse_diffusion": (s.spin_echo_train(FLIPS + 1.2, 0.01, moment_rad_per_mm=40.0), DIFFUSING),
    "rf_spoiled": (s.spoiled_gradient_echo(0.4, 0.003, 0.01, 200, rf_spoiling_rad=2.042), Q),
    "fisp": (s.unbalanced_ssfp(FLIPS, 0.003, 0.01), Q),
    "fisp_diffusion": (s.unbalanced_ssfp(FLIPS, 0.003, 0.01, moment_rad_per_mm=60.0), DIFFUSING),
    "dess": (s.dess(0.6, 0.003, 0.01, 60), Q),
    "balanced": (s.balanced_ssfp(0.7, 0.008, 0.003, 100), Q),
    "mrf_phases": (
        s.fingerprinting_fisp(
            FLIPS, np.linspace(0.011, 0.013, 40), 0.004, phase_rad=PHASES, inversion_s=None
        ),
        Q,
    ),
}  # fmt: skip


def events(theta: Train | s.SpinEchoTrain, b1: float) -> np.ndarray:
    """Rows (0, flip, phase, 0, 0) of pulses and (1, time, shift, reads, receiver) of intervals."""
    rows = []
    for block in theta.blocks:
        assert not block.spoil
        for i in range(block.repetitions):
            rows.append((0, block.flip_rad[i] * b1, block.phase_rad[i], 0, 0))
            for j, (shift, reads) in enumerate(zip(block.shifts, block.reads, strict=True)):
                rows.append((1, block.times_s[i, j], shift, reads, block.receiver_rad[i]))
    return np.array(rows, float)


@pytest.mark.parametrize("name", TRAINS)
def test_against_sycomore(rival, name):
    """Both float64 and without truncation: only rounding differs. Moments are matched to 1e-5 by
    sycomore's `gradient_tolerance`, gyromagnetic ratios to 1e-9, which diffusion would see."""
    theta, q = TRAINS[name]
    moment = theta.moment_rad_per_mm
    tissue = {field: getattr(q, field) for field in ("t1_s", "t2_s", "b0_hz", "adc_mm2_per_s")}
    found = rival(
        "ask_sycomore",
        events=events(theta, float(q.b1)),
        moment_rad_per_mm=0.0 if moment is None else moment,
        **tissue,
    )["signal"]
    ours = mr.simulate(theta, q, tolerance=1e-12)
    worst = np.abs(ours - found).max()
    print(f"{name}: {worst:.1e} of m0")
    assert worst < (1e-10 if moment is None else 1e-7)


FLOAT32 = 2e-6  # what BART computes in, of m0, after tens of pulses


def test_cpmg_against_bart(bart):
    q = mr.Tissue(t1_s=1.0, t2_s=0.1, b1=0.7)
    found = np.abs(bart("epg -C -1 1.0 -2 0.1 -b 0.7 -e 0.01 -n 24 {}"))
    ours = np.abs(mr.simulate(s.spin_echo_train(np.full(24, np.pi), 0.01), q))
    print(f"CPMG, BART: {np.abs(ours - found).max():.1e} of m0")
    np.testing.assert_allclose(ours, found, atol=FLOAT32)


def test_rf_spoiling_against_bart(bart):
    """Its increment is 50°, and it reads right after the pulse."""
    q = mr.Tissue(t1_s=1.0, t2_s=0.1)
    found = np.abs(bart("epg -F -s 1 -1 1.0 -2 0.1 -r 0.01 -f 15 -n 60 {}"))
    flip, increment = np.deg2rad(15.0), float(np.deg2rad(50.0))
    theta = s.spoiled_gradient_echo(flip, 0.0, 0.01, 60, rf_spoiling_rad=increment)
    ours = np.abs(mr.simulate(theta, q, tolerance=1e-7))
    print(f"RF spoiling, BART: {np.abs(ours - found).max():.1e} of m0")
    np.testing.assert_allclose(ours, found, atol=FLOAT32)


@pytest.mark.parametrize("b0_hz", [0.0, 13.0])
def test_balanced_against_bart(bart, b0_hz):
    q = mr.Tissue(t1_s=1.0, t2_s=0.1, b0_hz=b0_hz)
    found = np.abs(bart(f"epg -B -1 1.0 -2 0.1 -r 0.01 -f 30 -n 60 -o {b0_hz} {{}}"))
    ours = np.abs(mr.simulate(s.balanced_ssfp(np.pi / 6, 0.01, repetitions=60), q))
    print(f"balanced at {b0_hz} Hz, BART: {np.abs(ours - found).max():.1e} of m0")
    np.testing.assert_allclose(ours, found, atol=FLOAT32)
