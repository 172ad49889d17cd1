#!/bin/sh
# Writes a Debian package with the program under its plugin names, lan-pool of the same directory, manual pages and
# examples into DIRECTORY. The same programs and SOURCE_DATE_EPOCH give the same bytes. How it lives beside Debian's own plugins: packaging/README.md.
#
# usage: packaging/deb.sh PROGRAM DIRECTORY
set -eu
program=$1
directory=$2
: "${SOURCE_DATE_EPOCH:?the date of the commit, in seconds since 1970}"
here=$(cd "$(dirname "$0")" && pwd)
release=$("$program" --version)
release=${release#underlay }
plugins=$("$program" --plugins | tr '\n' ' ')
# A file of another package with this name is diverted too.
names="${plugins}lan-pool "
architecture=$(dpkg --print-architecture)
maintainer=${MAINTAINER:-The Underlay developers <underlay@example.org>}

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT INT TERM
chmod 755 "$root"
umask 022
document=$root/usr/share/doc/underlay

# In one directory, hard links are one file for dpkg as well.
install -D -m 755 "$program" "$root/usr/lib/cni/underlay"
for name in $plugins; do
	ln "$root/usr/lib/cni/underlay" "$root/usr/lib/cni/$name"
done
install -m 755 "$(dirname "$program")/lan-pool" "$root/usr/lib/cni/lan-pool"
mkdir -p "$root/usr/sbin" "$root/usr/share/man/man8" "$document"
ln -s ../lib/cni/underlay "$root/usr/sbin/underlay"
ln -s ../lib/cni/lan-pool "$root/usr/sbin/lan-pool"
install -D -m 644 "$here/network/05-underlay.network" "$root/usr/lib/systemd/network/05-underlay.network"
install -D -m 644 "$here/network/90-underlay.conf" "$root/usr/lib/NetworkManager/conf.d/90-underlay.conf"
install -D -m 644 "$here/network/90-underlay-sysctl.conf" "$root/usr/lib/sysctl.d/90-underlay.conf"
for page in "$here"/man/*.8; do
	gzip -9nc "$page" >"$root/usr/share/man/man8/$(basename "$page").gz"
done
cp -r "$here/../conf-examples" "$document/examples"
find "$document/examples" -type f -exec chmod 644 {} +
install -m 644 "$here/deb/copyright" "$document/copyright"
# For a cluster with one pool. The units are examples: the package does not start them.
install -m 644 "$here/lan-pool.yaml" "$here"/systemd/underlay-lan-pool-sweep.* "$document"
gzip -9n <<EOF >"$document/changelog.gz"
underlay ($release) unstable; urgency=medium

  * Release $release. What is new for operators is in CHANGELOG.md.

 -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
EOF
install -D -m 644 "$here/deb/lintian-overrides" "$root/usr/share/lintian/overrides/underlay"

mkdir "$root/DEBIAN"
for script in preinst postinst postrm; do
	sed "s/@NAMES@/${names% }/" "$here/deb/$script" >"$root/DEBIAN/$script"
	chmod 755 "$root/DEBIAN/$script"
done
(cd "$root" && find usr -type f | LC_ALL=C sort | xargs md5sum) >"$root/DEBIAN/md5sums"
cat >"$root/DEBIAN/control" <<EOF
Package: underlay
Version: $release
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -ks --exclude DEBIAN "$root" | cut -f 1)
Enhances: containerd, podman
Section: net
Priority: optional
Description: container network plugins that put containers on the host's LAN
 CNI plugins macvlan, ipvlan, loopback, host-local and static as one program, and
 the IPAM plugin lan-pool. A container gets an interface straight on the host's
 LAN, without a bridge, NAT, tunnel or daemon.
 .
 The plugins replace those of the same names from containernetworking-plugins,
 with the same configurations and the same files on disk, where that package is
 installed; its files are diverted, and back when this package is removed.
EOF
find "$root" -exec touch --no-dereference -d "@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$directory"
# With one thread: xz writes other bytes with several.
DPKG_DEB_THREADS_MAX=1 dpkg-deb --root-owner-group -Zxz --build "$root" "$directory/underlay_${release}_$architecture.deb" >/dev/null
echo "$directory/underlay_${release}_$architecture.deb"
