"""Sequences written as Pulseq files, read back and simulated by the Bloch engine."""

import jax.numpy as jnp
import numpy as np
import pypulseq as pp
import pytest

import mrphys as mr
from mrphys import sequence as s
from mrphys.errors import InputError
from mrphys.io.pulseq import read_pulseq
from mrphys.io.pulseq_timeline import SAMPLES
from mrphys.io.pulseq_writer import write_pulseq
from mrphys.scan import simulate_scan
from mrphys.spins import SpinCloud

T1, T2 = 0.5, 0.06
SPINS = 2003
SHORT = {"pulse_s": 1e-4}
SYSTEM = pp.Opts(max_grad=40, grad_unit="mT/m", max_slew=170, slew_unit="T/m/s")


PAIRS = [((1, 0, 1), (0, 2, -1)), ((0, 2, -1), (1, 0, -1)), ((1, 0, -1), (0, 1, 0))]
"""Crushers before and after each pulse: were the last along (1, 0, 1), what the first pulse
stored would come back."""


def crushed_by_three_axes():
    """Echoes of pulses between crushers of different directions."""
    first = s.block(np.pi / 2, [0.008], shifts=[(1, 0, 1)], reads=[False])
    turning = [
        s.block(
            2.0,
            [0.008, 0.008],
            phase_rad=np.pi / 2,
            receiver_rad=0.0,
            shifts=[before, after],
            reads=[True, False],
        )
        for before, after in PAIRS
    ]
    return s.train([first, *turning], **SHORT)


SCANNED = {
    "cpmg": (s.spin_echo_train(np.full(3, 2.0), 0.012, **SHORT), 1),
    "fse_phases": (
        s.spin_echo_train(np.full(3, 2.0), 0.012, phase_rad=[1.0, 0.2, 2.0], **SHORT),
        1,
    ),
    "three_axes": (crushed_by_three_axes(), 1),
    "rf_spoiled": (s.spoiled_gradient_echo(0.5, 0.004, 0.012, 4, rf_spoiling_rad=2.0, **SHORT), 1),
    "ideally_spoiled": (s.spoiled_gradient_echo(0.5, 0.004, 0.012, 6, **SHORT), 1),
    "balanced": (s.balanced_ssfp(0.6, 0.008, repetitions=5, **SHORT), 1),
    "dess": (s.dess(0.6, 0.004, 0.016, 3), 1),
    "look_locker": (s.look_locker(0.3, 0.01, 3, te_s=0.003), 1),
    "t2_prepared": (s.t2_prepared([0.02, 0.06], 0.8, te_s=0.003), 5),
    "diffusion": (s.diffusion_weighted([0, 500], te_s=0.06, tr_s=3.0), 2),
    "cest": (s.cest_saturation([0.0, 60.0], 20.0, 0.1, pulses=4, gap_s=0.01, recovery_s=4.0), 1),
    "mt": (s.mt_prepared_gradient_echo(0.2, 0.003, 0.05, [60.0, 300.0], [60.0, 120.0], 0.01), 60),
}
PLAYED = {
    "spin_echo": s.spin_echo(0.02),
    "stimulated_echo": s.stimulated_echo(0.02, 0.05),
    "fisp": s.fingerprinting_fisp(np.linspace(0.3, 1, 4), 0.012, 0.004),
    "along_y": s.fingerprinting_fisp([0.3, 0.5], 0.012, 0.004, moment_rad_per_mm=[0.0, 6.0, 0.0]),
    "fingerprinting_balanced": s.fingerprinting_balanced(np.linspace(0.3, 1, 4), 0.012),
    "spoiled_steady": s.spoiled_gradient_echo([0.3, 0.6], 0.003, 0.01),
    "unbalanced": s.unbalanced_ssfp(0.5, 0.004, 0.012),
    "balanced_steady": s.balanced_ssfp(0.6, 0.008),
    "dess_steady": s.dess(0.6, 0.004, 0.016),
    "multi_echo": s.multi_echo_gradient_echo([0.003, 0.006]),
    "inversion_recovery": s.inversion_recovery([0.05, 0.3], 1.0, 0.003),
    "saturation_recovery": s.saturation_recovery([0.05, 0.3], 1.0, 0.003),
    "mprage": s.mprage(0.2, 0.1, 0.01, 8, 0.8, 0.003),
    "mp2rage": s.mp2rage([0.15, 0.5], [0.1, 0.15], 0.01, 8, 0.8, 0.003),
    "molli": s.molli(images=(2,), pauses=(), pulses=8, first_ti_s=(0.1,), tr_s=4e-3, beat_s=0.5),
    "continuous_wave": s.cest_saturation([0.0, 400.0], 40.0, 3.0),
    "no_field": s.cest_saturation([0.0], 0.0, 3.0),
}  # fmt: skip


