//! Where a browser comes back to after somebody signed in: a port on loopback that is open for one
//! answer (RFC 8252, section 7.3). Must not know what is done with it.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use url::Url;
use zeroize::Zeroizing;

use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::session::variable;

/// Where it comes back to.
const PATH: &str = "/callback";
/// How long it is waited for, and how long for one request.
const WAITS: Duration = Duration::from_mins(5);
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once, and bytes of a request: browsers open some that they do not use.
const AT_ONCE: usize = 8;
const HEAD_BYTES: usize = 16 * 1_024;

/// A port that a browser comes back to.
#[derive(Debug)]
pub(super) struct Return {
    listener: TcpListener,
    port: u16,
}

/// Who is to come back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    /// What went with them.
    pub(super) state: &'a str,
    /// Whom they were sent to.
    pub(super) issuer: &'a str,
    /// Whether that one says who it is (RFC 9207).
    pub(super) says_issuer: bool,
}

impl Return {
    /// Opens a port.
    pub(super) async fn open() -> Outcome<Self> {
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Unexpected, format!("no port on loopback can be opened: {error}"))
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Self { listener, port })
    }

    /// Says where it is.
    pub(super) fn uri(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// Waits for the code that a browser brings, and closes.
    pub(super) async fn code(self, expected: Expected<'_>) -> Outcome<Zeroizing<String>> {
        let code = tokio::time::timeout(WAITS, self.wait(expected)).await;
        code.map_err(|_elapsed| {
            Failure::new(Exit::Unavailable, "nobody signed in within five minutes")
        })?
    }

    async fn wait(&self, expected: Expected<'_>) -> Outcome<Zeroizing<String>> {
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if open.len() < AT_ONCE => {
                    let (stream, _) = accepted.map_err(|error| {
                        Failure::new(Exit::Unexpected, format!("nobody can come back: {error}"))
                    })?;
                    open.push(read(stream));
                }
                Some(asked) = open.next(), if !open.is_empty() => {
                    let Some((stream, target)) = asked else { continue };
                    // Whoever else asks learns nothing, and ends nothing.
                    let judged = judge(&target, expected);
                    answer(stream, judged.as_ref()).await;
                    if let Some(outcome) = judged {
                        return outcome;
                    }
                }
            }
        }
    }
}

/// Reads the head of a request, and what it asks for.
async fn read(mut stream: TcpStream) -> Option<(TcpStream, Zeroizing<String>)> {
    let reading = async {
        let mut head = Zeroizing::new(Vec::<u8>::with_capacity(HEAD_BYTES));
        let mut part = Zeroizing::new([0_u8; 1_024]);
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let count = stream.read(&mut *part).await.ok()?;
            if count == 0 || head.len().saturating_add(count) > HEAD_BYTES {
                return None;
            }
            head.extend_from_slice(part.get(..count)?);
        }
        target_of(&head)
    };
    let target = tokio::time::timeout(PATIENCE, reading).await.ok()??;
    Some((stream, target))
}

fn target_of(head: &[u8]) -> Option<Zeroizing<String>> {
    let line = std::str::from_utf8(head).ok()?.lines().next()?;
    let target = line.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1")?;
    (target.starts_with('/') && !target.contains(' ')).then(|| Zeroizing::new(target.to_owned()))
}

/// Reads what a browser brings; nothing where it was not sent by us.
fn judge(target: &str, expected: Expected<'_>) -> Option<Outcome<Zeroizing<String>>> {
    let url = Url::parse(&Zeroizing::new(format!("http://127.0.0.1{target}"))).ok()?;
    let mut said = BTreeMap::new();
    for (name, value) in url.query_pairs() {
        if said.insert(name.into_owned(), Zeroizing::new(value.into_owned())).is_some() {
            return None;
        }
    }
    let text = |name: &str| said.get(name).map(|value| value.as_str());
    let state = text("state").unwrap_or_default();
    let sent = verify_slices_are_equal(state.as_bytes(), expected.state.as_bytes()).is_ok();
    if url.path() != PATH || !sent {
        return None;
    }
    let refused = |text: String| Some(Err(Failure::new(Exit::Unauthenticated, text)));
    let issued = text("iss").map_or(!expected.says_issuer, |issuer| issuer == expected.issuer);
    if !issued {
        return refused("another provider answered than the one that was asked".to_owned());
    }
    match (text("code"), text("error")) {
        (Some(code), None) if !code.is_empty() => Some(Ok(Zeroizing::new(code.to_owned()))),
        (_, Some(error)) => refused(format!("the provider let nobody in: {error}")),
        (_, None) => refused("the provider's answer has no code".to_owned()),
    }
}

