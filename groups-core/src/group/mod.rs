//! Which group, and what is done with which property: [`Group`], [`Id`], [`Operation`] and
//! [`Property`]. Data without behavior: nothing in here encodes, sends or keeps anything.

mod group;
pub(crate) mod id;
pub(crate) mod operation;
pub(crate) mod property;

pub use self::group::Group;
pub use self::id::{GroupId, Id};
pub use self::operation::Operation;
pub use self::property::Property;
