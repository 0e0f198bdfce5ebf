#!/usr/bin/env bash
# Builds a node whose clock on the wall can be moved while it runs: Go's package time with
# one line changed and one function more, by an overlay. Everything is compiled anew for it.
#
#   e2e/cluster/clock.sh bin/hadal-clock
set -euo pipefail
out=$1
go=${GO:-go}
root=$($go env GOROOT)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
sed 's/^\tsec, nsec, mono := runtimeNow()$/&\n\tsec += jump/' "$root/src/time/time.go" >"$dir/time.go"
if [ "$(grep -c '^	sec += jump$' "$dir/time.go")" != 1 ]; then
	echo "time.Now of $($go version) is not as this script knows it" >&2
	exit 1
fi
cat >"$dir/jump.go" <<'GO'
package time

// jump is in seconds.
var jump int64

// Jump sets the clock on the wall so many seconds off; the monotonic one goes on.
func Jump(seconds int64) { jump = seconds }
GO
printf '{"Replace": {"%s": "%s", "%s": "%s"}}\n' \
	"$root/src/time/time.go" "$dir/time.go" "$root/src/time/jump.go" "$dir/jump.go" >"$dir/overlay.json"
# With one path for the same content, what was compiled is found again.
$go build -trimpath -overlay "$dir/overlay.json" -tags clockjump -o "$out" ./cmd/hadal
