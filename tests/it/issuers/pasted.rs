//! What docs/ paste is what runs here: by those very commands an unregistered job of GitHub, one of
//! GitLab, a pod and an instance of a cloud get to a database, and store no secret.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::program::{configure, roles};
use super::*;
use crate::support::oidc::google;
use crate::support::postgres::Postgres;
use crate::support::program::{Running, dev, program, text};
use crate::support::target::prepare;

const PAGE: &str = include_str!("../../../docs/federation.md");
const GITHUB_ACTIONS: &str = include_str!("../../../docs/examples/github-actions.yml");
const GITLAB_CI: &str = include_str!("../../../docs/examples/gitlab-ci.yml");
const POD: &str = include_str!("../../../docs/examples/pod.yml");
/// Where the pages say that the vault is, and whom its tokens are for.
const VAULT: &str = "https://vault.example.org";
/// What a runner shows its server that it asks for a job's token.
const RUNNER: &str = "the runner's own";

/// A line without what indents it, and where it begins.
fn indented(line: &str) -> (usize, &str) {
    let text = line.trim_start();
    (line.len() - text.len(), text)
}

/// The values of a key, wherever it stands.
fn values<'a>(yaml: &'a str, key: &str) -> Vec<&'a str> {
    let value = |line: &'a str| {
        let text = indented(line).1;
        text.strip_prefix("- ").unwrap_or(text).strip_prefix(key)?.strip_prefix(": ")
    };
    yaml.lines().filter_map(value).collect()
}

/// The lines below a key, without comments.
fn below<'a>(yaml: &'a str, key: &str) -> Vec<&'a str> {
    let mut lines = yaml.lines().skip_while(|line| indented(line).1 != format!("{key}:"));
    let depth = indented(lines.next().expect(key)).0;
    let lines = lines.map(indented).take_while(|(at, _)| *at > depth);
    lines.map(|(_, text)| text).filter(|text| !text.starts_with('#')).collect()
}

