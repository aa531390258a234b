"""Learned maps beside `mr.fit` and the Cramér-Rao bound, on the same data.

    python benchmarks/learned_mapping.py               # the table
    python benchmarks/learned_mapping.py t2 --steps 1000

Truth is drawn from the prior learned from; the noise's sd is the mean over voxels of the largest
readout, over the SNR, in the real part; 20,000 voxels, float32, one CPU device a core, speed the
fastest of three warm rounds. Of the first free field:

bias     median of (estimate - truth) / truth
rmse     root mean square of (estimate - truth) / truth
bound    the same of the Cramér-Rao sd: less than it is possible where the prior says more than data
z        sd of (estimate - truth) / sd; 1 if right
used     voxels that are CONVERGED, which the others are of

t2     8 gradient echoes, complex;  magnitude: their magnitudes, Rician
vfa    T1 from 4 flip angles, B1 given
epg    T2 and B1 from 16 echoes of 150°, magnitudes; B1 from 0.6 to 1.0

Floor of a learned map: a product with each weight, 2 (inputs width + depth width² + ...) flops: for
width 64, depth 3 and 9 to 17 inputs 30 kflop a voxel beside one signal: 1.3 million voxels a second
a core at 40 Gflop/s.
"""

import argparse
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from timing import fastest_s

import learn
import mrphys as mr
from mrphys.mapping import CONVERGED
from mrphys.voxelwise import with_fields

mr.use_cores()
VOXELS = 20_000
SNRS = (100.0, 50.0, 20.0)


class Case(NamedTuple):
    """A workload: acquisition, prior, what is free and given, the kind of data."""

    theta: Any
    prior: dict[str, tuple[float, float]]
    free: tuple[str, ...]
    given: tuple[str, ...] = ()
    data: Any = "complex"


def cases() -> dict[str, Case]:
    s = mr.sequence
    echoes = s.multi_echo_gradient_echo(0.012 * np.arange(1, 9))
    train = s.spin_echo_train(np.full(16, np.deg2rad(150)), 0.01)
    flips = np.deg2rad([2, 4, 10, 18])
    t2 = {"t2_s": (0.03, 0.2)}
    return {
        "t2": Case(echoes, t2, ("t2_s", "m0")),
        "magnitude": Case(echoes, t2, ("t2_s", "m0"), data="magnitude"),
        "vfa": Case(
            s.spoiled_gradient_echo(flips, 0.002, 0.012),
            {"t1_s": (0.4, 2.5), "b1": (0.8, 1.2)},
            ("t1_s", "m0"),
            ("b1",),
        ),
        "epg": Case(train, t2 | {"b1": (0.6, 1.0)}, ("t2_s", "b1", "m0"), data="magnitude"),
    }


def truth(case: Case) -> tuple[Any, Any, float]:
    """Tissue of the prior, its signal, and the mean of its largest readout."""
    rng = np.random.default_rng(0)
    names = tuple(case.prior)
    some = [jnp.asarray(rng.uniform(*case.prior[name], VOXELS), jnp.float32) for name in names]
    q: Any = with_fields(mr.Tissue(t1_s=1.0, t2_s=0.1), names, some)
    x = mr.simulate(case.theta, q)
    return q, x, float(jnp.mean(jnp.max(jnp.abs(x), axis=-1)))


def rows(name: str, case: Case, learned: learn.LearnedMapping, snr: float) -> list[str]:
    q, x, level = truth(case)
    sd = level / snr
    x = mr.noise.complex_gaussian(case.theta, x, sd, jax.random.key(0))
    data = jnp.abs(x) if case.data == "magnitude" else x
    known: Any = {"known": q} if case.given else {}
    bounds: Any = {"bounds": {"b1": (0.4, 1.15)}} if name == "epg" else {}
    field = case.free[0]
    limit = mr.cramer_rao(case.theta, q, case.free, noise_sd=sd, rician=case.data != "complex")
    exact = np.asarray(getattr(q, field))
    bound = np.asarray(limit[field]) / exact
    lines = []
    for method, run in (
        ("learned", lambda: learned(data, sd, **known)),
        ("fit", lambda: mr.fit(case.theta, data, case.free, sd, **known, **bounds)),
    ):
        seconds, found = fastest_s(run)
        good = np.asarray(found.status) == CONVERGED
        error = (np.asarray(getattr(found.value, field)) - exact)[good]
        z = error / np.asarray(getattr(found.sd, field))[good]
        relative = error / exact[good]
        lines.append(
            f"{name:10s}{snr:6g}  {method:8s}{1e2 * np.median(relative):8.2f} %"
            f"{1e2 * np.sqrt(np.mean(relative**2)):8.2f} %"
            f"{1e2 * np.sqrt(np.mean(bound[good] ** 2)):8.2f} %{np.std(z):8.3f}"
            f"{1e2 * good.mean():8.2f} %{VOXELS / seconds:12,.0f}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--steps", type=int, default=4000)
    asked = parser.parse_args()
    print("model        SNR  method        bias      rmse     bound       z      used    voxels/s")
    for name, case in cases().items():
        if asked.names and name not in asked.names:
            continue
        level = truth(case)[2]
        noise = level / max(SNRS) / 2, level / min(SNRS) * 2
        started = time.perf_counter()
        learned = learn.learn_mapping(
            case.theta, case.prior, noise, case.free, given=case.given, data=case.data,
            steps=asked.steps, key=jax.random.key(0),
        )  # fmt: skip
        seconds = time.perf_counter() - started
        for snr in SNRS:
            print("\n".join(rows(name, case, learned, snr)), flush=True)
        print(f"{'':10s}learned in {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
