"""A mail server for tests, by aiosmtpd: says its port, then each message as a line of JSON.

Usage: mail_server.py plain|starttls|implicit|stripped CERTIFICATE KEY

It wants a login where there is TLS; refuses recipients at refused.test for good, and at later.test
for now.
"""
import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.endswith("@refused.test"):
            return "550 no such user"
        if address.endswith("@later.test"):
            return "452 mailbox full"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        print(json.dumps({
            "tls": session.ssl is not None,
            "user": session.auth_data.login.decode() if session.auth_data else None,
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "message": envelope.content.decode(),
        }), flush=True)
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b"vault", b"the mail password"),
                      handled=False, auth_data=data)


async def main(mode, certificate, key):
    context = None
    if mode in ("starttls", "implicit"):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
    starttls = mode == "starttls"
    more = {"authenticator": authenticate, "auth_required": True} if context else {}

    def session():
        return SMTP(Handler(), hostname="mail.test", tls_context=context if starttls else None,
                    require_starttls=starttls, auth_require_tls=starttls, **more)

    server = await asyncio.get_running_loop().create_server(
        session, "127.0.0.1", 0, ssl=context if mode == "implicit" else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
