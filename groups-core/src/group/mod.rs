//! What an update is about: a [`Group`] with its [`Id`], an [`Operation`] and a [`Property`]. Data without behavior:
//! nothing in this room encodes, sends or stores anything.

mod group;
pub(crate) mod id;
pub(crate) mod operation;
pub(crate) mod property;

pub use self::group::Group;
pub use self::id::{GroupId, Id};
pub use self::operation::Operation;
pub use self::property::Property;
