#!/usr/bin/env bash
# The same tests for an unprivileged user: run by root, it copies the tree to where `nobody` can read it and runs pytest as
# that user. What needs privileges must say SKIP there, not fail. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || exec python3 -m pytest --vm-kernels=none "$@"

as_nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs env -u XDG_CACHE_HOME)
python=
for candidate in /usr/bin/python3 /usr/local/bin/python3 "$(command -v python3)"; do
  if "${as_nobody[@]}" "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "SKIP: no Python 3.10 or newer that the user nobody may run"
  exit 0
fi

place=$(mktemp -d /tmp/sonde-nobody.XXXXXX)
trap 'rm -rf "$place"' EXIT
chmod 755 "$place"
tar cf - --exclude=.git --exclude=.venv --exclude=__pycache__ --exclude=.pytest_cache . | tar xf - -C "$place"
"$python" -m venv "$place/.venv"
"$place/.venv/bin/python" -m pip install -q --disable-pip-version-check pytest hypothesis pytest-timeout pyelftools
mkdir "$place/home"
chown -R 65534:65534 "$place"
cd "$place"
pytest=("${as_nobody[@]}" HOME="$place/home" "$place/.venv/bin/python" -m pytest -q --vm-kernels=none "$@")
status=0
"${pytest[@]}" || status=$?
[ $status = 1 ] || exit $status
# As in setup-and-test.sh: what failed gets one more run, by itself.
echo "== once more, what failed:"
"${pytest[@]}" --last-failed --last-failed-no-failures none
echo "== the tests above failed in the first run and passed in the second"
