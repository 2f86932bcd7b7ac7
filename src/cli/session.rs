//! The way to a vault: mTLS, deadlines, bounded retries, pages.

use std::io::{IsTerminal as _, stderr, stdin};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::Uri;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, ConnectError, Request, Response, Status};
use zeroize::Zeroizing;

use super::args::Global;
use super::failure::{Exit, Failure, Outcome, STEP_UP, error_info};
use super::files::{prompt_secret, read_own_text, read_secret, read_text, write_private};
use super::output::{Format, Listed, escape, note};
use crate::proto::factor_service_client::FactorServiceClient;
use crate::proto::{ErrorInfo, VerifyFactorRequest, WRAP_FOR, WRAP_TTL};
use crate::types::{Entropy as _, Id, SystemEntropy};

/// The port of a vault whose address names none.
pub const DEFAULT_PORT: u16 = 7200;
/// How long one command waits for one answer, retries included.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long it waits for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a call that may be repeated is tried.
const TRIES: u32 = 4;
/// The wait after the first try in milliseconds; it doubles, and up to as much is added by chance.
const BACK_OFF_MS: u64 = 100;
/// The variable that holds a bearer token. No flag does: argv is everybody's to read.
const TOKEN_VARIABLE: &str = "STRONGROOM_TOKEN";
/// Items asked for at once.
const PAGE: usize = 1_000;

/// What carries a call.
pub(super) type Wire = InterceptedService<Channel, Bearer>;

/// Adds the bearer token to each call, where there is one, and how its answer is to be wrapped.
#[derive(Debug, Clone, Default)]
pub(super) struct Bearer {
    token: Option<MetadataValue<Ascii>>,
    wrap: Vec<(&'static str, MetadataValue<Ascii>)>,
}

impl Bearer {
    const fn of(token: Option<MetadataValue<Ascii>>) -> Self {
        Self { token, wrap: Vec::new() }
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        for (name, value) in &self.wrap {
            request.metadata_mut().insert(*name, value.clone());
        }
        Ok(request)
    }
}

/// A connection to a vault, opened by its first call.
#[derive(Debug, Clone)]
pub(super) struct Session {
    channel: Channel,
    wire: Wire,
    /// What its calls bring but for a wrap.
    bearer: Bearer,
    /// How answers are printed.
    pub(super) format: Format,
}

impl Session {
    /// Prepares a connection from flags and environment.
    pub(super) fn open(global: &Global) -> Outcome<Self> {
        let session = Self::open_as_nobody(global)?;
        Ok(session.with(Bearer::of(token(global)?)))
    }

    /// The same connection with something else that its calls bring.
    fn with(self, bearer: Bearer) -> Self {
        let wire = InterceptedService::new(self.channel.clone(), bearer.clone());
        Self { wire, bearer, ..self }
    }

    /// The same connection, whose calls ask for wrapped answers.
    pub(super) fn wrapping(&self, ttl_s: i64, recipient: Option<&str>) -> Outcome<Self> {
        let mut bearer = self.bearer.clone();
        bearer.wrap.push((WRAP_TTL, MetadataValue::from(ttl_s)));
        if let Some(name) = recipient {
            let value: MetadataValue<Ascii> = name
                .parse()
                .map_err(|_malformed| Failure::usage("the name holds what no name does"))?;
            bearer.wrap.push((WRAP_FOR, value));
        }
        let wire = InterceptedService::new(self.channel.clone(), bearer);
        Ok(Self { wire, ..self.clone() })
    }

    /// The same connection with another bearer.
    pub(super) fn bearing(&self, token: &str) -> Outcome<Self> {
        Ok(self.clone().with(Bearer::of(Some(header(token)?))))
    }

    /// Prepares a connection that brings no token.
    pub(super) fn open_as_nobody(global: &Global) -> Outcome<Self> {
        let uri = parse_address(&global.addr)?;
        let mut tls = ClientTlsConfig::new();
        let authorities = global.cacert.as_ref().ok_or_else(|| {
            Failure::usage("no authority to check the vault against")
                .hint("give --cacert or STRONGROOM_CACERT; `strongroom dev` prints what to export")
        })?;
        tls = tls.ca_certificate(Certificate::from_pem(read_text(authorities)?.as_bytes()));
        match (&global.cert, &global.key) {
            (Some(cert), Some(key)) => {
                let (cert, key) = (read_text(cert)?, read_text(key)?);
                tls = tls.identity(Identity::from_pem(cert.as_bytes(), key.as_bytes()));
            }
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => {
                return Err(Failure::usage("--cert and --key go together"));
            }
        }
        let endpoint = Endpoint::from(uri)
            .tls_config(tls)
            .map_err(|error| Failure::usage(format!("the TLS files do not fit: {error}")))?
            .connect_timeout(CONNECT)
            .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| Failure::new(Exit::Unexpected, error.to_string()))?;
        let channel = endpoint.connect_lazy();
        let bearer = Bearer::default();
        let wire = InterceptedService::new(channel.clone(), bearer.clone());
        Ok(Self { channel, wire, bearer, format: global.output })
    }

