/// How request bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all: the default for `/groups`, where Mixpanel documents no other.
    #[default]
    None,
    /// With gzip, of this level.
    #[cfg(feature = "gzip")]
    #[non_exhaustive]
    Gzip {
        /// From 1 (fastest) to 9 (smallest).
        level: u32,
    },
}

/// Below this many bytes a body is sent as it is.
///
/// Measured with typical updates of 200 bytes: a body of 1,030 bytes becomes 247 at level 6 in
/// 14 µs, most of which is the encoder's start. On any line slower than 440 Mbit/s, sending what
/// that saves takes longer; for a body of 209 bytes, which becomes 170, on lines below 27 Mbit/s
/// only. One of up to about this size fits into the first packet anyway.
#[cfg(feature = "gzip")]
const WORTH_IT: usize = 1024;

impl Compression {
    /// gzip of a level from 1 (fastest) to 9 (smallest); others count as the nearest of these.
    #[cfg(feature = "gzip")]
    #[must_use]
    pub fn gzip(level: u32) -> Self {
        Self::Gzip {
            level: level.clamp(1, 9),
        }
    }

    /// Of requests to `/import`, where Mixpanel welcomes gzip.
    #[cfg(feature = "gzip")]
    pub(crate) const OF_EVENTS: Self = Self::Gzip { level: 6 };
    #[cfg(not(feature = "gzip"))]
    pub(crate) const OF_EVENTS: Self = Self::None;

    /// The body as it is to go out, in `packed` if it is worth it; whether it was.
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
