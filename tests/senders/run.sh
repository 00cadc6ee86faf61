#!/usr/bin/env bash
# Independent implementations as the sender; see README.md. Needs Python 3.10, Node 18 and their registries.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
vectors=$root/tests/data/vectors
wxpayctl=${WXPAYCTL:-$root/target/debug/wxpayctl}

work=$(mktemp -d)
server=""
finish() {
    if [ -n "$server" ] && kill "$server" 2>/dev/null; then
        wait "$server" || true
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# The caller's own settings would override the configuration.
while IFS= read -r name; do unset "$name"; done < <(compgen -e | grep '^WXPAY__' || true)

[ -x "$wxpayctl" ] || (cd "$root" && cargo build --locked -p wxpayctl)

echo "installing the libraries"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
mkdir "$work/npm"
cp "$here/package.json" "$here/package-lock.json" "$here/tenpay.js" "$work/npm"
(cd "$work/npm" && npm ci --silent --ignore-scripts --no-audit --no-fund)

setting() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$vectors/config.json" "$1"; }
umask 077
setting v2_api_key >"$work/v2-key"
setting v3_api_key >"$work/api-v3-key"
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/seal-key"
cat >"$work/wxpay.toml" <<EOF
data_dir = "data"
[ingress]
listen = "127.0.0.1:0"
ops_listen = "127.0.0.1:0"
[worker]
admin_listen = "127.0.0.1:0"
[seal]
key_file = "seal-key"
[merchants.shop]
mch_id = "$(setting mch_id)"
appids = ["$(setting appid)"]
v2_key_file = "v2-key"
api_v3_key_file = "api-v3-key"
platform_certificates = ["$vectors/keys/platform_cert_a.cert.pem"]
platform_public_keys = { PUB_KEY_ID_0119009900012026031800000000000001 = "$vectors/keys/platform_pubkey.public.pem" }
points = "1/100"
EOF

"$wxpayctl" --json serve --config "$work/wxpay.toml" >"$work/announced.json" 2>"$work/log" &
server=$!
for _ in $(seq 100); do
    kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    python3 -m json.tool "$work/announced.json" >/dev/null 2>&1 && break
    sleep 0.1
done

SENDERS_NPM=$work/npm SENDERS_ANNOUNCED=$work/announced.json SENDERS_CONFIG=$work/wxpay.toml \
    SENDERS_WXPAYCTL=$wxpayctl PYTHONDONTWRITEBYTECODE=1 "$work/venv/bin/python" "$here/checks.py"
