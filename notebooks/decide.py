# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # What to do next: the next scan, the next treatment
#
# A posterior is for deciding. Here it says on which days a scan tells most, how radiotherapy should
# be divided and drugs be timed, and what the clinic would say of the answer; each with how sure
# that is, and with "no credible gain" where there is none.

# %%
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from oncology import decisions, response
from oncology.growth_laws import Exponential, Gompertz
from oncology.treatment import Plan, Saturating

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)
DRAWS, STARTS, STEPS, LENGTHS = (24, 1, 30, (30, 35)) if SMALL else (64, 3, 80, (20, 30, 35))
rng = np.random.default_rng(0)

# %% [markdown]
# ## When to scan
#
# A scan on day t shows log volume with an sd of 0.15. Its Fisher information of the growth rate and
# the volume today adds to that of earlier scans; the days that make the sd of what is asked least
# are found by the gradient, as flip angles are. For exponential growth, whose log volume is a
# straight line, two readings of its slope belong at the ends of the window:


# %%
def exponential(q, day):
    return q["log_volume"] + q["rate"] * day


q = {"log_volume": jnp.array([9.0]), "rate": jnp.array([0.02])}
made = decisions.optimise_visits(
    exponential, lambda q: q["rate"], q, [40.0, 60.0], noise_sd=0.15, between=(10.0, 90.0)
)
print("days", made.theta.days, f"sd {made.before:.4f} -> {made.after:.4f} (σ √2 / 80 days: 0.0027)")

# %% [markdown]
# A Gompertzian tumour slows: ln u = ln u₀ exp(-k t). One reading tells k best on day 1/k. What if k
# is not known, to a factor of two? The mean variance over draws asks for a compromise.


# %%
def gompertz(rate, day):
    return jnp.log(Gompertz().grow(0.01, rate, day))


rates = 0.025 * np.exp(0.35 * rng.standard_normal(DRAWS))
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
days = jnp.linspace(5.0, 120.0, 116)
for draws, label, colour in (
    (np.array([0.025]), "k = 0.025 /day", "C0"),
    (rates, "k unknown", "C1"),
):
    made = decisions.optimise_visits(
        gompertz, jnp.log, jnp.asarray(draws), [70.0], noise_sd=0.15, between=(5.0, 120.0)
    )
    loss = decisions.VisitUncertainty(
        gompertz, jnp.log, jnp.asarray(draws), jnp.asarray(0.15), jnp.zeros((1, 1)), jnp.zeros(0)
    )
    along = jax.vmap(lambda day, loss=loss: loss(decisions.Visits(day[None])))(days)
    best = float(made.theta.days[0])
    axis.plot(days, along, color=colour, label=f"{label}: day {best:.0f}")
    axis.plot(best, made.after, "o", color=colour)
axis.axvline(40, color="0.6", ls=":", label="1/k")
axis.set(xlabel="day of the scan", ylabel="sd of ln k", ylim=(0, 0.6))
axis.spines[["top", "right"]].set_visible(False)
axis.legend(fontsize=8, frameon=False)
figure.savefig(OUT / "decide_scan.png", dpi=110)

# %% [markdown]
# For a patient, `decisions.next_visits(forecast, 2)` takes the draws of the forecast as they are:
# fields, treatments, the errors of maps and all (`mrphys decide scan sub-01 --day 180 --scans 2`).
#
# ## How to divide radiotherapy
#
# 30 fractions of 2 Gy give the brain (necrosis, α/β = 3 Gy) a biologically effective dose of
# 100 Gy. Which doses leave fewest cells for as much? Without repopulation the sign of the
# difference of the two α/β decides: a tumour of 1.5 Gy wants few large fractions, one of 10 Gy many
# small ones. Here the rates, α and α/β are drawn, as a posterior would draw them; half of the draws
# choose, the other half judge. (While a tumour grows exponentially the day of a dose makes no
# difference to what is left at last, so that which days are chosen means little.)


# %%
def tumours(ratio_gy, spread):
    return decisions.Tumours.lumped(
        {
            "growth_rate_per_day": 0.03 * np.exp(0.5 * rng.standard_normal(DRAWS)),
            "radiosensitivity_per_gy": 0.06 * np.exp(0.4 * rng.standard_normal(DRAWS)),
            "alpha_over_beta_gy": ratio_gy * np.exp(spread * rng.standard_normal(DRAWS)),
        },
        0.3,
    )


