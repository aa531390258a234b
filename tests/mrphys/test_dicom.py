import gzip
import warnings
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, generate_uid

from mrphys.errors import InputError
from mrphys.io.dicom import read_dicom
from mrphys.protocols import likely_model
from tests.mrphys.dicom_files import (
    AFFINE,
    COLUMN,
    CORNER,
    GAP,
    NORMAL,
    ROW,
    SPACING,
    classic,
    enhanced,
    item,
    siemens,
    write,
)

DATA = np.random.default_rng(0).integers(0, 4000, (5, 4, 3, 3))
ECHOES = [
    {"EchoTime": te, "RepetitionTime": 2000.0, "FlipAngle": 90.0} for te in (10.0, 20.0, 30.0)
]


def test_slices_find_their_place_whatever_the_files_are_called(tmp_path):
    def scaled(dataset, *_):
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5, 7.0

    classic(tmp_path, DATA, ECHOES, scaled)
    (tmp_path / "notes.txt").write_text("not an image")
    series = read_dicom([tmp_path])
    np.testing.assert_allclose(series.images.data, 0.5 * DATA + 7)
    np.testing.assert_allclose(series.images.affine, AFFINE, atol=1e-9)
    np.testing.assert_allclose(series.each("EchoTime"), [0.01, 0.02, 0.03])
    assert series.one("RepetitionTime") == 2.0 and series.one("FlipAngle") == 90.0
    assert series.about is not None and series.about["MagneticFieldStrength"] == 3.0
    assert (series.name, likely_model(series)) == ("a-scan", "mese")
    assert len(series.files) == 9


def test_enhanced_files_and_their_directions(tmp_path):
    weights = [(0.0, None), (800.0, [0.0, 0.6, 0.8]), (800.0, [1.0, 0.0, 0.0])]
    groups = []
    for b, axis in weights:
        diffusion = item(DiffusionBValue=b)
        if axis is not None:
            diffusion.DiffusionGradientDirectionSequence = [item(DiffusionGradientOrientation=axis)]
        groups.append(
            {
                "MRDiffusionSequence": diffusion,
                "MREchoSequence": item(EffectiveEchoTime=70.0),
                "MRTimingAndRelatedParametersSequence": item(RepetitionTime=4000.0, FlipAngle=90.0),
            }
        )
    enhanced(tmp_path / "one.dcm", DATA, groups)
    series = read_dicom([tmp_path / "one.dcm"])
    np.testing.assert_allclose(series.images.data, 2.0 * DATA - 3)
    np.testing.assert_allclose(series.images.affine, AFFINE, atol=1e-9)
    np.testing.assert_array_equal(series.each("DiffusionBValue"), [0, 800, 800])
    np.testing.assert_allclose(series.directions, [[0, 0, 0], [0, -0.6, 0.8], [-1, 0, 0]])
    assert series.one("EchoTime") == 0.07 and likely_model(series) == "adc"


def _siemens(dataset: Dataset, b: float) -> None:
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", str(int(b)))
    if b:
        block.add_new(0x0E, "FD", [0.0, 0.6, 0.8])


def _siemens_of_unknown_type(dataset: Dataset, b: float) -> None:
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "UN", f"{b:g} ".encode())
    if b:
        block.add_new(0x0E, "UN", np.array([0.0, 0.6, 0.8]).tobytes())


def _ge(dataset: Dataset, b: float) -> None:
    block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
    block.add_new(0x39, "IS", [str(int(1e9 + b)), "8", "0", "0"])


def _ge_along(encoded: str, f: float, p: float, s: float):
    def mark(dataset: Dataset, b: float) -> None:
        _ge(dataset, 1000.0)  # of all images, weighted or not, as before software 29
        dataset.InPlanePhaseEncodingDirection = encoded
        block = dataset.private_block(0x0019, "GEMS_ACQU_01", create=True)
        scale = np.sqrt(b / 1000.0)
        for element, part in zip((0xBB, 0xBC, 0xBD), (f, p, s), strict=True):
            block.add_new(element, "DS", f"{scale * part:.6f}")

    return mark


