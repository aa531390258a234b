"""Files in and out: NIfTI images, Pulseq sequences, ISMRMRD raw data, results in HDF5, folders.

`bids` and `dicom` read the series that maps are made of, `maps` writes those. `read_raw` is for
ISMRMRD and fastMRI, `scan_data` for what `simulate_scan` made.
"""

from mrphys.io.fastmri import read_fastmri
from mrphys.io.ismrmrd import write_ismrmrd
from mrphys.io.ismrmrd_reader import read_ismrmrd
from mrphys.io.nifti import read_nifti, write_nifti
from mrphys.io.output import prepare_output_folder, whole_file, write_text
from mrphys.io.pulseq import read_pulseq
from mrphys.io.pulseq_readouts import write_readouts
from mrphys.io.pulseq_writer import write_pulseq
from mrphys.io.raw import read_raw
from mrphys.io.raw_writer import write_raw
from mrphys.io.results import provenance, read_results, write_results
from mrphys.io.scan_data import scan_data

__all__ = [
    "prepare_output_folder",
    "provenance",
    "read_fastmri",
    "read_ismrmrd",
    "read_nifti",
    "read_pulseq",
    "read_raw",
    "read_results",
    "scan_data",
    "whole_file",
    "write_ismrmrd",
    "write_nifti",
    "write_pulseq",
    "write_raw",
    "write_readouts",
    "write_results",
    "write_text",
]
