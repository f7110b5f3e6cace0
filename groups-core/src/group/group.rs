use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use crate::group::Id;
use crate::util::printable::Message;

/// The group that an update is for: its key, its id and, with Hierarchical Groups, its company's id.
///
/// Offers the six operations without a struct; properties come from any map or struct that implements
/// [`Serialize`](https://docs.rs/serde/latest/serde/trait.Serialize.html):
///
/// ```
/// use mixpanel_groups::Group;
/// use serde_json::json;
///
/// let acme = Group::new("company", "acme_corp");
/// let update = acme.set(json!({"plan": "enterprise", "seats": 100}));
/// assert_eq!(
///     update.to_json()?.unwrap(),
///     r#"{"$group_key":"company","$group_id":"acme_corp","$set":{"plan":"enterprise","seats":100}}"#,
/// );
/// # Ok::<(), mixpanel_groups::Error>(())
/// ```
///
/// Names of properties have 1 to 255 characters; a value that serializes to `null` is left out.
///
/// No method fails at once. An empty key or id, a name that is too long, or a value that cannot be JSON is reported when
/// the update is sent, with the names of the group and the property.
/// ([Groups API](https://developer.mixpanel.com/reference/group-profiles))
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group<'a> {
    key: Cow<'a, str>,
    id: Id<'a>,
    company_id: Option<Id<'a>>,
}

impl<'a> Group<'a> {
    /// Returns the group `id` of the group key `key` (`"company"`, `"workspace"`), which must be listed in
    /// the project's settings under Group Keys.
    ///
    /// The id is text, an integer, or with the feature `uuid` a `uuid::Uuid`. Of another type that implements
    /// [`GroupId`](crate::GroupId), pass `id.group_id()`.
    pub fn new(key: impl Into<Cow<'a, str>>, id: impl Into<Id<'a>>) -> Self {
        Self {
            key: key.into(),
            id: id.into(),
            company_id: None,
        }
    }

    /// Sets the company that the group belongs to, in projects with Hierarchical Groups: `$company_id` on every
    /// update.
    #[must_use]
    pub fn in_company(mut self, id: impl Into<Id<'a>>) -> Self {
        self.company_id = Some(id.into());
        self
    }

    /// Returns the group key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the group's id.
    #[must_use]
    pub fn id(&self) -> &Id<'a> {
        &self.id
    }

    /// Returns the id of the company that the group belongs to.
    #[must_use]
    pub fn company_id(&self) -> Option<&Id<'a>> {
        self.company_id.as_ref()
    }

    /// Returns the same group without borrowed data.
    #[must_use]
    pub fn into_owned(self) -> Group<'static> {
        Group {
            key: Cow::Owned(self.key.into_owned()),
            id: self.id.into_owned(),
            company_id: self.company_id.map(Id::into_owned),
        }
    }

    /// Returns the property that links an event to this group: its name is the group key, its value the id.
    ///
    /// It is for code that tracks events without [`Event`](crate::Event), which makes the link itself:
    ///
    /// ```
    /// use mixpanel_groups::Group;
    ///
    /// let mut properties = serde_json::Map::new();
    /// properties.extend([Group::new("company", "acme_corp").link()]);
    /// assert_eq!(properties["company"], "acme_corp");
    /// ```
    ///
    /// With Hierarchical Groups, add the property `$company_id` too, or use [`Event`](crate::Event): Mixpanel takes a
    /// `$user_id` without its company for another user.
    #[must_use]
    pub fn link(&self) -> (String, Value) {
        (self.key().to_owned(), Value::String(self.id.to_string()))
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
        write!(f, "{} {:?}", Message(&self.key), self.id)
    }
}
