//! The program in a job: it finds the token, keeps one session, and hides it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::*;
use crate::support::postgres::Postgres;
use crate::support::program::{Running, as_admin, dev, program, text};
use crate::support::target::{ACCOUNT_PASSWORD, prepare};

/// A vault of the program, an issuer, and a job that a rule logs in.
struct Job {
    dir: tempfile::TempDir,
    server: Running,
    issuer: Issuer,
}

impl Job {
    fn new(preset: &str, claims: &str) -> Self {
        let (dir, issuer) = (tempfile::tempdir().unwrap(), Issuer::new());
        let server = dev(dir.path());
        let ca = dir.path().join("issuer-ca.pem");
        std::fs::write(&ca, &issuer.ca).unwrap();
        let job = Self { dir, server, issuer };
        job.admin("identity create etl --kind pipeline --owner admin --purpose test --tier low");
        job.admin(&format!(
            "issuer add ci --preset {preset} --url {} --audience {AUDIENCE} --ca-file {} --private",
            job.issuer.url(),
            ca.display()
        ));
        job.admin(&format!("issuer rule add ci --identity etl --yes {claims}"));
        job
    }

    fn admin(&self, line: &str) -> String {
        let done = as_admin(&self.server, line);
        assert!(done.status.success(), "{line}: {}", text(&done.stderr));
        text(&done.stdout)
    }

    fn session(&self) -> PathBuf {
        self.dir.path().join("session")
    }

    fn command(&self, line: &str) -> Command {
        let mut command = program();
        command
            .args(line.split(' '))
            .env("STRONGROOM_ADDR", self.server.said("grpc_addr"))
            .env("STRONGROOM_CACERT", self.server.said("ca_file"))
            .env("STRONGROOM_SESSION_FILE", self.session());
        command
    }

    fn run(&self, line: &str, variables: &[(&str, &str)]) -> Output {
        self.command(line).envs(variables.iter().copied()).output().unwrap()
    }

    /// Claims as of now.
    fn claims(&self, jti: &str, more: Value) -> Value {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        self.issuer.claims_at(i64::try_from(now.as_secs()).unwrap(), jti, more)
    }
}

