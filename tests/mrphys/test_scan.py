"""Scans of spins against closed forms, and against an independent Bloch simulator."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pypulseq as pp
import pytest

import mrphys as mr
from mrphys import InputError
from mrphys.io.pulseq import read_pulseq
from mrphys.scan import simulate_scan
from mrphys.spins import SpinCloud
from tests.laws import check_gradient
from tests.mrphys.test_pulseq import spin_echo, written

DATA = Path(__file__).parents[3] / "shared" / "data"


def cloud(**tissue) -> SpinCloud:
    position = np.array([[1.0, 2.0, 0.0], [-3.0, 0.5, 1.0], [0.0, 0.0, -2.0]])
    return SpinCloud(jnp.asarray(position), mr.Tissue(**tissue))


def test_a_free_induction_decay(tmp_path):
    """i m0 exp(-t/T2) exp(-2πi b0 t), summed over spins, from the pulse's centre."""
    sequence = pp.Sequence()
    sequence.add_block(pp.make_block_pulse(np.pi / 2, duration=2e-5, use="excitation"))
    sequence.add_block(pp.make_delay(1e-3))
    sequence.add_block(pp.make_adc(50, duration=1e-2))
    scan = read_pulseq(written(tmp_path, sequence))
    b0 = np.array([0.0, 40.0, -15.0])
    y = simulate_scan(scan, cloud(t1_s=1.0, t2_s=0.05, b0_hz=b0, m0=np.array([1.0, 2.0, 0.5])))
    t = scan.sample_times_s - scan.pulses[0].start_s - 1e-5
    each = np.array([1.0, 2.0, 0.5]) * np.exp(-2j * np.pi * t[:, None] * b0)
    expected = 1j * (each * np.exp(-t / 0.05)[:, None]).sum(axis=1)
    np.testing.assert_allclose(y[0], expected, atol=2e-3)


def test_k_space_is_the_fourier_transform_of_the_spins(tmp_path):
    scan = read_pulseq(written(tmp_path, spin_echo(phase_rad=0.0, frequency_hz=0.0)))
    spins = cloud(t1_s=19.0, t2_s=19.0)
    y = np.asarray(simulate_scan(scan, spins))[0]
    k = scan.trajectory()
    expected = np.exp(-2j * np.pi * k @ np.asarray(spins.position_mm).T).sum(axis=1)
    turned = y / expected
    np.testing.assert_allclose(np.abs(turned), 1, atol=5e-3)
    np.testing.assert_allclose(turned, turned[0], atol=5e-3)


def test_derivatives_in_tissue_positions_and_coils(tmp_path):
    scan = read_pulseq(written(tmp_path, spin_echo()))

    def raw(p):
        q = mr.Tissue(t1_s=p["t1"], t2_s=p["t2"], b0_hz=p["b0"], b1=p["b1"], m0=p["m0"])
        coils = p["coils"].astype(jnp.result_type(1j))
        return simulate_scan(scan, SpinCloud(p["where"], q), coils=coils)

    p = {
        "t1": np.array([0.5, 1.0]), "t2": 0.05, "b0": 3.0, "b1": 0.9, "m0": 1.0,
        "where": np.array([[1.0, 0.2, 0.0], [-2.0, 0.0, 1.0]]), "coils": np.ones((2, 2)),
    }  # fmt: skip
    check_gradient(raw, p, rtol=2e-6, directions=6)


def test_bad_calls(tmp_path):
    scan = read_pulseq(written(tmp_path, spin_echo()))
    with pytest.raises(InputError, match="one for each coil and spin"):
        simulate_scan(scan, cloud(t1_s=1.0, t2_s=0.1), coils=np.ones((2, 5), complex))


@pytest.mark.skipif(not (DATA / "bloch_reference").is_dir(), reason="no reference data here")
def test_echo_planar_imaging_of_a_sphere_against_another_simulator():
    """JEMRIS's signal of 7825 spins with off-resonance, within 1 % of its root mean square."""
    h5py = pytest.importorskip("h5py")
    folder = DATA / "bloch_reference"
    with h5py.File(folder / "phantom_sphere.h5") as f:
        value = {name: np.asarray(f[name]) for name in ("x", "y", "z", "T1", "T2", "Δw", "ρ")}
    with h5py.File(folder / "jemris_signals_epi_sphere_cs.h5") as f:
        columns = np.asarray(f["signal/channels/00"])
    q = mr.Tissue(
        t1_s=value["T1"], t2_s=value["T2"], m0=value["ρ"], b0_hz=value["Δw"] / (2 * np.pi)
    )
    position = 1e3 * np.stack([value["x"], value["y"], value["z"]], axis=1)
    scan = read_pulseq(folder / "epi_100x100_TE100_FOV230.seq")
    y = np.asarray(simulate_scan(scan, SpinCloud(jnp.asarray(position), q)))[0] / 7825
    reference = columns[:, 0] + 1j * columns[:, 1]
    error = np.linalg.norm(y - reference) / np.linalg.norm(reference)
    print(f"normalised RMS error {100 * error:.3f} %")
    assert error < 0.01
