"""Pulseq files: what is played, the trajectory, old versions, and files that must be refused."""

import numpy as np
import pypulseq as pp
import pytest

from mrphys import InputError
from mrphys.events import Gradient, Pulse, Readout, Scan
from mrphys.io.pulseq import read_pulseq

SYSTEM = pp.Opts(max_grad=40, grad_unit="mT/m", max_slew=150, slew_unit="T/m/s")
SIX = ("simple_mprage150", "write_epi", "write_epi_se", "write_gre", "write_tse", "write_ute")


def spin_echo(label=None, phase_rad=0.3, frequency_hz=200.0):
    """Excitation, a readout gradient's half, refocusing, a readout of 8 samples."""
    sequence = pp.Sequence(SYSTEM)
    excite = pp.make_block_pulse(np.pi / 2, duration=1e-4, system=SYSTEM, use="excitation")
    refocus = pp.make_block_pulse(np.pi, duration=2e-4, system=SYSTEM, use="refocusing")
    read = pp.make_trapezoid("x", flat_area=8 / 0.2, flat_time=8e-4, system=SYSTEM)
    half = pp.make_trapezoid("x", area=read.area / 2, duration=5e-4, system=SYSTEM)
    adc = pp.make_adc(8, duration=8e-4, delay=read.rise_time, phase_offset=phase_rad)
    adc.freq_offset = frequency_hz
    sequence.add_block(excite)
    sequence.add_block(half)
    sequence.add_block(refocus)
    sequence.add_block(read, adc, *([] if label is None else label))
    sequence.set_definition("FOV", [0.2, 0.2, 0.005])
    return sequence


def written(tmp_path, sequence, name="a.seq"):
    path = tmp_path / name
    sequence.write(str(path))
    return path


def altered(tmp_path, change, sequence=None):
    """A file whose text is changed, as someone's editor or disk might."""
    path = written(tmp_path, sequence or spin_echo())
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before
    return path


def test_events_are_those_written(tmp_path):
    scan = read_pulseq(written(tmp_path, spin_echo()))
    assert scan.fov_mm == pytest.approx((200, 200, 5))
    assert [pulse.use for pulse in scan.pulses] == ["excitation", "refocusing"]
    assert [pulse.flip_rad for pulse in scan.pulses] == pytest.approx([np.pi / 2, np.pi], rel=1e-5)
    (readout,) = scan.readouts
    assert readout.samples == 8 and readout.dwell_s == pytest.approx(1e-4)
    assert scan.duration_s == pytest.approx(scan.definitions["TotalDuration"])
    assert scan.version == "1.5" and scan.name == "a.seq"


def test_phase_changes_sign_and_frequency_does_not(tmp_path):
    """Pulseq counts phase with the precession, mrphys against it: exp(-i φ) is conjugated."""
    scan = read_pulseq(written(tmp_path, spin_echo()))
    (readout,) = scan.readouts
    assert readout.phase_rad == pytest.approx(-0.3, abs=1e-5)
    since = readout.times_s - readout.start_s
    expected = np.exp(1j * (0.3 + 2 * np.pi * 200.0 * since))
    np.testing.assert_allclose(scan.receiver(3.0), expected, atol=1e-5)


def test_spin_echo_trajectory_is_that_of_the_areas(tmp_path):
    scan = read_pulseq(written(tmp_path, spin_echo()))
    expected = (np.arange(8) + 0.5 - 4) / 200  # cycles/mm, through zero in the middle
    np.testing.assert_allclose(scan.trajectory()[:, 0], expected, atol=1e-7)
    np.testing.assert_array_equal(scan.trajectory()[:, 1:], 0)


def test_moment_is_exact_on_polygons_with_jumps():
    """Against a dense midpoint sum; the gradient jumps at t = 1, rests from 2 to 3."""
    time = np.array([0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0])
    value = np.array([0.0, 2.0, -1.0, 3.0, 0.0, 0.0, 4.0])
    t = np.linspace(-0.5, 5, 23)
    fine = (np.arange(400_000) + 0.5) / 1e5
    slopes = [(fine < 1) * 2 * fine, (fine >= 1) * (fine < 2) * (4 * fine - 5)]
    height = sum(slopes) + (fine >= 3) * 4 * (fine - 3)
    expected = [height[fine < end].sum() / 1e5 for end in t]
    np.testing.assert_allclose(Gradient(time, value).moment(t), expected, atol=5e-5)