#[test]
fn a_job_on_gitlab_logs_in_with_its_variable_and_other_commands_use_the_session() {
    let job = Job::new("gitlab", "--claim project_id=22 --claim namespace_id=72");
    let token = job.issuer.mint(&job.claims("1", gitlab()));
    let none = job.run("login --gitlab --identity etl", &[]);
    assert_eq!(none.status.code(), Some(2), "{}", text(&none.stderr));
    let done = job.run("login --gitlab --identity etl", &[("STRONGROOM_ID_TOKEN", &token)]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let mode = std::fs::metadata(job.session()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let kept = std::fs::read_to_string(job.session()).unwrap();
    let printed = text(&done.stdout) + &text(&done.stderr);
    let bearer = kept.lines().next().unwrap();
    assert!(bearer.starts_with("srt_") && !printed.contains(bearer));
    let mut homeless = job.command("login --gitlab --identity etl");
    for variable in ["STRONGROOM_SESSION_FILE", "RUNNER_TEMP", "HOME"] {
        homeless.env_remove(variable);
    }
    let unkept = homeless.env("STRONGROOM_ID_TOKEN", "any").output().unwrap();
    assert_eq!(unkept.status.code(), Some(2), "{}", text(&unkept.stderr));
    assert!(text(&unkept.stderr).contains("nowhere to keep"), "{}", text(&unkept.stderr));
    // Before the token is used up for it.
    let lost = job.dir.path().join("nowhere/session").display().to_string();
    let lost = [("STRONGROOM_ID_TOKEN", "any"), ("STRONGROOM_SESSION_FILE", lost.as_str())];
    let unkept = job.run("login --gitlab --identity etl", &lost);
    assert_eq!(unkept.status.code(), Some(2), "{}", text(&unkept.stderr));
    assert!(text(&unkept.stderr).contains("is in no directory"), "{}", text(&unkept.stderr));
    let elsewhere = job.run("whoami --addr https://127.0.0.1:1", &[]);
    assert_eq!(elsewhere.status.code(), Some(2), "no other vault is shown it");
    assert!(text(&elsewhere.stderr).contains("and not of https://127.0.0.1:1"));
    let who = job.run("whoami", &[]);
    assert!(text(&who.stdout).contains("etl"), "{}", text(&who.stderr));
    let again = job.run("login --gitlab --identity etl", &[("STRONGROOM_ID_TOKEN", &token)]);
    assert_eq!(again.status.code(), Some(3), "it was used: {}", text(&again.stderr));
    assert_eq!(std::fs::read_to_string(job.session()).unwrap(), kept, "the session stays");
}

#[test]
fn a_job_on_github_asks_its_runner_and_hides_the_session_in_the_log() {
    let claims = "--claim repository_id=70001 --claim repository_owner_id=501 \
                  --claim event_name=push --claim ref=refs/heads/main";
    let job = Job::new("github", &claims.split_whitespace().collect::<Vec<_>>().join(" "));
    let token = job.issuer.mint(&job.claims("1", github()));
    let path = format!("/token?api-version=2.0&audience={AUDIENCE}");
    job.issuer.serve(&path, 200, &json!({"value": token}).to_string(), &json!({}));
    let url = format!("{}/token?api-version=2.0", job.issuer.url());
    let ca = job.dir.path().join("issuer-ca.pem");
    let line = format!(
        "login --github --identity etl --audience {AUDIENCE} --issuer-cacert {}",
        ca.display()
    );
    let done = job.run(
        &line,
        &[
            ("GITHUB_ACTIONS", "true"),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", &url),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "the runner's"),
        ],
    );
    assert!(done.status.success(), "{}", text(&done.stderr));
    let kept = std::fs::read_to_string(job.session()).unwrap();
    let (stdout, stderr) = (text(&done.stdout), text(&done.stderr));
    let bearer = kept.lines().next().unwrap();
    assert!(stderr.contains(&format!("::add-mask::{bearer}\n")), "{stderr}");
    assert!(stdout.is_empty(), "that is for scripts: {stdout}");
    let none = job.run(&line, &[("GITHUB_ACTIONS", "true")]);
    assert!(text(&none.stderr).contains("id-token: write"), "{}", text(&none.stderr));
}

#[test]
fn a_pod_logs_in_with_its_file_and_an_administrator_sees_why_another_would_not() {
    let claims = "--claim kubernetes.io/namespace=data --claim \
                  kubernetes.io/serviceaccount/uid=14ee3fa4-a7e2-420f-9f9a-dbc4507c3798";
    let job = Job::new("kubernetes", &claims.split_whitespace().collect::<Vec<_>>().join(" "));
    let file = job.dir.path().join("token");
    std::fs::write(&file, job.issuer.mint(&job.claims("1", kubernetes("p")))).unwrap();
    for _ in 0..2 {
        let line = format!("login --kubernetes={} --identity etl", file.display());
        let done = job.run(&line, &[]);
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    let said = job.admin(&format!("issuer test {} --identity etl", file.display()));
    assert!(said.contains("the token is one of ci") && said.contains(" matches"), "{said}");
    let mut other = kubernetes("p");
    other["kubernetes.io"]["namespace"] = json!("other");
    std::fs::write(&file, job.issuer.mint(&job.claims("2", other))).unwrap();
    let tested = as_admin(&job.server, &format!("issuer test {}", file.display()));
    assert_eq!(tested.status.code(), Some(3));
    assert!(text(&tested.stdout).contains("the token says \"other\""), "{}", text(&tested.stdout));
    let listed = job.admin("issuer rule list ci");
    assert!(listed.contains("logs in as etl"), "{listed}");
}

/// Configures the role `analytics/reader` of a target that is prepared.
pub(super) fn configure(server: &Running, dir: &Path, tag: &str) {
    let password = dir.join("account");
    std::fs::write(&password, ACCOUNT_PASSWORD).unwrap();
    for line in [
        format!(
            "db connect analytics --host 127.0.0.1 --port {} --database t_{tag} --username \
             account_{tag} --password-file {} --tls off",
            Postgres::shared().port(),
            password.display()
        ),
        format!(
            "db role put analytics/reader --member-of reader_{tag} --owner-role owner_{tag} --ttl 10m"
        ),
    ] {
        let done = as_admin(server, &line);
        assert!(done.status.success(), "{line}: {}", text(&done.stderr));
    }
}

/// Roles on the target that read through the group.
pub(super) async fn roles(tag: &str) -> String {
    let sql = format!(
        "SELECT count(*)::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid \
         JOIN pg_roles r ON r.oid = m.member \
         WHERE g.rolname = 'reader_{tag}' AND starts_with(r.rolname, 'sr_')"
    );
    Postgres::shared().ask("postgres", &sql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_a_credential_that_ends_with_it_however_it_ends() {
    let tag = prepare(Postgres::shared()).await;
    let job = Job::new("gitlab", "--claim project_id=22 --claim namespace_id=72");
    configure(&job.server, job.dir.path(), &tag);
    job.admin("grant add etl --action database.credentials --resource database/analytics/reader");
    let token = job.issuer.mint(&job.claims("1", gitlab()));
    let done = job.run("login --gitlab --identity etl", &[("STRONGROOM_ID_TOKEN", &token)]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let run = |script: &str| {
        let mut command = job.command("run --db analytics/reader -- sh -c");
        command.arg(script).output().unwrap()
    };
    let done = run("psql -Atc 'SELECT answer FROM facts'; exit 7");
    assert_eq!(text(&done.stdout), "42\n", "{}", text(&done.stderr));
    assert_eq!(done.status.code(), Some(7));
    assert_eq!(roles(&tag).await, "0", "it ended with the command");
    // What is printed for a script is hidden in GitHub's log as well.
    let line = "db creds analytics/reader --format json";
    let shown = job.run(line, &[("GITHUB_ACTIONS", "true")]);
    let creds: Value = serde_json::from_slice(&shown.stdout).unwrap();
    for secret in ["password", "lease_handle"].map(|name| creds[name].as_str().unwrap()) {
        let (told, hides) = (text(&shown.stderr), format!("::add-mask::{secret}\n"));
        assert!(secret.is_empty() || told.contains(&hides), "{told}");
    }
    assert!(!creds["password"].as_str().unwrap().is_empty());
}
