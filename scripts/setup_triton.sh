#!/usr/bin/env bash
# Put a real Triton server, which the tests of `backend: triton` start, into .venv-triton:   scripts/setup_triton.sh
# NVIDIA ships one in the wheel of PyTriton; nothing else of that wheel is used, so its own requirements stay away. Models
# run in this environment, which finds the project and all but numpy in .venv. It also makes NVIDIA's perf_analyzer start,
# which `python -m loadtests.inference` runs.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${MEDMAX_TRITON_VENV:-.venv-triton}
wheel=nvidia-pytriton==0.7.0
# The stub of that Triton (2.51) knows the arrays of numpy 1 alone: with numpy 2 it hands models their first byte repeated.
numpy=numpy==1.26.4
# perf_analyzer (BSD) is in the wheel of tritonclient, which dev installs, without two libraries that it links: libb64
# (public domain, of the distribution) and CUDA's runtime (NVIDIA's licence, in NVIDIA's wheel; it needs no GPU to load).
cudart=nvidia-cuda-runtime-cu12==12.9.79
say() { printf '\033[1m[setup]\033[0m %s\n' "$*" >&2; }
die() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }

base=${PYTHON:-.venv/bin/python}
[ -x "$base" ] || command -v "$base" >/dev/null || die "make setup-dev first"
stamp=$({ cat "$0"; "$base" --version; } | sha256sum | cut -c1-16)
[ -f "$venv/.medmax-triton" ] && [ "$(cat "$venv/.medmax-triton")" = "$stamp" ] && exit 0
[ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || die "the wheel is for Linux on x86_64; the tests run without it"

version=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# The models run in a Python that Triton's stub brings up from this library.
if ! "$base" -c 'import sys, sysconfig, pathlib
name = f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0"
folders = [sysconfig.get_config_var("LIBDIR") or "", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"]
sys.exit(not any((pathlib.Path(folder) / name).exists() for folder in folders))'; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "    installing libpython$version"
    apt-get update -qq >&2 && apt-get install -y -qq --no-install-recommends "libpython$version" >&2
  else
    die "libpython$version.so.1.0 is missing: sudo apt-get install libpython$version"
  fi
fi

say "1/4 creating $venv"
"$base" -m venv --clear "$venv"
say "2/4 installing $wheel and $numpy; 75 MB to fetch, 220 MB of disk"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile "$wheel" "$numpy" ||
  die "pip could not install the package (see above)"

say "3/4 checking the installation"
"$base" -c 'import sysconfig; print("../../../..", sysconfig.get_path("purelib"), sep="\n")' > \
  "$(echo "$venv"/lib/python*/site-packages)/medmax.pth"
server=$(echo "$venv"/lib/python*/site-packages/pytriton/tritonserver)
cp "$server/python_backend_stubs/$version/triton_python_backend_stub" "$server/backends/python/" ||
  die "the wheel has no stub for Python $version"
help=$("$server/bin/tritonserver" --help 2>&1 || true)  # its status is 1
[[ $help == *--model-repository* ]] || die "$server/bin/tritonserver does not start: ${help:0:300}"

perf=$("$base" -c 'import sysconfig; print(sysconfig.get_path("scripts"))')/perf_analyzer
say "4/4 perf_analyzer: $cudart, 4 MB to fetch"
if [ -x "$perf" ] && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$cudart"; then
  if ! ldconfig -p | grep -q 'libb64\.so\.0d' && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq >&2 && apt-get install -y -qq --no-install-recommends libb64-0d >&2
  fi
  libraries=$(cd "$venv" && echo "$PWD"/lib/python*/site-packages/nvidia/cuda_runtime/lib)
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%q${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec %q "$@"\n' "$libraries" "$perf" > "$venv/bin/perf_analyzer"
  chmod +x "$venv/bin/perf_analyzer"
fi
# Triton is of use without it.
"$venv/bin/perf_analyzer" --version >&2 || say "perf_analyzer does not start (see above; Debian: libb64-0d); its load test says so"
echo "$stamp" > "$venv/.medmax-triton"
say "done"