def _philips(dataset: Dataset, b: float) -> None:
    dataset.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x03, "FL", b)
    block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    for element, part in zip((0xB0, 0xB1, 0xB2), (0.0, 0.6, 0.8), strict=True):
        block.add_new(element, "FL", part if b else 0.0)
    block.add_new(0x0E, "FL", 0.25)
    dataset.RescaleSlope, dataset.RescaleIntercept = 2.0, 6.0


# LPS (0, 0.6, 0.8) by the rows, columns and normal of these images, turned by 20° about the rows.
ALONG = (0.0, 0.6 * COLUMN[1] + 0.8 * COLUMN[2], 0.6 * NORMAL[1] + 0.8 * NORMAL[2])
GE = [
    _ge_along("COL", ALONG[0], ALONG[1], -ALONG[2]),
    _ge_along("ROW", -ALONG[1], ALONG[0], -ALONG[2]),
]


@pytest.mark.parametrize("vendor", [_siemens, _siemens_of_unknown_type, _ge, *GE, _philips])
def test_diffusion_by_vendor(tmp_path, vendor):
    b = [0.0, 500.0, 1000.0]
    classic(tmp_path, DATA, [{}] * 3, lambda dataset, readout, _: vendor(dataset, b[readout]))
    series = read_dicom([tmp_path])
    np.testing.assert_allclose(series.each("DiffusionBValue"), b)
    if vendor is _ge:
        assert series.directions is None
    else:
        expected = [[0, 0, 0], [0, -0.6, 0.8], [0, -0.6, 0.8]]
        np.testing.assert_allclose(series.directions, expected, atol=1e-6)
    # Philips: (pixel * slope + intercept) / (slope * scale)
    scaled = (DATA * 2 + 6) / (2 * 0.25) if vendor is _philips else DATA
    np.testing.assert_allclose(series.images.data, scaled)


def test_what_is_made_of_several_directions_is_left_out(tmp_path):
    weights = [
        ("NONE", 0.0, None),
        ("DIRECTIONAL", 800.0, [0.0, 0.0, 1.0]),
        ("ISOTROPIC", 800.0, None),
    ]
    groups = []
    for kind, b, axis in weights:
        diffusion = item(DiffusionBValue=b, DiffusionDirectionality=kind)
        if axis is not None:
            diffusion.DiffusionGradientDirectionSequence = [item(DiffusionGradientOrientation=axis)]
        groups.append({"MRDiffusionSequence": diffusion})
    enhanced(tmp_path / "one.dcm", DATA, groups)
    series = read_dicom([tmp_path])
    np.testing.assert_array_equal(series.settings["DiffusionBValue"], [0, 800])
    np.testing.assert_array_equal(series.directions, [[0, 0, 0], [0, 0, 1]])
    enhanced(tmp_path / "one.dcm", DATA[..., :2], [groups[0], groups[2]])
    series = read_dicom([tmp_path])
    np.testing.assert_array_equal(series.settings["DiffusionBValue"], [0, 800])
    assert series.directions is None


