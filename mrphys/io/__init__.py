"""Files in and out: NIfTI images, Pulseq sequences, ISMRMRD raw data, results in HDF5, folders.

`bids` and `dicom` read the series that maps are made of, `maps` writes those.
"""

from mrphys.io.ismrmrd import write_ismrmrd
from mrphys.io.nifti import read_nifti, write_nifti
from mrphys.io.output import prepare_output_folder, whole_file, write_text
from mrphys.io.pulseq import read_pulseq
from mrphys.io.pulseq_writer import write_pulseq
from mrphys.io.results import provenance, read_results, write_results

__all__ = [
    "prepare_output_folder",
    "provenance",
    "read_nifti",
    "read_pulseq",
    "read_results",
    "whole_file",
    "write_ismrmrd",
    "write_nifti",
    "write_pulseq",
    "write_results",
    "write_text",
]
