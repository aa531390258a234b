"""The brain scanned from the command line: raw data, noise, picture, and what is refused."""

import json

import jax.numpy as jnp
import numpy as np
import pypulseq as pp
import pytest
from typer.testing import CliRunner

from mrphys import InputError
from mrphys.fourier import slice_images
from mrphys.io.pulseq import read_pulseq
from oncology.cli import app
from oncology.virtual_scan import brain_spins, noisy, save_images
from tests.mrphys.test_pulseq import SYSTEM, spin_echo, written


def simulate(path, out, *more):
    options = ["--spacing", "4", "--spins", "1", "1", "1", "--coils", "1", "--json"]
    return CliRunner().invoke(app, ["simulate", str(path), "-o", str(out), *options, *more])


def test_a_scan_leaves_raw_data_and_a_picture(tmp_path):
    ismrmrd = pytest.importorskip("ismrmrd")
    path = written(tmp_path, spin_echo())
    done = simulate(path, tmp_path / "made" / "raw.h5", "--snr", "50")
    assert done.exit_code == 0, done.exception
    told = json.loads(done.stdout)
    assert (told["samples"], told["matrix"]) == (8, [8, 1, 1])
    assert (tmp_path / "made" / "raw.png").read_bytes()[:4] == b"\x89PNG"
    data = ismrmrd.Dataset(told["raw"], create_if_needed=False)
    raw = data.read_acquisition(0).data
    data.close()
    assert np.abs(raw).max() / told["noise_sd"] == pytest.approx(50, rel=0.1)


def test_spins_are_spread_evenly_along_every_axis_of_a_voxel(tmp_path):
    cloud = brain_spins(read_pulseq(written(tmp_path, spin_echo())), 4, (1, 1, 8))
    place = np.asarray(cloud.position_mm).reshape(-1, 8, 3)
    middle = np.round(place.mean(axis=1) / 4 - 0.5) + 0.5  # voxel faces are at multiples of 4 mm
    part = np.floor((place / 4 - middle[:, None] + 0.5) * 8)
    for axis in range(3):
        found = np.sort(part[..., axis] - part[..., axis].min(axis=1, keepdims=True), axis=1)
        np.testing.assert_array_equal(found, np.broadcast_to(np.arange(8.0), found.shape))
    assert np.unique(place[:, 0] - place.mean(axis=1), axis=0).shape[0] > len(place) / 2


def test_noise_is_complex_gaussian_of_the_sd_and_seed():
    raw = jnp.zeros((2, 20_000), complex)
    loud, sd = noisy(raw, 0.3, None, seed=1)
    assert sd == 0.3
    np.testing.assert_allclose([np.std(loud.real), np.std(loud.imag)], 0.3, rtol=0.02)
    assert abs(np.mean(loud.real * loud.imag)) < 2e-3
    np.testing.assert_array_equal(noisy(raw, 0.3, None, seed=1)[0], loud)
    assert np.any(noisy(raw, 0.3, None, seed=2)[0] != loud)


def nothing_but_a_delay():
    sequence = pp.Sequence(SYSTEM)
    sequence.add_block(pp.make_delay(1e-3))
    return sequence


@pytest.mark.parametrize(
    ("change", "options", "found"),
    [
        (lambda s: s.definitions.pop("FOV"), (), "no FOV.*--fov"),
        (lambda s: None, ("--noise", "1", "--snr", "9"), "one of them"),
        (lambda s: None, ("--phantom", "knee"), "brain"),
        (lambda s: None, ("--fov", "0", "1", "1"), "above 0"),
        (lambda s: s.set_definition("FOV", [0.2, 0.2, 0.2]), ("--spacing", "3"), "1, 2 or 4 mm"),
        (None, (), "no samples"),
    ],
)
def test_what_cannot_be_scanned_is_refused_and_nothing_written(change, options, found, tmp_path):
    sequence = spin_echo() if change else nothing_but_a_delay()
    if change:
        change(sequence)
    refused = simulate(written(tmp_path, sequence), tmp_path / "raw.h5", *options)
    assert isinstance(refused.exception, InputError)
    with pytest.raises(InputError, match=found):
        raise refused.exception
    assert [path.name for path in tmp_path.iterdir()] == ["a.seq"]


def test_slices_and_repetitions_are_pictured_apart_and_navigators_left_out(tmp_path):
    """Raw data of one constant for each label: each image has its own."""
    sequence = spin_echo([pp.make_label(type="SET", label="REP", value=0)])
    again = spin_echo([pp.make_label(type="SET", label="REP", value=1)])
    navigator = spin_echo([pp.make_label(type="SET", label="NAV", value=1)])
    for other in (again, navigator):
        for number in other.block_events:
            sequence.add_block(other.get_block(number))
    scan = read_pulseq(written(tmp_path, sequence))
    raw = np.repeat([1.0, 2.0, 50.0], 8)[None] + 0j
    images = slice_images(raw, scan)
    assert list(images) == ["+0 Hz, REP 0", "+0 Hz, REP 1"]
    first, second = images.values()
    np.testing.assert_allclose(second, 2 * first, rtol=1e-4, atol=1e-9)
    assert save_images(tmp_path / "a.png", jnp.asarray(raw), scan)