UNTIL = 60.0
rows = []
for name, ratio, spread, objective in (
    ("α/β 1.5 Gy", 1.5, 0.1, "expected"),
    ("α/β 10 Gy", 10.0, 0.1, "expected"),
    ("unsure", 3.2, 0.6, "expected"),
    ("unsure, for the worst tenth", 3.2, 0.6, "worst decile"),
):
    drawn = tumours(ratio, spread)
    made = decisions.optimise_fractionation(
        drawn,
        UNTIL,
        lengths=LENGTHS,
        objective=objective,
        starts=STARTS,
        steps=STEPS,
        raster_gy=0.05,
    )
    rows.append((name, drawn, made))
    low, high = made.course.doses_gy.min(), made.course.doses_gy.max()
    print(f"{name}: {made.course.days.size} fractions of {low:.2f} to {high:.2f} Gy, ", end="")
    print(f"expected {made.gain.expected}, worst tenth {made.gain.worst_decile}")
    print(f"  {made.gain.verdict}")

# %%
for (name, drawn, made), file in zip(rows[:3:2], ("known", "unsure"), strict=True):
    courses = {"30 x 2 Gy": made.standard, "chosen": made.course}
    picture = decisions.draw_treatment(
        drawn,
        {k: decisions.regimen(drawn, Plan(radiotherapy=c), UNTIL) for k, c in courses.items()},
        {k: (c.days, c.doses_gy) for k, c in courses.items()},
        made.gain,
    )
    picture.suptitle(name)
    picture.savefig(OUT / f"decide_fractions_{file}.png", dpi=110)

# %% [markdown]
# ## How to time drugs
#
# Doxorubicin and cyclophosphamide, four doses each, every three or every two weeks. Where a drug
# kills in proportion to its concentration and cells grow exponentially, what is left when it is
# gone depends on the total alone. With a largest effect (E_max) small doses often are better, if
# no 14 days may bring more than one standard dose.

# %%
agents = ("doxorubicin", "cyclophosphamide")
p = {"growth_rate_per_day": 0.02 * np.exp(0.3 * rng.standard_normal(DRAWS))}
for agent, kill, decay in zip(agents, (0.15, 0.3), (0.6, 3.25), strict=True):
    p |= {
        f"kill_{agent}_per_day": kill * np.exp(0.4 * rng.standard_normal(DRAWS)),
        f"decay_{agent}_per_day": decay,
        f"half_effect_{agent}": 0.3,
    }
drawn = decisions.Tumours.lumped(p, 1e-3, Exponential())
for name, kind in (("linear kill", lambda drug: drug), ("largest effect", Saturating)):
    standards = {
        f"every {weeks:g} weeks": tuple(
            kind(drug) for drug in decisions.standard_cycles(agents, weeks=weeks)
        )
        for weeks in (3.0, 2.0)
    }
    made = decisions.optimise_schedule(drawn, standards, 90.0, starts=1, steps=STEPS)
    for standard, gain in made.gains.items():
        print(f"{name}, over {standard}: expected {gain.expected}; {gain.verdict}")
every = {**standards, "chosen": made.drugs}
picture = decisions.draw_treatment(
    drawn,
    {k: decisions.regimen(drawn, Plan(chemotherapy=d), 90.0) for k, d in every.items()},
    {k: (d[0].course.days, d[0].course.doses) for k, d in every.items()},
    next(iter(made.gains.values())),
    "doxorubicin, relative",
)
picture.savefig(OUT / "decide_drugs.png", dpi=110)

# %% [markdown]
# ## What the clinic would say
#
# Categories by size alone, of draws of the volume: RECIST 1.1 by diameter, RANO by product of
# diameters, RANO 2.0 by volume; with the sd of two drawings of one tumour, 0.15 of log volume.

# %%
days = np.linspace(0.0, 120.0, 241)
shrink, regrow = 0.06 * np.exp(0.5 * rng.standard_normal((2, 400, 1)))
volume = 2e4 * np.exp(-shrink * np.minimum(days, 25) + 0.15 * regrow * np.maximum(days - 25, 0))
for rule in response.RULES.values():
    until = response.progression_days(days, volume, rule)
    said = response.probabilities(volume[:, [0, 50, 240]], rule, drawing_sd=0.15)
    shares = ", ".join(f"{name} {share:.2f}" for name, share in said.items())
    median = np.quantile(until, 0.5, method="inverted_cdf")
    print(f"{rule.name:10}: {shares}; median day of progression {median:.0f} ({rule.source})")
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
for i, name in enumerate(response.CATEGORIES):
    share = [
        np.mean(response.categories(volume[:, : j + 1], response.RANO_2) == i) for j in range(241)
    ]
    axis.plot(days, share, label=name)
axis.set(xlabel="day", ylabel="probability", ylim=(0, 1), title="RANO 2.0 by volume")
axis.spines[["top", "right"]].set_visible(False)
axis.legend(fontsize=8, frameon=False)
figure.savefig(OUT / "decide_response.png", dpi=110)
