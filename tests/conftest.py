import os

import torch

# Where there is no GPU, its kernels are interpreted; Triton decides that when it is imported, by whoever comes first.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
