"""NumPy files that users give: read whole, bounded in size, and never unpickled."""

import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["load_arrays"]


def load_arrays(
    field: str,
    path: str | PathLike[str],
    *,
    single: str | None = None,
    max_bytes: int | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of a file.

    Parameters
    ----------
    field : str
        What the file is, for messages.
    path : path
        An ``.npz`` archive, or an ``.npy`` file.
    single : str, optional
        Name for the array of an ``.npy`` file; without, there must be an archive.
    max_bytes : int, optional
        Most bytes of all arrays of an archive together.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        If the file cannot be read, is damaged or too large, or needs pickle.
    """
    kinds = ".npz" if single is None else ".npy or .npz"
    try:
        # Opened here, because NumPy leaves the file open when it is not a whole archive.
        with Path(path).open("rb") as file:
            try:
                if single is not None and not zipfile.is_zipfile(file):
                    file.seek(0)
                    return {single: np.load(file, allow_pickle=False)}
                with zipfile.ZipFile(file) as archive:
                    size = sum(entry.file_size for entry in archive.infolist())
                if max_bytes is not None and size > max_bytes:
                    raise ValueError(f"larger than {max_bytes >> 20} MB")
                file.seek(0)
                with np.load(file, allow_pickle=False) as loaded:
                    return dict(loaded)
            except Exception as error:  # a damaged archive makes zlib, zipfile or NumPy raise any
                reason = str(error).partition("\n")[0]
                raise ValueError(
                    f"{field} must be a whole {kinds} file without pickled objects, "
                    f"not {str(path)!r} ({reason})"
                ) from None
    except OSError as error:
        raise ValueError(
            f"{field} must be a readable file, not {str(path)!r} ({error.strerror})"
        ) from None
