#!/bin/sh
# Makes the secrets that docker-compose.yml mounts, in ./secrets: new passwords and keys, and the addresses with them.
# Files that are there stay as they are. The argument, postgres or mysql, writes the store's address anew.
set -eu

case "${1:-postgres}" in
postgres) store=postgres://wxpay:PASSWORD@postgres:5432/wxpay ;;
mysql) store=mysql://wxpay:PASSWORD@mariadb:3306/wxpay ;;
*)
    echo "usage: $0 [postgres|mysql]" >&2
    exit 64
    ;;
esac

random() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

# keep FILE TEXT: writes the file unless it is there.
keep() {
    [ -e "secrets/$1" ] || printf '%s\n' "$2" >"secrets/$1"
    # The programs in the containers are not root. Who may read the files out here is for the directory to say.
    chmod 644 "secrets/$1"
}

mkdir -p secrets
chmod 700 secrets
[ $# -eq 0 ] || rm -f secrets/store-url

keep rabbitmq-password "$(random)"
keep rabbitmq.conf "default_user = wxpay
default_pass = $(cat secrets/rabbitmq-password)"
keep queue-url "amqp://wxpay:$(cat secrets/rabbitmq-password)@rabbitmq:5672/%2f"
keep database-password "$(random)"
keep store-url "${store%PASSWORD*}$(cat secrets/database-password)${store#*PASSWORD}"
keep seal-key "$(random)"
keep admin-token "$(random)"
if [ -e secrets/shop-v2-key ]; then
    chmod 644 secrets/shop-v2-key
else
    echo "Still missing: secrets/shop-v2-key, your merchant's APIv2 key (install -m 644 YOUR-APIv2-KEY secrets/shop-v2-key)." >&2
fi
