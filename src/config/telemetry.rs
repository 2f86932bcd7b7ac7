//! `[telemetry]`: where traces go.

use url::Url;

use super::ConfigError;
use super::reader::Document;

pub(super) const SECTION: &str = "telemetry";
pub(super) const KEYS: &[&str] = &["otlp_endpoint"];

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// An OTLP collector over gRPC without TLS; none exports nothing.
    pub otlp_endpoint: Option<String>,
}

pub(super) fn read(document: &Document<'_>) -> Result<Telemetry, ConfigError> {
    let section = document.section(SECTION);
    let expected = "a collector's address like \"http://127.0.0.1:4317\", without TLS or password";
    let otlp_endpoint = section.parsed("otlp_endpoint", expected, |text| {
        let url = Url::parse(text).ok()?;
        let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        (url.scheme() == "http" && url.has_host() && bare).then(|| text.to_owned())
    })?;
    Ok(Telemetry { otlp_endpoint })
}
