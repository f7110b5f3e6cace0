//! Keeps Mixpanel group profiles in sync with your own structs.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod absent;
mod changes;
mod encode;
mod error;
mod group;
mod id;
mod json;
mod list;
mod mixpanel_group;
mod object;
mod operation;
mod property;
mod rejection;
mod update;
mod visit;

pub use changes::Changes;
pub use error::Error;
pub use group::Group;
pub use id::{GroupId, Id};
pub use list::List;
pub use mixpanel_group::MixpanelGroup;
pub use operation::Operation;
pub use property::Property;
pub use rejection::Rejection;
pub use update::{Update, Updates};

#[cfg(feature = "derive")]
pub use mixpanel_groups_derive::MixpanelGroup;

/// For generated code only: no part of the public interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::json::EncodeError;
    pub use crate::visit::{Field, SerializeField, Visitor, Walk, id, unless};
    pub use core::primitive::str;
    pub use core::result::Result::{self, Ok};
    pub use serde::{Serialize, Serializer};
}
