#!/usr/bin/env bash
# Runs the tests that depend on the versions of Python and NumPy with every interpreter named
# (PYTHONS="python3.10 python3.14 ..."), or found on PATH and under pyenv: once as `make` installs
# (the newest NumPy) and, up to Python 3.12, once as requirements.txt does (NumPy 1).
set -euo pipefail
cd "$(dirname "$0")/.."
TESTS=${TESTS:-tests/network/test_compat.py tests/network/test_layers.py tests/network/test_maskflownet.py tests/test_predict_new_data.py tests/reader}
if [ -z "${PYTHONS:-}" ]; then
    for minor in 10 11 12 13 14; do
        for found in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.$minor.*/bin/python "$(command -v python3.$minor || true)"; do
            if [ -x "$found" ] && "$found" --version >/dev/null 2>&1; then
                PYTHONS="${PYTHONS:-} $found"
                break
            fi
        done
    done
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0
check() { # the environment in $folder/venv
    local versions result
    versions=$("$folder/venv/bin/python" -c "import sys, numpy, cv2; print('Python', sys.version.split()[0], 'NumPy', numpy.__version__, 'OpenCV', cv2.__version__)")
    # shellcheck disable=SC2086
    if result=$("$folder/venv/bin/python" -m pytest -q -p no:cacheprovider $TESTS 2>&1); then
        echo "passed  $versions: $(tail -n 1 <<<"$result")"
    else
        echo "FAILED  $versions"
        tail -n 60 <<<"$result"
        failed=1
    fi
    rm -rf "$folder/venv"
}
for python in $PYTHONS; do
    make --silent VENV="$folder/venv" PYTHON="$python" "$folder/venv/.tested" >/dev/null
    check
    "$python" -c "import sys; sys.exit(sys.version_info >= (3, 13))" || continue
    "$python" -m venv "$folder/venv"
    "$folder/venv/bin/python" -m pip install --quiet -r requirements.txt -e .[dev]
    check
done
exit $failed
