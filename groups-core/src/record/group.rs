//! The six operations of a [`Group`], without a struct.

use std::str::FromStr;

use serde_core::Serialize;

use crate::group::{Group, Operation};
use crate::json::escape::push_str;
use crate::json::object::{Names, Object, check_name, write_value};
use crate::json::{EncodeError, Sink, Written, close};
use crate::record::encode::write_update;
use crate::record::{Error, MixpanelGroup, Update};
use crate::util::Buffer;

/// The six operations. Each encodes its update at once.
impl Group<'_> {
    /// Returns a `$set`, which creates or overwrites properties, and creates the group.
    pub fn set(&self, properties: impl Serialize) -> Update<'static> {
        self.object(Operation::Set, properties)
    }

    /// Returns a `$set_once`, which sets only properties that do not exist yet, and creates the group.
    pub fn set_once(&self, properties: impl Serialize) -> Update<'static> {
        self.object(Operation::SetOnce, properties)
    }

    /// Returns a `$union`, which adds items to list properties, each kept once, and creates the group.
    ///
    /// Every property is a list, its items text or numbers.
    pub fn union(&self, properties: impl Serialize) -> Update<'static> {
        self.object(Operation::Union, properties)
    }

    /// Returns an `$unset`, which removes the properties of these names: `acme.unset(["coupon"])`, in brackets also for one.
    /// Without names it is empty and is not sent.
    pub fn unset<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) -> Update<'static> {
        self.update(Operation::Unset, |out| {
            let start = out.len();
            for name in names {
                check_name(name.as_ref())?;
                out.push(b',');
                push_str(out, name.as_ref());
            }
            close(out, start, *b"[]");
            Ok(())
        })
    }

    /// Returns a `$remove`, which removes one item, `value`, from the list property `name`. Mixpanel cuts text
    /// items at 255 bytes, so it does not find a longer one.
    pub fn remove(&self, name: &str, value: impl Serialize) -> Update<'static> {
        self.update(Operation::Remove, |out| {
            check_name(name)?;
            let start = out.len();
            out.push(b',');
            push_str(out, name);
            out.push(b':');
            match write_value(out, Operation::Remove, &value).map_err(|error| error.of(name))? {
                Written::Null => out.truncate(start),
                Written::Value => close(out, start, *b"{}"),
            }
            Ok(())
        })
    }

    /// Returns a `$delete`, which deletes the whole group profile.
    pub fn delete(&self) -> Update<'static> {
        self.update(Operation::Delete, |out| {
            out.extend_from_slice(b"\"\"");
            Ok(())
        })
    }

    fn object(&self, operation: Operation, properties: impl Serialize) -> Update<'static> {
        self.update(operation, |out| {
            let start = out.len();
            let object = Object {
                out,
                operation,
                names: &mut Names::new(&[]),
            };
            object.write(&properties)?;
            close(out, start, *b"{}");
            Ok(())
        })
    }

    /// Returns an update of this group. `write` appends the operation's value, if there is one.
    fn update(
        &self,
        operation: Operation,
        write: impl FnOnce(&mut Buffer) -> Result<(), EncodeError>,
    ) -> Update<'static> {
        let mut json = Buffer::default();
        let written = write_update(&mut json, self, operation, |out, start| {
            out.set_len(start);
            write(out).map(|()| out.len())
        });
        Update::encoded(json.into_vec(), written)
    }
}

/// The group that a struct maps to.
impl<'a, T: MixpanelGroup> From<&'a T> for Group<'a> {
    fn from(group: &'a T) -> Self {
        group.group()
    }
}

/// Reads the name on the wire: `$set`.
impl FromStr for Operation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let names = || Self::ALL.iter().map(|operation| operation.name());
        Self::from_name(name).ok_or_else(|| {
            let names = names().collect::<Vec<_>>().join(", ");
            Error::config(format!(
                "unknown operation {name:?}: expected one of {names}"
            ))
        })
    }
}
