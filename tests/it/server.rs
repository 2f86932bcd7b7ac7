//! `init`, `server` and `doctor` on a real token: what they do, and what they refuse.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use strongroom::hsm::softhsm;

use crate::support::program::{Installation, PIN, Running, program, text};

#[test]
fn a_vault_is_founded_once_and_served_until_it_is_told_to_stop() {
    let real = Installation::new();
    let founded = real.init();
    assert!(founded.status.success(), "{}", text(&founded.stderr));
    let out = real.dir.path().join("out");
    let mode = |name: &str| fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("bootstrap.key"), mode("bootstrap.pem")), (0o600, 0o600));

    let above = real.dir.path().join("above");
    let elsewhere = real.run(&format!("init --out {}", above.join("elsewhere").display()));
    assert_eq!(elsewhere.status.code(), Some(6), "{}", text(&elsewhere.stderr));
    assert!(text(&elsewhere.stderr).contains("holds a vault already"));
    assert!(!above.exists(), "nothing is left of what was refused");

    let server = real.serve();
    assert_eq!(real.state().0, "unsealed");
    let whoami = program()
        .arg("whoami")
        .arg("--addr")
        .arg(format!("https://{}", server.said("grpc_addr")))
        .arg("--cacert")
        .arg(out.join("ca.pem"))
        .arg("--cert")
        .arg(out.join("bootstrap.pem"))
        .arg("--key")
        .arg(out.join("bootstrap.key"))
        .output()
        .unwrap();
    // The bootstrap certificate does two things, and this is neither.
    assert_eq!(whoami.status.code(), Some(4), "{}", text(&whoami.stderr));

    server.signal(Signal::HUP);
    let log = server.log();
    let key = fs::read_to_string(out.join("bootstrap.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    for canary in [PIN, secret] {
        assert!(!log.contains(canary), "in the log at level trace");
    }
    assert_eq!(server.stop(), Some(0));
    assert!(!real.dir.path().join("data/control.sock").exists());
    real.serve().stop();
}

#[test]
fn a_wrong_pin_is_tried_once_across_restarts() {
    let real = Installation::new();
    assert!(real.init().status.success());
    real.set_pin("00000000");
    for start in 0..2 {
        let server = real.serve();
        let (state, because) = real.state();
        assert_eq!(state, "sealed");
        let tried = server.log().matches("the HSM refused the PIN").count();
        assert_eq!(tried, 1, "start {start}: {because}");
        assert!(real.dir.path().join("data/pin-refused").exists());
        assert_eq!(server.stop(), Some(0));
    }
    // The right PIN in the file is not tried by itself either: nobody said that it is right.
    real.set_pin(PIN);
    let server = real.serve();
    assert_eq!(real.state().0, "sealed");
    assert_eq!(real.local("unseal").status.code(), Some(7));
    let forced = real.local("unseal --force");
    assert!(forced.status.success(), "{}", text(&forced.stderr));
    assert_eq!(real.state().0, "unsealed");
    assert_eq!(server.stop(), Some(0));
    let server = real.serve();
    assert_eq!(real.state().0, "unsealed");
    for pin in ["00000000", PIN] {
        assert!(!server.log().contains(pin), "a PIN in the log");
    }
}

#[test]
fn a_wrong_pin_is_tried_once_by_init_as_well() {
    let real = Installation::new();
    real.set_pin("00000000");
    let refused = real.init();
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("the HSM refused the PIN"), "{}", text(&refused.stderr));
    // Neither is the next one tried, right or wrong, until somebody says that it was mended.
    for pin in ["00000000", PIN] {
        real.set_pin(pin);
        let refused = real.init();
        assert!(!refused.status.success());
        let said = text(&refused.stderr);
        assert!(said.contains("not tried again") && said.contains("pin-refused"), "{said}");
    }
    fs::remove_file(real.dir.path().join("data/pin-refused")).unwrap();
    let founded = real.init();
    assert!(founded.status.success(), "{}", text(&founded.stderr));
    assert!(!real.dir.path().join("data/pin-refused").exists());
}

#[test]
fn a_module_that_is_not_roots_is_not_loaded() {
    let real = Installation::new();
    let module = softhsm::lookup_module().unwrap();
    let copy = real.dir.path().join("module.so");
    fs::copy(&module, &copy).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&copy, Some(65_534), None).unwrap();
    }
    real.replace(&module.display().to_string(), &copy.display().to_string());
    for refused in [real.init(), real.run("server"), real.run("doctor")] {
        assert!(!refused.status.success());
        let said = format!("{}{}", text(&refused.stdout), text(&refused.stderr));
        assert!(said.contains("must belong to root"), "{said}");
    }
}

/// A command of the program for whom rights count: root has more than any file says.
fn bound_by_rights(real: &Installation, command: &str) -> Output {
    let (program, config) = (program(), &real.config);
    if !rustix::process::geteuid().is_root() {
        return real.run(command);
    }
    let mut bound = Command::new("setpriv");
    bound
        .args(["--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"])
        .arg(program.get_program())
        .args(command.split(' '))
        .arg("--config")
        .arg(config);
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    bound.output().unwrap()
}

