#!/bin/sh
# Builds a static busybox with its default configuration from Debian's source
# package, for images that need what busybox-static lacks: pgrep, ipcs, and a shell
# that runs /bin/ls rather than its own applet.
#
#   busybox.sh DIR      -> DIR/busybox (kept if it is there)
#
# Needs gcc, make, bzip2, libc6-dev and Debian's package archive.
set -eu
dir=$1
[ -x "$dir/busybox" ] && exit 0
mkdir -p "$dir/apt/lists/partial" "$dir/src"
cd "$dir"
. /etc/os-release
printf 'Types: deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
	"${DEBIAN_MIRROR:-http://deb.debian.org/debian}" "${VERSION_CODENAME:-bookworm}" >apt/src.sources
apt="apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=$PWD/apt -o Dir::State::lists=$PWD/apt/lists -o APT::Sandbox::User=root"
$apt update
(cd src && $apt --download-only source busybox && tar xjf busybox_*.orig.tar.bz2)
cd src/busybox-*/
make -s defconfig >/dev/null
# tc does not compile with recent kernel headers.
sed -i -e 's/^# CONFIG_STATIC is not set/CONFIG_STATIC=y/' -e 's/^CONFIG_TC=y/# CONFIG_TC is not set/' \
	-e 's/^CONFIG_FEATURE_SH_STANDALONE=y/# CONFIG_FEATURE_SH_STANDALONE is not set/' \
	-e 's/^CONFIG_FEATURE_PREFER_APPLETS=y/# CONFIG_FEATURE_PREFER_APPLETS is not set/' .config
yes '' 2>/dev/null | make -s oldconfig >/dev/null
# A fixed time: the binary, and so the images' digests, are the same every time.
SOURCE_DATE_EPOCH=1700000000 make -s -j"$(nproc)" busybox >/dev/null 2>"$dir/build.log" || { tail -20 "$dir/build.log" >&2; exit 1; }
cp busybox "$dir/busybox.new"
strip "$dir/busybox.new"
mv "$dir/busybox.new" "$dir/busybox"
cd "$dir"
rm -rf src apt
