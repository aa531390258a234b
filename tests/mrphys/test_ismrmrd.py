"""Raw data written, read by the format's own library, and brought back to an image."""

import jax
import numpy as np
import pytest

from mrphys import InputError
from mrphys.fourier import adjoint, density_weights
from mrphys.io.ismrmrd import write_ismrmrd
from mrphys.io.pulseq import read_pulseq
from tests.laws import check_gradient
from tests.mrphys.test_pulseq import spin_echo, written

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


def test_weights_of_samples_in_one_cell():
    k = np.array([[0.0, 0.0], [0.0001, 0.0], [0.005, 0.0]])
    np.testing.assert_allclose(density_weights(k, (200.0, 200.0)), [0.5, 0.5, 1.0])
