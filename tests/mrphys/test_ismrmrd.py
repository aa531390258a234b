"""Raw data written, read by the format's own library, and brought back to an image."""

import jax
import numpy as np
import pypulseq as pp
import pytest

from mrphys import InputError
from mrphys.fourier import adjoint, density_weights
from mrphys.io.ismrmrd import write_ismrmrd
from mrphys.io.pulseq import read_pulseq
from tests.laws import check_gradient
from tests.mrphys.test_pulseq import SYSTEM, spin_echo, written

ismrmrd = pytest.importorskip("ismrmrd")


def test_what_is_written_is_read_by_the_formats_library(tmp_path):
    scan = read_pulseq(written(tmp_path, spin_echo()))
    rng = np.random.default_rng(0)
    raw = (rng.normal(size=(3, 8)) + 1j * rng.normal(size=(3, 8))).astype(np.complex64)
    write_ismrmrd(tmp_path / "raw.h5", raw, scan)
    data = ismrmrd.Dataset(str(tmp_path / "raw.h5"), create_if_needed=False)
    header = ismrmrd.xsd.CreateFromDocument(data.read_xml_header())
    assert header.encoding[0].encodedSpace.fieldOfView_mm.x == pytest.approx(200)
    assert data.number_of_acquisitions() == 1
    one = data.read_acquisition(0)
    np.testing.assert_array_equal(one.data, raw)
    expected = scan.trajectory() * np.asarray(scan.fov_mm)
    np.testing.assert_allclose(one.traj, expected[:, : one.traj.shape[1]], atol=1e-4)
    data.close()


def test_nothing_is_written_where_samples_do_not_match(tmp_path):
    scan = read_pulseq(written(tmp_path, spin_echo()))
    with pytest.raises(InputError):
        write_ismrmrd(tmp_path / "raw.h5", np.zeros((3, 7), np.complex64), scan)
    assert not (tmp_path / "raw.h5").exists()


