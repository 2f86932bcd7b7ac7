//! `strongroom doctor`: looks at everything that a server needs, changes nothing, and says of each
//! thing what is wrong and what to do.

mod host;
mod vault;

use std::sync::Arc;

use serde::Serialize;

use super::assemble;
use super::run::{environment, in_runtime};
use crate::cli::{DoctorArgs, Exit, Failure, Format, Global, Outcome, json_text, print, table};
use crate::config::Config;
use crate::hsm::Pkcs11Hsm;
use crate::hsm::pkcs11::PinState;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// It works, and should be better.
    Warning,
    /// A server does not start, or must not.
    Wrong,
}

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    found: String,
    /// What to do; empty where there is nothing to do.
    advice: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), advice: String::new() }
    }

    fn warning(check: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self { check, level: Level::Warning, found: found.into(), advice: advice.to_owned() }
    }

    fn wrong(check: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self { check, level: Level::Wrong, found: found.into(), advice: advice.to_owned() }
    }
}

/// Looks, prints, and fails when something is wrong.
pub(super) fn run(global: &Global, args: &DoctorArgs) -> Outcome {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            let advice = "correct the file; every key is explained in docs/configuration.md";
            return show(global, &[Finding::wrong("configuration", error.to_string(), advice)]);
        }
    };
    environment(&config, None)?;
    in_runtime(&config, true, async {
        let mut findings = vec![Finding::ok("configuration", args.config.display().to_string())];
        findings.extend(host::examine(&config));
        let (token, found) = examine_token(&config).await;
        findings.extend(found);
        findings.extend(vault::examine(&config, token).await);
        show(global, &findings)
    })
}

/// Looks at module and token; gives the token where it can be used.
async fn examine_token(config: &Config) -> (Option<Arc<Pkcs11Hsm>>, Vec<Finding>) {
    let token = match assemble::token(config) {
        Ok(token) => token,
        Err(error) => {
            let advice = "name a PKCS#11 library in hsm.module that belongs to root or this user";
            return (None, vec![Finding::wrong("hsm module", error.to_string(), advice)]);
        }
    };
    let probe = match token.probe().await {
        Ok(probe) => probe,
        Err(error) => {
            let advice = "check hsm.token_label or hsm.token_serial, and hsm.environment";
            let module = Finding::ok("hsm module", config.hsm.module.display().to_string());
            return (None, vec![module, Finding::wrong("hsm token", error.to_string(), advice)]);
        }
    };
    let mut findings = vec![Finding::ok(
        "hsm module",
        format!("{} ({}), SHA-256 {}", probe.module, probe.library.trim(), probe.module_sha256),
    )];
    let name =
        format!("{} ({}, serial {})", probe.token_label, probe.token_model, probe.token_serial);
    findings.push(match probe.require() {
        Ok(()) => Finding::ok("hsm token", name),
        Err(error) => Finding::wrong("hsm token", error.to_string(), "use another kind of HSM"),
    });
    findings.push(match probe.pin {
        PinState::Fine => Finding::ok("hsm pin state", "set"),
        PinState::CountLow => Finding::warning(
            "hsm pin state",
            "wrong PINs were tried since the last login",
            "find out who tried; a right login clears it",
        ),
        PinState::FinalTry => Finding::wrong(
            "hsm pin state",
            "one more wrong PIN locks the token",
            "make sure of the PIN, then run `strongroom unseal --force`",
        ),
        PinState::Locked => {
            Finding::wrong("hsm pin state", "locked", "the token's security officer resets the PIN")
        }
        PinState::Unset => Finding::wrong(
            "hsm pin state",
            "never set",
            "initialise the token's user PIN (C_InitPIN)",
        ),
    });
    let usable = !findings.iter().any(|finding| finding.level == Level::Wrong);
    (usable.then_some(token), findings)
}

fn show(global: &Global, findings: &[Finding]) -> Outcome {
    let text = match global.output {
        Format::Json => json_text(&findings),
        Format::Human => {
            let rows = findings.iter().map(|finding| {
                let level = match finding.level {
                    Level::Ok => "ok",
                    Level::Warning => "warning",
                    Level::Wrong => "WRONG",
                };
                [
                    finding.check.to_owned(),
                    level.to_owned(),
                    finding.found.clone(),
                    finding.advice.clone(),
                ]
            });
            table(["CHECK", "RESULT", "FOUND", "WHAT TO DO"], rows)
        }
    };
    print(&text)?;
    match findings.iter().filter(|finding| finding.level == Level::Wrong).count() {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Invalid, "1 thing is wrong").told()),
        count => Err(Failure::new(Exit::Invalid, format!("{count} things are wrong")).told()),
    }
}
