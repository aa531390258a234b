"""A sequence worked out for the Bloch equations: pulses in steps, moments between them."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys.events import Pulse, Scan

LONGEST_STEP_S = 1e-4  # relaxation beside rotation: an error of 1e-6 or less in each pulse
LONGEST_TURN = 0.02  # of a cycle
LONGEST_RAMP_S = 1e-5  # where the gradient changes during a pulse
LONGEST_MOVE_S = 1e-3  # between three positions of a moving spin, where a gradient is played


class Plan(NamedTuple):
    """A sequence as arrays: pulses that differ once each, then what is played in order."""

    pulses: list[dict[str, Array]]  # by number of steps: dt_s, b1_hz, moment, frequency_hz
    kind: Array  # which of those, for each pulse played
    phase: Array  # exp(i phase) of each
    turned: Array  # exp(-2πi frequency duration) of each
    free_s: Array  # from its end to the next pulse
    free_moment: Array  # cycles/mm in that time
    after: Array  # for each sample: the last pulse
    sample_s: Array  # since its end
    sample_moment: Array
    receiver: Array


class Course(NamedTuple):
    """A sequence in pieces of time after its first pulse, for spins that move and pools that
    exchange. A piece begins at the end of a pulse or of the piece before."""

    pulse: Array  # that ends where the piece begins; -1 for none
    alike: Array  # whether as long as the piece before
    times_s: Array  # (pieces, 3): its beginning, middle and end, from the beginning of the scan
    duration_s: Array
    weights: Array  # (pieces, 3, 3): of the positions then in ∫ G·r dt, cycles/mm
    since_s: Array  # at its end, from the end of the last pulse
    moment: Array  # (pieces, 3), cycles/mm since then
    pulse_s: Array  # when each pulse begins
    sampled: Array  # which pieces end with a sample
    silent: int  # samples before the first pulse


def plan_scan(seq: Scan, dtype: jnp.dtype, field_t: float) -> Plan:
    """The arrays that `simulate_scan` runs on, worked out in float64 and stored in `dtype`."""
    kinds: dict[tuple, int] = {}
    groups: dict[int, list[tuple[int, tuple]]] = {}
    kind, phase, turned = [], [], []
    for pulse in seq.pulses:
        angle, frequency = pulse.at_field(field_t)
        dt_s, b1_hz, moment = pulse_steps(pulse, seq)
        key = (frequency, dt_s.round(12).tobytes(), b1_hz.tobytes(), moment.round(10).tobytes())
        if key not in kinds:
            kinds[key] = len(kinds)
            groups.setdefault(dt_s.size, []).append((kinds[key], (dt_s, b1_hz, moment, frequency)))
        kind.append(kinds[key])
        phase.append(np.exp(1j * angle))
        turned.append(np.exp(-2j * np.pi * frequency * pulse.duration_s))
    # propagators are stacked group by group
    place = np.argsort([index for group in groups.values() for index, _ in group])
    starts = np.array([pulse.start_s for pulse in seq.pulses])
    ends = np.array([pulse.start_s + pulse.duration_s for pulse in seq.pulses])
    next_start = np.append(starts[1:], max(seq.duration_s, ends[-1])) if ends.size else ends
    at_end = seq.moment(ends)
    times = seq.sample_times_s
    after = np.searchsorted(ends, times + 1e-9, side="right") - 1
    last = np.maximum(after, 0)
    excited = (after >= 0).astype(float)  # no signal before the first pulse
    since = times - ends[last] if ends.size else times
    gained = seq.moment(times) - at_end[last] if ends.size else seq.moment(times)

    def real(value):
        return jnp.asarray(np.asarray(value, np.float64), dtype)

    def complex_(value):
        return jnp.asarray(np.asarray(value, np.complex128), jnp.result_type(dtype, jnp.complex64))

    return Plan(
        pulses=[
            {
                "dt_s": real([steps[0] for _, steps in group]),
                "b1_hz": complex_([steps[1] for _, steps in group]),
                "moment": real([steps[2] for _, steps in group]),
                "frequency_hz": real([steps[3] for _, steps in group]),
            }
            for group in groups.values()
        ],
        kind=jnp.asarray(place[kind] if kind else np.zeros(0, int)),
        phase=complex_(phase),
        turned=complex_(turned),
        free_s=real(next_start - ends),
        free_moment=real(seq.moment(next_start) - at_end),
        after=jnp.asarray(last),
        sample_s=real(np.maximum(since, 0.0)),
        sample_moment=real(gained),
        receiver=complex_(seq.receiver(field_t) * excited),
    )


def pulse_steps(
    pulse: Pulse, seq: Scan
) -> tuple[
    Float[np.ndarray, " steps"], Complex[np.ndarray, " steps"], Float[np.ndarray, "steps 3"]
]:
    """A pulse in steps: duration [s], transmit field [Hz], gradient moment [cycles/mm].

    Equal neighbours under a constant gradient become one step; steps are then cut so that none
    exceeds LONGEST_STEP_S, LONGEST_TURN of rotation by the pulse, or, on a ramp, LONGEST_RAMP_S.
    """
    knots = np.concatenate([gradient.time_s for gradient in seq.gradients]) - pulse.start_s
    inner = knots[(knots > 1e-10) & (knots < pulse.duration_s - 1e-10)]
    edges = np.union1d(pulse.edges_s, inner)
    edges = edges[np.append(True, np.diff(edges) > 1e-10)]
    middle = (edges[1:] + edges[:-1]) / 2
    step = np.clip(np.searchsorted(pulse.edges_s, middle) - 1, 0, pulse.samples_hz.size - 1)
    b1 = pulse.samples_hz[step]
    # second differences of the moment vanish where the gradient is constant
    moment = seq.moment(pulse.start_s + np.concatenate([edges, middle]))
    ends, middles = moment[: edges.size], moment[edges.size :]
    ramp = np.any(np.abs(ends[1:] + ends[:-1] - 2 * middles) > 1e-12, axis=1)
    mean = np.diff(ends, axis=0) / np.diff(edges)[:, None]
    scale = np.abs(mean).max(initial=1e-12)
    steady = np.all(np.abs(np.diff(mean, axis=0)) < 1e-6 * scale, axis=1) & ~ramp[1:] & ~ramp[:-1]
    starts = np.append(True, ~(steady & (b1[1:] == b1[:-1])))
    edges, b1, ramp = np.append(edges[:-1][starts], edges[-1]), b1[starts], ramp[starts]

    width = np.diff(edges)
    parts = np.maximum(width / LONGEST_STEP_S, np.abs(b1) * width / LONGEST_TURN)
    parts = np.maximum(parts, np.where(ramp, width / LONGEST_RAMP_S, 0))
    parts = np.maximum(1, np.ceil(parts - 1e-6)).astype(int)
    dt_s = np.repeat(width / parts, parts)
    edges = np.concatenate([[0.0], np.cumsum(dt_s)])
    moment = np.diff(seq.moment(pulse.start_s + edges), axis=0)
    return dt_s, np.repeat(b1, parts), moment


def plan_course(seq: Scan, dtype: jnp.dtype, moving: bool) -> Course:
    """The pieces of time that `simulate_scan` plays one after the other.

    Cut at samples and pulses; where spins move, also where a gradient bends, and no longer than
    LONGEST_MOVE_S under a gradient. The integral of G·r over a piece is exact for a gradient linear
    in time and positions of second order: of fourth order in the length of pieces otherwise.
    """
    ends = np.array([pulse.start_s + pulse.duration_s for pulse in seq.pulses])
    starts = np.array([pulse.start_s for pulse in seq.pulses])
    following = np.append(starts[1:], max(seq.duration_s, ends[-1]))
    times = seq.sample_times_s
    after = np.searchsorted(ends, times + 1e-9, side="right") - 1
    knots = np.unique(np.concatenate([gradient.time_s for gradient in seq.gradients]))
    pieces, last, sampled = [], [], []
    for i, (begin, end) in enumerate(zip(ends, np.maximum(following, ends), strict=True)):
        seen = np.clip(
            times[np.searchsorted(after, i) : np.searchsorted(after, i, "right")], begin, end
        )
        inner = knots[(knots > begin) & (knots < end)] if moving else knots[:0]
        cuts = np.unique(np.concatenate([[begin, end], seen, inner]))
        if moving:
            cuts = _shortened(seq, cuts)
        pairs = np.stack([cuts[:-1], cuts[1:]], axis=1)
        if not len(pairs) or (seen.size and seen[0] == begin):
            pairs = np.concatenate([[[begin, begin]], pairs])
        pieces.append(pairs)
        last.append(np.full(len(pairs), i))
        sampled.append(np.isin(pairs[:, 1], seen))
    begin, end = np.concatenate(pieces).T
    pulse = np.concatenate(last)
    duration = end - begin
    bounds = np.stack([begin, (begin + end) / 2, end], axis=1)
    at = seq.moment(bounds.ravel()).reshape(-1, 3, 3)
    whole, bend = at[:, 2] - at[:, 0], at[:, 2] - 2 * at[:, 1] + at[:, 0]
    # Simpson's rule for the mean gradient, and what a linear change adds at the ends
    weights = np.stack([whole / 6 - bend / 3, whole * (2 / 3), whole / 6 + bend / 3], axis=1)

    def real(value):
        return jnp.asarray(np.asarray(value, np.float64), dtype)

    return Course(
        pulse=jnp.asarray(np.where(np.diff(pulse, prepend=-1) > 0, pulse, -1)),
        alike=jnp.asarray(np.append(False, np.abs(np.diff(duration)) < 1e-12)),
        times_s=real(bounds),
        duration_s=real(duration),
        weights=real(weights),
        since_s=real(end - ends[pulse]),
        moment=real(at[:, 2] - seq.moment(ends)[pulse]),
        pulse_s=real(starts),
        sampled=jnp.asarray(np.flatnonzero(np.concatenate(sampled))),
        silent=int(np.sum(after < 0)),
    )


def _shortened(seq: Scan, cuts: Float[np.ndarray, " cuts"]) -> Float[np.ndarray, " more"]:
    width = np.diff(cuts)
    at = seq.moment(np.concatenate([cuts, (cuts[1:] + cuts[:-1]) / 2]))
    ends, middles = at[: cuts.size], at[cuts.size :]
    played = np.any(
        np.abs(np.concatenate([np.diff(ends, axis=0), middles - ends[:-1]], 1)) > 1e-12, 1
    )
    parts = np.where(played, np.maximum(1, np.ceil(width / LONGEST_MOVE_S - 1e-6)), 1).astype(int)
    inside = [a + w / n * np.arange(n) for a, w, n in zip(cuts, width, parts, strict=False)]
    return np.concatenate([*inside, cuts[-1:]])
