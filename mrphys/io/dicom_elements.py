"""Elements of a DICOM frame: of its own functional groups, those shared by all, and of the file."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset


def value(layers: Sequence[Dataset], *keywords: str) -> Any:
    """The first of these elements, in a frame's own groups before the shared ones and the file."""
    for keyword in keywords:
        for layer in layers[:-1]:
            for group in layer:
                for item in group.value if group.VR == "SQ" else ():
                    if item.get(keyword) is not None:
                        return item[keyword].value
        if layers[-1].get(keyword) is not None:
            return layers[-1][keyword].value
    return None


def private(layers: Sequence[Dataset], group: int, creator: str, element: int) -> Any:
    """The first private element of that creator, also in a vendor's own groups of a frame."""
    for dataset in _blocks(layers):
        try:
            return dataset.private_block(group, creator)[element].value
        except KeyError:
            continue
    return None


def _blocks(layers: Sequence[Dataset]) -> Iterator[Dataset]:
    for layer in layers[:-1]:
        for own in layer:
            if own.tag.is_private and own.VR == "SQ":
                yield from own.value
    yield layers[-1]


def first_number(given: Any) -> float | None:
    """The first number of an element."""
    if given is None or isinstance(given, str):
        return None
    many = np.ravel(np.asarray(given, float))
    return float(many[0]) if many.size and np.isfinite(many[0]) else None


def as_numbers(given: Any) -> np.ndarray | None:
    """Of a private element, also where the file does not tell its type."""
    if given is None:
        return None
    try:
        text = given.rstrip(b"\0 ").decode("ascii") if isinstance(given, bytes) else given
        parts = text.split("\\") if isinstance(text, str) else text
        return np.ravel(np.asarray(parts, float))
    except ValueError:
        if not isinstance(given, bytes) or len(given) % 4:
            return None
        return np.frombuffer(given, "<f4" if len(given) % 8 else "<f8")
