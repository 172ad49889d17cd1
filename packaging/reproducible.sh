#!/bin/sh
# Builds the commit that is checked out twice, in different directories with different homes of cargo, and compares the
# programs, the package and the image byte for byte. Says their sums.
#
# usage: packaging/reproducible.sh [DIRECTORY, where the first build's files are left]
set -eu
repository=$(cd "$(dirname "$0")/.." && pwd)
left=${1:+$(realpath -m "$1")}
SOURCE_DATE_EPOCH=$(git -C "$repository" log -1 --format=%ct)
export SOURCE_DATE_EPOCH
unset CARGO_TARGET_DIR MAKEFLAGS MAKELEVEL

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT INT TERM
cargo_home=${CARGO_HOME:-$HOME/.cargo}
# build DIRECTORY: the commit, in a clone there. Only what cargo has downloaded already is shared.
build() {
	mkdir -p "$1"
	git clone --quiet --no-hardlinks "$repository" "$1/source"
	CARGO_HOME=$1/cargo
	export CARGO_HOME
	mkdir "$CARGO_HOME"
	if test -d "$cargo_home/registry"; then
		mkdir "$CARGO_HOME/registry"
		cp -r "$cargo_home/registry/index" "$cargo_home/registry/cache" "$CARGO_HOME/registry"
	fi
	make --silent -C "$1/source" deb image
}
# PATH finds cargo wherever its home is.
PATH=$cargo_home/bin:$PATH
build "$scratch/one" >/dev/null
build "$scratch/another, of a longer name" >/dev/null
cd "$scratch/one/source"
for file in bin/underlay bin/lan-pool dist/*; do
	cmp "$file" "$scratch/another, of a longer name/source/$file"
	sha256sum "$file"
done
if test -n "$left"; then
	mkdir -p "$left"
	cp bin/underlay bin/lan-pool dist/* "$left"
fi
