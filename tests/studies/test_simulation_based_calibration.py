"""Is the sampled posterior the posterior? Simulation-based calibration of NUTS on a small tumour.

    pytest -m long -s tests/studies/test_simulation_based_calibration.py

Parameters are drawn from their priors, a second map is grown from a first without noise, noise is
added, and the true value's rank among draws of the posterior is counted. If the posterior is right
ranks are uniform, whatever its shape (Talts et al. 2018, arXiv:1804.06788).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from oncology.inverse import map_estimate, posterior
from oncology.sampling import chains
from tests.oncology.small_problem import SHAPE, problem, seen_as

TUMOURS, RANKS, THIN, BINS = 96, 63, 3, 8
NOISE_SD = 0.05


@pytest.mark.long
def test_ranks_are_uniform(capsys):
    blank = problem(0.8, NOISE_SD, visits=2)
    start = blank.observations[0].value
    blank = eqx.tree_at(lambda i: i.observations[0].sd, blank, jnp.zeros(SHAPE))
    none = jnp.zeros(())
    predict = eqx.filter_jit(lambda z: blank.predict(z, jnp.zeros(SHAPE))[-1])
    ranks = []
    for number in range(TUMOURS):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), number), 3)
        z = jax.random.normal(keys[0], (2,))
        last = predict(z) + NOISE_SD * jax.random.normal(keys[1], SHAPE)
        inverse = seen_as(blank, (start, last))
        found = posterior(inverse, map_estimate(inverse, jnp.zeros(2)))
        exact = (none, found.gain.covariance(none))
        found = eqx.tree_at(lambda f: (f.model_error, f.covariance), found, exact)
        drawn = chains(found, keys[2], draws=RANKS * THIN, count=1).z[0, ::THIN]
        ranks.append(np.sum(np.asarray(drawn) < np.asarray(z), axis=0))
    for name, column in zip(blank.priors, np.array(ranks).T, strict=True):
        count = np.histogram(column, bins=BINS, range=(0, RANKS + 1))[0]
        p = stats.chisquare(count).pvalue
        with capsys.disabled():
            print(f"\n{name}: ranks {count.tolist()}, p = {p:.3f}")
        assert p > 0.005
