"""Images from data, learned; the encoding A is given with the data, never part of a network.

truth       atlas, draw_image, draw_spins        heads that differ: images, tissues
            patient_images                       and patients
data        draw_scan, draw_coils, line_mask     Scan: A, y, x, noise_sd
networks    UNetReconstruction                   x = Aᴴy + u(Aᴴy)
            MoDL, VariationalNetwork             iterations learned
            Denoiser                             D(x, σ), a prior
losses      supervised_loss, ssdu_loss           of images; of samples alone
            denoising_loss                       of noise of any level
priors      sample_posterior, plug_and_play      of any denoiser: samples, one image
judgement   psnr, ssim, nmse, hfen, judge
doubt       draw_lesions, insert_lesions         of which a reconstruction shows a part,
            recovered, invented                  and others that are not there
            replicas, flags_errors               whether an sd tells where an image errs

Learned by `learn.train(net, loss, data, ...)`; batches are scans with a leading axis.
"""

from learn.reconstruction import patients
from learn.reconstruction.anatomy import Atlas, Spins, atlas, draw_image, draw_spins
from learn.reconstruction.hallucination import (
    Lesions,
    draw_lesions,
    insert_lesions,
    invented,
    recovered,
    visibility,
)
from learn.reconstruction.metrics import all_metrics, hfen, nmse, psnr, ssim
from learn.reconstruction.patients import patient_images
from learn.reconstruction.plug_and_play import plug_and_play
from learn.reconstruction.posterior import Posterior, reverse_diffusion, sample_posterior
from learn.reconstruction.scans import Scan, draw_coils, draw_scan, level, line_mask
from learn.reconstruction.score import Denoiser, denoising_loss
from learn.reconstruction.ssdu import split, ssdu_loss
from learn.reconstruction.supervised import judge, normalised_distance, supervised_loss
from learn.reconstruction.uncertainty import flags_errors, replicas
from learn.reconstruction.unet import UNet, UNetReconstruction
from learn.reconstruction.unrolled import MoDL, VariationalNetwork, conjugate_gradients, solve

__all__ = [
    "Atlas",
    "Denoiser",
    "Lesions",
    "MoDL",
    "Posterior",
    "Scan",
    "Spins",
    "UNet",
    "UNetReconstruction",
    "VariationalNetwork",
    "all_metrics",
    "atlas",
    "conjugate_gradients",
    "denoising_loss",
    "draw_coils",
    "draw_image",
    "draw_lesions",
    "draw_scan",
    "draw_spins",
    "flags_errors",
    "hfen",
    "insert_lesions",
    "invented",
    "judge",
    "level",
    "line_mask",
    "nmse",
    "normalised_distance",
    "patient_images",
    "patients",
    "plug_and_play",
    "psnr",
    "recovered",
    "replicas",
    "reverse_diffusion",
    "sample_posterior",
    "solve",
    "split",
    "ssdu_loss",
    "ssim",
    "supervised_loss",
    "visibility",
]
