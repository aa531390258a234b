"""Images as a scanner gives them, written as BIDS has them."""

import json
from pathlib import Path

import numpy as np

from mrphys.io.nifti import write_nifti
from mrphys.volume import Volume

AFFINE = np.array([[-2.0, 0, 0, 30], [0, 2, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])


def put(folder: Path, name: str, data, sidecar: dict | None = None, affine=AFFINE) -> Path:
    """An image (x, y, z) or (x, y, z, readouts) with its sidecar."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.nii.gz"
    write_nifti(path, Volume(np.asarray(data, np.float32), affine))
    if sidecar is not None:
        (folder / f"{name}.json").write_text(json.dumps(sidecar))
    return path


def noisy(signal, noise_sd: float, seed: int = 0) -> np.ndarray:
    """With complex noise."""
    rng = np.random.default_rng(seed)
    signal = np.asarray(signal)
    return signal + noise_sd * (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape))


def diffusion(folder: Path, noise_sd: float = 4.0, shape=(12, 10, 2)) -> np.ndarray:
    """A dwi series of a block of tissue in air; returns its ADC in mm²/s, 0 in air."""
    adc = np.zeros(shape)
    adc[2:-2, 2:-2] = np.linspace(0.6e-3, 2e-3, shape[0] - 4)[:, None, None]
    b = np.array([0.0, 300.0, 700.0, 1000.0])
    x = np.where(adc[..., None] > 0, 400.0 * np.exp(-b * adc[..., None]), 0.0)
    put(folder, "sub-01_dwi", np.abs(noisy(x, noise_sd)), {"EchoTime": 0.07})
    (folder / "sub-01_dwi.bval").write_text("0 300 700 1000\n")
    return adc
