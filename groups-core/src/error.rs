use std::fmt;

use crate::rejection::Rejection;

/// placeholder
#[derive(Debug)]
pub struct Error(String);
impl Error {
    pub(crate) fn bug(e: impl fmt::Display) -> Self {
        Self(e.to_string())
    }
    pub(crate) fn invalid(r: &Rejection) -> Self {
        Self(r.to_string())
    }
}
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Error {}
