use std::borrow::Cow;

use diesel::pg::Pg;
use diesel::sql_types::{Array, Bool, Text};
use diesel::{Connection, QueryableByName, RunQueryDsl as _};

use crate::publish::{Diesel, Encoding, sealed};
use mixpanel_groups::{Error, ErrorKind};

impl<C: Connection<Backend = Pg>> sealed::Run<Diesel> for C
where
    C: diesel::connection::LoadConnection,
{
    fn publish(
        &mut self,
        statement: &str,
        bodies: &[Cow<'_, str>],
        notify: bool,
    ) -> Result<(), Error> {
        let bodies: Vec<&str> = bodies.iter().map(AsRef::as_ref).collect();
        let statement = diesel::sql_query(statement).bind::<Array<Text>, _>(bodies);
        let published = statement.bind::<Bool, _>(notify).execute(self);
        published.map(drop).map_err(failed)
    }

    fn encoding(&mut self) -> Result<String, Error> {
        let statement = diesel::sql_query(Encoding::QUERY);
        let row: EncodingName = statement.get_result(self).map_err(failed)?;
        Ok(row.getdatabaseencoding)
    }
}

#[derive(QueryableByName)]
struct EncodingName {
    #[diesel(sql_type = Text)]
    getdatabaseencoding: String,
}

/// The beginning of the message that the function raises if slots are missing: Diesel does not show its SQLSTATE.
const NO_SLOTS: &str = "rows are missing in the table of slots";

fn failed(error: diesel::result::Error) -> Error {
    let (kind, advice) = match &error {
        diesel::result::Error::DatabaseError(_, info) if info.message().starts_with(NO_SLOTS) => {
            (ErrorKind::Damaged, ": run `migrate` again")
        }
        _ => (
            ErrorKind::Io,
            " (if its function is missing, run `migrate` first; if permission is denied, grant EXECUTE on it)",
        ),
    };
    Error::new(kind, format!("cannot publish to the outbox{advice}")).with_source(error)
}
