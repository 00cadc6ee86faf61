#!/usr/bin/env bash
# Ours and what people use, under the same load, in turns; see README.md. Prints a table of medians.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-3}
only=${ONLY:-ours axum node python php}
orders=400000
wxpayctl=$root/target/release/wxpayctl

[ -x "$wxpayctl" ] && [ -x "$root/target/release/wxpay-ingress" ] ||
    { echo "build first: cargo build --release --workspace --bins" >&2; exit 2; }
postgres=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
php_fpm=$(command -v php-fpm8.4 php-fpm8.2 php-fpm | head -n 1 || true)

work=$(mktemp -d "${TMPDIR:-/tmp}/wxpay-peers-XXXXXX")
chmod 755 "$work"
database=""
started=()
finish() {
    stop_handlers
    # Not its parent, runuser, which lets it go on.
    [ -z "$database" ] || { kill -INT "$(head -n 1 "$work/pg/data/postmaster.pid")" && wait "$database"; } 2>/dev/null || true
    rm -rf "$work"
}
# Ends what was started, by its pid.
stop_handlers() {
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    started=()
}
trap finish EXIT
trap 'exit 130' INT TERM

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
answers() {
    for _ in $(seq 300); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        sleep 0.1
    done
    echo "nothing listens at port $1" >&2
    return 1
}

echo "installing the libraries" >&2
case " $only " in *" node "*)
    cp -r "$here/node" "$work/node"
    (cd "$work/node" && npm ci --silent --ignore-scripts --no-audit --no-fund) ;;
esac
case " $only " in *" python "*)
    cp -r "$here/python" "$work/python"
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/python/requirements.txt" ;;
esac
case " $only " in *" axum "*)
    (cd "$here/axum" && cargo build --quiet --release --locked --target-dir "${PEERS_TARGET:-$root/target/peers}") ;;
esac

# The merchant's keys; --post makes the others.
mkdir -m 755 "$work/merchant"
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/merchant/dev-v2-key"
export KEY_FILE=$work/merchant/dev-v2-key

# PostgreSQL refuses to run as root.
as_postgres=()
mkdir "$work/pg"
if [ "$(id -u)" = 0 ]; then
    as_postgres=(runuser -u postgres --)
    chown postgres "$work/pg"
fi
pg_port=$(free_port)
"${as_postgres[@]}" "$postgres/initdb" -D "$work/pg/data" -A trust -U postgres >/dev/null
"$postgres/../bin/pg_ctl" --version >/dev/null
"${as_postgres[@]}" "$postgres/postgres" -D "$work/pg/data" -p "$pg_port" -h 127.0.0.1 -k "$work/pg" \
    -c max_connections=300 >"$work/pg.log" 2>&1 &
database=$!
answers "$pg_port"
until "$postgres/psql" -h 127.0.0.1 -p "$pg_port" -U postgres -c 'select 1' >/dev/null 2>&1; do sleep 0.1; done
export DATABASE_URL=postgres://postgres@127.0.0.1:$pg_port/postgres
export DATABASE_DSN="pgsql:host=127.0.0.1;port=$pg_port;dbname=postgres;user=postgres"
fresh_tables() {
    "$postgres/psql" -q -h 127.0.0.1 -p "$pg_port" -U postgres -v ON_ERROR_STOP=1 -v orders="$orders" \
        -f "$here/schema.sql" >/dev/null 2>>"$work/pg.log"
}

start_axum() { "${PEERS_TARGET:-$root/target/peers}/release/wxpay-peer-axum" & started+=($!); }
start_node() { node "$work/node/server.js" & started+=($!); }
start_python() {
    (cd "$work/python" && exec "$work/venv/bin/uvicorn" server:app --host 127.0.0.1 --port "$PORT" --workers 2 \
        --loop uvloop --http httptools --no-access-log --log-level warning) &
    started+=($!)
}
start_php() {
    local user
    user=$(id -un)
    cat >"$work/fpm.conf" <<EOF
[global]
error_log = $work/fpm.log
daemonize = no
[www]
user = $user
group = $(id -gn)
listen = $work/fpm.sock
listen.backlog = 4096
pm = static
pm.max_children = 16
env[MODE] = $MODE
EOF
    cat >"$work/nginx.conf" <<EOF
worker_processes 2;
daemon off;
pid $work/nginx.pid;
error_log $work/nginx.log;
user $user;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path $work/nginx-body;
    fastcgi_temp_path $work/nginx-fastcgi;
    proxy_temp_path $work/nginx-proxy;
    uwsgi_temp_path $work/nginx-uwsgi;
    scgi_temp_path $work/nginx-scgi;
    server {
        listen 127.0.0.1:$PORT backlog=4096;
        location = /notify {
            fastcgi_pass unix:$work/fpm.sock;
            fastcgi_param SCRIPT_FILENAME $here/php/notify.php;
            fastcgi_param REQUEST_METHOD \$request_method;
            fastcgi_param CONTENT_TYPE \$content_type;
            fastcgi_param CONTENT_LENGTH \$content_length;
            fastcgi_param KEY_FILE $KEY_FILE;
            fastcgi_param MODE $MODE;
            fastcgi_param DATABASE_DSN "$DATABASE_DSN";
        }
    }
}
EOF
    "$php_fpm" --allow-to-run-as-root --nodaemonize --fpm-config "$work/fpm.conf" \
        -d opcache.enable=1 >>"$work/fpm.log" 2>&1 &
    started+=($!)
    nginx -c "$work/nginx.conf" -p "$work" >>"$work/nginx.log" 2>&1 &
    started+=($!)
}

measure_peer() {
    local name=$1
    export MODE=$2
    PORT=$(free_port)
    export PORT
    [ "$MODE" = verify ] || fresh_tables
    "start_$name"
    answers "$PORT"
    if ! "$wxpayctl" --json bench --repetitions 1 --seconds "$seconds" --orders "$orders" \
        --post "http://127.0.0.1:$PORT/notify" --merchant-dir "$work/merchant" >"$work/$name-$MODE-$round.json"; then
        echo "$name, $MODE: not measured" >&2
    fi
    stop_handlers
}

for round in $(seq "$rounds"); do
    for name in $only; do
        echo "round $round: $name" >&2
        if [ "$name" = ours ]; then
            # Exit code 1 is a missed target, which is no fault here.
            "$wxpayctl" --json bench ingress --repetitions 1 --seconds "$seconds" >"$work/ours-durable-$round.json" || [ $? = 1 ]
        else
            measure_peer "$name" verify
            measure_peer "$name" transaction
        fi
    done
done
python3 "$here/table.py" "$work"
