//! PostgreSQL, shared: lanes that group commits, a pool of readers. Every node is active.

mod lane;
mod value;

use std::str::FromStr as _;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, Postgres};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Executor, Row as _};
use url::Url;

use crate::store::{Row, StoreError, Value};

pub(super) use lane::{Lanes, start as start_lanes};

/// Longest that a view takes, with getting a connection for it.
pub(super) const VIEW: Duration = Duration::from_secs(10);
/// Longest that opening a connection takes, and getting one ready for the next view.
const CONNECT: Duration = Duration::from_secs(5);

/// An answer of the database, and whether the transaction is over.
pub(super) type Fault = (StoreError, bool);

/// How to reach the server.
#[derive(Clone)]
pub(super) struct Server {
    options: PgConnectOptions,
}

impl std::fmt::Debug for Server {
    /// Shows nothing: the options hold the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Server {
    /// Reads a `postgres://` URL.
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let unfit = || StoreError::Failed("the PostgreSQL URL does not parse".into());
        let mut url = Url::parse(url).map_err(|_url| unfit())?;
        let has_password = |(key, _): (_, _)| key == "password";
        // Where none is configured there is none: without a word here sqlx takes one from
        // `PGPASSWORD` or from `~/.pgpass`.
        if url.password().is_none() && !url.query_pairs().any(has_password) {
            url.query_pairs_mut().append_pair("password", "");
        }
        let options = PgConnectOptions::from_str(url.as_str())
            .map_err(|_url| unfit())?
            .application_name("strongroom")
            .disable_statement_logging();
        Ok(Self { options })
    }

    /// Opens one connection, refusing a server that loses what it acknowledged.
    pub(super) async fn connect(&self) -> Result<PgConnection, StoreError> {
        tokio::time::timeout(CONNECT, self.connect_and_check())
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("connecting took too long".into())))
    }

    async fn connect_and_check(&self) -> Result<PgConnection, StoreError> {
        let mut connection =
            PgConnection::connect_with(&self.options).await.map_err(|error| fault(&error).0)?;
        for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
            let rows = query(
                &mut connection,
                "SELECT setting FROM pg_settings WHERE name = $1",
                vec![Value::Text(setting.into())],
            )
            .await
            .map_err(|(error, _)| error)?;
            let value: String =
                rows.into_iter().next().ok_or(StoreError::Malformed)?.take::<String>()?;
            if value == "off" {
                return Err(StoreError::Failed(format!("the server runs with {setting} off")));
            }
        }
        Ok(connection)
    }

    /// A pool for views.
    pub(super) fn pool(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(CONNECT)
            .after_release(|connection, _| Box::pin(ended(connection)))
            .connect_lazy_with(self.options.clone())
    }
}

/// Begins a view: on one snapshot, unable to write, each statement bounded by the server too.
pub(super) async fn begin_view(pool: &PgPool) -> Result<PoolConnection<Postgres>, StoreError> {
    let mut connection = pool.acquire().await.map_err(|error| fault(&error).0)?;
    let begin =
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '8s'";
    execute(&mut connection, begin, vec![]).await.map_err(|(error, _)| error)?;
    Ok(connection)
}

/// Ends a view that came to its end or was given up; a connection that does not answer is closed.
async fn ended(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    match tokio::time::timeout(CONNECT, connection.execute("ROLLBACK")).await {
        Ok(done) => done.map(|_| true),
        Err(_elapsed) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// Runs a statement. Boxed, as what any future is: the compiler would look through the driver wherever
/// a statement is run.
pub(super) fn execute<'a>(
    connection: &'a mut PgConnection,
    sql: &'a str,
    params: Vec<Value>,
) -> BoxFuture<'a, Result<u64, Fault>> {
    execute_now(connection, sql, params).boxed()
}

async fn execute_now(
    connection: &mut PgConnection,
    sql: &str,
    params: Vec<Value>,
) -> Result<u64, Fault> {
    if params.is_empty() {
        let done = connection.execute(AssertSqlSafe(sql.to_owned())).await;
        return done.map(|done| done.rows_affected()).map_err(|error| fault(&error));
    }
    let mut statement = sqlx::query(AssertSqlSafe(sql.to_owned()));
    for param in params {
        statement = statement.bind(param);
    }
    let done = statement.execute(connection).await;
    done.map(|done| done.rows_affected()).map_err(|error| fault(&error))
}

/// Runs a query; boxed as [`execute`] is.
pub(super) fn query<'a>(
    connection: &'a mut PgConnection,
    sql: &'a str,
    params: Vec<Value>,
) -> BoxFuture<'a, Result<Vec<Row>, Fault>> {
    query_now(connection, sql, params).boxed()
}

async fn query_now(
    connection: &mut PgConnection,
    sql: &str,
    params: Vec<Value>,
) -> Result<Vec<Row>, Fault> {
    let mut statement = sqlx::query(AssertSqlSafe(sql.to_owned()));
    for param in params {
        statement = statement.bind(param);
    }
    let rows = statement.fetch_all(connection).await.map_err(|error| fault(&error))?;
    rows.iter()
        .map(|row| {
            (0..row.len())
                .map(|column| row.try_get::<Value, _>(column))
                .collect::<Result<Vec<_>, _>>()
                .map(Row::new)
                .map_err(|error| fault(&error))
        })
        .collect()
}

/// Reads an error: what it means, and whether the transaction may go on after `ROLLBACK TO`.
pub(super) fn fault(error: &sqlx::Error) -> Fault {
    let Some(database) = error.as_database_error() else {
        if matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) {
            return (StoreError::Malformed, false);
        }
        // Without an answer from the server nothing is known of the connection.
        return (StoreError::Unavailable(error.to_string()), true);
    };
    match database.code().as_deref() {
        Some("23505") => (StoreError::Taken, false),
        Some("40001" | "40P01") => (StoreError::Again, true),
        Some("53100") => (StoreError::Full, true),
        Some("25006") => (StoreError::ReadOnly, true),
        // A lock or a statement that took too long: the transaction may go on without it.
        Some("55P03" | "57014") => (StoreError::Unavailable(database.message().to_owned()), false),
        Some(code)
            if code.starts_with("57P")
                || code.starts_with("08")
                || matches!(code, "53200" | "53300") =>
        {
            (StoreError::Unavailable(database.message().to_owned()), true)
        }
        Some(_) | None => (StoreError::Failed(database.message().to_owned()), false),
    }
}
