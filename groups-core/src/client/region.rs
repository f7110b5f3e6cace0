use std::fmt;
use std::str::FromStr;

use crate::record::Error;

/// The region that stores a project's data. It determines the host to send to.
///
/// ([Mixpanel's base URLs](https://developer.mixpanel.com/reference/ingestion-api))
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Region {
    /// `https://api.mixpanel.com`
    #[default]
    Us,
    /// `https://api-eu.mixpanel.com`
    Eu,
    /// `https://api-in.mixpanel.com`
    In,
}

impl Region {
    /// Returns the scheme and host of the region.
    #[must_use]
    pub fn endpoint(self) -> &'static str {
        match self {
            Self::Us => "https://api.mixpanel.com",
            Self::Eu => "https://api-eu.mixpanel.com",
            Self::In => "https://api-in.mixpanel.com",
        }
    }
}

/// Writes `us`, `eu` or `in`.
impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Us => "us",
            Self::Eu => "eu",
            Self::In => "in",
        })
    }
}

/// Reads `us`, `eu` or `in`, in upper or lower case.
impl FromStr for Region {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name.to_ascii_lowercase().as_str() {
            "us" => Ok(Self::Us),
            "eu" => Ok(Self::Eu),
            "in" => Ok(Self::In),
            _ => Err(Error::config(format!(
                "unknown region {name:?}: expected us, eu or in"
            ))),
        }
    }
}
