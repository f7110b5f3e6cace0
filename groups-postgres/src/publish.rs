//! Publishing in a transaction of the application.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::OnceLock;

use postgres::GenericClient;
use postgres::types::Type;

use crate::connection::{Params, failed};
use mixpanel_groups::Error;
use mixpanel_groups::record::EncodedRecord;

/// The most bytes of JSON in one statement.
const MAX_BYTES: usize = 64 << 20;

/// Publishes an array of updates and events.
pub(crate) const PUBLISH: &str = "SELECT public.mixpanel_outbox_publish($1, $2)";

/// A connection or transaction of the application in which [`publish_in`](crate::PostgresOutbox::publish_in) publishes:
/// a `Client` or `Transaction` of the crate `postgres`, and with the feature `diesel` a connection of Diesel.
///
/// The parameter distinguishes these two kinds, and is inferred.
#[diagnostic::on_unimplemented(
    message = "the outbox cannot publish on a `{Self}`",
    label = "expected a `Client` or `Transaction` of the crate `postgres`, or a connection of Diesel to PostgreSQL",
    note = "a connection of Diesel needs the feature `diesel` of mixpanel-groups-postgres",
    note = "a connection that a pool has wrapped, such as one of r2d2_postgres, is passed as `&mut *connection`",
    note = "with another driver, such as tokio-postgres or sqlx, call the SQL function `mixpanel_outbox_publish` with \
            `EncodedUpdate::as_json`: see \"With Diesel, sqlx and others\" in the guide"
)]
pub trait PublishIn<Driver>: sealed::Run<Driver> {}

/// The crate `postgres`, as a parameter of [`PublishIn`].
#[derive(Debug)]
pub enum Postgres {}

/// Diesel, as a parameter of [`PublishIn`].
#[cfg(feature = "diesel")]
#[derive(Debug)]
pub enum Diesel {}

#[diagnostic::do_not_recommend]
impl<D, C: sealed::Run<D>> PublishIn<D> for C {}

pub(crate) mod sealed {
    use std::borrow::Cow;

    use mixpanel_groups::Error;

    /// Runs statements on a connection.
    pub trait Run<Driver> {
        fn publish(
            &mut self,
            statement: &str,
            bodies: &[Cow<'_, str>],
            notify: bool,
        ) -> Result<(), Error>;
        fn encoding(&mut self) -> Result<String, Error>;
    }
}

const WHAT: &str = "publish to the outbox";

impl<C: GenericClient> sealed::Run<Postgres> for C {
    fn publish(
        &mut self,
        statement: &str,
        bodies: &[Cow<'_, str>],
        notify: bool,
    ) -> Result<(), Error> {
        let params: &Params<'_> = &[(&bodies, Type::TEXT_ARRAY), (&notify, Type::BOOL)];
        let published = self.query_typed(statement, params);
        published.map(drop).map_err(|error| failed(WHAT, error))
    }

    fn encoding(&mut self) -> Result<String, Error> {
        let rows = self.query_typed(Encoding::QUERY, &[]);
        let name = rows.and_then(|rows| rows.first().map(|row| row.try_get(0)).transpose());
        Ok(name
            .map_err(|error| failed(WHAT, error))?
            .unwrap_or_default())
    }
}

/// Publishes records in order, in one statement unless they are very many.
pub(crate) fn publish<D>(
    connection: &mut impl PublishIn<D>,
    encoding: &Encoding,
    statement: &str,
    notify: bool,
    records: &[EncodedRecord],
) -> Result<(), Error> {
    if encoding.is_missing_for(records) {
        encoding.set(&connection.encoding()?);
    }
    let mut rest = records;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fit = rest.iter().take_while(|record| {
            bytes += record.len();
            bytes <= MAX_BYTES
        });
        let (now, later) = rest.split_at(fit.count().max(1));
        connection.publish(statement, &encoding.bodies(now), notify)?;
        rest = later;
    }
    Ok(())
}

/// Whether the database's encoding has all characters, once that is known. Where it has not, a character in a parameter
/// would fail the transaction, and its escape in JSON does not.
#[derive(Debug, Default)]
pub(crate) struct Encoding(OnceLock<bool>);

impl Encoding {
    pub(crate) const QUERY: &str = "SELECT pg_catalog.getdatabaseencoding()::text";

    /// Returns whether these records need the encoding, and it is not known yet.
    pub(crate) fn is_missing_for(&self, records: &[EncodedRecord]) -> bool {
        let is_ascii = |record: &EncodedRecord| record.as_json().is_ascii();
        self.0.get().is_none() && !records.iter().all(is_ascii)
    }

    /// Records the name of the encoding.
    pub(crate) fn set(&self, name: &str) {
        // Another thread may have been faster, with the same.
        _ = self.0.set(name == "UTF8");
    }

    /// Returns the JSON of records in ASCII, if that is necessary.
    pub(crate) fn bodies<'a>(&self, records: &'a [EncodedRecord]) -> Vec<Cow<'a, str>> {
        let has_all = self.0.get().copied().unwrap_or_default();
        let bodies = records.iter().map(EncodedRecord::as_json);
        bodies
            .map(|json| if has_all { json.into() } else { ascii(json) })
            .collect()
    }
}

/// Returns the same JSON with an escape in place of each character beyond ASCII.
pub(crate) fn ascii(json: &str) -> Cow<'_, str> {
    if json.is_ascii() {
        return json.into();
    }
    let mut ascii = String::with_capacity(json.len() * 2);
    for char in json.chars() {
        if char.is_ascii() {
            ascii.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            // Writing to a text does not fail.
            _ = write!(ascii, "\\u{unit:04x}");
        }
    }
    ascii.into()
}

/// Returns the same JSON with each character beyond ASCII in place of its escape, which is up to three times as long.
pub(crate) fn unicode(json: &str) -> Cow<'_, str> {
    if !json.contains("\\u") {
        return json.into();
    }
    let (mut unicode, mut rest) = (String::with_capacity(json.len()), json);
    while let Some(start) = rest.find('\\') {
        let (before, escape) = rest.split_at(start);
        unicode.push_str(before);
        if let Some((char, after)) = character(escape) {
            unicode.push(char);
            rest = after;
        } else {
            // The second may be a backslash too, which begins no escape.
            let end = escape.char_indices().nth(2);
            let (kept, after) = escape.split_at(end.map_or(escape.len(), |(end, _)| end));
            unicode.push_str(kept);
            rest = after;
        }
    }
    unicode.push_str(rest);
    unicode.into()
}

/// Splits the character beyond ASCII off that the escape of a text is, if it is one.
fn character(escape: &str) -> Option<(char, &str)> {
    let unit = |escape: &str| {
        let digits = escape.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let units = [Some(unit(escape)?), escape.get(6..).and_then(unit)];
    let char = char::decode_utf16(units.into_iter().flatten())
        .next()?
        .ok()?;
    (!char.is_ascii()).then(|| (char, &escape[6 * char.len_utf16()..]))
}
