use std::fmt;
use std::str::FromStr;

use crate::record::Error;

/// The compression of request bodies.
///
/// As text: `none`, `gzip` (level 6) or `gzip:1` to `gzip:9`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// No compression: the default for `/groups`, for which Mixpanel documents none.
    #[default]
    None,
    /// gzip of this level.
    #[cfg(feature = "gzip")]
    #[non_exhaustive]
    Gzip {
        /// From 1 (fastest) to 9 (smallest).
        level: u32,
    },
}

/// A body of fewer bytes is not compressed.
///
/// Measured with typical updates of 200 bytes: a body of 1,030 bytes becomes 247 at level 6 in
/// 14 µs, most of which is the encoder's start. On any line slower than 440 Mbit/s, sending what
/// that saves takes longer; for a body of 209 bytes, which becomes 170, on lines below 27 Mbit/s
/// only. One of up to about this size fits into the first packet anyway.
#[cfg(feature = "gzip")]
const WORTH_IT: usize = 1024;

impl Compression {
    /// Returns gzip of a level from 1 (fastest) to 9 (smallest).
    /// [`ClientBuilder::build`](crate::ClientBuilder::build) refuses any other.
    #[cfg(feature = "gzip")]
    #[must_use]
    pub fn gzip(level: u32) -> Self {
        Self::Gzip { level }
    }

    /// The default for `/import`, where Mixpanel documents gzip.
    #[cfg(feature = "gzip")]
    pub(crate) const OF_EVENTS: Self = Self::Gzip { level: 6 };
    #[cfg(not(feature = "gzip"))]
    pub(crate) const OF_EVENTS: Self = Self::None;

    /// Checks the level.
    #[cfg_attr(
        not(feature = "gzip"),
        allow(clippy::unnecessary_wraps, clippy::unused_self)
    )]
    pub(crate) fn check(self) -> Result<(), Error> {
        match self {
            #[cfg(feature = "gzip")]
            Self::Gzip { level } if !(1..=9).contains(&level) => Err(Error::config(format!(
                "invalid gzip level {level}: expected 1 to 9"
            ))),
            _ => Ok(()),
        }
    }

    /// Compresses the body into `packed` if that is worth it, and returns whether it did.
    #[cfg_attr(
        not(feature = "gzip"),
        allow(unused_variables, clippy::ptr_arg, clippy::unused_self)
    )]
    pub(crate) fn pack(self, body: &[u8], packed: &mut Vec<u8>) -> bool {
        #[cfg(feature = "gzip")]
        if let Self::Gzip { level } = self {
            use std::io::Write as _;

            if body.len() < WORTH_IT {
                return false;
            }
            packed.clear();
            let level = flate2::Compression::new(level);
            let mut encoder = flate2::write::GzEncoder::new(packed, level);
            let written = encoder.write_all(body).and_then(|()| encoder.try_finish());
            return written.is_ok();
        }
        false
    }
}

/// Writes `none` or, for example, `gzip:6`.
impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            #[cfg(feature = "gzip")]
            Self::Gzip { level } => write!(f, "gzip:{level}"),
        }
    }
}

/// Reads `none`, `gzip` (level 6) or `gzip:1` to `gzip:9`.
impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "none" {
            return Ok(Self::None);
        }
        #[cfg(feature = "gzip")]
        {
            let level = match text.split_once(':') {
                None if text == "gzip" => Some(6),
                Some(("gzip", level)) => level.parse().ok(),
                _ => None,
            };
            if let Some(gzip) = level.map(Self::gzip).filter(|gzip| gzip.check().is_ok()) {
                return Ok(gzip);
            }
        }
        let expected = if cfg!(feature = "gzip") {
            "expected none, gzip or gzip:1 to gzip:9"
        } else {
            "expected none (gzip needs the feature `gzip`)"
        };
        Err(Error::config(format!(
            "unknown compression {text:?}: {expected}"
        )))
    }
}
