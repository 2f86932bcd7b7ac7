//! The program as a shell sees it: help, usage, tables, JSON, exit codes, and its manners towards
//! a vault that is played here by one service.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use strongroom::proto::system_service_server::{SystemService, SystemServiceServer};
use strongroom::proto::{
    CancelRecoveryRequest, CancelRecoveryResponse, ErrorInfo, RpcStatus, SealRequest, SealResponse,
};
use strongroom::types::{TaskGroup, VERBS};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    for variable in ["ADDR", "CACERT", "CERT", "KEY", "TOKEN"] {
        command.env_remove(format!("STRONGROOM_{variable}"));
    }
    command
}

fn run(line: &str) -> Output {
    program().args(line.split_whitespace()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Every command.
const COMMANDS: &[&str] = &[
    "whoami",
    "actions",
    "identity create",
    "identity show",
    "identity list",
    "identity update",
    "identity transfer",
    "identity policy list",
    "identity policy put",
    "identity suspend",
    "identity retire",
    "identity resume",
    "identity issue-cert",
    "identity enroll",
    "enrolment list",
    "enrolment revoke",
    "join",
    "group create",
    "group show",
    "group add",
    "group remove",
    "grant add",
    "grant show",
    "grant list",
    "grant remove",
    "secret put",
    "secret get",
    "secret list",
    "secret search",
    "secret history",
    "secret rollback",
    "secret delete",
    "secret undelete",
    "secret destroy",
    "secret metadata",
    "secret transfer",
    "key backup",
    "artifact sign",
    "artifact verify",
    "db connect",
    "db list",
    "db role put",
    "db role show",
    "db role list",
    "db creds",
    "lease list",
    "lease renew",
    "lease revoke",
    "pki role put",
    "pki role show",
    "pki role list",
    "pki issue",
    "pki sign",
    "pki ca",
    "pki crl",
    "pki revoke",
    "pki list",
    "audit list",
    "audit tail",
    "audit checkpoint",
    "audit verify",
    "audit export",
    "status",
    "seal",
    "unseal",
    "backup accept",
    "backup create",
    "backup verify",
    "backup restore",
    "migrate",
    "recover-admin",
    "recovery cancel",
    "recover",
    "recovery-set holder-key",
    "recovery-set create",
    "recovery-set list",
    "recovery-set shares",
    "recovery-set destroy",
    "recovery-set open-share",
    "ceremony list",
    "ceremony show",
    "ceremony watch",
    "ceremony approve",
    "ceremony deny",
    "ceremony cancel",
    "recovery-token make",
    "recovery-token accept",
    "completions",
];

#[test]
fn every_command_explains_itself() {
    for line in COMMANDS {
        let help = run(&format!("{line} --help"));
        assert_eq!(help.status.code(), Some(0), "{line}: {}", stderr(&help));
        assert!(stdout(&help).contains("Usage: strongroom"), "{line}");
    }
}

#[test]
fn help_documents_the_exit_codes() {
    let help = stdout(&run("--help"));
    for (code, word) in [(0, "as asked"), (3, "authenticated"), (4, "denied"), (9, "verification")]
    {
        let documented = help
            .lines()
            .any(|line| line.trim_start().starts_with(&format!("{code}  ")) && line.contains(word));
        assert!(documented, "{code}: {help}");
    }
}

#[test]
fn a_wrong_command_line_is_usage_and_reaches_no_vault() {
    for line in [
        "nonsense",
        "identity",
        "identity create",
        "identity create a --kind robot --purpose p --tier low",
        "identity create a --kind pipeline --purpose p --tier low",
        "identity create a --kind human --purpose p --tier huge",
        "identity create a --kind human --purpose p --tier low --expires 90",
        "grant add a --action database.credentials",
        "db connect analytics",
        "db connect analytics --host h --database d --username u --password p",
        "db connect analytics --host h --database d --username u --tls sometimes",
        "db role put reader --member-of r --owner-role o",
        "db role put a/r --member-of r --statement-file f --owner-role o",
        "db role put a/r --member-of r --owner-role o --drop-owned",
        "db creds reader",
        "db creds a/r --format xml",
        "pki issue web --out cert.pem",
        "pki sign web",
        "audit tail --last 1001",
        "audit verify --export dir",
        "lease revoke",
        "unseal --pin 1234",
        "unseal --prompt --pin-file f",
        "whoami --output yaml",
        "whoami --token t",
        "completions tcsh",
        "recover --config c",
        "recover --config c --share s --recovery-token t",
        "recover --config c --share s --recovery-pin-file f",
        "backup verify b --config c --recovery-token t --pin-file f",
        "recovery-set create --threshold 2",
        "recovery-set create --recovery-token a=b --holder c=d",
        "recovery-token make a",
    ] {
        assert_eq!(run(line).status.code(), Some(2), "{line}");
    }
}

#[test]
fn what_is_missing_for_a_connection_is_named() {
    for (line, word) in [
        ("whoami", "STRONGROOM_CACERT"),
        ("whoami --addr http://127.0.0.1:1", "https"),
        ("whoami --cacert /nonexistent/ca.pem", "/nonexistent/ca.pem"),
    ] {
        let output = run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(stderr(&output).contains(word), "{line}: {}", stderr(&output));
    }
}

#[test]
fn actions_lists_every_verb_as_table_and_as_json() {
    let table = stdout(&run("actions"));
    assert_eq!(table.lines().count(), VERBS.len() + 1);
    let rpc = table.lines().next().unwrap().find("RPC").unwrap();
    for (line, verb) in table.lines().skip(1).zip(VERBS) {
        assert!(line.starts_with(verb.action));
        assert_eq!(&line[rpc..], verb.rpc, "the columns are aligned");
    }
    for line in ["--output json actions", "actions --output json"] {
        let verbs: serde_json::Value = serde_json::from_str(&stdout(&run(line))).unwrap();
        assert_eq!(verbs.as_array().unwrap().len(), VERBS.len());
        assert_eq!(verbs[0]["action"], VERBS[0].action);
        assert_eq!(verbs[0]["administrative"], VERBS[0].administrative);
    }
}

#[test]
fn completions_exist_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&run(&format!("completions {shell}")));
        assert!(script.contains("strongroom") && script.contains("issue-cert"), "{shell}");
    }
}

