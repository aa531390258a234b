"""The page of one forecast: structure, units, honesty about what is missing, and its pictures."""

import base64
import copy
import dataclasses
import io
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from mrphys.errors import InputError
from oncology import figures, report
from oncology.figures import FORECAST, OBSERVED, Band, Curve, Pictures, VisitPicture
from oncology.report import number, render, volume_unit, write_report

SCORES = {"ccc": 0.9, "pearson": 0.92, "dice": 0.85, "crps": 0.02, "volume_error_percent": -3.0}
SLICE = (22, 24, 1), (5.0, 5.0, 5.0)
NO_SCORES = dict.fromkeys([*SCORES, "total_error_percent"])


def estimate(mean: float) -> dict:
    return {"mean": mean, "low95": 0.8 * mean, "high95": 1.25 * mean}


def forecast(shape=(30, 34, 22), spacing_mm=(4.0, 4.0, 5.0)) -> tuple[dict, Pictures]:
    """An ellipsoidal tumour growing in an ellipsoidal brain, seen on days 0, 28 and 56."""
    x, y, z = np.meshgrid(
        *[(np.arange(n) + 0.5 - n / 2) * h for n, h in zip(shape, spacing_mm, strict=True)],
        indexing="ij",
    )
    tissue = (x / 58) ** 2 + (y / 66) ** 2 + (z / 54) ** 2 < 1
    distance_mm = np.sqrt((x - 18) ** 2 + (y - 12) ** 2 + (0.8 * z) ** 2)
    grown = [tissue / (1 + np.exp((distance_mm - radius) / 3)) for radius in (9, 13, 17)]
    days = np.linspace(0, 56, 9)
    volume, total = (Band(c * np.exp(days / 40), c * np.exp(days / 45), c * np.exp(days / 35))
                     for c in (9e3, 7e3))  # fmt: skip
    names = ("ses-01", "ses-02", "ses-03")
    seen = [{"volume_mm3": v, "total_cellularity_mm3": 0.8 * v} for v in (9e3, 2e4, 35e3)]
    predicted = {"volume_mm3": estimate(36.5e3), "total_cellularity_mm3": estimate(28e3)}
    summary = {
        "subject": "sub-01",
        "model": "∂u/∂t = ∇·(D∇u) + k u(1 − u)",
        "calibrated_on": ["ses-01", "ses-02"],
        "predicted": {"session": "ses-03", "day": 56.0},
        "parameters": {
            "growth_rate_per_day": {**estimate(0.05), "sd": 0.004, "unit": "1/day", "truth": 0.048},
            "diffusivity_mm2_per_day": {**estimate(2e-5), "sd": 3e-6, "unit": "mm²/day"},
        },
        "observation": {
            "adc_w_mm2_per_s": 3e-3,
            "adc_min_mm2_per_s": 5e-4,
            "noise_sd_cellularity": 0.05,
            "threshold": 0.16,
        },
        "visits": [
            {"day": 28.0 * i, "session": name, "observed": seen[i], "forecast": None, **NO_SCORES}
            for i, name in enumerate(names)
        ],
        "persistence": [
            {"day": 56.0, "session": "ses-03", **SCORES, "ccc": 0.7, "total_error_percent": -40.0}
        ],
        "warnings": ["The visits overlap little."],
        "provenance": {"versions": {"mrphys": "0.1"}, "inputs": {"a": "e3b0"}, "seed": 0,
                       "seconds": 61.2},
    }  # fmt: skip
    summary["visits"][2] |= {"forecast": predicted, **SCORES, "total_error_percent": 2.0}
    visits = tuple(
        VisitPicture(28.0 * i, name, u, u > 0.16, "forecast" if i == 2 else "calibration")
        for i, (name, u) in enumerate(zip(names, grown, strict=True))
    )
    mean = np.clip(1.02 * grown[2], 0, 1)
    sd, anatomy = 0.3 * mean * (1 - mean), 500.0 * tissue + z
    treatments = ((30.0, "radiotherapy", 2.0, None), (31.0, "radiotherapy", 2.0, None))
    pictures = Pictures(spacing_mm, anatomy, tissue, visits, mean, sd, mean > 0.16,
                        Curve(days, volume, total), treatments)  # fmt: skip
    return summary, pictures


