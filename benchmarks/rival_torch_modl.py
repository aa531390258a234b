# pyright: reportMissingImports=false
"""One training step of MoDL in PyTorch beside ours: 128², 4 coils, batch 2, 5 unrolls.

    python benchmarks/rival_torch_modl.py [PYTHON WITH TORCH]

The same U-Net (width 32, depth 2, each image normalised for itself), as many steps of conjugate
gradients, differentiated implicitly too, the same loss and Adam; warm, the fastest of ten. The
rival's Python is run from here (benchmarks/rivals.txt says what it holds); without one, or run by
it with `--torch`, only one side is timed.
"""

import sys
import time
from collections.abc import Callable

SIZE, COILS, BATCH, UNROLLS, ITERATIONS, WIDTH, DEPTH = 128, 4, 2, 5, 8, 32, 2
ROUNDS = 10


def fastest_ms(step: Callable[[], object]) -> float:
    step()
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return 1e3 * min(seconds)


def in_torch() -> float:
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.convs = nn.ModuleList(
                nn.Conv2d(i, outputs, 3, padding=1, bias=False) for i in (inputs, outputs)
            )
            self.norms = nn.ModuleList(nn.InstanceNorm2d(outputs, affine=True) for _ in range(2))

        def forward(self, h):
            for conv, norm in zip(self.convs, self.norms, strict=True):
                h = functional.silu(norm(conv(h)))
            return h

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [WIDTH * 2**i for i in range(DEPTH + 1)]
            befores = [2, *widths[:-1]]
            self.down = nn.ModuleList(Block(i, o) for i, o in zip(befores, widths, strict=True))
            self.up = nn.ModuleList(Block(3 * w, w) for w in widths[:-1])
            self.last = nn.Conv2d(WIDTH, 2, 1)

        def forward(self, x):
            h, kept = torch.stack([x.real, x.imag], 1), []
            for i, block in enumerate(self.down):
                h = block(functional.avg_pool2d(h, 2) if i else h)
                kept.append(h)
            for i in reversed(range(DEPTH)):
                h = self.up[i](torch.cat([kept[i], functional.interpolate(h, scale_factor=2)], 1))
            h = self.last(h)
            return torch.complex(h[:, 0], h[:, 1])

    def solve(matvec, b):
        x, r, p = torch.zeros_like(b), b, b
        rr = (r.abs() ** 2).sum((1, 2), keepdim=True)
        for _ in range(ITERATIONS):
            q = matvec(p)
            alpha = rr / (p.conj() * q).real.sum((1, 2), keepdim=True)
            x, r = x + alpha * p, r - alpha * q
            new = (r.abs() ** 2).sum((1, 2), keepdim=True)
            p, rr = r + new / rr * p, new
        return x

    class Solve(torch.autograd.Function):
        @staticmethod
        def forward(ctx, normal, weight, b):
            x = solve(lambda v: normal(v) + weight * v, b)
            ctx.normal = normal
            ctx.save_for_backward(weight, x)
            return x

        @staticmethod
        def backward(ctx, *given):
            weight, x = ctx.saved_tensors
            back = solve(lambda v: ctx.normal(v) + weight * v, given[0])
            return None, -(back.conj() * x).real.sum(), back

    torch.manual_seed(0)
    net = UNet()
    log_weight = torch.tensor(-3.0, requires_grad=True)
    optimiser = torch.optim.Adam([*net.parameters(), log_weight], 1e-3)
    truth = torch.randn(BATCH, SIZE, SIZE, dtype=torch.complex64)
    maps = torch.randn(BATCH, COILS, SIZE, SIZE, dtype=torch.complex64)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    mask = (torch.rand(BATCH, 1, 1, SIZE) < 0.25).float()

    def normal(v):  # masks of lines: no transform along them is needed
        y = torch.fft.fft(maps * v[:, None])
        return (maps.conj() * torch.fft.ifft(mask * y)).sum(1)

    back = normal(truth)

    def step():
        optimiser.zero_grad()
        weight, x = log_weight.exp(), back
        for _ in range(UNROLLS):
            x = Solve.apply(normal, weight, back + weight * (x + net(x)))
        away = (x - truth).abs()
        loss = (away.norm() / truth.norm() + away.sum() / truth.abs().sum()) / 2
        loss.backward()
        optimiser.step()

    return fastest_ms(step)


def in_jax() -> float:
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    import learn
    import mrphys as mr
    from learn import reconstruction as lr
    from learn.training import TrainingState, training_step

    mr.use_cores()
    x = jax.random.normal(jax.random.key(0), (BATCH, SIZE, SIZE)) + 0j
    keys = jax.random.split(jax.random.key(1), BATCH)
    scans = jax.jit(jax.vmap(lambda x, key: lr.draw_scan(x, key, coils=COILS)))(x, keys)
    net = lr.MoDL(WIDTH, DEPTH, UNROLLS, ITERATIONS, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(net, nnx.Param, ...)
    optimiser = optax.adam(1e-3)
    one_step = training_step(graph, learn.shared(lr.supervised_loss), optimiser)
    state = TrainingState(params, rest, optimiser.init(params), jnp.zeros((), jnp.int32))

    def step():
        nonlocal state
        state, *_ = one_step(state, scans, jax.random.key(2))
        jax.block_until_ready(state)

    return fastest_ms(step)


def main() -> None:
    if "--torch" in sys.argv:
        print(in_torch())
        return
    ours = in_jax()
    print(f"mrphys   {ours:7.0f} ms")
    if len(sys.argv) > 1:
        import subprocess

        run = subprocess.run(
            [sys.argv[1], __file__, "--torch"], capture_output=True, text=True, check=True
        )
        theirs = float(run.stdout)
        print(f"PyTorch  {theirs:7.0f} ms   ours / theirs {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
