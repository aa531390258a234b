"""Rigid motion between shots, simulated and corrected.

    python benchmarks/motion_correction.py

Heads of `learn.reconstruction`, 8 coils, R = 1 and 2, four interleaved shots in poses within ± 4°
and ± 4 mm, noise of sd 0.02 where mean |x|² = 1. PSNR of CG-SENSE that knows nothing of motion, of
`correct_motion`, and of CG-SENSE that is given the poses; means over heads, and the largest errors
of poses.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import mrphys as mr
from learn import reconstruction as lr
from learn.reconstruction.scans import FOV_MM, add_noise
from mrphys.encoding import Encoding, RigidMotion
from mrphys.reconstruction import correct_motion

COILS, SHOTS, NOISE_SD = 8, 4, 0.02
DEG, MM = 4.0, 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    asked = parser.parse_args()
    n, voxel = asked.size, (FOV_MM / asked.size,) * 2
    draw = jax.jit(partial(lr.draw_image, lr.atlas(n, "test")))
    rng = np.random.default_rng(0)
    print("R   uncorrected   corrected   poses known   angle error   shift error   s")
    for r in (1, 2):
        mask = np.zeros((n, n), bool)
        mask[:, ::r] = mask[:, n // 2 - n // 32 : n // 2 + n // 32] = True
        shot = (np.cumsum(mask[0]) % SHOTS)[None]
        rows = []
        for head in range(asked.heads):
            keys = jax.random.split(jax.random.key(head), 3)
            x, coils = draw(keys[0]), lr.draw_coils(COILS, n, keys[1])
            still = Encoding.cartesian(mask, coils)
            A = still.shots(shot, SHOTS)
            angles, shifts = rng.uniform(-DEG, DEG, SHOTS), rng.uniform(-MM, MM, (SHOTS, 2))
            angles[0] = shifts[0] = 0
            motion = RigidMotion(np.deg2rad(angles), shifts, voxel)
            y = mask * add_noise((A @ motion)(x), jnp.asarray(NOISE_SD), keys[2])

            def score(A, y=y, x=x):
                found = mr.reconstruct(A, y, "cg-sense", regularisation=1e-3, iterations=15)
                return float(lr.psnr(found.image, x))

            started = time.perf_counter()
            found = jax.block_until_ready(correct_motion(A, y, voxel))
            seconds = time.perf_counter() - started
            angle = np.rad2deg(np.abs(found.motion.rotation_rad - motion.rotation_rad)).max()
            shift = float(jnp.abs(found.motion.shift_mm - motion.shift_mm).max())
            scores = [score(still), float(lr.psnr(found.image, x)), score(A @ motion)]
            rows.append([*scores, angle, shift, seconds])
        mean, most = np.mean(rows, axis=0), np.max(rows, axis=0)
        print(
            f"{r}   {mean[0]:8.2f} dB {mean[1]:8.2f} dB   {mean[2]:8.2f} dB   {most[3]:9.3f}°   "
            f"{most[4]:8.3f} mm   {mean[5]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