def test_philips_keeps_its_own_elements_in_groups_of_its_own(tmp_path):
    own = [Dataset() for _ in range(3)]
    for group, b in zip(own, (0.0, 500.0, 1000.0), strict=True):
        _philips(group, b)
        del group.RescaleSlope, group.RescaleIntercept
    echo = {"MREchoSequence": item(EffectiveEchoTime=70.0)}
    path = enhanced(tmp_path / "one.dcm", DATA, [echo] * 3)
    dataset = dcmread(path)
    for i, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        block = frame.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
        block.add_new(0x0F, "SQ", [own[i // DATA.shape[2]]])
    write(dataset, path)
    series = read_dicom([path])
    np.testing.assert_array_equal(series.settings["DiffusionBValue"], [0, 500, 1000])
    np.testing.assert_allclose(np.asarray(series.directions)[1:], [[0, -0.6, 0.8]] * 2, atol=1e-6)
    np.testing.assert_allclose(series.images.data, (2.0 * DATA - 3) / (2.0 * 0.25))


@pytest.mark.parametrize("sign", [1, -1])
def test_mosaics_come_apart(tmp_path, sign):
    """Their slices may run against the normal of rows and columns."""
    b = (0.0, 700.0, 1000.0)
    sheet = np.zeros((DATA.shape[0] * 2, DATA.shape[1] * 2, 1, 3), int)
    for k in range(3):
        at = np.array([k % 2, k // 2]) * DATA.shape[:2]
        stack = DATA[:, :, ::sign][:, :, k]
        sheet[at[0] : at[0] + DATA.shape[0], at[1] : at[1] + DATA.shape[1], 0] = stack
    half = np.array(DATA.shape[:2]) / 2  # from the corner of the sheet to that of a tile
    first = CORNER if sign > 0 else CORNER + 2 * GAP * NORMAL

    def mark(dataset, readout, _):
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE", "MOSAIC"]
        dataset.SpacingBetweenSlices = GAP
        corner = first - half[0] * SPACING[1] * ROW - half[1] * SPACING[0] * COLUMN
        dataset.ImagePositionPatient = corner.tolist()
        weighting = {"B_value": [b[readout]], "DiffusionGradientDirection": [0.0, 0.6, 0.8]}
        numbers = {"NumberOfImagesInMosaic": [3], "SliceNormalVector": [*(sign * NORMAL)]}
        siemens(dataset, **numbers, **weighting)

    classic(tmp_path, sheet, [{}] * 3, mark)
    series = read_dicom([tmp_path])
    np.testing.assert_array_equal(series.images.data, DATA)
    np.testing.assert_allclose(series.images.affine, AFFINE, atol=1e-9)
    np.testing.assert_array_equal(series.settings["DiffusionBValue"], b)
    np.testing.assert_allclose(np.asarray(series.directions)[1:], [[0, -0.6, 0.8]] * 2)


FILES = Path(nibabel.__file__).parent / "nicom" / "tests" / "data"


@pytest.mark.skipif(not FILES.exists(), reason="nibabel without its test files")
def test_a_scanners_mosaics_lie_where_nibabel_has_them(tmp_path):
    """The private header of a real scan alone: its 0019 elements are removed."""
    for b in (0, 1000):
        content = gzip.decompress((FILES / f"siemens_dwi_{b}.dcm.gz").read_bytes())
        dataset = dcmread(BytesIO(content))
        for element in list(dataset.group_dataset(0x0019)):
            del dataset[element.tag]
        dataset.save_as(tmp_path / f"{b}.dcm")
    series = read_dicom([tmp_path])
    assert series.images.data.shape == (128, 128, 48, 2)
    np.testing.assert_array_equal(series.settings["DiffusionBValue"], [0, 1000])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental
        from nibabel.nicom.dicomwrappers import wrapper_from_data

        wrapper = wrapper_from_data(dataset)
    place = np.diag([-1.0, -1, 1, 1]) @ wrapper.affine[:, [1, 0, 2, 3]]
    np.testing.assert_allclose(series.images.affine, place, atol=1e-4)
    world = np.diag([-1.0, -1, 1]) @ wrapper.rotation_matrix @ wrapper.b_vector  # by the b-matrix
    assert abs(np.asarray(series.directions)[1] @ world) > 0.9999


def test_scans_of_several_flip_angles_are_one_series(tmp_path):
    for i, flip in enumerate((15.0, 5.0)):
        uid = generate_uid(entropy_srcs=[str(flip)])
        one = [{"FlipAngle": flip, "RepetitionTime": 8.0, "SeriesInstanceUID": uid}]
        classic(tmp_path / f"{i}", DATA[..., i : i + 1], one)
    series = read_dicom([tmp_path])
    order = np.argsort(series.each("FlipAngle"))
    np.testing.assert_array_equal(series.images.data[..., order], DATA[..., [1, 0]])
    assert likely_model(series) == "vfa"


def test_repeated_images_are_told_apart_by_time(tmp_path):
    stamps = ["100000.5", "100030.5", "100100.5"]
    classic(tmp_path, DATA, [{"AcquisitionTime": stamp, "FlipAngle": 20.0} for stamp in stamps])
    series = read_dicom([tmp_path])
    np.testing.assert_array_equal(series.images.data, DATA)
    np.testing.assert_allclose(series.settings["VolumeTiming"], [0, 30, 60])


def test_phase_makes_images_complex(tmp_path):
    kinds = {"M": "M", "P": "P"}
    phase = np.random.default_rng(1).integers(0, 4096, DATA.shape)
    for kind, data in zip(kinds, (DATA, phase), strict=True):
        uid = generate_uid(entropy_srcs=[kind])

        def mark(dataset, *_, kind=kind, uid=uid):
            dataset.ImageType, dataset.SeriesInstanceUID = ["ORIGINAL", "PRIMARY", kind], uid

        classic(tmp_path / kind, data, ECHOES, mark)
    x = read_dicom([tmp_path]).images.data
    expected = DATA * np.exp(2j * np.pi * phase / 4096)
    np.testing.assert_allclose(x, expected, atol=1e-2)


def test_computed_maps_are_left_out(tmp_path):
    def computed(dataset, readout, _):
        if readout == 2:
            dataset.ImageType = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]

    classic(tmp_path, DATA, ECHOES, computed)
    np.testing.assert_array_equal(read_dicom([tmp_path]).images.data, DATA[..., :2])


def _without(readout_and_slice):
    def remove(folder):
        def mark(dataset, *at):
            dataset.SeriesDescription = "gone" if at in readout_and_slice else "a scan"

        classic(folder, DATA, ECHOES, mark)
        for path in folder.iterdir():
            if b"gone" in path.read_bytes():
                path.unlink()

    return remove


def _changed(change):
    return lambda folder: classic(folder, DATA, ECHOES, change)


def _mixed(dataset, readout, _):
    if readout == 2:
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        dataset.SeriesDescription = "localiser"


def _shifted(dataset, readout, _):
    if readout == 2:
        dataset.ImagePositionPatient = (np.array(dataset.ImagePositionPatient) + 3 * ROW).tolist()


def _twice(dataset, readout, _):
    dataset.EchoTime = 10.0
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[str(readout)])


def _compressed(dataset, *_):
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51 no stream"])
    dataset["PixelData"].is_undefined_length = True


def _cut(folder):
    classic(folder, DATA, ECHOES)
    path = folder / "IM0000"
    path.write_bytes(path.read_bytes()[:-20])


def _cut_in_the_header(folder):
    classic(folder, DATA, ECHOES)
    path = folder / "IM0000"
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_without({(1, 2)}), r"1 of 3 slices missing \(EchoTime 0.02.*incomplete export"),
        (_without({(0, 1), (1, 1), (2, 1)}), None),
        (_changed(_mixed), "several geometries.*localiser"),
        (_changed(_shifted), "mm beside the others"),
        (_changed(_twice), "3 series with the same settings.*repeated scan"),
        (_changed(_compressed), "compressed as JPEG 2000.*decoder"),
        (_cut, "IM0000: found pixels that cannot be read.*interrupted copy"),
        (_cut_in_the_header, "IM0000.*interrupted copy"),
        (_changed(lambda d, *_: setattr(d, "Modality", "CT")), "modality CT"),
        (_changed(lambda d, *_: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"])),
         "taken apart: no SliceNormalVector.*private header"),
        (_changed(lambda d, *_: delattr(d, "ImagePositionPatient")), "without its position"),
        (lambda folder: folder.mkdir(exist_ok=True), "no DICOM file"),
    ],
)  # fmt: skip
def test_bad_folders_are_refused(tmp_path, make, says):
    make(tmp_path)
    if says is None:  # a middle slice missing everywhere: two slices, twice as far apart
        np.testing.assert_allclose(read_dicom([tmp_path]).images.affine[:3, 2], 2 * AFFINE[:3, 2])
        return
    with pytest.raises(InputError, match=f"(?s){says}"):
        read_dicom([tmp_path])


def test_slices_unevenly_spaced(tmp_path):
    def apart(dataset, _, k):
        if k == 2:
            place = np.array(dataset.ImagePositionPatient) + 2.0 * NORMAL
            dataset.ImagePositionPatient = place.tolist()

    classic(tmp_path, DATA, ECHOES, apart)
    with pytest.raises(InputError, match=r"4 to 6 mm apart.*missing"):
        read_dicom([tmp_path])
