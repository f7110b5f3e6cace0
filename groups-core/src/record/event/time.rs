use std::time::{SystemTime, UNIX_EPOCH};

use serde_core::{Serialize, Serializer};

/// The time of an event: see [`Event::time`](crate::Event::time).
///
/// Made from a [`SystemTime`], from a number of seconds or milliseconds, or from an integer of either unit: it is in
/// seconds or in milliseconds since 1970, whichever lies between 1971 and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub(crate) i64);

impl Time {
    /// Returns the time of so many seconds since 1970.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Returns the time of so many milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(milliseconds: i64) -> Self {
        Self(milliseconds)
    }
}

/// In milliseconds.
impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let millis = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()),
            Err(before) => i64::try_from(before.duration().as_millis()).map(|millis| -millis),
        };
        Self(millis.unwrap_or(i64::MAX))
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl From<$type> for Time {
            fn from(time: $type) -> Self {
                // No time beyond these numbers is valid, so that which one it was does not matter.
                Self(i64::try_from(time).unwrap_or(i64::MAX))
            }
        }
    )*};
}

integers!(i32, u32, i64, u64, i128, u128);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}
