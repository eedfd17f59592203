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
