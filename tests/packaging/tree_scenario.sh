#!/bin/sh
# What people do with the agent on a fresh, minimal machine; run as root inside its tree with the installer as $1.
# Every step says what it found; the test reads that.
set -eu

# until_true COMMAND...: waits for it; the whole run has a time limit.
until_true() {
    until "$@" >/dev/null 2>&1; do sleep 0.1; done
}

find /usr/local /etc | sort >/tmp/before

echo "== install"
sh "$1" --version 1.0.0
orion version

echo "== console, set-up, daemon"
orion console --listen 127.0.0.1:0 --data /tmp/console >/tmp/console.log 2>&1 &
console=$!
until_true grep '^token: ' /tmp/console.log
address=$(sed -n 's/^orion console at //p' /tmp/console.log)
token=$(sed -n 's/^token: //p' /tmp/console.log)
orion setup --server --yes "--token=$token" "--api-url=$address" --project=demo
orion daemon >/tmp/daemon.log 2>&1 &
daemon=$!
until_true orion ping
servers() { curl -fsS -H "Authorization: Bearer $token" "$address/api/projects/demo/servers"; }
seen() { servers | grep -q '"memory"'; }
until_true seen
echo "the console has heard: $(servers)"

echo "== an application"
orion script add hello 'sh -c "while sleep 0.1; do echo hello; done"' --cwd /tmp
connected() { orion status | grep '^backend *connected'; }
until_true connected
orion status
arrived() { orion logs hello --lines 1 | grep hello; }
until_true arrived
pid_of() { orion script show hello --json | grep -o '"pid":[0-9]*' | sed 1q; }
first=$(pid_of)

echo "== upgrade, a broken upgrade, rollback"
# By a person who is not root, through a pipe, as the first page says.
su person -c 'sh -s -- --version 1.1.0' <"$1"
orion ping | grep 1.1.0
sh "$1" --version 1.9.0 && exit 1 || echo "the broken version ended with $?"
orion ping | grep 1.1.0
sh "$1" --rollback
orion ping | grep 1.0.0
[ "$(pid_of)" = "$first" ] && kill -0 "$daemon" && echo "the application ran as $first all the time"

echo "== stop and remove"
sh "$1" --purge && exit 1 || echo "removing a running agent ended with $?"
kill "$daemon"
wait "$daemon" && echo "the daemon ended well"
cat /tmp/daemon.log
kill "$console"
wait "$console" || true
sh "$1" --purge
find /usr/local /etc | sort | diff /tmp/before -
find /run /var /tmp -name '*orion*' | grep . && exit 1 || echo "nothing is left"