def test_arbitrary_gradient_ends_at_its_stored_edges(tmp_path):
    sequence = pp.Sequence(SYSTEM)
    shape = 1e5 * np.sin(np.pi * (np.arange(50) + 0.5) / 50)
    sequence.add_block(pp.make_arbitrary_grad("y", shape, first=0, last=0, system=SYSTEM))
    sequence.add_block(pp.make_adc(2, duration=2e-5))
    scan = read_pulseq(written(tmp_path, sequence))
    area = scan.gradients[1].moment(np.array([1.0]))[0]
    np.testing.assert_allclose(area, 1e-3 * 1e5 * 5e-4 * 2 / np.pi, rtol=1e-3)


def test_labels_are_counted_at_each_readout(tmp_path):
    labels = [
        pp.make_label(type="SET", label="SLC", value=3),
        pp.make_label(type="INC", label="LIN", value=2),
    ]
    sequence = spin_echo(labels)
    adc = pp.make_adc(4, duration=4e-5)
    sequence.add_block(adc, pp.make_label(type="INC", label="LIN", value=1))
    counters = [r.counters for r in read_pulseq(written(tmp_path, sequence)).readouts]
    assert counters == [{"SLC": 3, "LIN": 2}, {"SLC": 3, "LIN": 3}]


def test_version_1_4_reads_the_same(tmp_path):
    new = read_pulseq(written(tmp_path, spin_echo()))
    sequence = spin_echo()
    sequence.write(str(tmp_path / "old.seq"), v141_compat=True)
    old = read_pulseq(tmp_path / "old.seq")
    assert old.version == "1.4"
    assert [pulse.use for pulse in old.pulses] == ["excitation", "refocusing"]
    np.testing.assert_allclose(old.trajectory(), new.trajectory(), atol=1e-9)
    np.testing.assert_allclose(old.sample_times_s, new.sample_times_s, atol=1e-12)


OLD = """# Pulseq sequence file
[VERSION]
major 1
minor {minor}
revision 0

[BLOCKS]
1 0 1 0 0 0 0 {extension}
2 1 0 0 0 0 0 {extension}
3 0 0 1 0 0 1 {extension}

[RF]
1 2500 1 2 0 0 0.5

[TRAP]
1 100000 100 800 100 0

[ADC]
1 8 100000 100 0 0.5

[DELAYS]
1 2000

[SHAPES]

shape_id 1
num_samples 100
1
0
0
97

shape_id 2
num_samples 100
0
0
98

"""


@pytest.mark.parametrize(("minor", "extension"), [(2, ""), (3, "0")])
def test_versions_1_2_and_1_3_are_read(tmp_path, minor, extension):
    path = tmp_path / "old.seq"
    path.write_text(OLD.format(minor=minor, extension=extension))
    scan = read_pulseq(path)
    (pulse,) = scan.pulses
    assert pulse.flip_rad == pytest.approx(np.pi / 2) and pulse.use == "excitation"
    assert scan.duration_s == pytest.approx(1e-4 + 2e-3 + 1e-3)
    expected = 100.0 * (5e-5 + 1e-4 * (np.arange(8) + 0.5))
    np.testing.assert_allclose(scan.trajectory()[:, 0], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.replace("minor 5", "minor 6"), "version 1.6"),
        (lambda t: t.replace("major 1", "major 2"), "version 2.5"),
        (lambda t: t.replace("minor 5", "minor 1"), "version 1.1"),
        (lambda t: t.replace("major 1\n", ""), "no version"),
        (lambda t: t.replace("GradientRasterTime", "GradientRaster"), "GradientRasterTime"),
        (lambda t: t.replace("BlockDurationRaster 1e-05", "BlockDurationRaster 0"), "Raster"),
        (lambda t: t.replace("FOV 0.2 0.2 0.005", "FOV 200 200 5"), "metres"),
        (lambda t: t.replace("[ADC]", "[ROTATED]"), r"section \[ROTATED\]"),
        (
            lambda t: t + "\n[EXTENSIONS]\n1 1 1 0\n\nextension ROTATIONS 1\n1 1 0 0 0\n",
            "ROTATIONS",
        ),
        (lambda t: t + "\nextension RF_SHIMS 2\n1 1 1 0\n", "RF_SHIMS"),
        (lambda t: t.replace("FOV", "RequiredExtensions SHINY\nFOV"), "SHINY"),
        (lambda t: t + "\nextension LABELSET 2\n1 4 ODD\n\n", "label ODD"),
        (lambda t: t.partition("[SHAPES]")[0], "cannot be read"),
        (lambda t: t.partition("[TRAP]")[0], "cannot be read"),
        (lambda t: t.partition("[BLOCKS]")[0], "BLOCKS"),
        (lambda t: t.partition("[SIGNATURE]")[0].rstrip(" #\n")[:-1], "does not end"),
        (lambda t: t[: t.index("num_samples") + 14] + "\n", "shape without samples"),
        (lambda t: "", "empty"),
        (lambda t: "GIF89a\n", "no section"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, change, named):
    path = altered(tmp_path, change)
    with pytest.raises(InputError, match=named) as refused:
        read_pulseq(path)
    assert str(path) in str(refused.value) and "Traceback" not in str(refused.value)


