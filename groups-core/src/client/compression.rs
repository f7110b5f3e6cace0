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
        /// From 1 (fastest) to 9 (smallest). 1 and 2 are the same.
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

/// The level of zlib-rs for level 1. Its own level 1 has no Huffman codes of the body's: with typical updates, bodies
/// are 15 % larger than of flate2's default backend at level 1, and at level 2 they are 12 % smaller.
#[cfg(feature = "gzip")]
const LEAST_LEVEL: u32 = 2;

/// The size of the window as gzip has it, 32 KB, and that it is gzip.
#[cfg(feature = "gzip")]
const WINDOW_BITS: i32 = 15 + 16;

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
}

/// Compresses bodies one after the other, with the same memory.
#[cfg_attr(not(feature = "gzip"), allow(dead_code))]
pub(super) struct Packer {
    compression: Compression,
    #[cfg(feature = "gzip")]
    gzip: Option<zlib_rs::Deflate>,
    /// The body that was compressed last, and room for more.
    packed: Vec<u8>,
    length: usize,
}

impl Packer {
    pub(super) fn new(compression: Compression) -> Self {
        Self {
            compression,
            #[cfg(feature = "gzip")]
            gzip: None,
            packed: Vec::new(),
            length: 0,
        }
    }

    /// Compresses nothing from now on.
    pub(super) fn stop(&mut self) {
        self.compression = Compression::None;
    }

    /// Compresses again.
    pub(super) fn start(&mut self, compression: Compression) {
        self.compression = compression;
    }

    /// Compresses the body if that is worth it, and returns whether it did.
    #[cfg(feature = "gzip")]
    pub(super) fn pack(&mut self, body: &[u8]) -> bool {
        use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Status};

        let Compression::Gzip { level } = self.compression else {
            return false;
        };
        if body.len() < WORTH_IT {
            return false;
        }
        let gzip = self.gzip.get_or_insert_with(|| {
            Deflate::new_with_config(DeflateConfig {
                level: i32::try_from(level.max(LEAST_LEVEL)).expect("at most 9"),
                window_bits: WINDOW_BITS,
                ..DeflateConfig::default()
            })
        });
        gzip.reset();
        self.length = 0;
        let (mut read, mut is_complete) = (0, false);
        while !is_complete {
            if self.length == self.packed.len() {
                self.packed.resize(self.length + body.len() / 8, 0);
            }
            let room = &mut self.packed[self.length..];
            match gzip.compress(&body[read..], room, DeflateFlush::Finish) {
                Ok(status) => is_complete = status == Status::StreamEnd,
                // Never seen; the body can be sent as it is.
                Err(_) => return false,
            }
            let total = |bytes| usize::try_from(bytes).expect("no more than memory holds");
            (read, self.length) = (total(gzip.total_in()), total(gzip.total_out()));
        }
        true
    }

    #[cfg(not(feature = "gzip"))]
    #[allow(clippy::unused_self)]
    pub(super) fn pack(&mut self, _body: &[u8]) -> bool {
        false
    }

    /// Returns the body that was compressed last.
    pub(super) fn packed(&self) -> &[u8] {
        &self.packed[..self.length]
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

#[cfg(all(test, feature = "gzip"))]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    /// Bytes that can be compressed to little, some or all of their size.
    #[allow(clippy::cast_possible_truncation)] // What is left is enough.
    fn body(size: usize, kind: u8, mut seed: u64) -> Vec<u8> {
        let bytes = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match kind {
                0 => b'a',
                1 => b"[{\"$token\":,}]"[(seed >> 60) as usize % 14],
                _ => (seed >> 56) as u8,
            }
        });
        bytes.take(size).collect()
    }

    fn unpacked(packed: &[u8]) -> Vec<u8> {
        let mut rest = packed;
        let mut body = Vec::new();
        let mut decoder = flate2::bufread::GzDecoder::new(&mut rest);
        decoder.read_to_end(&mut body).unwrap();
        assert!(rest.is_empty(), "one member, and nothing behind it");
        body
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6))]

        #[test]
        fn what_is_unpacked_is_the_body_whatever_was_packed_before(
            level in 1..=9_u32,
            bodies in prop::collection::vec(
                (
                    prop_oneof![
                        5 => 0..3_000_usize,
                        5 => 0..200_000_usize,
                        1 => 4_000_000..5_000_000_usize,
                    ],
                    0..3_u8,
                    any::<u64>(),
                ),
                1..5,
            ),
        ) {
            let mut packer = Packer::new(Compression::gzip(level));
            for (size, kind, seed) in bodies {
                let body = body(size, kind, seed);
                let is_packed = packer.pack(&body);
                prop_assert_eq!(is_packed, size >= WORTH_IT);
                if is_packed {
                    prop_assert!(unpacked(packer.packed()) == body, "{} bytes of kind {}", size, kind);
                }
            }
        }
    }
}
