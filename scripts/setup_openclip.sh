#!/usr/bin/env bash
# Put open_clip and torchvision into .venv-openclip, a folder beside the environment that a test adds to its path:
# in the environment itself torchvision's CUDA build, the one that PyPI has, would break transformers beside torch's CPU build.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=.venv-openclip
stamp=$(sha256sum "$0" | cut -c1-16)
[ -f "$folder/.medmax" ] && [ "$(cat "$folder/.medmax")" = "$stamp" ] && exit 0
rm -rf "$folder"
printf '\033[1m[setup]\033[0m open_clip for its test\n' >&2
.venv/bin/python -m pip install --quiet --no-deps --target "$folder" \
  torchvision==0.28.0 open_clip_torch==3.3.0 timm==1.0.31 ftfy==6.3.1 wcwidth==0.9.4 >&2
echo "$stamp" > "$folder/.medmax"
