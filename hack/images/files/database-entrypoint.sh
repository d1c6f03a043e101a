#!/usr/bin/env bash
# Prepares an empty data folder and starts PostgreSQL, by the documented contract of the official
# `postgres` image: https://hub.docker.com/_/postgres (POSTGRES_*, PGDATA, initialisation scripts,
# `postgres -c key=value` arguments). It never runs as root: the pod names the user.
set -euo pipefail

die() {
  printf 'database: %s\n' "$1" >&2
  exit 1
}

# Sets a variable from the file that NAME_FILE points to, or to the default.
read_setting() {
  local name=$1 default=${2:-} file_name="$1_FILE"
  if [[ -n ${!name:-} && -n ${!file_name:-} ]]; then
    die "$name and $file_name are both set; set one of them"
  fi
  local value=${!name:-$default}
  if [[ -n ${!file_name:-} ]]; then
    value=$(<"${!file_name}")
  fi
  export "$name=$value"
  unset "$file_name"
}

local_psql() {
  PGHOST=$socket_folder PGPASSWORD=$POSTGRES_PASSWORD \
    psql -X -w -q -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "${database:-$POSTGRES_DB}" "$@"
}

run_scripts() {
  local script
  for script in /docker-entrypoint-initdb.d/*; do
    case $script in
      *.sh)
        if [[ -x $script ]]; then
          PGHOST=$socket_folder "$script"
        else
          # shellcheck source=/dev/null
          PGHOST=$socket_folder . "$script"
        fi
        ;;
      *.sql) local_psql -f "$script" ;;
      *.sql.gz) gzip -dc "$script" | local_psql ;;
      *) printf 'database: leaving out %s: neither .sh nor .sql nor .sql.gz\n' "$script" >&2 ;;
    esac
  done
}

initialise() {
  local method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
  if [[ -z $POSTGRES_PASSWORD && $method != trust ]]; then
    die "PGDATA is empty and POSTGRES_PASSWORD is not set: set it, or POSTGRES_PASSWORD_FILE"
  fi
  local arguments=()
  read -r -a arguments <<<"$POSTGRES_INITDB_ARGS"
  [[ -z ${POSTGRES_INITDB_WALDIR:-} ]] || arguments+=("--waldir=$POSTGRES_INITDB_WALDIR")
  initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
    --auth-local=trust --auth-host="$method" "${arguments[@]}" "$PGDATA"
  printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"

  # Reachable by its socket alone until the scripts are through.
  local socket_folder
  socket_folder=$(mktemp -d /tmp/database-XXXXXX)
  pg_ctl -D "$PGDATA" -w -s -o "-c listen_addresses='' -c unix_socket_directories=$socket_folder" start
  if [[ $POSTGRES_DB != postgres ]]; then
    database=postgres local_psql -v name="$POSTGRES_DB" <<<'CREATE DATABASE :"name";'
  fi
  run_scripts
  pg_ctl -D "$PGDATA" -w -s -m fast stop
  rmdir "$socket_folder"
}

[[ $# -gt 0 && $1 != -* ]] || set -- postgres "$@"
if [[ $1 == postgres ]]; then
  [[ $(id -u) -ne 0 ]] || die "PostgreSQL refuses to run as root: set runAsUser, such as 999"
  read_setting POSTGRES_USER postgres
  read_setting POSTGRES_DB "$POSTGRES_USER"
  read_setting POSTGRES_PASSWORD
  read_setting POSTGRES_INITDB_ARGS
  mkdir -p "$PGDATA" || die "PGDATA=$PGDATA cannot be created by user $(id -u): check the volume's owner"
  chmod 00700 "$PGDATA" 2>/dev/null || true
  shopt -s nullglob
  if [[ -s $PGDATA/PG_VERSION ]]; then
    printf 'database: %s is initialised already\n' "$PGDATA"
  else
    initialise
  fi
  unset POSTGRES_PASSWORD
fi
exec "$@"
