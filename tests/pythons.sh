#!/usr/bin/env bash
# Runs the tests that depend most on the versions of Python and NumPy with every interpreter named
# (PYTHONS="python3.8 /opt/python3.13/bin/python ..."), or found on PATH and under pyenv.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${PYTHONS:-}" ]; then
    for minor in 8 9 10 11 12 13; do
        for found in "$(command -v python3.$minor || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.$minor.*/bin/python; do
            if [ -n "$found" ] && "$found" --version >/dev/null 2>&1; then
                PYTHONS="${PYTHONS:-} $found"
                break
            fi
        done
    done
fi
TESTS=${TESTS:-tests/network/test_compat.py tests/network/test_layers.py tests/network/test_maskflownet.py tests/engine tests/reader tests/test_predict_new_data.py}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0
for python in $PYTHONS; do
    for numpy in default newest; do
        venv="$folder/$(basename "$(dirname "$(dirname "$python")")")-$numpy"
        make --silent VENV="$venv" PYTHON="$python" "$venv/.tested" >/dev/null
        if [ $numpy = newest ]; then # what pip alone would not pair with MXNet
            "$venv/bin/python" -m pip install --quiet --upgrade numpy opencv-python-headless scikit-image 2>/dev/null
        fi
        versions=$("$venv/bin/python" -c "import sys, numpy, cv2; print('Python', sys.version.split()[0], 'NumPy', numpy.__version__, 'OpenCV', cv2.__version__)")
        # shellcheck disable=SC2086
        if result=$("$venv/bin/python" -m pytest -q -p no:cacheprovider $TESTS 2>&1); then
            echo "passed  $versions: $(tail -n 1 <<<"$result")"
        else
            echo "FAILED  $versions"
            tail -n 40 <<<"$result"
            failed=1
        fi
        rm -rf "$venv"
    done
done
exit $failed
