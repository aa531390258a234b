"""What `check` says of damaged patients: one clear problem each, and nothing of sound ones."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from mrphys.errors import InputError, Problem
from mrphys.volume import Volume
from oncology.cohort import Patient, Visit, read_patient
from oncology.likeness import resolution, shift_mm
from oncology.quality import check, require
from oncology.schedule import Treatment
from tests.oncology.patient_folders import (
    AFFINE,
    SHAPE,
    image_path,
    radius_mm,
    rewrite,
    rewrite_table,
    scan,
    synthetic_folder,
    synthetic_patient,
)


def only_error(folder: Path | Patient) -> Problem:
    report = check(folder)
    assert not report.ok
    (problem,) = report.errors
    return problem


def only_warning(folder: Path | Patient) -> Problem:
    report = check(folder)
    assert report.ok, str(report)
    (problem,) = report.warnings
    return problem


@pytest.mark.parametrize("maps", [True, False])
def test_a_sound_patient_has_no_problem(tmp_path, maps):
    report = check(synthetic_folder(tmp_path, synthetic_patient(maps=maps)))
    assert report.ok and report.problems == () and str(report) == "no problem found"


def set_first(value: float):
    """Put a number into one voxel of the tumour's middle."""

    def change(data: np.ndarray) -> np.ndarray:
        data[np.unravel_index(radius_mm().argmin(), SHAPE)] = value
        return data

    return change


