"""Color for black-and-white photographs, by a diffusion model."""

import os

# OpenMP's threads spin while they wait for each other, and so take the processor from whatever
# they wait for when other programs run beside. Its library reads this as torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
