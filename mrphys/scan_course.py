"""A scan played piece by piece: spins that move, pools that exchange.

The transverse magnetisation of each liquid pool is kept in the frame of its spin, which turns by
what water there has turned since the last pulse,

    b0 t + ∫ G·r dt = b0 t + k·r(0) + ∫ G·(r - r(0)) dt      cycles

k exact as for spins at rest, and the last integral from three positions a piece
(`mrphys.playback.plan_course`). In that frame relaxation, exchange and chemical shift of a piece
are one exponential, computed anew where its duration changes. Pulses are turned step by step: of
single pools as `mrphys.bloch`, of several by the exponential of the Bloch-McConnell matrix, each
different pulse once where spins are at rest, at the place of its middle where they move.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from mrphys.bloch_mcconnell import Matter, applied, at_rest
from mrphys.exchange import product
from mrphys.motion import Moving
from mrphys.playback import Course, Plan
from mrphys.rotation import precessed, rotated
from mrphys.segments import scan_in_segments
from mrphys.tissue import Tissue

SEGMENT = 128


class Cloud(NamedTuple):
    """Spins along the first axis of everything."""

    position_mm: Float[Array, "spins 3"]
    q: Tissue
    coils: Array
    motion: Moving | None


class _State(NamedTuple):
    plus: Complex[Array, "liquid spins"]
    longitudinal: Float[Array, "pools spins"]
    moved: Float[Array, " spins"]
    turns: Float[Array, " spins"]
    left: tuple[Array, Array]


@eqx.filter_jit
def course_signal(
    plan: Plan, course: Course, cloud: Cloud, shared: Moving | None
) -> Complex[Array, "samples coils"]:
    """The signal of one chunk of spins, before the receiver's phase."""
    cloud = cloud._replace(motion=eqx.combine(cloud.motion, shared))
    q, start = cloud.q, cloud.position_mm
    several = bool(q.pools) or q.semisolid is not None
    matter = Matter.of(q)
    liquid = 1 + len(q.pools)
    rest = at_rest(q).T
    rest = jnp.concatenate([rest[2 : 3 * liquid : 3], rest[3 * liquid :]])
    step = _pools_step(matter) if several else _single_step(q)
    pulses = _moving_pulses(plan, course, cloud, step)
    if several and cloud.motion is None:
        pulses = _still_pulses(plan, cloud, matter)

    @jax.checkpoint
    def pulsed(state: _State, which: Array) -> _State:
        back = jnp.conj(plan.phase[which])
        plus = state.plus * (precessed(state.turns) * back)[None]
        m = _as_vector(plus, state.longitudinal)
        plus, longitudinal = _as_states(pulses(m, which), liquid)
        plus = plus * (plan.phase[which] * plan.turned[which])
        return state._replace(
            plus=plus, longitudinal=longitudinal, moved=jnp.zeros_like(state.moved)
        )

    def piece(state: _State, event: tuple) -> tuple[_State, Array]:
        pulse, alike, times_s, duration_s, weights, since_s, moment = event
        state = jax.lax.cond(pulse >= 0, pulsed, lambda state, _: state, state, pulse)
        left = jax.lax.cond(
            alike, lambda _: state.left, lambda time: matter.free_parts(time), duration_s
        )
        plus = applied(left[0], state.plus)
        longitudinal = rest + applied(left[1], state.longitudinal - rest)
        moved = state.moved
        if cloud.motion is not None:
            for i in range(3):
                away = cloud.motion(start, times_s[i]).astype(start.dtype) - start
                moved = moved + jnp.sum(away * weights[i][None], axis=1)
            moved = moved - jax.lax.stop_gradient(jnp.round(moved))
        turns = jnp.dot(start, moment, precision="highest") + since_s * q.b0_hz + moved
        seen = plus.sum(axis=0) * precessed(turns)
        signal = jnp.dot(seen, cloud.coils.astype(seen.dtype), precision="highest")
        return _State(plus, longitudinal, moved, turns, left), signal

    nothing = jnp.zeros_like(q.m0)
    left = matter.free_parts(jnp.zeros_like(course.duration_s[0]))
    plus = jnp.zeros((liquid, q.m0.size), plan.phase.dtype)
    state = _State(plus, rest, nothing, nothing, left)
    _, signal = scan_in_segments(piece, state, tuple(course[:7]), SEGMENT)
    before = jnp.zeros((course.silent, signal.shape[1]), signal.dtype)
    return jnp.concatenate([before, signal[course.sampled]])


