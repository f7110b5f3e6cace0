use mixpanel_groups::{Error, ErrorKind};

/// The names of the schema and of the main table, with which the names of the others begin.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) schema: String,
    pub(crate) table: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            schema: "public".to_owned(),
            table: "mixpanel_outbox".to_owned(),
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

    /// Returns SQL that is written for the default names, with these names in it. The schema is quoted,
    /// because it may be a reserved word; behind its dot, the table may be one too.
    pub(crate) fn apply_to(&self, sql: &str) -> String {
        sql.replace("mixpanel_outbox", &self.table)
            .replace("public.", &format!("\"{}\".", self.schema))
    }

    /// Returns the statement that subscribes to the notifications of publishers.
    pub(crate) fn listen(&self) -> String {
        let channel = self.apply_to("public.mixpanel_outbox");
        format!("LISTEN \"{}\"", channel.replace('"', "\"\""))
    }
}
