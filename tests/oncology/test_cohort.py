"""The patient folder: round trip, names, grids, and every way in which it can be wrong."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mrphys.errors import InputError
from mrphys.volume import Volume
from oncology.cohort import Patient, read_patient, write_patient
from oncology.schedule import Treatment
from tests.oncology.patient_folders import (
    AFFINE,
    SHAPE,
    image_path,
    rewrite,
    rewrite_table,
    synthetic_folder,
    synthetic_patient,
    values,
)

TREATMENTS = (
    Treatment(1.0, "chemotherapy", 1.0, "relative", "temozolomide"),
    Treatment(2.5, "radiotherapy", 2.0, "Gy", ""),
)


def only_problem(folder: Path):
    with pytest.raises(InputError) as raised:
        read_patient(folder)
    (problem,) = raised.value.problems
    return problem


def test_a_patient_survives_writing_and_reading(tmp_path):
    patient = synthetic_patient(treatments=TREATMENTS)
    rng = np.random.default_rng(0)

    def image(*channels: int) -> Volume:
        return Volume(rng.random((*SHAPE, *channels)).astype(np.float32), AFFINE)

    first = dataclasses.replace(
        patient.visits[0],
        adc_sd_mm2_per_s=image(),
        cellularity=image(),
        white_matter=image(),
        grey_matter=image(),
        drug_delivery=image(),
        tensor_mm2_per_s=image(6),
        dose_gy=image(),
        pet=image(),
        anatomy={"T1w": image(), "ce-GADOLINIUM_T1w": image()},
    )
    patient = dataclasses.replace(patient, visits=(first, *patient.visits[1:]))
    read = read_patient(write_patient(tmp_path / "sub-01", patient, "A note.", "short"))

    assert read.subject == "sub-01"
    assert read.treatments == TREATMENTS
    assert [(v.session, v.day, v.planned) for v in read.visits] == [
        ("ses-01", 0.0, False),
        ("ses-02", 30.0, False),
        ("ses-03", 60.0, True),
    ]
    for written, again in zip(patient.visits, read.visits, strict=True):
        names = [name for name, _, _ in written.images()]
        assert names == [name for name, _, _ in again.images()]
        for (_, _, image_out), (_, _, image_in) in zip(
            written.images(), again.images(), strict=True
        ):
            assert image_in.same_grid(image_out)
            np.testing.assert_array_equal(image_in.data, image_out.data)
    assert len(read.files) == 2 + len(list((tmp_path / "sub-01").glob("*/*/*.nii.gz")))
    assert not read.warnings
    assert [path.name for path in tmp_path.iterdir()] == ["sub-01"]


def test_every_label_above_zero_is_tumour(tmp_path):
    folder = synthetic_folder(tmp_path)

    def labelled(mask: np.ndarray) -> np.ndarray:
        inside = np.flatnonzero(mask)
        mask.flat[inside[:5]], mask.flat[inside[5:9]] = 2, 4
        return mask

    before = np.asarray(read_patient(folder).visit(1).tumor.data)
    rewrite(image_path(folder, "ses-01", "tumor_labels"), labelled)
    visit = read_patient(folder).visit(1)
    assert visit.tumor.data.dtype == bool
    np.testing.assert_array_equal(visit.tumor.data, before)
    assert set(np.unique(values(visit.tumor_labels))) == {0, 1, 2, 4}


@pytest.mark.parametrize("name", ["2", "02", "ses-02", "ses-2", 2])
def test_a_visit_has_short_names(name):
    assert synthetic_patient().visit(name).session == "ses-02"


def test_a_planned_visit_has_no_tumour():
    with pytest.raises(InputError, match="ses-03: found no images"):
        _ = synthetic_patient().visit(3).tumor


def test_an_unknown_visit_is_told_those_there_are():
    with pytest.raises(InputError, match=r"'7'.*ses-01 \(day 0\), ses-02 \(day 30\), ses-03"):
        synthetic_patient().visit("7")


def test_what_does_not_change_comes_from_the_first_visit_that_has_it():
    patient = synthetic_patient()
    bare = dataclasses.replace(patient.visits[0], tissue=None)
    patient = dataclasses.replace(patient, visits=(bare, *patient.visits[1:]))
    assert patient.earliest("tissue") is patient.visits[1].tissue
    assert patient.earliest("white_matter") is None


def test_a_later_visit_moves_to_the_first_grid(tmp_path):
    """A linear ramp in space is exact under trilinear resampling."""
    patient = synthetic_patient()
    shift_mm = np.array([0.7, -0.4, 0.9])
    finer = np.diag([1.0, 1.0, 1.5, 1.0])
    finer[:3, 3] = shift_mm - 6.0
    shape = (48, 44, 36)
    place = np.moveaxis(np.indices(shape), 0, -1) * finer.diagonal()[:3] + finer[:3, 3]
    ramp = 1e-3 + 1e-5 * place.sum(axis=-1)
    centre = np.array([15.0, 13.0, 16.5])
    mask = np.linalg.norm(place - centre, axis=-1) < 7.0
    second = dataclasses.replace(
        patient.visits[1],
        tissue=None,
        tumor_labels=Volume(2 * mask.astype(np.uint8), finer),
        adc_mm2_per_s=Volume(ramp.astype(np.float32), finer),
    )
    patient = dataclasses.replace(patient, visits=(patient.visits[0], second))
    read = read_patient(synthetic_folder(tmp_path, patient))

    visit = read.visit("ses-02")
    grid = read.visit("ses-01").tumor
    assert all(volume.same_grid(grid) for _, _, volume in visit.images())
    target = np.moveaxis(np.indices(SHAPE), 0, -1) * AFFINE.diagonal()[:3]
    expected = 1e-3 + 1e-5 * target.sum(axis=-1)
    np.testing.assert_allclose(values(visit.adc_mm2_per_s), expected, rtol=1e-5)
    assert set(np.unique(values(visit.tumor_labels))) == {0, 2}
    (warning,) = read.warnings
    assert warning.level == "warning"
    assert "ses-02" in warning.where and "1 x 1 x 1.5 mm" in warning.found
    assert "2 x 2 x 3 mm" in warning.expected


def test_the_same_voxels_elsewhere_are_called_a_patient_who_lay_otherwise(tmp_path):
    folder = synthetic_folder(tmp_path, synthetic_patient(maps=False))
    moved = AFFINE.copy()
    moved[0, 3] += 0.1
    rewrite(image_path(folder, "ses-02", "tumor_labels"), lambda mask: mask, moved)
    (warning,) = read_patient(folder).warnings
    assert "lay otherwise" in warning.likely_cause


def test_a_field_of_view_that_misses_the_tissue_is_an_error(tmp_path):
    folder = synthetic_folder(tmp_path)
    away = AFFINE.copy()
    away[:3, 3] = 500.0
    for image in ("tumor_labels", "adc_mm2_per_s", "tissue"):
        rewrite(image_path(folder, "ses-02", image), lambda data: data, away)
    problem = only_problem(folder)
    assert "100.00% of ses-01 is not in view" in problem.found
    assert "scanner frames" in problem.likely_cause


def test_images_of_one_visit_on_different_grids(tmp_path):
    folder = synthetic_folder(tmp_path)
    path = image_path(folder, "ses-01", "adc_mm2_per_s")
    rewrite(path, lambda adc: adc[:-1])
    problem = only_problem(folder)
    assert problem.where == str(path)
    assert "(15, 14, 12) voxels" in problem.found and "(16, 14, 12) voxels" in problem.expected


def test_a_truncated_image(tmp_path):
    folder = synthetic_folder(tmp_path)
    path = image_path(folder, "ses-02", "tumor_labels")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    problem = only_problem(folder)
    assert problem.where == str(path)


def test_images_without_a_tumour_mask(tmp_path):
    folder = synthetic_folder(tmp_path)
    path = image_path(folder, "ses-02", "tumor_labels")
    path.unlink()
    problem = only_problem(folder)
    assert problem.where == str(path) and problem.found == "no such file"


def test_a_tensor_needs_six_channels(tmp_path):
    patient = synthetic_patient()
    tensor = Volume(np.zeros((*SHAPE, 3), np.float32), AFFINE)
    first = dataclasses.replace(patient.visits[0], tensor_mm2_per_s=tensor)
    patient = dataclasses.replace(patient, visits=(first, *patient.visits[1:]))
    assert only_problem(synthetic_folder(tmp_path, patient)).expected == "6 channels"


@pytest.mark.parametrize(
    ("lines", "found", "expected"),
    [
        (["session_id\tday", "ses-01\t30", "ses-02\t0"], "day 0", "a day after 30"),
        (["session_id\tday", "ses-01\t0", "ses-02\t0"], "day 0", "a day after 0"),
        (["session_id\tday", "ses-01\t0", "ses-02\t2024-03-01"], "2024-03-01", "a number"),
        (["session_id\tday", "ses-01\t0", "ses-02\tnan"], "nan", "a number"),
        (["session_id\tday", "ses-01\t0", "ses-01\t3"], "ses-01", "of its own"),
        (["session_id\tdate", "ses-01\t0"], "columns session_id, date", "columns session_id, day"),
        (["session_id,day", "ses-01,0"], "columns session_id,day", "columns session_id, day"),
        (["session_id\tday"], "a header without rows", "at least one row"),
    ],
)
def test_sessions_that_make_no_sense(tmp_path, lines, found, expected):
    folder = synthetic_folder(tmp_path)
    path = rewrite_table(folder, "sessions", *lines)
    problem = only_problem(folder)
    assert problem.where.startswith(str(path))
    assert found in problem.found and expected in problem.expected


@pytest.mark.parametrize(
    ("line", "found", "expected"),
    [
        ("5\tvoodoo\t1\trelative\t", "voodoo", "one of radiotherapy"),
        ("5\tradiotherapy\t-2\tGy\t", "dose -2", "zero or more"),
        ("5\tradiotherapy\t2\tcGy\t", "cGy", "Gy for radiotherapy"),
        ("5\tchemotherapy\t75\tmg/m2\tX", "mg/m2", "relative for chemotherapy"),
        ("soon\tradiotherapy\t2\tGy\t", "soon", "a number in column day"),
    ],
)
def test_treatments_that_make_no_sense(tmp_path, line, found, expected):
    folder = synthetic_folder(tmp_path)
    path = rewrite_table(folder, "treatments", "day\tkind\tdose\tunit\tagent", line)
    problem = only_problem(folder)
    assert problem.where == f"{path}, line 2"
    assert found in problem.found and expected in problem.expected


def test_treatments_come_in_order_of_day_and_need_no_agent(tmp_path):
    folder = synthetic_folder(tmp_path)
    rewrite_table(
        folder,
        "treatments",
        "day\tkind\tdose\tunit",
        "9\tRadiotherapy\t2\tgy",
        "3\tchemotherapy\t1\trelative",
    )
    assert read_patient(folder).treatments == (
        Treatment(3.0, "chemotherapy", 1.0, "relative"),
        Treatment(9.0, "radiotherapy", 2.0, "Gy"),
    )


@pytest.mark.parametrize("where", ["nobody", "."])
def test_a_folder_that_is_no_patient(tmp_path, where):
    synthetic_folder(tmp_path)
    assert "sub-<label>_sessions.tsv" in only_problem(tmp_path / where).expected


def test_all_errors_are_raised_at_once(tmp_path):
    folder = synthetic_folder(tmp_path)
    image_path(folder, "ses-01", "adc_mm2_per_s").write_bytes(b"not an image")
    rewrite(image_path(folder, "ses-02", "tissue"), lambda tissue: tissue[1:])
    rewrite_table(folder, "treatments", "day\tkind\tdose\tunit", "x\tvoodoo\t-1\tGy")
    with pytest.raises(InputError) as raised:
        read_patient(folder)
    assert len(raised.value.problems) == 5


def test_what_is_not_read_is_told(tmp_path):
    folder = synthetic_folder(tmp_path)
    path = image_path(folder, "ses-01", "adc_mm2_per_s")
    path.rename(path.with_name("sub-01_ses-01_adcmap.nii.gz"))
    (folder / "ses-2").mkdir()
    warnings = read_patient(folder).warnings
    assert [Path(warning.where).name for warning in warnings] == [
        "sub-01_ses-01_adcmap.nii.gz",
        "ses-2",
    ]


def test_an_existing_folder_is_not_overwritten(tmp_path):
    folder = synthetic_folder(tmp_path)
    with pytest.raises(InputError, match="a new folder"):
        write_patient(folder, synthetic_patient())


def test_a_failed_write_leaves_nothing(tmp_path):
    patient = synthetic_patient()
    with pytest.raises(InputError, match="at most 79 bytes"):
        write_patient(tmp_path / "sub-01", patient, description="long " * 20)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_patient(tmp_path / "file" / "sub-01", Patient("sub-01", ()))
