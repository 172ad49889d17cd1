#!/usr/bin/env bash
# Runs all tests or one lane of them, after everything that they need is installed and built.
#
#   run.sh all|LANE [WORD...]   with words: only tests with one of them in their full names
#
# The time of each phase goes to the file `phases` in cargo's target directory. `lanes` prints it at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
export UNDERLAY_PHASES=$target/phases
: >"$UNDERLAY_PHASES"

phase() {
	local name=$1 begun=$SECONDS status=0
	shift
	"$@" || status=$?
	printf '%s\t%s\n' $((SECONDS - begun)) "$name" >>"$UNDERLAY_PHASES"
	[ $status = 0 ] || { echo "run.sh: $name: failed after $((SECONDS - begun)) s" >&2; exit 1; }
}

# Another directory of the same programs may be named to the tests.
peers() {
	[ -n "${UNDERLAY_PEERS-}" ] || tests/peers/build.sh "$target/peers" "$@"
}

lane=$1
shift
only=(--only "$lane")
case $lane in
all)
	only=()
	wanted=(reference libcni containerd etcd whereabouts)
	phase packages tests/packages.sh unit native runtime compliance guest kubernetes
	;;
unit) wanted=() ;;
native) wanted=(reference containerd) ;;
runtime) wanted=(reference libcni containerd) ;;
compliance) wanted=(reference) ;;
guest) wanted=(reference libcni) ;;
kubernetes) wanted=(reference containerd etcd whereabouts kubernetes) ;;
*) echo "run.sh: $lane: the lanes are unit, native, runtime, compliance, guest, kubernetes" >&2; exit 1 ;;
esac
[ "$lane" = all ] || phase packages tests/packages.sh "$lane"
[ "$lane" = unit ] || phase 'the program' make build floor
[ ${#wanted[@]} = 0 ] || phase peers peers "${wanted[@]}"
# `--workspace` everywhere, since cargo chooses features of dependencies by the packages that are named to it.
phase 'the test runner' cargo build --locked --workspace --bin lanes
if [ "$lane" = all ] || [ "$lane" = unit ] && [ $# = 0 ]; then
	phase 'tests in documentation' cargo test --locked --workspace --doc
fi
if [ "$lane" = all ] && [ -z "${UNDERLAY_PEERS-}" ]; then
	# Seven minutes of two processors, the first time. The guest leaves one of them idle.
	only=(--meanwhile "tests/peers/build.sh '$target/peers' kubernetes")
fi
exec "$target/debug/lanes" "${only[@]}" "$@"