BAD_IMAGES = {
    "empty mask": ("tumor_labels", np.zeros_like, "an empty mask", "failed"),
    "mask of NaN": ("tumor_labels", set_first(np.nan), "NaN", "a map instead of a mask"),
    "ADC of NaN": ("adc_mm2_per_s", set_first(np.nan), "NaN or infinity in 1 voxels", "blanked"),
    "infinite ADC": ("adc_mm2_per_s", set_first(np.inf), "NaN or infinity in 1 voxels", "blanked"),
    "negative ADC": ("adc_mm2_per_s", set_first(-1e-4), "1 values outside", "noise"),
    "ADC in 1e-6": ("adc_mm2_per_s", lambda adc: adc * 1e6, "in the tumour", "multiply by 1e-6"),
    "ADC in 1e-3": ("adc_mm2_per_s", lambda adc: adc * 1e3, "in the tumour", "multiply by 1e-3"),
    "ADC in SI": ("adc_mm2_per_s", lambda adc: adc * 1e-6, "in the tumour", "multiply by 1e6"),
    "other grid": ("adc_mm2_per_s", lambda adc: adc[:-1], "(15, 14, 12) voxels", "not resampled"),
    "no tissue": ("tissue", np.zeros_like, "an empty mask", "another file"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_a_bad_image_is_one_error_with_its_file_and_cause(tmp_path, case):
    image, change, found, cause = BAD_IMAGES[case]
    folder = synthetic_folder(tmp_path)
    path = image_path(folder, "ses-02", image)
    rewrite(path, change)
    problem = only_error(folder)
    assert problem.where == str(path)
    assert found in problem.found and cause in problem.likely_cause


@pytest.mark.parametrize(
    ("image", "value", "found"),
    [
        ("cellularity", np.nan, "NaN"),
        ("cellularity", 90.0, "to 90"),
        ("drug_delivery", -1.0, "from -1"),
        ("white_matter", 1.5, "to 1.5"),
        ("dose_gy", 6000.0, "to 6000"),
        ("adc_sd_mm2_per_s", -1e-5, "from -1e-05"),
        ("adc_sd_mm2_per_s", np.nan, "NaN"),
    ],
)
def test_numbers_no_map_can_have(tmp_path, image, value, found):
    patient = synthetic_patient()
    data = set_first(value)(np.full(SHAPE, 0.5, np.float32))
    first = dataclasses.replace(patient.visits[0], **{image: Volume(data, AFFINE)})
    patient = dataclasses.replace(patient, visits=(first, *patient.visits[1:]))
    problem = only_error(patient)
    assert problem.where == f"sub-01, ses-01, {image}" and found in problem.found


def test_a_dose_beside_the_tumour_is_a_warning_and_a_cavity_in_it_an_error():
    patient = synthetic_patient()

    def with_image(**images):
        first = dataclasses.replace(patient.visits[0], **images)
        return dataclasses.replace(patient, visits=(first, *patient.visits[1:]))

    tumour = np.asarray(patient.visits[0].tumor.data)
    planned = np.where(tumour, 60.0, 20.0).astype(np.float32)
    assert not check(with_image(dose_gy=Volume(planned, AFFINE))).problems
    beside = Volume(np.where(tumour, 1.0, 60.0).astype(np.float32), AFFINE)
    problem = only_warning(with_image(dose_gy=beside))
    assert problem.found.startswith("2%") and "frame of reference" in problem.likely_cause
    nothing = Volume(np.zeros(SHAPE, np.float32), AFFINE)
    assert "no dose anywhere" in only_error(with_image(dose_gy=nothing)).found
    cavity = Volume(tumour.astype(np.uint8), AFFINE)
    assert "resection cavity" in only_error(with_image(cavity=cavity)).found


def test_an_infinite_sd_says_that_an_adc_is_not_determined():
    patient = synthetic_patient()
    sd = set_first(np.inf)(np.full(SHAPE, 1e-5, np.float32))
    first = dataclasses.replace(patient.visits[0], adc_sd_mm2_per_s=Volume(sd, AFFINE))
    assert not check(dataclasses.replace(patient, visits=(first, *patient.visits[1:]))).problems


def test_a_tensor_that_is_repaired_is_a_warning_and_many_are_an_error():
    patient = synthetic_patient()
    tensor = np.tile(np.array([1.5, 0.6, 0.5, 0.1, 0.0, 0.0]) * 1e-3, (*SHAPE, 1))

    def measured(channels):
        image = Volume(channels.astype(np.float32), AFFINE)
        first = dataclasses.replace(patient.visits[0], tensor_mm2_per_s=image)
        return dataclasses.replace(patient, visits=(first, *patient.visits[1:]))

    assert not check(measured(tensor)).problems
    noisy = tensor.copy()
    noisy[np.unravel_index(radius_mm().argmin(), SHAPE)][2] = -1e-4
    problem = only_warning(measured(noisy))
    assert "tensor" in problem.where and problem.found.startswith("1 of ")
    shuffled = tensor[..., [3, 4, 5, 0, 1, 2]]
    assert "another order" in only_error(measured(shuffled)).likely_cause


def test_an_unknown_adc_outside_the_tissue_is_a_warning(tmp_path):
    folder = synthetic_folder(tmp_path)
    blank = radius_mm() > 14

    def blanked(adc: np.ndarray) -> np.ndarray:
        return np.where(blank, np.nan, adc)

    rewrite(image_path(folder, "ses-01", "adc_mm2_per_s"), blanked)
    assert "0 of them in tissue" in only_warning(folder).found


def test_a_cut_file_and_a_bad_table_are_reported_together_with_bad_values(tmp_path):
    folder = synthetic_folder(tmp_path)
    path = image_path(folder, "ses-01", "tumor_labels")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    rewrite(image_path(folder, "ses-02", "adc_mm2_per_s"), lambda adc: -adc)
    rewrite_table(folder, "sessions", "session_id\tday", "ses-01\t5", "ses-02\t5")
    errors = check(folder).errors
    assert {Path(error.where.split(",")[0]).name for error in errors} == {
        "sub-01_sessions.tsv",
        "sub-01_ses-01_label-tumor_mask.nii.gz",
        "sub-01_ses-02_ADC.nii.gz",
    }


def test_one_visit_only(tmp_path):
    folder = synthetic_folder(tmp_path, synthetic_patient(days=(0.0,)))
    problem = only_error(folder)
    assert problem.found == "1 visit with images" and "at least 2" in problem.expected


def test_a_needed_visit_without_images(tmp_path):
    patient = read_patient(synthetic_folder(tmp_path))
    assert require(patient, ["1", "2"]).problems == ()
    with pytest.raises(InputError) as raised:
        require(patient, ["1", "3"])
    (problem,) = raised.value.problems
    assert problem.where == "sub-01, ses-03" and problem.found == "no images"


def test_one_session_does_not_calibrate_a_model():
    with pytest.raises(InputError, match=r"1 visit \(ses-01\); expected at least 2"):
        require(synthetic_patient(), ["1", "01"])
    assert require(synthetic_patient(), ["1"], at_least=1).ok


def test_only_the_visits_needed_can_forbid_a_forecast():
    patient = synthetic_patient(days=(0.0, 30.0, 60.0), planned=())
    empty = patient.visits[2].tumor.with_data(np.zeros(SHAPE, np.uint8))
    third = dataclasses.replace(patient.visits[2], tumor_labels=empty)
    patient = dataclasses.replace(patient, visits=(*patient.visits[:2], third))
    assert require(patient, ["1", "2"]).ok
    with pytest.raises(InputError, match="an empty mask"):
        require(patient, ["1", "2", "3"])


def test_a_patient_in_memory_may_not_mix_grids():
    patient = synthetic_patient()
    other = Volume(np.ones((3, 3, 3), np.float32), AFFINE)
    first = dataclasses.replace(patient.visits[0], adc_mm2_per_s=other)
    patient = dataclasses.replace(patient, visits=(first, *patient.visits[1:]))
    assert "(3, 3, 3) voxels" in only_error(patient).found


def test_a_missed_visit(tmp_path):
    patient = synthetic_patient(days=(0.0, 30.0), planned=())
    missed = Visit("ses-01b", 10.0)
    patient = dataclasses.replace(patient, visits=(patient.visits[0], missed, patient.visits[1]))
    assert "day 10, before the last scan" in only_warning(synthetic_folder(tmp_path, patient)).found


def test_treatments_that_look_wrong():
    treatments = (
        Treatment(-3.0, "chemotherapy", 1.0, "relative", "temozolomide"),
        Treatment(5.0, "radiotherapy", 60.0, "Gy"),
    )
    early, strong = check(synthetic_patient(treatments=treatments)).warnings
    assert "before the first scan" in early.found
    assert "60 Gy in one fraction" in strong.found and "total dose" in strong.likely_cause


ODD_MASKS = {
    "one voxel": (lambda mask: set_first(1)(0 * mask), "a mask of one voxel"),
    "grey": (lambda mask: 0.7 * mask, "values such as 0.7"),
    "hollow": (lambda mask: mask * (radius_mm() > 4), "25% of the outlined volume hollow"),
}


@pytest.mark.parametrize("case", ODD_MASKS)
def test_odd_masks(tmp_path, case):
    change, found = ODD_MASKS[case]
    folder = synthetic_folder(tmp_path, synthetic_patient(days=(0.0, 300.0), planned=()))
    rewrite(image_path(folder, "ses-01", "tumor_labels"), change)
    assert found in only_warning(folder).found


def test_a_mask_in_many_pieces():
    scattered = np.zeros(SHAPE, np.uint8)
    scattered[4:12:3, 4:12:3, 5] = 1
    patient = synthetic_patient(maps=False, days=(0.0, 300.0))
    first = dataclasses.replace(patient.visits[0], tumor_labels=Volume(scattered, AFFINE))
    patient = dataclasses.replace(patient, visits=(first, patient.visits[1]))
    assert "9 part(s)" in only_warning(patient).found


def test_a_tumour_outside_the_tissue(tmp_path):
    folder = synthetic_folder(tmp_path)
    corner = radius_mm(centre_mm=(0.0, 0.0, 0.0)) < 5
    rewrite(image_path(folder, "ses-02", "tissue"), lambda tissue: 0 * tissue + corner)
    problem = only_error(folder)
    assert problem.where == str(image_path(folder, "ses-02", "tumor_labels"))
    assert problem.found == "100% of the tumour outside the tissue mask"


def test_a_tumour_partly_outside_the_tissue(tmp_path):
    folder = synthetic_folder(tmp_path)

    def half(tissue: np.ndarray) -> np.ndarray:
        tissue[: SHAPE[0] // 2] = 0
        return tissue

    rewrite(image_path(folder, "ses-01", "tissue"), half)
    assert "of the tumour outside the tissue mask" in only_warning(folder).found


def test_diffusion_beyond_free_water(tmp_path):
    folder = synthetic_folder(tmp_path)
    rewrite(image_path(folder, "ses-01", "adc_mm2_per_s"), lambda adc: 0 * adc + 4e-3)
    problem = only_warning(folder)
    assert problem.found == "100% of the tumour above 0.0032 mm²/s"


def test_visits_that_do_not_overlap():
    patient = synthetic_patient(maps=False)
    elsewhere = (radius_mm(centre_mm=(4.0, 4.0, 6.0)) < 4.0).astype(np.uint8)
    second = dataclasses.replace(patient.visits[1], tumor_labels=Volume(elsewhere, AFFINE))
    patient = dataclasses.replace(patient, visits=(patient.visits[0], second))
    apart_mm = np.linalg.norm([15.0 - 4.0, 13.0 - 4.0, 16.5 - 6.0])
    assert f"without a common voxel, {apart_mm:.3g} mm apart" in only_warning(patient).found


def test_a_tumour_that_moves_by_more_than_its_radius():
    patient = synthetic_patient((0.0, 300.0), (5.0, 5.0), planned=(), maps=False)
    moved = np.roll(patient.visits[1].tumor.data, 4, axis=0).astype(np.uint8)
    second = dataclasses.replace(patient.visits[1], tumor_labels=Volume(moved, AFFINE))
    patient = dataclasses.replace(patient, visits=(patient.visits[0], second))
    assert only_warning(patient).found == "the tumour's centre moved by 8 mm"


@pytest.mark.parametrize(
    ("spreads_mm", "treated", "found"),
    [((5.0, 6.5), False, "doubles in"), ((6.5, 5.0), False, "halves"), ((6.5, 5.0), True, None)],
)
def test_volumes_that_change_too_fast(spreads_mm, treated, found):
    doses = (Treatment(1.0, "radiotherapy", 2.0, "Gy"),) if treated else ()
    patient = synthetic_patient((0.0, 4.0), spreads_mm, treatments=doses)
    if found is None:
        assert check(patient).problems == ()
        return
    before, after = (visit.tumor.data.sum() for visit in patient.scanned)
    days = 4 / abs(np.log2(after / before))
    assert f"{found}" in only_warning(patient).found
    assert f"in {days:.2g} days" in only_warning(patient).found


def textured(seed: int, shape: tuple[int, int, int], smooth_voxels: float = 1.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, smooth_voxels, mode="wrap")


@pytest.mark.parametrize("shape", [(40, 36, 24), (48, 50, 1)])
def test_a_known_shift_is_found(shape):
    """The shifted image is made in Fourier space, exactly, and cropped from a larger one."""
    wanted = np.array([2.4, -1.7, 0.6]) * (np.array(shape) > 1)
    margin = [8 if size > 1 else 0 for size in shape]
    large = textured(1, tuple(size + 2 * m for size, m in zip(shape, margin, strict=True)), 1.5)
    moved = np.fft.ifftn(ndimage.fourier_shift(np.fft.fftn(large), wanted)).real
    window = tuple(slice(m, m + size) for size, m in zip(shape, margin, strict=True))
    shift, height = shift_mm(Volume(large[window], AFFINE), Volume(moved[window], AFFINE))
    np.testing.assert_allclose(shift / AFFINE.diagonal()[:3], wanted, atol=0.25)
    assert height > 12


def test_unrelated_images_have_no_shift():
    shape = (40, 36, 24)
    images = (Volume(textured(seed, shape), AFFINE) for seed in (1, 2))
    assert shift_mm(*images)[1] < 12


def with_anatomy(first: np.ndarray, second: np.ndarray) -> Patient:
    """A patient with these T1-weighted images and a mask in their middle."""
    middle = np.linalg.norm(np.moveaxis(np.indices(first.shape), 0, -1) - 20, axis=-1) < 4
    visits = [
        dataclasses.replace(
            scan(f"ses-{number:02d}", 30.0 * number, 5.0, maps=False),
            tumor_labels=Volume(middle.astype(np.uint8), AFFINE),
            anatomy={"T1w": Volume(image, AFFINE)},
        )
        for number, image in enumerate((first, second), start=1)
    ]
    return Patient("sub-01", tuple(visits))


def test_rough_alignment_is_a_warning():
    image = textured(3, (48, 40, 36))
    assert check(with_anatomy(image, image)).problems == ()
    moved = np.roll(image, (0, 3, 0), axis=(0, 1, 2))
    warning = only_warning(with_anatomy(image, moved))
    assert "it is 3.0" in warning.expected and "roughly aligned" in warning.likely_cause


def test_a_scan_of_lower_resolution_is_a_warning():
    image = textured(4, (80, 72, 40), 0.6)
    blurred = ndimage.gaussian_filter(image, (1.0, 0.0, 0.0), mode="wrap")
    warning = only_warning(with_anatomy(image, blurred))
    assert "array axis x" in warning.found
    assert warning.likely_cause == "ses-02 acquired at a lower resolution"


def test_a_scan_interpolated_from_another_matrix_is_a_warning():
    """64 samples stretched over 80 leave a trace of 64/80 cycles per voxel, which folds to 0.2."""
    fine = textured(5, (64, 64, 40), 0.5)
    zoom = (80 / 64, 80 / 64, 1)
    stretched = np.asarray(ndimage.zoom(fine, zoom, order=1, grid_mode=True, mode="grid-wrap"))
    axes = resolution(Volume(stretched, AFFINE))
    assert set(axes) == {0, 1}
    for axis in axes.values():
        assert axis.trace > 15
        assert axis.trace_frequency == pytest.approx(0.2, abs=0.02)
    grid = textured(5, (80, 80, 40), 0.5)
    assert all(axis.trace < 8 for axis in resolution(Volume(grid, AFFINE)).values())
    patient = with_anatomy(grid, stretched)
    causes = [warning.likely_cause for warning in check(patient).warnings]
    assert causes == ["ses-02 acquired at a lower resolution than its grid suggests"]
