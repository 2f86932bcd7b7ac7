//! The configuration: the annotated sample, and what is refused with which words.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use strongroom::config::{
    Config, ConfigError, Endpoint, Environment, LogFormat, LogLevel, MAX_SECRET_BYTES, MailTls,
    SECTIONS, SecretSource, Sqlite, Store, StoreTls, TlsFiles, TokenName,
};

const SAMPLE: &str = "deploy/strongroom.toml";

/// The least that loads.
const LEAST: &str = r#"
[vault]
trust_domain = "vault.example.org"
name = "main"
[hsm]
module = "/usr/lib/softhsm/libsofthsm2.so"
token_label = "strongroom"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("test.toml"), text, &Environment::default())
}

/// The least with one more line in a section, which may be a new one.
fn with(section: &str, line: &str) -> String {
    let head = format!("[{section}]\n");
    if LEAST.contains(&head) {
        LEAST.replace(&head, &format!("{head}{line}\n"))
    } else {
        format!("{LEAST}{head}{line}\n")
    }
}

/// Comments taken off the lines of the sample that `keep` chooses.
fn uncommented(keep: impl Fn(&str) -> bool) -> String {
    let text = fs::read_to_string(SAMPLE).unwrap();
    let line = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if is_setting(rest) && keep(rest) => rest.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn is_setting(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| {
        !key.is_empty()
            && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    })
}

#[test]
fn the_sample_loads_and_shows_the_defaults() {
    let sample = Config::load(Path::new(SAMPLE)).unwrap();
    assert_eq!(sample.server.grpc_listen, SocketAddr::from(([127, 0, 0, 1], 7200)));
    assert_eq!(sample.hsm.token, TokenName::Label("strongroom".into()));
    assert_eq!(sample.hsm.environment["SOFTHSM2_CONF"], "/etc/strongroom/softhsm2.conf");
    assert_eq!(sample.store.to_string(), "sqlite:///var/lib/strongroom/vault.db");
    assert_eq!(sample.limits.request_deadline, Duration::from_secs(30));
    assert_eq!(sample.limits.tokens_per_identity_max, 10_000);
    assert_eq!(sample.limits.certificates_per_identity_max, 10_000);
    assert_eq!(sample.limits.wrapped_per_identity_max_mib, 64);
    assert_eq!(sample.record.origin, "vault.example.org/main");

    // What the sample calls a default is one: the least configuration says the same.
    let mut least = parse(LEAST).unwrap();
    assert_eq!(least.server.control_socket, Path::new("/var/lib/strongroom/control.sock"));
    assert_eq!(least.hsm.pin, None);
    least.server.control_socket.clone_from(&sample.server.control_socket);
    least.hsm = sample.hsm.clone();
    assert_eq!(least, sample);
}

#[test]
fn the_sample_explains_every_key_and_no_other() {
    let text = fs::read_to_string(SAMPLE).unwrap();
    let mut section = String::new();
    let mut explained: Vec<(String, Vec<String>)> = Vec::new();
    let mut above = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            explained.push((section.clone(), Vec::new()));
        }
        let setting = line.strip_prefix("# ").unwrap_or(line);
        if is_setting(setting) && !section.is_empty() {
            let key = setting.split_once(" = ").unwrap().0.to_owned();
            assert!(above.starts_with('#') || is_setting(above), "{section}.{key}: no comment");
            explained.last_mut().unwrap().1.push(key);
        }
        above = line;
    }
    let known: Vec<(String, Vec<String>)> = SECTIONS
        .iter()
        .map(|(name, keys)| ((*name).to_owned(), keys.iter().map(|&key| key.into()).collect()))
        .collect();
    assert_eq!(explained, known);
}