/// What the page tells an administrator to type below a heading.
fn typed(heading: &str) -> Vec<String> {
    let section = PAGE.split(heading).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```console\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap().replace("\\\n", " "));
    let lines = blocks.collect::<String>();
    lines.lines().map(|line| line.strip_prefix("$ ").expect(line).to_owned()).collect()
}

/// A job of one platform: what it gives it besides what the example says.
struct Platform<'a> {
    server: &'a Running,
    /// Where the repository was checked out.
    dir: PathBuf,
    given: Vec<(&'a str, String)>,
}

impl Platform<'_> {
    /// Runs a step as the platform does.
    fn step(&self, script: &str) -> Output {
        let done = shell(script)
            .current_dir(&self.dir)
            .envs(self.given.iter().map(|(name, value)| (*name, value.as_str())))
            .output()
            .unwrap();
        assert!(done.status.success(), "{script}: {}", text(&done.stderr));
        done
    }

    /// Gives it what the example sets, as it stands there; the vault is where it is.
    fn set(&mut self, name: &'static str, value: &str) {
        let address = format!("https://{}", self.server.said("grpc_addr"));
        let value =
            if name == "STRONGROOM_ADDR" { value.replace(VAULT, &address) } else { value.into() };
        self.given.push((name, value));
    }
}

/// A shell that finds the program, and nothing of our own environment.
fn shell(script: &str) -> Command {
    let (mut command, clean) = (Command::new("sh"), program());
    for (name, value) in clean.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let found = Path::new(clean.get_program()).parent().unwrap().display();
    command.arg("-ec").arg(format!("PATH={found}:$PATH; export PATH\n{script}"));
    command.env_remove("GITHUB_ACTIONS").env_remove("RUNNER_TEMP");
    command
}

/// A vault with a target, where an administrator typed what the page says.
struct World {
    dir: tempfile::TempDir,
    server: Running,
    tag: String,
    /// GitHub, GitLab, the cluster and the cloud.
    issuers: [Issuer; 4],
}

impl World {
    async fn new() -> Self {
        let tag = prepare(Postgres::shared()).await;
        let dir = tempfile::tempdir().unwrap();
        let server = dev(dir.path());
        configure(&server, dir.path(), &tag);
        let world = Self { dir, server, tag, issuers: [(); 4].map(|()| Issuer::new()) };
        for line in typed("## From nothing to a database credential") {
            world.admin(&world.at_home(&line));
        }
        world
    }

    fn ca(&self, of: usize) -> PathBuf {
        let path = self.dir.path().join(format!("ca-{of}"));
        std::fs::write(&path, &self.issuers[of].ca).unwrap();
        path
    }

    /// Says where the issuers are, and who the administrator is; all else stays as it is typed.
    fn at_home(&self, line: &str) -> String {
        let line = line.replace("carol", "admin");
        let Some(rest) = line.strip_prefix("strongroom issuer add ") else { return line };
        let names = ["github", "gitlab", "prod", "google"];
        let of = names.iter().position(|it| rest.starts_with(it)).unwrap();
        let url = self.issuers[of].url();
        let mut line = line
            .replace("https://kubernetes.default.svc.cluster.local", &url)
            .replace("https://www.googleapis.com/oauth2/v3/certs", &format!("{url}/keys"))
            .replace("https://accounts.google.com", &url);
        if !line.contains(" --url ") {
            line = format!("{line} --url {url}");
        }
        format!("{line} --private --ca-file {}", self.ca(of).display())
    }

    /// Has the cluster asked of each token from now on.
    fn ask_the_cluster(&self) {
        const CREDENTIAL: &str = "the-reviewers.own";
        let (cluster, file) = (&self.issuers[2], self.dir.path().join("reviewer"));
        std::fs::write(&file, CREDENTIAL).unwrap();
        cluster.serve_cluster(CREDENTIAL, &[], &json!(null));
        let lines = typed("### TokenReview");
        let line = lines.iter().find(|line| line.starts_with("strongroom ")).unwrap();
        let line = line.strip_suffix(" reviewer").unwrap();
        let line = line
            .replace("https://10.0.0.1:6443", &cluster.url())
            .replace("cluster-ca.pem", &self.ca(2).display().to_string());
        self.admin(&format!("{line} {}", file.display()));
    }

    fn admin(&self, line: &str) -> String {
        let done = shell(line)
            .env("STRONGROOM_ADDR", format!("https://{}", self.server.said("grpc_addr")))
            .env("STRONGROOM_CACERT", self.server.said("ca_file"))
            .env("STRONGROOM_CERT", self.server.said("admin_cert_file"))
            .env("STRONGROOM_KEY", self.server.said("admin_key_file"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{line}: {}", text(&done.stderr));
        text(&done.stdout)
    }

    /// A job whose repository holds the authority of the vault's certificate.
    fn job(&self, name: &str) -> Platform<'_> {
        let dir = self.dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::copy(self.server.said("ca_file"), dir.join("vault-ca.pem")).unwrap();
        let given = vec![("HOME", dir.display().to_string())];
        Platform { server: &self.server, dir, given }
    }

    /// A credential was made for the job, and ended with its command.
    async fn was_given(&self, said: &str) {
        assert_eq!(said.trim(), format!("reader_{}", self.tag), "what its role is a member of");
        assert_eq!(roles(&self.tag).await, "0", "it ended with the command");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_pages_paste_gets_jobs_that_nobody_registered_to_a_database() {
    let world = World::new().await;
    on_github(&world).await;
    on_gitlab(&world).await;
    in_a_pod(&world).await;
    in_a_cloud(&world).await;
}

async fn on_github(world: &World) {
    let (issuer, ca) = (&world.issuers[0], world.ca(0));
    issuer.serve_job(RUNNER, &github());
    let mut job = world.job("github");
    for name in ["STRONGROOM_ADDR", "STRONGROOM_CACERT"] {
        job.set(name, values(GITHUB_ACTIONS, name)[0]);
    }
    // The platform offers a token where the workflow asks for that.
    assert_eq!(values(GITHUB_ACTIONS, "id-token"), ["write"]);
    job.given.extend([
        ("GITHUB_ACTIONS", "true".to_owned()),
        ("GITHUB_REPOSITORY_ID", "70001".to_owned()),
        ("RUNNER_TEMP", job.dir.display().to_string()),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", issuer.url() + "/token?api-version=2.0"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", RUNNER.to_owned()),
        // GitHub's own is a public one's.
        ("STRONGROOM_ISSUER_CACERT", ca.display().to_string()),
    ]);
    let done: Vec<_> = values(GITHUB_ACTIONS, "run").iter().map(|it| job.step(it)).collect();
    let [login, load] = &done[..] else { panic!("two steps") };
    let session = std::fs::read_to_string(job.dir.join(".strongroom-session")).unwrap();
    let bearer = session.lines().next().unwrap();
    assert!(text(&login.stderr).contains(&format!("::add-mask::{bearer}\n")));
    assert!(text(&load.stderr).starts_with("::add-mask::"), "the password is hidden, too");
    world.was_given(&text(&load.stdout)).await;
    assert!(world.admin("strongroom identity show gh-70001").contains("federation"));
}

async fn on_gitlab(world: &World) {
    let mut job = world.job("gitlab");
    for name in ["STRONGROOM_ADDR", "STRONGROOM_CACERT"] {
        job.set(name, values(GITLAB_CI, name)[0]);
    }
    let variable = below(GITLAB_CI, "id_tokens")[0].strip_suffix(':').unwrap();
    let token = world.issuers[1].issue(values(GITLAB_CI, "aud")[0], gitlab());
    job.given.extend([(variable, token), ("CI_PROJECT_ID", "22".to_owned())]);
    let script = below(GITLAB_CI, "script").join("\n").replace("- strongroom", "strongroom");
    world.was_given(&text(&job.step(&script).stdout)).await;
    assert!(world.admin("strongroom identity show gl-22").contains("federation"));
}

/// Its volumes are directories.
async fn in_a_pod(world: &World) {
    let mut job = world.job("pod");
    let mounts = values(POD, "mountPath");
    let at_home = |text: &str| {
        let place = |text: String, mount: &&str| {
            text.replace(*mount, &job.dir.join(&mount[1..]).display().to_string())
        };
        mounts.iter().fold(text.to_owned(), place)
    };
    let [token, authority, session] = &mounts[..] else { panic!("three volumes") };
    for mount in [token, authority, session] {
        std::fs::create_dir_all(at_home(mount)).unwrap();
    }
    let token = PathBuf::from(at_home(token)).join(values(POD, "path")[0]);
    let start = |pod: &str| {
        let issued = world.issuers[2].issue(values(POD, "audience")[0], kubernetes(pod));
        std::fs::write(&token, issued).unwrap();
    };
    start("pod-1");
    let ca = job.dir.join("vault-ca.pem");
    std::fs::copy(ca, PathBuf::from(at_home(authority)).join("vault-ca.pem")).unwrap();
    let env = below(POD, "env");
    let given = |name: &str| {
        let at = env.iter().position(|line| *line == format!("- name: {name}")).expect(name);
        at_home(env[at + 1].strip_prefix("value: ").unwrap())
    };
    let names = ["STRONGROOM_ADDR", "STRONGROOM_CACERT", "STRONGROOM_SESSION_FILE"];
    let given = names.map(|name| (name, given(name)));
    assert_eq!(env.len(), 2 * names.len(), "{env:?}");
    assert_eq!(values(POD, "command"), ["[sh, -ec]"]);
    let script = at_home(&below(POD, "args")[1..].join("\n"));
    for (name, value) in given {
        job.set(name, &value);
    }
    world.was_given(&text(&job.step(&script).stdout)).await;
    // The same where nobody registered its account.
    start("pod-2");
    let name = "k8s-14ee3fa4-a7e2-420f-9f9a-dbc4507c3798";
    let unregistered = script.replace("--identity load", &format!("--identity {name}"));
    world.was_given(&text(&job.step(&unregistered).stdout)).await;
    assert!(world.admin(&format!("strongroom identity show {name}")).contains("federation"));
    world.ask_the_cluster();
    world.was_given(&text(&job.step(&script).stdout)).await;
}

/// Its metadata server is a function of the shell.
async fn in_a_cloud(world: &World) {
    let (issuer, mut job) = (&world.issuers[3], world.job("cloud"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut claims = issuer.claims_at(i64::try_from(now.as_secs()).unwrap(), "", google());
    claims["aud"] = json!(VAULT);
    for absent in ["jti", "nbf"] {
        claims.as_object_mut().unwrap().remove(absent);
    }
    job.set("STRONGROOM_ADDR", VAULT);
    job.set("STRONGROOM_CACERT", "vault-ca.pem");
    job.given.push(("TOKEN", issuer.mint(&claims)));
    let pasted = PAGE.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let metadata = format!("case \"$*\" in *audience={VAULT}*) printf %s \"$TOKEN\" ;; esac");
    let script = format!("curl() {{ {metadata}; }}\n{pasted}");
    world.was_given(&text(&job.step(&script).stdout)).await;
}
