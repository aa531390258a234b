"""What a hostile user types: one clear InputError each, where the mistake is made.

All lines run in one fresh interpreter, as users have it: without the type checker of these tests,
in float32, warnings as errors. `mr`, `s` (sequences), `rf`, `np`, `jax`, `jnp`, a tissue `q` and a
tissue of any fields `T(...)` are at hand.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = """
import json, sys, warnings
import jax, jax.numpy as jnp, numpy as np
import mrphys as mr
from mrphys import rf, sequence as s
warnings.simplefilter("error")
T = lambda **fields: mr.Tissue(**{"t1_s": 1.0, "t2_s": 0.1, **fields})
q, F, three = T(), np.full(4, 2.0), [0.1, 0.1, 0.1]
found = []
for line in json.load(sys.stdin):
    try:
        found.append(str(eval(line)))
    except Exception as error:
        found.append(f"{type(error).__name__}: {error}")
print(json.dumps(found))
"""

WRONG = {
    "T(t2_s=2.1)": "T1 and T2 interchanged",
    "T(t1_s=-1.0)": "a sign",
    "T(t2_s=np.nan)": "1 NaN",
    "T(t1_s=900.0)": "milliseconds",
    "T(t1_s='1.0')": "found '1.0'",
    "T(t1_s=None)": "found None",
    "T(t1_s=1 + 1j)": "found complex",
    "T(b0_hz=np.zeros(2, complex))": "found complex",
    "T(t1_s=[[1.0], [1.0, 2.0]])": "different length",
    "T(t1_s=np.ones((2, 3)), t2_s=np.full(4, 0.1))": "shapes that broadcast",
    "T(b1=95.0)": "per cent",
    "T(b1='a')": "found 'a'",
    "T(pools=('a',))": "expected a Pool",
    "T(semisolid=mr.Pool(0.1, 10.0))": "expected a SemiSolid",
    "T(tensor=3.0)": "expected a DiffusionTensor",
    "T(pools=mr.Pool(np.full(2, 0.1), 10.0), t1_s=np.ones(3))": "shapes that broadcast",
    "mr.Pool(0.0, 10.0)": "sum to nothing",
    "mr.Pool(13.0, 10.0)": "percentage",
    "mr.Pool(0.1, 10.0, t1_s=0.1, t2_s=0.3)": "T2 above 2 T1",
    "mr.Pool(np.full(2, 0.1), np.full(3, 10.0))": "shapes that broadcast",
    "mr.SemiSolid(0.1, 10.0, t2_s=10.0)": "milliseconds",
    "mr.SemiSolid(0.1, -10.0)": "found -10",
    "mr.diffusion.DiffusionTensor('a')": "found 'a'",
    "rf.hard(np.nan)": "1 NaN",
    "rf.sinc([1.0, 2.0], 1e-3)": "one number",
    "rf.sinc(1.0, 3.0)": "milliseconds",
    "rf.sinc(1.0, 1e-3, time_bandwidth=-1)": "time_bandwidth",
    "rf.gauss(1.0, 1e-3, samples=12.5)": "whole number",
    "rf.slr('excitation', 1e-3, flip_rad=1j)": "complex",
    "rf.bir4(1.0, 8e-3, 500.0, samples=-4)": "whole number",
    "rf.hyperbolic_secant(8e-3, 800.0, beta=0.0)": "beta",
    "rf.Pulse([], 1e-5)": "no sample",
    "rf.Pulse(np.ones((2, 2)), 1e-5)": "list of samples",
    "rf.slice_profile(rf.hard(1.0), 1.0, np.ones((2, 2)))": "list of positions",
    "s.spin_echo_train([], 0.01)": "not empty",
    "s.spin_echo_train('a', 0.01)": "found 'a'",
    "s.spin_echo_train(None, 0.01)": "found None",
    "s.spin_echo_train(F, 0.01, phase_rad=three)": "one length",
    "s.spin_echo_train(F, [0.01] * 4)": "one number",
    "s.spin_echo_train(F, 10.0)": "milliseconds",
    "s.spin_echo_train(F, 0.01, averages=three)": "one for each readout",
    "s.spin_echo_train(F, 0.01, averages=-1)": "averages",
    "s.spin_echo_train(F, 0.01, pulse_s=0.0)": "pulse_s",
    "s.spin_echo_train(F, 0.01, moment_rad_per_mm=np.nan)": "1 NaN",
    "s.spin_echo_train(F, 0.01, moment_rad_per_mm=[1.0, 2.0])": "x, y and z",
    "s.spin_echo_train(F, 0.01, profile=[1.0])": "two lists",
    "s.spin_echo_train(F, 0.01, profile=([], []))": "one length",
    "s.spin_echo(three)": "one number",
    "s.stimulated_echo(0.02, three)": "one number",
    "s.spoiled_gradient_echo(0.2, 0.003, 0.01, 0)": "whole number",
    "s.spoiled_gradient_echo(0.2, 0.003, 0.01, 2.5)": "whole number",
    "s.spoiled_gradient_echo(three, 0.003, 0.01, 5)": "5 repetitions",
    "s.spoiled_gradient_echo(0.2, 0.003, three)": "one number",
    "s.spoiled_gradient_echo(0.2, 0.003, 0.01, rf_spoiling_rad=np.inf)": "1 infinite",
    "s.unbalanced_ssfp(0.2, 0.003, three)": "one number",
    "s.dess(three, 0.003, 0.01)": "one number",
    "s.multi_echo_gradient_echo([])": "not empty",
    "s.balanced_ssfp(0.2, None)": "found None",
    "s.balanced_ssfp([[0.2], [0.1, 0.2]], 0.01)": "different length",
    "s.balanced_ssfp(0.2, 0.01, advance_rad=np.nan)": "1 NaN",
    "s.inversion_recovery([], 2.0)": "not empty",
    "s.inversion_recovery([0.1, 0.5], 2.0, inversion_rad=three)": "one number",
    "s.look_locker(three, 0.02, 4)": "4 repetitions",
    "s.look_locker(0.1, 0.02, 0)": "whole number",
    "s.mprage(0.9, 0.1, 0.01, 6, 2.0, te_s=-0.001)": "a sign",
    "s.mp2rage(three, 0.1, 0.01, 6, 4.0)": "one for each train",
    "s.molli(images=())": "0 images",
    "s.molli(images=(0, 3))": "whole number",
    "s.molli(pauses=())": "a pause between",
    "s.molli(first_ti_s=three)": "3 first_ti_s",
    "s.t2_prepared([0.03], 2.0, refocusing=0)": "whole number",
    "s.fingerprinting_fisp(F, [0.01, -0.01, 0.01, 0.01])": "a sign",
    "s.fingerprinting_balanced(F, 10.0 * 7)": "milliseconds",
    "s.diffusion_weighted([], 0.08)": "a list of b-values",
    "s.diffusion_weighted([0, 1000], [0.08, 0.09])": "one number",
    "s.cest_saturation([], 60.0, 2.0)": "or a list",
    "s.cest_saturation([400.0], 60.0, 2.0, pulses=2.5)": "whole number",
    "s.cest_saturation([400.0], [60.0, 70.0], 2.0)": "one number",
    "s.mt_prepared_gradient_echo(0.1, 0.003, 0.03, [1e3], [], 0.01)": "or a list",
    "s.block(0.1, [-0.1], reads=[True])": "a sign",
    "s.block(0.1, [0.1], reads=[True, False])": "1 times_s, 2 reads",
    "s.block([0.1, 0.2], [three], reads=[True])": "one length",
    "s.train([])": "no readout",
    "s.train([s.block(0.1, [0.1], reads=[False])])": "no readout",
    "s.repeated()": "no readout",
    "mr.simulate('a', q)": "a Sequence",
    "mr.simulate(s.spin_echo(0.1), 1.0)": "a Tissue",
    "mr.simulate(s.spin_echo(0.1), q, tolerance=0.0)": "tolerance",
    "mr.simulate(s.spin_echo(0.1), q, chunk=0)": "whole number",
}

WARNED = {
    "T(t1_s=0.09)": "T2 above T1",
    "mr.Pool(0.1, 10.0, t1_s=0.1, t2_s=0.15)": "T2 above T1",
    "rf.hard(90.0)": "degrees",
    "s.balanced_ssfp(30.0, 0.01)": "degrees",
    "s.mprage(0.9, 9.0, 0.01, 6, 2.0)": "degrees",
}

SIGNAL = "jnp.abs(mr.simulate({}, T(t1_s=a, t2_s=0.1 * a))).sum()"
TRACED = {
    "train": "s.fingerprinting_fisp([a, 2 * a], [0.01, 0.01 * a], averages=[a, 1.0])",
    "steady": "s.spoiled_gradient_echo([a, 0.5 * a], 0.003 * a, 0.01 * a)",
    "prepared": "s.mp2rage([0.7 * a, 2.0], [0.1 * a, 0.1], 0.01 * a, 4, 4.0 * a)",
    "diffusion": "s.diffusion_weighted([0.0, 1000 * a], 0.08 * a, averages=[a, a])",
}
GOOD = {
    "mr.simulate(s.spin_echo(0.1), T(t1_s=np.ones((2, 0)))).shape": "(2, 0, 1)",
    "mr.simulate(s.balanced_ssfp(1, 0.01), T(t1_s=np.ones((1, 2, 3)))).shape": "(1, 2, 3, 1)",
    "mr.simulate(s.spin_echo(0.1), T(t1_s=1, t2_s=np.float16(0.1), m0=np.int32(2))).shape": "(1,)",
    "mr.simulate(s.diffusion_weighted([0], 0.1), T(b1=[1j, 0j])).shape": "(2, 1)",
    **{
        f"jax.jit(jax.grad(lambda a: {SIGNAL.format(theta)}))(1.0).shape": "()"
        for theta in TRACED.values()
    },
    f"jax.vmap(lambda a: {SIGNAL.format(TRACED['train'])})(jnp.ones(2)).shape": "(2,)",
}  # fmt: skip


@pytest.fixture(scope="module")
def typed():
    """What each line gives, or the error it raises."""
    lines = [*WRONG, *WARNED, *GOOD]
    run = subprocess.run(
        [sys.executable, "-c", SETUP],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert run.returncode == 0, run.stderr
    return dict(zip(lines, json.loads(run.stdout), strict=True))


@pytest.mark.parametrize("line", WRONG)
def test_one_clear_error_each(typed, line):
    assert typed[line].startswith("InputError: ")
    assert WRONG[line] in typed[line]
    assert typed[line].count("found") == 1


@pytest.mark.parametrize("line", WARNED)
def test_likely_mistakes_warn(typed, line):
    assert typed[line].startswith("UserWarning: ")
    assert WARNED[line] in typed[line]


@pytest.mark.parametrize("line", GOOD)
def test_what_is_meant_passes(typed, line):
    assert typed[line] == GOOD[line]