#[test]
fn what_the_sample_leaves_commented_loads_too() {
    let config =
        parse(&uncommented(|line| line.starts_with("tls_") || line.starts_with("otlp_endpoint")))
            .unwrap();
    assert_eq!(
        config.server.tls,
        Some(TlsFiles {
            cert_file: "/etc/strongroom/tls.crt".into(),
            key_file: "/etc/strongroom/tls.key".into(),
        })
    );
    assert_eq!(config.telemetry.otlp_endpoint.as_deref(), Some("http://127.0.0.1:4317"));

    let postgres =
        uncommented(|line| line.starts_with("postgres_") || line.contains("/store-password"))
            .replace(
                "sqlite:///var/lib/strongroom/vault.db",
                "postgres://strongroom@db.example.org/vault",
            );
    let postgres: String =
        postgres.lines().filter(|line| !line.starts_with("sqlite_")).collect::<Vec<_>>().join("\n");
    let Store::Postgres(store) = parse(&postgres).unwrap().store else { panic!("not PostgreSQL") };
    let tls = StoreTls::VerifyFull { ca_file: Some("/etc/strongroom/store-ca.pem".into()) };
    assert_eq!(store.endpoint, Endpoint::Tcp { host: "db.example.org".into(), port: 5432, tls });
    assert_eq!((store.user.as_str(), store.database.as_str()), ("strongroom", "vault"));
    let error = store.password.unwrap().read().unwrap_err().to_string();
    assert!(
        error.starts_with("test.toml: store.password_file: /etc/strongroom/store-password cannot"),
        "{error}"
    );
    assert_eq!(store.lanes, 4);
}

#[test]
fn the_sinks_of_the_sample_load_too() {
    let first = [
        "subjects",
        "texts",
        "url = \"https://hooks",
        "key_file",
        "ca_file",
        "host",
        "tls =",
        "port",
        "user",
        "from",
        "copy_to",
        "domain",
        "people",
        "groups",
    ];
    let sample = uncommented(|line| {
        first.iter().any(|first| line.starts_with(first)) || line.contains("/mail-password")
    });
    let config = parse(&sample).unwrap();
    let (webhook, mail) = (config.webhook.unwrap(), config.mail.unwrap());
    assert_eq!(webhook.url.as_str(), "https://hooks.example.org/strongroom");
    assert_eq!(
        (mail.host.as_str(), mail.port, mail.tls),
        ("mail.example.org", 587, MailTls::StartTls)
    );
    assert_eq!(mail.people["carol"].to_string(), "carol.smith@example.org");
    assert_eq!((mail.copy_to.len(), mail.login.unwrap().0.as_str()), (1, "strongroom"));
    assert_eq!((config.notices.subjects.len(), config.notices.texts.len()), (1, 1));
}

#[test]
fn store_urls_become_endpoints() {
    let endpoint = |url: &str| match parse(&with("store", &format!("url = {url:?}"))).unwrap().store
    {
        Store::Postgres(postgres) => postgres.endpoint,
        Store::Sqlite(_) => panic!("{url} is not PostgreSQL"),
    };
    let tcp = |host: &str, port, tls| Endpoint::Tcp { host: host.into(), port, tls };
    let verified = || StoreTls::VerifyFull { ca_file: None };
    let table = [
        ("postgres://a@db/b", tcp("db", 5432, verified())),
        ("postgresql://a@db:6000/b?sslmode=verify-full", tcp("db", 6000, verified())),
        ("postgres://a@127.0.0.1:1/b?sslmode=disable", tcp("127.0.0.1", 1, StoreTls::Off)),
        ("postgres://a@[::1]/b", tcp("::1", 5432, verified())),
        (
            "postgres:///b?host=/run/postgresql&user=a",
            Endpoint::Socket { dir: "/run/postgresql".into(), port: 5432 },
        ),
    ];
    for (url, expected) in table {
        assert_eq!(endpoint(url), expected, "{url}");
    }
}

#[test]
fn no_ceremony_takes_fewer_than_two_administrators() {
    assert_eq!(parse(LEAST).unwrap().ceremonies.administrators, 2);
    let three = parse(&with("ceremonies", "administrators = 3")).unwrap();
    assert_eq!(three.ceremonies.administrators, 3);
    for few in ["administrators = 0", "administrators = 1", "administrators = 11"] {
        let refused = parse(&with("ceremonies", few)).unwrap_err().to_string();
        assert!(refused.contains("ceremonies.administrators"), "{refused}");
    }
}

