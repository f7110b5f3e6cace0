use std::time::{SystemTime, UNIX_EPOCH};

use serde_core::{Serialize, Serializer};

use super::rules::FIRST_SECOND;

/// The time of an event: see [`Event::time`](crate::Event::time).
///
/// Made from a [`SystemTime`], from a number of seconds or milliseconds, or from an integer of either unit: in
/// milliseconds where that gives a time after 1970, else in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub(super) Since1970);

/// The number that is sent. Mixpanel has to guess its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since1970 {
    Secs(i64),
    Millis(i64),
}

impl Time {
    /// Returns the time of so many seconds since 1970.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self::from_millis(seconds.saturating_mul(1000))
    }

    /// Returns the time of so many milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(milliseconds: i64) -> Self {
        Self(Since1970::Millis(milliseconds))
    }
}

/// In milliseconds.
impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let millis = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()),
            Err(before) => i64::try_from(before.duration().as_millis()).map(|millis| -millis),
        };
        Self::from_millis(millis.unwrap_or(i64::MAX))
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl From<$type> for Time {
            fn from(time: $type) -> Self {
                // No time beyond these numbers is valid, so that which one it was does not matter.
                let number = i64::try_from(time).unwrap_or(i64::MAX);
                // In seconds, that would be a thousand years ahead.
                if number >= FIRST_SECOND * 1000 {
                    return Self::from_millis(number);
                }
                Self(Since1970::Secs(number))
            }
        }
    )*};
}

integers!(i32, u32, i64, u64, i128, u128);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (Since1970::Secs(number) | Since1970::Millis(number)) = self.0;
        serializer.serialize_i64(number)
    }
}
