//! What is logged. A test that looks at it has a process of its own, which has one logger.

use std::sync::Mutex;

/// The warnings that were logged.
pub struct Warnings(Mutex<Vec<String>>);

static WARNINGS: Warnings = Warnings(Mutex::new(Vec::new()));

impl Warnings {
    /// Begins to keep them.
    pub fn keep() -> &'static Self {
        Self::keep_from(log::LevelFilter::Warn)
    }

    /// Begins to keep them, with what is logged at lower levels.
    pub fn keep_from(level: log::LevelFilter) -> &'static Self {
        log::set_logger(&WARNINGS).unwrap();
        log::set_max_level(level);
        &WARNINGS
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        (log::Level::Warn..).contains(&metadata.level()) && metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}
