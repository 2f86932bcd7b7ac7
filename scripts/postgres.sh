#!/bin/sh
# Starts or stops a throwaway PostgreSQL on a free loopback port.
#
#   scripts/postgres.sh start DIR    makes a cluster in DIR (new or empty), starts it, prints its port
#   scripts/postgres.sh stop DIR     stops it and removes DIR
#
# DIR then holds `port`, `pid`, `password` (of the superuser `postgres`) and `server.log`. Run as
# root, the server runs as `postgres`: PostgreSQL refuses root.
set -eu

die() { echo "postgres.sh: $*" >&2; exit 1; }

[ $# -eq 2 ] || die "usage: postgres.sh start|stop DIR"
verb=$1
dir=$2

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || bin=$(dirname "$(command -v postgres || die 'postgresql is not installed')")

as=
[ "$(id -u)" -ne 0 ] || as="setpriv --reuid=postgres --regid=postgres --init-groups --"

running() { kill -0 "$1" 2>/dev/null; }

start() {
    mkdir -p "$dir"
    [ -z "$(ls -A "$dir")" ] || die "$dir is not empty"
    dir=$(cd "$dir" && pwd)
    chmod 700 "$dir"
    (umask 077 && od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$dir/password")
    : >"$dir/server.log"
    [ "$(id -u)" -ne 0 ] || chown -R postgres "$dir"
    # The server's account must reach the directory, wherever it lies.
    $as test -w "$dir" || die "the account postgres cannot reach $dir"
    $as "$bin/initdb" -A scram-sha-256 -E UTF8 --locale=C -U postgres \
        --pwfile "$dir/password" -D "$dir/data" >"$dir/initdb.log" 2>&1 ||
        die "initdb failed: $(tail -n 3 "$dir/initdb.log")"
    for _ in 1 2 3 4 5; do
        port=$(shuf -i 20000-32000 -n 1)
        cd "$dir"
        : >"$dir/server.log"
        # shellcheck disable=SC2086
        $as "$bin/postgres" -D "$dir/data" -h 127.0.0.1 -p "$port" -k '' \
            </dev/null >>"$dir/server.log" 2>&1 &
        tries=0
        while [ $tries -lt 200 ]; do
            if grep -q 'ready to accept connections' "$dir/server.log"; then
                head -n 1 "$dir/data/postmaster.pid" >"$dir/pid"
                echo "$port" >"$dir/port"
                echo "$port"
                return
            fi
            ! grep -q 'FATAL' "$dir/server.log" || break
            tries=$((tries + 1))
            sleep 0.1
        done
    done
    die "no server came up: $(tail -n 3 "$dir/server.log")"
}

stop() {
    [ -f "$dir/data/PG_VERSION" ] || die "$dir holds no cluster"
    if [ -f "$dir/pid" ]; then
        pid=$(cat "$dir/pid")
        # The pid may be another's by now: the server's own file says whether it still runs.
        if [ "$(head -n 1 "$dir/data/postmaster.pid" 2>/dev/null)" = "$pid" ]; then
            kill -INT "$pid" 2>/dev/null || true
            tries=0
            while running "$pid" && [ $tries -lt 300 ]; do
                tries=$((tries + 1))
                sleep 0.1
            done
            ! running "$pid" || die "the server $pid does not stop"
        fi
    fi
    rm -rf -- "$dir"
}

case $verb in
start) start ;;
stop) stop ;;
*) die "usage: postgres.sh start|stop DIR" ;;
esac
