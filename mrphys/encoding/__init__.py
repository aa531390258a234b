"""A_φ: what a scanner makes of images.

Encoding   coils, grids and trajectories, subspaces, slices at once, shots, off-resonance
Linear     operators as algebra: A(x), A.H(y), A.normal(x), A @ B
RigidMotion  an image, in several poses
fft, ifft  centred and unitary
"""

from mrphys.encoding.encoding import Encoding
from mrphys.encoding.linear import Linear
from mrphys.encoding.rigid import RigidMotion
from mrphys.encoding.sampling import fft, ifft

__all__ = ["Encoding", "Linear", "RigidMotion", "fft", "ifft"]
