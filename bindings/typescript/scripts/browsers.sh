#!/bin/sh
# Runs the tests in browsers, in a network namespace of their own, so that their firewall is nobody else's. Needs root.
set -eu
cd "$(dirname "$0")/.."
vitest='ip link set lo up && exec node node_modules/vitest/vitest.mjs run --config vitest.e2e.config.mjs "$@"'
exec unshare --net -- sh -c "$vitest" sh "$@"
