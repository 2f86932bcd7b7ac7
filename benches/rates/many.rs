//! `live_tokens`: a server over a store with a million tokens in force: seconds from its start to
//! the first answer, and the most memory that it then takes under load.
//!
//! The server is a process of its own. Another one made the tokens before, each by the operation
//! that makes it for a client, so that every row is sealed and on the record.

use std::future::Future;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use strongroom::crypto::sha256;
use strongroom::engines::tokens::{MintToken, Order, TokenLimits};
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{CreateIdentityRequest, WhoAmIRequest};
use strongroom::types::Caller;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::load::{RUN, drive};
use crate::report::{Row, seconds};
use crate::tokens::{header, with};
use crate::vault::{MANY, Vault, connect, dir, serve, sqlite};

/// Says to a process what it is: `seed` or `serve`.
const ROLE: &str = "STRONGROOM_BENCH_ROLE";
/// A smaller number of tokens, for trying the bench itself.
const COUNT: &str = "STRONGROOM_BENCH_TOKENS";
const STORE: &str = "many.db";
/// Tokens of each machine.
const EACH: usize = 1_000;
/// Tokens that are shown: more than a node keeps in memory.
const SHOWN: usize = 30_000;
const CONCURRENCY: usize = 64;
const CONNECTIONS: usize = 8;
/// Most memory, in MB.
const MEMORY: f64 = 500.0;

fn count() -> usize {
    std::env::var(COUNT).map_or(1_000_000, |count| count.parse().expect("a number of tokens"))
}

fn root_file() -> PathBuf {
    dir().join("many.pem")
}

fn shown_file() -> PathBuf {
    dir().join("many.tokens")
}

/// What this process is here for, where it is not the bench itself.
pub(crate) fn role() -> Option<Pin<Box<dyn Future<Output = ()>>>> {
    match std::env::var(ROLE).ok()?.as_str() {
        "seed" => Some(Box::pin(seed())),
        _ => Some(Box::pin(be_server())),
    }
}

fn process(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ROLE, role);
    command
}

pub(crate) async fn measure() -> Row {
    let began = Instant::now();
    assert!(process("seed").status().unwrap().success(), "the tokens are made");
    let seeding = began.elapsed().as_secs();
    let store = dir().join(STORE).metadata().unwrap().len() >> 20;
    eprintln!("live_tokens: {} made in {seeding} s, a store of {store} MiB", count());
    let root = std::fs::read_to_string(root_file()).unwrap();
    let shown = std::fs::read_to_string(shown_file()).unwrap();
    let shown: Vec<_> = shown.lines().map(header).collect();
    let (mut starts, mut memory) = (Vec::new(), 0.0_f64);
    for round in 0..3 {
        let mut server = Server::start(&root, &shown[round]).await;
        starts.push(server.started.as_secs_f64());
        let (address, token) = (server.address.clone(), shown.clone());
        load(&address, &root, token).await;
        memory = memory.max(server.peak_mb());
        server.stop();
    }
    let what = "until a server with 1,000,000 live tokens answers";
    let row = seconds("live_tokens", CONCURRENCY, what, 5.0, starts);
    Row { rss_mb: memory, rss_mb_most: Some(MEMORY), ..row }
}

/// Shows the tokens for a while.
async fn load(address: &str, root: &str, shown: Vec<MetadataValue<Ascii>>) {
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(connect(address, root, None).await);
    }
    let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let shown = std::sync::Arc::new(shown);
    let whoami = move |channel: Channel, _| {
        let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % shown.len();
        let request = with(WhoAmIRequest {}, &shown[n]);
        async move { drop(IdentityServiceClient::new(channel).who_am_i(request).await.unwrap()) }
    };
    drive(CONCURRENCY, RUN, channels, whoami).await;
}

/// The server, in a process of its own.
struct Server {
    child: Child,
    /// It serves until this is closed.
    input: Option<ChildStdin>,
    address: String,
    started: Duration,
}

impl Server {
    /// Starts it and waits for its first answer to a token.
    async fn start(root: &str, token: &MetadataValue<Ascii>) -> Self {
        let began = Instant::now();
        let mut child =
            process("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        let mut client = IdentityServiceClient::new(connect(&address, root, None).await);
        client.who_am_i(with(WhoAmIRequest {}, token)).await.unwrap();
        let (started, input) = (began.elapsed(), child.stdin.take());
        Self { child, input, address, started }
    }

    /// The most memory that it ever held, in MB.
    fn peak_mb(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        kib * 1_024.0 / 1e6
    }

    fn stop(&mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success(), "the server stops");
    }
}

async fn be_server() {
    let node = serve(MANY, sqlite(STORE)).await;
    println!("{}", node.grpc_addr);
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    ended.await.unwrap().unwrap();
    node.stop().await.expect("the node stops");
}

/// Founds a vault, registers machines and makes their tokens.
async fn seed() {
    let vault = Vault::on(MANY, sqlite(STORE)).await;
    let channels = vault.channels(1).await;
    let total = count();
    let mut identities = IdentityServiceClient::new(channels[0].clone());
    for machine in 0..total.div_ceil(EACH) {
        let request = CreateIdentityRequest {
            name: name(machine),
            kind: "pipeline".to_owned(),
            owner: "admin".to_owned(),
            purpose: "bench".to_owned(),
            tier: "low".to_owned(),
            ttl_s: 30 * 86_400,
            ..CreateIdentityRequest::default()
        };
        identities.create_identity(request).await.unwrap();
    }
    // The first token of each makes it active, which moves what all others would stand on.
    let machines = total.div_ceil(EACH);
    let mut shown = Vec::new();
    for machine in 0..machines {
        shown.push(mint(&vault, machine).await);
    }
    let rest = stream::iter((machines..total).map(|n| mint(&vault, n % machines)));
    let mut rest = rest.buffer_unordered(256).enumerate();
    let every = (total / SHOWN).max(1);
    while let Some((n, token)) = rest.next().await {
        if n % every == 0 {
            shown.push(token);
        }
    }
    drop(rest);
    std::fs::write(root_file(), &vault.node.root_pem).unwrap();
    std::fs::write(shown_file(), shown.join("\n")).unwrap();
    drop((channels, identities));
    vault.node.stop().await.expect("the node stops");
}

fn name(machine: usize) -> String {
    format!("machine-{machine}")
}

async fn mint(vault: &Vault, machine: usize) -> String {
    let node = &vault.node.vault;
    let login = CertificateDer::from_pem_slice(vault.certificate_pem.as_bytes()).unwrap();
    let admin = node.authenticate_certificate(sha256(&login), |_| true).await.unwrap();
    let ctx = node.context(Caller::Identity(admin), None).unwrap();
    let order = Order {
        limits: TokenLimits::default(),
        ttl: Some(Duration::from_hours(12)),
        max_ttl: None,
        uses: None,
        sources: Vec::new(),
        audience: Vec::new(),
        scope: Vec::new(),
        certificate: None,
        retry: None,
    };
    let op = MintToken { name: name(machine).parse().unwrap(), order };
    let made = node.run(&ctx, op).await.unwrap();
    String::from_utf8(made.bearer.unwrap().expose().to_vec()).unwrap()
}
