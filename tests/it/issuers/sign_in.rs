//! The program on a person's machine: it sends a browser to the provider, or waits for another
//! device, and ends with a session. The chapter of docs/people.md is typed here.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use super::*;
use crate::elevations::page::typed;
use crate::support::program::{Running, as_admin, dev, program, text};

/// A vault of the program, a provider, and somebody's laptop.
struct Laptop {
    dir: tempfile::TempDir,
    server: Running,
    issuer: Issuer,
}

/// A login that waits for a browser, or for another device.
struct Waiting {
    child: Child,
    says: BufReader<ChildStderr>,
}

impl Waiting {
    fn begin(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let says = BufReader::new(child.stderr.take().unwrap());
        Self { child, says }
    }

    /// The first line that holds some text.
    fn line(&mut self, with: &str) -> String {
        let (mut line, mut all) = (String::new(), String::new());
        while self.says.read_line(&mut line).unwrap() > 0 {
            if line.contains(with) {
                return line.trim().to_owned();
            }
            all.push_str(&line);
            line.clear();
        }
        panic!("it never says {with}: {all}");
    }

    /// The code that it ends with, and what else it says.
    fn ended(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.says.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Laptop {
    /// With nothing that says where people sign in.
    fn bare() -> Self {
        let (dir, issuer) = (tempfile::tempdir().unwrap(), Issuer::new());
        let server = dev(dir.path());
        std::fs::write(dir.path().join("issuer-ca.pem"), &issuer.ca).unwrap();
        Self { dir, server, issuer }
    }

    fn new() -> Self {
        let laptop = Self::bare();
        laptop.admin(&format!(
            "issuer add corp --preset people --url {} --client-id vault-cli --ca-file {} \
             --private --scope email --device",
            laptop.issuer.url(),
            laptop.path("issuer-ca.pem").display(),
        ));
        laptop.admin("issuer rule add corp --identity admin --yes --claim sub=1001");
        laptop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn admin(&self, line: &str) -> String {
        let done = as_admin(&self.server, line);
        assert!(done.status.success(), "{line}: {}", text(&done.stderr));
        text(&done.stdout)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = program();
        command
            .args(words)
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY")
            .env("STRONGROOM_ADDR", self.server.said("grpc_addr"))
            .env("STRONGROOM_CACERT", self.server.said("ca_file"))
            .env("STRONGROOM_SESSION_FILE", self.path("session"));
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(&line.split(' ').collect::<Vec<_>>()).output().unwrap()
    }

    fn done(&self, line: &str) -> String {
        let done = self.run(line);
        assert!(done.status.success(), "{line}: {}", text(&done.stderr));
        text(&done.stdout)
    }

    fn start(&self, words: &[&str]) -> Waiting {
        Waiting::begin(self.command(words))
    }

    fn login(&self, more: &str) -> Waiting {
        let line = format!("login --as admin --no-browser{more}");
        self.start(&line.split(' ').collect::<Vec<_>>())
    }

    /// Logs in with a browser that goes where it is sent.
    fn browsed(&self, more: &str) -> (Option<i32>, String) {
        let mut waiting = self.login(more);
        let url = waiting.line("https://");
        self.issuer.browse(&url);
        waiting.ended()
    }
}

/// What the provider says of the administrator.
fn administrator() -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    json!({"sub": "1001", "auth_time": now.as_secs(), "amr": ["otp"], "groups": ["ops"]})
}

#[test]
fn a_person_signs_in_with_a_browser_and_administers_with_session_and_certificate() {
    let laptop = Laptop::new();
    laptop.issuer.person(&administrator(), &json!({}), &[]);
    let [certificate, key] = ["c.pem", "k.pem"].map(|name| laptop.path(name).display().to_string());
    let files = format!(" --max-age 5m --certificate {certificate} --key-out {key}");
    let mut waiting = laptop.login(&files);
    let url = waiting.line("https://");
    let page = laptop.issuer.browse(&url);
    assert!(page.contains("Done."), "{page}");
    let (code, said) = waiting.ended();
    assert_eq!(code, Some(0), "{said}");
    let kept = std::fs::read_to_string(laptop.path("session")).unwrap();
    let mode = |name| std::fs::metadata(laptop.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("session"), mode("k.pem")), (0o600, 0o600));
    assert!(kept.starts_with("srt_") && !said.contains(kept.trim()) && !page.contains("srt_"));
    let told = laptop.issuer.told();
    for (name, value) in [
        ("client_id", "vault-cli"),
        ("scope", "openid email"),
        ("max_age", "300"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(told[name], value, "{told}");
    }
    for secret in [&told["state"], &told["nonce"], &told["code_challenge"]] {
        assert_eq!(secret.as_str().unwrap().len(), 43, "{told}");
        assert!(
            !page.contains(secret.as_str().unwrap()) && !said.contains(secret.as_str().unwrap())
        );
    }
    let me: Value = serde_json::from_str(&laptop.done("whoami --output json")).unwrap();
    assert_eq!((&me["identity"], &me["administrator"]), (&json!("admin"), &json!(true)), "{me}");
    assert_eq!((&me["method"], &me["sign_in"]["issuer"]), (&json!("token"), &json!("corp")));
    laptop.done("group create by-session --purpose test");
    let certified = format!(" --cert {certificate} --key {key}");
    laptop.done(&format!("group create by-certificate --purpose test{certified}"));
    // Files that are there are left alone, before anybody signs in.
    let (code, said) = laptop.login(&files).ended();
    assert_eq!(code, Some(2), "{said}");
    laptop.done("token revoke");
    for dead in ["whoami".to_owned(), format!("whoami{certified}")] {
        let done = laptop.run(&dead);
        assert_eq!(done.status.code(), Some(3), "{dead}: {}", text(&done.stdout));
    }
    // Whoever signs in brings no certificate, whatever the environment still names.
    let (code, said) = laptop.browsed(" --cert gone.pem --key gone.key");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn what_a_browser_brings_wrongly_signs_nobody_in() {
    let laptop = Laptop::new();
    let who = administrator();
    for (twist, exit, says) in [
        (json!({"iss": "https://evil.example.org"}), 3, "another provider"),
        (json!({"iss": ""}), 3, "another provider"),
        (json!({"code": "", "error": "access_denied"}), 3, "access_denied"),
        (json!({"code": "made up"}), 3, "invalid_grant"),
        // A code of somebody else's, which is bound to what they know.
        (
            json!({"code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}),
            3,
            "invalid_grant",
        ),
        (json!({"nonce": "somebody-elses"}), 3, "not accepted"),
        (json!({"aud": "another-client"}), 3, "not accepted"),
    ] {
        laptop.issuer.person(&who, &twist, &[]);
        let (code, said) = laptop.browsed("");
        assert_eq!(code, Some(exit), "{twist}: {said}");
        assert!(said.contains(says), "{twist}: {said}");
        assert!(!laptop.path("session").exists(), "{twist}");
    }
    // Whoever is not let in hears what an administrator has to know.
    laptop.issuer.person(&json!({"sub": "auth0|7"}), &json!({}), &[]);
    let (code, said) = laptop.browsed("");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("add corp --identity admin --claim 'sub=auth0|7'"), "{said}");
    // Another's answer is not taken for the one that is waited for, and ends nothing.
    laptop.issuer.person(&who, &json!({"state": "another"}), &[]);
    let mut waiting = laptop.login("");
    let url = waiting.line("https://");
    let page = laptop.issuer.browse(&url);
    assert!(page.contains("There is nothing here"), "{page}");
    laptop.issuer.person(&who, &json!({}), &[]);
    assert!(laptop.issuer.browse(&url).contains("Done."));
    assert_eq!(waiting.ended().0, Some(0));
    // A provider that is not who it should be, or sends elsewhere, is left.
    let url = laptop.issuer.url();
    let moved = json!({"Location": format!("{url}/elsewhere")});
    laptop.issuer.serve("/.well-known/openid-configuration", 302, "", &moved);
    let (code, said) = laptop.login("").ended();
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("nobody is followed"), "{said}");
}

#[test]
fn somebody_signs_in_with_a_code_on_another_device_at_the_pace_of_the_provider() {
    let laptop = Laptop::new();
    let device = || laptop.start(&["login", "--as", "admin", "--device"]);
    laptop.issuer.person(&administrator(), &json!({}), &["slow_down"]);
    let mut slow = device();
    let shown = slow.line("WDJB-MJHT");
    assert!(shown.contains("/activate"), "{shown}");
    assert_eq!(laptop.issuer.told()["nonce"].as_str().unwrap().len(), 43);
    // Meanwhile somebody says no to another.
    laptop.issuer.person(&administrator(), &json!({}), &["authorization_pending", "access_denied"]);
    let mut denied = device();
    denied.line("WDJB-MJHT");
    let (code, said) = denied.ended();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("access_denied"), "{said}");
    assert!(!laptop.path("session").exists());
    let (code, said) = slow.ended();
    assert_eq!(code, Some(0), "it waited as it was told to: {said}");
    assert!(laptop.done("whoami").contains("corp as 1001, by otp, in ops"));
    // Where devices are not let in any more, nobody begins.
    laptop.admin("issuer update corp --device=false");
    let (code, said) = device().ended();
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn the_page_is_followed_from_a_laptop_to_an_administrators_session() {
    let laptop = Laptop::bare();
    let page = std::fs::read_to_string("docs/people.md").unwrap();
    let (_, chapter) = page.split_once("## From a laptop to an administrator's session").unwrap();
    let (chapter, _) = chapter.split_once("\n## ").unwrap();
    laptop.issuer.person(&administrator(), &json!({}), &[]);
    let (mut seen, ca) = (0, laptop.path("issuer-ca.pem").display().to_string());
    let url = laptop.issuer.url();
    for (who, words, _) in typed(chapter) {
        seen += 1;
        let words: Vec<_> = words
            .iter()
            .skip(1)
            .map(|word| match word.as_str() {
                "https://login.example.org" => url.as_str(),
                "sub=248289761001" => "sub=1001",
                word => word,
            })
            .collect();
        let mut command = laptop.command(&words);
        if who == "admin" {
            command
                .env("STRONGROOM_CERT", laptop.server.said("admin_cert_file"))
                .env("STRONGROOM_KEY", laptop.server.said("admin_key_file"));
            if words.starts_with(&["issuer", "add"]) {
                // The provider of the page has a certificate of a public authority.
                command.args(["--ca-file", &ca, "--private"]);
            }
            if words.starts_with(&["issuer", "rule"]) {
                command.arg("--yes");
            }
        } else if words.first() == Some(&"login") {
            command.arg("--no-browser").current_dir(laptop.dir.path());
            let mut waiting = Waiting::begin(command);
            let url = waiting.line("https://");
            laptop.issuer.browse(&url);
            let (code, said) = waiting.ended();
            // The first time nobody was let in yet.
            assert_eq!(code, Some(if said.contains("calls you") { 3 } else { 0 }), "{said}");
            continue;
        }
        let done = command.current_dir(laptop.dir.path()).output().unwrap();
        assert!(done.status.success(), "{words:?}: {}", text(&done.stderr));
    }
    assert_eq!(seen, 10, "the page says no more and no less than is typed here");
    let me: Value = serde_json::from_str(&laptop.done("whoami --output json")).unwrap();
    assert_eq!((&me["identity"], &me["administrator"]), (&json!("alice"), &json!(true)), "{me}");
}
