//! Mails notices by SMTP.
//!
//! The connection is secured before anything is said, or nothing is: a server, or somebody between,
//! that does not offer STARTTLS gets no word of a notice, and whatever was said in the clear is
//! forgotten. That part is ours, and TLS is the one that webhooks have; the rest is lettre's.
//!
//! Source: RFC 5321; RFC 3207 (STARTTLS), section 6 of it for what is to be forgotten; RFC 3834.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, transport::smtp};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::letter::Letter;
use super::wire::Wire;
use crate::error::{Error, Result};
use crate::types::SecretBytes;
use crate::vault::Recipients;

/// How long it takes at most, from the name to the end.
const TAKES: Duration = Duration::from_secs(40);
/// Addresses that a notice goes to at the most: what every server takes in one transaction (RFC 5321,
/// section 4.5.3.1.8). A larger group has an address of its own.
const RECIPIENTS: usize = 100;
/// Bytes of an answer that is read in the clear.
const CLEAR_BYTES: usize = 4_096;
/// What stands for the greeting that was read in the clear.
const GREETED: &[u8] = b"220 greeted\r\n";

/// How the connection is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailSecurity {
    /// From the first byte on.
    Implicit,
    /// By STARTTLS.
    StartTls,
    /// Not at all: to this machine alone.
    Off,
}

/// Who has which address.
#[derive(Debug, Clone)]
pub struct MailRoute {
    /// Whom the mail is from.
    pub from: Address,
    /// Who gets every notice.
    pub copy_to: Vec<Address>,
    /// Where everybody else has an address.
    pub domain: Option<String>,
    /// Addresses of people, by name.
    pub people: BTreeMap<String, Address>,
    /// Addresses of groups, by name.
    pub groups: BTreeMap<String, Address>,
}

/// The server that notices are mailed by.
#[derive(Debug, Clone)]
pub struct MailSink {
    wire: Wire,
    security: MailSecurity,
    hello: String,
    login: Option<(String, SecretBytes)>,
    route: MailRoute,
}

impl MailSink {
    /// Takes where the server is, how the connection to it is secured, and who has which address.
    #[must_use]
    pub fn new(wire: Wire, security: MailSecurity, route: MailRoute) -> Self {
        let hello = route.from.domain().to_owned();
        Self { wire, security, hello, login: None, route }
    }

    /// Logs in with a password.
    ///
    /// # Errors
    /// [`Error::Precondition`] for a password that is no text.
    pub fn with_login(self, user: String, password: SecretBytes) -> Result<Self> {
        let odd = |_binary| Error::precondition("mail.password: must be text in UTF-8");
        std::str::from_utf8(password.expose()).map_err(odd)?;
        Ok(Self { login: Some((user, password)), ..self })
    }

    /// Mails a notice to whom it is for; says how many of them do not get it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where it was not taken, and why.
    pub(super) async fn send(&self, letter: &Letter) -> Result<String> {
        let sent = tokio::time::timeout(TAKES, self.mail(letter)).await;
        let left =
            sent.map_err(|_elapsed| Error::unavailable("the mail server did not answer in time"))??;
        Ok(match left {
            0 => String::new(),
            left => {
                tracing::warn!(notice = letter.id, left, "a notice is not mailed to everybody");
                format!("{left} of the recipients are not mailed: refused, or too many")
            }
        })
    }

    async fn mail(&self, letter: &Letter) -> Result<usize> {
        let message = self.message(letter)?;
        let everybody = self.route.addresses(&letter.recipients);
        let (to, beyond) = everybody.split_at(everybody.len().min(RECIPIENTS));
        let mut connection = self.connect().await?;
        let refused = self.transact(&mut connection, to, &message).await;
        // It has what it needs; that it says goodbye as well is not needed.
        drop(connection.quit().await);
        Ok(refused?.saturating_add(beyond.len()))
    }

