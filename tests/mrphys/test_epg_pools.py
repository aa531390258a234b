"""Extended phase graphs of exchanging pools, of crushers on several axes and of anisotropic
diffusion, against isochromats turned one by one."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys.diffusion import DiffusionTensor
from mrphys.exchange import Pool, SemiSolid, exponential, generator, propagate
from mrphys.sequence.train import block, train
from mrphys.wavevectors import Wavevectors
from tests.laws import check_gradient

FAT = Pool(fraction=0.2, exchange_rate_hz=12.0, shift_hz=-9.0, t1_s=0.3, t2_s=0.05)
BOUND = SemiSolid(fraction=0.12, exchange_rate_hz=30.0, t1_s=0.9, lineshape="gaussian")
PULSE_S = 2e-3


def voxel(**fields) -> mr.Tissue:
    given = {"t1_s": 1.1, "t2_s": 0.09, "m0": 0.8, "b1": 0.9, "b0_hz": 7.0}
    return mr.Tissue(**(given | fields)).broadcast()


def isochromats(blocks, q: mr.Tissue, places: np.ndarray) -> np.ndarray:
    """The blocks for one voxel, by the Bloch-McConnell matrix of each of many isochromats; a unit
    moment turns those at `places` (count, 3) by 2π times their place."""
    off = generator(
        q.m0, q.t1_s, q.t2_s, q.b0_hz, q.pools, q.semisolid, jnp.zeros(()), jnp.zeros(())
    )
    liquid, bound = 1 + len(q.pools), q.semisolid is not None
    fractions = [1.0, *(float(p.fraction) for p in q.pools)] + ([BOUND.fraction] if bound else [])
    start = np.zeros(3 * liquid + bound)
    start[2 : 3 * liquid : 3] = fractions[:liquid]
    if bound:
        start[-1] = fractions[-1]
    m = np.tile(float(q.m0) * start, (len(places), 1))
    seen = []
    for b in blocks:
        for i in range(b.repetitions):
            flip, phase = float(b.flip_rad[i]) * float(q.b1), float(b.phase_rad[i])
            for p in range(liquid):
                plus, z = m[:, 3 * p] + 1j * m[:, 3 * p + 1], m[:, 3 * p + 2]
                along = plus * np.exp(-1j * phase)
                across, z = (
                    along.imag * np.cos(flip) + z * np.sin(flip),
                    z * np.cos(flip) - along.imag * np.sin(flip),
                )
                plus = (along.real + 1j * across) * np.exp(1j * phase)
                m[:, 3 * p], m[:, 3 * p + 1], m[:, 3 * p + 2] = plus.real, plus.imag, z
            if bound:
                g = float(q.semisolid.absorption_s(q.b0_hz))
                m[:, -1] *= np.exp(-np.pi * (flip / PULSE_S) ** 2 * g * PULSE_S)
            for j, (shift, reads) in enumerate(zip(b.shifts, b.reads, strict=True)):
                time = b.times_s[i, j]
                m = np.array(jax.vmap(lambda row, t=time: propagate(*off, row, t))(jnp.array(m)))
                moment = np.array(shift if isinstance(shift, tuple) else (shift, 0, 0))
                turn = np.exp(2j * np.pi * places @ moment)
                for p in range(liquid):
                    plus = (m[:, 3 * p] + 1j * m[:, 3 * p + 1]) * turn
                    m[:, 3 * p], m[:, 3 * p + 1] = plus.real, plus.imag
                if reads:
                    total = sum(m[:, 3 * p] + 1j * m[:, 3 * p + 1] for p in range(liquid))
                    seen.append(total.mean() * np.exp(-1j * float(b.receiver_rad[i])))
            if b.spoil:
                for p in range(liquid):
                    m[:, 3 * p] = m[:, 3 * p + 1] = 0.0
    return np.array(seen)


def line(count: int) -> np.ndarray:
    return np.stack([np.arange(count) / count, np.zeros(count), np.zeros(count)], axis=1)


def square(count: int) -> np.ndarray:
    x, y = np.meshgrid(*[np.arange(count) / count] * 2)
    return np.stack([x.ravel(), np.zeros(x.size), y.ravel()], axis=1)


def some_train(seed: int, shifts, repetitions=(3, 6, 4)):
    rng = np.random.default_rng(seed)
    return train(
        [
            block(
                rng.uniform(-np.pi, np.pi, n),
                [rng.uniform(0, 0.02, n), 0.01] if n > 3 else [0.005, 0.01],
                phase_rad=rng.uniform(-np.pi, np.pi, n),
                shifts=shifts[:2] if n > 3 else shifts[1:3],
                reads=[True, n > 3],
                spoil=n == 3,
            )
            for n in repetitions
        ],
        pulse_s=PULSE_S,
    )


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "pools",
    [
        {"pools": (FAT,)},
        {"semisolid": BOUND},
        {"pools": (FAT,), "semisolid": BOUND},
        {"pools": (FAT, replace(FAT, shift_hz=30.0, exchange_rate_hz=0.0))},
    ],
    ids=["two", "semisolid", "two and semisolid", "three"],
)
def test_any_train_of_pools_against_isochromats(seed, pools):
    q, theta = voxel(**pools), some_train(seed, [0, 1, 1])
    expected = isochromats(theta.blocks, q, line(32))
    np.testing.assert_allclose(theta.signal(q), expected, atol=1e-10)


@pytest.mark.parametrize(
    "shifts",
    [[1, -1, 2], [-2, 1, 1], [(1, 0, 0), (0, 0, 1), (1, 0, -1)], [(1, 0, 1), (0, 0, 0), (2, 0, 1)]],
)
def test_any_gradients_against_isochromats(shifts):
    """Whole moments of either sign, and crushers along two axes."""
    q = voxel()
    repetitions = (3, 6, 4) if isinstance(shifts[0], int) else (2, 4)
    theta = some_train(3, shifts, repetitions)
    places = line(64) if isinstance(shifts[0], int) else square(16)
    np.testing.assert_allclose(theta.signal(q), isochromats(theta.blocks, q, places), atol=1e-10)
    found = theta.within(mr.Tissue(t1_s=1.0, t2_s=4e-3), 1e-4)
    assert 1 < found.orders < theta.most_orders
    fast = replace(q, t2_s=jnp.asarray(4e-3))
    lost = np.abs(np.asarray(found.signal(fast) - theta.signal(fast))).max()
    assert lost <= found.truncation_bound(fast)


def test_wavevectors_that_return():
    assert Wavevectors.returning([1, 1, 1]).vectors == ((0, 0, 0), (1, 0, 0))
    assert len(Wavevectors.returning([(1, 0, 0), (0, 1, 0)])) == 1
    crushed = Wavevectors.returning([(1, 0, 0), (0, 1, 0)] * 2)
    assert set(crushed.vectors) == {(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (1, -1, 0)}
    assert Wavevectors.around([1], 3).vectors == Wavevectors.on_line(3).vectors


def test_crushers_on_other_axes_leave_no_stimulated_echo():
    """Crushers of one axis about the first refocusing pulse and of another about the second: their
    spin echoes are all that is left, i sin α sin⁴(β/2) for the second."""
    beta = 2.0
    blocks = [block(np.pi / 2, [0.005], shifts=[(1, 0, 0)], reads=[False])]
    for axis, after in (((1, 0, 0), (0, 1, 0)), ((0, 1, 0), (0, 0, 0))):
        blocks.append(
            block(
                beta,
                [0.005, 0.0, 0.005],
                phase_rad=np.pi / 2,
                receiver_rad=0.0,
                shifts=[axis, (0, 0, 0), after],
                reads=[False, True, False],
            )
        )
    q = mr.Tissue(t1_s=19.9, t2_s=19.9).broadcast()
    perfect = [np.sin(beta / 2) ** 2, np.sin(beta / 2) ** 4]
    np.testing.assert_allclose(train(blocks).signal(q).imag, perfect, rtol=5e-3)
    along_one = mr.sequence.spin_echo_train(np.full(2, beta), 0.01, np.pi / 2).signal(q).imag
    assert abs(float(along_one[1]) - perfect[1]) > 0.1


@pytest.mark.long
def test_independent_pools_add():
    still = replace(FAT, exchange_rate_hz=jnp.zeros(()))
    q = voxel(pools=(still,))
    fat = voxel(m0=0.8 * 0.2, t1_s=FAT.t1_s, t2_s=FAT.t2_s, b0_hz=7.0 + FAT.shift_hz, pools=())
    for theta in (
        mr.sequence.spin_echo_train(np.full(6, 2.0), 0.01),
        mr.sequence.fingerprinting_fisp(np.full(9, 0.5), 0.012, te_s=0.004),
        mr.sequence.balanced_ssfp(0.7, 0.006),
        mr.sequence.multi_echo_gradient_echo([0.002, 0.02]),
    ):
        apart = theta.signal(voxel()) + theta.signal(fat)
        np.testing.assert_allclose(theta.signal(q), apart, atol=1e-12)


@pytest.mark.parametrize("excess", [0.0, 1e-9, 1e-3, 2.0, 1e4])
def test_exponentials_of_two_by_two(excess):
    a = jnp.array([[-3.0 - excess, 0.4 * excess], [excess, -2.0 - 0.4 * excess]])
    expected = jax.scipy.linalg.expm(a, max_squarings=32)
    np.testing.assert_allclose(exponential(a), expected, rtol=1e-9, atol=1e-13)
    slopes = jax.jacfwd(lambda e: exponential(a - e * jnp.eye(2)[::-1]))(0.0)
    assert np.all(np.isfinite(slopes))


def test_semisolid_saturates_a_spoiled_steady_state():
    """Two longitudinal pools, one turned and one saturated each repetition: the steady state of a
    2 x 2 map written out."""
    q = voxel(semisolid=BOUND)
    flip, tr = 0.3, 0.03
    theta = replace(mr.sequence.spoiled_gradient_echo(flip, 0.0, tr), pulse_s=jnp.asarray(PULSE_S))
    k, f = float(BOUND.exchange_rate_hz), float(BOUND.fraction)
    a = np.array([[-1 / 1.1 - f * k, k], [f * k, -1 / 0.9 - k]])
    values, vectors = np.linalg.eig(a)
    e = (vectors * np.exp(values * tr)) @ np.linalg.inv(vectors)
    actual = 0.9 * flip
    w = np.pi * (actual / PULSE_S) ** 2 * float(BOUND.absorption_s(jnp.asarray(7.0))) * PULSE_S
    pulse = np.diag([np.cos(actual), np.exp(-w)])
    rest = 0.8 * np.array([1.0, f])
    before = np.linalg.solve(np.eye(2) - e @ pulse, (np.eye(2) - e) @ rest)
    expected = 1j * np.sin(actual) * before[0]
    np.testing.assert_allclose(theta.signal(q)[0], expected, rtol=1e-9)


@pytest.mark.long
def test_prepared_by_an_off_resonance_pulse():
    """The steady state of the two longitudinal pools after the pulse's exponential, composed here
    from that of the whole matrix; far from water only the excitation saturates."""
    q = voxel(semisolid=replace(BOUND, lineshape="super_lorentzian"), b0_hz=0.0)
    theta = mr.sequence.mt_prepared_gradient_echo(
        0.2, 0.002, 0.03, [2000.0, 1e6], 300.0, 0.008, pulse_s=PULSE_S
    )
    x = theta.signal(q)
    still = (q.m0, q.t1_s, q.t2_s, q.b0_hz, (), q.semisolid)
    on = generator(*still, 0.9 * jnp.asarray(300.0), jnp.asarray(2000.0))
    off = generator(*still, jnp.zeros(()), jnp.zeros(()))
    w = np.pi * (0.18 / PULSE_S) ** 2 * float(q.semisolid.absorption_s(q.b0_hz)) * PULSE_S
    m = jnp.array([0.0, 0.0, 0.8, 0.1])
    for _ in range(300):
        m = propagate(*on, m * jnp.array([0.0, 0.0, 1.0, 1.0]), jnp.asarray(0.008))
        across = jnp.sin(0.18) * m[2]
        m = jnp.array([0.0, 0.0, jnp.cos(0.18) * m[2], jnp.exp(-w) * m[3]])
        m = propagate(*off, m, jnp.asarray(0.022))
    np.testing.assert_allclose(x[0], 1j * across * np.exp(-0.002 / 0.09), rtol=1e-6)
    plain = replace(
        mr.sequence.spoiled_gradient_echo(0.2, 0.002, 0.03), pulse_s=jnp.asarray(PULSE_S)
    )
    np.testing.assert_allclose(x[1], plain.signal(q)[0], rtol=1e-4)
    shaped = mr.sequence.mt_prepared_gradient_echo(
        0.2, 0.002, 0.03, [2000.0, 1e6], np.full(5, 300.0), 0.008, pulse_s=PULSE_S
    )
    np.testing.assert_allclose(shaped.signal(q), x, rtol=1e-9)
    energy = 2 * (300.0**2 * 0.008 + (0.2 / (2 * np.pi)) ** 2 / PULSE_S)
    assert float(theta.pulse_energy_hz2_s) == pytest.approx(energy)
    assert float(theta.scan_time_s) == pytest.approx(0.06)


def test_tensors_attenuate_by_direction():
    """A Hahn echo: exp(-b gᵀ D g), b of two equal moments; isotropic tensors are an ADC."""
    tensor = DiffusionTensor(xx=1.7e-3, yy=0.4e-3, zz=0.3e-3, xy=0.2e-3, xz=-0.1e-3, yz=0.05e-3)
    moment, half = np.array([40.0, 90.0, -60.0]), 0.03
    theta = mr.sequence.spin_echo_train(
        [np.pi, np.pi], 2 * half, moment_rad_per_mm=jnp.asarray(moment)
    )
    q = mr.Tissue(t1_s=1.0, t2_s=0.1, tensor=tensor).broadcast()
    b_matrix = 2 * half * np.outer(moment, moment) / 3
    lost = np.sum(b_matrix * np.asarray(tensor.matrix()))
    free = mr.sequence.spin_echo_train([np.pi, np.pi], 2 * half).signal(q)
    np.testing.assert_allclose(theta.signal(q), free * np.exp(-lost * np.array([1, 2])), rtol=1e-9)
    even = DiffusionTensor(xx=1e-3, yy=1e-3, zz=1e-3)
    played = some_train(5, [(1, 0, 0), (0, 0, 1), (1, 0, -1)], (2, 4))
    played = replace(played, moment_rad_per_mm=jnp.array([30.0, 20.0, 50.0]))
    same = [
        played.signal(voxel(tensor=even)),
        played.signal(voxel(adc_mm2_per_s=1e-3)),
    ]
    np.testing.assert_allclose(*same, rtol=1e-12)
    assert np.abs(same[0] - played.signal(voxel())).max() > 1e-3


@pytest.mark.long
def test_gradients_of_pools_and_tensors():
    base = some_train(2, [0, 1, 1], repetitions=(4,))

    def signal(p):
        pool = replace(FAT, fraction=p["fraction"], exchange_rate_hz=p["rate"], shift_hz=p["shift"])
        bound = replace(BOUND, fraction=p["bound"])
        tensor = DiffusionTensor(xx=p["xx"], xy=p["xy"], yy=1e-3, zz=1e-3)
        q = voxel(pools=(pool,), semisolid=bound, tensor=tensor, t1_s=p["t1"])
        theta = replace(base, moment_rad_per_mm=p["moment"])
        x = theta.signal(q)
        return jnp.sum(x.real**2 + 0.3 * x.imag)

    p = {"fraction": 0.2, "rate": 12.0, "shift": -9.0, "bound": 0.1, "xx": 1e-3, "xy": 1e-4}
    p |= {"t1": 1.1, "moment": jnp.array([50.0, 20.0, 10.0])}
    p = {key: jnp.asarray(value) for key, value in p.items()}
    none = p | {"rate": jnp.zeros(()), "moment": jnp.zeros(3), "shift": jnp.zeros(())}
    check_gradient(signal, p, directions=6, finite_at=[none])
