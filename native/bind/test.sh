#!/bin/sh
# Runs the unit tests of bicorn-bind, which, unlike the module itself, link with libpython. usage: test.sh PYTHON
#
# A Python without a shared libpython (Debian's without python3-dev) cannot link them; that is said, not failed: what
# they test is seen again from Python.
set -eu

python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
directory=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
library=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("LDLIBRARY"))')
multiarch=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("MULTIARCH") or "")')
if [ ! -e "$directory/$library" ] && [ ! -e "$directory/$multiarch/$library" ]; then
    echo "The unit tests of bicorn-bind are left out: $python has no $library to link with (Debian: python3-dev)."
    exit 0
fi
PYO3_PYTHON=$python LD_LIBRARY_PATH=$directory${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
    exec cargo test --quiet --package bicorn-bind --no-default-features
