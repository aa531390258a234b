"""A long run in parts: interrupted anywhere, it goes on from its last checkpoint, nothing lost."""

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from mrphys.errors import InputError, Problem
from mrphys.io.output import prepare_output_folder, whole_file
from mrphys.units import check_count
from oncology.growth import Parameters, ReactionDiffusion
from oncology.timeline import Steps, integrate
from oncology.treatment import Plan


def integrate_resumably(
    model: ReactionDiffusion,
    plan: Plan,
    p: Parameters,
    u: Float[Array, "x y z"],
    steps: Steps,
    checkpoint: str | Path,
    *,
    every: int = 20,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Float[Array, "x y z"]:
    """The state at the end of `steps`, as `timeline.integrate`, by way of a file.

    After every so many steps the state is written to `checkpoint` (.npz, whole or not at all), and
    `progress(done, of)` is called. The same call again goes on from there, to the same bits as a
    run that was never interrupted; a finished one returns what is there.

    Raises InputError for a checkpoint of another run (another model, plan, parameters, first state
    or steps), one that is damaged, and a folder that cannot be written.
    """
    path = Path(checkpoint)
    check_count("integrate_resumably: every", every)
    prepare_output_folder(path.parent)
    name = _digest((model, plan, dict(p), u, steps, every))
    done, state = _read(path, name) if path.exists() else (0, np.asarray(u))
    count = len(steps.start_day)
    now = jnp.asarray(state)
    run = eqx.filter_jit(integrate)
    while done < count:
        upto = min(done + every, count)
        part = jax.tree.map(lambda column, a=done, b=upto: column[a:b], steps)
        now = run(model, plan, p, now, part)
        done = upto
        with whole_file(path) as draft:
            np.savez(draft, run=name, done=done, state=np.asarray(now))
        progress(done, count)
    return now


def _digest(everything: PyTree) -> str:
    """Of all arrays and all else that a run depends on."""
    leaves, structure = jax.tree.flatten(everything)
    told = hashlib.sha256(str(structure).encode())
    for leaf in leaves:
        values = np.asarray(leaf)
        told.update(f"{values.dtype} {values.shape}".encode())
        told.update(np.ascontiguousarray(values).tobytes())
    return told.hexdigest()


def _read(path: Path, name: str) -> tuple[int, np.ndarray]:
    """Steps done, and the state after them."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            run, done, state = str(file["run"]), int(file["done"]), file["state"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        cause = "another file of that name; remove it to begin anew"
        found = f"a file that cannot be read ({error})"
        raise InputError(Problem(str(path), found, "a checkpoint", cause)) from error
    if run != name:
        cause = "a parameter or the grid changed since; remove the file to begin anew"
        raise InputError(Problem(str(path), "a checkpoint of another run", "one of this", cause))
    return done, state
