//! `strongroom dev`, as somebody who tries it for the first time sees it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use strongroom::crypto::{hotp, otp_step, parse_base32};
use strongroom::types::{Clock as _, SecretBytes, SystemClock};

use crate::support::program::{as_admin, dev, program, text};

#[test]
fn dev_serves_its_administrator_and_continues_at_the_second_start() {
    let dir = tempfile::tempdir().unwrap();
    let first = dev(dir.path());
    let whoami = as_admin(&first, "whoami --output json");
    assert!(whoami.status.success(), "{}", text(&whoami.stderr));
    let whoami: Value = serde_json::from_slice(&whoami.stdout).unwrap();
    assert_eq!(whoami["identity"], "admin");
    assert_eq!(whoami["administrator"], true);
    assert!(first.log().contains("SoftHSM keys are files"), "it is said plainly");
    assert!(first.log().contains("export STRONGROOM_ADDR=https://127.0.0.1:"));
    for (file, mode) in [("admin.key", 0o600), ("pin", 0o600), ("vault.db", 0o600)] {
        let about = fs::metadata(dir.path().join(file)).unwrap();
        assert_eq!(about.permissions().mode() & 0o077 & !mode, 0, "{file}");
    }
    assert_eq!(first.http("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(first.http("/readyz").0, 200);
    let metrics = first.http("/metrics").1;
    let line = "strongroom_requests_total{rpc=\"IdentityService/WhoAmI\",code=\"OK\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    assert!(!metrics.contains("admin"), "metrics name nobody");
    let cert = fs::read(dir.path().join("admin.pem")).unwrap();

    let beside = program().arg("dev").arg("--dir").arg(dir.path()).output().unwrap();
    assert!(text(&beside.stderr).contains("another server"), "{}", text(&beside.stderr));

    let pin = fs::read_to_string(dir.path().join("pin")).unwrap();
    assert!(!first.log().contains(pin.trim()));
    assert_eq!(first.stop(), Some(0));
    let second = dev(dir.path());
    assert!(as_admin(&second, "whoami").status.success());
    assert_eq!(fs::read(dir.path().join("admin.pem")).unwrap(), cert, "it is not near its end");

    // A certificate that is lost is issued again, for the key that is there.
    assert_eq!(second.stop(), Some(0));
    fs::remove_file(dir.path().join("admin.pem")).unwrap();
    let third = dev(dir.path());
    assert!(as_admin(&third, "whoami").status.success());
    assert_eq!(third.stop(), Some(0));
}

#[test]
fn dev_registers_a_second_human_whose_printed_secret_makes_codes_that_count() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path());
    let file = std::path::Path::new(server.said("second_totp_file"));
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        fs::metadata(server.said("second_key_file")).unwrap().permissions().mode() & 0o77,
        0
    );
    let secret = fs::read_to_string(file).unwrap();
    let shown = format!("an authenticator app with the secret {}", secret.trim());
    assert!(server.log().contains(&shown), "{}", server.log());
    let as_second = |line: &str| {
        let mut command = program();
        command
            .args(line.split(' '))
            .env("STRONGROOM_ADDR", format!("https://{}", server.said("grpc_addr")))
            .env("STRONGROOM_CACERT", server.said("ca_file"))
            .env("STRONGROOM_CERT", server.said("second_cert_file"))
            .env("STRONGROOM_KEY", server.said("second_key_file"));
        let whole = command.output().unwrap();
        assert!(whole.status.success(), "{line}: {}", text(&whole.stderr));
        serde_json::from_slice::<Value>(&whole.stdout).unwrap()
    };
    let me = as_second("whoami --output json");
    assert_eq!((&me["identity"], &me["administrator"]), (&"second".into(), &true.into()));
    let bytes = SecretBytes::new(parse_base32(&secret.trim().to_lowercase()).unwrap());
    let step = u64::try_from(otp_step(SystemClock.now())).unwrap();
    let code = String::from_utf8(hotp(&bytes, step).unwrap().digits().to_vec()).unwrap();
    let proven = as_second(&format!("factor verify {code} --output json"));
    assert_eq!(proven["factor"]["kind"], "totp");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn sealing_refuses_everything_but_health_until_it_is_unsealed() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path());
    let socket = dir.path().join("control.sock");
    let local =
        |line: &str| program().args(line.split(' ')).arg("--socket").arg(&socket).output().unwrap();
    assert!(local("status").status.success());
    let sealed = as_admin(&server, "seal --reason drill");
    assert!(sealed.status.success(), "{}", text(&sealed.stderr));
    let refused = as_admin(&server, "whoami");
    assert_eq!(refused.status.code(), Some(8));
    assert!(text(&refused.stderr).contains("SEALED"), "{}", text(&refused.stderr));
    let shown = local("status --output json");
    assert_eq!((shown.status.code(), shown.stderr.as_slice()), (Some(8), &b""[..]), "told once");
    assert_eq!(serde_json::from_slice::<Value>(&shown.stdout).unwrap()["state"], "sealed");
    assert_eq!(server.http("/readyz"), (503, "sealed\n".to_owned()));
    assert_eq!(server.http("/healthz").0, 200);
    assert_eq!(server.stop(), Some(0));

    let again = dev(dir.path());
    assert_eq!(as_admin(&again, "whoami").status.code(), Some(8), "a restart obeys the seal");
    let unsealed = local("unseal");
    assert!(unsealed.status.success(), "{}", text(&unsealed.stderr));
    assert!(as_admin(&again, "whoami").status.success());
    assert_eq!(local("unseal").status.code(), Some(7), "there is nothing to unseal");
    assert_eq!(again.stop(), Some(0));
    let third = dev(dir.path());
    assert!(as_admin(&third, "whoami").status.success(), "the seal is off the record");
}

#[test]
fn groups_are_listed_and_a_role_is_removed_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path());
    let run = |line: &str| {
        let output = as_admin(&server, line);
        let said = text(&output.stdout) + &text(&output.stderr);
        (output.status.code(), said)
    };
    let (code, said) = run("group list");
    assert_eq!((code, said.contains("administrators")), (Some(0), true), "{said}");
    assert_eq!(run("pki role put web --dns a.example").0, Some(0));
    let (code, said) = run("pki role remove web");
    assert_eq!((code, said.starts_with("removed:")), (Some(0), true), "{said}");
    let (code, said) = run("pki role remove web");
    assert_eq!((code, said.contains("role list")), (Some(5), true), "{said}");
    let (code, said) = run("pki role list --output json");
    assert_eq!((code, said.trim()), (Some(0), "[]"));
    assert_eq!(run("db remove nothing").0, Some(5));
    assert_eq!(run("db role remove nothing/reader").0, Some(5));
}
