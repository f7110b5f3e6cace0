use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::time::SystemTime;

use serde_core::{Serialize, Serializer as _};
use serde_json::value::RawValue;

use super::rules::{
    COMPANY, MAX_GROUPS, MAX_ITEMS, MAX_KEYS, RESERVED, USER, check_distinct_id, check_insert_id,
    check_properties, check_time,
};
use super::time::Time;
use crate::group::{Group, Id, Operation};
use crate::json::escape::push_str;
use crate::json::members::Members;
use crate::json::object::{Names, Object};
use crate::json::sink::IntoSink;
use crate::json::{EncodeError, Sink, push_json};
use crate::record::Encoded;
use crate::record::Error;
use crate::record::Record;
use crate::record::encoded_update::text;
use crate::record::group_hash::hash;
use crate::record::{RecordRef, Rejection};
use crate::util::Buffer;
use crate::util::printable::Name;
use crate::util::random::uuid;

/// An event: something that a user did, linked to the groups that it concerns.
///
/// ```
/// use mixpanel_groups::{Event, Group};
///
/// let acme = Group::new("company", "mixpanel_inc"); // or a derived struct
/// let event = Event::new("Purchase")
///     .distinct_id("user123")
///     .group(&acme)
///     .property("amount", 99.99);
/// # assert!(event.to_json()?.contains(r#""distinct_id":"user123""#));
/// # Ok::<(), mixpanel_groups::Error>(())
/// ```
///
/// Its time is now and its insert id is new, unless others are given. Both are part of the event
/// from the start, so it may be sent any number of times: Mixpanel keeps one event of the same
/// name, time, distinct id and insert id.
/// ([Import API](https://developer.mixpanel.com/reference/import-events))
///
/// No method fails at once. What Mixpanel would reject is reported when the event is imported,
/// with the event's and the property's name: a missing or placeholder id (`"null"`, `"0"`, …), a
/// time before 1971 or more than an hour ahead, 255 or more properties, lists of 255 or more items, objects
/// nested in more than 3 levels or with 255 or more keys, more than 300 groups of one key (Mixpanel would
/// ignore the others), two properties of one name, a property `bucket` or `$ignore` (with which Mixpanel
/// would hide or drop events).
///
/// The properties can be a struct of your own that implements `Serialize`:
///
/// ```
/// #[derive(serde::Serialize)]
/// struct Purchase {
///     amount: f64,
///     coupon: Option<String>, // `None`: left out
/// }
///
/// let purchase = Purchase { amount: 99.99, coupon: None };
/// let event = mixpanel_groups::Event::new("Purchase").distinct_id("user123").properties(&purchase);
/// # assert!(event.to_json()?.ends_with(r#""amount":99.99}}"#));
/// # Ok::<(), mixpanel_groups::Error>(())
/// ```
///
/// In a project with Hierarchical Groups, the event of a company's user carries `$company_id` and `$user_id`
/// together: one without the other is refused, since Mixpanel would take the user for another. So are two users, or two
/// companies beside a user. The event of no user (`distinct_id("")`) may carry `$company_id` alone.
///
/// Mixpanel derives a location from the address that an event comes from, which is the server's: every event
/// is sent with the property `ip` 0, which prevents that, unless it has another `ip`, such as the user's.
#[derive(Clone)]
#[must_use = "an event does nothing until it is imported"]
pub struct Event {
    name: String,
    time: Time,
    distinct_id: Option<String>,
    insert_id: String,
    /// Each group key, with the ids of the groups.
    groups: Vec<(String, Vec<String>)>,
    /// Each further property as `,"name":value`.
    properties: Buffer,
    /// The names of all properties.
    names: Names,
    /// Why it cannot be sent, as far as that is known already.
    wrong: Option<EncodeError>,
}

