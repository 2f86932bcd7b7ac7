//! Notices of elevations, at real sockets: told to whom it concerns, in order, until they are taken.

mod faults;
mod forged;
mod kinds;
mod mail;
mod webhook;

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use strongroom::engines::notices::{
    Channel as Way, Roots, Sink, Templates, WebhookKey, WebhookSink, Wire,
};
use strongroom::store::Location;
use strongroom::types::SecretBytes;

use super::*;
use crate::support::receiver::{Answer, Receiver};
use crate::support::target::until;

/// The key of these tests, as its file holds it.
const KEY: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn key() -> WebhookKey {
    WebhookKey::parse(&SecretBytes::new(KEY.as_bytes().to_vec())).unwrap()
}

fn sink(name: &str, channel: Way) -> Sink {
    Sink {
        name: name.parse().unwrap(),
        channel,
        templates: Templates::new(&BTreeMap::new(), &BTreeMap::new()).unwrap(),
        give_up_after: Duration::from_hours(72),
    }
}

/// A sink that posts to a port of this machine, without TLS.
pub(crate) fn posts_to(receiver: &Receiver) -> Sink {
    let wire = Wire::new("127.0.0.1", receiver.address.port(), false, &Roots::Public).unwrap();
    sink("webhook", Way::Webhook(WebhookSink::new(wire, false, "/in?a=b".to_owned(), key())))
}

/// A vault with sinks, which have begun.
pub(crate) async fn told(mut f: Fixture, sinks: Vec<Sink>) -> Fixture {
    f.parts.sinks = sinks;
    f.restart().await;
    for one in &f.parts.sinks {
        let sql = format!("SELECT COUNT(*) FROM notice_sinks WHERE id = '{}'", one.name);
        until("the sink begins", async || number(&f, &sql).await == 1).await;
    }
    f
}

/// Looks a number up in the store, by hand.
async fn number(f: &Fixture, sql: &str) -> i64 {
    match &f.parts.location {
        Location::Sqlite { path, .. } => {
            let store = rusqlite::Connection::open(path).unwrap();
            store.busy_timeout(Duration::from_secs(10)).unwrap();
            store.query_row(sql, [], |row| row.get(0)).unwrap()
        }
        Location::Postgres { url, .. } => {
            use sqlx::{Connection as _, Row as _};
            let mut store = sqlx::PgConnection::connect(url).await.unwrap();
            sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()))
                .fetch_one(&mut store)
                .await
                .unwrap()
                .get(0)
        }
    }
}

/// Waits until a sink has got everything that there is.
async fn settled(f: &Fixture) {
    let waiting = "SELECT COUNT(*) FROM notice_sinks s, notice_heads h WHERE s.position < h.last";
    until("everything is delivered", async || {
        // Pauses between tries are of the vault's clock.
        f.clock.advance(Duration::from_secs(30));
        number(f, waiting).await == 0
    })
    .await;
}

/// Those that a notice names, in order, each as `group:person`.
pub(crate) fn people(notice: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for some in notice["recipients"].as_array().unwrap() {
        let group = some["group"].as_str().unwrap_or_default();
        for name in some["people"].as_array().unwrap() {
            all.push(format!("{group}:{}", name.as_str().unwrap()));
        }
    }
    all
}

/// Runs what the page shows to receivers, with an independent HMAC; its answer.
fn verifies(delivery: &crate::support::receiver::Delivery, secret: &str) -> bool {
    let page = std::fs::read_to_string("docs/notices.md").unwrap();
    let shown = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let text = |name: &str| delivery.headers[name].clone();
    let call = format!(
        "{shown}\nimport sys\nheaders = dict(zip(['webhook-id', 'webhook-timestamp', \
         'webhook-signature'], sys.argv[2:]))\nverify(sys.argv[1], headers, \
         base64.b64decode(sys.stdin.read()), now=int(sys.argv[3]))\n"
    );
    let mut run = std::process::Command::new("/usr/bin/python3")
        .args(["-c", &call, secret])
        .args([text("webhook-id"), text("webhook-timestamp"), text("webhook-signature")])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let body = STANDARD.encode(&delivery.body);
    std::io::Write::write_all(run.stdin.as_mut().unwrap(), body.as_bytes()).unwrap();
    run.wait().unwrap().success()
}
