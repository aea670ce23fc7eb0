"""Settings of every test: property tests without a deadline on a shared machine and with the same examples each time; one thread."""

from __future__ import annotations

import torch
from hypothesis import settings

settings.register_profile("rheostat", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("rheostat")
torch.set_num_threads(1)
