"""From a learned function to a law a person reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from learn.binn.terms import LIBRARY
from mrphys.errors import InputError, Problem

KEPT = 2.0
"""Standard deviations from 0 below which a term may leave the law."""
LOOSEST = 2.0
"""By how much more than its band a law may miss the function it stands for, root mean square."""


@dataclass(frozen=True)
class Equation:
    """name(z) = Σ c_k φ_k(z), with the standard deviations of c_k and what to beware of."""

    name: str
    variable: str
    functions: tuple[str, ...]
    coefficients: Float[np.ndarray, " terms"]
    sds: Float[np.ndarray, " terms"]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        text = ""
        for name, c, sd in zip(self.functions, self.coefficients, self.sds, strict=True):
            sign = ("-" if c < 0 else "") if not text else (" - " if c < 0 else " + ")
            factor = "" if name == "1" else f" {name.replace('z', self.variable)}"
            text += f"{sign}{with_sd(abs(c), sd)}{factor}"
        return f"{self.name}({self.variable}) = {text or '0'}"


def with_sd(value: float, sd: float) -> str:
    """0.0512 ± 0.0031 as 0.051(3).

    >>> with_sd(0.0512, 0.0031), with_sd(1234.0, 56.0), with_sd(1.0, 0.0)
    ('0.051(3)', '1230(60)', '1')
    """
    if not (np.isfinite(sd) and sd > 0):
        return f"{value:g}"
    place = int(np.floor(np.log10(sd)))
    if round(sd / 10.0**place) == 10:
        place += 1
    if place >= 0:
        unit = 10**place
        return f"{round(value / unit) * unit}({round(sd / unit) * unit})"
    return f"{value:.{-place}f}({round(sd / 10.0**place)})"


def regress(
    name: str,
    variable: str,
    z: Float[np.ndarray, " points"],
    values: Float[np.ndarray, "members points"],
    library: Mapping[str, Callable[[Array], Array]] = LIBRARY,
) -> Equation:
    """The sparsest law within the band of an ensemble of functions.

    Each member's values are fitted by least squares, so that coefficients have a mean and a
    standard deviation; terms within `KEPT` of 0 leave, the least sure first, and so does any
    without which the mean of the members is still followed within `LOOSEST` of their band.
    Raises InputError for a function of the library that is not finite where the term is, and for
    fewer points or members than it needs.
    """
    where = f"equation of {name}"
    columns, problems = [], []
    for label, f in library.items():
        try:
            column = np.broadcast_to(np.asarray(f(jnp.asarray(z)), float), z.shape)
        except Exception as error:
            problems.append(Problem(f"{where}: library {label!r}", str(error), "a function of z"))
            continue
        if not np.isfinite(column).all():
            bad = z[~np.isfinite(column)][0]
            found = f"not finite at {variable} = {bad:g}"
            problems.append(Problem(f"{where}: library {label!r}", found, "finite values"))
        columns.append(column)
    if values.shape[0] < 3:
        found = f"{values.shape[0]} members"
        problems.append(Problem(where, found, "three or more, for a standard deviation"))
    if z.size < len(library):
        cause = "no more coefficients can be told apart than there are points"
        problems.append(Problem(where, f"{z.size} points", f"{len(library)} or more", cause))
    if problems:
        raise InputError(*problems)
    design, names = np.stack(columns, -1), list(library)
    mean = values.mean(0)
    band = np.sqrt(np.mean((values - mean) ** 2))
    kept = list(range(len(names)))

    def fitted(some: Sequence[int]) -> tuple[np.ndarray, float]:
        found = np.linalg.lstsq(design[:, some], values.T, rcond=None)[0]
        off = design[:, some] @ found.mean(1) - mean
        return found, float(np.sqrt(np.mean(off**2)))

    while len(kept) > 1:
        found, _ = fitted(kept)
        sure = np.abs(found.mean(1)) / np.maximum(found.std(1, ddof=1), 1e-300)
        without = [fitted([k for k in kept if k != one])[1] for one in kept]
        best = int(np.argmin(without))
        if without[best] > LOOSEST * band and sure.min() > KEPT:
            break
        if without[best] > LOOSEST * band:
            best = int(np.argmin(sure))
            if without[best] > 2 * LOOSEST * band:
                break
        del kept[best]
    found, off = fitted(kept)
    warnings = []
    if off > LOOSEST * max(band, 1e-12 * np.abs(mean).max()):
        warnings.append(f"{name} is not of this library: {off:.2g} off, band {band:.2g}")
    return Equation(
        name, variable, tuple(names[k] for k in kept), found.mean(1), found.std(1, ddof=1),
        tuple(warnings),
    )  # fmt: skip
