//! Connections to one target: bounded, opened when needed, closed when idle, and thrown away after
//! any failure that leaves their state in doubt.
//!
//! Not the driver's own pool, which asks a connection for a sign of life each time that it comes
//! back: a round trip for every credential, when what follows a failure is thrown away anyway.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::connection::ConnectionDefinition;
use crate::engines::database::target::{Outage, Result, TargetError};
use crate::types::SecretBytes;

/// For a connection, TLS and login included, and for a place in the pool.
const CONNECT: Duration = Duration::from_secs(5);
/// A little longer than the target's own limit on a statement, whose error says more.
const ANSWER: Duration = Duration::from_secs(35);
const IDLE: Duration = Duration::from_mins(1);
const LIFETIME: Duration = Duration::from_mins(30);
/// Connections that rested longer are asked for a sign of life before use.
const FRESH: Duration = Duration::from_secs(1);

/// What is being done, for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Login,
    Look,
    Check,
    Create,
    Extend,
    Disable,
    Join,
    Terminate,
    Dispose,
    Drop,
}

impl Step {
    const fn phrase(self) -> &'static str {
        match self {
            Self::Login => "let the management account in",
            Self::Look => "show its catalogue",
            Self::Check => "try the role out",
            Self::Create => "create the role",
            Self::Extend => "extend the role",
            Self::Disable => "end logins of the role",
            Self::Join => "let the management account act for the role",
            Self::Terminate => "end sessions of the role",
            Self::Dispose => "dispose of what the role owns",
            Self::Drop => "drop the role",
        }
    }
}

/// The connections of one target.
pub(super) struct Pool {
    options: PgConnectOptions,
    most: u32,
    places: Arc<Semaphore>,
    resting: Arc<Resting>,
}

/// Connections that nobody uses, the one used last at the end.
#[derive(Debug, Default)]
struct Resting(Mutex<Vec<Rested>>);

#[derive(Debug)]
struct Rested {
    connection: PgConnection,
    opened: Instant,
    since: Instant,
}

impl Resting {
    /// Takes the one that was used last; one that lived long enough is closed instead.
    fn take(&self) -> Option<Rested> {
        let mut resting = self.0.lock();
        while let Some(rested) = resting.pop() {
            if rested.opened.elapsed() < LIFETIME {
                return Some(rested);
            }
        }
        None
    }

    /// Closes what rested long enough, until the pool is gone.
    async fn tidy(resting: Weak<Self>) {
        loop {
            tokio::time::sleep(IDLE / 4).await;
            let Some(resting) = resting.upgrade() else { return };
            resting.0.lock().retain(|rested| rested.since.elapsed() < IDLE);
        }
    }
}

impl Pool {
    pub(super) fn new(definition: &ConnectionDefinition, password: &SecretBytes) -> Result<Self> {
        let options = definition.options(password)?;
        let most = definition.max_connections;
        let places = usize::try_from(most).map_err(|_small| TargetError::Internal)?;
        let resting = Arc::new(Resting::default());
        #[expect(clippy::disallowed_methods, reason = "it ends with the pool and does no work")]
        drop(tokio::spawn(Resting::tidy(Arc::downgrade(&resting))));
        Ok(Self { options, most, places: Arc::new(Semaphore::new(places)), resting })
    }

    /// Closes every connection, waiting for the calls under way.
    pub(super) async fn close(&self) {
        // None is in use once every place is ours; nobody gets one again.
        let all = Arc::clone(&self.places).acquire_many_owned(self.most).await;
        self.places.close();
        let resting = std::mem::take(&mut *self.resting.0.lock());
        for rested in resting {
            // The other side may have hung up already.
            drop(timeout(CONNECT, rested.connection.close()).await);
        }
        drop(all);
    }

    /// Names the database that the connections of the pool are in.
    pub(super) fn database(&self) -> &str {
        self.options.get_database().unwrap_or_default()
    }

