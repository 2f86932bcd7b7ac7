#!/usr/bin/python3
"""A pipeline's whole life with the vault: a database credential, then a certificate.

Over gRPC with mutual TLS, with nothing but Debian's python3-grpcio, python3-grpc-tools and
python3-psycopg2. The stubs are made from the protos when the program starts; a real pipeline
would make them once, with the same command.

The environment says where the vault is and who we are, as it does for the program `strongroom`:
STRONGROOM_ADDR, STRONGROOM_CACERT, STRONGROOM_CERT, STRONGROOM_KEY.
"""

import argparse
import importlib
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlsplit

import grpc
import psycopg2

PROTOS = pathlib.Path(__file__).resolve().parents[2] / "proto"


def load_stubs(*nouns):
    """Makes the stubs of some services, and imports them."""
    with tempfile.TemporaryDirectory() as stubs:
        # What those two import comes along.
        files = [f"strongroom/v1/{noun}.proto" for noun in (*nouns, "wraps", "options")]
        flags = [f"-I{PROTOS}", f"--python_out={stubs}", f"--grpc_python_out={stubs}"]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *flags, *files], check=True)
        sys.path.insert(0, stubs)
        for noun in nouns:
            messages = importlib.import_module(f"strongroom.v1.{noun}_pb2")
            service = importlib.import_module(f"strongroom.v1.{noun}_pb2_grpc")
            yield messages, service
        sys.path.remove(stubs)


def connect():
    """Opens a channel: the certificate is all that proves who we are."""
    def read(variable):
        return pathlib.Path(os.environ[variable]).read_bytes()

    credentials = grpc.ssl_channel_credentials(
        root_certificates=read("STRONGROOM_CACERT"),
        private_key=read("STRONGROOM_KEY"),
        certificate_chain=read("STRONGROOM_CERT"),
    )
    return grpc.secure_channel(urlsplit(os.environ["STRONGROOM_ADDR"]).netloc, credentials)


def retry_key():
    """128 random bits: the same call sent again with the same key makes nothing twice."""
    return secrets.token_urlsafe(16)


def read_rows(channel, role, ttl_s):
    """Gets a database credential, reads with it, and shows that it may do nothing else."""
    (messages, service), = load_stubs("database")
    connection, role = role.split("/")
    credential = service.DatabaseServiceStub(channel).IssueCredentials(
        messages.IssueCredentialsRequest(
            idempotency_key=retry_key(), connection=connection, role=role, ttl_s=ttl_s
        ),
        timeout=30,
    )
    left = credential.expires_at_ms / 1000 - time.time()
    print(f"credential: user {credential.username}, for {left:.0f} s, lease {credential.lease_id}")

    database = psycopg2.connect(credential.dsn)
    database.autocommit = True
    cursor = database.cursor()
    cursor.execute("SELECT day, visits FROM visits ORDER BY day")
    for day, visits in cursor.fetchall():
        print(f"read: {day} {visits} visits")
    try:
        cursor.execute("INSERT INTO visits VALUES ('2026-01-04', 0)")
        raise SystemExit("the write went through, which it must not")
    except psycopg2.errors.InsufficientPrivilege as refusal:
        print(f"write refused by PostgreSQL: {str(refusal).strip()}")
    return database, credential


def get_certificate(channel, role, name, out):
    """Gets a certificate for a key that never leaves this machine."""
    (messages, service), = load_stubs("pki")
    key, csr = out / "etl.key", out / "etl.csr"
    subprocess.run(
        ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-subj", "/", "-addext", f"subjectAltName=DNS:{name}",
         "-keyout", key, "-out", csr],
        check=True, capture_output=True,
    )
    stub = service.PkiServiceStub(channel)
    signed = stub.SignCertificate(
        messages.SignCertificateRequest(
            idempotency_key=retry_key(), role=role, csr_pem=csr.read_text()
        ),
        timeout=30,
    )
    (out / "etl.crt").write_text(signed.certificate_pem)
    (out / "etl-chain.pem").write_text(signed.chain_pem)
    authorities = stub.GetAuthorities(messages.GetAuthoritiesRequest(), timeout=30).authorities
    (out / "root.pem").write_text(authorities[0].certificate_pem)
    print(f"certificate: {name}, serial {signed.certificate.serial}, key {key} stayed here")


def wait_until_cut(database, credential):
    """Keeps the session open and uses it, until the lease ends and the server cuts it."""
    cursor = database.cursor()
    while time.time() < credential.expires_at_ms / 1000 + 20:
        try:
            cursor.execute("SELECT count(*) FROM visits")
        except psycopg2.Error as error:
            late = time.time() - credential.expires_at_ms / 1000
            reason = str(error).strip().splitlines()[0]
            print(f"connection cut {late:+.1f} s after the lease's end: {reason}")
            return
        time.sleep(0.2)
    raise SystemExit("the connection outlived its lease")


def main():
    sys.stdout.reconfigure(line_buffering=True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--role", default="analytics/reader", help="CONNECTION/ROLE")
    parser.add_argument("--ttl", type=int, default=0, help="seconds; 0 for the role's default")
    parser.add_argument("--pki-role", help="get a certificate of this role as well")
    parser.add_argument("--name", default="etl.internal", help="the DNS name that it says")
    parser.add_argument("--out", type=pathlib.Path, default=".", help="where its files go")
    parser.add_argument("--hold", action="store_true", help="keep the session until it is cut")
    args = parser.parse_args()

    with connect() as channel:
        try:
            database, credential = read_rows(channel, args.role, args.ttl)
            if args.pki_role:
                get_certificate(channel, args.pki_role, args.name, pathlib.Path(args.out))
        except grpc.RpcError as refusal:
            raise SystemExit(f"{refusal.code().name}: {refusal.details()}") from None
    if args.hold:
        wait_until_cut(database, credential)


if __name__ == "__main__":
    main()
