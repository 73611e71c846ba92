#!/bin/sh
# What a person does with the agent on a fresh, minimal machine; run as root inside its tree with the installer
# as $1. Every step says what it found; the test reads that.
set -eu

find /usr/local /etc | sort >/tmp/before

echo "== install"
sh "$1" --version 1.0.0
orion version

echo "== console and daemon"
orion console --listen 127.0.0.1:0 --data /tmp/console >/tmp/console.log 2>&1 &
console=$!
until grep -q '^token: ' /tmp/console.log; do sleep 0.1; done
address=$(sed -n 's/^orion console at //p' /tmp/console.log)
token=$(sed -n 's/^token: //p' /tmp/console.log)
orion setup --server --yes "--token=$token" "--api-url=$address" --project=demo
orion daemon >/tmp/daemon.log 2>&1 &
daemon=$!
until orion ping >/dev/null 2>&1; do sleep 0.1; done
orion script add hello 'sh -c "while sleep 0.1; do echo hello; done"' --cwd /tmp
until orion status | grep -q '^backend *connected'; do sleep 0.1; done
orion status
until orion logs hello --lines 1 | grep hello; do sleep 0.1; done

echo "== upgrade and rollback of the files"
sh "$1" --version 1.1.0
orion reload
until orion ping | grep 1.1.0; do sleep 0.1; done
if sh "$1" --version 1.9.0; then orion reload && echo "the broken version was taken" || true; fi
sh "$1" --rollback

echo "== stop and remove"
kill "$daemon"
wait "$daemon" && echo "the daemon ended well"
cat /tmp/daemon.log
kill "$console"
wait "$console" || true
sh "$1" --purge
rm -rf /etc/orion
find /usr/local /etc | sort | diff /tmp/before - && echo "nothing is left"
