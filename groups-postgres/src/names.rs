use mixpanel_groups::{Error, ErrorKind};

/// The names of the schema and of the main table, with which the names of the others begin; and the kind of records.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) schema: String,
    pub(crate) table: String,
    /// Whether statements are about events.
    is_of_events: bool,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            schema: "public".to_owned(),
            table: "mixpanel_outbox".to_owned(),
            is_of_events: false,
        }
    }
}

impl Names {
    /// Checks that the names need no escapes, and stay below PostgreSQL's 63 bytes with every suffix.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (what, name) in [("schema", &self.schema), ("table", &self.table)] {
            let is_letter = |c: char| c.is_ascii_lowercase() || c == '_';
            let is_valid = name.len() <= 30
                && name.starts_with(is_letter)
                && name.chars().all(|c| is_letter(c) || c.is_ascii_digit());
            if !is_valid {
                let message = format!(
                    "invalid {what} name {name:?}: expected 1 to 30 lower-case letters, digits and \
                     underscores, not starting with a digit"
                );
                return Err(Error::new(ErrorKind::Config, message));
            }
        }
        Ok(())
    }

    /// Returns the same names for statements about events.
    pub(crate) fn of_events(mut self) -> Self {
        self.is_of_events = true;
        self
    }

    /// Returns the kind of records, as the tables have it.
    pub(crate) fn kind(&self) -> &'static str {
        if self.is_of_events { "event" } else { "update" }
    }

    /// Returns SQL that is written for the default names and for updates, with these names in it and for this kind. The
    /// schema is quoted, because it may be a reserved word; behind its dot, the table may be one too. In the name of the
    /// channel, which is text and has a slash, it is not quoted, so that this is the same for the default names.
    pub(crate) fn apply_to(&self, sql: &str) -> String {
        let sql = sql
            .replace("mixpanel_outbox", &self.table)
            .replace("public.", &format!("\"{}\".", self.schema))
            .replace("public/", &format!("{}/", self.schema));
        if self.is_of_events {
            sql.replace("kind = 'update'", "kind = 'event'")
        } else {
            sql
        }
    }

    /// Returns the statement that subscribes to the notifications of publishers.
    pub(crate) fn listen(&self) -> String {
        self.apply_to("LISTEN \"public/mixpanel_outbox\"")
    }
}
