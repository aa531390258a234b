"""`mrphys design NAME`: acquisitions that leave least uncertainty, study by study."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import TextColumn
from rich.table import Table

from mrphys.errors import InputError, Problem
from oncology.cli_bar import counted

design = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Acquisitions that leave least uncertainty within time, power and hardware.",
    epilog="Each study starts from a common acquisition and changes it by the gradient of the "
    "Cramér-Rao bound, the smallest standard deviation any fit can reach. It prints what was "
    "gained and writes NAME.json and a figure NAME.png. Start with `mrphys design diffusion`: "
    "seconds, and its optimum is known in closed form.",
)

OUT = typer.Option("--out", "-o", help="Folder for the results; made if it is not there.")
JSON = typer.Option("--json", help="Print the result as JSON on standard output.")
STEPS = typer.Option(min=1, help="Steps of each search; it stops sooner when it converges.")
STARTS = typer.Option(min=1, help="Searches, the first from the common acquisition.")
FOLDER = Path("results/design")


def _numbers(option: str, text: str) -> list[float]:
    """Numbers separated by commas."""
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found:
        raise InputError(
            Problem(option, repr(text), "numbers separated by commas, such as 0.8,1.5")
        )
    return found


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int, float], None]]:
    with counted(TextColumn("loss {task.fields[loss]}")) as progress:
        bar = progress.add_task(name, total=None, loss="")
        yield lambda step, of, value: progress.update(
            bar, completed=step, total=of, loss=f"{value:.4g}"
        )


def _run(
    name: str,
    study: Callable[..., Any],
    out: Path,
    as_json: bool,
    seq: Path | None = None,
    single: bool = False,
    **given: Any,
) -> None:
    """The study, its files, and what is printed; in float32 where `single`."""
    import jax

    from learn.design_studies import draw
    from mrphys.io.output import prepare_output_folder, whole_file, write_text
    from mrphys.io.pulseq_writer import write_pulseq

    started = time.time()
    prepare_output_folder(out)
    if seq is not None:
        if seq.suffix != ".seq":
            raise InputError(Problem("--seq", seq.name, "a name that ends in .seq"))
        prepare_output_folder(seq.parent)
    precision = jax.enable_x64(False) if single else nullcontext()
    with precision, _bar(name) as progress:
        made = study(progress=progress, **given)
        picture = out / f"{name}.png"
        with whole_file(picture) as draft:
            draw(made).savefig(draft, dpi=110)
        if seq is not None:
            write_pulseq(made.design.theta, seq)
    plain = made.plain() | {
        "figure": str(picture),
        **({} if seq is None else {"sequence": str(seq)}),
        "seconds": round(time.time() - started, 1),
    }
    text = json.dumps(plain, indent=2, ensure_ascii=False)
    write_text(out / f"{name}.json", text + "\n")
    if as_json:
        print(text)
    else:
        _show(made, plain)


def _show(made: Any, plain: dict) -> None:
    screen = Console()
    known = any(row.known is not None for row in made.rows)
    table = Table(title=made.title)
    for column in ("", "before", "after", *(("known optimum",) if known else ()), "unit"):
        table.add_column(column, justify="left" if column in ("", "unit") else "right")
    for row in made.rows:
        best = (f"{row.known:.4g}" if row.known is not None else "",) if known else ()
        table.add_row(row.quantity, f"{row.before:.4g}", f"{row.after:.4g}", *best, row.unit)
    screen.print(table)
    for held in made.design.held:
        text = f"kept: {held.constraint}: {held.before:.5g} before, {held.after:.5g} after"
        screen.print(text, highlight=False, markup=False)
    if made.design.unrounded != made.design.after:
        cost = f"{made.design.unrounded:.6g} before rounding to the raster"
        screen.print(f"loss: {made.design.after:.6g}, {cost}", highlight=False)
    screen.print(f"figure: {plain['figure']}", highlight=False, soft_wrap=True)
    if "sequence" in plain:
        screen.print(f"sequence: {plain['sequence']}", highlight=False, soft_wrap=True)
    screen.print(f"took {plain['seconds']:.0f} s", highlight=False)


@design.command()
def vfa(
    t1: Annotated[str, typer.Option(help="T1 in s, or several that count alike.")] = "1.0",
    tr: Annotated[float, typer.Option(help="Repetition time in s.")] = 0.015,
    flips: Annotated[int, typer.Option(min=2, max=16, help="Flip angles.")] = 2,
    free_averages: Annotated[
        bool, typer.Option("--free-averages", help="Share the scan time out between the angles.")
    ] = False,
    steps: Annotated[int, STEPS] = 60,
    starts: Annotated[int, STARTS] = 1,
    out: Annotated[Path, OUT] = FOLDER,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Flip angles of a spoiled gradient echo for T1.

    Two angles of equal averages have a closed form, printed beside the result: the signal is then
    1/√2 of that at the Ernst angle.

    Example: mrphys design vfa --t1 0.8,1.5 --tr 0.01 --flips 3
    """
    from learn.design_studies import vfa as study

    t1_s = _numbers("--t1", t1)
    given = {"flips": flips, "free_averages": free_averages, "steps": steps, "starts": starts}
    _run("vfa", study, out, as_json, t1_s=t1_s, tr_s=tr, **given)


