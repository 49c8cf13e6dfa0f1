# Runs in the virtual machine, once for each cut: looks at the store that the last cut left, and fills the next one until
# this machine is cut too. BALE, ARCHIVE, IMAGE, BEFORE and NEXT (numbers of stores) and WAIT are set in front of this.
set -u
mount -t ext4 /dev/vdb /mnt || { echo "VERDICT no file system"; exit 1; }

# Every byte of the image against the list of sums that is in it, as a container sees it.
every_byte() {
    "$BALE" run --rm "$IMAGE" sh -c 'cd / && sha256sum -c sums' >/tmp/sums 2>/tmp/words
    code=$?
    [ $code = 0 ] && [ "$(grep -c ': OK$' /tmp/sums)" = "$(wc -l </vm/sums)" ] && return 0
    return $((code == 0 ? 99 : code))
}

if [ -n "$BEFORE" ]; then
    export BALE_ROOT=/mnt/store-$BEFORE
    if ! "$BALE" images >/tmp/images 2>/tmp/words; then
        echo "VERDICT refused: $(tr '\n' ' ' </tmp/words)"
    elif ! grep -q power-cut /tmp/images; then
        echo "VERDICT absent"
    else
        every_byte
        code=$?
        case $code in
            0) echo "VERDICT right" ;;
            125) echo "VERDICT refused: $(tr '\n' ' ' </tmp/words)" ;;
            *) echo "VERDICT WRONG BYTES ($code): $(grep -v ': OK$' /tmp/sums | head -n 3) $(tail -n 3 /tmp/words)" ;;
        esac
    fi
    # Whatever was left, loading it again makes it right.
    if "$BALE" load -i "$ARCHIVE" >/dev/null 2>/tmp/words && every_byte; then
        echo "AGAIN right"
    else
        echo "AGAIN WRONG: $(tail -n 3 /tmp/words)"
        # Where the bytes went wrong: in a layer's files, or only as the container sees them.
        cd "$BALE_ROOT"/layers/sha256 && for layer in *; do
            (cd "$layer/diff" && sha256sum -c /vm/sums 2>/dev/null | grep -v -e ': OK$' -e 'open or read' |
                sed "s/^/layer $layer: /"; grep -o '"durable":[a-z]*\|"boot_id":"[^"]*"' ../layer.json | tr '\n' ' ')
            echo "$layer"
        done
        cat /proc/sys/kernel/random/boot_id
        dmesg | grep -e trap -e segfault | tail -n 3
    fi
fi
[ -n "$NEXT" ] || exit 0
export BALE_ROOT=/mnt/store-$NEXT
sync
echo LOADING
"$BALE" load -i "$ARCHIVE" >/dev/null || { echo "AGAIN WRONG: load failed"; exit 1; }
echo LOADED
if [ -n "$WAIT" ]; then
    # What is old enough becomes durable with the next pull or load.
    sleep "$WAIT"
    "$BALE" load -i "$ARCHIVE" >/dev/null
    until grep -rqs '"durable":true' "$BALE_ROOT"/layers; do sleep 0.1; done
    echo DURABLE
fi
sleep 600
