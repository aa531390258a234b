"""Raw files made by the formats' own libraries, read into images; and files that are refused."""

from dataclasses import replace
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys import Encoding, InputError, RawData, reconstruct, trajectory
from mrphys.encoding import fft
from mrphys.io import read_raw, scan_data, write_ismrmrd, write_raw
from mrphys.io.pulseq import read_pulseq
from mrphys.io.pulseq_readouts import write_readouts
from tests.mrphys.test_ismrmrd import epi

ismrmrd = pytest.importorskip("ismrmrd")
NX, NY, COILS = 8, 6, 2
RNG = np.random.default_rng(0)
BRAIN = Path(__file__).resolve().parents[2] / ".cache" / "data" / "radial_brain.h5"


def random(*shape):
    return (RNG.normal(size=shape) + 1j * RNG.normal(size=shape)).astype(np.complex64)


def header(trajectory="cartesian", encoded=(2 * NX, NY, 1), shown=(NX, NY, 1), centre=NY // 2):
    """Oversampled twice along x, voxels of 2 x 3 x 5 mm."""
    xsd = ismrmrd.xsd
    spaces = [
        xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(**dict(zip("xyz", size, strict=True))),
            fieldOfView_mm=xsd.fieldOfViewMm(x=2.0 * size[0], y=3.0 * size[1], z=5.0 * size[2]),
        )
        for size in (encoded, shown)
    ]
    limit = xsd.limitType(minimum=0, maximum=encoded[1] - 1, center=centre)
    return xsd.ToXML(
        xsd.ismrmrdHeader(
            experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123),
            sequenceParameters=xsd.sequenceParametersType(TE=[5.0]),
            encoding=[
                xsd.encodingType(
                    encodedSpace=spaces[0],
                    reconSpace=spaces[1],
                    encodingLimits=xsd.encodingLimitsType(kspace_encoding_step_1=limit),
                    trajectory=xsd.trajectoryType(trajectory),
                )
            ],
        )
    )


