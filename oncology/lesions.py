r"""Diameters of many lesions under treatment: what a population tells of the next reading of one.

With d the diameter and x = log(d + c), a reading is expected from the one before it:

    x_i = x_{i-1} + k_j (t_i - t_{i-1}) - (a / b) (e^{-b t_{i-1}} - e^{-b t_i}) + s_i t_ν,
    s_i² = σ² + ς² (t_i - t_{i-1}),          k_j ~ N(μ, ω²)

Growth at a lesion's own rate k, less a response a that resistance takes away at the rate b: the
tumour growth inhibition model of Claret et al. 2009, doi:10.1200/JCO.2008.21.0807, started anew at
every reading, as carrying the last reading forward is. c, a few millimetres, lets a lesion vanish
and come back. What the law does not know (a new line of treatment, a mistaken reading) is left to
Student's t, under which one odd reading does not move the rest (Lange, Little & Taylor 1989,
doi:10.2307/2290063). Readings are rounded to whole millimetres, so that a diameter read twice
alike counts as an interval, and 0 as all that is too small to see.

The population (μ, ω, a, b, σ, ς, c) maximises the evidence of all lesions, k integrated out by the
trapezoidal rule (empirical Bayes: Efron & Morris 1973, doi:10.1080/01621459.1973.10481350).
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float

from mrphys.errors import InputError, Problem

ROUNDING_MM = 1.0
LARGEST_MM = 1000.0
"""No lesion is drawn larger, however long the tail."""
FREEDOMS = (1, 2, 4)
"""Of Student's t, those with short closed forms: from Cauchy's to one with a variance."""
RATE_DEVIATIONS = np.linspace(-3.5, 3.5, 36)


class Readings(eqx.Module):
    """Every lesion's days and diameters, padded to the longest record by its last reading."""

    day: Float[Array, "lesions visits"]
    diameter_mm: Float[Array, "lesions visits"]
    count: Array

    @property
    def seen(self) -> Bool[Array, "lesions visits"]:
        """Which of the readings are a lesion's own."""
        return jnp.arange(self.day.shape[1])[None] < self.count[:, None]

    def without_last(self, held_out: int) -> "Readings":
        """The records without their last readings; nothing here looks at those.

        Raises InputError where fewer than two would be left.
        """
        left = np.asarray(self.count) - held_out
        tables = (np.asarray(self.day), np.asarray(self.diameter_mm))
        return readings(*([row[:n] for row, n in zip(t, left, strict=True)] for t in tables))

    def last(self, count: int) -> tuple[Float[Array, "lesions n"], Float[Array, "lesions n"]]:
        """Days and diameters of every lesion's last readings."""
        at = self.count[:, None] - count + jnp.arange(count)[None]
        day, size = (jnp.take_along_axis(v, at, axis=1) for v in (self.day, self.diameter_mm))
        return day, size


def readings(days: Sequence, diameters_mm: Sequence) -> Readings:
    """Records of any length as one table, days counted from each lesion's first reading.

    Raises InputError for records that differ in length, have fewer than two readings, go back in
    time, or hold diameters that are negative, not finite or longer than a metre.
    """
    if not len(days) or len(days) != len(diameters_mm):
        found = f"{len(days)} records of days, {len(diameters_mm)} of diameters"
        raise InputError(Problem("readings", found, "as many of each, one or more"))
    rows = []
    for number, (day, size) in enumerate(zip(days, diameters_mm, strict=True), start=1):
        day, size = np.asarray(day, float), np.asarray(size, float)
        where = f"readings, lesion {number}"
        if day.shape != size.shape or day.ndim != 1 or day.size < 2:
            found = f"{day.size} days, {size.size} diameters"
            raise InputError(Problem(where, found, "as many of each, two or more"))
        if not (np.all(np.isfinite(day)) and np.all(np.diff(day) >= 0)):
            raise InputError(Problem(where, f"days {day.tolist()}", "finite days in order"))
        if not np.all((size >= 0) & (size <= LARGEST_MM)):
            expected = f"0 to {LARGEST_MM:g} mm"
            raise InputError(Problem(where, f"{size.tolist()} mm", expected, "volumes given"))
        rows.append((day - day[0], size))
    longest = max(day.size for day, _ in rows)
    padded = [
        np.stack([np.pad(row[i], (0, longest - row[i].size), mode="edge") for row in rows])
        for i in (0, 1)
    ]
    count = jnp.asarray([day.size for day, _ in rows])
    return Readings(jnp.asarray(padded[0], float), jnp.asarray(padded[1], float), count)


