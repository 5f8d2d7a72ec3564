#!/usr/bin/env bash
# Create or bring up to date the environment in .venv:   scripts/setup.sh [runtime|dev]
# Does nothing when pyproject.toml and constraints.txt have not changed since it last succeeded.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-runtime}
venv=.venv
extra=$([ "$kind" = dev ] && echo '[dev]' || echo '')
say() { printf '\033[1m[setup]\033[0m %s\n' "$*" >&2; }
die() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }

stamp=$(cat pyproject.toml constraints.txt "$0" | sha256sum | cut -c1-16)
# The dev environment holds all of the runtime one.
for done in "$venv/.medmax-dev" "$venv/.medmax-$kind"; do
  [ -f "$done" ] && [ "$(cat "$done")" = "$stamp" ] && exit 0
done

python=
for name in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
  [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 || continue
  "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && { python=$name; break; }
done
[ -n "$python" ] || die "Python 3.11 to 3.13 is needed: apt-get install python3 python3-venv (or set PYTHON=)"

if [ ! -x "$venv/bin/python" ]; then
  say "1/3 creating $venv with $("$python" --version)"
  if ! "$python" -m venv "$venv" >/tmp/medmax-venv.$$ 2>&1; then
    rm -rf "$venv"
    # Debian and Ubuntu ship Python without ensurepip.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
      say "    installing python3-venv, which $python lacks"
      apt-get update -qq >&2 && apt-get install -y -qq python3-venv >&2
      "$python" -m venv "$venv"
    else
      cat /tmp/medmax-venv.$$ >&2
      die "$python has no venv module; install it: sudo apt-get install python3-venv"
    fi
  fi
  rm -f /tmp/medmax-venv.$$
else
  say "1/3 $venv is there"
fi

# A progress bar where somebody watches, one line a package where nobody does.
bar=$([ -t 2 ] && echo on || echo off)
say "2/3 installing PyTorch (CPU) and the other pinned packages; a first time takes 2 to 5 minutes"
"$venv/bin/python" -m pip install --progress-bar "$bar" --quiet --upgrade pip -c constraints.txt >&2
"$venv/bin/python" -m pip install --progress-bar "$bar" -c constraints.txt -e ".$extra" 2>&1 |
  awk '/^(Collecting|Downloading|Installing collected|Successfully)/ {n++; if (/^Collecting/) {printf "[setup]     %s\n", $2} else if (/^(Installing|Successfully)/) {print "[setup]     " $1 " …"} fflush()} /^ERROR|error:/ {print; fflush()}' >&2
[ "${PIPESTATUS[0]}" = 0 ] || die "pip could not install the packages (see above)"

say "3/3 checking the installation"
"$venv/bin/python" -c 'import torch, ray, grpc, services; print(f"[setup]     torch {torch.__version__}, ray {ray.__version__}, grpc {grpc.__version__}")' >&2
echo "$stamp" > "$venv/.medmax-$kind"
say "done"
