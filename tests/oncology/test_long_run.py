"""A run that is interrupted and resumed gives the bits of one that is not."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from oncology.growth import ReactionDiffusion
from oncology.long_run import integrate_resumably
from oncology.timeline import integrate, steps_between
from oncology.treatment import Chemotherapy, Plan, Radiotherapy


@pytest.fixture(scope="module")
def run():
    model = ReactionDiffusion(jnp.ones((9, 8, 3), bool))
    plan = Plan(
        (Chemotherapy(np.array([3.0, 10.0]), np.ones(2), "a"),),
        Radiotherapy(np.array([5.0, 6.0]), np.full(2, 2.0)),
    )
    p = {
        "diffusivity_mm2_per_day": 0.2,
        "growth_rate_per_day": 0.05,
        "kill_a_per_day": 0.1,
        "decay_a_per_day": 0.5,
        "radiosensitivity_per_gy": 0.03,
    }
    limits = {"largest_diffusivity_mm2_per_day": 0.2, "largest_growth_rate_per_day": 0.05}
    steps = steps_between(model, plan, 0.0, 60.0, **limits)
    u = jnp.zeros((9, 8, 3)).at[3:6, 3:6].set(0.37)
    return model, plan, p, u, steps


class Interrupted(Exception):
    pass


def stop_at(step):
    def progress(done, of):
        if done >= step:
            raise Interrupted

    return progress


def test_an_interrupted_run_resumes_to_the_same_bits(run, tmp_path):
    whole = integrate_resumably(*run, tmp_path / "whole.npz", every=4)
    np.testing.assert_array_equal(whole, eqx.filter_jit(integrate)(*run))
    parted = tmp_path / "parted.npz"
    for step in (4, 12):
        with pytest.raises(Interrupted):
            integrate_resumably(*run, parted, every=4, progress=stop_at(step))
    told = []
    found = integrate_resumably(*run, parted, every=4, progress=lambda *at: told.append(at))
    assert told[0] == (16, len(run[-1].start_day)), "it began anew"
    np.testing.assert_array_equal(found, whole)
    again = integrate_resumably(*run, parted, every=4, progress=stop_at(0))
    np.testing.assert_array_equal(again, whole)
    assert {path.name for path in tmp_path.iterdir()} == {"whole.npz", "parted.npz"}


def test_other_runs_and_damaged_files_are_refused(run, tmp_path):
    path = tmp_path / "state.npz"
    with pytest.raises(Interrupted):
        integrate_resumably(*run, path, every=4, progress=stop_at(4))
    model, plan, p, u, steps = run
    with pytest.raises(InputError, match="another run"):
        other = p | {"growth_rate_per_day": 0.051}
        integrate_resumably(model, plan, other, u, steps, path, every=4)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read"):
        integrate_resumably(*run, path, every=4)
