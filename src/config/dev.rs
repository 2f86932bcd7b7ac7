//! The configuration of `strongroom dev`, made up from a directory.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::server::fits_socket;
use super::{
    Config, ConfigError, Environment, LogFormat, LogLevel, SecretSource, Sqlite, Store, TokenName,
};

/// Where distributions put SoftHSM.
const SOFTHSM: &[&str] = &[
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

const TEXT: &str = r#"
[vault]
trust_domain = "dev.strongroom.internal"
name = "dev"
[hsm]
module = "/usr/lib/softhsm/libsofthsm2.so"
token_label = "strongroom-dev"
"#;

pub(super) fn config(dir: &Path) -> Result<Config, ConfigError> {
    let dir = std::path::absolute(dir)
        .map_err(|e| ConfigError::of_file(dir, format!("no path for a directory: {e}")))?;
    let fault = |what: &str| ConfigError::of_file(&dir, what);
    let Some(text) = dir.to_str() else {
        return Err(fault("not UTF-8; choose another directory"));
    };
    let mut config = Config::parse(Path::new("built in"), TEXT, &Environment::default())?;
    let module = SOFTHSM.iter().map(Path::new).find(|path| path.exists());
    let module = module.ok_or_else(|| {
        fault("needs SoftHSM, which is not installed; run apt-get install softhsm2")
    })?;

    // Port 0: the system chooses, and --ready-file tells.
    config.server.grpc_listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.server.http_listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.server.control_socket = dir.join("control.sock");
    if !fits_socket(&config.server.control_socket) {
        return Err(fault("too long a path for a Unix socket; choose a shorter directory"));
    }
    config.hsm.module = module.to_owned();
    config.hsm.token = TokenName::Label("strongroom-dev".to_owned());
    config.hsm.pin = Some(SecretSource::file("hsm.pin_file", dir.join("pin")));
    let softhsm_conf = format!("{text}/softhsm2.conf");
    config.hsm.environment.insert("SOFTHSM2_CONF".to_owned(), softhsm_conf);
    config.store =
        Store::Sqlite(Sqlite { path: dir.join("vault.db"), max_size_mib: 1024, reserve_mib: 64 });
    config.log.format = LogFormat::Text;
    config.log.level = LogLevel::Info;
    config.server.data_dir = dir;
    Ok(config)
}