    /// The one transaction. Who is refused, for good or for now, keeps it from nobody else: it is
    /// taken where one of those takes it who get every notice, and tried again where none does.
    async fn transact(
        &self,
        connection: &mut AsyncSmtpConnection,
        to: &[Address],
        message: &[u8],
    ) -> Result<usize> {
        let mail = Mail::new(Some(self.route.from.clone()), vec![]);
        connection.command(mail).await.map_err(|e| said(&e))?;
        let copies = &self.route.copy_to;
        let (mut refused, mut taken) = (0_usize, false);
        for address in to {
            match connection.command(Rcpt::new(address.clone(), vec![])).await {
                Ok(_) => taken |= copies.contains(address) || copies.is_empty(),
                Err(error) if error.status().is_some() => refused = refused.saturating_add(1),
                Err(error) => return Err(said(&error)),
            }
        }
        if !taken {
            return Err(Error::unavailable("the mail server refuses whoever gets every notice"));
        }
        connection.command(Data).await.map_err(|e| said(&e))?;
        connection.message(message).await.map_err(|e| said(&e))?;
        Ok(refused)
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection> {
        let mut stream = self.wire.connect().await?;
        let peer = stream.peer().map_err(Error::internal)?;
        let stream: Box<dyn AsyncTokioStream> = match self.security {
            MailSecurity::Off => Box::new(Line { ahead: &[], peer, stream }),
            MailSecurity::Implicit => {
                Box::new(Line { ahead: &[], peer, stream: self.wire.secure(stream).await? })
            }
            MailSecurity::StartTls => {
                self.start_tls(&mut stream).await?;
                Box::new(Line { ahead: GREETED, peer, stream: self.wire.secure(stream).await? })
            }
        };
        let hello = ClientId::Domain(self.hello.clone());
        let connected = AsyncSmtpConnection::connect_with_transport(stream, &hello).await;
        let mut connection = connected.map_err(|e| said(&e))?;
        if let Some((user, password)) = &self.login {
            let password = std::str::from_utf8(password.expose());
            let password = password.map_err(|_binary| Error::internal("a password in no text"))?;
            let login = Credentials::new(user.clone(), password.to_owned());
            let logged_in = connection.auth(&[Mechanism::Plain, Mechanism::Login], &login).await;
            logged_in.map_err(|e| said(&e))?;
        }
        Ok(connection)
    }

    /// Asks for STARTTLS in the clear. What the server says there is believed in nothing else.
    async fn start_tls<S>(&self, stream: &mut S) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let lost = |_lost: io::Error| Error::unavailable("the mail server broke off");
        answer(stream, "220").await?;
        let hello = format!("EHLO {}\r\n", self.hello);
        stream.write_all(hello.as_bytes()).await.map_err(lost)?;
        let offers = answer(stream, "250").await?;
        let offered = offers.lines().any(|line| {
            line.get(4..).is_some_and(|word| word.trim().eq_ignore_ascii_case("STARTTLS"))
        });
        if !offered {
            return Err(Error::unavailable(
                "the mail server offers no STARTTLS, and nothing is said in the clear",
            ));
        }
        stream.write_all(b"STARTTLS\r\n").await.map_err(lost)?;
        answer(stream, "220").await.map(drop)
    }

    fn message(&self, letter: &Letter) -> Result<Vec<u8>> {
        let mut message = Message::builder().from(Mailbox::new(None, self.route.from.clone()));
        for address in &self.route.copy_to {
            message = message.to(Mailbox::new(None, address.clone()));
        }
        let at = u64::try_from(letter.at.0).map_err(Error::internal)?;
        let built = message
            .subject(&letter.subject)
            .message_id(Some(format!("<{}@{}>", letter.id, self.hello)))
            .date(UNIX_EPOCH + Duration::from_millis(at))
            .header(ContentType::TEXT_PLAIN)
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ))
            .body(letter.text.clone());
        built.map(|message| message.formatted()).map_err(Error::internal)
    }
}

impl MailRoute {
    /// Lists the addresses of whom a notice is for, each once; who has none is in `copy_to`.
    fn addresses(&self, recipients: &[Recipients]) -> Vec<Address> {
        let mut all = self.copy_to.clone();
        for some in recipients {
            match some.group.as_ref().and_then(|group| self.groups.get(group)) {
                Some(address) => all.push(address.clone()),
                None => all.extend(some.people.iter().filter_map(|name| self.address(name))),
            }
        }
        let mut seen = std::collections::HashSet::new();
        all.retain(|address| seen.insert(address.to_string()));
        all
    }

    fn address(&self, name: &str) -> Option<Address> {
        let listed = self.people.get(name).cloned();
        listed.or_else(|| Address::new(name, self.domain.as_deref()?).ok())
    }
}

/// What the server answered, as a number: what it says in words is its own.
fn said(error: &smtp::Error) -> Error {
    match error.status() {
        Some(code) => Error::unavailable(format!("the mail server answered {code}")),
        None => Error::unavailable("the mail server broke off, or says what is no SMTP"),
    }
}

/// Reads one answer, to its end and not a byte further: what follows in the clear was put there by
/// somebody else, and would be believed as if it came over TLS.
async fn answer<S: AsyncRead + Unpin>(stream: &mut S, expected: &str) -> Result<String> {
    let broken = |_lost| Error::unavailable("the mail server broke off");
    let (mut text, mut line) = (String::new(), Vec::new());
    while text.len() < CLEAR_BYTES {
        let byte = stream.read_u8().await.map_err(broken)?;
        line.push(byte);
        if line.len() > CLEAR_BYTES {
            break;
        }
        if byte == b'\n' {
            let said = String::from_utf8_lossy(&line).into_owned();
            if !said.starts_with(expected) {
                return Err(Error::unavailable("the mail server does not want to talk"));
            }
            let more = said.as_bytes().get(3) == Some(&b'-');
            text.push_str(&said);
            if !more {
                return Ok(text);
            }
            line.clear();
        }
    }
    Err(Error::unavailable("the mail server says too much"))
}

/// A connection, before which something was said.
#[derive(Debug)]
struct Line<S> {
    ahead: &'static [u8],
    peer: SocketAddr,
    stream: S,
}

impl<S> AsyncTokioStream for Line<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug,
{
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let (now, later) = self.ahead.split_at(self.ahead.len().min(buf.remaining()));
        buf.put_slice(now);
        self.ahead = later;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