    /// Shows what carries calls, for those that go on as long as they like.
    pub(super) fn wire(&self) -> Wire {
        self.wire.clone()
    }

    /// Makes a call that may be repeated: one that reads, that sets what is, or that carries an
    /// idempotency key. Tries again while the vault is unavailable, and on a terminal once more after
    /// a factor that it wants was proven.
    pub(super) async fn call<Q: Clone, R>(
        &self,
        message: Q,
        rpc: impl AsyncFn(Wire, Request<Q>) -> Result<Response<R>, Status>,
    ) -> Outcome<R> {
        let (mut began, mut tries, mut stepped) = (Instant::now(), 1, false);
        loop {
            let left = DEADLINE.saturating_sub(began.elapsed());
            let status = match self.attempt(message.clone(), left, &rpc).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            if !stepped && self.step_up(&status).await? {
                (began, tries, stepped) = (Instant::now(), 1, true);
                continue;
            }
            let wait = back_off(tries);
            if tries >= TRIES || !is_passing(&status) || began.elapsed() + wait >= DEADLINE {
                return Err(status.into());
            }
            tokio::time::sleep(wait).await;
            tries += 1;
        }
    }

    /// Makes a call that must not be repeated unasked. Where a factor is wanted first, nothing was
    /// done yet.
    pub(super) async fn call_once<Q: Clone, R>(
        &self,
        message: Q,
        rpc: impl AsyncFn(Wire, Request<Q>) -> Result<Response<R>, Status>,
    ) -> Outcome<R> {
        match self.attempt(message.clone(), DEADLINE, &rpc).await {
            Ok(answer) => Ok(answer),
            Err(status) if self.step_up(&status).await? => {
                Ok(self.attempt(message, DEADLINE, &rpc).await?)
            }
            Err(status) => Err(status.into()),
        }
    }

    /// Makes a call that must not reach the vault twice: tries again only where there was no connection
    /// to send it on.
    pub(super) async fn call_unsent<Q: Clone, R>(
        &self,
        message: Q,
        rpc: impl AsyncFn(Wire, Request<Q>) -> Result<Response<R>, Status>,
    ) -> Outcome<R> {
        let mut tries = 1;
        loop {
            match self.attempt(message.clone(), DEADLINE, &rpc).await {
                Ok(answer) => return Ok(answer),
                Err(status) if tries >= TRIES || !is_unsent(&status) => return Err(status.into()),
                Err(_unsent) => {}
            }
            tokio::time::sleep(back_off(tries)).await;
            tries += 1;
        }
    }

    /// Asks for the code of a factor and proves it, where that is what a call wants and somebody is
    /// there to be asked; false otherwise.
    async fn step_up(&self, status: &Status) -> Outcome<bool> {
        let info = error_info(status.details()).filter(|info| info.reason == STEP_UP);
        if info.is_none() || !(stdin().is_terminal() && stderr().is_terminal()) {
            return Ok(false);
        }
        note(status.message());
        let request = VerifyFactorRequest { code: prompt_secret("code")?.to_string() };
        let rpc = async |wire, request| FactorServiceClient::new(wire).verify_factor(request).await;
        // What is wrapped is the answer of the call, not of this one.
        let plain = self.clone().with(self.bearer.clone());
        plain.attempt(request, DEADLINE, &rpc).await?;
        Ok(true)
    }

    async fn attempt<Q, R>(
        &self,
        message: Q,
        left: Duration,
        rpc: &impl AsyncFn(Wire, Request<Q>) -> Result<Response<R>, Status>,
    ) -> Result<R, Status> {
        let mut request = Request::new(message);
        request.set_timeout(left);
        match tokio::time::timeout(left, rpc(self.wire.clone(), request)).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_elapsed) => Err(Status::deadline_exceeded("the vault did not answer in time")),
        }
    }
}

/// Pages in a row that hold nothing, before a list is left.
const EMPTY: usize = 1_000;

