"""Designs worth knowing, each a function that returns a `Study`: design, table and pictures.

vfa           flip angles of a spoiled gradient echo for T1
diffusion     b-values and averages for the ADC
fse           a refocusing train for sharpness at equal power
fingerprint   flips and repetition times for T1 and T2
dce           when to sample a contrast-enhanced series
contrast      a gradient echo that tells two tissues apart in a given time

draw          a Study as a figure
"""

from learn.design_studies.contrast import contrast
from learn.design_studies.dce import dce
from learn.design_studies.diffusion import diffusion
from learn.design_studies.fingerprint import fingerprint, jiang_train, realised_sd
from learn.design_studies.fse import fse
from learn.design_studies.study import Line, Panel, Row, Study, draw
from learn.design_studies.vfa import vfa

__all__ = [
    "Line",
    "Panel",
    "Row",
    "Study",
    "contrast",
    "dce",
    "diffusion",
    "draw",
    "fingerprint",
    "fse",
    "jiang_train",
    "realised_sd",
    "vfa",
]
