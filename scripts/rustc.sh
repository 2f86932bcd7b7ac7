#!/bin/bash
# Compiles our own crate as cargo asks for it, and lints it in the same pass: clippy is the compiler with
# more to say. Warnings are errors here, for our own code only: flags in RUSTFLAGS would rebuild every
# dependency.
set -euo pipefail
exec clippy-driver "$@" -D warnings
