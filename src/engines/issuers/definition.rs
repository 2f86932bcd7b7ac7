//! What is known of an issuer. Must not know its rules, nor how keys are fetched.

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::jwk::KeySet;
use crate::error::{Error, Result};
use crate::types::{Preset, Replay, SignatureAlgorithm};

/// Bytes of a URL, an audience, a file of authorities, a file of keys.
const TEXT: usize = 512;
const FILE: usize = 256 * 1_024;
/// Bytes of the authorities of a provider by which people sign in: everybody who signs in is sent
/// them.
const SENT: usize = 16 * 1_024;
/// Scopes that are asked for.
const SCOPES: usize = 20;
/// The scope without which there is no ID token (`OpenID` Connect Core 1.0, section 3.1.2.1).
const OPENID: &str = "openid";

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeySource {
    /// From where its discovery document says, at its own address.
    Discovery,
    /// From an address that an administrator named.
    Url(String),
    /// From a file that an administrator gave.
    File(String),
}

/// Where a cluster is asked whether it still stands behind a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Review {
    /// The address of its API server.
    pub url: String,
    /// The authorities that its certificate may come from, PEM; the public ones where empty.
    pub ca_pem: String,
}

/// What is known of an issuer besides its name and its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerDefinition {
    /// What its tokens look like.
    pub preset: String,
    /// Whom its tokens must be for: us.
    pub audience: String,
    /// What they may be signed with.
    pub algorithms: Vec<String>,
    /// What keeps one from being used again.
    pub replay: String,
    /// Where its keys come from.
    pub keys: KeySource,
    /// The authorities that its certificate may come from, PEM; the public ones where empty.
    pub ca_pem: String,
    /// Whether it may be at a private address.
    pub private: bool,
    /// Where its cluster is asked of each token; none where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<Review>,
    /// Of a provider by which people sign in: what their programs ask it for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Of such a one: whether somebody may sign in with a code on another device, whose tokens
    /// nothing has to bind to who asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub device: bool,
}

impl IssuerDefinition {
    /// Reads what a row holds.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn read(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(Error::internal)
    }

    /// Writes what a row holds.
    ///
    /// # Errors
    /// [`Error::Internal`], which this type excludes.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(Error::internal)
    }

    /// What its tokens look like.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a word that there is not.
    pub fn preset(&self) -> Result<Preset> {
        self.preset.parse()
    }

    /// What keeps a token from being used again.
    ///
    /// # Errors
    /// As [`IssuerDefinition::preset`].
    pub fn replay(&self) -> Result<Replay> {
        self.replay.parse()
    }

    /// What its tokens may be signed with.
    ///
    /// # Errors
    /// As [`IssuerDefinition::preset`].
    pub fn algorithms(&self) -> Result<Vec<SignatureAlgorithm>> {
        self.algorithms.iter().map(|word| word.parse()).collect()
    }

    /// Fills in what was left out, and checks that the issuer may exist.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what is wrong.
    pub fn checked(mut self, url: &str) -> Result<Self> {
        if self.preset.is_empty() {
            Preset::Generic.as_str().clone_into(&mut self.preset);
        }
        let preset = self.preset()?;
        let address = check_url("the issuer's URL", url, self.private || !self.fetches())?;
        // Whoever signs in is bound by `sub`, which no job has.
        let of_jobs = preset_of(&address).filter(|_| preset != Preset::People);
        if let Some(own) = of_jobs.filter(|own| *own != preset) {
            return Err(Error::invalid(format!(
                "that is {own}'s own issuer, whose tokens anybody can get: it wants the preset {own}"
            )));
        }
        if self.replay.is_empty() {
            usual_replay(preset).as_str().clone_into(&mut self.replay);
        }
        if self.replay()? == Replay::Bound && preset != Preset::Kubernetes {
            return Err(Error::invalid("only tokens of kubernetes are bound to a pod"));
        }
        if self.algorithms.is_empty() {
            self.algorithms.push(SignatureAlgorithm::Rs256.to_string());
        }
        let algorithms = self.algorithms()?;
        let mut once = algorithms.clone();
        once.sort_unstable();
        once.dedup();
        if once.len() != algorithms.len() {
            return Err(Error::invalid("an algorithm is named once"));
        }
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if self.audience.is_empty() || self.audience.len() > TEXT || !plain(&self.audience) {
            return Err(Error::invalid(
                "name the audience that its tokens are to carry: 1 to 512 visible ASCII characters \
                 that stand for this vault alone",
            ));
        }
        if self.ca_pem.len() > FILE {
            return Err(Error::invalid("a file of authorities has at most 256 KiB"));
        }
        self.check_people(preset)?;
        match &self.keys {
            KeySource::Discovery => {}
            KeySource::Url(url) => check_url("the URL of the keys", url, self.private).map(drop)?,
            KeySource::File(keys) => {
                if keys.len() > FILE {
                    return Err(Error::invalid("a file of keys has at most 256 KiB"));
                }
                KeySet::parse(keys.as_bytes(), &algorithms).map_err(Error::invalid)?;
            }
        }
        self.check_review(preset)?;
        Ok(self)
    }

    fn check_review(&self, preset: Preset) -> Result<()> {
        let Some(review) = &self.review else { return Ok(()) };
        if preset != Preset::Kubernetes {
            return Err(Error::invalid("only clusters, of the preset kubernetes, review tokens"));
        }
        if review.ca_pem.len() > FILE {
            return Err(Error::invalid("a file of authorities has at most 256 KiB"));
        }
        check_url("the URL of the API server", &review.url, self.private).map(drop)
    }

    /// Fills in and checks what is said of a provider by which people sign in, and of no other.
    fn check_people(&mut self, preset: Preset) -> Result<()> {
        if preset != Preset::People {
            return if self.scopes.is_empty() && !self.device {
                Ok(())
            } else {
                Err(Error::invalid("scopes and device codes are for people, whom no job asks"))
            };
        }
        if self.ca_pem.len() > SENT {
            return Err(Error::invalid("the authorities of a provider have at most 16 KiB"));
        }
        if !self.scopes.iter().any(|scope| scope == OPENID) {
            self.scopes.insert(0, OPENID.to_owned());
        }
        // RFC 6749, section 3.3.
        let letter = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        let plain = |scope: &String| (1..=TEXT).contains(&scope.len()) && scope.bytes().all(letter);
        if self.scopes.len() > SCOPES || !self.scopes.iter().all(plain) {
            return Err(Error::invalid(format!(
                "a scope is one word of visible ASCII characters, and there are at most {SCOPES}"
            )));
        }
        Ok(())
    }

    /// Tells whether anything is fetched from it.
    pub(super) fn fetches(&self) -> bool {
        !matches!(self.keys, KeySource::File(_))
    }
}

