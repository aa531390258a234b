# pyright: reportMissingImports=false
"""torchsim's side of benchmarks/simulate.py: the code of rival_blochsim.py on torchsim."""

from functools import partial

from rival_blochsim import workload
from rival_timing import measure

measure(partial(workload, package="torchsim"))
