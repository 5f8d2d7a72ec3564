#!/usr/bin/env bash
# The engine on one GPU: a random 7B Chameleon in bfloat16; figures as JSON on standard output.
#
#   loadtests/engine/gpu.sh [--json FILE]      PYTHON=… to name another interpreter
#
# Never run on a GPU so far: none was at hand when it was written. `--shape tiny --device cpu` has been, and proves
# only that the program runs through. It needs torch, transformers (for tokenizers and safetensors), and this repository,
# not installed; pydantic-settings is fetched below if it is missing. Weights take 14 GB, the cache of 64 sequences 10 GB.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
extra=var/gpu-packages # to bring along where the GPU machine reaches no package index
export PYTHONPATH="$PWD:$PWD/$extra" PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
"$python" -c 'import torch, tokenizers, yaml' || { echo "needs torch and transformers" >&2; exit 1; }
"$python" -c 'import pydantic_settings' 2>/dev/null || "$python" -m pip install --quiet --target "$extra" pydantic-settings
exec "$python" -m loadtests.engine.gpu "$@"