def test_adjoint_against_the_sum():
    rng = np.random.default_rng(1)
    fov, shape = (200.0, 160.0), (12, 9)
    k = rng.uniform(-0.02, 0.02, size=(40, 2))
    y = rng.normal(size=(2, 40)) + 1j * rng.normal(size=(2, 40))
    weights = rng.uniform(0.5, 1.5, 40)
    x = adjoint(y, k, fov, shape, weights, tolerance=1e-9)
    places = np.stack(
        np.meshgrid(*[(np.arange(n) - n // 2) * f / n for n, f in zip(shape, fov, strict=True)],
                    indexing="ij"), axis=-1,
    )  # fmt: skip
    kernel = np.exp(2j * np.pi * np.einsum("xyd,kd->kxy", places, k)) / np.sqrt(np.prod(shape))
    np.testing.assert_allclose(x, np.einsum("ck,kxy->cxy", y * weights, kernel), atol=1e-7)


def test_derivative_of_the_adjoint_in_the_trajectory():
    rng = np.random.default_rng(2)
    y = rng.normal(size=(1, 6)) + 1j * rng.normal(size=(1, 6))
    k = rng.uniform(-0.01, 0.01, size=(6, 2))
    with jax.numpy_rank_promotion("allow"):  # in the library's own derivative
        check_gradient(
            lambda k: adjoint(y, k, (100.0, 100.0), (6, 6), tolerance=1e-12), k, rtol=1e-5
        )


def test_weights_are_the_spacings_of_lines_and_shared_where_samples_meet():
    """Lines 1 / FOV apart, samples half as far; one line twice."""
    x, y = np.meshgrid(np.arange(-8, 8) / 2, np.arange(-3, 4), indexing="ij")
    once = np.stack([x.ravel(), y.ravel()], axis=1) / 200.0
    twice = np.concatenate([once, once[y.ravel() == 2]])
    expected = np.where(twice[:, 1] * 200 == 2, 0.25, 0.5)
    np.testing.assert_allclose(density_weights(twice, (200.0, 200.0)), expected)


def test_weights_of_few_spokes_grow_with_the_radius():
    """Voronoi areas r Δr Δφ, though cells far out hold no more than one sample."""
    radius, angle = np.meshgrid(np.arange(1, 33), 2 * np.pi * (np.arange(24) + 0.1) / 24)
    r, phi = radius.ravel(), angle.ravel()
    w = density_weights(np.stack([r * np.cos(phi), r * np.sin(phi)], axis=1), (1.0, 1.0))
    inner = (r > 8) & (r < 32)
    np.testing.assert_allclose(w[inner], r[inner] * 2 * np.pi / 24, rtol=0.02)


def epi(tmp_path):
    """Four lines to and fro in 16 samples each, two to a cell, after a navigator; then noise."""
    label = {name: pp.make_label(type="SET", label=name, value=1) for name in ("NAV", "NOISE")}
    sequence = pp.Sequence(SYSTEM)
    pulse = pp.make_block_pulse(0.5, duration=1e-4, system=SYSTEM, use="excitation")
    read = pp.make_trapezoid("x", flat_area=8 / 0.2, flat_time=8e-4, system=SYSTEM)
    back = pp.scale_grad(read, -1)
    adc = pp.make_adc(16, duration=8e-4, delay=read.rise_time)
    before = pp.make_trapezoid("x", area=-read.area / 2, duration=5e-4, system=SYSTEM)
    down = pp.make_trapezoid("y", area=-2 / 0.2, duration=5e-4, system=SYSTEM)
    blip = pp.make_trapezoid("y", area=1 / 0.2, duration=5e-4, system=SYSTEM)
    sequence.add_block(pulse)
    sequence.add_block(before)
    sequence.add_block(read, adc, label["NAV"])
    sequence.add_block(down, pp.make_label(type="SET", label="NAV", value=0))
    for line in range(4):
        sequence.add_block(back if line % 2 == 0 else read, adc)
        sequence.add_block(blip)
    sequence.add_block(adc, label["NOISE"])
    sequence.set_definition("FOV", [0.2, 0.2, 0.005])
    return read_pulseq(written(tmp_path, sequence))


def test_a_file_alone_gives_the_image_to_a_reader_that_sorts_lines(tmp_path):
    """A point by EPI: lines turned, one FFT, oversampling cut; navigator and noise are flagged."""
    scan = epi(tmp_path)
    assert scan.matrix() == (8, 4, 1)
    place = np.array([50.0, -50.0, 0.0])
    raw = np.exp(-2j * np.pi * scan.trajectory() @ place)[None]
    write_ismrmrd(tmp_path / "raw.h5", raw, scan)
    data = ismrmrd.Dataset(str(tmp_path / "raw.h5"), create_if_needed=False)
    header = ismrmrd.xsd.CreateFromDocument(data.read_xml_header()).encoding[0]
    assert header.trajectory == ismrmrd.xsd.trajectoryType.EPI
    size, shown = header.encodedSpace.matrixSize, header.reconSpace.matrixSize
    assert (size.x, size.y, shown.x, shown.y) == (16, 4, 8, 4)
    assert header.encodedSpace.fieldOfView_mm.x == pytest.approx(400)
    acquisitions = [data.read_acquisition(i) for i in range(data.number_of_acquisitions())]
    data.close()
    flags = (ismrmrd.ACQ_IS_NAVIGATION_DATA, ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    lines = [a for a in acquisitions if not any(a.is_flag_set(flag) for flag in flags)]
    assert len(lines) == 4 == len(acquisitions) - 2
    k = np.zeros((size.x, size.y), complex)
    for line in lines:
        turned = line.is_flag_set(ismrmrd.ACQ_IS_REVERSE)
        assert line.center_sample in (7, 8)
        k[:, line.idx.kspace_encode_step_1] = line.data[0][:: -1 if turned else 1]
    image = np.abs(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(k))))
    image = image[4:12]
    assert np.unravel_index(image.argmax(), image.shape) == (
        6,
        1,
    )  # 50 mm of 200 is two voxels of 8
