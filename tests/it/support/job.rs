//! The main job with the real program: an administrator, a pipeline, a target database.

use serde_json::Value;

use super::postgres::Postgres;
use super::program::{Installation, Person, Running};
use super::target::{ACCOUNT_PASSWORD, prepare};

/// A served installation whose pipeline `etl` may have credentials for `analytics/reader`.
pub(crate) struct Job {
    pub(crate) real: Installation,
    pub(crate) server: Option<Running>,
    pub(crate) alice: Person,
    pub(crate) etl: Person,
    /// Ends the names of the account, group and owner on the target.
    pub(crate) tag: String,
}

impl Job {
    /// Founds, serves and configures; the target is reached at some port.
    pub(crate) async fn new(real: Installation, port: u16) -> Self {
        let tag = prepare(Postgres::shared()).await;
        assert!(real.init().status.success());
        let server = real.serve();
        let alice = real.register(&server, &real.bootstrap(), "alice");
        let password = real.dir.path().join("account");
        std::fs::write(&password, ACCOUNT_PASSWORD).unwrap();
        for line in [
            format!(
                "db connect analytics --host 127.0.0.1 --port {port} --database t_{tag} \
                 --username account_{tag} --password-file {} --tls off",
                password.display()
            ),
            format!(
                "db role put analytics/reader --member-of reader_{tag} --owner-role owner_{tag} \
                 --ttl 10m"
            ),
            "identity create etl --kind pipeline --owner alice --purpose test --tier low \
             --expires 30d"
                .to_owned(),
            "grant add etl --action database.credentials --resource database/analytics/reader"
                .to_owned(),
        ] {
            real.ask(&server, &alice, &line);
        }
        let etl = real.sign(&server, &alice, "etl");
        Self { real, server: Some(server), alice, etl, tag }
    }

    /// The running server.
    pub(crate) fn server(&self) -> &Running {
        self.server.as_ref().unwrap()
    }

    /// Waits until the server has ended, in good order, and starts it again.
    pub(crate) fn starts_again(&mut self) {
        assert_eq!(self.server.take().unwrap().ended(), Some(0));
        self.server = Some(self.real.serve());
    }

    /// Roles on the target that read through the group.
    pub(crate) async fn roles(&self) -> usize {
        let sql = format!(
            "SELECT count(*)::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid \
             JOIN pg_roles r ON r.oid = m.member \
             WHERE g.rolname = 'reader_{}' AND starts_with(r.rolname, 'sr_')",
            self.tag
        );
        Postgres::shared().ask("postgres", &sql).await.unwrap().parse().unwrap()
    }

    /// The states of every lease.
    pub(crate) fn lease_states(&self) -> Vec<String> {
        let listed = self.real.ask(self.server(), &self.alice, "lease list --all --output json");
        let leases: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
        leases.iter().map(|lease| lease["state"].as_str().unwrap().to_owned()).collect()
    }
}