def scanned(path, b0_hz: float) -> np.ndarray:
    """The middle of each readout, of spins on a lattice that small moments dephase wholly."""
    step = np.array([1, round(SPINS**0.36), round(SPINS**0.68)])
    position = (np.arange(SPINS)[:, None] * step[None] % SPINS + 0.5) / SPINS
    q = mr.Tissue(t1_s=T1, t2_s=T2, b0_hz=b0_hz, m0=np.full(SPINS, 1 / SPINS))
    y = simulate_scan(read_pulseq(path), SpinCloud(jnp.asarray(position), q))
    middle = np.asarray(y).reshape(-1, SAMPLES)[:, SAMPLES // 2 - 1 : SAMPLES // 2 + 1]
    return middle.mean(axis=1)


def last_repetition(y: np.ndarray, theta, repetitions: int) -> np.ndarray:
    groups = len(theta.acquisitions) if isinstance(theta, s.Repeated) else theta.averages.size
    return y.reshape(groups, repetitions, -1)[:, -1].ravel() if repetitions > 1 else y


@pytest.mark.parametrize("name", SCANNED)
def test_what_is_written_gives_the_signal_simulated(name, tmp_path):
    (theta, repetitions), path = SCANNED[name], tmp_path / "made.seq"
    write_pulseq(theta, path, repetitions=repetitions)
    b0_hz = 0.0 if name == "cest" else 9.0  # its readout is not at the pulse's centre
    expected = mr.simulate(theta, mr.Tissue(t1_s=T1, t2_s=T2, b0_hz=b0_hz, adc_mm2_per_s=0.0))
    found = last_repetition(scanned(path, b0_hz), theta, repetitions)
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("name", [*SCANNED, *PLAYED])
def test_what_is_written_passes_pypulseqs_checks(name, tmp_path):
    """Timing, amplitude and slew rate of each axis, and the report."""
    theta = SCANNED[name][0] if name in SCANNED else PLAYED[name]
    write_pulseq(theta, tmp_path / "a.seq", repetitions=2)
    sequence = pp.Sequence(SYSTEM)
    sequence.read(str(tmp_path / "a.seq"))
    ok, errors = sequence.check_timing()
    assert ok, errors[:1]
    for axis in sequence.waveforms():
        if axis.size:
            assert np.abs(axis[1]).max() <= SYSTEM.max_grad * (1 + 1e-6)
            slew = np.diff(axis[1]) / np.maximum(np.diff(axis[0]), 1e-9)
            assert np.abs(slew).max() <= SYSTEM.max_slew * (1 + 1e-6)
    readouts = theta.averages.size * (
        2 if isinstance(theta, s.Repeated) or name == "diffusion" else 1
    )
    assert len(read_pulseq(tmp_path / "a.seq").readouts) == readouts


def test_diffusion_gradients_written_have_the_b_values_asked(tmp_path):
    """b = (2π)² ∫ |k|² dt from excitation to echo, over the gradients in the file."""
    asked = [0.0, 50.0, 400.0, 1000.0]
    write_pulseq(s.diffusion_weighted(asked, te_s=0.075, tr_s=1.0), tmp_path / "dw.seq")
    scan = read_pulseq(tmp_path / "dw.seq")
    found = []
    for i, readout in enumerate(scan.readouts):
        excite, refocus = (p.start_s + p.center_s for p in scan.pulses[2 * i : 2 * i + 2])
        t = np.linspace(excite, readout.times_s[SAMPLES // 2 - 1 : SAMPLES // 2 + 1].mean(), 40001)
        k = scan.moment(t) - scan.moment(np.array([excite]))
        turned = scan.moment(np.array([refocus])) - scan.moment(np.array([excite]))
        k = np.where(t[:, None] > refocus, k - 2 * turned, k)
        np.testing.assert_allclose(k[-1], 0, atol=1e-6)
        found.append(np.trapezoid(4 * np.pi**2 * np.sum(k**2, axis=1), t))
    np.testing.assert_allclose(found, asked, rtol=2e-3, atol=0.2)


def test_crushers_are_along_their_axes(tmp_path):
    write_pulseq(crushed_by_three_axes(), tmp_path / "a.seq", moment_cycles_per_mm=2.0)
    scan = read_pulseq(tmp_path / "a.seq")
    edges = [p.start_s for p in scan.pulses[1:]] + [r.start_s for r in scan.readouts]
    moments = np.diff(scan.moment(np.sort([0.0, *edges])), axis=0)
    asked = [(1, 0, 1), *(shift for pair in PAIRS for shift in pair)][:-1]
    np.testing.assert_allclose(moments, 2.0 * np.array(asked), atol=1e-5)


def test_time_that_spoilers_borrow_is_given_back(tmp_path):
    theta = s.mt_prepared_gradient_echo(0.2, 0.003, 0.05, [60.0], 120.0, 0.01)
    write_pulseq(theta, tmp_path / "a.seq", repetitions=4)
    scan = read_pulseq(tmp_path / "a.seq")
    starts = [pulse.start_s for pulse in scan.pulses if pulse.use == "excitation"]
    np.testing.assert_allclose(np.diff(starts), 0.05, atol=1e-5)


@pytest.mark.parametrize(
    ("theta", "name", "found"),
    [
        (s.diffusion_weighted([0, 3000], te_s=0.04), "a.seq", "TE too short for the b-value"),
        (s.diffusion_weighted([0], te_s=0.003), "a.seq", "TE too short"),
        (s.spin_echo_train(np.full(3, 2.0), 0.0015), "a.seq", "gradient|interval"),
        (s.balanced_ssfp(0.6, 0.008, 1e-4), "a.seq", "shorter than its pulses"),
        (s.balanced_ssfp(0.6, 0.008), "a.txt", "ends in .seq"),
        (s.balanced_ssfp(0.6, 0.008, profile=([1.0], [1.0])), "a.seq", "slice profile"),
    ],
)
def test_what_cannot_be_played_is_refused_and_nothing_written(theta, name, found, tmp_path):
    with pytest.raises(InputError, match=found):
        write_pulseq(theta, tmp_path / name)
    assert not list(tmp_path.iterdir())
