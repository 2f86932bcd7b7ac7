"""An OIDC issuer, over HTTPS, by jwcrypto: says its port, then answers a line of JSON with one.

Usage: oidc_server.py CERTIFICATE KEY

{"do": "mint", "header": TEXT, "payload": TEXT, "key": NAME, "alg": ALG} signs whatever it is told to;
{"do": "issue", "claims": {…}} makes a token as it should be, as of now;
{"do": "rotate"} replaces its keys; {"do": "serve", "path": PATH, "status": N, "body": TEXT, "delay": S}
answers something else, after a while; {"do": "asked"} tells how often its keys were asked for.

It is what stands beside an issuer, too: {"do": "job", "bearer": TEXT, "claims": {…}} makes it the
server that a job of GitHub asks for its token, at /token; {"do": "cluster", "bearer": TEXT, "gone":
[UID…], "says": {…}} makes it the API server of a cluster without these pods, which reviews tokens,
and where `says` is there, changes what it answers by that.

People sign in by it: with a code and PKCE (RFC 7636), and with a code for another device (RFC 8628).
{"do": "person", ...} says who they are: "claims" of their ID token; "twist", what it gives back in
place of what it should (code, state, iss, error, nonce, aud, code_challenge); "polls", the words that devices hear one after
the other before their token. {"do": "browse", "url": URL} is the browser of somebody who signs in, and
{"do": "told"} tells what the last program told it.
"""
import base64
import hashlib
import http.server
import json
import secrets
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from jwcrypto import jwk, jws

keys, served, asked, generation = {}, {}, [0], [0]
job, cluster = {}, {}
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
person, codes, devices, told = {"claims": {}, "twist": {}, "polls": []}, {}, {}, {}
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


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


def discovery(origin):
    return {
        "issuer": origin,
        "jwks_uri": f"{origin}/keys",
        "authorization_endpoint": f"{origin}/authorize",
        "token_endpoint": f"{origin}/token",
        "device_authorization_endpoint": f"{origin}/device",
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
    }


def id_token(origin, client, nonce):
    now, twist = int(time.time()), person["twist"]
    claims = {"iss": origin, "aud": twist.get("aud", client), "iat": now, "exp": now + 300,
              "jti": secrets.token_hex(8)}
    if nonce:
        claims["nonce"] = twist.get("nonce", nonce)
    payload = json.dumps(claims | person["claims"])
    header = json.dumps({"alg": "RS256", "kid": keys["rsa"].key_id, "typ": "JWT"})
    return mint({"key": "rsa", "alg": "RS256", "header": header, "payload": payload})


def authorize(origin, query):
    """Lets in whoever comes: where they go from here."""
    told.clear()
    told.update(query)
    right = query["response_type"] == "code" and query["code_challenge_method"] == "S256"
    loopback = query["redirect_uri"].startswith("http://127.0.0.1:")
    if not (right and loopback and "openid" in query["scope"].split(" ")):
        return None
    code = secrets.token_urlsafe(16)
    codes[code] = query | person["twist"]
    back = {"code": code, "state": query["state"], "iss": origin} | person["twist"]
    back = {name: back[name] for name in ("code", "state", "iss", "error") if back.get(name)}
    return query["redirect_uri"] + "?" + urllib.parse.urlencode(back)


def redeem(origin, form):
    if form["grant_type"] == DEVICE_GRANT:
        return poll(origin, form)
    query = codes.pop(form["code"], None)
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    same = query and all(query[name] == form[name] for name in ("client_id", "redirect_uri"))
    if not same or query["code_challenge"] != challenge:
        return 400, {"error": "invalid_grant"}
    token = id_token(origin, form["client_id"], query["nonce"])
    return 200, {"access_token": "unused", "token_type": "Bearer", "id_token": token}


def device(origin, form):
    told.clear()
    told.update(form)
    code = secrets.token_urlsafe(16)
    devices[code] = {"asked": time.monotonic(), "interval": 1, "polls": list(person["polls"])}
    return 200, {
        "device_code": code, "user_code": "WDJB-MJHT", "verification_uri": f"{origin}/activate",
        "expires_in": 60, "interval": 1,
    }


def poll(origin, form):
    waits = devices[form["device_code"]]
    since, waits["asked"] = time.monotonic() - waits["asked"], time.monotonic()
    if since < waits["interval"] - 0.1:
        return 400, {"error": "asked_too_soon"}
    if not waits["polls"]:
        return 200, {"id_token": id_token(origin, form["client_id"], None)}
    word = waits["polls"].pop(0)
    if word == "slow_down":
        waits["interval"] += 5
    return 400, {"error": word}