/// What is said of a line that is refused.
fn refusal(section: &str, line: &str) -> String {
    let error = parse(&with(section, line)).expect_err(line).to_string();
    assert!(!error.contains("hunter2") && !error.contains("1234"), "{error} quotes a secret");
    let one_line = !error.contains('\n') && !error.ends_with('.');
    assert!(error.starts_with("test.toml") && one_line, "{error}");
    error
}

#[test]
fn bad_configurations_are_refused_with_key_and_advice() {
    let table = [
        ("vault", "nam = 1", "vault.nam: unknown key; [vault] takes trust_domain, name"),
        ("vualt", "", "vualt: unknown section; there are server, vault, hsm"),
        ("server", "grpc_listen = \"localhost\"", "server.grpc_listen: must be an address and"),
        ("server", "grpc_listen = 7200", "server.grpc_listen: must be an address and port"),
        ("server", "data_dir = \"var\"", "server.data_dir: must be an absolute path"),
        ("server", "data_dir = \"/var/../etc\"", "server.data_dir: must be an absolute path"),
        ("server", "tls_cert_file = \"/a\"", "server.tls_key_file: missing; tls_cert_file needs"),
        ("server", "tls_key_file = \"/a\"", "server.tls_cert_file: missing; tls_key_file needs"),
        ("server", "server_names = []", "server.server_names: must be a list of 1 to 32 names"),
        ("server", "server_names = [\"*.a\"]", "server.server_names: must be a list of 1 to 32"),
        ("server", "server_names = [\"A.a\"]", "server.server_names: must be a list of 1 to 32"),
        ("server", "drain_timeout_s = 0", "server.drain_timeout_s: must be a whole number from 1"),
        ("server", "drain_timeout_s = \"9\"", "server.drain_timeout_s: must be a whole number"),
        ("server", "drain_timeout_s = -1", "server.drain_timeout_s: must be a whole number"),
        ("hsm", "pin = \"1234\"", "hsm.pin: unknown key; [hsm] takes module, token_label"),
        ("hsm", "pin_file = \"pin\"", "hsm.pin_file: must be an absolute path"),
        ("hsm", "pin_file = \"/p\"\npin_fd = 3", "hsm.pin_fd: pin_file is there too; keep one"),
        ("hsm", "pin_fd = -1", "hsm.pin_fd: must be a whole number from 0 to 65535"),
        ("hsm", "pin_credential = \"../x\"", "hsm.pin_credential: must be the name of a systemd"),
        ("hsm", "pin_credential = \"pin\"", "hsm.pin_credential: systemd passed no credentials"),
        ("hsm", "token_serial = \"1\"", "hsm.token_serial: token_label is there too; keep one"),
        ("hsm", "environment = { LD_PRELOAD = \"/x\" }", "hsm.environment: must be a table of"),
        ("hsm", "environment = { A = 1 }", "hsm.environment: must be a table of environment"),
        ("store", "url = \"mysql://a@b/c\"", "store.url: must be sqlite:///absolute/path or"),
        ("store", "url = \"sqlite://vault.db\"", "store.url: must be sqlite:///absolute/path or"),
        ("store", "url = \"sqlite:///a?mode=rw\"", "store.url: must be sqlite:///absolute/path"),
        ("store", "url = \"postgres://a:hunter2@b/c\"", "store.url: carries a password; change"),
        ("store", "url = \"postgres://b/c\"", "store.url: names no user"),
        ("store", "url = \"postgres://a@b\"", "store.url: names no database"),
        ("store", "url = \"postgres:///c?user=a\"", "store.url: names no host"),
        ("store", "url = \"postgres://a@b/c?sslmode=prefer\"", "store.url: sslmode must be"),
        ("store", "url = \"postgres://a@b/c?options=x\"", "store.url: takes only the parameters"),
        ("store", "url = \"postgres://a@b/c?user=d\"", "store.url: names a user twice"),
        ("store", "url = \"postgres:///c?user=a&user=b\"", "store.url: says a parameter twice"),
        ("store", "url = \"postgres://a@b/c?host=/d\"", "store.url: names a host twice"),
        ("store", "url = \"postgres:///c?host=d&user=a\"", "store.url: the parameter host must be"),
        ("store", "postgres_lanes = 4", "store.postgres_lanes: does not go with the store"),
        ("store", "password_file = \"/a\"", "store.password_file: does not go with the store"),
        (
            "store",
            "url = \"postgres://a@b/c\"\nsqlite_reserve_mib = 4",
            "store.sqlite_reserve_mib: does not go with the store",
        ),
        (
            "store",
            "sqlite_max_size_mib = 100\nsqlite_reserve_mib = 51",
            "store.sqlite_reserve_mib: more than half of sqlite_max_size_mib",
        ),
        ("login", "certificate_ttl_s = 2592001", "login.certificate_ttl_s: more than certifi"),
        ("limits", "message_max_kib = 1089", "limits.message_max_kib: must be a whole number"),
        ("limits", "streams_per_connection = 0", "limits.streams_per_connection: must be a"),
        ("limits", "wrapped_per_identity_max_mib = 1", "limits.wrapped_per_identity_max_mib: must"),
        ("log", "format = \"xml\"", "log.format: must be \"json\" or \"text\""),
        ("log", "level = \"INFO\"", "log.level: must be \"error\", \"warn\""),
        ("telemetry", "otlp_endpoint = \"https://a\"", "telemetry.otlp_endpoint: must be a"),
        ("telemetry", "otlp_endpoint = \"http://a:b@c\"", "telemetry.otlp_endpoint: must be a"),
        ("pki", "crl_url = \"ftp://a/b\"", "pki.crl_url: must be an address"),
        ("pki", "crl_url = \"http://a:b@c/d\"", "pki.crl_url: must be an address"),
        ("pki", "crl_url = \"http://a/b c\"", "pki.crl_url: must be an address"),
        ("record", "origin = \"a b\"", "record.origin: must be a name like"),
        ("record", "origin = \"https://a+b\"", "record.origin: must be a name like"),
        ("record", "checkpoint_interval_ms = 1001", "record.checkpoint_interval_ms: must be a"),
    ];
    for (section, line, expected) in table {
        let error = refusal(section, line);
        assert!(error.contains(expected), "{line}\n  got  {error}\n  want {expected}");
    }
}