#[test]
fn a_vault_that_is_not_there_is_unavailable_in_text_and_in_json() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    let output = program().args(["status", "--socket"]).arg(&socket).output().unwrap();
    assert_eq!(output.status.code(), Some(8));
    assert!(stderr(&output).contains("next: "), "{}", stderr(&output));

    let mut command = program();
    command.args(["--output", "json", "status", "--socket"]).arg(&socket);
    let error: serde_json::Value =
        serde_json::from_str(&stderr(&command.output().unwrap())).unwrap();
    assert_eq!(error["error"]["exit_code"], 8);
    assert!(error["error"]["message"].as_str().unwrap().contains("none.sock"));
}

/// Plays a vault: refuses a number of times, then seals.
struct Played {
    refusals: usize,
    reason: &'static str,
    code: Code,
    calls: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl SystemService for Played {
    async fn seal(&self, request: Request<SealRequest>) -> Result<Response<SealResponse>, Status> {
        assert!(request.metadata().contains_key("grpc-timeout"), "each call has a deadline");
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer token-1");
        if self.calls.fetch_add(1, Ordering::SeqCst) >= self.refusals {
            return Ok(Response::new(SealResponse { sealed_at_ms: 1_795_392_000_000 }));
        }
        let info = ErrorInfo {
            reason: self.reason.into(),
            domain: ErrorInfo::DOMAIN.into(),
            metadata: [(ErrorInfo::REQUEST_ID.to_owned(), "request-7".to_owned())].into(),
        };
        let details = RpcStatus {
            code: self.code.into(),
            message: "not \u{1b}[1mnow".into(),
            details: vec![prost_types::Any {
                type_url: ErrorInfo::TYPE_URL.into(),
                value: info.encode_to_vec(),
            }],
        };
        Err(Status::with_details(self.code, "not \u{1b}[1mnow", details.encode_to_vec().into()))
    }

    async fn cancel_recovery(
        &self,
        _: Request<CancelRecoveryRequest>,
    ) -> Result<Response<CancelRecoveryResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }
}

