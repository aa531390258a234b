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


B_S_PER_MM2 = (0.0, 300.0, 700.0, 1000.0)


def diffusion_images(noise_sd: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """ADC in mm²/s of a block of tissue, 0 in the air around, and magnitudes of each b-value."""
    adc = np.zeros((12, 10, 2))
    adc[2:-2, 2:-2] = np.linspace(0.6e-3, 2e-3, 8)[:, None, None]
    signal = 400.0 * np.exp(-np.array(B_S_PER_MM2) * adc[..., None])
    return adc, np.abs(noisy(np.where(adc[..., None] > 0, signal, 0.0), noise_sd))


def diffusion(folder: Path, noise_sd: float = 4.0) -> np.ndarray:
    """The same as a series on disk; returns the ADC."""
    adc, images = diffusion_images(noise_sd)
    put(folder, "sub-01_dwi", images, {"EchoTime": 0.07})
    (folder / "sub-01_dwi.bval").write_text(" ".join(map(str, B_S_PER_MM2)))
    return adc
