#!/bin/sh
# What `make test-docker` needs where no registry of images can be reached: compose v2, and stand-ins for
# python:3.11-slim-bookworm and postgres:15, made of the Debian mirror and the certificates that this machine
# itself uses.
#
# Needs root on Debian 12 and a Docker engine:
#   apt-get install docker.io containerd runc iptables debootstrap
#   export DOCKER_HOST=unix://DIR/docker.sock DOCKER_CONFIG=DIR/config PATH=/usr/bin:$PATH
#   dockerd --data-root DIR/data --exec-root DIR/exec --pidfile DIR/pid --host $DOCKER_HOST &
#   tests/docker/stand_ins.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    awk '$1 == "URIs:" { print $2; exit } $1 == "deb" { print $2; exit }')
mirror=${mirror:-http://deb.debian.org/debian}

if ! docker compose version >/dev/null 2>&1; then # Debian 12 has version 1 alone, the release after it has 2
    plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$plugins"
    echo "deb $mirror trixie main" > "$work/list"
    (
        cd "$work"
        set -- -o "Dir::Etc::sourcelist=$work/list" -o Dir::Etc::sourceparts=- \
            -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache"
        apt-get "$@" update -qq
        apt-get "$@" download docker-compose docker-buildx
        for package in *.deb; do dpkg-deb -x "$package" unpacked; done
        find unpacked -type f -path '*cli-plugins*' -exec cp '{}' "$plugins" ';'
    )
fi

if ! docker image inspect python:3.11-slim-bookworm >/dev/null 2>&1; then
    root=$work/root
    debootstrap --variant=minbase \
        --include=ca-certificates,python3,python3-dev,python3-pip,python3-venv,netbase,tzdata bookworm "$root" "$mirror"
    cp -a /etc/apt/sources.list.d/. "$root/etc/apt/sources.list.d/"
    cp -a /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/"
    chroot "$root" update-ca-certificates
    printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' > "$root/etc/pip.conf"
    rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
    for name in python python3 python3.11; do ln -sf /usr/bin/python3.11 "$root/usr/local/bin/$name"; done
    ln -sf /usr/bin/pip3 "$root/usr/local/bin/pip"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    tar -C "$root" -c . | docker import - python:3.11-slim-bookworm
fi

if ! docker image inspect postgres:15 >/dev/null 2>&1; then
    cp "$here/postgres_stand_in.sh" "$work/entrypoint.sh"
    cat > "$work/Dockerfile" <<END
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends postgresql-15 gosu
ENV PATH=/usr/lib/postgresql/15/bin:\$PATH PGDATA=/var/lib/postgresql/data
COPY entrypoint.sh /entrypoint.sh
ENTRYPOINT ["sh", "/entrypoint.sh"]
END
    docker build --tag postgres:15 --file "$work/Dockerfile" "$work"
fi
docker image ls
