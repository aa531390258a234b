from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys import InputError

FLIPS = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(20) * np.pi / 10)))
THETA = mr.sequence.fingerprinting_fisp(FLIPS, 0.015, averages=np.linspace(1.0, 2.0, 20))
GRID = {"t1_s": np.geomspace(0.3, 3, 20), "t2_s": np.geomspace(0.02, 0.5, 20)}
FREE = ("t1_s", "t2_s", "m0")
NOISE_SD = 2e-3


@cache
def book(**options: Any):
    return mr.fingerprint.dictionary(THETA, GRID, block=256, **options)


@cache
def signals():
    """Of entries, and of tissues between them with noise."""
    rng = np.random.default_rng(0)
    q = mr.Tissue(
        t1_s=rng.uniform(0.5, 2, 400),
        t2_s=rng.uniform(0.04, 0.2, 400),
        m0=rng.uniform(0.8, 1.2, 400),
    )
    exact = mr.simulate(THETA, book().entries)
    x = mr.noise.complex_gaussian(THETA, mr.simulate(THETA, q), NOISE_SD, jax.random.key(0))
    return exact, q, x


@pytest.mark.core
def test_an_entry_is_found_again(rtol):
    exact, *_ = signals()
    for options in ({}, {"magnitude": True}):
        some = book(**options)
        x = 3 * (jnp.abs(exact) if options.get("magnitude") else exact * 1j)
        match = some.match(x, block=64 if options else 1024)
        np.testing.assert_array_equal(match.index, np.arange(len(exact)))
        np.testing.assert_array_equal(match.value.t2_s, some.entries.t2_s)
        np.testing.assert_allclose(match.value.m0, 3, rtol=rtol(1e-12, 1e-4))
        np.testing.assert_allclose(match.correlation**2, 1, atol=some.lost * 1.01 + rtol(0, 1e-6))
        phase = 0.0 if options.get("magnitude") else np.pi / 2
        np.testing.assert_allclose(match.phase_rad, phase, atol=rtol(1e-12, 1e-4))
    assert (book().entries.t2_s <= book().entries.t1_s).all()
    assert len(exact) == np.sum(GRID["t2_s"][None] <= GRID["t1_s"][:, None])


def test_compression_costs_no_more_than_it_says():
    exact, _, x = signals()
    gain = np.sqrt(THETA.averages)
    atoms = np.asarray(exact) * gain
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    rows = np.asarray(x) * gain
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = np.abs(rows @ atoms.conj().T)
    ranks = []
    for energy in (0.99, 1 - 1e-3, 1.0):
        some = book(energy=energy)
        held = some.basis @ (some.basis.conj().T @ atoms.T)
        left = 1 - np.sum(np.abs(held) ** 2, axis=0)
        assert left.mean() <= 1 - energy + 1e-12
        np.testing.assert_allclose(some.lost, left.max(), atol=1e-12)
        found = scores[np.arange(len(rows)), some.match(x).index]
        short = scores.max(axis=1) - found
        assert short.max() <= 2 * (np.sqrt(some.lost) + some.lost) + 1e-12
        ranks.append(some.atoms.shape[1])
        if energy == 0.99:
            assert short.max() > 1e-6  # there is something to lose
    assert ranks == sorted(set(ranks)) and ranks[-1] <= 20
    fewer = np.linalg.svd(atoms, compute_uv=False) ** 2
    assert np.sum(fewer[: ranks[1] - 1]) / np.sum(fewer) < 1 - 1e-3  # one less would not do


def test_off_the_grid_the_fit_reaches_the_bound_and_the_match_does_not():
    _, q, x = signals()
    match = book().match(x)
    est = mr.fit(THETA, x, FREE, NOISE_SD, start=match.value)
    bound = mr.cramer_rao(THETA, q, FREE, noise_sd=NOISE_SD)
    assert (est.status == mr.mapping.CONVERGED).all()
    for name in ("t1_s", "t2_s"):
        error = {
            "match": getattr(match.value, name) - getattr(q, name),
            "fit": getattr(est.value, name) - getattr(q, name),
        }
        step = np.log(GRID[name][1] / GRID[name][0]) / np.sqrt(12) * getattr(q, name)
        off = {key: np.sqrt(np.mean((e / bound[name]) ** 2)) for key, e in error.items()}
        assert abs(off["fit"] - 1) < 0.1 and off["match"] > 2
        assert np.sqrt(np.mean((error["match"] / step) ** 2)) < 2.5  # of a grid's own rounding
        score = error["fit"] / getattr(est.sd, name)
        assert abs(score.std() - 1) < 0.1 and abs(score.mean()) < 0.2


def test_memory_is_a_block_of_scores():
    some, voxels = book(), 4096
    x = jax.ShapeDtypeStruct((voxels, 20), jnp.result_type(some.atoms))
    large = replace(
        some,
        entries=jax.tree.map(lambda leaf: jnp.tile(leaf, 10), some.entries),
        atoms=jnp.tile(some.atoms, (10, 1)),
        size=jnp.tile(some.size, 10),
    )

    def bytes_beyond(block):
        match = jax.jit(lambda x: large.match(x, block=block).index)
        needed: Any = match.lower(x).compile().memory_analysis()
        return needed.temp_size_in_bytes

    every_pair = voxels * large.size.size * some.size.dtype.itemsize
    fixed = 4 * voxels * 20 * some.atoms.dtype.itemsize
    for block in (64, 256):
        assert bytes_beyond(block) < fixed + 8 * block**2 * some.size.dtype.itemsize
    assert fixed < every_pair / 5


def test_masked_and_empty_voxels_are_no_match():
    _, _, x = signals()
    x = x[:3].at[0].set(jnp.nan).at[1].set(0)
    match = book().match(x, mask=np.array([False, True, True]))
    np.testing.assert_array_equal(match.value.m0 == 0, [True, True, False])
    np.testing.assert_array_equal(match.correlation == 0, [True, True, False])


def test_bad_input_is_named():
    _, _, x = signals()
    make = mr.fingerprint.dictionary
    for call, words in (
        (lambda: make(THETA, {}), "no field"),
        (lambda: make(THETA, {"t3_s": [1.0]}), "'t3_s'"),
        (lambda: make(THETA, {"t1_s": []}), "t1_s"),
        (lambda: make(THETA, {"t1_s": [1.0], "t2_s": [2.0]}), "T2 above T1"),
        (lambda: make(THETA, {"m0": [1.0]}), "m0"),
        (lambda: make(THETA, GRID, energy=2.0), "energy"),
        (lambda: make(THETA, GRID, known=mr.Tissue([1.0, 2.0], 0.1)), "a map"),
        (lambda: make(THETA, {"b1": [0.0, 1.0]}), "without signal"),
        (lambda: book().match(x[:, :3]), "20 readouts"),
        (lambda: book().match(jnp.abs(x)), "real numbers"),
        (lambda: book(magnitude=True).match(x), "complex"),
        (lambda: book().match(x.at[3, 1].set(jnp.nan)), "match: x"),
        (lambda: book().match(x, mask=np.ones(2, bool)), "match: mask"),
    ):
        with pytest.raises(InputError, match=words):
            call()
