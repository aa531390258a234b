"""Sensitivities beside SigPy's, of the same kernel, null space and crop."""

import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.coils import espirit, loop_array
from mrphys.encoding import fft

pytestmark = pytest.mark.oracle


def test_espirit_agrees_with_sigpy_up_to_phase(rival):
    n, coils = 64, 8
    at = (np.arange(n) - n // 2) / n * 200.0
    x, y = np.meshgrid(at, at, indexing="ij")
    c = loop_array(np.stack([x, y, 0 * x], -1).reshape(-1, 3), coils, radius_mm=180.0)
    inside = (x / 70) ** 2 + (y / 85) ** 2 < 1
    image = inside * (1 + 0.4 * np.sin(x / 9) * np.cos(y / 7))
    rng = np.random.default_rng(0)
    k = np.asarray(fft(c.reshape(coils, n, n) * jnp.asarray(image)[None], 2))
    k = k + 1e-3 * (rng.normal(size=k.shape) + 1j * rng.normal(size=k.shape))
    theirs = rival("ask_sigpy_espirit", kspace=k)["maps"]
    ours = np.asarray(espirit(k[:, 20:44, 20:44], (n, n)))
    both = inside & (np.abs(theirs).max(0) > 0) & (np.abs(ours).max(0) > 0)
    assert both.sum() > 0.98 * inside.sum()
    cosine = np.abs(np.sum(np.conj(theirs) * ours, axis=0))[both]
    print(f"largest angle between maps: {np.sqrt(1 - min(cosine.min(), 1) ** 2):.1e} rad")
    assert np.sqrt(np.maximum(1 - cosine**2, 0)).max() < 5e-3
