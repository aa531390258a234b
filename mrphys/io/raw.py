"""Raw data in, whichever of the formats they are in."""

from pathlib import Path

import h5py

from mrphys.io.fastmri import read_fastmri
from mrphys.io.ismrmrd_reader import open_hdf5, read_ismrmrd
from mrphys.raw import RawData


def read_raw(path: str | Path) -> RawData:
    """Raw data of an ISMRMRD or fastMRI file, told apart by what they hold.

    Raises InputError as `read_ismrmrd` and `read_fastmri` do.
    """
    with open_hdf5(path) as file:
        is_fastmri = isinstance(file.get("kspace"), h5py.Dataset)
    return read_fastmri(path) if is_fastmri else read_ismrmrd(path)
