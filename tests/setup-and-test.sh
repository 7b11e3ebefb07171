#!/usr/bin/env bash
# The README's test command: installs what the tests need (in a virtual environment, and Debian packages where we may),
# then checks style and types and runs all tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(gcc libc6-dev python3-venv bpftrace bpfcc-tools xfsprogs btrfs-progs qemu-system-x86 qemu-system-common busybox-static
          systemtap-sdt-dev zstd musl-tools qemu-user-static binutils-aarch64-linux-gnu libc6-arm64-cross libgcc-s1-arm64-cross tcpdump bpftool)
missing=()
if command -v dpkg-query >/dev/null; then
  for p in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
  done
fi
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -q >/dev/null 2>&1 || echo "apt-get update failed; going on with the lists that are here"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null \
      || echo "could not install ${missing[*]}: the tests that need them will say SKIP"
  else
    echo "not installed: ${missing[*]}: the tests that need them will say SKIP"
  fi
fi

venv=${SONDE_VENV:-.venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install -q --disable-pip-version-check -e '.[dev]'

# Tracefs is where the events are; a container may lack the mount. It is what every distribution mounts at boot.
if [ "$(id -u)" = 0 ] && [ -d /sys/kernel/tracing ] && [ ! -e /sys/kernel/tracing/events ]; then
  mount -t tracefs nodev /sys/kernel/tracing 2>/dev/null || echo "cannot mount tracefs: tests that need it will say SKIP"
fi

"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
# The tests in the VM mostly wait for their guest: they run beside the others, in two shares. Each run keeps its own list of failures.
pytest_part() { # NAME, more arguments
  local name=$1
  shift
  local status=0
  "$venv/bin/python" -m pytest -o "cache_dir=.pytest_cache/$name" "$@" || status=$?
  [ $status = 5 ] && status=0 # nothing of that part was asked for
  return $status
}
here=(here -m "not vm")
first=(first -m vm --vm-share=first)
rest=(rest -m vm --vm-share=rest)

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
pytest_part "${first[@]}" "$@" >"$logs/first" 2>&1 &
first_run=$!
pytest_part "${rest[@]}" "$@" >"$logs/rest" 2>&1 &
rest_run=$!
here_status=0 first_status=0 rest_status=0
pytest_part "${here[@]}" "$@" || here_status=$?
wait $first_run || first_status=$?
wait $rest_run || rest_status=$?
echo "== in the VM:"
cat "$logs/first" "$logs/rest"
for status in $here_status $first_status $rest_status; do
  [ $status -le 1 ] || exit $status # not a failed test, but a run that broke
done
[ $((here_status + first_status + rest_status)) = 0 ] && exit 0

# Tests of live tracing share the machine with whatever else runs on it. What failed gets one more run, by itself; a test that
# fails again fails the whole, and one that does not is named here as disturbed.
again=(--last-failed --last-failed-no-failures none -q)
echo "== once more, what failed:"
[ $here_status = 0 ] || pytest_part "${here[@]}" "${again[@]}" "$@"
[ $first_status = 0 ] || pytest_part "${first[@]}" "${again[@]}" "$@"
[ $rest_status = 0 ] || pytest_part "${rest[@]}" "${again[@]}" "$@"
echo "== the tests above failed in the first run and passed in the second"