@design.command()
def diffusion(
    adc: Annotated[str, typer.Option(help="ADC in mm²/s, or several that count alike.")] = "1e-3",
    te: Annotated[float, typer.Option(help="Echo time in s, the same for all b.")] = 0.075,
    averages: Annotated[float, typer.Option(help="Averages in all.")] = 16.0,
    b_values: Annotated[int, typer.Option(min=2, max=16, help="b-values, b = 0 among them.")] = 2,
    equal: Annotated[
        bool, typer.Option("--equal", help="As many averages of each b-value.")
    ] = False,
    rician_snr: Annotated[
        float | None, typer.Option(help="Magnitude data, of this SNR at b = 0 [complex data].")
    ] = None,
    steps: Annotated[int, STEPS] = 80,
    starts: Annotated[int, STARTS] = 1,
    out: Annotated[Path, OUT] = FOLDER,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """b-values and averages for the apparent diffusion coefficient.

    Two b-values have a known optimum, printed beside the result: b ADC = 1.28 with free averages,
    1.11 with equal ones. Low SNR in magnitude images (--rician-snr) asks for less.

    Example: mrphys design diffusion --adc 0.7e-3,1.5e-3 --b-values 3
    """
    from learn.design_studies import diffusion as study

    given = {"te_s": te, "averages": averages, "b_values": b_values, "free_averages": not equal}
    given |= {"rician_snr": rician_snr, "steps": steps, "starts": starts}
    _run("diffusion", study, out, as_json, adc_mm2_per_s=_numbers("--adc", adc), **given)


@design.command()
def fse(
    echoes: Annotated[int, typer.Option(min=4, max=1024, help="Echoes of the train.")] = 64,
    spacing: Annotated[float, typer.Option(help="Echo spacing in s.")] = 0.005,
    start_deg: Annotated[
        float, typer.Option(help="Angle of the constant train beside it.")
    ] = 120.0,
    signal: Annotated[
        float, typer.Option(help="Signal to keep of every tissue, relative to the constant train.")
    ] = 1.0,
    energy: Annotated[
        float, typer.Option(help="Pulse energy (SAR) at most, relative to the constant train.")
    ] = 1.0,
    step_deg: Annotated[float, typer.Option(help="Largest change between pulses.")] = 20.0,
    steps: Annotated[int, STEPS] = 200,
    starts: Annotated[int, STARTS] = 1,
    seq: Annotated[
        Path | None, typer.Option(help="Write the train as Pulseq too, such as train.seq.")
    ] = None,
    out: Annotated[Path, OUT] = FOLDER,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Refocusing angles of a fast spin echo: less T2 blurring at equal power.

    White matter, grey matter and glioma at 3 T. Prints the widths of the point spread.

    Example: mrphys design fse --echoes 96 --signal 0.9 --energy 0.8 --seq train.seq
    """
    from learn.design_studies import fse as study

    given: dict[str, Any] = {"signal": signal, "energy": energy, "step_deg": step_deg}
    given |= {"steps": steps, "starts": starts, "start_deg": start_deg}
    _run("fse", study, out, as_json, seq, echoes=echoes, echo_spacing_s=spacing, **given)


@design.command()
def fingerprint(
    repetitions: Annotated[int, typer.Option(min=8, max=3000, help="Repetitions.")] = 500,
    step_deg: Annotated[float, typer.Option(help="Largest change between pulses.")] = 6.0,
    noise_sd: Annotated[float, typer.Option(help="Noise of one readout, relative to m0.")] = 0.002,
    draws: Annotated[
        int, typer.Option(min=0, help="Noisy fingerprints of each tissue fitted to confirm.")
    ] = 32,
    steps: Annotated[int, STEPS] = 300,
    starts: Annotated[int, STARTS] = 1,
    seq: Annotated[
        Path | None, typer.Option(help="Write the train as Pulseq too, such as mrf.seq.")
    ] = None,
    out: Annotated[Path, OUT] = FOLDER,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Flips and repetition times of a fingerprint for T1 and T2, in no more time.

    Beside a train in the style of Jiang et al. 2015. Minutes; fewer repetitions are faster. A
    Monte-Carlo fit confirms that errors fall as the bound says.

    Example: mrphys design fingerprint --repetitions 200 --steps 100
    """
    from learn.design_studies import fingerprint as study

    given = {"step_deg": step_deg, "noise_sd": noise_sd, "draws": draws}
    given |= {"steps": steps, "starts": starts}
    _run("fingerprint", study, out, as_json, seq, single=True, repetitions=repetitions, **given)


@design.command()
def dce(
    samples: Annotated[int, typer.Option(min=4, max=1000, help="Images.")] = 24,
    total: Annotated[float, typer.Option(help="Duration of the series in s.")] = 300.0,
    shortest: Annotated[
        float, typer.Option(help="Least time from one image to the next, s.")
    ] = 2.0,
    ktrans: Annotated[float, typer.Option(help="Ktrans per minute.")] = 0.15,
    ve: Annotated[float, typer.Option(help="Extracellular extravascular volume fraction.")] = 0.25,
    vp: Annotated[float, typer.Option(help="Plasma volume fraction.")] = 0.04,
    steps: Annotated[int, STEPS] = 200,
    starts: Annotated[int, STARTS] = 4,
    out: Annotated[Path, OUT] = FOLDER,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """When to take the images of a contrast-enhanced series, for extended Tofts.

    Example: mrphys design dce --samples 30 --total 360 --shortest 3
    """
    from learn.design_studies import dce as study

    given = {"shortest_s": shortest, "tissue": (ktrans, ve, vp), "steps": steps, "starts": starts}
    _run("dce", study, out, as_json, samples=samples, total_s=total, **given)


@design.command()
def contrast(
    first: Annotated[str, typer.Option(help="A tissue of the literature.")] = "white_matter",
    second: Annotated[str, typer.Option(help="And another.")] = "grey_matter",
    total: Annotated[float, typer.Option(help="Scan time in s.")] = 120.0,
    lines: Annotated[int, typer.Option(min=1, help="Lines of k-space.")] = 128,
    field: Annotated[float, typer.Option(help="Field strength: 1.5 or 3 T.")] = 3.0,
    steps: Annotated[int, STEPS] = 80,
    starts: Annotated[int, STARTS] = 4,
    seq: Annotated[
        Path | None, typer.Option(help="Write the repetition as Pulseq too, such as gre.seq.")
    ] = None,
    out: Annotated[Path, OUT] = FOLDER,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Flip, TE and TR of a gradient echo that show two tissues most unlike in a given time.

    Example: mrphys design contrast --first white_matter --second glioma --total 60
    """
    from learn.design_studies import contrast as study

    given = {"total_s": total, "lines": lines, "field_t": field, "steps": steps, "starts": starts}
    _run("contrast", study, out, as_json, seq, first=first, second=second, **given)
