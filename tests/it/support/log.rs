//! What is logged: shown where a test fails, and kept for tests that look for an alarm, whichever
//! thread it is told on. All tests of the process share it: look for what only yours can say.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::fmt::TestWriter;

static KEPT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// The log from a moment on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log(usize);

impl Log {
    /// Begins to keep it, or goes on.
    pub(crate) fn begin() -> Self {
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(Tee::default);
        // A second one finds it set.
        let _set = log.with_max_level(tracing::Level::WARN).try_init();
        Self(KEPT.lock().unwrap_or_else(PoisonError::into_inner).len())
    }

    /// What was logged since.
    pub(crate) fn text(self) -> String {
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept[self.0..]).into_owned()
    }
}

#[derive(Default)]
struct Tee(TestWriter);

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        self.0.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}
