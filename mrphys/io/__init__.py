"""Files in and out: NIfTI images, results in HDF5, output folders."""

from mrphys.io.nifti import read_nifti, write_nifti
from mrphys.io.output import prepare_output_folder, whole_file, write_text
from mrphys.io.results import provenance, read_results, write_results

__all__ = [
    "prepare_output_folder",
    "provenance",
    "read_nifti",
    "read_results",
    "whole_file",
    "write_nifti",
    "write_results",
    "write_text",
]
