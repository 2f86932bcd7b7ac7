//! A person signs in by their company's provider: in a browser on this machine, or with a code on
//! another device; and gets a login certificate for a key of this machine, where they want one.

use std::path::{Path, PathBuf};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use zeroize::Zeroizing;

use super::browser::{self, Expected, Return};
use crate::cli::credentials::shell_quote;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::files::{check_new, read_text, write_private, write_public};
use crate::cli::output::{escape_lines, note};
use crate::cli::session::{Session, idempotency_key};
use crate::cli::span::Span;
use crate::engines::issuers::{Asked, Doors, NoToken, Polled, Way, nonce_of};
use crate::proto::identity_service_client::IdentityServiceClient;
use crate::proto::issuer_service_client::IssuerServiceClient;
use crate::proto::{IssueLoginCertificateRequest, ListProvidersRequest, Provider};
use crate::types::{Entropy as _, SystemEntropy};

/// What `login` takes of a person.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct PersonArgs {
    /// The issuer to sign in by, as the vault calls it; the one that there is where it is left out.
    #[arg(long, value_name = "NAME", conflicts_with = "way")]
    issuer: Option<String>,
    /// Sign in on another device, with a code that is printed here.
    #[arg(long, conflicts_with = "way")]
    device: bool,
    /// Open no browser; the address is printed anyway.
    #[arg(long, conflicts_with_all = ["way", "device"])]
    no_browser: bool,
    /// Sign in anew where that was longer ago, like 5m.
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["way", "device"])]
    max_age: Option<Span>,
    /// A new file for a login certificate that ends with the session, and its chain.
    #[arg(long, value_name = "FILE", requires = "key_out", conflicts_with = "way")]
    certificate: Option<PathBuf>,
    /// A new file for its private key, readable by you alone.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key_out: Option<PathBuf>,
}

/// A person's token, and what it is bound to.
pub(super) struct SignedIn {
    pub(super) token: Zeroizing<String>,
    pub(super) proof: Zeroizing<String>,
    issuer: String,
}

impl PersonArgs {
    /// The files for a certificate and its key.
    pub(super) fn files(&self) -> Option<(&Path, &Path)> {
        self.certificate.as_deref().zip(self.key_out.as_deref())
    }

    /// Checks that these files can be made.
    pub(super) fn check(&self) -> Outcome {
        let files = self.files().map(|(one, other)| [one, other]);
        files.iter().flatten().try_for_each(|file| check_new(file))
    }
}

/// Signs in: the authorities of the provider are in a file where one is named.
pub(super) async fn sign_in(
    session: &Session,
    args: &PersonArgs,
    authorities: Option<&Path>,
) -> Outcome<SignedIn> {
    let provider = choose(session, args.issuer.as_deref()).await?;
    if args.device && !provider.device_codes {
        return Err(Failure::usage(format!("{} takes no codes of other devices", provider.name))
            .hint("an administrator says so with `strongroom issuer update NAME --device`"));
    }
    let ca_pem = match authorities {
        Some(file) => read_text(file)?.to_string(),
        None => provider.ca_pem.clone(),
    };
    let doors = Doors::find(&provider.url, &ca_pem).await.map_err(|why| {
        Failure::new(Exit::Unavailable, format!("nobody signs in by {}: {why}", provider.name))
    })?;
    let proof = random()?;
    let nonce = nonce_of(&proof);
    let asked = Asked {
        client_id: &provider.client_id,
        scopes: &provider.scopes,
        nonce: &nonce,
        max_age_s: args.max_age.map(Span::seconds),
    };
    let token = if args.device {
        by_device(&doors, asked).await?
    } else {
        by_browser(&doors, asked, &provider.url, !args.no_browser).await?
    };
    Ok(SignedIn { token, proof, issuer: provider.name })
}

/// Finds whom to sign in by: the one that is named, or the only one.
async fn choose(session: &Session, name: Option<&str>) -> Outcome<Provider> {
    let listed = session
        .call(ListProvidersRequest {}, async |wire, request| {
            IssuerServiceClient::new(wire).list_providers(request).await
        })
        .await?;
    let mut providers = listed.providers;
    let names: Vec<_> = providers.iter().map(|one| one.name.clone()).collect();
    providers.retain(|one| name.is_none_or(|name| one.name == name));
    match (providers.pop(), providers.is_empty(), names.as_slice()) {
        (Some(only), true, _) => Ok(only),
        (None, _, []) => Err(Failure::usage("people sign in by no provider here").hint(
            "an administrator adds one with `strongroom issuer add NAME --preset people`; jobs say \
             where their token is",
        )),
        (Some(_) | None, ..) => {
            let choice = format!("name one with --issuer: {}", names.join(", "));
            Err(Failure::usage("the provider is not clear").hint(choice))
        }
    }
}

