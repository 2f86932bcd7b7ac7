//! Secrets of every kind go through the real program; then they are looked for wherever it writes.

use std::fs;
use std::process::Output;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use data_encoding::{HEXLOWER, HEXUPPER};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use parking_lot::Mutex;
use prost::Message as _;
use serde_json::Value;
use strongroom::crypto::{hotp, otp_step, parse_base32};
use strongroom::types::{Clock as _, SecretBytes, SystemClock, TaskGroup};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::support::job::Job;
use crate::support::oidc::{AUDIENCE, Issuer, kubernetes};
use crate::support::postgres::Postgres;
use crate::support::program::{Installation, PIN, text};
use crate::support::target::{ACCOUNT_PASSWORD, until};

/// An OTLP collector that keeps what it is told.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        drop(TaskGroup::default().spawn(server));
        format!("http://{address}")
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().iter().flat_map(ExportTraceServiceRequest::encode_to_vec).collect()
    }

    fn spans(&self) -> Vec<String> {
        let requests = self.0.lock();
        let spans = requests.iter().flat_map(|request| &request.resource_spans);
        let spans = spans.flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans);
        spans.map(|span| format!("{} {:?}", span.name, span.attributes)).collect()
    }
}

/// Every form in which a secret would be found: raw, hexadecimal, base64 at any offset.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.to_vec()];
    forms.extend([HEXLOWER.encode(secret).into(), HEXUPPER.encode(secret).into()]);
    for before in 0..3 {
        let shifted = [&vec![0; before], secret].concat();
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&shifted);
            // What also depends on the neighbours is cut off.
            forms.push(encoded.as_bytes()[(before * 8).div_ceil(6)..encoded.len() - 1].to_vec());
        }
    }
    forms
}

/// The secrets of a PEM key: its scalar, and a line as it stands.
fn of_key(pem: &str) -> Vec<Vec<u8>> {
    let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let at = parsed.contents.windows(2).position(|two| two == [4, 32]).unwrap() + 2;
    let scalar = parsed.contents[at..at + 32].to_vec();
    vec![scalar, pem.lines().nth(1).unwrap().as_bytes().to_vec()]
}