/// Collects pages until there are no more, or as many items as wanted.
pub(super) async fn collect<T>(
    limit: usize,
    page: impl AsyncFn(i32, String) -> Outcome<(Vec<T>, String)>,
) -> Outcome<Listed<T>> {
    let mut items = Vec::new();
    let (mut token, mut empty) = (String::new(), 0);
    loop {
        let wanted = limit.saturating_sub(items.len()).clamp(1, PAGE);
        let (mut found, next) =
            page(i32::try_from(wanted).unwrap_or(i32::MAX), token.clone()).await?;
        // A page that found nothing may say where to go on; not for ever, and not to where it was.
        empty = if found.is_empty() { empty + 1 } else { 0 };
        let stuck = empty > EMPTY || (empty > 0 && next == token);
        items.append(&mut found);
        if next.is_empty() || stuck || items.len() >= limit {
            let more = !next.is_empty() || items.len() > limit;
            items.truncate(limit);
            return Ok(Listed { items, more });
        }
        token = next;
    }
}

/// Takes what an answer must hold.
pub(super) fn must<T>(part: Option<T>) -> Outcome<T> {
    part.ok_or_else(|| Failure::new(Exit::Unexpected, "the vault's answer lacks a part"))
}

/// Makes an idempotency key of 122 random bits.
pub(super) fn idempotency_key() -> Outcome<String> {
    // Two, because the vault wants 128 bits and an id has six fixed ones.
    let (one, two) = (Id::random(&SystemEntropy)?, Id::random(&SystemEntropy)?);
    Ok(format!("{one}{two}"))
}

/// Reads `host`, `host:port` or `https://host:port`.
fn parse_address(text: &str) -> Outcome<Uri> {
    let malformed = || {
        Failure::usage(format!("`{text}` is no address of a vault"))
            .hint("an address is `https://host:port` or `host:port`; there is no plain http")
    };
    let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let uri: Uri = whole.parse().map_err(|_malformed| malformed())?;
    let authority = uri.authority().ok_or_else(malformed)?;
    let bare = uri.path() == "/" && uri.query().is_none() && !authority.as_str().contains('@');
    if uri.scheme_str() != Some("https") || !bare || authority.host().is_empty() {
        return Err(malformed());
    }
    // The text after the host must be a port or nothing: an unreadable port is no port to http.
    let port = match authority.as_str().strip_prefix(authority.host()) {
        Some("") => DEFAULT_PORT,
        Some(_) => authority.port_u16().ok_or_else(malformed)?,
        None => return Err(malformed()),
    };
    format!("https://{}:{port}", authority.host()).parse().map_err(|_malformed| malformed())
}

/// Reads a variable that is set to something.
#[expect(
    clippy::disallowed_methods,
    reason = "the client has no configuration file, and a token must not become a flag"
)]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Puts a session where other commands find it, with the vault that it is of; whole, or as it was.
pub(super) fn keep(addr: &str, path: &Path, bearer: &str) -> Outcome {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(new);
    let text = Zeroizing::new(format!("{bearer}\n{}\n", parse_address(addr)?));
    // Of one of this number that did not come to its end: in a container that is every one.
    drop(std::fs::remove_file(&new));
    write_private(&new, &text)?;
    std::fs::rename(&new, path).map_err(|error| {
        drop(std::fs::remove_file(&new));
        Failure::new(Exit::Unexpected, format!("{} cannot be written: {error}", path.display()))
    })
}

/// Reads a session: it is for the vault that gave it, and no other is shown it.
fn kept(addr: &str, path: &Path) -> Outcome<Zeroizing<String>> {
    let (text, address) = (read_own_text(path)?, parse_address(addr)?.to_string());
    let mut lines = text.lines();
    match (lines.next(), lines.next(), lines.next()) {
        (Some(bearer), Some(of), None) if of == address => Ok(Zeroizing::new(bearer.to_owned())),
        (Some(_), Some(of), None) => Err(Failure::usage(format!(
            "the session in {} is of {}, and not of {address}",
            path.display(),
            escape(of)
        ))
        .hint("log in there with `strongroom login`, or name another file with --session-file")),
        (_, _, _) => Err(Failure::usage(format!("{} holds no session", path.display()))
            .hint("log in again with `strongroom login`")),
    }
}