    /// Takes a connection, or opens one.
    pub(super) async fn acquire(&self) -> Result<Session> {
        let place = timeout(CONNECT, Arc::clone(&self.places).acquire_owned())
            .await
            .map_err(|_elapsed| TargetError::Unreachable(Outage::Busy))?
            .map_err(|_closed| TargetError::Unreachable(Outage::NoConnection))?;
        while let Some(rested) = self.resting.take() {
            let is_fresh = rested.since.elapsed() <= FRESH;
            let mut session = Session::of(rested.connection, rested.opened, Some(self.home()));
            if is_fresh || session.ping().await.is_ok() {
                session.place = Some(place);
                return Ok(session);
            }
        }
        let connection = self.open(&self.options).await?;
        let mut session = Session::of(connection, Instant::now(), Some(self.home()));
        session.place = Some(place);
        Ok(session)
    }

    fn home(&self) -> Arc<Resting> {
        Arc::clone(&self.resting)
    }

    async fn open(&self, options: &PgConnectOptions) -> Result<PgConnection> {
        timeout(CONNECT, options.connect())
            .await
            .map_err(|_elapsed| TargetError::Unreachable(Outage::NoConnection))?
            .map_err(|error| fault(Step::Login, &error))
    }

    /// Takes a connection that just gave a sign of life.
    pub(super) async fn acquire_checked(&self) -> Result<Session> {
        for _ in 0..=self.most {
            let mut session = self.acquire().await?;
            if session.ping().await.is_ok() {
                return Ok(session);
            }
        }
        Err(TargetError::Unreachable(Outage::Lost))
    }

    /// Opens a connection to another database of the cluster, outside the pool.
    pub(super) async fn enter(&self, database: &str) -> Result<Session> {
        let connection = self.open(&self.options.clone().database(database)).await?;
        Ok(Session::of(connection, Instant::now(), None))
    }
}

impl fmt::Debug for Pool {
    /// Shows the address alone: the driver's options print the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = (self.options.get_host(), self.options.get_port(), self.database());
        f.debug_struct("Pool").field("address", &address).finish_non_exhaustive()
    }
}

/// One connection in use. Dropped in the middle of anything, it is closed, not used again.
#[derive(Debug)]
pub(super) struct Session {
    /// There until it is dropped.
    connection: Option<PgConnection>,
    opened: Instant,
    /// Where it rests afterwards.
    home: Option<Arc<Resting>>,
    place: Option<OwnedSemaphorePermit>,
    sound: bool,
}

impl Session {
    const fn of(connection: PgConnection, opened: Instant, home: Option<Arc<Resting>>) -> Self {
        Self { connection: Some(connection), opened, home, place: None, sound: true }
    }

    /// Runs a text of one or more statements as one simple query: without an explicit `BEGIN` it
    /// is one round trip and one transaction.
    pub(super) async fn execute(&mut self, step: Step, text: &str) -> Result<()> {
        self.sound = false;
        let statements = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
        let outcome = timeout(ANSWER, self.connection()?.execute(statements)).await;
        self.settle(step, outcome).map(drop)
    }

    /// Asks for rows of text, with parameters bound as text.
    pub(super) async fn rows(
        &mut self,
        step: Step,
        text: &'static str,
        values: &[&str],
    ) -> Result<Vec<Vec<String>>> {
        self.sound = false;
        let mut query = sqlx::query(text);
        for value in values {
            query = query.bind((*value).to_owned());
        }
        let outcome = timeout(ANSWER, self.connection()?.fetch_all(query)).await;
        self.settle(step, outcome)?.iter().map(texts).collect()
    }

