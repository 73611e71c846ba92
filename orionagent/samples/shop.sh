#!/bin/sh
# A sample application for `orion demo`: chatty and healthy.
trap 'echo "shop closes after $order orders"; exit 0' TERM INT
order=1000
echo "shop is open"
while :; do
    order=$((order + 1))
    echo "order $order taken"
    case $((order % 10)) in
        3) echo "{\"level\":\"debug\",\"msg\":\"cache is warm\",\"order\":$order,\"hits\":$((order * 7 % 100))}" ;;
        5) echo "WARN payment is slow for order $order" ;;
        8) printf 'Error: cannot print the label of order %s\n    at printLabel (shop.js:42:7)\n    at ship (shop.js:7:3)\n' "$order" >&2 ;;
    esac
    sleep 1
done
