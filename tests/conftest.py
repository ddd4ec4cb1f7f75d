"""One torch thread for all tests: small networks are faster so, and results do not depend on the machine's cores."""

import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "algos"))