#[test]
fn sinks_that_are_not_safe_or_not_whole_are_refused() {
    let mail = "host = \"mail.test\"\nfrom = \"v@a.test\"\ncopy_to = [\"s@a.test\"]\n";
    let hook = "key_file = \"/k\"\nurl = ";
    let table = [
        ("notices", "give_up_after_s = 604801".to_owned(), "notices.give_up_after_s: must be a"),
        ("notices", "give_up_after_s = 3599".to_owned(), "notices.give_up_after_s: must be a"),
        ("notices", "texts = { \"a\" = \"\" }".to_owned(), "notices.texts: must be a table of"),
        ("webhook", "url = \"https://a.test\"".to_owned(), "webhook.key_file: missing"),
        ("webhook", "key_file = \"/k\"".to_owned(), "webhook.url: missing"),
        ("webhook", "key = \"whsec_1234\"".to_owned(), "webhook.key: unknown key"),
        ("webhook", format!("{hook}\"http://a.test/\""), "webhook.url: must be an address"),
        ("webhook", format!("{hook}\"http://localhost/\""), "webhook.url: must be an address"),
        ("webhook", format!("{hook}\"http://10.0.0.1/\""), "webhook.url: must be an address"),
        ("webhook", format!("{hook}\"https://a:hunter2@b.test/\""), "webhook.url: must be an"),
        ("webhook", format!("{hook}\"file:///etc/passwd\""), "webhook.url: must be an address"),
        ("webhook", "private_address = 1".to_owned(), "webhook.private_address: must be true or"),
        ("mail", "from = \"v@a.test\"".to_owned(), "mail.host: missing"),
        ("mail", "host = \"mail.test\"".to_owned(), "mail.from: missing"),
        ("mail", mail.replace("copy_to = [\"s@a.test\"]", ""), "mail.copy_to: missing"),
        ("mail", mail.replace("\"s@a.test\"", ""), "mail.copy_to: must be a list of 1 to 16"),
        ("mail", mail.replace("v@a.test", "v@a.test>\\r\\nRCPT"), "mail.from: must be an address"),
        ("mail", mail.replace("mail.test", "a b"), "mail.host: must be a host name"),
        ("mail", format!("{mail}tls = \"off\""), "mail.tls: may be off only where"),
        ("mail", format!("{mail}tls = \"maybe\""), "mail.tls: must be \"starttls\""),
        ("mail", format!("{mail}user = \"v\""), "mail.password_file: missing"),
        ("mail", format!("{mail}password_file = \"/p\""), "mail.user: missing"),
        ("mail", format!("{mail}people = {{ \"a\" = \"b\" }}"), "mail.people: must be a table of"),
        (
            "mail",
            format!("{mail}groups = {{ \"A B\" = \"b@c.test\" }}"),
            "mail.groups: must be a table",
        ),
        ("mail", format!("{mail}domain = \"a b\""), "mail.domain: must be a domain"),
    ];
    for (section, lines, expected) in table {
        let error = parse(&with(section, &lines)).expect_err(&lines).to_string();
        assert!(error.contains(expected), "{lines}\n  got  {error}\n  want {expected}");
        assert!(!error.contains("hunter2") && !error.contains("1234"), "{error} quotes a secret");
    }
    let loopback = mail.replace("mail.test", "::1");
    for (section, lines) in [
        ("webhook", format!("{hook}\"http://127.0.0.1:8080/in\"")),
        ("webhook", format!("{hook}\"http://[::1]/in\"")),
        ("mail", format!("{loopback}tls = \"off\"\ngroups = {{ \"a\" = \"b@c.test\" }}")),
    ] {
        parse(&with(section, &lines)).expect(&lines);
    }
}

