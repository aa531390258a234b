"""Learned reconstruction on a real radial brain, which no training knew: half and a quarter of the
spokes against all of them.

    make data; python benchmarks/radial_learned.py --size 64

The head of benchmarks/radial_brain.py (32 coils, 64 spokes), virtual coils of 99 % of the energy,
ESPIRiT maps, k-space out to what 64² voxels of 4 mm hold. Networks are those of
benchmarks/learned_reconstruction.py, trained there first if they are not yet: on lines of a grid,
4 loops and simulated heads. Samples are weighted by the root of their density, at most 1, which is
what they learned: AᴴA the identity where k-space is full. CG-SENSE, wavelets and total variation
have the weights that are the best against the reference, which none could know. PSNR and SSIM
against CG-SENSE of all spokes; `others` the relative error, in per cent, on the spokes left out,
where noise has its part. One head: no intervals.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from learned_reconstruction_models import (
    FOLDER,
    NETWORKS,
    STEPS,
    UNTRAINED,
    WEIGHTS,
    learned,
    trained,
    untrained,
)

import mrphys as mr
from learn import reconstruction as lr
from mrphys.coils import compression, espirit
from mrphys.reconstruction import density

BRAIN = Path(".cache/data/radial_brain.h5")


class Radial(NamedTuple):
    """Spokes within a smaller matrix: k (spokes, samples, 2), y (coils, spokes, samples)."""

    k: Any
    y: Any
    coils: Any

    def scan(self, which: Any, weighted: bool) -> tuple[Any, Any]:
        """A and y of some spokes."""
        k, y = self.k[which].reshape(-1, 2), self.y[:, which].reshape(self.y.shape[0], -1)
        A = mr.Encoding.noncartesian(k, self.coils, tolerance=1e-5)
        if not weighted:
            return A, y
        root = jnp.sqrt(jnp.minimum(density(A), 1.0))
        return A.weighted(root), y * root[None]


def radial(path: Path, size: int) -> tuple[Radial, float]:
    """With the noise's sd, images having mean |x|² of about 1."""
    raw = mr.io.read_raw(path)
    raw = raw.mixed(compression(raw.y, 0.99))
    coils = espirit(raw.calibration(), (size, size))
    k = np.asarray(raw.trajectory).reshape(raw.readouts, -1, 2)
    y = np.asarray(raw.y).reshape(raw.coils, raw.readouts, -1)
    inside = (np.hypot(*np.moveaxis(k, -1, 0)) < size / 2 - 0.5).all(axis=0)
    of = Radial(jnp.asarray(k[:, inside]), jnp.asarray(y[:, :, inside]), coils)
    x = reference(of)
    scale = float(jnp.sqrt(jnp.mean(jnp.abs(x) ** 2)))
    return of._replace(y=of.y / scale), raw.edge_noise_sd() / scale


def reference(of: Radial) -> Any:
    A, y = of.scan(np.arange(of.k.shape[0]), weighted=False)
    return mr.reconstruct(A, y, "cg-sense", regularisation=1e-3, iterations=20).image


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=BRAIN)
    parser.add_argument("--methods", nargs="*", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--size", type=int, choices=STEPS, default=64)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    asked = parser.parse_args()
    of, noise_sd = radial(asked.data, asked.size)
    truth, every = reference(of), np.arange(of.k.shape[0])
    nets = {name: trained(name, asked.size, asked.folder)[0] for name in asked.methods}
    print(f"{of.coils.shape[0]} virtual coils, noise of sd {noise_sd:.3f} where mean |x|² = 1")
    print(f"{'':16s}spokes   PSNR    SSIM   others, %")
    for spokes in (32, 16):
        kept = every[:: every.size // spokes]
        A, y = of.scan(kept, weighted=True)
        rest, others = of.scan(np.setdiff1d(every, kept), weighted=False)

        images = {"adjoint": A.H(y)}
        for name in UNTRAINED:
            solve = jax.jit(lambda A, y, weight, name=name: untrained(name, weight)(A, y, noise_sd))
            each = [solve(A, y, weight) for weight in WEIGHTS]
            images[name] = max(each, key=lambda x: float(lr.psnr(x, truth)))
        for net_name, net in nets.items():
            for name, method in learned(net_name, net).items():
                images[name] = jax.jit(method)(A, y, noise_sd)
        for name, x in images.items():
            off = 100 * float(jnp.linalg.norm(rest(x) - others) / jnp.linalg.norm(others))
            psnr, ssim = float(lr.psnr(x, truth)), float(lr.ssim(x, truth))
            print(f"{name:16s}{spokes:6d}  {psnr:5.2f}  {ssim:.4f}  {off:9.1f}", flush=True)


if __name__ == "__main__":
    main()