@pytest.fixture(scope="module")
def page() -> str:
    return render(*forecast())


class Outline(HTMLParser):
    """Holds every tag to its end tag and collects text, links and sources."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self, page: str):
        super().__init__()
        self.open, self.tags, self.sources, self.words = [], [], [], []
        self.feed(page)
        self.close()
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for key, value in attrs if key in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing that is open"

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)


def outline(page: str) -> Outline:
    parsed = Outline(page)
    assert parsed.open == []
    assert "script" not in parsed.tags and "link" not in parsed.tags
    assert all(source.startswith(("data:", "#")) for source in parsed.sources)
    assert not re.search(r"https?:|url\((?!#)|@import|\bnan\b|\bNone\b", page)
    return parsed


def pixels(sheet: figures.Sheet | None) -> np.ndarray:
    assert sheet is not None
    code = sheet.uri.removeprefix("data:image/png;base64,")
    return imread(io.BytesIO(base64.b64decode(code)))[..., :3]


def has_colour(image: np.ndarray, colour: str) -> np.ndarray:
    return np.all(np.abs(image - np.array(to_rgb(colour))) < 0.03, axis=-1)


def changed(pictures: Pictures, last: dict | None = None, **fields) -> Pictures:
    visits = pictures.visits
    if last is not None:
        visits = (*visits[:-1], dataclasses.replace(visits[-1], **last))
    return dataclasses.replace(pictures, **{"visits": visits, **fields})


def test_page_is_complete_and_self_contained(page):
    parsed = outline(page)
    assert parsed.tags.count("img") == 3 and parsed.tags.count("h1") == 1
    assert len(page) < 3e6
    for said in (
        "sub-01: ses-03, day 56",
        "not for clinical decisions",
        "Radiological convention",
        "observed, held out",
        "radiotherapy, 2 × 2 Gy, days 30 to 31",
        "The visits overlap little.",
        "Computed in 61.2 s.",
    ):
        assert said in parsed.text


def test_numbers_carry_units(page):
    text = outline(page).text
    assert re.search(r"Tumour volume, forecast 36\.5 cm³ 95 % interval 29\.2 to 45\.6 cm³", text)
    assert "ADC of free water 3.00 × 10⁻³ mm²/s" in text
    assert "1/day" in text and "mm²/day" in text and "−3.00 %" in text
    assert "2.00 × 10 −5" in text


@pytest.mark.parametrize(("largest", "unit"), [(999.0, "mm³"), (1000.0, "cm³")])
def test_volume_unit_is_chosen_by_the_largest_known(largest, unit):
    scale, name = volume_unit([None, math.nan, math.inf, 3.0, largest])
    assert name == unit and scale == {"mm³": 1.0, "cm³": 1e-3}[unit]


@pytest.mark.parametrize("value", [1.0, -0.04321, 9.996, 123456.0, 7.25e-9, 3.3e12])
def test_number_keeps_three_digits(value):
    shown = number(value).replace("−", "-").replace(",", "")
    plain = re.sub(r" × 10<sup>(.*)</sup>", r"e\1", shown)
    assert float(plain) == pytest.approx(value, rel=5e-3)


def test_better_score_is_marked_and_errors_are_judged_by_size():
    summary, pictures = forecast(*SLICE)
    summary["visits"][2] |= {"volume_error_percent": -8.0, "crps": 0.05, "dice": 0.85}
    summary["persistence"][0] |= {"volume_error_percent": 5.0, "crps": 0.01, "dice": 0.85}
    page = render(summary, pictures)
    assert "<strong>✓ 0.900</strong></td><td class=n>0.700" in page
    assert "−8.00 %</td><td class=n><strong>✓ +5.00 %" in page
    assert "0.0500</td><td class=n><strong>✓ 0.0100" in page
    assert "<td class=n>0.850</td><td class=n>0.850" in page
    assert "better on 2 of 6 scores" in outline(page).text


def test_headline_says_whether_the_interval_held(page):
    inside = "Tumour volume, observed 35.0 cm³ inside the 95 % interval"
    assert inside in outline(page).text
    summary, pictures = forecast(*SLICE)
    summary["visits"][2]["observed"] = {"volume_mm3": 60e3, "total_cellularity_mm3": 10e3}
    text = outline(render(summary, pictures)).text
    assert "Tumour volume, observed 60.0 cm³ outside the 95 % interval" in text
    assert "Total cellularity, observed 10.0 cm³ outside the 95 % interval" in text


def test_whisker_places_interval_and_truth_on_a_logarithmic_axis():
    summary, pictures = forecast(*SLICE)
    wide = {"mean": 1.0, "low95": 0.5, "high95": 4.0, "sd": 1.0, "unit": "1/day", "truth": 2.0}
    summary["parameters"] = {"k": wide, "d": {**wide, "low95": 0.0}, "a": {**wide, "high95": 1e3}}
    page = render(summary, pictures)
    assert page.count('class="whisker"') == 2
    drawn = re.findall(r'<path d="M([\d.]+) 9 H([\d.]+) .*?class="truth" d="M([\d.]+)', page)
    low, high, truth = (float(x) - 90 for x in drawn[0])
    assert truth / low == pytest.approx(-1, abs=0.01) and high / truth == pytest.approx(2, abs=0.01)
    assert float(drawn[1][1]) == 170


def no_observation(summary, pictures):
    summary["visits"][2] |= {"observed": None, **NO_SCORES}
    summary["persistence"] = []
    return summary, changed(pictures, last={"mask": None, "cellularity": None})


def planned_day(summary, pictures):
    summary["visits"].pop()
    summary["predicted"] = {"session": None, "day": 40.5}
    return summary, changed(pictures, visits=pictures.visits[:2])


def nothing_known(summary, pictures):
    summary["visits"][2] |= dict.fromkeys(SCORES, math.nan)
    summary["parameters"]["growth_rate_per_day"] |= {"sd": math.inf, "low95": None, "truth": None}
    del summary["persistence"]
    empty = np.full_like(pictures.forecast_sd, math.nan)
    return summary, changed(pictures, forecast_sd=empty)


def nothing_there(summary, pictures):
    zero = np.zeros_like(pictures.forecast_mean)
    visits = tuple(dataclasses.replace(v, mask=None, cellularity=None) for v in pictures.visits)
    return summary, changed(pictures, visits=visits, forecast_mean=zero, forecast_sd=zero,
                            forecast_mask=zero > 0, anatomy=None, tissue=None)  # fmt: skip


def many_warnings(summary, pictures):
    summary["warnings"] = [f"Warning number {i}." for i in range(40)]
    return summary, pictures


EDGES = {
    "no observation": (no_observation, "last observed, day 28"),
    "planned day": (planned_day, "sub-01: day 40.5"),
    "nothing known": (nothing_known, "Persistence was not scored."),
    "nothing there": (nothing_there, "empty: no voxel of the mean is above the threshold"),
    "no anatomy": (lambda s, p: (s, changed(p, anatomy=None)), "background is the tissue mask"),
    "no treatment": (lambda s, p: (s, changed(p, treatments=())), "No treatment is recorded."),
    "many warnings": (many_warnings, "40 warnings"),
    "no warnings": (lambda s, p: ({**s, "warnings": []}, p), "No warnings."),
}


@pytest.mark.parametrize("edge", EDGES)
def test_page_says_what_is_missing(edge):
    alter, said = EDGES[edge]
    parsed = outline(render(*alter(*forecast(*SLICE))))
    assert said in parsed.text
    assert "further slices" not in parsed.text


def test_every_word_from_outside_is_escaped():
    summary, pictures = forecast(*SLICE)
    nasty = "<b>$x_1&</b>"
    summary |= {"subject": nasty, "model": nasty, "warnings": [nasty], "calibrated_on": [nasty]}
    summary["predicted"]["session"] = summary["visits"][2]["session"] = nasty
    parameter = {**estimate(1.0), "sd": 0.1, "unit": nasty}
    summary["parameters"] = {nasty: parameter}
    summary["provenance"] |= {"versions": {nasty: nasty}, "inputs": {nasty: nasty}, "seed": nasty}
    visits = tuple(dataclasses.replace(v, session=nasty) for v in pictures.visits)
    treatments = ((3.0, nasty, 1.0, None), (4.0, "chemotherapy", None, nasty))
    page = render(summary, changed(pictures, visits=visits, treatments=treatments))
    assert "b" not in outline(page).tags and "<b>" not in page
    assert page.count("&lt;b&gt;") >= 15


def test_same_input_gives_the_same_page_and_leaves_matplotlib_alone(page):
    before = copy.deepcopy(dict(matplotlib.rcParams))
    assert render(*forecast()) == page
    assert dict(matplotlib.rcParams) == before


def test_outlines_are_drawn_in_their_colours():
    _, pictures = forecast((30, 34, 1), (4.0, 4.0, 5.0))
    empty = np.zeros_like(pictures.forecast_mask)
    far = np.roll(pictures.forecast_mask, -6, axis=0)
    both = pixels(figures.forecast_sheet(changed(pictures, forecast_mask=far)))
    assert has_colour(both, OBSERVED).sum() > 100 and has_colour(both, FORECAST).sum() > 100
    alone = pixels(figures.forecast_sheet(changed(pictures, visits=())))
    assert has_colour(alone, FORECAST).any() and not has_colour(alone, OBSERVED).any()
    none = pixels(figures.forecast_sheet(changed(pictures, forecast_mask=empty)))
    assert has_colour(none, OBSERVED).any() and not has_colour(none, FORECAST).any()


def test_slices_follow_the_radiological_convention():
    _, pictures = forecast((30, 34, 1), (4.0, 4.0, 5.0))
    x, y, _ = np.indices(pictures.forecast_mean.shape)
    unseen = tuple(dataclasses.replace(v, cellularity=None) for v in pictures.visits[:1])
    right, anterior = (
        pixels(figures.visits_sheet(changed(pictures, visits=unseen, anatomy=ramp.astype(float))))
        for ramp in (x, y)
    )
    rows, columns = (n // 2 for n in right.shape[:2])
    assert right[:, :columns].mean() > 1.5 * right[:, columns:].mean()
    assert anterior[:rows].mean() > 1.5 * anterior[rows:].mean()


def test_voxels_keep_their_aspect_and_spheres_stay_round():
    spacing = (1.5, 4.0, 3.0)
    shape = (60, 24, 30)
    centres = [(np.arange(n) + 0.5 - n / 2) * h for n, h in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*centres, indexing="ij")
    sphere = x**2 + y**2 + z**2 < 20**2
    _, pictures = forecast(shape, spacing)
    visit = VisitPicture(0, None, None, sphere, "calibration")
    black = changed(pictures, visits=(visit,), forecast_mask=sphere, anatomy=None, tissue=None)
    rows, columns = np.nonzero(has_colour(pixels(figures.visits_sheet(black)), OBSERVED))
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(1, abs=0.08)


def test_report_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "sub-01_forecast.html"
    inputs = forecast(*SLICE)
    write_report(target, *inputs)
    first = target.read_text(encoding="utf-8")
    assert first.endswith("</html>\n")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "render", lambda *_: "another page")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError, match="No space left"):
        write_report(target, *inputs)
    assert target.read_text(encoding="utf-8") == first
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(InputError, match="a folder that exists and can be written"):
        write_report(tmp_path / "absent" / "page.html", *inputs)


def test_pictures_on_different_grids_are_refused_together():
    _, pictures = forecast(*SLICE)
    small = np.zeros((2, 2, 1))
    short = Band(small[0, :, 0], small[0, :, 0], small[0, :, 0])
    curve = dataclasses.replace(pictures.curve, volume_mm3=short)
    with pytest.raises(InputError) as caught:
        changed(pictures, last={"mask": small > 0}, spacing_mm=(1.0, 0.0, 1.0), curve=curve)
    where = {problem.where for problem in caught.value.problems}
    assert where == {"spacing_mm", "mask on day 56", "curve.volume_mm3"}


def test_importing_the_report_does_not_import_matplotlib():
    code = "import sys, oncology.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
