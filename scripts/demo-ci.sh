#!/bin/bash
# The part of scripts/demo.sh that a CI job plays: it has the OIDC token that its platform gives it, and
# stores no secret. Sourced by it.

# What the platform says of the job; the vault knows it by numbers that are never used again.
readonly AUDIENCE=strongroom-demo
issuer_pid=
issuer_port=

# Acts as the CI job, which has a token, and neither a key nor a certificate.
job() { env -u STRONGROOM_CERT -u STRONGROOM_KEY "$@"; }

# Starts the platform's OIDC issuer, over HTTPS: the one that the tests have.
start_issuer() {
    local made
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=platform -days 1 \
        -keyout "$home/issuer-ca.key" -out "$home/issuer-ca.crt" 2>/dev/null
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj / \
        -keyout "$home/issuer.key" -out "$home/issuer.csr" 2>/dev/null
    made=$(openssl x509 -req -in "$home/issuer.csr" -CA "$home/issuer-ca.crt" \
        -CAkey "$home/issuer-ca.key" -CAcreateserial -days 1 -out "$home/issuer.crt" \
        -extfile <(printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n') 2>&1) ||
        die "no certificate for the issuer: $made"
    mkfifo "$home/issuer-asks" "$home/issuer-says"
    "$PYTHON" -W ignore tests/it/support/oidc_server.py "$home/issuer.crt" "$home/issuer.key" \
        <"$home/issuer-asks" >"$home/issuer-says" &
    issuer_pid=$!
    exec 7>"$home/issuer-asks" 8<"$home/issuer-says"
    IFS= read -r -u 8 issuer_port || die "the issuer did not start"
    say "the platform's OIDC issuer is at https://127.0.0.1:$issuer_port"
}

stop_issuer() {
    exec 7>&- 8<&-
    ended "$issuer_pid" 5 || die "the issuer does not stop"
    issuer_pid=
}

# Puts a token into a file, as the platform gives its jobs one each.
give_token() {
    local token
    printf '{"do": "issue", "claims": {"iss": "https://127.0.0.1:%s", "aud": "%s",
        "sub": "repo:acme/shop:ref:refs/heads/main", "repository_id": "70001",
        "repository_owner_id": "501", "event_name": "push", "ref": "refs/heads/main",
        "ref_protected": "true"}}' "$issuer_port" "$AUDIENCE" | tr -d '\n' >&7
    echo >&7
    IFS= read -r -u 8 token || die "the issuer gives no token"
    token=${token#\"}
    (umask 077 && echo "${token%\"}" >"$1")
}

# Logs the job in with a token of its own; its session is in a file.
log_in() {
    give_token "$home/ci.jwt"
    run job strongroom login --oidc "$home/ci.jwt" --identity ci/build --session-file "$1"
}

believe_platform() {
    run strongroom identity create ci/build --kind runner --owner carol \
        --purpose 'tests every change' --tier low --expires 90d
    run strongroom grant add ci/build --action database.credentials \
        --resource database/analytics/reader --reason 'reads visits' --expires 30d
    start_issuer
    run strongroom issuer add ci --preset github --url "https://127.0.0.1:$issuer_port" \
        --audience "$AUDIENCE" --ca-file "$home/issuer-ca.crt" --private
    local rule=(strongroom issuer rule add ci --identity ci/build --claim repository_id=70001
        --claim repository_owner_id=501 --claim event_name=push --claim ref=refs/heads/main)
    say "a rule is shown as a sentence before it is added:"
    run "${rule[@]}" --dry-run
    run "${rule[@]}" --yes
}

# A job that reads, and whose token and session are worth nothing afterwards.
use_once() {
    log_in "$home/ci.session"
    [[ $(head -n 1 "$home/ci.session") == srs_* ]] || die "its session is no single-use token"
    say "its session is a single-use token: it pays for one call, and no other"
    say "the platform's token, shown again:"
    must_end_with 3 job strongroom login --oidc "$home/ci.jwt" --identity ci/build \
        --session-file "$home/ci-again.session"
    must_end_with 0 job strongroom --session-file "$home/ci.session" run --db analytics/reader -- \
        psql -X -q -A -t -c 'SELECT session_user, sum(visits) FROM visits'
    [[ $(<"$home/said") == sr_*'|372' ]] || die "it does not read"
    [[ $(ask -c "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'sr\\_%'") == 0 ]] ||
        die "the credential did not end with its command"
    say "the credential ended with its command; a runner's session is for one call, shown again:"
    must_end_with 3 job strongroom --session-file "$home/ci.session" db creds analytics/reader
    local tries
    for ((tries = 0; tries < 50; tries++)); do
        strongroom --output json audit list --outcome SPENT >"$home/entries.json"
        [[ $(<"$home/entries.json") == '[]' ]] || break
        sleep 0.1
    done
    say "the record: refused for $(field "$home/entries.json" 0 reason)," \
        "shown from $(field "$home/entries.json" 0 source), $(field "$home/entries.json" 0 detail)"
    [[ $(field "$home/entries.json" 0 source) == 127.0.0.1 ]] ||
        die "the record does not say where it was shown"
    grep -q 'spent from 127.0.0.1' "$home/entries.json" ||
        die "the record does not say where it was spent"
    run strongroom audit list --outcome SPENT --detail
}

# Whom sessions of ours on the target that wait are of.
waits() {
    ask -c "SELECT usename FROM pg_stat_activity
        WHERE usename LIKE 'sr\\_%' AND query LIKE 'SELECT pg_sleep%'"
}

# A job that holds a connection and a session when it is suspended.
suspend_job() {
    say "the job holds a connection and another session, and is suspended"
    log_in "$home/ci-2.session"
    log_in "$home/ci-3.session"
    job strongroom --session-file "$home/ci-2.session" run --db analytics/reader -- \
        psql -X -q -A -t -c 'SELECT pg_sleep(60)' >/dev/null 2>"$home/ci.cut" &
    job_pid=$!
    local tries role=
    for ((tries = 0; tries < 100; tries++)); do
        role=$(waits)
        [[ -z $role ]] || break
        sleep 0.1
    done
    [[ -n $role ]] || die "its connection is not open"
    run strongroom identity suspend ci/build --dry-run
    run strongroom identity suspend ci/build --reason 'its log shows a token' --wait 30s
    ! wait "$job_pid" || die "its connection was not cut"
    job_pid=
    shown <"$home/ci.cut"
    [[ $(ask -c "SELECT count(*) FROM pg_roles WHERE rolname = '$role'") == 0 ]] ||
        die "the role $role is left"
    must_end_with 3 job strongroom --session-file "$home/ci-3.session" whoami
    say "connection, role and session are dead"
}

run_job() {
    step "8. A CI job logs in with the OIDC token that its platform gives it, and stores no secret"
    believe_platform
    use_once
    suspend_job
    stop_issuer
}
