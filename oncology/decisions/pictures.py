"""Decisions as pictures: uncertainty over the day of a scan; doses and what they leave."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from oncology.decisions.gain import Gain
from oncology.decisions.regimen import Regimen, Tumours, burden_courses
from oncology.decisions.visits import NextVisits, Visits

COLOURS = ("0.45", "C0", "C1", "C2")


def draw_visits(made: NextVisits, between: tuple[float, float], about: str) -> Any:
    """A matplotlib figure: the sd of what is asked, one scan moved at a time, the others kept."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    axes = figure.subplots()
    days = np.linspace(*between, 161)
    for i, chosen in enumerate(made.days):
        others = jnp.asarray([day for j, day in enumerate(made.days) if j != i])
        moved = jax.vmap(lambda day, kept=others: made.loss(Visits(jnp.append(kept, day))))
        label = f"scan of day {chosen:g}, moved"
        (line,) = axes.plot(days, moved(jnp.asarray(days)), label=label)
        axes.plot(chosen, made.chosen, "o", color=line.get_color())
    axes.axhline(made.without, color="0.45", ls="--", label="no scan")
    axes.axhline(made.evenly, color="0.45", ls=":", label="evenly spread")
    axes.set(xlabel="day", ylabel=f"sd of log {about}", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return figure


def draw_treatment(
    tumours: Tumours,
    regimens: Mapping[str, Regimen],
    doses: Mapping[str, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]],
    gain: Gain,
    unit: str = "Gy",
) -> Any:
    """A matplotlib figure: doses of each regimen on their days, log burdens with the central 80 %
    of draws, and the gain of each draw of the last regimen over the first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.2, 1.2, 1.0))
    every = np.unique(np.concatenate([days for days, _ in doses.values()]))
    width = 0.8 * float(np.diff(every).min(initial=7.0)) / len(doses)
    for i, (name, (days, dose)) in enumerate(doses.items()):
        at = days + width * (i - (len(doses) - 1) / 2)
        left.bar(at, dose, width, color=COLOURS[i], label=name)
    highest = max(float(np.max(dose)) for _, dose in doses.values())
    left.set(xlabel="day", ylabel=f"dose [{unit}]", ylim=(0, 1.35 * highest))
    left.legend(fontsize=8, frameon=False)
    for i, (name, regimen) in enumerate(regimens.items()):
        along = np.asarray(burden_courses(tumours, regimen))
        low, mid, high = np.quantile(along, [0.1, 0.5, 0.9], axis=0)
        days = np.asarray(regimen.steps.end_day)
        middle.plot(days, mid, color=COLOURS[i], label=name)
        middle.fill_between(days, low, high, color=COLOURS[i], alpha=0.2, lw=0)
    middle.set(xlabel="day", ylabel="ln of the total cellularity [mm³]")
    middle.legend(fontsize=8, frameon=False)
    right.hist(gain.draws, bins=min(24, max(6, gain.draws.size // 3)), color=COLOURS[1])
    right.axvline(0, color="0.45", lw=1)
    right.set(xlabel="gain: ln of times fewer cells", ylabel="draws held out")
    right.set_title(gain.verdict.replace(": ", ":\n").replace("; ", ";\n"), fontsize=8)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