/// Sends a browser to the provider, and trades the code that it comes back with.
async fn by_browser(
    doors: &Doors,
    asked: Asked<'_>,
    issuer: &str,
    opens: bool,
) -> Outcome<Zeroizing<String>> {
    let back = Return::open().await?;
    let (redirect_uri, state, verifier) = (back.uri(), random()?, random()?);
    let way = Way { redirect_uri: &redirect_uri, state: &state, verifier: &verifier };
    let url = doors.sign_in_at(asked, way);
    let url = url.map_err(|why| Failure::new(Exit::Unavailable, why))?;
    note("sign in with a browser on this machine:");
    note(&url);
    if opens {
        browser::open(&url);
    }
    let expected = Expected { state: &state, issuer, says_issuer: doors.says_issuer };
    let code = back.code(expected).await?;
    doors.redeem(asked, way, &code).await.map_err(failed)
}

/// Asks for a code for another device, and waits until somebody typed it there.
async fn by_device(doors: &Doors, asked: Asked<'_>) -> Outcome<Zeroizing<String>> {
    let code = doors.start_device(asked).await.map_err(failed)?;
    note(&format!("open {} on any device and type {}", code.verification_uri, code.user_code));
    if let Some(uri) = &code.complete_uri {
        note(&format!("or open {uri}"));
    }
    let (began, mut interval) = (Instant::now(), code.interval);
    while began.elapsed().saturating_add(interval) <= code.lasts {
        tokio::time::sleep(interval).await;
        match doors.poll_device(asked, &code, interval).await.map_err(failed)? {
            Polled::Token(token) => return Ok(token),
            Polled::Wait(longer) => interval = longer,
        }
    }
    Err(Failure::new(Exit::Unavailable, "nobody typed the code in time"))
}

fn failed(why: NoToken) -> Failure {
    match why {
        NoToken::Refused(word) => {
            Failure::new(Exit::Unauthenticated, format!("the provider let nobody in: {word}"))
        }
        NoToken::Trouble(why) => {
            Failure::new(Exit::Unavailable, format!("the provider gave no token: {why}"))
        }
    }
}

/// Draws 256 bits that nobody guesses.
fn random() -> Outcome<Zeroizing<String>> {
    let mut random = Zeroizing::new([0_u8; 32]);
    SystemEntropy.fill(random.as_mut_slice())?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(random.as_slice())))
}

impl SignedIn {
    /// Says to somebody who is not let in what an administrator needs to know of them. It is what the
    /// token says, and the vault alone looks at whether that is true.
    pub(super) fn explain(&self, failure: Failure, identity: &str) -> Failure {
        let sub = subject(&self.token).filter(|_| failure.exit == Exit::Unauthenticated);
        let Some(sub) = sub else { return failure };
        // Whoever named the account may have chosen it, and an administrator pastes this.
        let claim = shell_quote(&format!("sub={sub}"));
        failure.hint(format!(
            "{issuer} calls you `{sub}`; an administrator lets that in with `strongroom issuer rule \
             add {issuer} --identity {identity} --claim {claim}`",
            issuer = self.issuer
        ))
    }
}

/// Reads what a token calls whom it is about.
fn subject(token: &str) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    claims.get("sub")?.as_str().map(str::to_owned)
}

/// Gets a login certificate for a key that is made here, with a session; it ends with that.
pub(super) async fn certify(session: &Session, name: &str, files: (&Path, &Path)) -> Outcome<i64> {
    let failed = |error: rcgen::Error| {
        Failure::new(Exit::Unexpected, format!("no key could be made: {error}"))
    };
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key).and_then(|request| request.pem());
    let request = IssueLoginCertificateRequest {
        idempotency_key: idempotency_key()?,
        name: name.to_owned(),
        csr_pem: csr.map_err(failed)?,
        ttl_s: 0,
    };
    let issued = session
        .call(request, async |wire, request| {
            IdentityServiceClient::new(wire).issue_login_certificate(request).await
        })
        .await?;
    let chain =
        format!("{}{}", escape_lines(&issued.certificate_pem), escape_lines(&issued.chain_pem));
    write_private(files.1, &Zeroizing::new(key.serialize_pem()))?;
    write_public(files.0, chain.as_bytes())?;
    Ok(issued.expires_at_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_who_is_not_let_in_hears_what_the_provider_calls_them() {
        let of = |sub: &str, exit| {
            let payload = serde_json::json!({ "sub": sub }).to_string();
            let token = Zeroizing::new(format!("h.{}.s", URL_SAFE_NO_PAD.encode(payload)));
            let proof = random().unwrap();
            assert_eq!(proof.len(), 43);
            let signed_in = SignedIn { token, proof, issuer: "corp".to_owned() };
            signed_in.explain(Failure::new(exit, "no"), "alice").hint
        };
        let hostile = "a'; rm -rf ~; '";
        for (sub, quoted) in
            [("auth0|1", "'sub=auth0|1'"), (hostile, r"'sub=a'\''; rm -rf ~; '\'''")]
        {
            let hint = of(sub, Exit::Unauthenticated).unwrap();
            assert!(hint.ends_with(&format!("--identity alice --claim {quoted}`")), "{hint}");
        }
        assert_eq!(of("auth0|1", Exit::Unavailable), None);
        assert_eq!(subject("a.b"), None);
    }
}
