//! The project's token and the service account, as they come from variables, mounted files and
//! vaults: with a line break at the end, or with quotes around them.

use crate::record::Error;

/// The account that imports events, in place of the project's token.
#[derive(Clone)]
pub(super) struct ServiceAccount {
    pub(super) user: String,
    pub(super) secret: String,
    pub(super) project_id: String,
}

impl ServiceAccount {
    /// Returns the account without the white space around its parts, if each is valid.
    pub(super) fn trimmed(&self) -> Result<Self, Error> {
        let [user, secret, project_id] =
            [&self.user, &self.secret, &self.project_id].map(|text| text.trim());
        // HTTP's Basic authorization ends the user name at the first colon.
        let is_of_user = |char| is_visible(char) && char != ':';
        check("service account's user name", user, is_of_user)?;
        check("service account's secret", secret, is_visible)?;
        check("project id", project_id, is_of_token)?;
        Ok(Self {
            user: user.to_owned(),
            secret: secret.to_owned(),
            project_id: project_id.to_owned(),
        })
    }
}

/// Returns the token without the white space around it, if it is valid. Mixpanel responds `1` to any token, so a malformed
/// one must be found here.
/// ([Track Events](https://developer.mixpanel.com/reference/track-event), responses)
pub(super) fn token(text: &str) -> Result<&str, Error> {
    let token = text.trim();
    check("project token", token, is_of_token)?;
    Ok(token)
}

fn check(name: &str, text: &str, is_valid: fn(char) -> bool) -> Result<(), Error> {
    if text.is_empty() {
        return Err(Error::config(format!("the {name} is empty")));
    }
    let Some(wrong) = text.chars().find(|char| !is_valid(*char)) else {
        return Ok(());
    };
    Err(Error::config(format!(
        "invalid {name}: it contains {}; copy it from the project's settings, without quotes",
        describe(wrong)
    )))
}

fn is_of_token(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '-' || char == '_'
}

fn is_visible(char: char) -> bool {
    char.is_ascii_graphic() && char != '"' && char != '\''
}

/// Names a character, of which some cannot be seen.
fn describe(char: char) -> String {
    match char {
        '"' => "a double quote".to_owned(),
        '\'' => "a single quote".to_owned(),
        ' ' => "a space".to_owned(),
        '\n' | '\r' => "a line break".to_owned(),
        '\u{feff}' => "a byte order mark".to_owned(),
        char if char.is_control() || char.is_whitespace() => format!("{char:?}"),
        char => format!("the character {char:?}"),
    }
}