#[test]
fn what_is_required_is_asked_for() {
    let table = [
        ("trust_domain = \"vault.example.org\"", "vault.trust_domain: missing"),
        ("name = \"main\"", "vault.name: missing"),
        ("module = \"/usr/lib/softhsm/libsofthsm2.so\"", "hsm.module: missing"),
        ("token_label = \"strongroom\"", "hsm.token_label: missing"),
    ];
    for (line, expected) in table {
        let error = parse(&LEAST.replace(line, "")).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.line(), None);
    }
}

#[test]
fn names_that_are_not_canonical_are_refused() {
    for domain in ["", "A.example", "a b", "10.0.0.1", "a..b", "-a", "*.a", "a/b", "a\\u0000"] {
        let text = LEAST.replace("vault.example.org", domain);
        let error = parse(&text).expect_err(domain);
        assert_eq!(error.key(), Some("vault.trust_domain"), "{domain}");
    }
    for name in ["", "Main", "a b", "a/b", "..", "*"] {
        let text = LEAST.replace("\"main\"", &format!("{name:?}"));
        assert_eq!(parse(&text).expect_err(name).key(), Some("vault.name"), "{name}");
    }
}

#[test]
fn errors_name_the_line() {
    let error = parse(&with("log", "level = \"loud\"")).unwrap_err();
    assert_eq!(error.line(), Some(LEAST.lines().count() + 2));
    let error = parse("[vault]\nname = main\n").unwrap_err().to_string();
    assert!(error.starts_with("test.toml:2: not TOML: "), "{error}");
    let error = parse("[vault]\nname = \"a\"\nname = \"b\"\n").unwrap_err().to_string();
    assert!(error.starts_with("test.toml:3: not TOML: "), "{error}");
}

#[test]
fn a_file_that_anybody_may_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("cannot be opened") && error.contains("--config"), "{error}");
    fs::write(&path, LEAST).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("anybody may write to it; run chmod o-w on it"), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    Config::load(&path).unwrap();
}

