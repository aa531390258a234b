"""What reconstructions take away, make up, and do not know: one table of every method.

    python benchmarks/reconstruction_shift.py --size 64

The methods of benchmarks/learned_reconstruction.py, which trains those that are not yet, and as a
baseline "centre": the L1-wavelet where the scan took as many lines, but the innermost alone, as
learned patterns nearly do. Of 12 test heads, 4 where a posterior is drawn, each row has

shifts      PSNR less that of the L1-wavelet of the same scans, with its sign where the bootstrapped
            95 % interval over images has one, and the AUROC of the method's sd against its errors:
            the chance that a voxel among the worst tenth has a larger sd than another. The sd is
            that of posterior samples, where a method draws any, else of 8 pseudo-replicas
  trained   R = 4 and 8, sd 0.02, 4 coils: seen in training
  R 12      a third fewer lines than ever seen
  noisy     R = 4, sd 0.1: twice the most ever seen
  2 coils, 8 coils    R = 4
  limbs     R = 4, sarcoma of the limbs (MRPHYS_DATA's sarcoma_mr), where there
lesions     inserted in tissue, at R = 4 and 8: three of 60 % more signal and a radius of 1.5
            voxels, or one void of 4 voxels with a bright rim, such as metal makes and no training
            image has
  gone      of which less than half is seen, per cent
  made up   such lesions seen in the image without them, per image

Weights of methods without training are those for PSNR at the nearest trained R: what shifts for
networks shifts for them.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from learned_reconstruction import interval
from learned_reconstruction_models import (
    FOLDER,
    NETWORKS,
    NOISE_SD,
    STEPS,
    UNTRAINED,
    Method,
    images,
    learned,
    posterior,
    reference,
    scanned,
    trained,
    tuned,
    untrained,
)

from learn import reconstruction as lr
from learn import sampling as ls
from learn.reconstruction.hallucination import HALF
from mrphys.errors import InputError

HEADS, DRAWN, LIMB_SLICES = 12, 4, (0.3, 0.6)
SETTINGS: dict[str, dict[str, Any]] = {
    "R 4": {"acceleration": 4},
    "R 8": {"acceleration": 8},
    "R 12": {"acceleration": 12},
    "noisy": {"acceleration": 4, "noise_sd": 5 * NOISE_SD},
    "2 coils": {"acceleration": 4, "coils": 2},
    "8 coils": {"acceleration": 4, "coils": 8},
    "limbs": {"acceleration": 4},
}
KINDS: dict[str, dict[str, Any]] = {
    "small": {"count": 3, "radius": 1.5, "contrast": 0.6},
    "void": {"count": 1, "radius": 4.0, "contrast": -1.0, "rim": 0.5},
}
TISSUE = 0.2
"""Of voxels that count in AUROC, |x|, whose mean square is 1."""
RIVAL = "l1-wavelet"


def centred(x: Any, acceleration: float, key: Any, **how: Any) -> lr.Scan:
    """`scanned`, of the innermost lines alone."""
    scans = scanned(x, 1.0, key, **how)
    mask = ls.lowest((1, x.shape[-1]), round(x.shape[-1] / acceleration))
    weight = scans.A.sampling.weight * mask[None]
    A = eqx.tree_at(lambda A: A.sampling.weight, scans.A, weight)
    return scans._replace(A=A, y=scans.y * mask[None, None])


def limbs(size: int) -> Any:
    """Slices of limbs, or None."""
    try:
        found = lr.patient_images(
            reference("sarcoma_mr"), size, jax.random.key(7), "MR_T1_image.nii.gz",
            slices=LIMB_SLICES,
        )  # fmt: skip
    except InputError:
        return None
    return jnp.concatenate(list(found.values()))


def shifts(
    by_r: dict[int, Method], drawn: Any, size: int, scan: Callable = scanned
) -> dict[str, dict[str, list[float]]]:
    """PSNR and AUROC of each image, by setting. `drawn`: a posterior of (A, y, noise_sd), or None
    for pseudo-replicas."""
    heads, other, found = images(size, "test", 32, jax.random.key(3)), limbs(size), {}
    heads = heads[: HEADS if drawn is None else DRAWN]
    for name, how in SETTINGS.items():
        x = other if name == "limbs" else heads
        if x is None:
            continue
        scans = scan(x, key=jax.random.key(8), **how)
        method = by_r[4 if how["acceleration"] < 6 else 8]

        @jax.jit
        def one(scan: lr.Scan, key: Any, method: Method = method) -> Any:
            if drawn is not None:
                made = drawn(scan.A, scan.y, scan.noise_sd)
                return made.mean, made.sd
            made = method(scan.A, scan.y, scan.noise_sd)

            def again(A: Any, y: Any) -> Any:
                return method(A, y, scan.noise_sd)

            return made, lr.replicas(again, scan.A, scan.y, scan.noise_sd, key).sd

        found[name] = {"psnr": [], "auroc": []}
        for i, key in enumerate(jax.random.split(jax.random.key(9), x.shape[0])):
            made, sd = one(jax.tree.map(lambda leaf, i=i: leaf[i], scans), key)
            found[name]["psnr"].append(float(lr.psnr(made, x[i])))
            error = np.abs(np.abs(made) - np.abs(x[i]))
            found[name]["auroc"].append(lr.flags_errors(sd, error, np.abs(x[i]) > TISSUE))
    return found


def lesions(
    by_r: dict[int, Method], drawn: Any, size: int, scan: Callable = scanned
) -> dict[str, dict[str, list[Any]]]:
    """Of each image what is left of its lesions, and how many are made up, by kind and R."""
    x, found = images(size, "test", 32, jax.random.key(3)), {}
    x = x[: HEADS if drawn is None else DRAWN]
    for r, method in by_r.items():
        scans = scan(x, r, jax.random.key(10))
        for kind, how in KINDS.items():

            @jax.jit
            def one(scan: lr.Scan, key: Any, method: Method = method, how: Any = how) -> Any:
                of = lr.draw_lesions(scan.x, key, **how)
                truth = lr.insert_lesions(scan.x, of)
                y = scan.y + scan.A(truth - scan.x)
                made = method(scan.A, y, scan.noise_sd)
                without = method(scan.A, scan.y, scan.noise_sd)
                return lr.recovered(made, truth, scan.x, of), lr.invented(without, scan.x, of)

            rows = []
            for i, key in enumerate(jax.random.split(jax.random.key(11), x.shape[0])):
                rows.append(
                    jax.device_get(one(jax.tree.map(lambda leaf, i=i: leaf[i], scans), key))
                )
            left, made_up = zip(*rows, strict=True)
            found[f"{kind}, R {r}"] = {
                "left": np.concatenate(left).tolist(), "made up": [int(n) for n in made_up],
            }  # fmt: skip
    return found


def table(told: dict[str, dict[str, Any]]) -> None:
    """A row a method."""
    first = next(iter(told.values()))
    names, kinds = list(first["shifts"]), list(first["lesions"])
    print("PSNR of l1-wavelet, and what others add to it; AUROC of the sd")
    print(f"{'':16s}" + "".join(f"{name:>15s}" for name in names))
    for name, of in told.items():
        text = f"{name:16s}"
        for setting in names:
            now, rival = (each["shifts"][setting] for each in (of, told[RIVAL]))
            away = np.array(now["psnr"]) - np.array(rival["psnr"][: len(now["psnr"])])
            low, high = interval(away)
            mark = "+" if low > 0 else "-" if high < 0 else "~"
            psnr = (
                f"{np.mean(rival['psnr']):6.1f} " if name == RIVAL else f"{away.mean():+6.1f}{mark}"
            )
            text += f"  {psnr} {np.mean(now['auroc']):.2f} "
        print(text)
    print("\nlesions: gone, %; made up, per image")
    print(f"{'':16s}" + "".join(f"{kind:>15s}" for kind in kinds))
    for name, of in told.items():
        text = f"{name:16s}"
        for kind in kinds:
            row = of["lesions"][kind]
            gone = 100 * np.mean(np.array(row["left"]) < HALF)
            text += f"  {gone:6.0f} {np.mean(row['made up']):5.1f} "
        print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="*", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--size", type=int, choices=STEPS, default=64)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    asked = parser.parse_args()
    size, folder = asked.size, asked.folder
    folder.mkdir(parents=True, exist_ok=True)
    told: dict[str, dict[str, Any]] = {}

    def measure(
        name: str, by_r: dict[int, Method], drawn: Any = None, scan: Callable = scanned
    ) -> None:
        path = folder / f"shift_{name}_{size}.json"
        if not path.exists():
            rows = {
                "shifts": shifts(by_r, drawn, size, scan),
                "lesions": lesions(by_r, drawn, size, scan),
            }
            path.write_text(json.dumps(rows, indent=1))
            print(f"{name} measured", flush=True)
        told[name] = json.loads(path.read_text())

    weights = tuned(size, folder)
    for name in UNTRAINED:
        measure(name, {int(r): untrained(name, of["psnr"]) for r, of in weights[name].items()})
    wavelets = {int(r): untrained(RIVAL, of["psnr"]) for r, of in weights[RIVAL].items()}
    measure("centre", wavelets, scan=centred)
    for name in asked.methods:
        net, _ = trained(name, size, folder)
        for each, method in learned(name, net).items():
            drawn = partial(posterior, net) if each == "posterior mean" else None
            measure(each, {4: method, 8: method}, drawn)
    table(told)


if __name__ == "__main__":
    main()