impl Event {
    /// Returns an event of this name, such as `"Purchase"`, with the current time and a new insert id.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            time: SystemTime::now().into(),
            distinct_id: None,
            insert_id: uuid(),
            groups: Vec::new(),
            properties: Buffer::default(),
            names: Names::without(&RESERVED),
            wrong: None,
        }
    }

    /// Sets when it happened: a [`SystemTime`], [`Time::from_secs`] or [`Time::from_millis`], or an integer, from whose
    /// size it is guessed which of the two it is.
    ///
    /// For a `DateTime` of `chrono`, a `Timestamp` of `jiff` or an `OffsetDateTime` of `time`, pass
    /// `SystemTime::from(it)`.
    pub fn time(mut self, time: impl Into<Time>) -> Self {
        self.time = time.into();
        self
    }

    /// Sets the user. Every event needs this; `""` stands for an event without a user.
    pub fn distinct_id<'i>(mut self, id: impl Into<Id<'i>>) -> Self {
        self.distinct_id = Some(id.into().to_string());
        self
    }

    /// Sets the event's own id, in place of the random UUID that it has from the start: at most 36 of
    /// the characters `A`–`Z`, `a`–`z`, `0`–`9` and `-`.
    ///
    /// Set it and the [`time`](Self::time) for events that are made again from the same data, as by a job that starts
    /// anew after a crash: Mixpanel keeps one event of the same name, time, distinct id and insert id. With another time
    /// it can count twice. ([Import API](https://developer.mixpanel.com/reference/import-events))
    ///
    /// ```
    /// use mixpanel_groups::Event;
    ///
    /// # use std::time::{Duration, SystemTime};
    /// # let renewed_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    /// let renewed = || Event::new("Renewed").distinct_id("user123").insert_id("renewal-7").time(renewed_at);
    /// assert_eq!(renewed(), renewed()); // counts once
    /// ```
    pub fn insert_id<'i>(mut self, id: impl Into<Id<'i>>) -> Self {
        self.insert_id = id.into().to_string();
        self
    }

    /// Links the event to a group: a derived struct or a [`Group`].
    ///
    /// Several groups of one key, at most 300, become a list. With Hierarchical Groups the event is
    /// linked to the group's company too, by `$company_id`.
    /// ([Group analytics](https://docs.mixpanel.com/docs/data-structure/group-analytics))
    pub fn group<'g>(mut self, group: impl Into<Group<'g>>) -> Self {
        let group = group.into();
        self.link(group.key(), group.id());
        if let Some(company) = group.company_id() {
            if group.key() == COMPANY && company != group.id() {
                let message = "a company's id in its company is not its own";
                self.set_wrong(EncodeError::new(message).of(COMPANY));
            }
            self.link(COMPANY, company);
        }
        self
    }

    fn link(&mut self, key: &str, id: &Id<'_>) {
        if key.is_empty() || id.is_empty() {
            return self.set_wrong(EncodeError::new("a group's key or id is empty").of(key));
        }
        let id = id.to_string();
        let found = self.groups.iter_mut().find(|(other, _)| other == key);
        if let Some((_, ids)) = found {
            // One too many shows that there are: more would each be compared with all others.
            if ids.len() <= MAX_GROUPS && !ids.contains(&id) {
                ids.push(id);
            }
            return;
        }
        if self.groups.len() > MAX_KEYS {
            return self.set_wrong(EncodeError::new(format!("more than {MAX_KEYS} properties")));
        }
        match self.names.claim(key.to_owned()) {
            Ok(()) => self.groups.push((key.to_owned(), vec![id])),
            Err(error) => self.set_wrong(error),
        }
    }

    /// Adds a property, unless the value serializes to `null`. The name has 1 to 255 characters.
    pub fn property(self, name: &str, value: impl Serialize) -> Self {
        self.add(|object| IntoSink(object).collect_map([(name, value)]))
    }

    /// Adds the properties of a map or struct, except those that serialize to `null`.
    pub fn properties(self, properties: impl Serialize) -> Self {
        self.add(|object| object.write(&properties))
    }

    fn add(mut self, write: impl FnOnce(Object<'_>) -> Result<(), EncodeError>) -> Self {
        let end = self.properties.len();
        let written = write(Object {
            out: &mut self.properties,
            operation: Operation::Set,
            names: &mut self.names,
        });
        if let Err(error) = written {
            self.properties.truncate(end);
            self.set_wrong(error);
        }
        self
    }

    fn set_wrong(&mut self, error: EncodeError) {
        self.wrong.get_or_insert(error);
    }

    /// Returns the event as it is sent.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidUpdate`](crate::ErrorKind::InvalidUpdate) if the event cannot be imported: the error names event,
    /// property and cause.
    pub fn to_json(&self) -> Result<String, Error> {
        let mut json = Buffer::default();
        json.push(b'{');
        match self.write(&mut json) {
            Ok(_) => text(json),
            Err(rejection) => Err(Error::invalid(&rejection)),
        }
    }

    /// Appends the event's members, from `event` to the closing bracket.
    fn encode(&self, out: &mut Buffer) -> Result<Encoded, EncodeError> {
        let start = out.len();
        self.check()?;
        out.extend_from_slice(b"\"event\":");
        push_str(out, &self.name);
        out.extend_from_slice(b",\"properties\":");
        let properties = out.len();
        out.extend_from_slice(b"{\"time\":");
        push_json(out, &self.time)?;
        out.extend_from_slice(b",\"distinct_id\":");
        push_json(out, &self.distinct_id)?;
        out.extend_from_slice(b",\"$insert_id\":");
        push_str(out, &self.insert_id);
        let head = out.len() - start;
        for (key, ids) in &self.groups {
            out.push(b',');
            push_str(out, key);
            out.push(b':');
            match &ids[..] {
                [id] => push_str(out, id),
                ids => drop(push_json(out, ids)?),
            }
        }
        if !self.names.has("ip") {
            out.extend_from_slice(b",\"ip\":0");
        }
        out.extend_from_slice(&self.properties);
        out.push(b'}');
        let is_group = |name: &str| self.groups.iter().any(|(key, _)| key == name);
        check_properties(&out[properties..], is_group)?;
        out.push(b'}');
        Ok(Encoded {
            operation: None,
            head,
        })
    }

    fn check(&self) -> Result<(), EncodeError> {
        if let Some(error) = &self.wrong {
            return Err(error.clone());
        }
        let of = |field: &'static str| move |message: String| EncodeError::new(message).of(field);
        if self.name.is_empty() {
            return Err(EncodeError::new("the event's name is empty"));
        }
        let Some(distinct_id) = &self.distinct_id else {
            let message = "missing; use \"\" for an event without a user";
            return Err(EncodeError::new(message).of("distinct_id"));
        };
        check_distinct_id(distinct_id).map_err(of("distinct_id"))?;
        check_insert_id(&self.insert_id).map_err(of("$insert_id"))?;
        let too_many = self.groups.iter().find(|(_, ids)| ids.len() > MAX_GROUPS);
        if let Some((key, _)) = too_many {
            let message =
                format!("more than {MAX_GROUPS} groups of one key; Mixpanel ignores the others");
            return Err(EncodeError::new(message).of(key));
        }
        let has = |name| self.names.has(name);
        match (has(COMPANY), has(USER)) {
            (true, false) if !distinct_id.is_empty() => Err(EncodeError::new(
                "`$user_id` is missing: add the user's group, or use the distinct id \"\" for an event without a user",
            )
            .of(COMPANY)),
            (false, true) => Err(EncodeError::new(
                "`$company_id` is missing: without it, Mixpanel counts the user as another one",
            )
            .of(USER)),
            _ => Ok(()),
        }
    }

    /// Returns the event that was written with these members.
    pub(crate) fn read(members: &[u8]) -> Self {
        let json = [b"{", members].concat();
        let json = std::str::from_utf8(&json).expect(WRITTEN);
        Self::parse(json).expect(WRITTEN)
    }

    /// Returns what identifies the event that was written with these members.
    pub(crate) fn name(members: &[u8]) -> RecordRef {
        let json = [b"{", members].concat();
        let parts = std::str::from_utf8(&json).expect(WRITTEN);
        let Parts { name, properties } = Parts::parse(parts).expect(WRITTEN);
        let mut properties = properties.0.iter();
        let insert_id = properties.find(|(name, _)| name == "$insert_id");
        let (name_of_id, value) = insert_id.expect(WRITTEN);
        let insert_id = read_text(name_of_id, value).expect(WRITTEN);
        RecordRef::event(&name, &insert_id)
    }

    /// Parses an event. Returns a message if the JSON is not one.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let Parts { name, properties } = Parts::parse(json)?;
        if let Some(name) = properties.repeated() {
            return Err(format!("two properties have the name {}", Name(name)));
        }
        let mut event = Self::new(name);
        let (mut time, mut insert_id) = (None::<i64>, None);
        for (name, value) in properties.0 {
            match &*name {
                "ip" if value.get() == "0" => {} // As it is written anyway.
                "time" => {
                    let number = serde_json::from_str(value.get());
                    time = Some(number.map_err(|_| "`time` is not an integer")?);
                }
                "distinct_id" => event.distinct_id = Some(read_text(&name, value)?),
                "$insert_id" => insert_id = Some(read_text(&name, value)?),
                name => match serde_json::from_str::<Vec<String>>(value.get()) {
                    // Longer than any other property may be. A still longer list is refused as one, and so is one with
                    // repetitions, which is not one of groups.
                    Ok(ids)
                        if (MAX_ITEMS + 1..=MAX_GROUPS).contains(&ids.len())
                            && ids.iter().collect::<HashSet<_>>().len() == ids.len() =>
                    {
                        for id in ids {
                            event.link(name, &Id::from(id));
                        }
                    }
                    _ => event = event.property(name, value),
                },
            }
        }
        event.time = Time::from(time.ok_or("`time` is missing")?);
        event.insert_id = insert_id.ok_or("`$insert_id` is missing")?;
        Ok(event)
    }

    /// Appends the event's members, however far ahead it is.
    pub(crate) fn write_at_any_time(&self, out: &mut Buffer) -> Result<Encoded, Box<Rejection>> {
        self.encode(out).map_err(|error| self.rejection(error))
    }

    fn rejection(&self, error: EncodeError) -> Box<Rejection> {
        let (property, message) = error.into_parts();
        let record = RecordRef::event(&self.name, &self.insert_id);
        Box::new(Rejection::new(record, property, message))
    }
}

