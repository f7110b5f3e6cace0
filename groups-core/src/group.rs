use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::encode::write_update;
use crate::escape::write_str;
use crate::json::{EncodeError, Written, close};
use crate::object::{Names, Object, check_name, write_value};
use crate::{Id, MixpanelGroup, Operation, Update};

/// Which group an update is for: its key, its id and, with Hierarchical Groups, its company's id.
///
/// Offers the six operations without a struct; properties come from any [`Serialize`] map or
/// struct:
///
/// ```
/// use mixpanel_groups::Group;
/// use serde_json::json;
///
/// let acme = Group::new("company", "acme_corp");
/// let update = acme.set(json!({"plan": "enterprise", "seats": 100}));
/// assert_eq!(
///     update.to_json()?,
///     r#"{"$group_key":"company","$group_id":"acme_corp","$set":{"plan":"enterprise","seats":100}}"#,
/// );
/// # Ok::<(), mixpanel_groups::Error>(())
/// ```
///
/// Names of properties have 1 to 255 characters; a value that serialises to `null` is left out.
///
/// Nothing here fails at once: an empty key or id, a name that is too long, or a value that cannot
/// be JSON, is reported when the update is sent, with the group's and the property's name.
/// ([Groups API](https://developer.mixpanel.com/reference/group-profiles))
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    key: Cow<'a, str>,
    id: Id<'a>,
    company_id: Option<Id<'a>>,
}

impl<'a> Group<'a> {
    /// The group `id` of the group key `key` (`"company"`, `"workspace"`), which must be listed in
    /// the project's settings under Group Keys.
    pub fn new(key: impl Into<Cow<'a, str>>, id: impl Into<Id<'a>>) -> Self {
        Self {
            key: key.into(),
            id: id.into(),
            company_id: None,
        }
    }

    /// The company that the group belongs to, in projects with Hierarchical Groups: `$company_id`
    /// on every update.
    #[must_use]
    pub fn in_company(mut self, id: impl Into<Id<'a>>) -> Self {
        self.company_id = Some(id.into());
        self
    }

    /// The group key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The group's id.
    #[must_use]
    pub fn id(&self) -> &Id<'a> {
        &self.id
    }

    /// The id of the company that the group belongs to.
    #[must_use]
    pub fn company_id(&self) -> Option<&Id<'a>> {
        self.company_id.as_ref()
    }

    /// The same group, free of what it borrowed.
    #[must_use]
    pub fn into_owned(self) -> Group<'static> {
        Group {
            key: Cow::Owned(self.key.into_owned()),
            id: self.id.into_owned(),
            company_id: self.company_id.map(Id::into_owned),
        }
    }

    /// The property that links an event to this group: its name is the group key, its value the
    /// id.
    ///
    /// For code that tracks events with something else than [`Event`](crate::Event), which makes
    /// the link itself:
    ///
    /// ```
    /// # use mixpanel_groups::Group;
    /// let mut properties = serde_json::Map::new();
    /// properties.extend([Group::new("company", "acme_corp").link()]);
    /// assert_eq!(properties["company"], "acme_corp");
    /// ```
    #[must_use]
    pub fn link(&self) -> (String, Value) {
        (self.key().to_owned(), Value::String(self.id.to_string()))
    }

    /// `$set`: creates or overwrites properties; creates the group.
    pub fn set(&self, properties: impl Serialize) -> Update<'static> {
        self.object(Operation::Set, properties)
    }

    /// `$set_once`: sets only properties that do not exist yet; creates the group.
    pub fn set_once(&self, properties: impl Serialize) -> Update<'static> {
        self.object(Operation::SetOnce, properties)
    }

    /// `$union`: adds items to list properties, each kept once; creates the group.
    ///
    /// Every property is a list, its items text or numbers.
    pub fn union(&self, properties: impl Serialize) -> Update<'static> {
        self.object(Operation::Union, properties)
    }

    /// `$unset`: removes the properties of these names. Without any, the update has nothing to say.
    pub fn unset<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) -> Update<'static> {
        self.update(Operation::Unset, |out| {
            let start = out.len();
            for name in names {
                check_name(name.as_ref())?;
                out.push(b',');
                write_str(out, name.as_ref());
            }
            close(out, start, *b"[]");
            Ok(())
        })
    }

    /// `$remove`: removes the item `value`, a single one, from the list property `name`.
    pub fn remove(&self, name: &str, value: impl Serialize) -> Update<'static> {
        self.update(Operation::Remove, |out| {
            check_name(name)?;
            let start = out.len();
            out.push(b',');
            write_str(out, name);
            out.push(b':');
            match write_value(out, Operation::Remove, &value).map_err(|error| error.of(name))? {
                Written::Null => out.truncate(start),
                Written::Value => close(out, start, *b"{}"),
            }
            Ok(())
        })
    }

    /// `$delete`: deletes the whole group profile.
    pub fn delete(&self) -> Update<'static> {
        self.update(Operation::Delete, |out| {
            out.extend_from_slice(b"\"\"");
            Ok(())
        })
    }

    fn object(&self, operation: Operation, properties: impl Serialize) -> Update<'static> {
        self.update(operation, |out| {
            let start = out.len();
            properties.serialize(Object {
                out,
                operation,
                names: &mut Names::new(&[]),
            })?;
            close(out, start, *b"{}");
            Ok(())
        })
    }

    /// An update of this group whose operation's value `write` appends, if there is one.
    fn update(
        &self,
        operation: Operation,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Update<'static> {
        let mut json = Vec::new();
        let written = write_update(&mut json, self, operation, write);
        Update::encoded(json, written)
    }
}

/// The group that a struct maps to.
impl<'a, T: MixpanelGroup> From<&'a T> for Group<'a> {
    fn from(group: &'a T) -> Self {
        group.group()
    }
}

/// The same group, borrowed.
impl<'a> From<&'a Group<'_>> for Group<'a> {
    fn from(group: &'a Group<'_>) -> Self {
        Self {
            key: Cow::Borrowed(&group.key),
            id: Id::from(&group.id),
            company_id: group.company_id.as_ref().map(Id::from),
        }
    }
}

/// Key and id: `company "acme"`.
impl fmt::Display for Group<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.key, self.id)
    }
}
