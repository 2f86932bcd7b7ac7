#!/bin/sh
# Makes a SoftHSM token for Strongroom: configuration, token directory, PIN file.
#
#   init-softhsm.sh [CONFIG_DIR [TOKEN_DIR [LABEL]]]
#
# Defaults: /etc/strongroom, /var/lib/strongroom/tokens, strongroom. Run it as the user that runs
# the vault. Refuses to touch what is there already. The PINs are made here and are never printed
# nor given as arguments; the security officer's is kept in CONFIG_DIR/so-pin: move it to a safe.
set -eu
umask 077

config_dir=${1:-/etc/strongroom}
token_dir=${2:-/var/lib/strongroom/tokens}
label=${3:-strongroom}

say() { printf '%s\n' "$*"; }
die() { printf 'init-softhsm: %s\n' "$*" >&2; exit 1; }

command -v softhsm2-util >/dev/null || die "softhsm2-util is missing: install the package softhsm2"
case $config_dir$token_dir in
*' '*) die "paths with spaces are not supported by softhsm2.conf" ;;
esac
for dir in "$config_dir" "$token_dir"; do
    case $dir in /*) ;; *) die "$dir: the path must be absolute" ;; esac
done
for file in softhsm2.conf pin so-pin; do
    [ ! -e "$config_dir/$file" ] || die "$config_dir/$file is there already"
done

mkdir -p "$config_dir" "$token_dir"
chmod 0700 "$token_dir"

cat >"$config_dir/softhsm2.conf" <<EOF
directories.tokendir = $token_dir
objectstore.backend = file
log.level = ERROR
slots.removable = false
EOF
export SOFTHSM2_CONF="$config_dir/softhsm2.conf"

# 128 bits each, as 32 characters of hex, without a newline.
random_pin() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }
random_pin >"$config_dir/pin"
random_pin >"$config_dir/so-pin"

# softhsm2-util asks for each PIN twice where none is an argument; it reads them from a terminal
# only, so `script` lends it one.
if command -v script >/dev/null; then
    so=$(cat "$config_dir/so-pin") user=$(cat "$config_dir/pin")
    export label
    { for pin in "$so" "$so" "$user" "$user"; do sleep 1; printf '%s\n' "$pin"; done; } |
        script -qec 'softhsm2-util --init-token --free --label "$label"' /dev/null >/dev/null
else
    die "script (package bsdutils) is missing; it keeps PINs out of the process list"
fi

softhsm2-util --show-slots | grep -q "Label: *$label *\$" || die "the token was not made"
say "token '$label' made in $token_dir"
say "PIN: $config_dir/pin   security officer's PIN: $config_dir/so-pin (move it to a safe)"
say ""
say "[hsm]"
say "module = \"/usr/lib/softhsm/libsofthsm2.so\""
say "token_label = \"$label\""
say "pin_file = \"$config_dir/pin\""
say "environment = { SOFTHSM2_CONF = \"$config_dir/softhsm2.conf\" }"