    /// Runs a text after which the connection must not be used again unless all went well, such
    /// as the parts of an explicit transaction. Answers what the target said.
    pub(super) async fn attempt(&mut self, text: &str) -> Result<(), Attempt> {
        self.sound = false;
        let statements = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
        let connection = self.connection().map_err(Attempt::Failed)?;
        match timeout(ANSWER, connection.execute(statements)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(match (fault(Step::Check, &error), error.as_database_error()) {
                (TargetError::Refused { sqlstate, .. }, Some(said)) => {
                    Attempt::Refused { sqlstate, said: said.message().to_owned() }
                }
                (fault, _) => Attempt::Failed(fault),
            }),
            Err(_elapsed) => Err(Attempt::Failed(TargetError::Unreachable(Outage::Silent))),
        }
    }

    /// Says that an explicit transaction came to its end and the connection is as new.
    pub(super) fn sound(&mut self) {
        self.sound = true;
    }

    async fn ping(&mut self) -> Result<()> {
        self.sound = false;
        let outcome = timeout(CONNECT, self.connection()?.ping()).await;
        self.settle(Step::Login, outcome)
    }

    fn connection(&mut self) -> Result<&mut PgConnection> {
        self.connection.as_mut().ok_or(TargetError::Internal)
    }

    fn settle<T>(
        &mut self,
        step: Step,
        outcome: Result<sqlx::Result<T>, tokio::time::error::Elapsed>,
    ) -> Result<T> {
        match outcome {
            Ok(Ok(value)) => {
                self.sound = true;
                Ok(value)
            }
            Ok(Err(error)) => {
                let fault = fault(step, &error);
                // The target refused and rolled back: the connection itself is well.
                self.sound = matches!(fault, TargetError::Refused { .. });
                Err(fault)
            }
            Err(_elapsed) => Err(TargetError::Unreachable(Outage::Silent)),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It rests before its place is free for others.
        if let (Some(connection), Some(home), true) =
            (self.connection.take(), &self.home, self.sound)
        {
            let rested = Rested { connection, opened: self.opened, since: Instant::now() };
            home.0.lock().push(rested);
        }
    }
}

/// How a statement on trial failed.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The target refused it.
    Refused { sqlstate: String, said: String },
    /// It was not decided.
    Failed(TargetError),
}

fn texts(row: &PgRow) -> Result<Vec<String>> {
    (0..row.len())
        .map(|i| {
            let text = row.try_get::<Option<String>, _>(i);
            text.map(Option::unwrap_or_default).map_err(|_no_text| TargetError::Internal)
        })
        .collect()
}

/// Logs why a handshake failed: an operator cannot mend a certificate without knowing what is wrong.
fn untrusted(cause: &dyn fmt::Display) -> TargetError {
    tracing::warn!(%cause, "the TLS handshake with a target failed");
    TargetError::Unreachable(Outage::Tls)
}

/// Sorts the driver's errors by what the caller does next; the cause goes to the log without the
/// statement.
fn fault(step: Step, error: &sqlx::Error) -> TargetError {
    let broken = if step == Step::Login { Outage::NoConnection } else { Outage::Lost };
    if let Some(refusal) = error.as_database_error() {
        let sqlstate = refusal.code().unwrap_or_default().into_owned();
        // Shutting down, crashed, starting, too many connections, connection failures.
        let passing = ["57P01", "57P02", "57P03", "53300"].contains(&sqlstate.as_str())
            || sqlstate.starts_with("08");
        return if passing {
            TargetError::Unreachable(broken)
        } else {
            TargetError::Refused { step: step.phrase(), sqlstate }
        };
    }
    if let sqlx::Error::Io(cause) = error {
        // A failed handshake comes as invalid data, from rustls through the socket.
        let handshake = step == Step::Login && cause.kind() == std::io::ErrorKind::InvalidData;
        return if handshake { untrusted(cause) } else { TargetError::Unreachable(broken) };
    }
    if let sqlx::Error::Tls(cause) = error {
        return untrusted(cause);
    }
    if matches!(error, sqlx::Error::Protocol(_)) {
        return TargetError::Unreachable(broken);
    }
    tracing::error!(step = step.phrase(), %error, "a target answered what nobody expected");
    TargetError::Internal
}
