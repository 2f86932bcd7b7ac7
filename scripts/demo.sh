#!/bin/bash
# Plays the main job for real: a vault, a target database, a pipeline that gets credentials from
# the one for the other, and the record of all of it. Each step says what must come of it, and the
# script ends with 1 where it does not. Everything is stopped and removed at its end.
#
#   KEEP=1 scripts/demo.sh     leaves vault and database up, and says what to try
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The system's own: its modules are there that scripts/deps.sh looked for.
readonly PYTHON=/usr/bin/python3
readonly LEASE_S=15
readonly ELEVATION_S=12
began=$SECONDS
home=
target=
vault_pid=
etl_pid=
job_pid=
failed=1

# shellcheck source=scripts/demo-ci.sh
source scripts/demo-ci.sh

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
say() { printf '  %s\n' "$*"; }
shown() { sed 's/^/  | /'; }
die() {
    printf '\ndemo: %s\n' "$*" >&2
    exit 1
}

# Shows a command as it can be typed.
typed() {
    local word line='  $'
    if [[ $1 == as ]]; then
        line="  ($2) $"
        shift 2
    elif [[ $1 == job ]]; then
        line='  (ci/build) $'
        shift
    fi
    for word in "$@"; do
        [[ $word != *[!a-zA-Z0-9_./:,@%+=-]* ]] || word="'$word'"
        line+=" $word"
    done
    echo "$line"
}

# Shows a command and what it prints; it must succeed.
run() {
    typed "$@"
    "$@" 2>&1 | shown
}

# Runs a command that must end with a certain exit code, and shows what it says. What it answers is
# kept in `said`, what it complains about in `complained`.
must_end_with() {
    local wanted=$1 code=0
    shift
    typed "$@"
    "$@" >"$home/said" 2>"$home/complained" || code=$?
    cat "$home/said" "$home/complained" | shown
    [[ $code -eq $wanted ]] || die "exit code $code, and $wanted was said"
}

# Reads one value out of JSON: `field FILE KEY…`.
field() {
    "$PYTHON" -c 'import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2:]: value = value[int(key) if key.isdigit() else key]
print(value)' "$@"
}

# Asks the target as its superuser.
ask() { PGPASSWORD=$(<"$target/password") psql -X -q -A -t -v ON_ERROR_STOP=1 "$superuser" "$@"; }

# Acts as one of the identities that have a certificate here.
as() {
    local who=$1
    shift
    STRONGROOM_CERT=$home/$who.crt STRONGROOM_KEY=$home/$who.key "$@"
}

# Waits for a process of ours to end; gives up after some seconds.
ended() {
    local tries
    for ((tries = 0; tries < $2 * 10; tries++)); do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.1
    done
    return 1
}

clean_up() {
    local code=$?
    trap '' INT TERM
    if [[ ${KEEP:-} == 1 && $failed -eq 0 ]]; then
        what_to_try
        exit 0
    fi
    if [[ $failed -ne 0 && -n $home && -f $home/vault.log ]]; then
        echo "the vault's log ends with:" >&2
        tail -n 15 "$home/vault.log" >&2
    fi
    [[ -z $etl_pid ]] || kill "$etl_pid" 2>/dev/null || true
    [[ -z $job_pid ]] || kill "$job_pid" 2>/dev/null || true
    [[ -z $issuer_pid ]] || kill "$issuer_pid" 2>/dev/null || true
    if [[ -n $vault_pid ]] && kill -TERM "$vault_pid" 2>/dev/null; then
        ended "$vault_pid" 20 || { kill -KILL "$vault_pid" 2>/dev/null && code=1; } || true
    fi
    if [[ -n $target && -f $target/data/PG_VERSION ]]; then
        scripts/postgres.sh stop "$target" || code=1
    fi
    rm -rf -- ${home:+"$home"} ${target:+"$target"}
    exit "$code"
}

