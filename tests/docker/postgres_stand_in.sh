# What the stack needs of the official image's entry point: a database of one user, made at the first start.
set -eu
mkdir -p "$PGDATA" /var/run/postgresql
chown postgres "$PGDATA" /var/run/postgresql
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf '%s' "$POSTGRES_PASSWORD" > /tmp/password
    chown postgres /tmp/password
    # From within the container nobody is asked for the password, as there.
    gosu postgres initdb --username="$POSTGRES_USER" --pwfile=/tmp/password -D "$PGDATA" \
        --auth-local=trust --auth-host=scram-sha-256
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    gosu postgres postgres --single -D "$PGDATA" postgres <<SQL
CREATE DATABASE "$POSTGRES_DB"
SQL
fi
exec gosu postgres postgres -D "$PGDATA" -c listen_addresses='*'
