# pyright: reportMissingImports=false
"""blochsim's side of benchmarks/simulate.py: its simulators and their forward derivatives.

Its own fingerprint inverts ideally whatever B1; ours turns by π B1 and spoils, so the train is
composed of the same events here. Angles are in degrees and times in milliseconds. The pulse of
bloch is one hard pulse a sample, its gradient an off-resonance of each voxel.

rival_torchsim.py runs the same code on torchsim, which blochsim began as.
"""

import importlib
from functools import partial
from typing import Any

import numpy as np
import torch
from rival_timing import measure


def simulators(package: str) -> tuple[Any, Any, Any]:
    """Of a fast spin echo, a fingerprint after a pulse of π, and a sampled pulse."""
    ready = importlib.import_module(f"{package}.simulators")
    events = importlib.import_module(f"{package}.sequence")

    class Fingerprint(ready.MRFSimulator):
        def layout(self, *, flip, TR, TI=0.0, phases=0.0):
            after = super().layout(flip=flip, TR=TR, TI=0.0, phases=phases)[1:]
            inversion = [events.Excitation(torch.pi), events.Spoil(), events.Delay(TI * 1e-3)]
            return [*inversion, *after]

    class Sampled(ready.TrueFISPSimulator):
        def layout(self, *, waveform, dwell):
            return [events.SampledPulse(waveform, dwell), events.Readout()]

    return ready.FSESimulator(), Fingerprint(), Sampled()


def workload(name: str, given: dict, package: str = "blochsim"):
    fse, mrf, sampled = simulators(package)
    tissue = {
        "T1": torch.tensor(1e3 * given["t1_s"]),
        "T2": torch.tensor(1e3 * given["t2_s"]),
        "B1": torch.tensor(given["b1"]),
    }
    train = name.endswith("fse") or name == "design"
    simulator = fse if train else mrf
    flips = torch.tensor(np.rad2deg(given["fse_rad" if train else "mrf_rad"]).astype(np.float32))
    played: dict[str, Any] = {"states": 33, "ESP": 10.0} if train else {}
    if not train:
        played = {"states": 20, "TR": 12.0, "TI": 20.0}
    played["repetitions"] = 1

    def gradient(cost):
        angles = flips.clone().requires_grad_(True)
        cost(angles).backward()
        return angles.grad

    def power(angles):
        return simulator.simulate(flip=angles, **tissue, **played).abs().square().sum()

    def bound(angles):
        crlb = importlib.import_module(f"{package}.optim").crlb
        unknown = {**tissue, "M0": torch.ones_like(tissue["T1"])}
        found = simulator.jacobian(("T1", "T2", "M0"), flip=angles, **unknown, **played)
        return crlb(found[1], noise_variance=1e-4)[..., 1].sqrt().mean()

    def a_radian(found):
        return np.rad2deg(found.numpy())

    if name.startswith("gradient"):
        return lambda: gradient(power), a_radian
    if name == "design":
        return lambda: gradient(bound), lambda found: 1e-3 * a_radian(found)
    if name.startswith("jacobian"):
        per_ms = np.array([1e3, 1e3, 1.0])[:, None]
        slopes = partial(simulator.jacobian, ("T1", "T2", "B1"), flip=flips, **tissue, **played)
        return slopes, lambda found: per_ms * found[1].abs().numpy()
    if name == "bloch":
        waveform = 2 * torch.pi * torch.tensor(given["b1_hz"])
        tissue["B0"] = torch.tensor(3 * given["gradient_hz_per_mm"] * given["position_mm"])
        dwell = float(given["dt_s"])
        simulator, played = sampled, {"waveform": waveform, "dwell": dwell, "states": 1}
    else:
        played["flip"] = flips
    return partial(simulator.simulate, **tissue, **played), lambda found: found.abs().numpy()


if __name__ == "__main__":
    measure(workload)