/// Starts the played vault behind mTLS; its files are in `dir`.
async fn play(dir: &Path, played: Played) -> SocketAddr {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &ca).unwrap().pem(), key.serialize_pem())
    };
    let (server_cert, server_key) = issue("127.0.0.1");
    let (cert, key) = issue("client");
    for (file, text) in [("ca.pem", &ca.pem()), ("cert.pem", &cert), ("key.pem", &key)] {
        std::fs::write(dir.join(file), text).unwrap();
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(server_cert, server_key))
        .client_ca_root(Certificate::from_pem(ca.pem()));
    let serve = Server::builder()
        .tls_config(tls)
        .unwrap()
        .add_service(SystemServiceServer::new(played))
        .serve_with_incoming(TcpListenerStream::new(listener));
    TaskGroup::default().spawn(serve);
    address
}

async fn seal(dir: &Path, address: SocketAddr) -> Output {
    let mut command = program();
    command.args(["seal", "--reason", "test", "--addr", &address.to_string()]);
    command.env("STRONGROOM_CACERT", dir.join("ca.pem"));
    command.env("STRONGROOM_CERT", dir.join("cert.pem"));
    command.env("STRONGROOM_KEY", dir.join("key.pem"));
    command.env("STRONGROOM_TOKEN", "token-1");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_refusal_is_repeated_only_where_it_may_pass() {
    for (refusals, code, reason, calls, exit) in [
        (0, Code::Ok, "", 1, 0),
        (2, Code::Unavailable, "UNAVAILABLE", 3, 0),
        (9, Code::Unavailable, "UNAVAILABLE", 4, 8),
        (9, Code::Unavailable, "SEALED", 1, 8),
        (9, Code::PermissionDenied, "DENIED", 1, 4),
        (9, Code::Unauthenticated, "UNAUTHENTICATED", 1, 3),
        (9, Code::NotFound, "NOT_FOUND", 1, 5),
        (9, Code::Aborted, "CONFLICT", 1, 6),
        (9, Code::InvalidArgument, "INVALID", 1, 7),
        (9, Code::Internal, "INTERNAL", 1, 1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let counted = Arc::new(AtomicUsize::new(0));
        let played = Played { refusals, reason, code, calls: Arc::clone(&counted) };
        let output = seal(dir.path(), play(dir.path(), played).await).await;
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(exit), "{reason}: {text}");
        assert_eq!(counted.load(Ordering::SeqCst), calls, "{reason}");
        if exit == 0 {
            assert_eq!(stdout(&output), "sealed  2026-11-23T00:00:00.000Z\n");
        } else {
            assert!(text.contains("error: not \\u{1b}[1mnow\n"), "{text}");
            assert!(text.contains(&format!("reason: {reason}\n")), "{text}");
            assert!(text.contains("request: request-7\nnext: "), "{text}");
        }
    }
}

#[tokio::test]
async fn a_vault_of_another_authority_is_not_spoken_to() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let counted = Arc::new(AtomicUsize::new(0));
    let played = || Played { refusals: 0, reason: "", code: Code::Ok, calls: Arc::clone(&counted) };
    play(here.path(), played()).await;
    let address = play(there.path(), played()).await;
    let output = seal(here.path(), address).await;
    assert_eq!(output.status.code(), Some(8), "{}", stderr(&output));
    assert!(stderr(&output).contains("certificate"), "{}", stderr(&output));
    assert_eq!(counted.load(Ordering::SeqCst), 0);
}