const WRITTEN: &str = "an event that this crate wrote";

/// The name and the properties of an event, as they are written.
struct Parts<'a> {
    name: String,
    properties: Members<'a>,
}

impl<'a> Parts<'a> {
    fn parse(json: &'a str) -> Result<Self, String> {
        let members =
            Members::parse(json).map_err(|error| format!("not a JSON object: {error}"))?;
        if let Some(name) = members.repeated() {
            return Err(format!("duplicate key {}", Name(name)));
        }
        let (mut name, mut properties) = (None, None);
        for (member, value) in members.0 {
            match &*member {
                "event" => name = Some(read_text(&member, value)?),
                "properties" => {
                    let parsed = Members::parse(value.get());
                    properties = Some(parsed.map_err(|_| "`properties` is not an object")?);
                }
                other => return Err(format!("unknown key {}", Name(other))),
            }
        }
        Ok(Self {
            name: name.ok_or("`event` is missing")?,
            properties: properties.ok_or("`properties` is missing")?,
        })
    }
}

fn read_text(name: &str, value: &RawValue) -> Result<String, String> {
    serde_json::from_str(value.get()).map_err(|_| format!("`{name}` is not text"))
}

impl<E: Borrow<Event>> Record for E {
    fn write(&self, out: &mut Buffer) -> Result<Option<Encoded>, Box<Rejection>> {
        let event = self.borrow();
        let checked = check_time(event.time, SystemTime::now());
        match checked {
            Ok(()) => event.write_at_any_time(out).map(Some),
            Err(why) => Err(event.rejection(EncodeError::new(why).of("time"))),
        }
    }