def _as_vector(plus: Array, longitudinal: Array) -> Float[Array, "n spins"]:
    liquid = plus.shape[0]
    each = jnp.stack([plus.real, plus.imag, longitudinal[:liquid]], axis=1)
    one = jnp.ones_like(longitudinal[:1])
    return jnp.concatenate([each.reshape(3 * liquid, -1), longitudinal[liquid:], one])


def _as_states(m: Array, liquid: int) -> tuple[Array, Array]:
    x, y, z = (m[axis : 3 * liquid : 3] for axis in range(3))
    return jax.lax.complex(x, y), jnp.concatenate([z, m[3 * liquid : -1]])


def _moving_pulses(plan: Plan, course: Course, cloud: Cloud, step: Callable) -> Callable:
    """Pulses played on the magnetisation itself, each step where the spins are in its middle."""
    sizes = [group["frequency_hz"].size for group in plan.pulses]
    firsts = [sum(sizes[:g]) for g in range(len(sizes))]

    def of_group(g: int) -> Callable:
        def play(m: Array, kind: Array, start_s: Array) -> Array:
            pulse = {name: value[kind - firsts[g]] for name, value in plan.pulses[g].items()}
            dt = pulse["dt_s"]

            def one(m: Array, event: tuple) -> tuple[Array, None]:
                dt, b1_hz, moment, middle = event
                where = cloud.position_mm
                if cloud.motion is not None:
                    where = cloud.motion(where, middle).astype(where.dtype)
                return step(m, *_held(cloud, where, pulse, dt, b1_hz, moment), dt), None

            events = (dt, pulse["b1_hz"], pulse["moment"], start_s + jnp.cumsum(dt) - dt / 2)
            return jax.lax.scan(one, m, events)[0]

        return play

    branches = [of_group(g) for g in range(len(sizes))]

    def pulses(m: Array, which: Array) -> Array:
        kind = plan.kind[which]
        group = jnp.searchsorted(jnp.array(firsts), kind, side="right") - 1
        return jax.lax.switch(group, branches, m, kind, course.pulse_s[which])

    return pulses


def _held(cloud: Cloud, where: Array, pulse: dict, dt: Array, b1_hz: Array, moment: Array) -> tuple:
    """The field across and along, and the offset from it, of a step, in Hz."""
    field = b1_hz * cloud.q.b1
    offset = cloud.q.b0_hz - pulse["frequency_hz"]
    offset = offset + jnp.sum(where * moment[None], axis=1) / dt
    return field.real, field.imag, offset


def _still_pulses(plan: Plan, cloud: Cloud, matter: Matter) -> Callable:
    """Each different pulse once, as a matrix of each spin."""

    def matrix(pulse: dict[str, Array]) -> Array:
        def one(sofar: Array, event: tuple) -> tuple[Array, None]:
            dt, b1_hz, moment = event
            across, along, offset = _held(cloud, cloud.position_mm, pulse, dt, b1_hz, moment)
            held = matter.held(across, along, offset, matter.absorption_s(offset), dt)
            return product(held, sofar), None

        unit = jnp.eye(matter.still.shape[0], dtype=matter.still.dtype)[..., None]
        unit = jnp.broadcast_to(unit, matter.still.shape)
        return jax.lax.scan(one, unit, (pulse["dt_s"], pulse["b1_hz"], pulse["moment"]))[0]

    matrices = jnp.concatenate([jax.lax.map(matrix, group) for group in plan.pulses])
    return lambda m, which: applied(matrices[plan.kind[which]], m)


def _pools_step(matter: Matter) -> Callable:
    def step(m: Array, across: Array, along: Array, offset: Array, dt: Array) -> Array:
        return applied(matter.held(across, along, offset, matter.absorption_s(offset), dt), m)

    return step


def _single_step(q: Tissue) -> Callable:
    """Half a step's relaxation before the rotation and half after."""

    def step(m: Array, across: Array, along: Array, offset: Array, dt: Array) -> Array:
        lost2, lost1 = jnp.expm1(-dt / 2 / q.t2_s), jnp.expm1(-dt / 2 / q.t1_s)

        def relaxed(x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
            return x + x * lost2, y + y * lost2, z + (z - q.m0) * lost1

        turn = 2 * jnp.pi * dt
        m3 = rotated(relaxed(m[0], m[1], m[2]), (turn * across, turn * along, turn * offset))
        return jnp.stack([*relaxed(*m3), m[3]])

    return step
