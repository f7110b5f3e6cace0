use mixpanel_groups::{Error, ErrorKind};

/// Where the tables are.
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
    /// Only names that need no quotes, and stay below PostgreSQL's 63 bytes with all that is added
    /// to them.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for name in [&self.schema, &self.table] {
            let is_letter = |c: char| c.is_ascii_lowercase() || c == '_';
            let is_fine = name.len() <= 30
                && name.starts_with(is_letter)
                && name.chars().all(|c| is_letter(c) || c.is_ascii_digit());
            if !is_fine {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!(
                        "{name:?} cannot name a schema or table here: up to 30 lower-case letters, \
                     digits and underscores can"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// SQL that is written for the default names, with these.
    pub(crate) fn put_into(&self, sql: &str) -> String {
        sql.replace("mixpanel_outbox", &self.table)
            .replace("public.", &format!("{}.", self.schema))
    }
}
