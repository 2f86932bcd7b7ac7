//! The log, to standard error, and traces to an OTLP collector where one is configured.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::config::{Log, LogFormat, LogLevel, Telemetry};
use crate::error::{Error, Result};

/// The target of spans: exported where a collector is configured, never logged, and free otherwise.
pub const SPANS: &str = "strongroom::spans";

/// Keeps traces going; stopping it sends what waits.
#[derive(Debug)]
pub struct Tracing(Option<SdkTracerProvider>);

impl Tracing {
    /// Sends what waits. Blocks for as long as a collector takes, at most a few seconds.
    pub fn stop(self) {
        if let Some(provider) = self.0
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "traces that waited were lost");
        }
    }
}

/// Starts both, once in a process, within its runtime.
///
/// # Errors
/// [`Error::Precondition`] when the collector's address is unusable.
pub fn start(log: &Log, telemetry: &Telemetry) -> Result<Tracing> {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Libraries may log what they carry, frames and headers included: of them only warnings.
    // `cryptoki` calls every mechanism that it has no name for an error, and `rustls` warns of
    // each client that names an address in its handshake: both would fill the log for nothing.
    let ours = || {
        Targets::new()
            .with_target("strongroom", level)
            .with_target(SPANS, LevelFilter::OFF)
            .with_target("cryptoki", LevelFilter::OFF)
            .with_target("rustls", LevelFilter::ERROR)
            .with_default(LevelFilter::WARN)
    };
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).with_filter(ours()).boxed(),
        LogFormat::Text => lines.with_ansi(false).with_filter(ours()).boxed(),
    };
    let provider = telemetry.otlp_endpoint.as_deref().map(exporter).transpose()?;
    let spans = provider.as_ref().map(|provider| {
        let spans = Targets::new().with_target(SPANS, LevelFilter::INFO);
        tracing_opentelemetry::layer().with_tracer(provider.tracer("strongroom")).with_filter(spans)
    });
    tracing_subscriber::registry()
        .with(lines)
        .with(spans)
        .try_init()
        .map_err(|_set| Error::internal("a log was started before"))?;
    Ok(Tracing(provider))
}

fn exporter(endpoint: &str) -> Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|error| Error::precondition(format!("telemetry.otlp_endpoint: {error}")))?;
    let resource = Resource::builder().with_service_name("strongroom").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}
