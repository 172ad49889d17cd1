#!/usr/bin/env bash
# Installs the packages of Debian or Ubuntu that lanes of tests, or other targets of the Makefile, need.
#
#   packages.sh LANE...
set -euo pipefail

# An image of busybox, a LAN of namespaces, and the headers for runc, which is linked with libseccomp.
lab=(iproute2 busybox-static)
runc=(libseccomp-dev pkg-config)

packages=()
for lane in "$@"; do
	case $lane in
	unit) ;;
	native) packages+=("${lab[@]}" "${runc[@]}" user-mode-linux strace valgrind mandoc iperf3 ethtool nftables procps \
		containernetworking-plugins dnsmasq-base radvd) ;;
	# podman with the package runc, and not with crun: the tests say so in its configuration.
	runtime) packages+=("${lab[@]}" "${runc[@]}" podman runc) ;;
	compliance) packages+=("${lab[@]}") ;;
	guest) packages+=("${lab[@]}" user-mode-linux strace valgrind procps tcpdump containernetworking-plugins dnsmasq-base \
		radvd) ;;
	# kube-proxy and portmap call iptables and nft. dnsmasq is the DNS server of the cluster.
	kubernetes) packages+=("${lab[@]}" "${runc[@]}" nftables iptables dnsmasq-base openssl) ;;
	bench) packages+=("${lab[@]}" strace valgrind user-mode-linux iperf3 ethtool nftables) ;;
	fuzz) packages+=(g++) ;;
	*) echo "packages.sh: $lane: no lane or target of that name" >&2; exit 1 ;;
	esac
done

# Some benchmarks trace with perf. Its package has this name in Debian alone, and they do without it.
if [[ " $* " == *" native "* || " $* " == *" bench "* ]] && apt-cache show linux-perf >/dev/null 2>&1; then
	packages+=(linux-perf)
fi

missing=()
for package in "${packages[@]}"; do
	# shellcheck disable=SC2016
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
echo "installing: ${missing[*]}"
root=
[ "$(id -u)" = 0 ] || root=sudo
$root apt-get update -qq
$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" || {
	echo "packages.sh: apt-get could not install ${missing[*]}" >&2
	exit 1
}