class Handler(http.server.BaseHTTPRequestHandler):
    def origin(self):
        return f"https://127.0.0.1:{self.server.server_port}"

    def do_GET(self):
        status, body, headers = 404, "", {}
        path, _, query = self.path.partition("?")
        if self.path in served:
            status, body, headers, delay = served[self.path]
            time.sleep(delay)
        elif path == "/.well-known/openid-configuration":
            status, body = 200, json.dumps(discovery(self.origin()))
        elif path == "/keys":
            status, body = 200, json.dumps(published())
        elif path == "/authorize":
            to = authorize(self.origin(), dict(urllib.parse.parse_qsl(query)))
            status, headers = (302, {"Location": to}) if to else (400, {})
        elif path == "/token" and job:
            status, body = self.token(self.origin(), dict(urllib.parse.parse_qsl(query)))
        if path == "/keys":
            asked[0] += 1
        self.answer(status, body, headers)

    def do_POST(self):
        asks = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        ways = {"/token": redeem, "/device": device}
        status, body, headers = 404, "", {}
        if self.path in served:
            status, body, headers, delay = served[self.path]
            time.sleep(delay)
        elif self.path == REVIEWS and cluster:
            status, body = self.review(json.loads(asks))
        elif self.path in ways:
            form = dict(urllib.parse.parse_qsl(asks.decode()))
            status, body = ways[self.path](self.origin(), form)
            body, headers = json.dumps(body), {"Content-Type": "application/json"}
        self.answer(status, body, headers)

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def is_bearing(self, bearer):
        return self.headers.get("Authorization") == f"Bearer {bearer}"

    def token(self, origin, asks):
        """What GitHub's server answers a job (its "OpenID Connect reference")."""
        if not self.is_bearing(job["bearer"]) or asks.get("api-version") != "2.0":
            return 401, ""
        claims = {**job["claims"], "iss": origin}
        return 200, json.dumps({"value": issue({**claims, "aud": asks.get("audience", origin)})})

    def review(self, asks):
        """What an API server answers who may review tokens."""
        if not self.is_bearing(cluster["bearer"]):
            return 401, json.dumps({"kind": "Status", "status": "Failure"})
        answer = {"apiVersion": asks["apiVersion"], "kind": "TokenReview", "spec": asks["spec"]}
        answer["status"] = {**stands(asks["spec"]), **(cluster.get("says") or {})}
        return 201, json.dumps(answer)

    def log_message(self, *_):
        pass


def stands(spec):
    token = jws.JWS()
    try:
        token.deserialize(spec["token"], keys["rsa"])
    except jws.InvalidJWSSignature:
        return {"authenticated": False, "error": "invalid bearer token"}
    claims = json.loads(token.payload)
    pod, account = (claims["kubernetes.io"][name] for name in ("pod", "serviceaccount"))
    if pod["uid"] in cluster.get("gone", []) or claims["aud"] not in spec["audiences"]:
        return {"authenticated": False, "error": "the pod is gone, or the token is not for that"}
    user = {"username": claims["sub"], "uid": account["uid"], "groups": ["system:serviceaccounts"]}
    return {"authenticated": True, "user": user, "audiences": [claims["aud"]]}


def browse(url):
    """Goes where it is sent, as a browser: the last page."""
    # It is this very server that is gone to.
    anybody = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(url, context=anybody, timeout=10) as page:
            return page.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def mint(wish):
    key = keys[wish["key"]]
    core = jws.JWSCore(wish["alg"], key, wish["header"], wish["payload"].encode(),
                       ["RS256", "ES256", "HS256"])
    signed = core.sign()
    payload = jws.base64url_encode(wish["payload"])
    return ".".join([signed["protected"], payload, signed["signature"]])


def issue(claims):
    now = int(time.time())
    usual = {"jti": secrets.token_hex(16), "iat": now, "nbf": now - 5, "exp": now + 300}
    header = json.dumps({"alg": "RS256", "kid": keys["rsa"].key_id, "typ": "JWT"})
    payload = json.dumps({**usual, **claims})
    return mint({"key": "rsa", "alg": "RS256", "header": header, "payload": payload})


def answer(wish):
    if wish["do"] == "mint":
        return mint(wish)
    if wish["do"] == "issue":
        return issue(wish["claims"])
    if wish["do"] == "rotate":
        rotate()
        return keys["rsa"].key_id
    if wish["do"] == "serve":
        served[wish["path"]] = (wish["status"], wish["body"], wish["headers"], wish.get("delay", 0))
    if wish["do"] in ("job", "cluster"):
        {"job": job, "cluster": cluster}[wish["do"]].update(wish)
    if wish["do"] == "published":
        return json.dumps(published())
    if wish["do"] == "person":
        person.update({name: wish.get(name, kind()) for name, kind in
                       (("claims", dict), ("twist", dict), ("polls", list))})
    if wish["do"] == "browse":
        return browse(wish["url"])
    if wish["do"] == "told":
        return json.dumps(told)
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
