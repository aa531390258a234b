"""The examples of CONTRIBUTING.md do what it says of them; notebooks can be read and imported."""

import ast
import importlib
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from oncology.timeline import integrate, steps_between
from oncology.treatment import Plan
from tests.laws import check_gradient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))


@pytest.fixture(scope="module")
def examples():
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    return names


def test_signal_model(examples):
    t1_s = jnp.array([0.8, 1.2])
    theta = examples["InversionRecovery"](ti_s=t1_s * jnp.log(2.0), averages=jnp.ones(2))
    x = mr.simulate(theta, mr.Tissue(t1_s=t1_s, t2_s=0.08))
    assert x.shape == (2, 2)
    np.testing.assert_allclose(jnp.diagonal(x), 0, atol=1e-12)
    assert np.abs(x[0, 1]) > 0.1
    np.testing.assert_allclose(examples["est"].value.rate_per_s, [0.05, 0.1], rtol=1e-6)
    assert (examples["est"].sd.capacity > 0).all()


def test_something_learned(examples):
    losses = examples["made"].losses
    assert losses.shape == (100,)
    assert losses[-20:].mean() < 0.8 * losses[:5].mean()


def test_growth_law(examples):
    model, plan = examples["model"], Plan()
    p = {"growth_rate_per_day": 0.05, "diffusivity_mm2_per_day": 0.0}
    steps = steps_between(
        model,
        plan,
        0.0,
        20.0,
        largest_diffusivity_mm2_per_day=0.0,
        largest_growth_rate_per_day=0.05,
        tolerance=1e-5,
    )
    grown = integrate(model, plan, p, jnp.full((8, 8, 1), 0.1), steps)
    np.testing.assert_allclose(jnp.log(grown), np.log(0.1) * np.exp(-0.05 * 20), rtol=1e-4)
    reaction = partial(examples["Gompertz"]().reaction, rate_per_day=0.05)
    check_gradient(reaction, jnp.array([0.2, 0.7]))
    assert jnp.isfinite(jax.grad(reaction)(0.0))


def test_treatment(examples):
    agent = examples["Infusion"](np.array([3.0, 10.0]), np.array([1.0, 0.5]), "drug")
    p = {"kill_drug_per_day": 0.4}
    whole = agent.kill(p, 0.0, 14.0)
    np.testing.assert_allclose(whole, 0.4 * 1.5, rtol=1e-12)
    np.testing.assert_allclose(agent.kill(p, 0.0, 3.3) + agent.kill(p, 3.3, 14.0), whole)
    assert agent.kill(p, 0.0, 3.0) == 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_percent_format_and_its_imports_are_there(path):
    text = path.read_text()
    assert "format_name: percent" in text and "# %% [markdown]" in text
    code = [cell for cell in text.split("\n# %%")[1:] if not cell.startswith(" [markdown]")]
    written = [cell for cell in text.split("\n# %%")[1:] if cell.startswith(" [markdown]")]
    assert code and all(ast.parse(cell) for cell in code)
    assert all(line.startswith("#") for cell in written for line in cell.split("\n")[1:] if line)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_every_study_has_a_notebook():
    studies = (Path(__file__).parents[1] / "learn/design_studies").glob("*.py")
    names = {path.stem for path in studies} - {"__init__", "study"}
    assert {f"design_{name}" for name in names} <= {path.stem for path in NOTEBOOKS}