fn secret_file(dir: &Path, mode: u32, bytes: &[u8]) -> PathBuf {
    let path = dir.join(format!("secret-{mode:o}-{}", bytes.len()));
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn secrets_are_read_from_files_that_only_the_owner_reads() {
    let dir = tempfile::tempdir().unwrap();
    let read = |mode, bytes: &[u8]| {
        SecretSource::file("hsm.pin_file", secret_file(dir.path(), mode, bytes)).read()
    };
    assert_eq!(read(0o600, b"12 34\n").unwrap().expose(), b"12 34");
    assert_eq!(read(0o400, b"1234\r\n").unwrap().expose(), b"1234");
    assert_eq!(read(0o600, b"1\n\n").unwrap().expose(), b"1\n");
    assert_eq!(read(0o600, &vec![7; MAX_SECRET_BYTES]).unwrap().len_bytes(), MAX_SECRET_BYTES);
    let long = vec![7; MAX_SECRET_BYTES + 1];
    let refused: [(u32, &[u8], &str); 6] = [
        (0o604, b"1234", "may be read by others; run chmod 600 on it"),
        (0o640, b"1234", "may be read by others"),
        (0o666, b"1234", "may be read by others"),
        (0o600, b"", "is empty"),
        (0o600, b"\n", "is empty"),
        (0o600, &long, "holds more than 65536 bytes"),
    ];
    for (mode, bytes, expected) in refused {
        let error = read(mode, bytes).unwrap_err().to_string();
        assert!(error.contains("hsm.pin_file") && error.contains(expected), "{error}");
        assert!(!error.contains("1234"), "{error}");
    }
    for (path, expected) in [("absent", "cannot be opened"), (".", "is not a file")] {
        let error = SecretSource::file("k", dir.path().join(path)).read().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn secrets_are_read_from_a_file_descriptor() {
    use std::os::fd::AsRawFd;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"from a descriptor\n").unwrap();
    let config = parse(&with("hsm", &format!("pin_fd = {}", file.as_raw_fd()))).unwrap();
    assert_eq!(config.hsm.pin.unwrap().read().unwrap().expose(), b"from a descriptor");
    let config = parse(&with("hsm", "pin_fd = 60000")).unwrap();
    let error = config.hsm.pin.unwrap().read().unwrap_err().to_string();
    assert!(error.starts_with("test.toml: hsm.pin_fd: cannot be opened"), "{error}");
}

#[test]
fn secrets_are_read_from_systemd_credentials() {
    let dir = tempfile::tempdir().unwrap();
    // systemd's ACL for the unit's user shows as group bits.
    let path = secret_file(dir.path(), 0o440, b"credential");
    let name = path.file_name().unwrap().to_str().unwrap();
    let environment = Environment { credentials_dir: Some(dir.path().into()) };
    let text = with("hsm", &format!("pin_credential = {name:?}"));
    let config = Config::parse(Path::new("test.toml"), &text, &environment).unwrap();
    assert_eq!(config.hsm.pin.unwrap().read().unwrap().expose(), b"credential");
}

#[test]
fn dev_keeps_everything_in_its_directory_and_on_loopback() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::for_dev(dir.path()).unwrap();
    assert!(config.server.is_loopback());
    assert_eq!(config.server.data_dir, dir.path());
    assert_eq!(config.server.control_socket, dir.path().join("control.sock"));
    assert_eq!(
        config.store,
        Store::Sqlite(Sqlite {
            path: dir.path().join("vault.db"),
            max_size_mib: 1024,
            reserve_mib: 64
        })
    );
    let conf = dir.path().join("softhsm2.conf");
    assert_eq!(config.hsm.environment["SOFTHSM2_CONF"], conf.to_str().unwrap());
    assert_eq!(config.hsm.environment_missing()["SOFTHSM2_CONF"], conf.to_str().unwrap());
    assert_eq!((config.log.format, config.log.level), (LogFormat::Text, LogLevel::Info));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it created something");

    let error = Config::for_dev(&dir.path().join("d".repeat(100))).unwrap_err().to_string();
    assert!(error.contains("choose a shorter directory"), "{error}");
}
