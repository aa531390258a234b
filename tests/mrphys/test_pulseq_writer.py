"""Sequences written as Pulseq files, read back and simulated by the Bloch engine."""

import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys import sequence as s
from mrphys.errors import InputError
from mrphys.io.pulseq import read_pulseq
from mrphys.io.pulseq_writer import MOMENT_CYCLES_PER_MM, SAMPLES, write_pulseq
from mrphys.scan import simulate_scan
from mrphys.spins import SpinCloud

T1, T2 = 0.5, 0.06
SHORT = {"pulse_s": 1e-4}
SEQUENCES = {
    "cpmg": s.spin_echo_train(np.full(3, 2.0), 0.012, **SHORT),
    "fse_phases": s.spin_echo_train(np.full(3, 2.0), 0.012, phase_rad=[1.0, 0.2, 2.0], **SHORT),
    "fisp": s.fingerprinting_fisp(np.linspace(0.3, 1.0, 4), 0.012, 0.004, **SHORT),
    "rf_spoiled": s.spoiled_gradient_echo(0.5, 0.004, 0.012, 4, rf_spoiling_rad=2.0, **SHORT),
    "ideally_spoiled": s.spoiled_gradient_echo(0.5, 0.004, 0.012, 3, **SHORT),
    "balanced": s.balanced_ssfp(0.6, 0.008, repetitions=5, **SHORT),
    "dess": s.dess(0.6, 0.004, 0.016, 3),
    "look_locker": s.look_locker(0.3, 0.01, 3, te_s=0.003, ti_s=0.05),
}


def scanned(path, b0_hz: float) -> np.ndarray:
    """The middle of each readout, of spins over whole cycles of a moment."""
    z = (np.arange(240) + 0.5) / 240 / MOMENT_CYCLES_PER_MM
    position = np.stack([0 * z, 0 * z, z], axis=1)
    q = mr.Tissue(t1_s=T1, t2_s=T2, b0_hz=b0_hz, m0=np.full(240, 1 / 240))
    y = simulate_scan(read_pulseq(path), SpinCloud(jnp.asarray(position), q))
    middle = np.asarray(y).reshape(-1, SAMPLES)[:, SAMPLES // 2 - 1 : SAMPLES // 2 + 1]
    return middle.mean(axis=1)


@pytest.mark.parametrize("name", SEQUENCES)
def test_what_is_written_gives_the_signal_simulated(name, tmp_path):
    theta, path = SEQUENCES[name], tmp_path / "made.seq"
    write_pulseq(theta, path)
    for b0_hz in (0.0, 9.0):
        expected = mr.simulate(theta, mr.Tissue(t1_s=T1, t2_s=T2, b0_hz=b0_hz))
        np.testing.assert_allclose(scanned(path, b0_hz), expected, atol=0.02)


def test_a_steady_state_is_played_as_often_as_asked(tmp_path):
    theta = s.spoiled_gradient_echo([0.3, 0.6], 0.003, 0.01)
    write_pulseq(theta, tmp_path / "a.seq", repetitions=5)
    scan = read_pulseq(tmp_path / "a.seq")
    assert len(scan.readouts) == 10


@pytest.mark.parametrize(
    ("theta", "name", "found"),
    [
        (s.diffusion_weighted([0, 500], te_s=0.08), "a.seq", "DiffusionWeighted"),
        (s.spin_echo_train(np.full(3, 2.0), 0.0015), "a.seq", "gradient|interval"),
        (s.balanced_ssfp(0.6, 0.008, 1e-4), "a.seq", "shorter than its pulses"),
        (s.balanced_ssfp(0.6, 0.008), "a.txt", "ends in .seq"),
    ],
)
def test_what_cannot_be_played_is_refused_and_nothing_written(theta, name, found, tmp_path):
    with pytest.raises(InputError, match=found):
        write_pulseq(theta, tmp_path / name)
    assert not list(tmp_path.iterdir())