def test_every_truncation_is_refused_or_harmless(tmp_path):
    """Cut at any line, a file is refused unless all its events are there."""
    path = written(tmp_path, spin_echo())
    whole, lines = read_pulseq(path), path.read_text().splitlines(keepends=True)
    for kept in range(0, len(lines), 3):
        path.write_text("".join(lines[:kept]))
        try:
            cut = read_pulseq(path)
        except InputError:
            continue
        assert cut.duration_s == whole.duration_s
        np.testing.assert_array_equal(cut.trajectory(), whole.trajectory())
        for one, other in zip(cut.pulses, whole.pulses, strict=True):
            np.testing.assert_array_equal(one.samples_hz, other.samples_hz)


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path / "none.seq", tmp_path):
        with pytest.raises(InputError, match=r"\.seq"):
            read_pulseq(path)


def test_waiting_for_a_trigger_is_refused_and_sending_one_is_not(tmp_path):
    sends, waits = spin_echo(), spin_echo()
    sends.add_block(pp.make_digital_output_pulse("osc0", duration=1e-4))
    assert len(read_pulseq(written(tmp_path, sends)).pulses) == 2
    waits.add_block(pp.make_trigger("physio1", duration=1e-4))
    with pytest.raises(InputError, match=r"block 5: found an input trigger .*TRIGGERS"):
        read_pulseq(written(tmp_path, waits))


def test_events_beyond_their_block_are_refused(tmp_path):
    def shorten(text):
        """The second block, a gradient of 50 rasters, is given 10."""
        return text.replace("\n2  50 ", "\n2  10 ")

    with pytest.raises(InputError, match="block 2"):
        read_pulseq(altered(tmp_path, shorten))


def test_samples_during_a_pulse_are_refused():
    pulse = Pulse(0.0, np.array([0.0, 1e-3]), np.array([250.0 + 0j]), 5e-4)
    rest = Gradient(np.zeros(0), np.zeros(0))
    with pytest.raises(InputError, match="during a pulse"):
        Scan((pulse,), (rest, rest, rest), (Readout(5e-4, 10, 1e-4),), 1e-2)


def test_slab_of_an_offset_slice(tmp_path):
    rf, gz, _ = pp.make_sinc_pulse(
        0.5, duration=2e-3, slice_thickness=5e-3, time_bw_product=4, system=SYSTEM,
        return_gz=True, use="excitation",
    )  # fmt: skip
    rf.freq_offset = gz.amplitude * 0.02
    sequence = pp.Sequence(SYSTEM)
    sequence.add_block(rf, gz)
    slab = read_pulseq(written(tmp_path, sequence)).slab_mm()
    assert slab is not None
    assert np.mean(slab) == pytest.approx(20, abs=0.1)
    assert np.ptp(slab) == pytest.approx(15, rel=0.1)


@pytest.mark.parametrize("name", SIX)
def test_files_of_others_are_read(shared_data, name):
    """Trajectories against pypulseq's own calculation."""
    path = shared_data / "pulseq" / f"{name}.seq"
    scan = read_pulseq(path)
    sequence = pp.Sequence()
    sequence.read(str(path))
    expected = 1e-3 * sequence.calculate_kspace()[0].T
    np.testing.assert_allclose(scan.trajectory(), expected, atol=1e-6)
    assert scan.duration_s == pytest.approx(scan.definitions["TotalDuration"], abs=1e-9)