/// Finds the bearer token: in the file that is named, in the variable, or, where no certificate is
/// named either, in the session that `strongroom login` keeps.
fn token(global: &Global) -> Outcome<Option<MetadataValue<Ascii>>> {
    let session = || {
        let path = global.session_path().filter(|path| global.cert.is_none() && path.exists());
        path.map(|path| kept(&global.addr, &path))
    };
    let token = match (&global.token_file, variable(TOKEN_VARIABLE)) {
        (Some(file), _) => read_secret(file)?,
        (None, Some(token)) => Zeroizing::new(token),
        (None, None) => match session().transpose()? {
            Some(token) => token,
            None => return Ok(None),
        },
    };
    header(&token).map(Some)
}

fn header(token: &str) -> Outcome<MetadataValue<Ascii>> {
    let header = Zeroizing::new(format!("Bearer {token}"));
    let mut value: MetadataValue<Ascii> = header
        .parse()
        .map_err(|_malformed| Failure::usage("the token holds characters that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Tells whether a failure may pass by itself; a seal does not.
fn is_passing(status: &Status) -> bool {
    status.code() == Code::Unavailable
        && error_info(status.details()).is_none_or(|info: ErrorInfo| info.reason != "SEALED")
}

/// Tells whether a call failed because no connection came about.
fn is_unsent(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(cause) = next {
        if cause.is::<ConnectError>() {
            return true;
        }
        next = cause.source();
    }
    false
}

fn back_off(tries: u32) -> Duration {
    let base = BACK_OFF_MS.saturating_mul(1 << tries.saturating_sub(1).min(8));
    let mut random = [0; 8];
    // Without randomness the wait is merely predictable.
    let chance = SystemEntropy.fill(&mut random).map_or(0, |()| u64::from_le_bytes(random));
    Duration::from_millis(base.saturating_add(chance % base))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_scheme_and_port() {
        for (text, uri) in [
            ("localhost", "https://localhost:7200/"),
            ("vault.example:9000", "https://vault.example:9000/"),
            ("https://vault.example", "https://vault.example:7200/"),
            ("https://vault.example:443/", "https://vault.example:443/"),
            ("[::1]:7200", "https://[::1]:7200/"),
            ("https://[::1]", "https://[::1]:7200/"),
        ] {
            assert_eq!(parse_address(text).unwrap().to_string(), uri, "{text}");
        }
    }

    #[test]
    fn a_call_is_unsent_where_no_connection_came_about() {
        let refused = ConnectError(Box::new(std::io::Error::other("refused")));
        assert!(is_unsent(&Status::from_error(Box::new(refused))));
        assert!(!is_unsent(&Status::unavailable("the store does not answer")));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "http://vault.example",
            "ftp://vault.example",
            "https://",
            "https://vault.example/path",
            "https://vault.example?x=1",
            "https://user:pw@vault.example",
            "vault example",
            "vault.example:port",
            "vault.example:",
            "vault.example:99999",
        ] {
            assert_eq!(parse_address(text).unwrap_err().exit, Exit::Usage, "{text:?}");
        }
    }

    #[test]
    fn a_session_is_shown_to_the_vault_that_gave_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session");
        for secret in ["first", "second"] {
            keep("vault.example", &path, secret).unwrap();
            let read = kept("https://vault.example:7200", &path).unwrap();
            assert_eq!(read.as_str(), secret);
        }
        for other in ["vault.example.evil", "vault.example:7201"] {
            assert_eq!(kept(other, &path).unwrap_err().exit, Exit::Usage, "{other}");
        }
        std::fs::write(&path, "first\n").unwrap();
        assert_eq!(kept("vault.example", &path).unwrap_err().exit, Exit::Usage);
    }

    #[tokio::test]
    async fn pages_are_collected_up_to_the_limit() {
        let calls = Cell::new(0);
        let page = async |size: i32, token: String| {
            calls.set(calls.get() + 1);
            let from: i32 = token.parse().unwrap_or(0);
            let to = (from + size.min(400)).min(1_500);
            let next = if to < 1_500 { to.to_string() } else { String::new() };
            Ok(((from..to).collect::<Vec<_>>(), next))
        };
        let all = collect(10_000, page).await.unwrap();
        assert_eq!((all.items.len(), all.more, calls.get()), (1_500, false, 4));
        let some = collect(450, page).await.unwrap();
        assert_eq!((some.items.len(), some.more), (450, true));
    }

    #[tokio::test]
    async fn a_list_that_never_ends_is_left() {
        let page = async |_: i32, _: String| Ok((Vec::<i32>::new(), "again".to_owned()));
        assert!(collect(10, page).await.unwrap().more);
    }

    #[test]
    fn idempotency_keys_never_repeat() {
        assert_ne!(idempotency_key().unwrap(), idempotency_key().unwrap());
    }
}
