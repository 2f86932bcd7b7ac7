//! An OIDC issuer that is not ours, over HTTPS on loopback, and tokens in the shapes of those that CI
//! and clusters have.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::node::Fixture;
use super::receiver::Authority;

/// Whom tokens are for.
pub(crate) const AUDIENCE: &str = "vault.test";

/// A running issuer.
pub(crate) struct Issuer {
    pub(crate) port: u16,
    pub(crate) ca: String,
    pipe: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    child: Child,
    _dir: TempDir,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let (dir, authority) = (TempDir::new().unwrap(), Authority::new(&["127.0.0.1"]));
        let [certificate, key] = ["crt", "key"].map(|name| dir.path().join(name));
        std::fs::write(&certificate, &authority.certificate).unwrap();
        std::fs::write(&key, &authority.key).unwrap();
        let mut child = Command::new("/usr/bin/python3")
            .args(["-W", "ignore", "tests/it/support/oidc_server.py"])
            .args([certificate, key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut says = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        says.read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("make deps installs python3-jwcrypto");
        let pipe = Mutex::new((child.stdin.take().unwrap(), says));
        Self { port, ca: authority.ca, pipe, child, _dir: dir }
    }

    /// What its tokens call it.
    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn ask(&self, wish: &Value) -> String {
        let mut pipe = self.pipe.lock();
        writeln!(pipe.0, "{wish}").unwrap();
        let mut line = String::new();
        pipe.1.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap().as_str().unwrap_or_default().to_owned()
    }

    /// Replaces its keys.
    pub(crate) fn rotate(&self) {
        self.ask(&json!({"do": "rotate"}));
    }

    /// How often its keys were asked for.
    pub(crate) fn asked(&self) -> u32 {
        self.ask(&json!({"do": "asked"})).parse().unwrap()
    }

    /// The keys that it publishes.
    pub(crate) fn published(&self) -> String {
        self.ask(&json!({"do": "published"}))
    }

    /// Answers something else from now on.
    pub(crate) fn serve(&self, path: &str, status: u16, body: &str, headers: &Value) {
        self.ask(&json!({
            "do": "serve", "path": path, "status": status, "body": body, "headers": headers
        }));
    }

    /// Answers something else from now on, after a while.
    pub(crate) fn serve_slowly(&self, path: &str, body: &str, delay_s: f64) {
        self.ask(&json!({
            "do": "serve", "path": path, "status": 200, "body": body, "headers": {},
            "delay": delay_s
        }));
    }

    /// Is the server from now on that a job of GitHub asks for its token.
    pub(crate) fn serve_job(&self, bearer: &str, claims: &Value) {
        self.ask(&json!({"do": "job", "bearer": bearer, "claims": claims}));
    }

    /// Is the API server of a cluster from now on, without these pods; `says` changes what it answers.
    pub(crate) fn serve_cluster(&self, bearer: &str, gone: &[&str], says: &Value) {
        self.ask(&json!({"do": "cluster", "bearer": bearer, "gone": gone, "says": says}));
    }

    /// Makes a token as it should be, as of now, for an audience.
    pub(crate) fn issue(&self, audience: &str, claims: Value) -> String {
        let Value::Object(mut claims) = claims else { panic!("claims are an object") };
        claims.insert("iss".to_owned(), json!(self.url()));
        claims.insert("aud".to_owned(), json!(audience));
        self.ask(&json!({"do": "issue", "claims": claims}))
    }

    /// Says who signs in from now on: what their ID token claims, what goes wrong on the way, and
    /// what devices hear before their token.
    pub(crate) fn person(&self, claims: &Value, twist: &Value, polls: &[&str]) {
        self.ask(&json!({"do": "person", "claims": claims, "twist": twist, "polls": polls}));
    }

    /// Plays somebody's browser: the page that it ends at.
    pub(crate) fn browse(&self, url: &str) -> String {
        self.ask(&json!({"do": "browse", "url": url}))
    }

    /// What the last program that somebody signs in with told it.
    pub(crate) fn told(&self) -> Value {
        serde_json::from_str(&self.ask(&json!({"do": "told"}))).unwrap()
    }

    /// Signs what it is told to.
    pub(crate) fn sign(&self, key: &str, alg: &str, header: &str, payload: &str) -> String {
        self.ask(&json!({
            "do": "mint", "key": key, "alg": alg, "header": header, "payload": payload
        }))
    }

    /// Makes a token as it should be.
    pub(crate) fn mint(&self, claims: &Value) -> String {
        let kid = self.kid("RSA");
        let header = json!({"alg": "RS256", "kid": kid, "typ": "JWT"}).to_string();
        self.sign("rsa", "RS256", &header, &claims.to_string())
    }

    /// The id of its key of a type.
    pub(crate) fn kid(&self, kty: &str) -> String {
        let set: Value = serde_json::from_str(&self.published()).unwrap();
        let keys = set["keys"].as_array().unwrap();
        keys.iter().find(|key| key["kty"] == kty).unwrap()["kid"].as_str().unwrap().to_owned()
    }

    /// Claims that every token has, as of a vault's clock.
    pub(crate) fn claims(&self, f: &Fixture, jti: &str, more: Value) -> Value {
        self.claims_at(f.node().vault.now().unwrap().seconds(), jti, more)
    }

    /// The same as of a moment.
    pub(crate) fn claims_at(&self, now: i64, jti: &str, more: Value) -> Value {
        let mut claims = json!({
            "iss": self.url(), "aud": AUDIENCE, "sub": "somebody", "jti": jti,
            "iat": now, "nbf": now - 5, "exp": now + 300,
        });
        let Value::Object(more) = more else { panic!("claims are an object") };
        claims.as_object_mut().unwrap().extend(more);
        claims
    }
}

/// What GitHub Actions says of a job.
pub(crate) fn github() -> Value {
    json!({
        "sub": "repo:acme/pipeline:ref:refs/heads/main", "actor": "octocat", "actor_id": "1",
        "repository": "acme/pipeline", "repository_id": "70001", "repository_owner": "acme",
        "repository_owner_id": "501", "repository_visibility": "private", "event_name": "push",
        "ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true",
        "workflow_ref": "acme/pipeline/.github/workflows/deploy.yml@refs/heads/main",
        "job_workflow_ref": "acme/pipeline/.github/workflows/deploy.yml@refs/heads/main",
        "runner_environment": "github-hosted", "run_id": "9", "run_attempt": "1",
    })
}

/// What GitLab CI says of a job.
pub(crate) fn gitlab() -> Value {
    json!({
        "sub": "project_path:acme/pipeline:ref_type:branch:ref:main", "project_id": "22",
        "project_path": "acme/pipeline", "namespace_id": "72", "namespace_path": "acme",
        "user_login": "dev", "pipeline_source": "push", "ref": "main", "ref_type": "branch",
        "ref_path": "refs/heads/main", "ref_protected": "true", "job_id": "302",
    })
}

/// What Google says of an instance: neither `jti` nor `nbf`.
pub(crate) fn google() -> Value {
    json!({
        "azp": "109876543210987654321", "sub": "109876543210987654321", "email_verified": true,
        "email": "batch@acme.iam.gserviceaccount.com",
        "google": {"compute_engine": {"project_id": "acme", "instance_name": "batch-1"}},
    })
}

/// What a cluster says of a pod.
pub(crate) fn kubernetes(pod: &str) -> Value {
    json!({
        "sub": "system:serviceaccount:data:etl",
        "kubernetes.io": {
            "namespace": "data",
            "pod": {"name": "etl-1", "uid": pod},
            "serviceaccount": {"name": "etl", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"},
        },
    })
}