/// Tells whoever sits before the browser how it went; nothing of what it brought.
async fn answer(mut stream: TcpStream, judged: Option<&Outcome<Zeroizing<String>>>) {
    let (status, text) = match judged {
        Some(Ok(_)) => ("200 OK", "Done. The program goes on; this page can be closed."),
        Some(Err(_)) => ("400 Bad Request", "Nobody was signed in; the program says why."),
        None => ("404 Not Found", "There is nothing here."),
    };
    let page = format!("<!doctype html><title>Strongroom</title><p>{text}</p>\n");
    let whole = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n\
         Content-Security-Policy: default-src 'none'\r\nConnection: close\r\n\r\n{page}",
        page.len()
    );
    let written = async {
        stream.write_all(whole.as_bytes()).await?;
        stream.shutdown().await
    };
    // A browser that went away needs no page.
    drop(tokio::time::timeout(PATIENCE, written).await);
}

/// Opens a browser where there is a desktop; elsewhere somebody follows what is printed.
pub(super) fn open(url: &str) {
    if variable("DISPLAY").or_else(|| variable("WAYLAND_DISPLAY")).is_none() {
        return;
    }
    let mut command = Command::new("xdg-open");
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(command.spawn());
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected<'_> = Expected { state: "st", issuer: "https://i", says_issuer: true };

    #[test]
    fn only_who_was_sent_brings_a_code_and_the_issuer_is_the_one_that_was_asked() {
        let silent = Expected { says_issuer: false, ..EXPECTED };
        let exit = |outcome: Outcome<_>| outcome.map_err(|failure| failure.exit);
        let judged = |target: &str, expected| judge(target, expected).map(exit);
        let code = || Some(Ok(Zeroizing::new("c&d".to_owned())));
        assert_eq!(judged("/callback?code=c%26d&state=st&iss=https%3A%2F%2Fi", EXPECTED), code());
        assert_eq!(judged("/callback?code=c%26d&state=st", silent), code());
        for other in [
            "/",
            "/favicon.ico",
            "/callback",
            "/callback?code=c&state=ST&iss=https://i",
            "/callback?code=c&iss=https://i",
            "/callback?code=c&code=d&state=st&iss=https://i",
            "/callback?code=c&state=st&state=st&iss=https://i",
            "/other?code=c&state=st&iss=https://i",
        ] {
            assert_eq!(judged(other, EXPECTED), None, "{other}");
        }
        for (target, expected) in [
            ("/callback?code=c&state=st", EXPECTED),
            ("/callback?code=c&state=st&iss=https://evil", EXPECTED),
            ("/callback?code=c&state=st&iss=https://evil", silent),
            ("/callback?error=access_denied&state=st&iss=https://i", EXPECTED),
            ("/callback?code=c&error=x&state=st&iss=https://i", EXPECTED),
            ("/callback?code=&state=st&iss=https://i", EXPECTED),
            ("/callback?state=st&iss=https://i", EXPECTED),
        ] {
            let refused = Some(Err(Exit::Unauthenticated));
            assert_eq!(judged(target, expected), refused, "{target}");
        }
    }

    #[test]
    fn what_is_no_get_is_not_read() {
        let target = |head: &str| target_of(head.as_bytes()).map(|target| target.to_string());
        assert_eq!(target("GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n").as_deref(), Some("/a?b"));
        for bad in ["", "POST / HTTP/1.1\r\n", "GET a HTTP/1.1\r\n", "GET / HTTP/1.0\r\n", "GET /"]
        {
            assert_eq!(target(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn others_end_nothing_and_the_port_closes_after_the_one_answer() {
        let back = Return::open().await.unwrap();
        let port = back.port;
        let ask = async |target: &str| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut page = String::new();
            stream.read_to_string(&mut page).await.unwrap();
            page
        };
        let asks = async {
            // One that says nothing keeps nobody waiting.
            let silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            assert!(ask("/callback?code=evil&state=no").await.starts_with("HTTP/1.1 404"));
            let page = ask("/callback?code=secret&state=st&iss=https://i").await;
            assert!(page.starts_with("HTTP/1.1 200") && !page.contains("secret"), "{page}");
            drop(silent);
        };
        let (code, ()) = tokio::join!(back.code(EXPECTED), asks);
        assert_eq!(code.unwrap().as_str(), "secret");
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    }
}
