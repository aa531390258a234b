"""What a scanner gives for a map: images of one place under several settings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from mrphys.errors import InputError, Problem
from mrphys.units import check_b_value_s_per_mm2, check_range
from mrphys.volume import Volume

MS = "milliseconds given for seconds"
LIMITS = {
    "EchoTime": (0.0, 3.0, "s", MS),
    "InversionTime": (0.0, 20.0, "s", MS),
    "RepetitionTimeExcitation": (1e-4, 30.0, "s", MS),
    "RepetitionTimePreparation": (1e-4, 60.0, "s", MS),
    "RepetitionTime": (1e-4, 60.0, "s", MS),
    "FlipAngle": (0.0, 360.0, "degrees", "a field in other units"),
    "VolumeTiming": (0.0, 36000.0, "s", MS),
}
"""Settings that images may differ in, by their BIDS names: least, most, unit, why others appear."""
B_VALUE = "DiffusionBValue"
"""The setting, in s/mm², that BIDS keeps in a .bval file; by its name in DICOM."""


@dataclass(frozen=True, eq=False)
class Series:
    """Readouts of one acquisition, on one grid.

    name        what all files share: "sub-01_ses-02"
    suffix      the BIDS kind: "VFA", "MESE", "dwi", ...; "" where the files do not say
    images      (x, y, z, readouts), magnitudes or complex
    settings    by BIDS name what each readout was taken with, (readouts,)
    directions  of diffusion gradients, unit vectors in RAS+, 0 where there is none
    about       what else the files say of all readouts alike
    files       what was read
    """

    name: str
    suffix: str
    images: Volume
    settings: Mapping[str, Float[np.ndarray, " readouts"]]
    directions: Float[np.ndarray, "readouts 3"] | None = None
    about: Mapping[str, Any] | None = None
    files: tuple[Path, ...] = ()

    @property
    def readouts(self) -> int:
        """Images of the same place."""
        return self.images.data.shape[3]

    @property
    def is_complex(self) -> bool:
        """Whether the images have a phase."""
        return np.iscomplexobj(self.images.data)

    def each(self, *names: str, most: float | None = None) -> Float[np.ndarray, " readouts"]:
        """The first of these settings that is known, of every readout, checked.

        Raises InputError where none is, or where it is out of range; `most` is the largest that
        makes sense where that is less than usual.
        """
        name = next((name for name in names if name in self.settings), None)
        if name is None:
            there = ", ".join(self.settings) or "none at all"
            expected = f"{' or '.join(names)} of each image; there are {there}"
            cause = "no JSON sidecar beside the images, or one of another name"
            cause = "no .bval beside the images" if names[0] == B_VALUE else cause
            raise InputError(Problem(self.where, f"no {names[0]}", expected, cause))
        values = self.settings[name]
        missing = int(np.isnan(values).sum())
        if missing:
            found = f"no {name} of {missing} of {self.readouts} images"
            raise InputError(Problem(self.where, found, f"{name} of each", "a missing sidecar"))
        where = f"{self.where}: {name}"
        if name == B_VALUE:
            check_b_value_s_per_mm2(where, values)
        else:
            low, high, unit, cause = LIMITS.get(name, (-np.inf, np.inf, "", ""))
            check_range(where, values, low, high if most is None else most, unit, cause)
        if name == "FlipAngle" and 0 < np.max(values) <= np.pi / 2:
            found = f"{np.min(values):g} to {np.max(values):g} degrees"
            raise InputError(
                Problem(where, found, "flip angles in degrees", "radians given for degrees")
            )
        return values

    def one(self, *names: str, most: float | None = None) -> float:
        """The same, where all readouts must agree."""
        values = self.each(*names, most=most)
        if np.ptp(values) > 1e-6 * np.max(np.abs(values)):
            found = f"{names[0]} from {values.min():g} to {values.max():g}"
            raise InputError(Problem(self.where, found, "one for all images", "two scans mixed"))
        return float(values[0])

    def sorted_by(self, *names: str) -> "Series":
        """Readouts in order of a setting."""
        return self.taken(np.argsort(self.each(*names), kind="stable"))

    def taken(self, order: Integer[np.ndarray, " some"]) -> "Series":
        """Some of the readouts, in the order given."""
        return replace(
            self,
            images=self.images.with_data(self.images.data[..., order]),
            settings={name: values[order] for name, values in self.settings.items()},
            directions=None if self.directions is None else self.directions[order],
        )

    def magnitudes(self) -> "Series":
        """Without phase: of images taken one by one it is not the same from one to the next."""
        return replace(self, images=self.images.with_data(np.abs(self.images.data)))

    @property
    def where(self) -> str:
        """For messages."""
        return "_".join(part for part in (self.name, self.suffix) if part)


def stacked(volumes: Iterable[tuple[str, Volume]]) -> Volume:
    """Images (x, y, z) or (x, y, z, readouts) by name as one (x, y, z, readouts).

    Raises InputError for images that are not on one grid.
    """
    named = list(volumes)
    _, first = named[0]
    problems = [
        Problem(
            where,
            volume.placed,
            f"the grid of {named[0][0]}: {first.placed}",
            "images that were not resampled to each other, or of another session",
        )
        for where, volume in named[1:]
        if not volume.same_grid(first)
    ]
    if problems:
        raise InputError(*problems)
    parts = [np.asarray(volume.data).reshape(*first.shape, -1) for _, volume in named]
    return first.with_data(np.concatenate(parts, axis=3))