#[test]
fn a_store_that_may_not_be_written_is_named_by_server_and_doctor_and_stays_as_it_is() {
    let real = Installation::new();
    let store = real.dir.path().join("store");
    fs::create_dir(&store).unwrap();
    let set = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(&store, 0o700);
    let file = store.join("vault.db");
    real.replace("[vault]", &format!("[store]\nurl = \"sqlite://{}\"\n[vault]", file.display()));
    assert!(real.init().status.success());
    let before = fs::read(&file).unwrap();
    for (directory, mode) in [(0o700, 0o400), (0o500, 0o600), (0o500, 0o400)] {
        set(&file, mode);
        set(&store, directory);
        for command in ["server", "doctor"] {
            let refused = bound_by_rights(&real, command);
            assert!(!refused.status.success(), "{command} {directory:o} {mode:o}");
            let said = format!("{}{}", text(&refused.stdout), text(&refused.stderr));
            let named = said.contains("cannot be written") && said.contains("store");
            assert!(named, "{command} {directory:o} {mode:o}: {said}");
        }
        set(&store, 0o700);
        set(&file, 0o600);
    }
    assert!(fs::read(&file).unwrap() == before, "nothing was changed");
    let server = real.serve();
    assert_eq!(real.state().0, "unsealed");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn each_bad_start_says_what_is_wrong_and_what_to_do() {
    let real = Installation::new();
    let server = real.run("server");
    assert!(text(&server.stderr).contains("run `strongroom init`"), "{}", text(&server.stderr));
    assert!(real.init().status.success());
    for (from, to, says) in [
        ("token_label = \"real\"", "token_label = \"other\"", "sealed"),
        (
            "trust_domain = \"vault.example.org\"",
            "trust_domain = \"other.example.org\"",
            "cannot change",
        ),
        ("module = \"", "module = \"/nonexistent", "/nonexistent"),
    ] {
        real.replace(from, to);
        if says == "sealed" {
            let server = real.serve();
            let (state, because) = real.state();
            assert_eq!(state, "sealed", "a token that is not there");
            assert!(because.contains("the label `other` behind /"), "{because}");
            server.stop();
        } else {
            let refused = real.run("server");
            assert!(!refused.status.success());
            assert!(text(&refused.stderr).contains(says), "{}", text(&refused.stderr));
        }
        real.replace(to, from);
    }
}

#[test]
fn a_token_that_is_missing_at_a_start_is_named_and_unseals_the_vault_when_it_is_there() {
    let real = Installation::new();
    assert!(real.init().status.success());
    let (there, away) = (real.dir.path().join("tokens"), real.dir.path().join("away"));
    let named = ["no token", "`real`", "softhsm", "plug it in", "tried again"].as_slice();
    for (whole, says) in [(false, named), (true, &["does not answer", "tried again"])] {
        // The token in an empty directory, or the directory as well, which SoftHSM does not bear.
        fs::rename(&there, &away).unwrap();
        if !whole {
            fs::create_dir(&there).unwrap();
        }
        let server = real.serve();
        let (state, because) = real.state();
        assert_eq!(state, "sealed");
        for part in says {
            assert!(because.contains(part), "{part}: {because}");
        }
        let asked = real.local("unseal");
        assert_eq!(asked.status.code(), Some(8), "{}", text(&asked.stderr));
        assert!(text(&asked.stderr).contains(says[0]), "{}", text(&asked.stderr));
        assert_eq!(server.http("/readyz"), (503, "sealed\n".to_owned()), "strangers learn no more");
        assert!(!real.dir.path().join("data/pin-refused").exists(), "no PIN was tried");

        if !whole {
            fs::remove_dir(&there).unwrap();
        }
        fs::rename(&away, &there).unwrap();
        let patience = Instant::now() + Duration::from_secs(40);
        while real.state().0 != "unsealed" {
            assert!(Instant::now() < patience, "{:?}\n{}", real.state(), server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(server.http("/readyz").0, 200);
        assert_eq!(server.stop(), Some(0));
    }
}

/// Puts a store in the place of another, with what is not in its file yet: a stopped server may
/// leave that beside it.
fn put_store(from: &Path, to: &Path) {
    for beside in ["", "-wal", "-shm"] {
        let [from, to] = [from, to].map(|path| format!("{}{beside}", path.display()));
        if Path::new(&to).exists() {
            fs::remove_file(&to).unwrap();
        }
        if Path::new(&from).exists() {
            fs::copy(from, to).unwrap();
        }
    }
}

#[test]
fn development_and_real_vaults_are_never_served_by_the_others_command() {
    let dir = tempfile::tempdir().unwrap();
    let dev = crate::support::program::dev(dir.path());
    assert_eq!(dev.stop(), Some(0));
    let real = Installation::new();
    assert!(real.init().status.success());
    real.serve().stop();

    let (ours, theirs) = (real.dir.path().join("data/vault.db"), dir.path().join("vault.db"));
    let kept = real.dir.path().join("kept.db");
    put_store(&ours, &kept);
    put_store(&theirs, &ours);
    let refused = real.run("server");
    assert_eq!(refused.status.code(), Some(7), "{}", text(&refused.stderr));
    let said = text(&refused.stderr);
    assert!(said.contains("only `strongroom dev` serves it"), "{said}");
    put_store(&kept, &theirs);
    let refused = program().arg("dev").arg("--dir").arg(dir.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(7), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("not for development"));
}

#[test]
fn doctor_names_what_is_wrong_and_succeeds_only_when_nothing_is() {
    let real = Installation::new();
    let findings = |expected: i32| -> Vec<(String, String)> {
        let said = real.run("doctor --output json");
        assert_eq!(said.status.code(), Some(expected), "{}", text(&said.stdout));
        let findings: Vec<Value> = serde_json::from_slice(&said.stdout).unwrap();
        let word = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        for finding in findings.iter().filter(|finding| finding["level"] != "ok") {
            assert!(!word(finding, "advice").is_empty(), "{finding}");
        }
        findings.iter().map(|one| (word(one, "check"), word(one, "level"))).collect()
    };
    let level = |found: &[(String, String)], check: &str| {
        let found = found.iter().find(|(name, _)| name == check);
        found.unwrap_or_else(|| panic!("{check}")).1.clone()
    };
    assert_eq!(level(&findings(0), "store"), "warning", "nothing is founded");
    assert!(real.init().status.success());
    let all = findings(0);
    for check in [
        "hsm module",
        "hsm token",
        "pin source",
        "store",
        "vault",
        "authorities",
        "keys",
        "clock",
        "tls",
    ] {
        assert_eq!(level(&all, check), "ok", "{check}");
    }
    assert_eq!(level(&all, "ceremonies"), "warning", "nobody administers yet");
    let data = real.dir.path().join("data");
    let pin = real.dir.path().join("pin");
    let set = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(&data, 0o777);
    assert_eq!(level(&findings(7), "data directory"), "wrong");
    set(&data, 0o700);
    set(&pin, 0o644);
    assert_eq!(level(&findings(7), "pin source"), "wrong");
    set(&pin, 0o600);
    real.set_pin("00000000");
    assert_eq!(level(&findings(7), "keys"), "wrong");
    let after = findings(7);
    assert_eq!(
        (level(&after, "pin source").as_str(), level(&after, "keys").as_str()),
        ("wrong", "warning"),
        "it is not tried again"
    );
    fs::remove_file(data.join("pin-refused")).unwrap();
    real.set_pin(PIN);
    for (from, to, check) in [
        ("token_label = \"real\"", "token_label = \"other\"", "hsm token"),
        ("module = \"", "module = \"/nonexistent", "hsm module"),
        ("name = \"main\"", "name = \"other\"", "vault"),
    ] {
        real.replace(from, to);
        assert_eq!(level(&findings(7), check), "wrong", "{check}");
        real.replace(to, from);
    }
}

#[test]
fn sighup_shows_the_new_certificate_to_new_handshakes() {
    let real = Installation::with("tls_cert_file = \"@/tls.crt\"\ntls_key_file = \"@/tls.key\"");
    let at = real.dir.path().to_str().unwrap().to_owned();
    let toml = fs::read_to_string(&real.config).unwrap();
    fs::write(&real.config, toml.replace('@', &at)).unwrap();
    let certificate = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(format!("{at}/tls.crt"), made.cert.pem()).unwrap();
        fs::write(format!("{at}/tls.key"), made.signing_key.serialize_pem()).unwrap();
        made.cert.der().to_vec()
    };
    let first = certificate();
    assert!(real.init().status.success());
    let server = real.serve();
    assert_eq!(shown_by(&server), first);
    // A client that names an address is served, and no event.
    assert_eq!(shown_to(&server, &["-servername", "127.0.0.1"]), first);
    assert!(!server.log().contains("SNI"), "{}", server.log());
    let second = certificate();
    assert_eq!(shown_by(&server), first, "files are read when they are asked for");
    server.signal(Signal::HUP);
    wait(|| shown_by(&server) == second);
    fs::write(format!("{at}/tls.key"), "no key").unwrap();
    server.signal(Signal::HUP);
    wait(|| server.log().contains("what served before serves on"));
    assert_eq!(shown_by(&server), second);
}

fn wait(mut is: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < patience, "in vain");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The certificate that a server shows, whoever signed it.
fn shown_by(server: &Running) -> Vec<u8> {
    shown_to(server, &[])
}

fn shown_to(server: &Running, more: &[&str]) -> Vec<u8> {
    let address = server.said("grpc_addr").to_owned();
    let shown = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-tls1_3", "-alpn", "h2", "-showcerts"])
        .args(more)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let out = text(&shown.stdout);
    let begin = out.find("-----BEGIN CERTIFICATE-----").expect("a certificate");
    let (_, pem) = x509_parser::pem::parse_x509_pem(&out.as_bytes()[begin..]).unwrap();
    pem.contents
}
