#!/bin/sh
# tools/servers.sh: the servers that tests talk to, from Debian's packages, where we may install them. Never fails: tests
# of a server that is missing skip and say so (in CI they fail).
set -u
missing=""
for server in prometheus pgbouncer victoria-metrics influxd:influxdb; do # the command, and the package that has it
    command -v "${server%:*}" >/dev/null 2>&1 || missing="$missing ${server#*:}"
done
# Each version's programs have a folder of their own, off the PATH.
command -v postgres >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "tellmeter: not installed:$missing; their tests skip (as root on Debian they are installed)" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 # nothing is started
# shellcheck disable=SC2086
install="apt-get install -qq -y --no-install-recommends $missing"
$install >/dev/null 2>&1 || { apt-get update -qq && $install >/dev/null; } ||
    echo "tellmeter: could not install$missing; their tests skip" >&2
exit 0
