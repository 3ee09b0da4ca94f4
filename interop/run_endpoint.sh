#!/bin/bash
# Started by the QUIC Interop Runner. The runner's question whether a made-up case is refused comes without a network.
set -e
case "$TESTCASE" in
    handshake | transfer) ;;
    transfer-*-send | transfer-*-receive) ;;
    *) exit 127 ;;
esac
# Routes through the simulator.
/setup.sh
if [ "$ROLE" = client ]; then
    /wait-for-it.sh sim:57832 -s -t 30
fi
exec /usr/local/bin/endpoint 2>>"/logs/$ROLE.log"