class LesionPopulation(eqx.Module):
    """What all lesions share: the letters of the equation above, rates per day."""

    rate_per_day: Float[Array, ""]
    rate_sd_per_day: Float[Array, ""]
    response_per_day: Float[Array, ""]
    resistance_per_day: Float[Array, ""]
    reading_sd: Float[Array, ""]
    drift_sd_per_root_day: Float[Array, ""]
    offset_mm: Float[Array, ""]
    freedom: int = eqx.field(static=True)

    @property
    def rates_per_day(self) -> Float[Array, " nodes"]:
        """Nodes of k."""
        return self.rate_per_day + self.rate_sd_per_day * jnp.asarray(RATE_DEVIATIONS, float)

    def log_growth(self, rate: Array, since: Array, until: Array) -> Array:
        """Expected change of x between two days after the first reading."""
        waned = jnp.exp(-self.resistance_per_day * since) - jnp.exp(
            -self.resistance_per_day * until
        )
        response = self.response_per_day / self.resistance_per_day * waned
        return rate * (until - since) - response

    def spread(self, days: Array) -> Array:
        """s after so many days."""
        return jnp.sqrt(self.reading_sd**2 + self.drift_sd_per_root_day**2 * days)

    def log_weights(self, given: Readings) -> Float[Array, "lesions nodes"]:
        """log p(readings, k) at the nodes of k: its sum over nodes is a lesion's evidence."""
        prior = jnp.asarray(-(RATE_DEVIATIONS**2) / 2, float)
        prior = prior - jax.nn.logsumexp(prior)
        since, until = given.day[:, :-1, None], given.day[:, 1:, None]
        before, after = given.diameter_mm[:, :-1, None], given.diameter_mm[:, 1:, None]
        middle = jnp.log(before + self.offset_mm)
        middle = middle + self.log_growth(self.rates_per_day[None, None], since, until)
        half = ROUNDING_MM / 2
        high = jnp.log(after + half + self.offset_mm)
        low = jnp.log(jnp.maximum(after - half, 0.0) + self.offset_mm)
        scale = self.spread(until - since)
        high, low = (high - middle) / scale, (low - middle) / scale
        vanished = t_cdf(high, self.freedom)
        flip = jnp.where(low > 0, -1.0, 1.0)
        between = flip * (t_cdf(flip * high, self.freedom) - t_cdf(flip * low, self.freedom))
        probability = jnp.where(after > half, between, vanished)
        tiny = jnp.finfo(probability.dtype).tiny
        each = jnp.log(jnp.maximum(probability, tiny))
        return prior[None] + jnp.sum(jnp.where(given.seen[:, 1:, None], each, 0.0), axis=1)

    def log_evidence(self, given: Readings) -> Float[Array, " lesions"]:
        """log p(readings) of every lesion, its first reading given."""
        return jax.nn.logsumexp(self.log_weights(given), axis=1)

    def rates(self, given: Readings) -> tuple[Float[Array, " lesions"], Float[Array, " lesions"]]:
        """Posterior mean and standard deviation of every lesion's k, 1/day."""
        weight, k = jax.nn.softmax(self.log_weights(given), axis=1), self.rates_per_day[None]
        mean = jnp.sum(weight * k, axis=1)
        return mean, jnp.sqrt(jnp.sum(weight * (k - mean[:, None]) ** 2, axis=1))

    @eqx.filter_jit
    def forecast(
        self, given: Readings, days: Float[Array, "lesions n"], key: Array, draws: int = 2000
    ) -> Float[Array, "lesions n draws"]:
        """Samples of the diameters on later days, mm, days as in `given`."""
        lesions, visits = days.shape
        keys = jax.random.split(key)
        log_weights = self.log_weights(given)[:, None]
        at = jax.random.categorical(keys[0], log_weights, axis=2, shape=(lesions, draws))
        rate = self.rates_per_day[at]
        odd = jax.random.t(keys[1], float(self.freedom), (visits, lesions, draws))
        since, size = given.last(1)
        x, most = jnp.log(size + self.offset_mm), jnp.log(LARGEST_MM)
        x, drawn = jnp.broadcast_to(x, (lesions, draws)), []
        for visit in range(visits):
            until = days[:, visit, None]
            spread = self.spread(until - since)
            x = x + self.log_growth(rate, since, until) + spread * odd[visit]
            x, since = jnp.minimum(x, most), until
            drawn.append(jnp.maximum(jnp.exp(x) - self.offset_mm, 0.0))
        return jnp.stack(drawn, axis=1)


def t_cdf(x: Array, freedom: int) -> Array:
    """Student's t with 1, 2 or 4 degrees of freedom: the probability below x.

    >>> round(float(t_cdf(jnp.array(2.132), 4)), 3)
    0.95
    """
    if freedom == 1:
        return jnp.arctan2(jnp.ones_like(x), -x) / jnp.pi
    if freedom == 2:
        return (1 + x / jnp.sqrt(2 + x**2)) / 2
    y = x / jnp.sqrt(4 + x**2)
    return (1 + y) ** 2 * (2 - y) / 4


def _population(h: Float[Array, " 7"], freedom: int) -> LesionPopulation:
    """From free coordinates: 0 is a population of slow growth, others some units from it."""
    scales = jnp.asarray([3e-3, 1e-2, 1e-2, 0.05, 0.01, 3.0], float)
    spread, response, resistance, reading, drift, offset = scales * jnp.exp(h[1:])
    return LesionPopulation(
        1e-3 * h[0], spread, response, resistance, reading, drift, offset, freedom
    )


@eqx.filter_jit
def learn_lesions(given: Readings, freedom: int = 1) -> LesionPopulation:
    """The population that maximises the evidence, by BFGS over its seven numbers.

    Raises InputError for degrees of freedom other than 1, 2 or 4.
    """
    if freedom not in FREEDOMS:
        raise InputError(Problem("learn_lesions", f"freedom {freedom}", "1, 2 or 4"))

    def badness(h: Array, given: Readings) -> Array:
        evidence = _population(h, freedom).log_evidence(given)
        return (jnp.sum(h**2) / 200 - jnp.sum(evidence)) / given.count.size

    solver = optx.BFGS(rtol=1e-6, atol=1e-6)
    start = jnp.zeros(7)
    found = optx.minimise(badness, solver, start, given, max_steps=300, throw=False)
    return _population(found.value, freedom)
