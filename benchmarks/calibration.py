"""Are standard deviations honest? z-scores of everything that quantitative models tell.

    python benchmarks/calibration.py                    # every model at SNR 50 and 20
    python benchmarks/calibration.py epg --snr 10       # some of them

bias      median of (estimate - truth) / truth
z         mean and sd of (estimate - truth) / sd over voxels that are determined; sd 1 if right
excluded  voxels that are not: at a bound, ill-determined, failed
"""

import argparse

import numpy as np
from mapping_models import MODELS
from workload_models import estimated, measured

import mrphys as mr

mr.use_cores()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--snr", type=float, nargs="*", default=[50.0, 20.0])
    parser.add_argument("--voxels", type=int, default=10_000)
    asked = parser.parse_args()
    print(
        f"{'model':14s}{'fit':16s}{'SNR':>4s}  {'of':22s}{'bias':>9s}{'z mean':>9s}{'sd':>8s}",
        end="",
    )
    print(f"{'excluded':>11s}")
    for name, make in MODELS.items():
        if asked.names and name not in asked.names:
            continue
        case = make(asked.voxels)
        for kind in case.kinds:
            for snr in asked.snr:
                data, sd = measured(case, kind, snr)
                found = estimated(case, kind, data, sd)
                for field in case.scored:
                    truth = case.true(field)[found.good]
                    error = found.values[field][found.good] - truth
                    z = error / found.sds[field][found.good]
                    told = (
                        f"{name:14s}{kind:16s}{snr:4g}  {field:22s}"
                        f"{1e2 * np.median(error / truth):7.2f} %{z.mean():9.3f}{z.std():8.3f}"
                        f"{1e2 * (1 - found.good.mean()):9.2f} %"
                    )
                    print(told, flush=True)


if __name__ == "__main__":
    main()
