//! Notices by mail, to a mail server that is not ours.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use lettre::Address;
use parking_lot::Mutex;
use strongroom::engines::notices::{MailRoute, MailSecurity, MailSink};
use tempfile::TempDir;

use super::*;
use crate::support::receiver::Authority;

const PASSWORD: &str = "the mail password";

/// A mail server, and what it took.
struct MailServer {
    port: u16,
    took: Arc<Mutex<Vec<Value>>>,
    child: Child,
    authority: Authority,
    _dir: TempDir,
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl MailServer {
    fn new(mode: &str) -> Self {
        let (dir, authority) = (TempDir::new().unwrap(), Authority::new(&["127.0.0.1"]));
        let [certificate, key] = ["crt", "key"].map(|name| dir.path().join(name));
        std::fs::write(&certificate, &authority.certificate).unwrap();
        std::fs::write(&key, &authority.key).unwrap();
        let mut child = Command::new("/usr/bin/python3")
            .args(["-W", "ignore", "tests/it/support/mail_server.py", mode])
            .args([certificate, key])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut says = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        says.read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("make deps installs python3-aiosmtpd");
        let took = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&took);
        std::thread::spawn(move || listen(says, &kept));
        Self { port, took, child, authority, _dir: dir }
    }

    fn sink(&self, security: MailSecurity, route: MailRoute) -> Sink {
        let roots = Roots::Own(self.authority.ca.clone().into_bytes());
        let wire = Wire::new("127.0.0.1", self.port, true, &roots).unwrap();
        let mail = MailSink::new(wire, security, route);
        let password = SecretBytes::new(PASSWORD.as_bytes().to_vec());
        sink(
            "mail",
            Way::Mail(match security {
                MailSecurity::Off => mail,
                MailSecurity::StartTls | MailSecurity::Implicit => {
                    mail.with_login("vault".to_owned(), password).unwrap()
                }
            }),
        )
    }

    /// Waits for mail with some text in it.
    async fn waits_for(&self, text: &str) -> Value {
        let find = || {
            let has = |mail: &&Value| mail["message"].as_str().unwrap().contains(text);
            self.took.lock().iter().find(has).cloned()
        };
        until(text, async || find().is_some()).await;
        find().unwrap()
    }
}

