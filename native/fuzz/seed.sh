#!/bin/sh
# Copies the corpus of requests into the fuzzer's own corpora, which git ignores. Two targets read
# a few bytes of choices before the request; their seeds get plain ones.
set -eu
cd "$(dirname "$0")"
mkdir -p corpus/head corpus/body corpus/exchange corpus/split
for request in ../../tests/wire/corpus/*/*.http; do
    name=$(basename "$request" .http)
    cp "$request" "corpus/head/$name"
    cp "$request" "corpus/exchange/$name"
    { printf '\000\000\020'; cat "$request"; } > "corpus/split/$name"
    case $name in
        *chunk*|*trailer*) { printf '\377\020'; sed '1,/^\r$/d' "$request"; } > "corpus/body/$name" ;;
    esac
done

# Frames after three bytes of choices: no compression or some, a limit of 4080 bytes, a cut in the middle. Their masking
# key is zero, so that the fuzzer sees what it changes.
mkdir -p corpus/websocket corpus/handshake
frame() { # NAME CHOICES FIRST-AND-LENGTH PAYLOAD [MORE FRAMES]: octal escapes of printf
    printf "$2\\377\\010$3\\000\\000\\000\\000$4${5:-}" > "corpus/websocket/$1"
}
frame text '\000' '\201\205' 'Hello'
frame binary '\000' '\202\201' '\377'
frame fragments '\000' '\001\201' '\342' '\211\200\000\000\000\000\200\202\000\000\000\000\230\203'
frame close '\000' '\210\205' '\003\350bye'
frame compressed '\001' '\301\207' '\362\110\315\311\311\007\000'
frame takeover '\003' '\301\207' '\362\110\315\311\311\007\000' '\301\205\000\000\000\000\362\000\021\000\000'
frame length16 '\000' '\202\376\000\176' 'x'
frame length64 '\000' '\202\377\000\000\000\000\000\001\000\000' 'x'
key='Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='
printf '%s\r\n' "$key" 'Sec-WebSocket-Protocol: chat, superchat' > corpus/handshake/subprotocols
printf '%s\r\n' "$key" 'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; server_max_window_bits="10", x' \
    > corpus/handshake/extensions
