"""An OIDC issuer for tests, over HTTPS, by jwcrypto: says its port, then answers a line of JSON with
one.

Usage: oidc_server.py CERTIFICATE KEY

{"do": "mint", "header": TEXT, "payload": TEXT, "key": NAME, "alg": ALG} signs whatever it is told to;
{"do": "rotate"} replaces its keys; {"do": "serve", "path": PATH, "status": N, "body": TEXT} answers
something else; {"do": "asked"} tells how often its keys were asked for.
"""
import http.server
import json
import ssl
import sys
import threading

from jwcrypto import jwk, jws

keys, served, asked, generation = {}, {}, [0], [0]


def rotate():
    n = generation[0] = generation[0] + 1
    keys["before"] = keys.get("rsa")
    keys["rsa"] = jwk.JWK.generate(kty="RSA", size=2048, kid=f"rsa-{n}")
    keys["ec"] = jwk.JWK.generate(kty="EC", crv="P-256", kid=f"ec-{n}")
    keys["stranger"] = jwk.JWK.generate(kty="RSA", size=2048, kid=f"rsa-{n}")
    public = keys["rsa"].export_to_pem()
    keys["public-as-hmac"] = jwk.JWK(kty="oct", k=jws.base64url_encode(public))


def published():
    return {"keys": [keys[name].export_public(as_dict=True) for name in ("rsa", "ec")]}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        origin = f"https://127.0.0.1:{self.server.server_port}"
        status, body, headers = 404, "", {}
        if self.path in served:
            status, body, headers = served[self.path]
        elif self.path == "/.well-known/openid-configuration":
            status, body = 200, json.dumps({"issuer": origin, "jwks_uri": f"{origin}/keys"})
        elif self.path == "/keys":
            status, body = 200, json.dumps(published())
        if self.path == "/keys":
            asked[0] += 1
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def mint(wish):
    key = keys[wish["key"]]
    core = jws.JWSCore(wish["alg"], key, wish["header"], wish["payload"].encode(),
                       ["RS256", "ES256", "HS256"])
    signed = core.sign()
    payload = jws.base64url_encode(wish["payload"])
    return ".".join([signed["protected"], payload, signed["signature"]])


def answer(wish):
    if wish["do"] == "mint":
        return mint(wish)
    if wish["do"] == "rotate":
        rotate()
        return keys["rsa"].key_id
    if wish["do"] == "serve":
        served[wish["path"]] = (wish["status"], wish["body"], wish["headers"])
    if wish["do"] == "published":
        return json.dumps(published())
    return str(asked[0])


def main(certificate, key):
    rotate()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


main(*sys.argv[1:])
