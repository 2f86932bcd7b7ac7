#!/bin/bash
# Installs the Debian packages that build, tests and demo need, and does nothing when all are
# there. Where it may not install (neither root nor passwordless sudo, or no apt), it names them
# and exits with 1.
#
# What is needed is looked for by what it provides, so that a program from elsewhere counts too.
# An existing PostgreSQL is never touched. Debian's package makes and starts a cluster `main` when
# it is first installed; since tests and demo start throwaway servers of their own, that is turned
# off while we install, by a drop-in file that is removed again: a later install by somebody else
# behaves as usual.
set -euo pipefail

readonly DROP_IN=/etc/postgresql-common/createcluster.d/strongroom-install.conf
# Programs of the system come first: the Python modules are the system's.
readonly PYTHON=/usr/bin/python3

has_command() { command -v "$1" >/dev/null 2>&1; }

has_module() { [[ -x $PYTHON ]] && "$PYTHON" -c "import $1" >/dev/null 2>&1; }

has_softhsm() {
    local lib
    has_command softhsm2-util || return 1
    for lib in /usr/lib{,/x86_64-linux-gnu,/aarch64-linux-gnu,64}/softhsm/libsofthsm2.so \
        /usr/lib64/pkcs11/libsofthsm2.so /usr/local/lib/softhsm/libsofthsm2.so; do
        [[ ! -e $lib ]] || return 0
    done
    return 1
}

# Server programs stand outside PATH on Debian.
has_postgresql() {
    has_command psql &&
        { has_command initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
}

missing_packages() {
    has_command cc || echo gcc
    [[ -e /usr/include/stdlib.h ]] || echo libc6-dev
    has_softhsm || echo softhsm2
    has_postgresql || echo postgresql
    has_command openssl || echo openssl
    has_module grpc || echo python3-grpcio
    has_module grpc_tools.protoc || echo python3-grpc-tools
    has_module google.protobuf || echo python3-protobuf
    has_module psycopg2 || echo python3-psycopg2
    has_module aiosmtpd || echo python3-aiosmtpd
    has_module jwcrypto || echo python3-jwcrypto
}

as_root() {
    if [[ $(id -u) -eq 0 ]]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
    has_command apt-get && { [[ $(id -u) -eq 0 ]] || { has_command sudo && sudo -n true 2>/dev/null; }; }
}

install_packages() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
    # Lists may be missing or old; a repository that does not answer need not matter.
    as_root "${apt[@]}" update || echo "apt-get update failed; trying with the lists there are" >&2
    as_root "${apt[@]}" install --no-install-recommends "$@"
}

# Removes the drop-in, and the directory where it was ours.
restore_clusters() {
    as_root rm -f "$DROP_IN"
    as_root rmdir --ignore-fail-on-non-empty "$(dirname "$DROP_IN")"
}

main() {
    if ! has_command cargo; then
        echo "cargo is not here; install Rust as https://rustup.rs says, then run this again" >&2
        exit 1
    fi
    local missing
    mapfile -t missing < <(missing_packages)
    [[ ${#missing[@]} -gt 0 ]] || return 0
    if ! may_install; then
        echo "these packages are missing, and only root may install them:" >&2
        echo "    apt-get install ${missing[*]}" >&2
        exit 1
    fi
    echo "installing ${missing[*]}"
    if [[ " ${missing[*]} " == *" postgresql "* ]]; then
        trap restore_clusters EXIT
        as_root mkdir -p "$(dirname "$DROP_IN")"
        echo 'create_main_cluster = false' | as_root tee "$DROP_IN" >/dev/null
    fi
    install_packages "${missing[@]}"
    mapfile -t missing < <(missing_packages)
    if [[ ${#missing[@]} -gt 0 ]]; then
        echo "still missing after installing: ${missing[*]}" >&2
        exit 1
    fi
}

main "$@"