def multislice_with_crushers(sequence):
    """Off-centre slices, each an echo between oblique spokes, triggers and labels among them."""
    rf, gz, back = pp.make_sinc_pulse(
        0.5, duration=2e-3, slice_thickness=5e-3, system=SYSTEM, return_gz=True, use="excitation"
    )
    turn = pp.make_block_pulse(3.0, duration=4e-4, system=SYSTEM, use="refocusing")
    read = pp.make_trapezoid("x", flat_area=160, flat_time=1e-3, system=SYSTEM)
    adc = pp.make_adc(16, duration=1e-3, delay=read.rise_time)
    for i, z in enumerate((-0.02, 0.0, 0.03)):
        rf.freq_offset = gz.amplitude * z
        sequence.add_block(rf, gz, pp.make_label(type="SET", label="SLC", value=i))
        sequence.add_block(*pp.rotate(read, back, angle=0.7 * i, axis="z"))
        sequence.add_block(turn, pp.make_digital_output_pulse("osc0", duration=1e-4))
        sequence.add_block(*pp.rotate(read, adc, angle=0.7 * i, axis="z"))
        sequence.add_block(pp.make_trapezoid("z", area=800, system=SYSTEM))


def shapes_and_corners(sequence):
    """An arbitrary gradient beside an extended trapezoid that begins where a block ended."""
    sequence.add_block(pp.make_block_pulse(0.3, duration=1e-4, system=SYSTEM, use="excitation"))
    t = (np.arange(100) + 0.5) / 100
    spiral = 4e5 * np.sin(np.pi * t) * np.exp(6j * t)
    sequence.add_block(
        pp.make_arbitrary_grad("x", spiral.real, first=0, last=0, max_slew=1e11, system=SYSTEM),
        pp.make_arbitrary_grad("y", spiral.imag, first=0, last=0, max_slew=1e11, system=SYSTEM),
        pp.make_adc(50, dwell=2e-5),
    )
    corners = {"times": np.array([0.0, 2e-4, 5e-4]), "amplitudes": np.array([0.0, 3e5, 2e5])}
    sequence.add_block(pp.make_extended_trapezoid("z", system=SYSTEM, **corners))
    corners = {"times": np.array([0.0, 4e-4, 6e-4]), "amplitudes": np.array([2e5, 2e5, 0.0])}
    adc = pp.make_adc(20, dwell=2e-5)
    sequence.add_block(pp.make_extended_trapezoid("z", system=SYSTEM, **corners), adc)


@pytest.mark.parametrize("build", [multislice_with_crushers, shapes_and_corners])
def test_trajectory_and_times_are_pypulseqs(build, tmp_path):
    sequence = pp.Sequence(SYSTEM)
    build(sequence)
    scan = read_pulseq(written(tmp_path, sequence))
    expected, _, excited, refocused, sampled = sequence.calculate_kspace()
    np.testing.assert_allclose(1e3 * scan.trajectory(), expected.T, atol=1e-3)
    np.testing.assert_allclose(scan.sample_times_s, sampled, atol=1e-9)
    for use, times in (("excitation", excited), ("refocusing", refocused)):
        centres = [p.start_s + p.center_s for p in scan.pulses if p.use == use]
        np.testing.assert_allclose(centres, times, atol=1e-9)


def test_gradients_twice_as_fine_as_their_raster(tmp_path):
    """Oversampled shapes stand every half raster from the first half on: the same area."""
    sequence = pp.Sequence(SYSTEM)
    t = np.arange(1, 100) / 100
    shape = 2e5 * np.sin(np.pi * t)
    fine = pp.make_arbitrary_grad(
        "x", shape, first=0, last=0, oversampling=True, max_slew=1e11, system=SYSTEM
    )
    sequence.add_block(fine)
    sequence.add_block(pp.make_adc(2, duration=2e-5))
    path = tmp_path / "a.seq"
    sequence.write(str(path), remove_duplicates=False, check_timing=False)
    area = read_pulseq(path).gradients[0].moment(np.array([1.0]))[0]
    np.testing.assert_allclose(area, 1e-3 * 2e5 * 5e-4 * 2 / np.pi, rtol=1e-3)