fn listen(says: BufReader<ChildStdout>, kept: &Mutex<Vec<Value>>) {
    for line in says.lines() {
        let Ok(line) = line else { return };
        kept.lock().push(serde_json::from_str(&line).unwrap());
    }
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn route() -> MailRoute {
    MailRoute {
        from: address("vault@vault.test"),
        copy_to: vec![address("soc@vault.test")],
        domain: Some("vault.test".to_owned()),
        people: BTreeMap::from([("erin".to_owned(), address("e.r@people.test"))]),
        groups: BTreeMap::new(),
    }
}

fn sorted(to: &Value) -> Vec<String> {
    let mut all: Vec<_> =
        to.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_to_whom_it_is_for_over_tls_and_after_a_login() {
    for (mode, security, backend) in [
        ("starttls", MailSecurity::StartTls, Backend::Sqlite),
        ("implicit", MailSecurity::Implicit, Backend::Postgres),
        ("plain", MailSecurity::Off, Backend::Sqlite),
    ] {
        let server = MailServer::new(mode);
        let f = told(Fixture::on(backend).await, vec![server.sink(security, route())]).await;
        let s = Stage::of(f).await;
        let asked = s.asked().await;
        let mail = server.waits_for("asks for db-admin").await;
        assert_eq!(sorted(&mail["to"]), ["dave@vault.test", "e.r@people.test", "soc@vault.test"]);
        assert_eq!(mail["from"], "vault@vault.test");
        let secure = mode != "plain";
        assert_eq!(mail["tls"], mode == "starttls", "{mode}");
        assert_eq!(mail["user"], if secure { "vault".into() } else { Value::Null });
        let message = mail["message"].as_str().unwrap();
        for line in [
            "From: vault@vault.test",
            "To: soc@vault.test",
            "Auto-Submitted: auto-generated",
            "Subject: [vault.test] carol asks for db-admin: your approval is wanted",
            "Message-ID: <ntc_2_",
        ] {
            assert!(message.contains(line), "{line}\n{message}");
        }
        assert!(message.contains(&format!("strongroom elevate show {}", asked.id)), "{message}");
        assert!(!message.contains(PASSWORD));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_an_address_gets_one_mail_and_who_is_refused_keeps_it_from_nobody() {
    let server = MailServer::new("starttls");
    let mut route = route();
    route.groups.insert("security".to_owned(), address("all@security.test"));
    route.people.insert("carol".to_owned(), address("carol@refused.test"));
    let sinks = vec![server.sink(MailSecurity::StartTls, route)];
    let s = Stage::of(told(Fixture::new().await, sinks).await).await;
    s.approved().await;
    let asked = server.waits_for("asks for db-admin").await;
    assert_eq!(sorted(&asked["to"]), ["all@security.test", "soc@vault.test"]);
    let approved = server.waits_for("for carol is approved").await;
    assert_eq!(sorted(&approved["to"]), ["soc@vault.test"]);
    settled(&s.f).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_is_full_withholds_nothing_from_the_others() {
    for backend in BACKENDS {
        let server = MailServer::new("starttls");
        let mut route = route();
        route.people.insert("dave".to_owned(), address("dave@later.test"));
        route.copy_to.push(address("gone@refused.test"));
        let sinks = vec![server.sink(MailSecurity::StartTls, route)];
        let s = Stage::of(told(Fixture::on(backend).await, sinks).await).await;
        s.asked().await;
        let asked = server.waits_for("asks for db-admin").await;
        assert_eq!(sorted(&asked["to"]), ["e.r@people.test", "soc@vault.test"]);
        settled(&s.f).await;
        assert_eq!(number(&s.f, "SELECT given_up FROM notice_sinks").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_who_gets_every_notice_is_tried_again() {
    for backend in BACKENDS {
        let server = MailServer::new("starttls");
        let copy_to = vec![address("soc@later.test"), address("soc@refused.test")];
        let route = MailRoute { copy_to, ..route() };
        let sinks = vec![server.sink(MailSecurity::StartTls, route)];
        let s = Stage::of(told(Fixture::on(backend).await, sinks).await).await;
        let tried = "SELECT COUNT(*) FROM notice_sinks WHERE tries > 1 \
                     AND trouble LIKE '%refuses whoever gets every notice%'";
        until("it is tried again", async || {
            s.f.clock.advance(Duration::from_secs(1));
            number(&s.f, tried).await == 1
        })
        .await;
        assert!(server.took.lock().is_empty(), "nobody else gets it each time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_to_a_mail_server_without_starttls_or_with_another_certificate() {
    let stripped = MailServer::new("plain");
    let other = MailServer::new("starttls");
    let wrong = {
        let roots = Roots::Own(stripped.authority.ca.clone().into_bytes());
        let wire = Wire::new("127.0.0.1", other.port, true, &roots).unwrap();
        MailSink::new(wire, MailSecurity::StartTls, route())
    };
    let sinks =
        vec![stripped.sink(MailSecurity::StartTls, route()), sink("wrong", Way::Mail(wrong))];
    let s = Stage::of(told(Fixture::new().await, sinks).await).await;
    s.asked().await;
    let tried = "SELECT COUNT(*) FROM notice_sinks WHERE tries > 1";
    until("both are tried", async || {
        s.f.clock.advance(Duration::from_secs(1));
        number(&s.f, tried).await == 2
    })
    .await;
    assert!(stripped.took.lock().is_empty() && other.took.lock().is_empty());
    let why = "SELECT COUNT(*) FROM notice_sinks WHERE trouble LIKE '%offers no STARTTLS%' \
               OR trouble LIKE '%is not who it should be%'";
    assert_eq!(number(&s.f, why).await, 2);
}

/// Speaks in the clear as it is told, and keeps what comes.
async fn liar(lines: Vec<String>) -> (u16, Arc<Mutex<String>>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&heard);
    tokio::task::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            for line in &lines {
                let mut bytes = [0; 4_096];
                drop(stream.write_all(line.as_bytes()).await);
                let read = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut bytes));
                let read = read.await.map_or(0, Result::unwrap_or_default);
                kept.lock().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        }
    });
    (port, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_in_the_clear_after_starttls_is_no_answer_to_what_comes_later() {
    // All that a delivery hears from a server, at once with the word to begin TLS.
    let lines = [
        "220 mail.test\r\n",
        "250-mail.test\r\n250 STARTTLS\r\n",
        "220 go on\r\n250 mail.test\r\n250 OK\r\n250 OK\r\n354 go on\r\n250 taken\r\n221 bye\r\n",
        "",
    ];
    let (port, heard) = liar(lines.map(str::to_owned).to_vec()).await;
    let (endless, _) = liar(vec!["220-and\r\n".repeat(4_000)]).await;
    let to = |name: &str, port| {
        let wire = Wire::new("127.0.0.1", port, true, &Roots::Public).unwrap();
        sink(name, Way::Mail(MailSink::new(wire, MailSecurity::StartTls, route())))
    };
    let sinks = vec![to("mail", port), to("endless", endless)];
    let s = Stage::of(told(Fixture::new().await, sinks).await).await;
    s.asked().await;
    let tried = "SELECT COUNT(*) FROM notice_sinks WHERE tries > 0";
    until("both are tried in vain", async || number(&s.f, tried).await == 2).await;
    let why = "SELECT COUNT(*) FROM notice_sinks WHERE trouble LIKE '%says too much%'";
    assert_eq!(number(&s.f, why).await, 1);
    let heard = heard.lock().clone();
    assert!(heard.contains("STARTTLS\r\n") && !heard.contains("db-admin"), "{heard}");
    assert!(!heard.contains("MAIL FROM") && !heard.contains("Subject"), "{heard}");
}