def acquisition(data, k=None, flags=(), **fields):
    more = [] if k is None else [np.ascontiguousarray(k, np.float32)]
    one = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data, np.complex64), *more)
    one.sample_time_us = fields.pop("dwell_us", 4.0)
    one.center_sample = fields.pop("centre", data.shape[1] // 2)
    one.position[:] = fields.pop("position", (0.0, 0.0, 0.0))
    for name, direction in zip(("read", "phase", "slice"), np.eye(3), strict=True):
        getattr(one, f"{name}_dir")[:] = direction
    for name, value in fields.items():
        setattr(one.idx, name, value)
    for flag in flags:
        one.set_flag(getattr(ismrmrd, flag))
    return one


def written(path, lines, xml=None):
    with ismrmrd.Dataset(str(path), "dataset") as dataset:
        dataset.write_xml_header(header() if xml is None else xml)
        for line in lines:
            dataset.append_acquisition(line)
    return path


def encoded(images):
    """k-space of images (..., NX, NY) in twice the field of view along x."""
    wide = np.pad(images, [(0, 0)] * (images.ndim - 2) + [(NX // 2, NX // 2), (0, 0)])
    return np.array(fft(jnp.asarray(wide), 2))


def lines_of(k, rows=range(NY), **fields):
    return [acquisition(k[..., j], kspace_encode_step_1=j, **fields) for j in rows]


def test_lines_become_images_in_space(tmp_path):
    """Two slices and repetitions, reversed lines, averages, oversampling; noise apart."""
    images = random(2, 2, COILS, NX, NY)  # slices, repetitions
    k, noise = encoded(images), random(COILS, 4000)
    lines = [acquisition(noise, flags=["ACQ_IS_NOISE_MEASUREMENT"], dwell_us=8.0)]
    lines += [acquisition(9 * noise[:, :4], flags=["ACQ_IS_NAVIGATION_DATA"])]
    for s in range(2):
        for r in range(2):
            for j in range(NY):
                flags = ["ACQ_IS_REVERSE"] if j % 2 else []
                data = k[s, r, ..., j][:, :: -1 if j % 2 else 1]
                for average in range(2 if j == 3 else 1):
                    lines.append(
                        acquisition(
                            data, flags=flags, slice=s, repetition=r, average=average,
                            kspace_encode_step_1=j, position=(10.0, 20.0, 30.0 + 7 * s),
                        )
                    )  # fmt: skip
    raw = read_raw(written(tmp_path / "a.h5", lines))
    assert raw.series == ("slice", "repetition") and raw.coils == COILS
    assert (raw.shape, raw.shown, raw.fov_mm) == ((NX, NY), (NX, NY), (16.0, 18.0))
    np.testing.assert_allclose(raw.mask[0, 0, 0], [1, 1, 1, np.sqrt(2), 1, 1], rtol=1e-6)
    for s in range(2):
        one = raw.select(slice=s)
        np.testing.assert_allclose(one.images(), images[s], atol=2e-6)
        A = one.encoding(np.ones((COILS, NX, NY)))
        np.testing.assert_allclose(A.H(one.y).shape, (2, NX, NY))
    np.testing.assert_array_equal(raw.noise, noise)
    assert raw.noise_ratio == pytest.approx(2.0) and raw.provenance["EchoTime"] == 0.005
    white, sd = raw.whitened()
    expected = np.sqrt(
        np.mean(np.abs(noise) ** 2) / 2 * 2
    )  # half the dwell time, twice the variance
    assert sd == pytest.approx(expected, rel=1e-5) and white.y.shape == raw.y.shape
    volume = raw.volume(np.zeros((NX, NY, 2)))
    centre = volume.affine @ [NX // 2, NY // 2, 1, 1]
    np.testing.assert_allclose(centre[:3], [-10, -20, 37])  # RAS of the patient's LPS
    np.testing.assert_allclose(np.diag(volume.affine), [-2, -3, 7, 1])


def test_partial_fourier_partial_echo_and_undersampling_leave_zeros(tmp_path):
    """Lines are placed by the header's centre, samples by that of the readout."""
    images = random(COILS, NX, NY)
    k = encoded(images)
    partial = [
        acquisition(k[:, 6:14, j], kspace_encode_step_1=j - 2, centre=2) for j in (2, 3, 5)
    ]  # the line at k = 0 is counted 1
    raw = read_raw(written(tmp_path / "a.h5", partial, header(centre=1)))
    assert raw.shape == (2 * NX, NY) and raw.shown == (NX, NY)
    expected = np.zeros((2 * NX, NY))
    expected[6:14, [2, 3, 5]] = 1
    np.testing.assert_array_equal(raw.mask, expected)
    np.testing.assert_allclose(raw.y, k * expected, atol=1e-6)
    with pytest.raises(InputError, match="regular undersampling"):
        read_raw(written(tmp_path / "b.h5", lines_of(k, (0, 2, 4)))).calibration()
    middle = read_raw(written(tmp_path / "c.h5", lines_of(k, (1, 2, 3, 4)))).calibration()
    np.testing.assert_allclose(
        middle, np.asarray(fft(jnp.asarray(images), 2))[:, :, 1:5], atol=2e-6
    )


def test_a_volume_of_two_phase_axes_and_a_wider_field_of_view(tmp_path):
    image = random(1, NX, 4, 4)
    wide = np.pad(image, [(0, 0), (0, 0), (1, 1), (0, 0)])
    k = np.asarray(fft(jnp.asarray(wide), 3))
    lines = [
        acquisition(k[..., j, m], kspace_encode_step_1=j, kspace_encode_step_2=m)
        for j in range(6)
        for m in range(4)
    ]
    raw = read_raw(written(tmp_path / "a.h5", lines, header(encoded=(NX, 6, 4), shown=(NX, 4, 4))))
    assert raw.shape == (NX, 6, 4) and raw.shown == (NX, 4, 4)
    np.testing.assert_allclose(raw.cropped(raw.images()), image, atol=2e-6)


@pytest.mark.parametrize("unit", ["cycles per field of view", "cycles per voxel"])
def test_spokes_keep_their_trajectory(tmp_path, unit):
    k = np.asarray(trajectory.radial(9, 2 * NX, NX))
    image = random(NX, NX)
    coils = random(COILS, NX, NX)
    y = np.asarray(Encoding.noncartesian(k.reshape(-1, 2), coils, tolerance=1e-10)(image))
    stored = k / (1 if unit.endswith("view") else NX)
    lines = [
        acquisition(y[:, i * 2 * NX :][:, : 2 * NX], stored[i], kspace_encode_step_1=i)
        for i in range(9)
    ]
    xml = header("radial", encoded=(2 * NX, NX, 1), shown=(NX, NX, 1))
    if unit.endswith("voxel"):
        xml = header("radial", encoded=(NX, NX, 1), shown=(NX, NX, 1))
    raw = read_raw(written(tmp_path / "a.h5", lines, xml))
    np.testing.assert_allclose(raw.trajectory, k.reshape(-1, 2), atol=1e-5)
    assert raw.readouts == 9 and raw.readout == 2 * NX and raw.shape == (NX, NX)
    few = raw.lines(np.array([0, 4]))
    np.testing.assert_array_equal(few.y, np.concatenate([y[:, :16], y[:, 64:80]], 1).astype("c8"))
    found = reconstruct(raw.encoding(coils), raw.y, regularisation=0.0, iterations=100)
    np.testing.assert_allclose(found.image, image, atol=0.02 * np.abs(image).max())
    write_raw(tmp_path / "again.h5", raw)
    again = read_raw(tmp_path / "again.h5")
    np.testing.assert_allclose(again.trajectory, raw.trajectory, atol=1e-6)
    np.testing.assert_array_equal(again.y, raw.y)
    np.testing.assert_allclose(again.affine, raw.affine, atol=1e-5)


def test_what_is_written_of_a_grid_is_read_back(tmp_path):
    mask = np.zeros((2, NX, NY), np.float32)
    mask[:, :, 1:5] = np.sqrt([1.0, 1, 2, 1])
    affine = np.array([[0, 0, 1.0, 4], [2, 0, 0, 5], [0, 2, 0, 6], [0, 0, 0, 1]])
    raw = RawData(
        random(2, COILS, NX, NY) * (mask[:, None] > 0), (NX, NY), (16.0, 12.0), mask=mask,
        series=("contrast",), noise=random(COILS, 50), affine=affine,
    )  # fmt: skip
    write_raw(tmp_path / "a.h5", raw)
    again = read_raw(tmp_path / "a.h5")
    np.testing.assert_allclose(again.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(again.noise, raw.noise)
    np.testing.assert_allclose(again.images(), raw.images(), atol=1e-6)


def test_a_simulated_scan_goes_straight_in_and_through_its_file(tmp_path):
    """A point by EPI, after a navigator, before noise; and one along spirals."""
    scan = epi(tmp_path)
    place = np.array([50.0, -50.0, 0.0])
    y = np.exp(-2j * np.pi * scan.trajectory() @ place)[None] * np.ones((2, 1))
    write_ismrmrd(tmp_path / "raw.h5", y, scan)
    for raw in (scan_data(y, scan), read_raw(tmp_path / "raw.h5")):
        assert (raw.shape, raw.coils, raw.noise.shape) == ((8, 4), 2, (2, 16))
        image = np.abs(raw.images()[0])
        assert np.unravel_index(image.argmax(), image.shape) == (6, 1)
        at = raw.affine @ [6, 1, 0, 1]
        np.testing.assert_allclose(at[:2], place[:2])
    k = trajectory.spiral(4, 16, 200.0)
    write_readouts(tmp_path / "spiral.seq", k, (200.0, 200.0), 4e-6)
    scan = read_pulseq(tmp_path / "spiral.seq")
    y = np.exp(-2j * np.pi * scan.trajectory() @ place)[None]
    raw = scan_data(y, scan)
    assert raw.trajectory.shape[1] == 2 and raw.readouts == 4
    image = np.abs(raw.images()[0])
    assert np.unravel_index(image.argmax(), image.shape) == (12, 4)
    assert trajectory.of_scan(scan).reshape(-1, 2) == pytest.approx(raw.trajectory, abs=1e-4)


def fastmri(path, y, xml=None, mask=None):
    with h5py.File(path, "w") as file:
        file["kspace"] = y
        if xml is not None:
            file["ismrmrd_header"] = xml
        if mask is not None:
            file["mask"] = mask
    return path


def test_fastmri_slices_masks_and_oversampling(tmp_path):
    images = random(3, COILS, NX, NY)
    k = encoded(images)
    k[..., 0] = 0  # filled up, not measured
    raw = read_raw(fastmri(tmp_path / "a.h5", k, header(), np.array([1, 1, 0, 1, 1, 1])))
    assert raw.series == ("slice",) and raw.shape == (NX, NY) and raw.fov_mm == (16.0, 18.0)
    np.testing.assert_array_equal(raw.mask[1, 0], [0, 1, 0, 1, 1, 1])
    full = np.asarray(fft(jnp.asarray(images), 2))
    np.testing.assert_allclose(raw.y, full * [0, 1, 0, 1, 1, 1], atol=2e-6)
    single = read_raw(fastmri(tmp_path / "b.h5", k[:, 0]))
    assert (single.coils, single.shape) == (1, (2 * NX, NY))


def with_nan(y):
    y = y.copy()
    y[0, 0, 3, 2] = np.nan
    return y


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


K = encoded(random(1, COILS, NX, NY))
NOISE_ONLY = [acquisition(random(COILS, 9), flags=["ACQ_IS_NOISE_MEASUREMENT"])]
WRONG_UNIT = np.asarray(trajectory.radial(1, 16, 8))[0] / 0.2
REFUSED = {
    "no file": lambda p: p / "a.h5",
    "a truncated file": lambda p: cut(written(p / "a.h5", lines_of(K[0]))),
    "not HDF5": lambda p: (p / "a.h5").write_text("kspace") and p / "a.h5",
    "HDF5 that holds x": lambda p: h5py.File(p / "a.h5", "w").create_dataset("x", data=1)
    and p / "a.h5",
    "that the ismrmrd package rejects": lambda p: written(
        p / "a.h5", lines_of(K[0]), header().replace("<encodedSpace>", "<encodedSpaces>")
    ),
    "1 NaN": lambda p: fastmri(p / "a.h5", with_nan(K)),
    "no sampled line": lambda p: written(p / "a.h5", NOISE_ONLY),
    "no sampled line; expected one readout": lambda p: fastmri(p / "a.h5", 0 * K),
    "a mask of shape": lambda p: fastmri(p / "a.h5", K, mask=np.ones(5)),
    "lines .* expected within 6 x 1": lambda p: written(
        p / "a.h5", lines_of(K[0]), header(centre=0)
    ),
    "readouts of .1, 2. coils": lambda p: written(
        p / "a.h5", [*lines_of(K[0]), *lines_of(K[0][:1])]
    ),
    "without a trajectory": lambda p: written(p / "a.h5", lines_of(K[0]), header("radial")),
    "1/m or rad/m": lambda p: written(
        p / "a.h5", [acquisition(random(2, 16), WRONG_UNIT)], header("radial", shown=(8, 8, 1))
    ),
    "images of 16 to 32 samples": lambda p: written(
        p / "a.h5",
        [acquisition(random(2, 16), 0.01 * WRONG_UNIT, repetition=r) for r in (0, 1, 1)],
        header("spiral", shown=(8, 8, 1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_a_bad_file_is_one_clear_error(tmp_path, said):
    path = REFUSED[said](tmp_path)
    with pytest.raises(InputError, match=said) as error:
        read_raw(path)
    assert len(error.value.problems) == 1 and str(path) in str(error.value)


def test_raw_data_that_does_not_fit_is_refused():
    y, mask = random(COILS, NX, NY), np.ones((NX, NY), np.float32)
    good = RawData(y, (NX, NY), (16.0, 18.0), mask=mask)
    with pytest.raises(InputError, match=r"a mask of shape \(8, 5\)"):
        replace(good, mask=mask[:, :5])
    with pytest.raises(InputError, match="sensitivities of 3 coils"):
        good.encoding(np.ones((3, NX, NY)))
    with pytest.raises(InputError, match="no noise scan"):
        good.whitened()
    with pytest.raises(InputError, match="no sampled line of repetition 1"):
        more = np.stack([mask, 0 * mask])
        replace(good, y=np.stack([y, y]), mask=more, series=("repetition",))
    with pytest.raises(InputError, match="axis 'slice'"):
        good.select(slice=0)


def test_the_radial_brain_is_a_brain():
    """Where `make data` has brought it: CG-SENSE of 64 spokes predicts samples of one left out."""
    if not BRAIN.is_file():
        pytest.skip("no radial brain: `make data` fetches it")
    from mrphys.coils import compression, espirit

    raw = read_raw(BRAIN)
    assert (raw.coils, raw.readouts, raw.readout, raw.shape) == (32, 64, 512, (256, 256))
    few = raw.mixed(compression(raw.y, 6))
    coils = espirit(few.calibration(20), few.shape, kernel=5)
    kept = few.lines(np.delete(np.arange(64), 32))
    x = reconstruct(
        kept.encoding(coils, tolerance=1e-4),
        kept.y,
        regularisation=0.0,
        iterations=6,
        tolerance=0.0,
    ).image
    left = few.lines(np.array([32]))
    predicted = left.encoding(coils, tolerance=1e-4)(x)
    error = np.linalg.norm(predicted - left.y) / np.linalg.norm(left.y)
    assert error < 0.25
