#!/bin/sh
# Makes a release of the commit that is checked out, in DIRECTORY: every lane of tests, two builds that must give the same
# bytes, the programs, the Debian package, the image, the manifests, and their sums. Uploads nothing.
#
# usage: packaging/release.sh DIRECTORY
set -eu
directory=${1:?a directory for the release}
repository=$(cd "$(dirname "$0")/.." && pwd)
cd "$repository"
test -z "$(git status --porcelain)" || {
	echo "release: there are changes that no commit has" >&2
	exit 1
}
release=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
grep -q "^## $release" CHANGELOG.md || {
	echo "release: CHANGELOG.md has no heading \"## $release\"" >&2
	exit 1
}
mkdir -p "$directory"
test -z "$(ls -A "$directory")" || {
	echo "release: $directory is not empty" >&2
	exit 1
}
make lint test
packaging/reproducible.sh "$directory"
case $(uname -m) in
x86_64) architecture=amd64 ;;
aarch64) architecture=arm64 ;;
*) architecture=$(uname -m) ;;
esac
mv "$directory/underlay" "$directory/underlay-$release-$architecture"
mv "$directory/lan-pool" "$directory/lan-pool-$release-$architecture"
cp packaging/lan-pool.yaml "$directory/underlay-$release-lan-pool.yaml"
cp packaging/daemonset.yaml "$directory/underlay-$release-daemonset.yaml"
cd "$directory"
sha256sum -- * >SHA256SUMS
sha256sum --check --quiet SHA256SUMS
cat SHA256SUMS