/// What the tokens of an issuer look like that serves everybody: under another preset a rule need not
/// bind whose job it is.
fn preset_of(address: &Url) -> Option<Preset> {
    match address.host_str() {
        Some("token.actions.githubusercontent.com") => Some(Preset::GitHub),
        Some("gitlab.com") => Some(Preset::GitLab),
        Some(_) | None => None,
    }
}

/// What keeps the tokens of a preset from being used again where nobody says.
const fn usual_replay(preset: Preset) -> Replay {
    match preset {
        // Of the providers of people some say no `jti`.
        Preset::GitHub | Preset::GitLab | Preset::People => Replay::Hash,
        Preset::Kubernetes => Replay::Bound,
        Preset::Generic => Replay::Once,
    }
}

/// Reads an address over HTTPS that is written as it is compared.
pub(super) fn check_url(what: &str, text: &str, private: bool) -> Result<Url> {
    let unfit = || {
        Error::invalid(format!(
            "{what} is https://HOST[:PORT][/PATH], in canonical form, of at most {TEXT} bytes"
        ))
    };
    let url = Url::parse(text).map_err(|_malformed| unfit())?;
    let canonical = url.as_str() == text || url.as_str().strip_suffix('/') == Some(text);
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let host = url.host().ok_or_else(unfit)?;
    if url.scheme() != "https" || text.len() > TEXT || !canonical || !bare {
        return Err(unfit());
    }
    let inside = match host {
        Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback() || address.is_private(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    if inside && !private {
        return Err(Error::invalid(format!(
            "{what} leads to a private address; say so with --private where that is meant"
        )));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> IssuerDefinition {
        IssuerDefinition {
            preset: String::new(),
            audience: "vault".to_owned(),
            algorithms: vec![],
            replay: String::new(),
            keys: KeySource::Discovery,
            ca_pem: String::new(),
            private: false,
            review: None,
            scopes: vec![],
            device: false,
        }
    }

    #[test]
    fn what_people_are_asked_for_is_said_of_their_providers_alone() {
        let scopes = |preset: &str, scopes: &[&str]| {
            let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
            let one = IssuerDefinition { preset: preset.to_owned(), scopes, ..definition() };
            one.checked("https://login.example.org").map(|one| one.scopes)
        };
        assert_eq!(scopes("people", &[]).unwrap(), ["openid"]);
        assert_eq!(scopes("people", &["email"]).unwrap(), ["openid", "email"]);
        assert_eq!(scopes("people", &["email", "openid"]).unwrap(), ["email", "openid"]);
        for (preset, asked) in [
            ("generic", &["email"][..]),
            ("people", &["a b"]),
            ("people", &[""]),
            ("people", &["a\"b"]),
            ("people", &["x"; 21]),
        ] {
            assert!(scopes(preset, asked).is_err(), "{preset} {asked:?}");
        }
        let device = IssuerDefinition { device: true, ..definition() };
        assert!(device.checked("https://login.example.org").is_err());
        let large = "A".repeat(SENT + 1);
        let large = IssuerDefinition { preset: "people".to_owned(), ca_pem: large, ..definition() };
        assert!(large.checked("https://login.example.org").is_err());
    }

    #[test]
    fn what_is_left_out_is_filled_in_by_the_preset() {
        for (preset, replay) in [
            ("github", "hash"),
            ("gitlab", "hash"),
            ("people", "hash"),
            ("kubernetes", "bound"),
            ("", "once"),
        ] {
            let one = IssuerDefinition { preset: preset.to_owned(), ..definition() };
            let one = one.checked("https://issuer.example.org").unwrap();
            assert_eq!(
                (one.replay.as_str(), one.algorithms.as_slice()),
                (replay, &["RS256".to_owned()][..])
            );
            assert_eq!(IssuerDefinition::read(&one.to_json().unwrap()), Ok(one));
        }
    }

    #[test]
    fn what_must_not_be_believed_is_refused() {
        let refused = |change: &dyn Fn(&mut IssuerDefinition)| {
            let mut one = definition();
            change(&mut one);
            matches!(one.checked("https://issuer.example.org"), Err(Error::Invalid(_)))
        };
        assert!(refused(&|one| one.audience.clear()));
        assert!(refused(&|one| one.audience = "a b".to_owned()));
        for bad in ["none", "HS256", "rs256", ""] {
            assert!(refused(&|one| one.algorithms = vec![bad.to_owned()]), "{bad}");
        }
        assert!(refused(&|one| one.algorithms = vec!["RS256".to_owned(), "RS256".to_owned()]));
        assert!(refused(&|one| "bound".clone_into(&mut one.replay)));
        assert!(refused(&|one| one.keys = KeySource::File("{\"keys\":[]}".to_owned())));
        assert!(refused(&|one| one.keys = KeySource::Url("http://a.example.org/k".to_owned())));
        let review = |url: &str| Some(Review { url: url.to_owned(), ca_pem: String::new() });
        assert!(refused(&|one| one.review = review("https://api.example.org")));
        for (url, fits) in [("https://api.example.org", true), ("https://10.0.0.1:6443", false)] {
            let preset = "kubernetes".to_owned();
            let one = IssuerDefinition { preset, review: review(url), ..definition() };
            assert_eq!(one.checked("https://issuer.example.org").is_ok(), fits, "{url}");
        }
    }

    #[test]
    fn an_issuer_that_serves_everybody_has_its_own_preset() {
        let github = "https://token.actions.githubusercontent.com";
        for (url, preset, fits) in [
            (github, "github", true),
            (github, "generic", false),
            (github, "gitlab", false),
            (github, "", false),
            ("https://token.actions.githubusercontent.com/acme", "generic", false),
            ("https://gitlab.com", "gitlab", true),
            ("https://gitlab.com", "people", true),
            ("https://gitlab.com", "generic", false),
            ("https://gitlab.example.org", "generic", true),
        ] {
            let one = IssuerDefinition { preset: preset.to_owned(), ..definition() };
            assert_eq!(one.checked(url).is_ok(), fits, "{url} as {preset:?}");
        }
    }

    #[test]
    fn an_address_is_https_canonical_and_public_unless_said() {
        let check = |text: &str, private| check_url("it", text, private).is_ok();
        assert!(check("https://gitlab.com", false) && check("https://a.example.org:8443/x", false));
        for bad in [
            "http://gitlab.com",
            "https://user@gitlab.com",
            "https://gitlab.com?x",
            "https://gitlab.com#x",
            "https://GitLab.com",
            "https://gitlab.com:443",
            "https://gitlab.com/a/../b",
            " https://gitlab.com",
            "gitlab.com",
            "",
        ] {
            assert!(!check(bad, true), "{bad}");
        }
        for inside in
            ["https://127.0.0.1:1", "https://localhost", "https://10.0.0.1", "https://[::1]"]
        {
            assert!(!check(inside, false) && check(inside, true), "{inside}");
        }
    }
}