build() {
    step "0. Build"
    local found
    found=$(cargo build --locked --bin strongroom --message-format=json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    [[ -x $found ]] || die "cargo built no program"
    say "$("$found" --version), built in $((SECONDS - began)) s"
    began=$SECONDS
    # So that what is printed here can be typed.
    PATH=$(dirname "$found"):$PATH
}

start_vault() {
    step "1. A vault: keys in a SoftHSM token, an embedded SQLite store"
    home=$(mktemp -d "${TMPDIR:-/tmp}/strongroom-demo-XXXXXX")
    printf '  $ strongroom dev --dir %s/vault --ready-file %s/ready.json &\n' "$home" "$home"
    # A session of its own: with KEEP=1 it outlives the terminal's job.
    setsid strongroom dev --dir "$home/vault" --ready-file "$home/ready.json" \
        </dev/null >"$home/vault.log" 2>&1 &
    vault_pid=$!
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        [[ ! -s $home/ready.json ]] || break
        kill -0 "$vault_pid" 2>/dev/null || die "the vault did not start"
        sleep 0.1
    done
    STRONGROOM_ADDR=https://$(field "$home/ready.json" grpc_addr)
    STRONGROOM_CACERT=$(field "$home/ready.json" ca_file)
    STRONGROOM_CERT=$(field "$home/ready.json" admin_cert_file)
    STRONGROOM_KEY=$(field "$home/ready.json" admin_key_file)
    export STRONGROOM_ADDR STRONGROOM_CACERT STRONGROOM_CERT STRONGROOM_KEY
    run strongroom status --socket "$home/vault/control.sock"
    run strongroom whoami
}

start_target() {
    step "2. A target: a throwaway PostgreSQL, with data and a group role that may read it"
    target=$(mktemp -d "${TMPDIR:-/tmp}/strongroom-demo-pg-XXXXXX")
    scripts/postgres.sh start "$target" >/dev/null
    target_port=$(<"$target/port")
    superuser="host=127.0.0.1 port=$target_port user=postgres dbname=postgres"
    ask -c 'CREATE DATABASE analytics'
    (umask 077 && od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$home/account")
    superuser="host=127.0.0.1 port=$target_port user=postgres dbname=analytics"
    ask <<SQL
CREATE ROLE analytics_reader;
CREATE ROLE analytics_owner;
CREATE TABLE visits (day date PRIMARY KEY, visits int NOT NULL);
INSERT INTO visits VALUES ('2026-01-01', 120), ('2026-01-02', 154), ('2026-01-03', 98);
GRANT SELECT ON visits TO analytics_reader;
ALTER TABLE visits OWNER TO analytics_owner;
GRANT USAGE, CREATE ON SCHEMA public TO analytics_owner;
CREATE ROLE strongroom LOGIN CREATEROLE PASSWORD '$(<"$home/account")';
GRANT pg_signal_backend TO strongroom;
GRANT analytics_reader TO strongroom WITH ADMIN OPTION;
GRANT analytics_owner TO strongroom WITH ADMIN OPTION;
SQL
    say "$(ask -c 'SELECT version()' | cut -d, -f1) on 127.0.0.1:$target_port"
    say "the vault's own account there is no superuser"
    run strongroom db connect analytics --host 127.0.0.1 --port "$target_port" \
        --database analytics --username strongroom --password-file "$home/account" --tls off
    run strongroom db role put analytics/reader --member-of analytics_reader \
        --owner-role analytics_owner --ttl 1h --max-ttl 8h
}

# Registers a pipeline, and signs a certificate for a key that it made itself.
register() {
    local name=$1 purpose=$2
    run strongroom identity create "$name" --kind pipeline --owner carol --purpose "$purpose" \
        --tier medium --expires 90d
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj / \
        -keyout "$home/$name.key" -out "$home/$name.csr" 2>/dev/null
    say "$name made a key, which stays in $home/$name.key, and sends a CSR"
    run strongroom identity issue-cert "$name" --csr "$home/$name.csr" --out "$home/$name.crt"
}

register_pipeline() {
    step "3. An administrator registers a pipeline, signs its certificate and grants it one role"
    run strongroom identity create carol --kind human --purpose 'answers for the ETL' --tier high
    register nightly-etl 'loads visits every night'
    run strongroom grant add nightly-etl --action database.credentials \
        --resource database/analytics/reader --reason 'reads visits' --ticket OPS-1 --expires 30d
    run strongroom pki role put etl --dns etl.internal --usage server --usage client --ttl 1h
    run strongroom grant add nightly-etl --action pki.sign --resource pki/etl --reason 'serves TLS'
}

run_pipeline() {
    step "4. The pipeline, a Python program over gRPC with mTLS, gets a credential and reads"
    printf '  $ docs/examples/pipeline.py --ttl %s --pki-role etl --out %s --hold &\n' \
        "$LEASE_S" "$home"
    : >"$home/etl.log"
    STRONGROOM_CERT=$home/nightly-etl.crt STRONGROOM_KEY=$home/nightly-etl.key \
        "$PYTHON" docs/examples/pipeline.py --ttl "$LEASE_S" --pki-role etl --out "$home" --hold \
        >"$home/etl.log" 2>&1 &
    etl_pid=$!
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        ! grep -q '^certificate: ' "$home/etl.log" || break
        kill -0 "$etl_pid" 2>/dev/null || break
        sleep 0.1
    done
    shown <"$home/etl.log"
    [[ $(grep -c '^read: ' "$home/etl.log") -eq 3 ]] || die "it did not read three rows"
    grep -q '^write refused by PostgreSQL: ' "$home/etl.log" || die "its write was not refused"
    role=$(sed -n 's/^credential: user \([^,]*\),.*/\1/p' "$home/etl.log")
    [[ $(ask -c "SELECT count(*) FROM pg_roles WHERE rolname = '$role'") == 1 ]] ||
        die "the role $role is not there"
}

check_certificate() {
    step "5. Its X.509 certificate, before OpenSSL; the CA's key never left the HSM"
    grep -q '^certificate: ' "$home/etl.log" || die "there is no certificate"
    run openssl verify -x509_strict -purpose sslserver -verify_hostname etl.internal \
        -CAfile "$home/root.pem" -untrusted "$home/etl-chain.pem" "$home/etl.crt"
    cmp -s <(openssl x509 -in "$home/etl.crt" -noout -pubkey) \
        <(openssl pkey -in "$home/etl.key" -pubout) || die "it is for another key"
    say "it is for the key that the pipeline made"
}

# Asks for a role, and keeps what the refusal says but its id.
refusal() {
    must_end_with 4 as stray-etl strongroom --output json db creds "$1"
    "$PYTHON" -c 'import json, sys
said = json.load(open(sys.argv[1]))["error"]
print(said["reason"], said["message"], said["hint"])' "$home/complained" >"$2"
}

refuse_stranger() {
    step "6. An identity without a grant is told what it may do, and nothing of what exists"
    register stray-etl 'has no grant yet'
    refusal analytics/reader "$home/refused-1"
    refusal payroll/admin "$home/refused-2"
    sed 's,payroll/admin,analytics/reader,' "$home/refused-2" | cmp -s - "$home/refused-1" ||
        die "the two refusals differ, and so tell what exists"
    say "what exists and what does not are refused with the same words"
}

end_lease() {
    step "7. The lease ends: the open connection is cut, the role is gone"
    run as nightly-etl strongroom lease list
    local code=0
    wait "$etl_pid" || code=$?
    etl_pid=
    grep '^connection cut' "$home/etl.log" | shown
    [[ $code -eq 0 ]] || die "$(tail -n 1 "$home/etl.log")"
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        [[ $(ask -c "SELECT count(*) FROM pg_roles WHERE rolname = '$role'") != 0 ]] || break
        sleep 0.1
    done
    say "roles named $role: $(ask -c "SELECT count(*) FROM pg_roles WHERE rolname = '$role'")"
    [[ $(ask -c "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'sr\\_%'") == 0 ]] ||
        die "a role of ours is left"
}

# Runs a client of the database with what was issued.
client() (
    # shellcheck source=/dev/null
    source "$home/ci.env"
    exec psql -X -q -A -t "$@"
)

# The code of an authenticator with the second administrator's secret.
authenticator() {
    "$PYTHON" -c 'import base64, hashlib, hmac, struct, sys, time
secret = base64.b32decode(open(sys.argv[1]).read() + "=" * (-len(open(sys.argv[1]).read()) % 8))
tag = hmac.new(secret, struct.pack(">Q", int(time.time()) // 30), hashlib.sha1).digest()
at = tag[-1] & 15
print("%06d" % ((struct.unpack(">I", tag[at:at + 4])[0] & 0x7FFFFFFF) % 1000000))' \
        "$(field "$home/ready.json" second_totp_file)"
}

elevate() {
    step "9. An administrator asks for rights for $ELEVATION_S s; somebody else approves; time takes them back"
    cp "$(field "$home/ready.json" second_cert_file)" "$home/second.crt"
    cp "$(field "$home/ready.json" second_key_file)" "$home/second.key"
    run strongroom db role put analytics/admin --member-of analytics_owner \
        --owner-role analytics_owner --ttl 1h --max-ttl 8h
    run as second strongroom elevate role put db-admin --purpose 'repairs the analytics database' \
        --requester admin --resource 'database/analytics/*' --action database.credentials \
        --for 1h --step 1:administrators --factor-to-approve totp --reason-required --ticket 'OPS-#'
    say "without an elevation, an administrator has no way into the database either:"
    must_end_with 4 strongroom db creds analytics/admin
    run strongroom elevate request --role db-admin --resource database/analytics/admin \
        --for "${ELEVATION_S}s" --reason 'rebuilds an index' --ticket OPS-12
    strongroom --output json elevate list >"$home/elevations.json"
    local id
    id=$(field "$home/elevations.json" 0 id)
    say "nobody approves what they asked for themselves:"
    must_end_with 4 strongroom elevate approve "$id"
    say "the second administrator proves a factor, with a code, and approves"
    typed as second strongroom factor verify
    authenticator | as second strongroom factor verify | shown
    run as second strongroom elevate approve "$id" --reason 'agreed'
    run strongroom elevate activate "$id"
    typed strongroom db creds analytics/admin --format env
    strongroom db creds analytics/admin --format env >"$home/ci.env"
    role=$(sed -n "s/^export PGUSER='\(.*\)'$/\1/p" "$home/ci.env")
    client -c 'CREATE INDEX visits_by_count ON visits (visits)'
    say "it logs in as $role, and makes its index; now it waits for its time to run out"
    client -c 'SELECT pg_sleep(120)' >/dev/null 2>"$home/ci.cut" &
    job_pid=$!
    ! wait "$job_pid" || die "its connection was not cut"
    job_pid=
    shown <"$home/ci.cut"
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        [[ $(ask -c "SELECT count(*) FROM pg_roles WHERE rolname = '$role'") != 0 ]] || break
        sleep 0.1
    done
    [[ $tries -lt 100 ]] || die "the role $role is left"
    must_end_with 4 strongroom db creds analytics/admin
    run strongroom elevate show "$id"
    say "over by itself: connection, role and right are gone"
}

shred() {
    step "10. An identity is shredded: its data are there before, and open for nobody after"
    run strongroom identity create leaver --kind pipeline --owner carol --purpose 'goes' --tier low
    local action
    for action in put get; do
        run strongroom grant add admin --action "secrets.$action" --resource secrets/leaver/key
        run strongroom grant add admin --action "secrets.$action" --resource secrets/demo/token
    done
    printf 'what nobody is to read again' >"$home/value"
    run strongroom secret put leaver/key --owner leaver --from-file "$home/value"
    printf 'what stays' >"$home/stays"
    run strongroom secret put demo/token --from-file "$home/stays"
    run strongroom secret get leaver/key
    say "what would be lost, and who else uses it:"
    run strongroom identity shred leaver --dry-run
    say "another name than is meant is refused; elsewhere it takes two administrators, here one"
    must_end_with 7 strongroom identity shred leaver --confirm leafer
    run strongroom identity shred leaver --confirm leaver --reason 'to be erased'
    must_end_with 7 strongroom secret get leaver/key
    grep -q 'its owner was shredded' "$home/complained" || die "it does not say why"
    say "a backup from before still opens by the root key, and the vault says so:"
    must_end_with 7 strongroom identity shred leaver --finish
}

# How many keys an old version of the root key still wraps.
left_under() {
    strongroom --output json root status >"$home/root.json"
    "$PYTHON" -c 'import json, sys
versions = json.load(open(sys.argv[1]))["versions"]
print(next(it["wraps"] for it in versions if it["version"] == int(sys.argv[2])))' \
        "$home/root.json" "$1"
}

rotate_root() {
    step "11. The root key in the HSM is rotated: what others have reads as before, and no copy opens"
    local tries
    run strongroom root rotate
    for ((tries = 0; tries < 100; tries++)); do
        [[ $(left_under 1) -ne 0 ]] || break
        sleep 0.1
    done
    [[ $(left_under 1) -eq 0 ]] || die "the old root key still wraps something"
    run strongroom root status
    run strongroom root retire 1
    run strongroom secret get demo/token --out "$home/stays.after"
    cmp -s "$home/stays" "$home/stays.after" || die "the secret is another one now"
    say "the secret reads as before: $(<"$home/stays.after")"
    must_end_with 7 strongroom secret get leaver/key
    say "the old root is gone from the HSM, so that what was shredded is in no backup either:"
    run strongroom identity shred leaver --finish
}

show_record() {
    step "12. The record of all of it, verified; then altered by hand"
    # What ends by itself is in the record like everything else, a moment later.
    local tries
    for ((tries = 0; tries < 50; tries++)); do
        ! strongroom audit list --action leases.revoke --outcome ok | grep -q lease_reaper || break
        sleep 0.1
    done
    [[ $tries -lt 50 ]] || die "the end of the lease is not in the record"
    run strongroom audit list
    run strongroom audit checkpoint --out "$home/kept" --key-out "$home/record.key"
    run strongroom audit verify --public-key "$home/record.key" --kept "$home/kept"

    strongroom --output json audit list --identity nightly-etl --action database.credentials \
        --outcome ok >"$home/entries.json"
    local index
    index=$(field "$home/entries.json" 0 index)
    say "now one bit of entry $index (the credential) is changed in the database"
    "$PYTHON" scripts/tamper.py entry "$home/vault/vault.db" "$index" | shown
    must_end_with 9 strongroom audit verify --public-key "$home/record.key" --output json
    [[ $(field "$home/said" fault first_entry) == "$index" ]] ||
        die "verification does not point at entry $index"
    say "verification points at entry $index"

    say "now a grant for stray-etl is inserted by hand, a copy of nightly-etl's"
    local forged
    forged=$("$PYTHON" scripts/tamper.py grant "$home/vault/vault.db" nightly-etl stray-etl)
    say "INSERT INTO grants …: $forged"
    say "what the vault knows of stray-etl it has in memory; any change of rights makes it read anew"
    run strongroom group create readers --purpose 'reads visits'
    local code=0
    typed as stray-etl strongroom db creds analytics/reader
    as stray-etl strongroom db creds analytics/reader >"$home/said" 2>&1 || code=$?
    shown <"$home/said"
    [[ $code -ne 0 ]] || die "a grant that nobody gave was honoured"
    grep "not what was sealed.*$forged" "$home/vault.log" | tail -n 1 >"$home/alarm" ||
        die "no alarm was raised"
    say "refused, and the vault's log has the alarm:"
    shown <"$home/alarm"

    say "both are put back as they were"
    "$PYTHON" scripts/tamper.py entry "$home/vault/vault.db" "$index" >/dev/null
    "$PYTHON" scripts/tamper.py remove "$home/vault/vault.db" "$forged"
    run strongroom audit verify --public-key "$home/record.key" --kept "$home/kept"
}

what_to_try() {
    step "KEEP=1: all of it is still up"
    cat <<TRY
  export PATH=$(dirname "$(command -v strongroom)"):\$PATH
  export STRONGROOM_ADDR=$STRONGROOM_ADDR STRONGROOM_CACERT=$STRONGROOM_CACERT
  export STRONGROOM_CERT=$STRONGROOM_CERT STRONGROOM_KEY=$STRONGROOM_KEY

  strongroom identity list                 # as the administrator
  strongroom grant list
  strongroom audit tail
  export STRONGROOM_CERT=$home/nightly-etl.crt STRONGROOM_KEY=$home/nightly-etl.key
  strongroom whoami                        # as the pipeline
  strongroom db creds analytics/reader --format env
  $PYTHON docs/examples/pipeline.py --ttl 60 --hold

  # the end of it:
  kill $vault_pid; scripts/postgres.sh stop $target; rm -rf $home
TRY
}

main() {
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    build
    start_vault
    start_target
    register_pipeline
    run_pipeline
    check_certificate
    refuse_stranger
    end_lease
    run_job
    elevate
    shred
    rotate_root
    show_record
    failed=0
    if [[ ${KEEP:-} != 1 ]]; then
        step "13. Everything is stopped and removed"
        local vault=$vault_pid postgres
        postgres=$(<"$target/pid")
        kill -TERM "$vault"
        ended "$vault" 20 || die "the vault does not stop"
        vault_pid=
        scripts/postgres.sh stop "$target"
        ! kill -0 "$postgres" 2>/dev/null || die "PostgreSQL still runs"
        rm -rf -- "$home"
        say "nothing is left; it took $((SECONDS - began)) s"
    fi
}

main "$@"
