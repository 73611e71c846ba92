#!/bin/sh
# A sample application for `orion demo`: it crashes now and then.
echo "importer starts with pid $$"
for percent in 20 40 60 80; do
    sleep 1
    echo "imported $percent %"
done
sleep 1
case $(($$ % 2)) in
    0) echo "ERROR bad date in row 4711" >&2; exit 3 ;;
    *) echo "ERROR out of patience" >&2; kill -ABRT $$ ;;
esac
