#!/usr/bin/env bash
# Builds the programs of others that the tests run, from the Go modules beside this script.
#
#   build.sh OUT [MODULE...]   builds the named modules, or all of them, each into OUT/MODULE/
#
# A module is built again when its files, this script or the version of Go have changed. Else its directory is kept
# as it is. Each go.mod pins every version, and go.sum holds the checksums, so a build is the same everywhere.
# A build that is interrupted leaves the earlier directory in place, and the next run begins that module again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
all=(reference libcni containerd etcd whereabouts kubernetes)
pinned() { sed -n "s#^\(require\)\{0,1\}[[:space:]]*$2 \(v[^ ]*\).*#\2#p" "$here/$1/go.mod"; }

fail() { echo "peers: $*" >&2; exit 1; }

if [ $# = 0 ] || [ "$1" = --help ]; then
	sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
	echo "Modules: ${all[*]}"
	exit 0
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
modules=("$@")
[ $# -gt 0 ] || modules=("${all[@]}")

need_go() {
	command -v go >/dev/null || fail "go is not installed: tests/peers/$2 needs Go $1 or newer (https://go.dev/dl)"
	local have
	have=$(GOTOOLCHAIN=local go env GOVERSION)
	have=${have#go}
	[ "$(printf '%s\n%s\n' "$1" "$have" | sort -V | head -n 1)" = "$1" ] && return
	# From 1.21 on, go itself downloads the newer version that a go.mod asks for, unless it is told not to.
	if [ "$(printf '%s\n1.21\n' "$have" | sort -V | head -n 1)" = 1.21 ] && [ "$(go env GOTOOLCHAIN)" != local ]; then
		echo "peers: go is $have; it downloads Go $1, which tests/peers/$2/go.mod asks for"
		go version >/dev/null || fail "Go $1 cannot be downloaded: is a Go module proxy reachable (go env GOPROXY)?"
		return
	fi
	fail "go is $have, and tests/peers/$2/go.mod needs Go $1 or newer (https://go.dev/dl)"
}

# Reads what `go build -v` says, which is one line for each package. Says every ten seconds how far it is.
progress() {
	local line count=0 next=$((SECONDS + 10))
	while IFS= read -r line; do
		case $line in
		*[![:alnum:]./_~-]*) printf '%s\n' "$line" >&2 ;;
		*) count=$((count + 1)) ;;
		esac
		if [ $SECONDS -ge $next ]; then
			echo "peers: $module: $count packages are compiled, $((SECONDS - begun)) s"
			next=$((SECONDS + 10))
		fi
	done
}

# Downloads all that these packages need. Go tells of each download by itself.
download() {
	go list -deps "$@" >/dev/null ||
		fail "tests/peers/$module: Go cannot load all packages, see above; it downloads them by way of $(go env GOPROXY)"
}

# compile WORD...: go WORD..., with its progress.
compile() {
	go "$@" 2>&1 | progress || fail "tests/peers/$module: go $1 has failed, see above"
}

# build DIRECTORY PACKAGE...: static programs without debug information.
build() {
	local to=$1
	shift
	download "$@"
	CGO_ENABLED=0 compile build -v -trimpath -ldflags "-s -w ${LDFLAGS-}" -o "$to" "$@"
}

# Every package that go.mod names as a tool: all of main, ipam and meta.
reference() {
	local plugins=github.com/containernetworking/plugins tools
	mapfile -t tools < <(sed -n 's#^\t\(github.com/containernetworking/plugins/plugins/.*\)#\1#p' go.mod)
	LDFLAGS="-X $plugins/pkg/utils/buildversion.BuildVersion=$(pinned reference $plugins)" build "$1/" "${tools[@]}"
}

libcni() {
	build "$1/libcni" .
}

containerd() {
	local runtime=github.com/containerd/containerd/v2 critest=sigs.k8s.io/cri-tools/cmd/critest
	local runc=github.com/opencontainers/runc tags='seccomp netgo osusergo'
	pkg-config --exists libseccomp || fail "libseccomp's headers are missing: install libseccomp-dev and pkg-config"
	LDFLAGS="-X $runtime/version.Version=$(pinned containerd $runtime)" \
		build "$1/" $runtime/cmd/containerd $runtime/cmd/containerd-shim-runc-v2 $runtime/cmd/ctr
	LDFLAGS="-X sigs.k8s.io/cri-tools/pkg/version.Version=$(pinned containerd sigs.k8s.io/cri-tools)" \
		build "$1/" sigs.k8s.io/cri-tools/cmd/crictl
	download -test $critest
	CGO_ENABLED=0 compile test -c -v -trimpath -ldflags '-s -w' -o "$1/critest" $critest
	# Without seccomp, the CRI cannot start a pod.
	download -tags "$tags" $runc
	CGO_ENABLED=1 compile build -v -trimpath -tags "$tags" -o "$1/runc" \
		-ldflags "-s -w -extldflags -static -X main.version=$(pinned containerd $runc)" $runc
}

etcd() {
	build "$1/etcd" go.etcd.io/etcd/server/v3
}

whereabouts() {
	build "$1/whereabouts" github.com/k8snetworkplumbingwg/whereabouts/cmd
}

kubernetes() {
	local version
	version=$(pinned kubernetes k8s.io/kubernetes)
	local at=k8s.io/component-base/version
	local minor=${version#v1.}
	LDFLAGS="-X $at.gitVersion=$version -X $at.gitMajor=1 -X $at.gitMinor=${minor%%.*}" build "$1/kubernetes" .
	local part
	for part in kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet; do
		ln -s kubernetes "$1/$part"
	done
}

# One run at a time for each OUT. The lock goes with the last process that has it open.
exec 9>"$out/.lock"
flock --nonblock 9 || { echo "peers: another run builds into $out; this one waits for it"; flock 9; }

for module in "${modules[@]}"; do
	[ -f "$here/$module/go.mod" ] || fail "there is no module $module: the modules are ${all[*]}"
	cd "$here/$module"
	need_go "$(sed -n 's/^go //p' go.mod)" "$module"
	# Everything that the result depends on, in one line.
	version=$(cat ./* "$here/build.sh" <(go env GOVERSION GOARCH) | sha256sum | cut -d ' ' -f 1)
	if [ "$(cat "$out/$module/.version" 2>/dev/null)" = "$version" ]; then
		continue
	fi
	echo "peers: building $module; its go.mod and go.sum are in tests/peers/$module"
	begun=$SECONDS
	new=$out/.$module.new
	rm -rf "$new" && mkdir "$new"
	"$module" "$new"
	echo "$version" >"$new/.version"
	rm -rf "${out:?}/$module" && mv "$new" "$out/$module"
	echo "peers: $module is built, $((SECONDS - begun)) s: $(cd "$out/$module" && echo *)"
done