    fn group_hash(&self) -> u64 {
        hash(self.borrow().insert_id.as_bytes())
    }
}

/// A single event can be passed wherever several can: `client.import(event)`.
impl IntoIterator for Event {
    type Item = Self;
    type IntoIter = std::iter::Once<Self>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self)
    }
}

#[allow(clippy::into_iter_without_iter)] // There is one.
impl IntoIterator for &Event {
    type Item = Self;
    type IntoIter = std::iter::Once<Self>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self)
    }
}

/// Two events are equal if the same JSON is sent, or if they cannot be sent for the same reason. So two of
/// [`Event::new`] are not: each has an insert id of its own.
impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        let [mut one, mut two] = <[Buffer; 2]>::default();
        match (
            self.write_at_any_time(&mut one),
            other.write_at_any_time(&mut two),
        ) {
            // A number in milliseconds is another time than the same in seconds.
            (Ok(_), Ok(_)) => one == two && self.time == other.time,
            (one, two) => one.err() == two.err(),
        }
    }
}

/// Returns an event's JSON for people: without a property `token`, in which many SDKs write the project's.
pub(crate) fn shown(json: &str) -> String {
    let mut shown = json.to_owned();
    let properties = Parts::parse(json).map_or_else(|_| Vec::new(), |parts| parts.properties.0);
    for (name, value) in properties {
        if name == "token" || name == "$token" {
            let value = value.get();
            let member = format!("\"{name}\":{value}");
            shown = shown.replace(&member, &format!("\"{name}\":\"[hidden]\""));
        }
    }
    shown
}

/// Without a property `token`.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_json() {
            Ok(json) => write!(f, "Event({})", shown(&json)),
            Err(error) => write!(f, "Event({error})"),
        }
    }
}