/// Bytes as text, each its own character: text is searched by the library, which is compiled to be
/// fast where a test is not.
fn searchable(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

#[test]
fn every_form_of_a_secret_is_found() {
    let secret = b"a canary of 21 bytes!";
    for before in 0..5 {
        let noise = [&vec![b'x'; before], secret.as_slice(), b"yz"].concat();
        for text in [
            noise.clone(),
            HEXLOWER.encode(&noise).into(),
            HEXUPPER.encode(&noise).into(),
            STANDARD_NO_PAD.encode(&noise).into(),
            URL_SAFE_NO_PAD.encode(&noise).into(),
        ] {
            let text = searchable(&text);
            let found = forms(secret).iter().any(|form| text.contains(&searchable(form)));
            assert!(found, "{before}");
        }
    }
    let other = searchable(b"a canary of 20 bytes\xff");
    assert!(!forms(secret).iter().any(|form| other.contains(&searchable(form))));
}

/// A token and the handle of a lease: made, sent, refused, spent and sent again.
fn tokens(job: &Job) -> Vec<Vec<u8>> {
    let line = "token create --for etl --uses 1 --output json";
    let made = job.real.ask(job.server(), &job.alice, line);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let token = made["bearer"].as_str().unwrap().to_owned();
    let bearing = |line: &str, token: &str| {
        let mut command = job.real.client(job.server(), &job.etl, line);
        command.env("STRONGROOM_TOKEN", token).output().unwrap()
    };
    let wide = bearing("token list --identity alice", &token);
    assert_eq!(wide.status.code(), Some(4), "{}", text(&wide.stderr));
    let creds = bearing("db creds analytics/reader --format json", &token);
    let creds: Value = serde_json::from_slice(&creds.stdout).unwrap();
    let handle = creds["lease_handle"].as_str().unwrap().to_owned();
    let spent = bearing("db creds analytics/reader", &token);
    assert_eq!(spent.status.code(), Some(3), "{}", text(&spent.stderr));
    assert!(text(&spent.stderr).contains("spent"));
    let file = job.real.dir.path().join("handle");
    fs::write(&file, &handle).unwrap();
    let lease = creds["lease_id"].as_str().unwrap();
    let line = format!("lease revoke {lease} --token-file {}", file.display());
    let revoked = job.real.client(job.server(), &job.etl, &line).output().unwrap();
    assert!(revoked.status.success(), "{}", text(&revoked.stderr));
    [vec![bits(&token), bits(&handle)], logins(job)].concat()
}

/// What nobody may see of a token: it stands behind prefix and id.
fn bits(token: &str) -> Vec<u8> {
    token.as_bytes()[26..70].to_vec()
}

/// Ways in: a pod's token, refused, used and shown again, with what its cluster is asked with, and the
/// session that it gave; a join token, with the key that it let in.
fn logins(job: &Job) -> Vec<Vec<u8>> {
    let (real, server, issuer) = (&job.real, job.server(), Issuer::new());
    let (url, reviewer) = (issuer.url(), "canary-reviewer-35");
    let place = |name: &str| real.dir.path().join(name).display().to_string();
    let [ca, asks, session, state] = ["issuer-ca", "reviewer", "session", "state"].map(place);
    fs::write(&ca, &issuer.ca).unwrap();
    fs::write(&asks, reviewer).unwrap();
    issuer.serve_cluster(reviewer, &[], &Value::Null);
    let review =
        format!("--token-review-url {url} --token-review-ca {ca} --token-review-credential {asks}");
    for line in [
        format!(
            "issuer add prod --preset kubernetes --url {url} --audience {AUDIENCE} --private \
             --ca-file {ca} {review}"
        ),
        "issuer rule add prod --identity etl --yes --claim kubernetes.io/namespace=data --claim \
         kubernetes.io/serviceaccount/uid=14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"
            .to_owned(),
    ] {
        real.ask(server, &job.alice, &line);
    }
    let token = issuer.issue(AUDIENCE, kubernetes("p"));
    for (identity, code) in [("alice", 3), ("etl", 0), ("etl", 0)] {
        let line = format!("login --oidc - --identity {identity} --session-file {session}");
        let done = real.tell(server, &job.etl, &line, &token);
        assert_eq!(done.status.code(), Some(code), "{identity}: {}", text(&done.stderr));
    }
    let kept = fs::read_to_string(session).unwrap();
    let made = real.ask(server, &job.alice, "identity enroll etl --output json");
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let joins = made["join_token"].as_str().unwrap();
    for (dir, code) in [(&state, 0), (&place("another"), 3)] {
        let done = real.tell(server, &job.etl, &format!("join --dir {dir} --token-file -"), joins);
        assert_eq!(done.status.code(), Some(code), "{dir}: {}", text(&done.stderr));
    }
    let login = fs::read_to_string(format!("{state}/login.pem")).unwrap();
    let signature = token.rsplit('.').next().unwrap().as_bytes().to_vec();
    [vec![signature, reviewer.into(), bits(&kept), bits(joins)], of_key(&login)].concat()
}

/// A factor: invited, enrolled, refused, proven, with recovery codes, each shown once.
fn factors(job: &Job) -> Vec<Vec<u8>> {
    let (real, server) = (&job.real, job.server());
    let bob = real.register(server, &job.alice, "bob");
    let json = |output: &Output| {
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let made = json(&real.ask(server, &job.alice, "factor invite bob --output json"));
    let invitation = made["invitation"].as_str().unwrap().to_owned();
    let line = "factor enrol --invitation - --output json";
    let shown = json(&real.tell(server, &bob, line, &invitation));
    let secret = shown["secret"].as_str().unwrap().to_owned();
    let bytes = parse_base32(&secret.to_lowercase()).unwrap();
    let step = u64::try_from(otp_step(SystemClock.now())).unwrap();
    let code = hotp(&SecretBytes::new(bytes.clone()), step).unwrap();
    let code = String::from_utf8(code.digits().to_vec()).unwrap();
    let confirm = format!("factor confirm {} --output json", shown["id"].as_str().unwrap());
    json(&real.tell(server, &bob, &confirm, &code));
    let again = real.tell(server, &bob, "factor verify", &code);
    assert_eq!(again.status.code(), Some(4), "{}", text(&again.stderr));
    let codes = json(&real.ask(server, &bob, "factor recovery-codes --output json"));
    let recovery = codes["codes"][0].as_str().unwrap().to_owned();
    json(&real.tell(server, &bob, "factor verify --output json", &recovery));
    let wrong = real.tell(server, &bob, "factor verify", "canary-factor-code-none");
    assert_eq!(wrong.status.code(), Some(7), "{}", text(&wrong.stderr));
    let bits = invitation.as_bytes()[26..70].to_vec();
    let typed = b"canary-factor-code-none".to_vec();
    vec![
        bits,
        bytes,
        secret.into(),
        recovery.clone().into(),
        recovery.replace('-', "").into(),
        typed,
    ]
}

/// Secrets: written, read, masked, refused, deleted and destroyed.
fn kept(job: &Job) -> Vec<Vec<u8>> {
    let (real, server) = (&job.real, job.server());
    let ok = |output: Output| {
        assert!(output.status.success(), "{}", text(&output.stderr));
        output.stdout
    };
    for verb in ["put", "get", "destroy", "rollback", "metadata", "transfer"] {
        let line = format!("grant add alice --action secrets.{verb} --resource secrets/leaks/*");
        ok(real.ask(server, &job.alice, &line));
    }
    let line = "grant add etl --action secrets.get --resource secrets/leaks/* --mask card=hash";
    ok(real.ask(server, &job.alice, line));
    let (plain, card) = ("canary-secret-plain-31", "canary-secret-card-32");
    ok(real.tell(server, &job.alice, "secret put leaks/plain -", plain));
    let object = format!(r#"{{"card":"{card}"}}"#);
    ok(real.tell(server, &job.alice, "secret put leaks/card - --json", &object));
    let given = ok(real.ask(server, &job.alice, "secret get leaks/plain"));
    assert_eq!(text(&given).trim_end(), plain);
    let masked = ok(real.ask(server, &job.etl, "secret get leaks/card"));
    assert!(text(&masked).contains("hmac:") && !text(&masked).contains(card));
    let twice = format!(r#"{{"card":"{card}","card":"{card}"}}"#);
    let refused = real.tell(server, &job.alice, "secret put leaks/card - --json --cas 1", &twice);
    assert_eq!(refused.status.code(), Some(7), "{}", text(&refused.stderr));
    let stale = real.tell(server, &job.alice, "secret put leaks/plain - --cas 9", plain);
    assert_eq!(stale.status.code(), Some(6), "{}", text(&stale.stderr));
    ok(real.ask(server, &job.alice, "secret rollback leaks/plain --to 1 --cas 1"));
    ok(real.ask(server, &job.alice, "secret transfer leaks/card etl"));
    ok(real.ask(server, &job.alice, "secret destroy leaks/plain --all"));
    [plain, card].map(|secret| secret.as_bytes().to_vec()).to_vec()
}

/// Wrapped answers: one that waits, one that was refused, opened and shown again.
fn wrapped(job: &Job) -> Vec<Vec<u8>> {
    let (real, server) = (&job.real, job.server());
    let value = "canary-secret-wrapped-34";
    let put = real.tell(server, &job.alice, "secret put leaks/wrapped -", value);
    assert!(put.status.success(), "{}", text(&put.stderr));
    let wrap = || {
        let line = "secret get leaks/wrapped --wrap 1h --wrap-for etl";
        text(&real.ask(server, &job.alice, line).stdout).trim().to_owned()
    };
    let (waits, handle) = (wrap(), wrap());
    let open = |path: &str| {
        real.tell(server, &job.etl, &format!("unwrap --from alice --path {path}"), &handle)
    };
    assert_eq!(open("secrets/leaks/other").status.code(), Some(7));
    assert_eq!(text(&open("secrets/leaks/wrapped").stdout).trim_end(), value);
    assert_eq!(open("secrets/leaks/wrapped").status.code(), Some(7));
    let bits = [waits, handle].map(|handle| handle.as_bytes()[26..70].to_vec());
    [bits.to_vec(), vec![value.into()]].concat()
}

/// Named keys: what they encrypt, sign and compute MACs of, and the data keys that they make.
fn used(job: &Job) -> Vec<Vec<u8>> {
    let (real, server) = (&job.real, job.server());
    let ok = |output: Output| {
        assert!(output.status.success(), "{}", text(&output.stderr));
        output.stdout
    };
    for verb in ["create", "encrypt", "decrypt", "datakey", "mac", "sign"] {
        let line = format!("grant add alice --action keys.{verb} --resource keys/leaks/*");
        ok(real.ask(server, &job.alice, &line));
    }
    let plain = "canary-plaintext-of-a-key-33";
    for (name, algorithm) in
        [("c", "aes-256-gcm"), ("m", "hmac-sha-256"), ("s", "ecdsa-p256 --placement sealed")]
    {
        let line = format!("key create leaks/{name} --algorithm {algorithm}");
        ok(real.ask(server, &job.alice, &line));
    }
    let sealed = ok(real.tell(server, &job.alice, "key encrypt leaks/c", plain));
    let opened = ok(real.tell(server, &job.alice, "key decrypt leaks/c", &text(&sealed)));
    assert_eq!(text(&opened).trim_end(), plain);
    let wrong = real.tell(server, &job.alice, "key decrypt leaks/c --aad x", &text(&sealed));
    assert_eq!(wrong.status.code(), Some(7), "{}", text(&wrong.stderr));
    ok(real.tell(server, &job.alice, "key mac leaks/m", plain));
    ok(real.tell(server, &job.alice, "key sign leaks/s", plain));
    let file = real.dir.path().join("data.key");
    let line = format!("key datakey leaks/c --out {}", file.display());
    ok(real.ask(server, &job.alice, &line));
    vec![plain.as_bytes().to_vec(), fs::read(file).unwrap()]
}

/// The password of a database credential.
fn password(job: &Job) -> Vec<u8> {
    let creds = job.real.ask(job.server(), &job.etl, "db creds analytics/reader --format json");
    let creds: Value = serde_json::from_slice(&creds.stdout).unwrap();
    creds["password"].as_str().unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_log_store_or_traces_in_any_form() {
    let collector = Collector::default();
    let endpoint = collector.serve().await;
    let real = Installation::new();
    let telemetry = format!("level = \"trace\"\n[telemetry]\notlp_endpoint = \"{endpoint}\"");
    real.replace("level = \"trace\"", &telemetry);
    let mut job = Job::new(real, Postgres::shared().port()).await;
    let mut secrets: Vec<(&str, Vec<u8>)> = vec![
        ("the PIN", PIN.into()),
        ("the account's password", ACCOUNT_PASSWORD.into()),
        ("a bearer token", b"hvs.CANARY-bearer-0123456789".to_vec()),
        ("a refused name", b"CANARY-name-9876543210".to_vec()),
    ];
    secrets.push(("a database password", password(&job)));
    let dir = job.real.dir.path().to_owned();
    let key = dir.join("web.key").display().to_string();
    for line in [
        "pki role put web --dns a.example.org".to_owned(),
        "grant add alice --action pki.issue --resource pki/web".to_owned(),
        format!("pki issue web --dns a.example.org --out {key}.pem --key-out {key}"),
    ] {
        job.real.ask(job.server(), &job.alice, &line);
    }
    // A kind of credential that is not accepted here, and a name that is none.
    let mut bearer = job.real.client(job.server(), &job.etl, "whoami");
    drop(bearer.env("STRONGROOM_TOKEN", "hvs.CANARY-bearer-0123456789").output().unwrap());
    let line = "db creds analytics/CANARY-name-9876543210";
    let refused = job.real.client(job.server(), &job.etl, line).output().unwrap();
    assert_eq!(refused.status.code(), Some(7), "{}", text(&refused.stderr));
    secrets.extend(tokens(&job).into_iter().map(|bits| ("the bits of a token", bits)));
    secrets.extend(factors(&job).into_iter().map(|part| ("a factor", part)));
    secrets.extend(kept(&job).into_iter().map(|part| ("a secret", part)));
    secrets.extend(wrapped(&job).into_iter().map(|part| ("what was wrapped", part)));
    secrets.extend(used(&job).into_iter().map(|part| ("what a key was used on", part)));
    for file in ["out/bootstrap.key", "alice.key", "etl.key", "web.key"] {
        let pem = fs::read_to_string(dir.join(file)).unwrap();
        secrets.extend(of_key(&pem).into_iter().map(|part| ("a private key", part)));
    }

    let look = || {
        let mut places = vec![("traces".to_owned(), collector.bytes())];
        for entry in fs::read_dir(dir.join("data")).unwrap() {
            let path = entry.unwrap().path();
            if path.display().to_string().ends_with("-reserve") {
                // Room and nothing else, and too much of it to be searched for each secret.
                let room = fs::read(&path).unwrap();
                assert!(room.chunks(4_096).all(|page| page == &[0; 4_096][..page.len()]));
            } else if path.is_file() {
                places.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
        places.push(("the log".to_owned(), fs::read(dir.join("log")).unwrap()));
        assert!(places.iter().any(|(place, _)| place.ends_with("vault.db")));
        for (place, bytes) in &places {
            let text = searchable(bytes);
            for (what, secret) in &secrets {
                for form in forms(secret) {
                    let found = text.contains(&searchable(&form));
                    assert!(!found, "{what} as {} in {place}", String::from_utf8_lossy(&form));
                }
            }
        }
    };
    look();
    // What waits is sent at the end.
    assert_eq!(job.server.take().unwrap().stop(), Some(0));
    until("spans come", async || !collector.spans().is_empty()).await;
    look();
    let spans = collector.spans();
    for part in ["DatabaseService/IssueCredentials", "IdentityService/WhoAmI", "INVALID_ARGUMENT"] {
        assert!(spans.iter().any(|span| span.contains(part)), "{part}: {spans:?}");
    }
    assert!(!fs::read_to_string(dir.join("log")).unwrap().contains("strongroom::spans"));
}
