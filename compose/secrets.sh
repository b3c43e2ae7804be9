#!/bin/sh
# Makes the secrets that compose.yaml mounts and that are missing: `sh compose/secrets.sh`.
# The passwords are random; the three of Alertmanager hold nothing useful until you put yours there.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
chmod 711 secrets

make() {
    [ -e "secrets/$1" ] || printf '%s' "$2" >"secrets/$1"
    chmod 644 "secrets/$1" # containers read them as other users; the folder is yours
}

random() {
    od -An -N18 -tx1 /dev/urandom | tr -d ' \n'
}

# What redis-server reads: its users, with digests of their passwords.
digest() {
    printf '#%s' "$(sha256sum <"secrets/$1" | cut -d' ' -f1)"
}

make redis_password "$(random)"
make redis_exporter_password "$(random)"
make redis_operator_password "$(random)"
sed -e "s/#PASSWORD_OF_GLASSCACHE/$(digest redis_password)/" \
    -e "s/#PASSWORD_OF_EXPORTER/$(digest redis_exporter_password)/" \
    -e "s/#PASSWORD_OF_OPERATOR/$(digest redis_operator_password)/" redis.acl >secrets/redis_acl
chmod 644 secrets/redis_acl
make dashboard_token "$(random)"
make grafana_password "$(random)"
make smtp_password change-me
make slack_url https://hooks.example.com/change-me
make webhook_token change-me
echo "compose/secrets: dashboard_token opens the tuner, grafana_password is that of admin, redis_operator_password that of Redis's operator"
