#!/bin/sh
# Writes a container image with the program, lan-pool of the same directory and their licence, and nothing else, into
# DIRECTORY: one tar that is an OCI layout and what `docker load` reads. The same programs and SOURCE_DATE_EPOCH give the same bytes.
#
# usage: packaging/image.sh PROGRAM DIRECTORY
set -eu
program=$1
directory=$2
: "${SOURCE_DATE_EPOCH:?the date of the commit, in seconds since 1970}"
here=$(cd "$(dirname "$0")" && pwd)
release=$("$program" --version)
release=${release#underlay }
case $(uname -m) in
x86_64) architecture=amd64 ;;
aarch64) architecture=arm64 ;;
armv7l) architecture=arm ;;
*) architecture=$(uname -m) ;;
esac
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT INT TERM
root=$scratch/root
layout=$scratch/layout
mkdir -p "$root" "$layout/blobs/sha256"
install -m 755 "$program" "$root/underlay"
install -m 755 "$(dirname "$program")/lan-pool" "$root/lan-pool"
install -m 644 "$here/../LICENSE" "$root/LICENSE"

# tar_of DIRECTORY FILE...: the files, as nobody's in particular, in a given order.
tar_of() {
	tar --create --directory "$1" --format ustar --sort name --owner 0 --group 0 --numeric-owner \
		--mtime "@$SOURCE_DATE_EPOCH" -- $(cd "$1" && ls)
}
# blob FILE: puts it where its digest says, and says "digest size".
blob() {
	digest=$(sha256sum "$1" | cut -d ' ' -f 1)
	mv "$1" "$layout/blobs/sha256/$digest"
	echo "$digest $(wc -c <"$layout/blobs/sha256/$digest")"
}

tar_of "$root" >"$scratch/layer"
content=$(sha256sum "$scratch/layer" | cut -d ' ' -f 1)
gzip -9n "$scratch/layer"
layer=$(blob "$scratch/layer.gz")
cat >"$scratch/config" <<EOF
{"created":"$created","architecture":"$architecture","os":"linux","config":{"User":"0","Entrypoint":["/underlay"],"Cmd":["install","--wait"],"Labels":{"org.opencontainers.image.title":"underlay","org.opencontainers.image.version":"$release","org.opencontainers.image.licenses":"Apache-2.0"}},"rootfs":{"type":"layers","diff_ids":["sha256:$content"]}}
EOF
config=$(blob "$scratch/config")
cat >"$scratch/manifest" <<EOF
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:${config% *}","size":${config#* }},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:${layer% *}","size":${layer#* }}]}
EOF
manifest=$(blob "$scratch/manifest")
echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
cat >"$layout/index.json" <<EOF
{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:${manifest% *}","size":${manifest#* },"platform":{"architecture":"$architecture","os":"linux"},"annotations":{"io.containerd.image.name":"docker.io/library/underlay:$release","org.opencontainers.image.ref.name":"$release"}}]}
EOF
cat >"$layout/manifest.json" <<EOF
[{"Config":"blobs/sha256/${config% *}","RepoTags":["underlay:$release"],"Layers":["blobs/sha256/${layer% *}"]}]
EOF
mkdir -p "$directory"
image=$directory/underlay-$release-$architecture.image.tar
tar_of "$layout" >"$image"
echo "$image"
