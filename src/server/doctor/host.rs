//! The machine: directories, files, TLS, memory.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::Finding;
use crate::config::Config;
use crate::grpc::tls::ServerIdentity;
use crate::harden::{Measure, harden};
use crate::server::listener::RENEW_BEFORE;
use crate::server::pin::PinMemory;
use crate::types::{Clock as _, SystemClock};

/// Looks at all of it.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let server = &config.server;
    let mut findings = vec![data_dir(&server.data_dir), pin(config)];
    // Most often it is in the data directory, which was looked at.
    if let Some(parent) = server.control_socket.parent().filter(|dir| **dir != server.data_dir) {
        findings.push(directory("control socket", parent));
    }
    findings.push(tls(config));
    findings.extend(exposure(config));
    findings.extend(memory());
    findings
}

fn data_dir(path: &Path) -> Finding {
    let about = match path.metadata() {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let found = format!("{} is not there", path.display());
            return Finding::warning("data directory", found, "`strongroom init` makes it");
        }
        Err(error) => {
            let found = format!("{}: {error}", path.display());
            return Finding::wrong("data directory", found, "give the server's user access to it");
        }
    };
    let (mode, me) = (about.permissions().mode() & 0o777, rustix::process::geteuid().as_raw());
    if mode & 0o022 != 0 {
        let found = format!("others may write to {} (mode {mode:o})", path.display());
        return Finding::wrong("data directory", found, "run chmod 700 on it");
    }
    if about.uid() != me {
        let found = format!("{} belongs to user {}, not {me}", path.display(), about.uid());
        return Finding::wrong("data directory", found, "run chown on it, or run as its owner");
    }
    if mode & 0o077 != 0 {
        let found = format!("others may look into {} (mode {mode:o})", path.display());
        return Finding::warning("data directory", found, "run chmod 700 on it");
    }
    Finding::ok("data directory", path.display().to_string())
}

fn directory(check: &'static str, path: &Path) -> Finding {
    use rustix::fs::{Access, access};
    match access(path, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::ok(check, path.display().to_string()),
        Err(error) => {
            let found = format!("{} cannot be written to ({error})", path.display());
            Finding::wrong(check, found, "make the directory, for the server's user")
        }
    }
}

fn pin(config: &Config) -> Finding {
    const CHECK: &str = "pin source";
    if PinMemory::new(&config.server.data_dir).is_marked() {
        return Finding::wrong(
            CHECK,
            "a PIN was refused, or a try was cut off; none is tried by itself",
            "correct the source, then run `strongroom unseal --force`",
        );
    }
    match config.hsm.pin.as_ref().map(crate::config::SecretSource::read) {
        None => Finding::warning(
            CHECK,
            "none is configured: the server starts sealed",
            "run `strongroom unseal` after each start, or name a source in [hsm]",
        ),
        Some(Ok(_)) => Finding::ok(CHECK, "readable, by nobody else"),
        Some(Err(error)) => {
            Finding::wrong(CHECK, error.to_string(), "correct the file or its mode")
        }
    }
}

fn tls(config: &Config) -> Finding {
    const CHECK: &str = "tls";
    let Some(files) = &config.server.tls else {
        let names = config.server.server_names.join(", ");
        return Finding::ok(CHECK, format!("the vault issues its own, for {names}"));
    };
    let now = SystemClock.now();
    match ServerIdentity::load(&files.cert_file, &files.key_file, now) {
        Ok(identity) if identity.not_after().since(now) < RENEW_BEFORE => Finding::warning(
            CHECK,
            format!("the certificate ends at {}", identity.not_after()),
            "replace the files, then send SIGHUP",
        ),
        Ok(identity) => Finding::ok(CHECK, format!("valid until {}", identity.not_after())),
        Err(error) => Finding::wrong(CHECK, error.to_string(), "correct the files"),
    }
}

fn exposure(config: &Config) -> Option<Finding> {
    let listen = config.server.http_listen;
    (!listen.ip().is_loopback()).then(|| {
        Finding::warning(
            "http listener",
            format!("{listen} has neither TLS nor credentials"),
            "keep it on a private address",
        )
    })
}

fn memory() -> Vec<Finding> {
    let finding = |(name, measure): (&'static str, &Measure)| match measure {
        Measure::Done => Finding::ok(name, "yes"),
        Measure::NotDone(why) => Finding::warning(
            name,
            why.clone(),
            "start the server by the unit in deploy/, which lifts the limits",
        ),
    };
    harden().measures().into_iter().map(finding).collect()
}
