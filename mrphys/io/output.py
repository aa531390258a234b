"""Files that appear whole or not at all, in folders known to be writable."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from mrphys.errors import InputError, Problem


def prepare_output_folder(path: str | Path) -> Path:
    """The folder, made when absent and shown to be writable by writing in it.

    Raises InputError when it cannot be made or written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _not_writable(folder, error) from error
    return folder


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A name beside `path` to write to; the file takes its place when the block ends well.

    The name ends as `path` does, so that a writer choosing the format by suffix chooses the same.
    Raises InputError when the folder cannot be written. An error in the block leaves `path` as it
    was, and nothing beside it.
    """
    path = Path(path)
    draft = path.with_name(f".{uuid4().hex[:8]}-{path.name}")
    try:
        draft.touch()
    except OSError as error:
        raise _not_writable(path.parent, error) from error
    try:
        yield draft
        if path.is_dir():
            raise InputError(Problem(str(path), "a folder", "a file to write, or no such name"))
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text whole or not at all. Raises InputError when the folder cannot be written."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="\n")


def _not_writable(folder: Path, error: OSError) -> InputError:
    causes = {
        FileExistsError: "a file has this name",
        NotADirectoryError: "part of the path is a file",
        FileNotFoundError: "the folder does not exist",
        PermissionError: "another owner, or a read-only disk",
    }
    return InputError(
        Problem(
            str(folder),
            f"a folder that cannot be written ({error.strerror})",
            "a folder that can",
            causes.get(type(error), "a read-only or special file system"),
        )
    )
